"""A full ring stops openings, never exits, and crashes nobody before its bound."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from actors import own_ring as module
from actors import runtime
from actors.own_ring import OwnRing
from actors.position_keeper import run
from tests.tree_fixtures import PATIENCE_S, hold, kinds, paper_page, service, until
from tests.unit.keeper_desk import PRICE
from tests.unit.keeper_desk import Desk as KeeperDesk
from tests.unit.router_desk import Desk, carry_out, open_desk
from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.gate.exits import wish_exit
from tripgate.messages import EventKind
from tripgate.page.layout import (
    LEASE,
    RING_BYTES,
    RING_EXIT_RESERVE,
    ROLE,
    SLOT,
    WATERMARK,
)
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader, RingWriter
from tripgate.reasons import Level

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
SLOT_NUMBER = 5
EVENT = b"e" * 1_000


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def page() -> Page:
    return paper_page()


def ignore(_told: object) -> None:
    """Take what the runtime tells of a child."""


def crowded(events: OwnRing) -> bool:
    """Ask anew: what was known of a ring a moment ago says nothing."""
    return events.is_crowded


def sequences(page: Page, slot: int = SLOT_NUMBER) -> list[int]:
    """Take everything out of a ring as its holders do; return the numbers its events carry."""
    found = []
    for consumer in ("keeper", "audit"):
        reader = RingReader(page, consumer)
        for frame in reader.read(slot, limit=RING_BYTES):
            if consumer == "audit":
                found.append(int.from_bytes(frame.payload[:8], "big"))
            reader.release(slot, frame.end)
    return found


def numbered(events: OwnRing, numbers: range) -> None:
    for number in numbers:
        events.append(20, number.to_bytes(8, "big") + EVENT, 1, 2)


def test_own_ring_when_nobody_reads_then_events_wait_in_order_and_the_exits_share_stays_free(
    page: Page,
) -> None:
    writer = RingWriter(page, SLOT_NUMBER)
    events = OwnRing(writer)
    assert not crowded(events)
    numbered(events, range(400))
    assert crowded(events)
    assert writer.room >= RING_EXIT_RESERVE
    assert events.pending == 400 - writer.sequence > 150
    taken = sequences(page)
    assert crowded(events), "what waits must go first"
    events.flush()
    numbered(events, range(400, 410))
    while events.pending:
        taken += sequences(page)
        events.flush()
    taken += sequences(page)
    assert taken == list(range(410))
    assert not crowded(events)


def test_own_ring_when_it_was_crowded_then_it_is_roomy_only_from_half(page: Page) -> None:
    writer = RingWriter(page, SLOT_NUMBER)
    events = OwnRing(writer)
    while not events.pending:
        numbered(events, range(1))
    for consumer in ("keeper", "audit"):
        reader = RingReader(page, consumer)
        *_, last = reader.read(SLOT_NUMBER, limit=30)
        reader.release(SLOT_NUMBER, last.end)
    events.flush()
    assert not events.pending
    assert RING_EXIT_RESERVE < writer.room < module.ROOMY_BYTES
    assert crowded(events)
    sequences(page)
    assert not crowded(events)


def test_own_ring_when_its_line_is_full_too_then_it_is_the_end(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_BYTES_MAX", 50_000)
    events = OwnRing(RingWriter(page, SLOT_NUMBER))
    with pytest.raises(InvariantBroken, match="ring of slot 5 is full, and so is its line"):
        numbered(events, range(300))
    assert events.pending * len(EVENT) < 52_000


@pytest.fixture
def keeper_desk() -> Iterator[KeeperDesk]:
    desk = KeeperDesk()
    yield desk
    desk.close()


async def test_router_when_its_ring_is_full_then_openings_stop_and_an_exit_goes_out(
    isolated_folders: Path,
) -> None:
    async with open_desk(isolated_folders) as desk:
        deadlines, roles = desk.page.rows(LEASE)["deadline_ns"], desk.page.rows(ROLE)
        role = desk.place.role
        opening = desk.approved()
        async with desk.router() as router:
            router.probed_ns = host_ns()
            router.renew(host_ns())
            assert int(deadlines[role]) > host_ns()
            while not desk.place.events.pending:
                desk.place.emit(EventKind.FLAT, {"text": "x" * 4_000})
            router.renew(host_ns())
            assert (int(deadlines[role]), int(roles["stale"][role])) == (0, 1)
            await router._send(opening, {})
            assert not router.orders.live, "an opening left although nothing could be recorded"
            hold(desk.page, 0, 7, 7 * PRICE)
            wish_exit(desk.page, 0, int(Level.HARD), 0)
            told = int(roles["events_step"][role])
            router.orders.events_step = told + 5
            router.take_events()
            assert int(roles["events_step"][role]) == told, "the step's records are not all there"
            assert not router.exits.turn(host_ns(), acted=True, overdue=False)[0]
            send, _ = router.exits.turn(host_ns(), acted=True, overdue=True)
            for order in send:
                router._put(("send", order, {}), duty=True)
            await carry_out(router)
            assert [order.is_exit for order in send] == [True]
            recorded = drain(desk)
            while desk.place.events.pending:
                desk.place.events.flush()
                recorded += drain(desk)
            assert recorded.count(EventKind.ORDER_SENT) == 1, "the exit left, and is on record"
            assert recorded.count(EventKind.ORDER_DONE) == 2
            router.take_events()
            assert int(roles["events_step"][role]) == told + 5
            router.renew(host_ns())
            assert int(deadlines[role]) > host_ns()


def drain(desk: Desk) -> list[EventKind]:
    """Take everything out of the router's ring as its holders do; return the kinds."""
    found = kinds(desk.page, desk.place.slot)
    for consumer in ("keeper", "audit"):
        RingReader(desk.page, consumer).skip_to_head(desk.place.slot)
    return found


