"""The supervisor over real small processes: what a death, a hang and an escalation do to the page.

Only tractor is left out: ``runtime.open_child`` is replaced by one that starts ``sleep``, because
what the supervisor promises it promises of any process. Whole trees are started in ``tests/tree``.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from actors import runtime
from supervisors import supervisor as module
from supervisors.child_spec import ChildSpec
from supervisors.supervisor import SUPERVISOR_ROLE, Supervisor
from tests.tree_fixtures import byte_of, kinds, paper_page, records, until, vouch
from tripgate.clock import NS_PER_MS, host_ns
from tripgate.gate.slots import take_role_slot
from tripgate.messages import EventKind
from tripgate.page.layout import HOLDER, LEASE, RING_BYTES, ROLE, SLOT
from tripgate.page.lease import LeaseHolder
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.processes import is_alive
from tripgate.reasons import Level

PATIENCE_S = 60.0
BREAKER = ChildSpec("breaker", "breaker", back_off_s=0.01)
FEED = ChildSpec("market_feed(sim)", "market_feed", "sim", intensity_max=1, back_off_s=0.01)


class Context:
    """The call that an actor's life is; it ends when the test says so."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.error: Exception | None = None

    async def result(self) -> None:
        await self.over.wait()
        if self.error is not None:
            raise self.error


