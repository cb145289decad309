"""The supervisor over real small processes: what deaths, stops and escalations do to the page."""

import os
import signal
from dataclasses import replace

import pytest
import trio

from actors import runtime
from supervisors.child_spec import ChildSpec, GroupRule, GroupSpec, RestartRule
from supervisors.supervisor import SUPERVISOR_ROLE, Supervisor
from tests.tree_fixtures import byte_of, kinds, paper_page, records, until
from tests.unit.held_children import BREAKER, FEED, Nursery, kept
from tripgate.clock import host_ns
from tripgate.gate.slots import take_role_slot
from tripgate.messages import EventKind
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.processes import is_alive
from tripgate.reasons import Level

PATIENCE_S = 60.0


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
    assert (down["code"], down["reason"]) == (-signal.SIGKILL, "signal SIGKILL")
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
    assert down["reason"] == "exception ValueError: one; OSError: last words"


async def test_keep_when_an_actor_returns_then_it_is_started_again_all_the_same(
    page: Page, children: Nursery
) -> None:
    async with kept(page):
        first = await children.child(0)
        first.context.over.set()
        await children.child(1)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert (down["incarnation"], down["reason"]) == (1, "returned")


async def test_keep_when_no_process_comes_up_then_it_is_tried_again(
    page: Page, children: Nursery
) -> None:
    children.fails = True
    async with kept(page):
        await until(lambda: len(children.asked) >= 2)
        children.fails = False
        await children.child(0)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["reason"] == "exception ChildStartError: no process to be had"
    assert down["code"] == 0
    assert int(page.rows(LEASE)["deadline_ns"][page.names.role("breaker")]) == 0


async def test_keep_when_the_tree_is_stopping_then_an_end_is_no_event(
    page: Page, children: Nursery
) -> None:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {}, nursery)
        nursery.start_soon(supervisor.keep, BREAKER, trio.Event())
        first = await children.child(0)
        supervisor.stopping = True
        supervisor.groups["breaker"].stop()
    supervisor.close()
    assert first.process.returncode is not None
    assert kinds(page, SUPERVISOR_ROLE) == [EventKind.ACTOR_STARTED]
    assert len(children.asked) == 1
    assert int(page.rows(ROLE)["restarts"][page.names.role("breaker")]) == 0


async def test_keep_when_the_link_breaks_with_the_process_then_the_exit_is_the_reason(
    page: Page, children: Nursery
) -> None:
    async with kept(page):
        first = await children.child(0)
        first.context.error = trio.BrokenResourceError("the peer has gone")
        os.kill(first.pid, signal.SIGKILL)
        first.context.over.set()
        await children.child(1)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert down["reason"] == "signal SIGKILL"


async def test_group_when_a_child_never_becomes_ready_then_it_is_killed_and_told_so(
    page: Page, children: Nursery
) -> None:
    children.stays_silent = True
    spec = replace(BREAKER, start_s=0.05, back_off_s=10.0)
    async with kept(page, spec) as supervisor:
        await until(lambda: len(children.asked) >= 2)
        told = supervisor.groups["breaker"].unready()
    assert told == {"breaker": "never ready"}
    down = [body for kind, body in records(page, SUPERVISOR_ROLE) if kind is EventKind.ACTOR_DOWN]
    assert (down[0]["reason"], down[0]["code"]) == ("never ready", -signal.SIGKILL)
    assert EventKind.ACTOR_STARTED not in kinds(page, SUPERVISOR_ROLE)


async def test_group_when_stopped_then_its_members_end_in_reverse_and_a_stuck_one_is_killed(
    page: Page, children: Nursery
) -> None:
    keeper = ChildSpec("position_keeper", "position_keeper", ends_before_earlier=True, grace_s=0.05)
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {}, nursery)
        task = supervisor.add(GroupSpec("core", (replace(BREAKER, grace_s=0.05), keeper)))
        with trio.fail_after(PATIENCE_S):
            await task.ready.wait()
            children.is_stuck = True
            task.stop()
            await task.down.wait()
        nursery.cancel_scope.cancel()
    supervisor.close()
    down = [body for kind, body in records(page, SUPERVISOR_ROLE) if kind is EventKind.ACTOR_DOWN]
    assert [(b["actor"], b["reason"], b["code"]) for b in down] == [
        ("position_keeper", "stopped", -signal.SIGKILL), ("breaker", "stopped", -signal.SIGKILL),
    ]  # fmt: skip


async def test_group_when_its_rule_restarts_all_then_that_is_on_record(
    page: Page, children: Nursery
) -> None:
    keeper = ChildSpec("position_keeper", "position_keeper")
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {}, nursery)
        task = supervisor.add(GroupSpec("core", (BREAKER, keeper), GroupRule.ONE_FOR_ALL))
        with trio.fail_after(PATIENCE_S):
            await task.ready.wait()
        os.kill(int(page.rows(ROLE)["pid"][page.names.role("breaker")]), signal.SIGKILL)
        await until(lambda: len(children.children) == 4)
        supervisor.stopping = True
        nursery.cancel_scope.cancel()
    supervisor.close()
    restarted = [b for kind, b in records(page, 0) if kind is EventKind.GROUP_RESTARTED]
    assert restarted == [{"group": "core", "because": "breaker", "members": ["position_keeper"]}]
    assert sorted(name for name, _ in children.asked[2:]) == ["breaker#2", "position_keeper#2"]


async def test_group_when_a_child_is_left_down_then_that_is_on_record_and_the_gate_stays_closed(
    page: Page, children: Nursery
) -> None:
    spec = replace(BREAKER, restart=RestartRule.TEMPORARY)
    async with kept(page, spec):
        (await children.child(0)).process.kill()
        await until(lambda: EventKind.CHILD_LEFT_DOWN in kinds(page, SUPERVISOR_ROLE))
    left = [b for kind, b in records(page, 0) if kind is EventKind.CHILD_LEFT_DOWN]
    assert left == [{
        "child": "breaker", "reason": "signal SIGKILL", "code": -signal.SIGKILL, "gave_up": False,
    }]  # fmt: skip
    assert int(page.rows(LEASE)["deadline_ns"][page.names.role("breaker")]) == 0


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
