"""``tripgate status``: exit codes, what is printed, without processes and without numba."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli_pages import BREAKER, FEED, hold, make_instance
from tripgate.cli.app import main
from tripgate.clock import NS_PER_S, host_ns
from tripgate.instance import InstanceLock, page_folder
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import ACCOUNT, BOARD, KEY, LEASE, LIMIT, ROLE, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX

ROOT = Path(__file__).resolve().parents[2]


def test_status_when_the_instance_runs_then_it_prints_everything_and_exits_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    drawdown = CauseState(Level.HARD, 200_000, latched=True, verdict=Verdict.FRESH)
    hold(page, {CauseKey(Cause.DRAWDOWN, 0): drawdown})
    set_level(page, 3, LevelWriter.OPERATOR, Level.MEDIUM)
    page.rows(KEY)["closable"][0] = -250 << 32
    page.rows(SLOT)["approved"][16] = 4
    page.rows(SLOT)["denied"][16][DenyReason.LEVEL] = 9
    page.rows(SLOT)["denied"][16][DenyReason.MARK_STALE] = 2
    with InstanceLock("paper-1"):
        assert main(["status"]) == 0
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "level HARD, closed for openings" in lines
    assert "portfolio HARD breaker 0.00 1000.00 0.00 0.00 none" in lines
    assert "strategy:trend MEDIUM operator 0.00 1000.00 0.00 0.00 none" in lines
    assert "drawdown portfolio HARD 20.00% latched" in lines
    assert "portfolio 800.00 1000.00 20.00% 20.00%" in lines
    assert "trend sim/BTC/USDT:USDT -0.250 -250" in lines
    assert lines[-3:] == ["approved 4", "denied LEVEL 9", "denied MARK_STALE 2"]
    assert captured.err == ""


def test_status_when_nothing_is_wrong_then_it_says_open_and_shows_lease_ages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    page.rows(ROLE)["pid"][BREAKER] = 4711
    assert main(["status", "--instance", "paper-1"]) == 0
    out = capsys.readouterr().out
    assert "level     NORMAL, open for openings" in out
    breaker = next(line for line in out.splitlines() if line.startswith("breaker"))
    role, critical, state, age, unit, pid, restarts = breaker.split()
    assert (role, critical, state, unit, pid, restarts) == (
        "breaker", "critical", "live", "ms", "4711", "0",
    )  # fmt: skip
    assert 0 <= int(age) < 3_600_000


def test_status_when_ticks_were_published_then_the_board_shows_prices_and_ages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    tick = Quote(500_000, 499_990, 499_950, 500_050, int(page.header["market_ms"]) - 250, 7, 0)
    write_quote(page, 0, tick, host_ns() - NS_PER_S)
    page.rows(BOARD)["bars"][0] = 12
    assert main(["status", "--instance", "paper-1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["board"]["sim/BTC/USDT:USDT"]
    assert row.pop("age_host_ms") >= 1_000
    assert row == {
        "mark": "50000.0", "index": None, "last": "49999.0", "bid": "49995.0", "ask": "50005.0",
        "age_market_ms": 250, "bars": 12,
    }  # fmt: skip
    assert main(["status", "--instance", "paper-1"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("sim/BTC")]
    assert lines[0][:8] == [
        "sim/BTC/USDT:USDT", "50000.0", "-", "49995.0", "50005.0", "49999.0", "250", "ms",
    ]  # fmt: skip
    assert lines[0][-1] == "12"


def test_status_when_a_row_cannot_be_read_then_no_price_is_made_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    page.rows(BOARD)["sequence"][0], page.rows(BOARD)["mark"][0] = 3, 500_000
    assert main(["status", "--instance", "paper-1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["board"]["sim/BTC/USDT:USDT"]
    assert {row[name] for name in row if name != "bars"} == {None}


def test_status_when_the_root_is_dead_then_it_prints_the_last_state_and_exits_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    set_level(page, 0, LevelWriter.BREAKER, Level.HARD)
    assert main(["status", "--instance", "paper-1", "--exit-level"]) == 3
    captured = capsys.readouterr()
    assert "root      DEAD" in captured.out
    assert "level     HARD, closed for openings" in captured.out
    assert "is dead: this is the last state" in captured.err


def test_status_when_the_run_has_ended_then_it_says_so_and_exits_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_instance().header["ended"] = 1
    assert main(["status", "--instance", "paper-1"]) == 3
    captured = capsys.readouterr()
    assert "root      ended" in captured.out
    assert "has ended" in captured.err


@pytest.mark.parametrize(
    ("level", "code"),
    [
        (Level.NORMAL, 0), (Level.SOFT, 11), (Level.MEDIUM, 12), (Level.HARD, 13),
        (Level.EMERGENCY, 14),
    ],
)  # fmt: skip
def test_exit_level_when_any_scope_is_at_a_level_then_it_is_that_code(
    level: Level, code: int
) -> None:
    page = make_instance()
    set_level(page, 4, LevelWriter.KEEPER, level)
    assert main(["status", "--instance", "paper-1", "--exit-level"]) == code
    assert main(["status", "--instance", "paper-1"]) == 0


@pytest.mark.parametrize(
    ("level", "code"), [(Level.NORMAL, 20), (Level.SOFT, 20), (Level.MEDIUM, 12), (Level.HARD, 13)]
)
def test_exit_level_when_a_critical_lease_has_lapsed_then_the_worse_of_both_speaks(
    level: Level, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    set_level(page, 0, LevelWriter.BREAKER, level)
    page.rows(LEASE)["deadline_ns"][FEED] = 0
    assert main(["status", "--instance", "paper-1", "--exit-level"]) == code
    out = capsys.readouterr().out
    assert "LAPSED" in out
    assert "closed for openings" in out


def test_status_when_json_is_asked_for_then_one_object_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    page.rows(LEASE)["deadline_ns"][FEED] = 0
    page.rows(ROLE)["stale"][FEED] = 1
    assert main(["status", "--instance", "paper-1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1
    assert printed["running"] is True
    assert printed["ended"] is False
    assert printed["leases"]["market_feed(sim)"]["stale"] is True
    assert printed["open_for_openings"] is False
    assert printed["nodes"]["portfolio"]["net_max"] == "none"


def test_status_when_a_page_folder_is_named_then_that_page_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_instance()
    copy = tmp_path / "kept"
    shutil.copytree(page_folder("paper-1"), copy)
    assert main(["status", "--page", str(copy)]) == 0
    assert "instance  paper-1" in capsys.readouterr().out
    assert main(["status", "--page", str(copy), "--instance", "paper-1"]) == 2
    assert main(["status", "--page", str(tmp_path / "none")]) == 3


def test_status_when_there_is_no_instance_then_it_exits_3_and_names_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status"]) == 3
    assert "no instance is running" in capsys.readouterr().err
    make_instance("paper-9")
    assert main(["status"]) == 3
    assert "paper-9" in capsys.readouterr().err


def test_status_when_equity_is_unknown_then_no_number_is_made_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    page.rows(ACCOUNT)["stale"][0] = 1
    page.rows(LIMIT)["gross_max"][0] = INT_MAX
    assert main(["status", "--instance", "paper-1"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "portfolio unknown 1000.00 20.00% 20.00%" in lines
    assert "portfolio NORMAL - 0.00 none 0.00 0.00 none" in lines


def test_status_when_run_then_no_heavy_package_is_imported() -> None:
    make_instance()
    program = (
        "import sys; from tripgate.cli.app import main; "
        "code = main(['status', '--instance', 'paper-1', '--json']); "
        "heavy = {'numba', 'llvmlite', 'trio', 'tractor', 'ccxt', 'onnxruntime'}; "
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules)))); sys.exit(code)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0