async def test_audit_writer_when_stopped_under_load_then_nothing_crashes_and_all_is_stored_once(
    page: Page,
) -> None:
    router = service(page, "router", "sim")
    arguments = {
        "actor": "audit_writer", "venue": "", "folder": str(page.folder), "incarnation": 1,
        "settings": {},
    }  # fmt: skip
    count = 1_500
    with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
        async with (
            runtime.open_tree("root"),
            runtime.open_child("audit_writer#1", arguments, ignore, ignore) as child,
        ):
            os.kill(child.pid, signal.SIGSTOP)
            for number in range(count):
                router.emit(EventKind.ORDER_SENT, {"number": number, "text": "x" * 200})
                await router.turn(0.0)
            assert router.events.pending > 0
            assert kinds(page, router.slot)[-1] is EventKind.ORDER_SENT
            os.kill(child.pid, signal.SIGCONT)
            marks, slots = page.rows(WATERMARK)["sequence"], page.rows(SLOT)
            while router.events.pending or marks[router.slot] < router.ring.sequence:
                RingReader(page, "keeper").skip_to_head(router.slot)
                await router.turn(0.01)
            assert int(slots["record_sequence"][router.slot]) == count + 2
            scope.cancel()
    rows = [s.row for s in LogReader(Path(page.names.state_folder) / "audit").rows()]
    own = [row for row in rows if row.producer == router.slot]
    assert [row.producer_sequence for row in own] == list(range(1, count + 3))
    sent = [unpack_body(row.body) for row in own if row.kind == EventKind.ORDER_SENT]
    assert [body["number"] for body in sent] == list(range(count))
    told = [row.kind for row in own if row.kind >= EventKind.RING_CROWDED]
    assert told == [EventKind.RING_CROWDED, EventKind.RING_ROOMY]
    router.close()


async def test_keeper_when_a_record_is_missing_then_it_says_so_rebuilds_and_goes_on(
    keeper_desk: KeeperDesk,
) -> None:
    desk = keeper_desk
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, desk.place)
        desk.fill(0, 5)
        await until(lambda: desk.lots() == 5)
        desk.page.rows(SLOT)["record_sequence"][desk.router.slot] += 3
        desk.fill(0, 4)
        await until(lambda: EventKind.LINK_GAP in kinds(desk.page, desk.place.slot))
        await until(lambda: desk.lots() == 9)
        desk.fill(0, -2, PRICE)
        await until(lambda: desk.lots() == 7)
        desk.place.stopping.set()
    told = kinds(desk.page, desk.place.slot)
    assert told.count(EventKind.LINK_GAP) == 1
