"""Strategy processes as the root keeps them: restarted within bounds, ended with the run."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from supervisors import strategies
from supervisors.child_spec import ChildSpec
from supervisors.strategies import environment_of, keep_strategy
from tests.tree_fixtures import INSTANCE, PATIENCE_S, paper_page, until
from tripgate.config.structs import Strategy
from tripgate.page.layout import STRATEGY
from tripgate.page.mapping import Page
from tripgate.processes import is_alive, process_start_time


def strategy(*command: str) -> Strategy:
    return Strategy(command=command, instruments=("sim/BTC/USDT:USDT",), orders_per_second_max=1)


def script(code: str) -> Strategy:
    return strategy("python", "-c", code)


@pytest.fixture
def page() -> Page:
    return paper_page()


def is_dropped(page: Page) -> bool:
    return bool(page.rows(STRATEGY)["dropped"][0])


async def kept(page: Page, plan: Strategy, logs: Path) -> str:
    """Keep a strategy until nobody keeps it any more; return its log."""
    with trio.fail_after(PATIENCE_S):
        await keep_strategy(page, "trend", plan, logs)
    return (logs / "strategy-trend.log").read_text()


async def test_keep_strategy_when_it_ends_well_then_it_leaves_the_lock_step(
    page: Page, tmp_path: Path
) -> None:
    assert await kept(page, script("print('once')"), tmp_path) == "once\n"
    assert is_dropped(page)


async def test_keep_strategy_when_started_then_it_knows_where_and_whom(
    page: Page, tmp_path: Path
) -> None:
    names = "(os.environ['TRIPGATE_' + name] for name in sys.argv[1:])"
    code = f"import os, sys; print(sys.executable, *{names})"
    plan = strategy("python", "-c", code, "INSTANCE", "STRATEGY", "TREE_PID")
    assert (await kept(page, plan, tmp_path)).split() == [
        sys.executable, INSTANCE, "trend", str(os.getpid()),
    ]  # fmt: skip
    assert environment_of(page, "x")["PATH"] == os.environ["PATH"]


async def test_keep_strategy_when_it_fails_again_and_again_then_it_is_dropped(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = partial(ChildSpec, intensity_max=2, back_off_s=0.001)
    monkeypatch.setattr(strategies, "ChildSpec", spec)
    log = await kept(page, script("print('again', flush=True); raise SystemExit(3)"), tmp_path)
    assert log == "again\n" * 3
    assert is_dropped(page)


async def test_keep_strategy_when_the_program_is_not_there_then_it_is_dropped_and_said(
    page: Page, tmp_path: Path
) -> None:
    log = await kept(page, strategy(str(tmp_path / "gone")), tmp_path)
    assert "cannot start strategy 'trend'" in log
    assert "gone" in log
    assert is_dropped(page)


@pytest.mark.parametrize("ignores", [False, True])
async def test_keep_strategy_when_the_run_ends_then_the_process_ends_even_if_it_will_not(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores: bool
) -> None:
    monkeypatch.setattr(strategies, "END_WAIT_S", 0.2)
    action = "signal.SIG_IGN" if ignores else "signal.SIG_DFL"
    code = (
        f"import os, signal, threading; signal.signal(signal.SIGTERM, {action})\n"
        "print(os.getpid(), flush=True); threading.Event().wait()"
    )
    path = tmp_path / "strategy-trend.log"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_strategy, page, "trend", script(code), tmp_path)
        await until(lambda: path.exists() and path.read_text().endswith("\n"))
        pid = int(path.read_text())
        start = process_start_time(pid)
        nursery.cancel_scope.cancel()
    await until(lambda: not is_alive(pid, start))
    assert not is_dropped(page)