@dataclass
class Nursery:
    """Hands out processes as tractor would, and remembers what it was asked for."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    children: list[runtime.Child] = field(default_factory=list)
    fails: bool = False

    @asynccontextmanager
    async def open_child(
        self,
        name: str,
        arguments: dict[str, Any],
        on_spawn: Callable[[trio.Process], None],
        on_end: Callable[[BaseException | None], None],
    ) -> AsyncIterator[runtime.Child]:
        self.asked.append((name, arguments))
        if self.fails:
            raise runtime.ChildStartError("no process to be had")
        process = await trio.lowlevel.open_process(["sleep", "600"])
        try:
            on_spawn(process)
            child = runtime.Child(process.pid, process, Context(), {})
            self.children.append(child)
            yield child
        finally:
            on_end(sys.exception())
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def child(self, number: int) -> runtime.Child:
        """Return the n-th child once it has started."""
        await until(lambda: len(self.children) > number)
        return self.children[number]


@pytest.fixture
def page() -> Page:
    page = paper_page()
    take_role_slot(page, SUPERVISOR_ROLE, 1)
    return page


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Nursery:
    nursery = Nursery()
    monkeypatch.setattr(runtime, "open_child", nursery.open_child)
    return nursery


@asynccontextmanager
async def keeping(page: Page, *specs: ChildSpec, watch: bool = False) -> AsyncIterator[Supervisor]:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {"speed": 1.0}, nursery)
        for spec in specs:
            nursery.start_soon(supervisor.keep, spec, trio.Event())
        if watch:
            nursery.start_soon(supervisor.watch)
        yield supervisor
        supervisor.stopping = True
        nursery.cancel_scope.cancel()
    supervisor.close()


def kept(page: Page, spec: ChildSpec = BREAKER) -> AbstractAsyncContextManager[Supervisor]:
    return keeping(page, spec)


async def test_keep_when_a_child_starts_then_its_row_names_the_process(
    page: Page, children: Nursery
) -> None:
    role = page.names.role("breaker")
    async with trio.open_nursery() as nursery:
        supervisor, ready = Supervisor(page, {"speed": 1.0}, nursery), trio.Event()
        nursery.start_soon(supervisor.keep, BREAKER, ready)
        with trio.fail_after(PATIENCE_S):
            await ready.wait()
        row, child = page.rows(ROLE)[role], children.children[0]
        assert is_alive(child.pid, int(row["start_time"]))
        assert (int(row["pid"]), int(row["incarnation"])) == (child.pid, 1)
        nursery.cancel_scope.cancel()
    supervisor.close()
    assert children.asked == [("breaker#1", {
        "actor": "breaker", "venue": "", "folder": str(page.folder), "incarnation": 1,
        "settings": {"speed": 1.0},
    })]  # fmt: skip
    kind, body = records(page, SUPERVISOR_ROLE)[0]
    assert kind is EventKind.ACTOR_STARTED
    assert (body["actor"], body["incarnation"], body["pid"]) == ("breaker", 1, child.pid)


async def test_keep_when_a_child_is_killed_then_the_gate_closes_and_the_next_one_starts(
    page: Page, children: Nursery
) -> None:
    role = page.names.role("breaker")
    row, deadlines = page.rows(ROLE)[role], page.rows(LEASE)["deadline_ns"]
    async with kept(page):
        first = await children.child(0)
        row["renewals"], row["stale"] = 9, 1
        generation = int(page.header["generation"][0])
        os.kill(first.pid, signal.SIGKILL)
        second = await children.child(1)
        assert int(deadlines[role]) == 0
        assert int(page.header["generation"][0]) > generation
        assert int(row["lapsed_since_ns"]) > 0
        assert (int(row["incarnation"]), int(row["restarts"])) == (2, 1)
        assert (int(row["pid"]), int(row["renewals"]), int(row["stale"])) == (second.pid, 0, 0)
        others = [n for n in range(len(page.names.roles)) if n != role]
        assert all(int(deadlines[n]) > host_ns() for n in others), "nobody else's lease is touched"
        await until(lambda: len(kinds(page, SUPERVISOR_ROLE)) >= 3)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert (down["actor"], down["incarnation"]) == ("breaker", 1)
    assert down["code"] == -signal.SIGKILL
    assert [name for name, _ in children.asked] == ["breaker#1", "breaker#2"]


async def test_keep_when_an_actor_fails_but_its_process_lives_then_that_is_ended_and_told(
    page: Page, children: Nursery
) -> None:
    async with kept(page):
        first = await children.child(0)
        first.context.error = ExceptionGroup("", [ValueError("one"), OSError("two\nlast words")])
        first.context.over.set()
        await children.child(1)
        assert first.process.returncode is not None
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["reason"] == "ValueError: one; OSError: last words"


async def test_keep_when_an_actor_returns_then_it_is_started_again_all_the_same(
    page: Page, children: Nursery
) -> None:
    async with kept(page):
        first = await children.child(0)
        first.context.over.set()
        await children.child(1)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["incarnation"] == 1


async def test_keep_when_no_process_comes_up_then_it_is_tried_again(
    page: Page, children: Nursery
) -> None:
    children.fails = True
    async with kept(page):
        await until(lambda: len(children.asked) >= 2)
        children.fails = False
        await children.child(0)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["reason"] == "ChildStartError: no process to be had"
    assert down["code"] == 0
    assert int(page.rows(LEASE)["deadline_ns"][page.names.role("breaker")]) == 0


async def test_keep_when_the_tree_is_stopping_then_a_death_is_no_event(
    page: Page, children: Nursery
) -> None:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {}, nursery)
        nursery.start_soon(supervisor.keep, BREAKER, trio.Event())
        first = await children.child(0)
        supervisor.stopping = True
        first.process.kill()
    supervisor.close()
    assert kinds(page, SUPERVISOR_ROLE) == [EventKind.ACTOR_STARTED]
    assert len(children.asked) == 1
    assert int(page.rows(ROLE)["restarts"][page.names.role("breaker")]) == 0


async def test_keep_when_deaths_are_too_many_then_its_scope_closes_and_it_is_tried_again(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisors.strategy.SLOW_RETRY_S", 0.01)
    venue = page.names.scope("venue:sim")
    set_level(page, venue, LevelWriter.BREAKER, Level.SOFT)
    async with kept(page, FEED):
        for number in range(2):
            (await children.child(number)).process.kill()
        await children.child(2)
        assert byte_of(page, venue, LevelWriter.SUPERVISOR) == Level.MEDIUM
        assert byte_of(page, venue, LevelWriter.BREAKER) == Level.SOFT
        assert byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL
    escalated = [b for kind, b in records(page, SUPERVISOR_ROLE) if kind is EventKind.ESCALATED]
    reason = "market_feed(sim) dies too often"
    assert escalated == [{"scope": "venue:sim", "reason": reason}]


async def test_watch_when_all_actors_of_a_scope_are_steady_then_only_its_own_byte_is_withdrawn(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEADY_NS", 0)
    venue = page.names.scope("venue:sim")
    for node in (0, venue):
        for writer in LevelWriter:
            set_level(page, node, writer, Level.MEDIUM)
    async with keeping(page, FEED, watch=True):
        await children.child(0)
        await until(lambda: byte_of(page, venue, LevelWriter.SUPERVISOR) == Level.NORMAL)
        await until(lambda: byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL)
        others = [w for w in LevelWriter if w is not LevelWriter.SUPERVISOR]
        for node in (0, venue):
            assert [byte_of(page, node, w) for w in others] == [Level.MEDIUM] * len(others)


async def test_watch_when_an_actor_is_not_steady_then_its_scope_stays_closed(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEADY_NS", 0)
    venue, feed = page.names.scope("venue:sim"), page.names.role("market_feed", "sim")
    for node in (0, venue):
        set_level(page, node, LevelWriter.SUPERVISOR, Level.MEDIUM)
    async with keeping(page, FEED, watch=True):
        await children.child(0)
        page.rows(LEASE)["deadline_ns"][feed] = 0
        page.rows(ROLE)["stale"][feed] = 1
        # The portfolio's byte shows that the same look has passed over the venue's.
        await until(lambda: byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL)
        # A second look may have begun before the lease was given up; the next one did not.
        set_level(page, 0, LevelWriter.SUPERVISOR, Level.SOFT)
        set_level(page, venue, LevelWriter.SUPERVISOR, Level.MEDIUM)
        await until(lambda: byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL)
        assert byte_of(page, venue, LevelWriter.SUPERVISOR) == Level.MEDIUM


async def test_watch_when_it_turns_then_its_lease_lives_and_lapses_are_stamped(page: Page) -> None:
    roles, deadlines = page.rows(ROLE), page.rows(LEASE)["deadline_ns"]
    keeper, feed = page.names.role("position_keeper"), page.names.role("market_feed", "sim")
    deadlines[SUPERVISOR_ROLE] = deadlines[keeper] = 0
    roles["lapsed_since_ns"][feed] = 5
    async with keeping(page, watch=True):
        await until(lambda: int(deadlines[SUPERVISOR_ROLE]) > host_ns())
        await until(lambda: int(roles["lapsed_since_ns"][keeper]) > 0)
        stamp = int(roles["lapsed_since_ns"][keeper])
        await until(lambda: int(roles["renewals"][SUPERVISOR_ROLE]) > 5)
        assert int(roles["lapsed_since_ns"][keeper]) == stamp, "the first moment counts"
        assert int(roles["lapsed_since_ns"][feed]) == 0
        vouch(page)
        await until(lambda: int(roles["lapsed_since_ns"][keeper]) == 0)


async def test_watch_when_a_living_child_stops_renewing_then_it_is_killed_and_replaced(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANG_NS", 20 * NS_PER_MS)
    role = page.names.role("breaker")
    async with keeping(page, BREAKER, watch=True):
        first = await children.child(0)
        LeaseHolder(page, role).renew(host_ns())
        await children.child(1)
        assert first.process.returncode == -signal.SIGKILL
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["reason"] == "hung"


async def test_watch_when_a_child_never_renewed_then_it_has_the_longer_time_to_start(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANG_NS", 0)
    role, roles = page.names.role("breaker"), page.rows(ROLE)
    page.rows(LEASE)["deadline_ns"][role] = 0
    async with keeping(page, BREAKER, watch=True):
        first = await children.child(0)
        await until(lambda: int(roles["lapsed_since_ns"][role]) > 0)
        turns = int(roles["renewals"][SUPERVISOR_ROLE])
        await until(lambda: int(roles["renewals"][SUPERVISOR_ROLE]) > turns + 3)
        assert first.process.returncode is None
        monkeypatch.setattr(module, "START_NS", 0)
        await children.child(1)
        monkeypatch.setattr(module, "START_NS", 10**12)


async def test_watch_when_a_child_says_that_its_input_is_stale_then_it_is_left_alone(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANG_NS", 0)
    monkeypatch.setattr(module, "START_NS", 0)
    role, roles = page.names.role("market_feed", "sim"), page.rows(ROLE)
    async with keeping(page, FEED, watch=True):
        first = await children.child(0)
        LeaseHolder(page, role).give_up_stale()
        await until(lambda: int(roles["lapsed_since_ns"][role]) > 0)
        turns = int(roles["renewals"][SUPERVISOR_ROLE])
        await until(lambda: int(roles["renewals"][SUPERVISOR_ROLE]) > turns + 5)
        assert first.process.returncode is None


async def test_emit_when_the_ring_is_full_then_the_watch_goes_on_without_the_record(
    page: Page,
) -> None:
    async with keeping(page) as supervisor:
        body = {"text": "x" * 8_000}
        sent = 0
        while supervisor.emit(EventKind.ESCALATED, body) is not None:
            sent += 1
            assert sent < RING_BYTES
        assert supervisor.emit(EventKind.ESCALATED, body) is None
        assert int(page.rows(HOLDER)["mask"][SUPERVISOR_ROLE]) == 1
        assert int(page.rows(SLOT)["record_sequence"][SUPERVISOR_ROLE]) == sent
