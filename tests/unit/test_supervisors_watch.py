"""The supervisor's watch: its own lease, lapses, hangs, calming down, what is open."""

import signal

import pytest

from actors import runtime
from supervisors import supervisor as module
from supervisors.child_spec import ChildSpec
from supervisors.supervisor import SUPERVISOR_ROLE
from tests.tree_fixtures import byte_of, hold, paper_page, records, until, vouch
from tests.unit.held_children import BREAKER, FEED, Nursery, keeping
from tripgate.clock import NS_PER_MS, host_ns
from tripgate.gate.slots import take_role_slot
from tripgate.messages import EventKind
from tripgate.page.layout import HOLDER, LEASE, LINK, RING_BYTES, ROLE, SLOT
from tripgate.page.lease import LeaseHolder
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.links import to_root
from tripgate.page.mapping import Page
from tripgate.reasons import Level


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


async def test_watch_when_something_opens_then_the_groups_of_the_exit_path_are_told(
    page: Page, children: Nursery
) -> None:
    router = ChildSpec("router(sim)", "router", "sim", exit_path=True)
    row = page.rows(ROLE)[page.names.role("router", "sim")]
    row["account_flat"], row["account_reads"] = 1, 2
    async with keeping(page, router, watch=True) as supervisor:
        await children.child(0)
        await until(lambda: not supervisor.groups["router(sim)"].is_busy)
        hold(page, 0, 5)
        await until(lambda: supervisor.groups["router(sim)"].is_busy)


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


async def test_P10_watch_when_a_stale_child_falls_silent_then_it_is_killed_and_replaced(
    page: Page, children: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, roles = page.names.role("market_feed", "sim"), page.rows(ROLE)
    link = page.rows(LINK)[to_root(role)]
    async with keeping(page, FEED, watch=True):
        first = await children.child(0)
        LeaseHolder(page, role).give_up_stale()
        link["heard_ns"] = host_ns()
        turns = int(roles["renewals"][SUPERVISOR_ROLE])
        await until(lambda: int(roles["renewals"][SUPERVISOR_ROLE]) > turns + 5)
        assert first.process.returncode is None, "it was heard a moment ago"
        monkeypatch.setattr(module, "SILENT_NS", 0)
        await children.child(1)
        monkeypatch.setattr(module, "SILENT_NS", 10**12)
    (_, down) = next(r for r in records(page, SUPERVISOR_ROLE) if r[0] is EventKind.ACTOR_DOWN)
    assert (down["reason"], down["code"]) == ("hung", -signal.SIGKILL)


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
