"""Strategy processes as the root keeps them: restarted within bounds, ended with the run."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from supervisors import strategies
from supervisors.child_spec import GroupSpec
from supervisors.group import GroupTask
from supervisors.leftovers import kill_tree, strategies_of
from supervisors.strategies import StrategyHolder, environment_of, key_variables
from supervisors.supervisor import SUPERVISOR_ROLE, Supervisor
from supervisors.tree import strategies_group
from tests.tree_fixtures import PATIENCE_S, byte_of, paper_page, paper_text, records, until
from tripgate.audit.record import Body
from tripgate.clock import NS_PER_S
from tripgate.config.reader import load_text
from tripgate.config.structs import Strategy
from tripgate.gate.slots import claim_strategy_slot, take_role_slot
from tripgate.messages import EventKind
from tripgate.page.layout import ROLE, SLOT, STRATEGY
from tripgate.page.level import LevelWriter
from tripgate.page.mapping import Page
from tripgate.page.names import InstrumentName
from tripgate.processes import is_alive, process_start_time
from tripgate.reasons import Level

SLEEPER = "import os, threading; print(os.getpid(), flush=True); threading.Event().wait()"


def strategy(*command: str) -> Strategy:
    return Strategy(command=command, instruments=("sim/BTC/USDT:USDT",), orders_per_second_max=1)


def script(code: str) -> Strategy:
    return strategy("python", "-c", code)


@pytest.fixture
def page() -> Page:
    page = paper_page()
    take_role_slot(page, SUPERVISOR_ROLE, 1)
    return page


@pytest.fixture
def stranger() -> Iterator[Callable[[], int]]:
    """Start processes that no tree knows of, and end them."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        started.append(subprocess.Popen(["sleep", "600"]))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


MARKET_STEP = 100


def drop(page: Page) -> None:
    """Do what the feed does to a strategy that the market waits for in vain."""
    page.rows(ROLE)["step"][page.names.role("breaker")] = MARKET_STEP
    page.rows(STRATEGY)["dropped"][0] = 1


def is_dropped(page: Page) -> bool:
    return bool(page.rows(STRATEGY)["dropped"][0])


def bodies(page: Page, kind: EventKind) -> list[Body]:
    return [body for found, body in records(page, SUPERVISOR_ROLE) if found is kind]


@asynccontextmanager
async def kept(page: Page, plan: Strategy, logs: Path, **wishes: float) -> AsyncIterator[GroupTask]:
    """Keep one strategy; the spec is the tree's own, but for these wishes."""
    (spec,) = strategies_group(page.names).children
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor(page, {}, nursery)
            holder = StrategyHolder(page, {"trend": plan}, logs, supervisor, nursery)
            wished = replace(spec, back_off_s=0.001, **wishes)  # type: ignore[arg-type]
            group = GroupTask(GroupSpec("strategies", (wished,)), holder)
            nursery.start_soon(holder.watch)
            nursery.start_soon(group.run)
            yield group
            nursery.cancel_scope.cancel()
        supervisor.close()


def log_of(logs: Path) -> str:
    path = logs / "strategy-trend.log"
    return path.read_text() if path.exists() else ""


async def pid_in(logs: Path, number: int = 0) -> int:
    """Wait for the n-th process that has written its pid."""
    await until(lambda: log_of(logs).count("\n") > number)
    return int(log_of(logs).split()[number])


async def test_strategy_when_it_ends_well_then_it_leaves_the_lock_step(
    page: Page, tmp_path: Path
) -> None:
    async with kept(page, script("print('once')"), tmp_path):
        await until(lambda: is_dropped(page))
    assert log_of(tmp_path) == "once\n"
    (down,) = bodies(page, EventKind.STRATEGY_DOWN)
    assert (down["reason"], down["code"], down["incarnation"]) == ("exit code 0", 0, 1)
    (left,) = bodies(page, EventKind.CHILD_LEFT_DOWN)
    assert (left["child"], left["gave_up"]) == ("trend", False)
    assert bodies(page, EventKind.STRATEGY_DROPPED) == []


