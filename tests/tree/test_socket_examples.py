"""Strategies without our package, in Python and in C, trade under the gate of a paper run.

The router is killed once meanwhile: they come back through its successor. Both are started by the
tree as any strategy is, from a configuration that names them; one run serves both, because a tree
takes seconds to start. Where there is no C compiler, the C client's place is taken by the Python
one, and what is about C alone is skipped.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from supervisors.paper_config import render_paper_config
from tests.tree.paper_runs import ROOT, PaperRun, paper_run, role_row, wait_until
from tripgate.messages import EventKind
from tripgate.processes import kill_if_same

EXAMPLES = ROOT / "examples"
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
COMPILER = shutil.which("cc") or shutil.which("gcc")
FILLS = 10
"""Trades to wait for: in each step both guests open or close."""
STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
COMPILE_BOUND_S = 120.0


def build(folder: Path) -> list[str]:
    """Return the command of the client in C, or of the one in Python if nothing compiles C."""
    if COMPILER is None:
        return ["python", str(EXAMPLES / "socket_python.py")]
    program = folder / "socket_client"
    source = str(EXAMPLES / "socket_client.c")
    subprocess.run(
        [COMPILER, *STRICT, "-o", str(program), source], check=True, timeout=COMPILE_BOUND_S
    )
    return [str(program)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperRun]:
    folder: Path = tmp_path_factory.mktemp("guests")
    commands = {"pulse": ["python", str(EXAMPLES / "socket_python.py")], "trend": build(folder)}
    text = render_paper_config(SYMBOLS, list(commands), Decimal(1))
    for name, command in commands.items():
        demo = f'["python", "-m", "tripgate.demo.{name}", "--gross", "1"]'
        assert demo in text
        text = text.replace(demo, "[" + ", ".join(f'"{part}"' for part in command) + "]")
    (folder / "tripgate.toml").write_text(text)
    with paper_run() as run:
        feed = ("--feed", "generator:calm", "--speed", "max")
        run.start("--config", str(folder / "tripgate.toml"), *feed)
        page = run.armed_page()
        router = role_row(page, "router(sim)")
        wait_until(lambda: int(router["last_trade"]) > FILLS, "fills of both guests")
        before = int(router["last_trade"])
        kill_if_same(int(router["pid"]), int(router["start_time"]), signal.SIGKILL)
        wait_until(lambda: int(router["incarnation"]) == 2, "the router's successor")
        wait_until(lambda: int(router["last_trade"]) > before + FILLS, "fills after its death")
        run.interrupt()
        yield run


@pytest.mark.parametrize("strategy", ["pulse", "trend"])
def test_guest_when_the_tree_starts_it_then_it_trades_under_the_gate(
    run: PaperRun, strategy: str
) -> None:
    if strategy == "trend" and COMPILER is None:
        pytest.skip("no C compiler here: apt-get install gcc")
    assert run.wait() == 0, run.last_words
    log = (run.state / "logs" / f"strategy-{strategy}.log").read_text()
    attached = [body["strategy"] for body in run.bodies(EventKind.GUEST_ATTACHED)]
    assert attached.count(strategy) == 2, log
    assert "the router hung up" in log
    fills = [b for b in run.bodies(EventKind.FILL) if b["strategy"] == strategy]
    assert len(fills) > 2, log
    # What it held when the router died is closed together with the lot that it bought after that.
    assert {int(str(body["lots"])) for body in fills} <= {1, -1, -2}, "it closes what it bought"


def test_run_when_guests_trade_then_it_is_a_run_like_any_other(run: PaperRun) -> None:
    summary = run.summary
    assert summary["audit"]["verified"]
    assert summary["restarts"] == 1, "the router's alone: a strategy is no actor"
    assert summary["overshoot_at_grant_max"] <= 0
    ended = [(body["strategy"], body["reason"]) for body in run.bodies(EventKind.GUEST_ENDED)]
    orderly = {"it hung up", "the connection was reset", "the router ended"}
    assert {reason for _, reason in ended} <= orderly, ended
