"""``tripgate paper``: every option judged before anything starts, and what is made of them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange_adapters.market.replay import PANEL_FILE
from supervisors.launcher import PaperPlan
from tests.tree_fixtures import paper_page, paper_text
from tripgate.audit.record import Row, pack_body
from tripgate.audit.store import LogWriter
from tripgate.cli import engine, paper_plan
from tripgate.cli.app import main
from tripgate.cli.paper import _conclude, _try_open
from tripgate.cli.paper_plan import DEFAULT_WINDOW, PaperOptions, make_plan
from tripgate.clock import utc_ns
from tripgate.config.reader import load_text
from tripgate.errors import (
    ChainBrokenError,
    ConfigError,
    DataError,
    MissingPartError,
    UsageError,
)
from tripgate.instance import page_folder, state_root
from tripgate.messages import EventKind
from tripgate.reasons import Level

CRASH = "generator:crash"


def plan(**options: Any) -> PaperPlan:
    return make_plan(PaperOptions(**{"feed": CRASH, "instance": "test-1", **options}))


def panel(folder: Path, *coins: str) -> Path:
    """Write a small, sound panel and return its folder."""
    folder.mkdir(parents=True)
    prices = np.full((6, len(coins)), 100.0, dtype=np.float32)
    np.savez(
        folder / PANEL_FILE, ts=1_621_382_400_000 + 300_000 * np.arange(6, dtype=np.int64),
        symbols=np.array(coins), open=prices, high=prices, low=prices, close=prices,
        volume=prices,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--feed", CRASH, "--replay", "x"], "--feed and --replay exclude each other"),
        (["--feed", "nonsense"], "names no feed: write replay:DIR or generator:NAME"),
        (["--feed", "nonsense:x"], "names no feed"),
        (["--feed", "public:binance"], "arrives with the ccxt adapter"),
        (["--feed", "generator:crahs"], "crahs"),
        (["--feed", CRASH, "--speed", "0"], "--speed is a number above zero, or max; was '0'"),
        (["--feed", CRASH, "--speed", "-1"], "--speed is"),
        (["--feed", CRASH, "--speed", "nan"], "--speed is"),
        (["--feed", CRASH, "--speed", "inf"], "--speed is"),
        (["--feed", CRASH, "--speed", "fast"], "--speed is"),
        (["--feed", CRASH, "--gross", "0"], "--gross is a multiple of equity above 0"),
        (["--feed", CRASH, "--gross", "101"], "--gross is"),
        (["--feed", CRASH, "--gross", "NaN"], "--gross is"),
        (["--feed", CRASH, "--gross", "much"], "--gross is"),
        (["--feed", CRASH, "--duration", "0"], "--duration is a number of seconds above zero"),
        (["--feed", CRASH, "--duration", "-3"], "--duration is"),
        (["--feed", CRASH, "--duration", "nan"], "--duration is"),
        (["--feed", CRASH, "--duration", "soon"], "soon"),
        (["--feed", CRASH, "--strategy", "scalp"], "--strategy names some of trend, hold, pulse"),
        (["--feed", CRASH, "--strategy", "trend,scalp"], "--strategy names some of"),
        (["--feed", CRASH, "--strategy", ","], "--strategy names some of"),
        (["--feed", CRASH, "--venues", "a,b"], "one simulated venue per instance"),
        (["--feed", CRASH, "--venues", "A"], "cannot name an instance"),
        (["--feed", CRASH, "--venues", ","], "one simulated venue"),
        (["--feed", CRASH, "--instance", "No Name"], "cannot name an instance"),
        (["--feed", CRASH, "--from", "yesterday"], "yesterday"),
        (["--feed", CRASH, "--seed", "-1"], "seed"),
        (["--feed", CRASH, "--seed", "x"], "seed"),
        (["--fed", CRASH], "--fed"),
    ],
)
def test_paper_when_an_option_makes_no_sense_then_exit_2_one_message_and_nothing_began(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("tripgate: ")
    assert not list(state_root().iterdir()), "no name was taken, no state was made"
    assert not list(page_folder("x").parent.iterdir())


def test_make_plan_when_all_is_default_then_it_is_the_generators_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("TRIPGATE_PANELS", str(tmp_path / "none"))
    made = make_plan(PaperOptions())
    assert (made.feed, made.start, made.stop, made.speed) == (CRASH, None, None, 240.0)
    assert (made.venue, made.equity, made.duration_s, made.seed) == ("sim", Decimal(100_000), 0, 0)
    assert made.instance == "paper-1"
    assert (state_root() / "paper-1").is_dir(), "a fresh name is taken at once"
    config = load_text(made.config_text, "again", {})
    assert list(config.config.strategies) == ["hold", "pulse"]
    assert config.config_sha256 == made.config_sha256


def test_make_plan_when_the_recorded_crash_is_here_then_it_is_played(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = panel(tmp_path / paper_plan.DEFAULT_PANEL, "BTC", "ETH")
    monkeypatch.setenv("TRIPGATE_PANELS", str(tmp_path))
    made = make_plan(PaperOptions(instance="test-1"))
    assert made.feed == f"replay:{folder}"
    assert (made.start, made.stop) == DEFAULT_WINDOW
    assert made.speed == 1_200.0
    named = make_plan(PaperOptions(instance="test-1", start="2021-05-19T00:10"))
    assert (named.start, named.stop) == ("2021-05-19T00:10", None)


def test_make_plan_when_a_replay_is_named_then_it_is_short_for_the_feed(tmp_path: Path) -> None:
    folder = panel(tmp_path / "mine", "BTC", "ETH")
    made = plan(feed=None, replay=str(folder), strategy="hold", speed="max")
    assert (made.feed, made.speed) == (f"replay:{folder}", 0.0)


def test_make_plan_when_options_are_given_then_they_are_in_the_plan() -> None:
    made = plan(venues=" desk ", strategy="trend , hold,trend", gross="0.25", speed="12.5",
                duration=3.0, seed=7)  # fmt: skip
    assert (made.venue, made.speed, made.duration_s, made.seed) == ("desk", 12.5, 3.0, 7)
    config = load_text(made.config_text, "again", {}).config
    assert list(config.strategies) == ["trend", "hold"]
    assert config.strategies["hold"].command[-1] == "0.25"
    assert list(config.venues) == ["desk"]


def test_make_plan_when_there_are_more_strategies_than_symbols_then_it_says_so(
    tmp_path: Path,
) -> None:
    folder = panel(tmp_path / "one", "BTC")
    with pytest.raises(UsageError, match="the feed has 1 symbols, too few for 2 strategies"):
        plan(feed=None, replay=str(folder))


def test_make_plan_when_the_replay_is_not_there_then_it_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        plan(feed=None, replay=str(tmp_path / "gone"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tripgate.toml"
    path.write_text(text)
    return path


def test_make_plan_when_a_config_is_given_then_it_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = paper_text().replace("sim/", "desk/").replace("s.sim]", "s.desk]")
    text += '[alerts]\non_level_command = ["true"]\n'
    made = plan(config=write(tmp_path, text), venues="other", gross="nonsense")
    assert (made.venue, made.config_text) == ("desk", text)
    assert "alerts.on_level_command is not run by this release" in capsys.readouterr().err


@pytest.mark.parametrize("change", [('"simulated"', '"live"'), ("[strategies.trend]", "")])
def test_make_plan_when_the_config_cannot_be_run_on_paper_then_it_says_so(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError):
        plan(config=write(tmp_path, paper_text().replace(*change)))


def test_require_engine_when_tractor_is_missing_then_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.require_engine()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"-m pip install --no-deps tractor==0\.1\.0a5"):
        engine.require_engine()
    assert main(["paper", "--feed", CRASH]) == 4
    assert "pip install" in capsys.readouterr().err


def test_try_open_when_the_page_is_an_earlier_runs_then_it_is_not_taken() -> None:
    page = paper_page()
    owner = int(page.header["owner_pid"])
    assert _try_open(page.names.instance, owner) is not None
    assert _try_open(page.names.instance, owner + 1) is None
    assert _try_open("nobody", owner) is None


SUMMARY = {
    "schema": 1, "equity": None, "level_max": Level.HARD.name,
    "levels": [[1_621_382_400_000, "portfolio", "HARD", "drawdown"]], "audit": {"verified": True},
}  # fmt: skip


def test_conclude_when_a_run_ends_then_its_summary_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supervisors.summary.summarise", lambda page, armed_s: SUMMARY)
    _conclude(paper_page(), 1.234, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "  2021-05-19 00:00:00  portfolio  HARD  drawdown" in lines
    assert "equity: None" in lines


@pytest.mark.parametrize("as_json", [True, False])
def test_conclude_when_the_log_does_not_verify_then_it_is_printed_and_the_command_fails(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Damaged logs are made by the tests of the log; here only what follows from one counts.
    broken = SUMMARY | {"audit": {"verified": False}}
    monkeypatch.setattr("supervisors.summary.summarise", lambda page, armed_s: broken)
    with pytest.raises(ChainBrokenError, match="does not verify"):
        _conclude(paper_page(), 1.0, as_json=as_json)
    assert "verified" in capsys.readouterr().out


def test_conclude_when_json_is_wanted_then_it_is_one_object_from_page_and_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = paper_page()
    state = Path(page.names.state_folder)
    with LogWriter(state / "audit", state / "heads") as log:
        body = pack_body({"epoch": 1})
        log.append([Row(1, 0, 1, utc_ns(), 1, 1, int(EventKind.ARMED), None, body)])
    _conclude(page, 1.236, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["armed_s"], told["instance"], told["steps"]) == (1.24, "paper-1", 0)
    assert (told["audit"]["rows"], told["audit"]["verified"]) == (1, True)
    assert told["decisions"]["approved"] == 0
    assert (told["flat"], told["level_max"], told["overshoot_at_grant_max"]) == (
        True, "NORMAL", None,
    )  # fmt: skip


def test_conclude_when_the_run_was_never_armed_then_its_missing_log_is_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _conclude(paper_page(), None, as_json=True)
    assert json.loads(capsys.readouterr().out)["audit"]["rows"] == 0