async def test_strategy_when_started_then_it_knows_where_and_whom_and_it_is_noted(
    page: Page, tmp_path: Path
) -> None:
    names = "(os.environ['TRIPGATE' + name] for name in sys.argv[1:])"
    code = f"import os, sys; print(sys.executable, *{names}, os.getpid())"
    words = ("_INSTANCE", "_STRATEGY", "_TREE_PID", "_SOCKET")
    async with kept(page, strategy("python", "-c", code, *words), tmp_path):
        await until(lambda: is_dropped(page))
    *told, pid = log_of(tmp_path).split()
    assert told == [
        sys.executable, page.names.instance, "trend", str(os.getpid()), page.names.sockets["sim"],
    ]  # fmt: skip
    assert list(strategies_of(page.folder)) == [int(pid)]
    (started,) = bodies(page, EventKind.STRATEGY_STARTED)
    assert started == {"strategy": "trend", "incarnation": 1, "pid": int(pid)}


def test_environment_when_a_strategy_trades_at_several_venues_then_each_has_its_socket(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPGATE_SOCKET", "of somebody else")
    far = InstrumentName("far-away.1", "BTC/USDT", "BTC", "0.1", "0.001", "1")
    page.names = replace(
        page.names, venues=("sim", "far-away.1"), instruments=(*page.names.instruments, far),
        keys=(*page.names.keys, (0, len(page.names.instruments))),
        sockets={"sim": "/near", "far-away.1": "/far"},
    )  # fmt: skip
    told = environment_of(page, "trend")
    sockets = {name: value for name, value in told.items() if name.startswith("TRIPGATE_SOCKET")}
    assert sockets == {"TRIPGATE_SOCKET_SIM": "/near", "TRIPGATE_SOCKET_FAR_AWAY_1": "/far"}
    assert told["PATH"] == os.environ["PATH"]


def test_environment_when_a_venues_key_is_in_a_variable_then_no_strategy_sees_it(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINANCE_KEY", "canary-1f2e3d")
    kind = 'kind = "simulated"'
    text = paper_text().replace(kind, f'{kind}\napi_key = "env:BINANCE_KEY"')
    hidden = key_variables(load_text(text, "paper", {}).config)
    assert hidden == {"BINANCE_KEY"}
    assert "canary-1f2e3d" in environment_of(page, "trend").values()
    assert "canary-1f2e3d" not in environment_of(page, "trend", hidden).values()
    assert key_variables(load_text(paper_text(), "paper", {}).config) == frozenset()


async def test_strategy_when_it_fails_again_and_again_then_it_is_dropped_on_record_and_closed(
    page: Page, tmp_path: Path
) -> None:
    plan = script("print('again', flush=True); raise SystemExit(3)")
    async with kept(page, plan, tmp_path, intensity_max=2):
        await until(lambda: is_dropped(page))
    assert log_of(tmp_path) == "again\n" * 3
    downs = [(b["incarnation"], b["reason"]) for b in bodies(page, EventKind.STRATEGY_DOWN)]
    assert downs == [(n, "exit code 3") for n in (1, 2, 3)]
    (dropped,) = bodies(page, EventKind.STRATEGY_DROPPED)
    assert dropped == {"strategy": "trend", "step": -1, "reason": "exit code 3"}
    (escalated,) = bodies(page, EventKind.ESCALATED)
    assert escalated == {"scope": "strategy:trend", "reason": "trend dies too often"}
    node = page.names.scope("strategy:trend")
    assert byte_of(page, node, LevelWriter.SUPERVISOR) == Level.MEDIUM
    assert byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL


async def test_strategy_when_the_program_is_not_there_then_it_is_dropped_and_said(
    page: Page, tmp_path: Path
) -> None:
    async with kept(page, strategy(str(tmp_path / "gone")), tmp_path):
        await until(lambda: is_dropped(page))
    assert "strategy 'trend': cannot start" in log_of(tmp_path)
    (dropped,) = bodies(page, EventKind.STRATEGY_DROPPED)
    assert "gone" in str(dropped["reason"])


@pytest.mark.parametrize("stop_signal", [None, signal.SIGSTOP])
async def test_strategy_when_it_was_dropped_from_a_replay_then_it_is_killed_and_stays_out(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_signal: int | None
) -> None:
    monkeypatch.setattr(strategies, "SILENT_NS", 0)
    async with kept(page, script(SLEEPER), tmp_path):
        pid = await pid_in(tmp_path)
        if stop_signal:
            os.kill(pid, stop_signal)
        drop(page)
        await until(lambda: bool(bodies(page, EventKind.CHILD_LEFT_DOWN)))
    (down,) = bodies(page, EventKind.STRATEGY_DOWN)
    assert (down["reason"], down["code"]) == ("hung", -signal.SIGKILL)
    assert is_dropped(page)
    assert bodies(page, EventKind.ESCALATED) == []


async def test_strategy_when_it_was_dropped_but_moves_on_then_it_is_left_alone(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "SILENT_NS", NS_PER_S)
    slot = claim_strategy_slot(page, 0)
    row = page.rows(SLOT)[slot]
    row["participating"] = 1
    drop(page)
    async with kept(page, script(SLEEPER), tmp_path):
        await pid_in(tmp_path)
        for step in range(12):
            row["step"] = step
            await trio.sleep(0.1)
        assert bodies(page, EventKind.STRATEGY_DOWN) == []
        row["step"] = MARKET_STEP
        await trio.sleep(1.2)
        assert bodies(page, EventKind.STRATEGY_DOWN) == [], (
            "a market that stands, or a breaker, is not its fault"
        )
        page.rows(ROLE)["step"][page.names.role("breaker")] += 1
        await until(lambda: bool(bodies(page, EventKind.STRATEGY_DOWN)))
    (down,) = bodies(page, EventKind.STRATEGY_DOWN)
    assert down["reason"] == "hung"


async def test_strategy_when_it_was_dropped_from_a_live_market_then_it_is_killed_and_comes_back(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "SILENT_NS", 0)
    page.header["replay"] = 0
    async with kept(page, script(SLEEPER), tmp_path):
        first = await pid_in(tmp_path)
        drop(page)
        assert await pid_in(tmp_path, 1) != first
        assert not is_dropped(page)


@pytest.mark.parametrize(
    ("action", "code"), [("signal.SIG_DFL", -signal.SIGTERM), ("signal.SIG_IGN", -signal.SIGKILL)]
)
async def test_strategy_when_its_group_is_stopped_then_it_is_asked_and_then_killed(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, code: int
) -> None:
    monkeypatch.setattr(strategies, "STRATEGY_END_WAIT_S", 0.05)
    ignoring = f"import signal; signal.signal(signal.SIGTERM, {action}); {SLEEPER}"
    async with kept(page, script(ignoring), tmp_path, grace_s=0.3) as group:
        await pid_in(tmp_path)
        group.stop()
        await group.down.wait()
    (down,) = bodies(page, EventKind.STRATEGY_DOWN)
    assert down["code"] == code
    assert not is_dropped(page)


async def test_strategy_when_the_root_gives_way_then_its_process_ends_with_it(
    page: Page, tmp_path: Path
) -> None:
    async with kept(page, script(SLEEPER), tmp_path):
        pid = await pid_in(tmp_path)
        start = process_start_time(pid)
    assert not is_alive(pid, start)


async def test_kill_tree_when_its_root_is_gone_then_what_it_started_is_killed_and_nobody_else(
    page: Page, tmp_path: Path, stranger: Callable[[], int]
) -> None:
    outside = stranger()
    actor = stranger()
    row = page.rows(ROLE)[page.names.role("breaker")]
    row["pid"], row["start_time"] = actor, process_start_time(actor)
    async with kept(page, script(SLEEPER), tmp_path):
        pid = await pid_in(tmp_path)
        for one in (pid, actor):
            os.kill(one, signal.SIGSTOP)
        start = process_start_time(pid)
        assert kill_tree(page.folder, 1) == 0, "the page of another root"
        assert is_alive(pid, start)
        assert kill_tree(page.folder, int(page.header["owner_pid"])) == 2
        await until(lambda: process_start_time(actor) == 0)
        await until(lambda: not is_alive(pid, start))
    assert process_start_time(outside)
    assert kill_tree(tmp_path, os.getpid()) == 0, "no page at all"
