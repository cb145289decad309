"""What has been traded, from the log and the rings: every event once, in order, none missed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.audit_writer import Drain
from actors.service import Service
from tests.tree_fixtures import paper_page, service
from tripgate.audit import drain
from tripgate.audit.history import traded
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Row, pack_body, unpack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import utc_ns
from tripgate.instance import state_folder
from tripgate.messages import EventKind
from tripgate.operator_file import append_record
from tripgate.page.layout import WATERMARK
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader


class Desk:
    """A router's ring, and an audit_writer that stores it when told to."""

    def __init__(self) -> None:
        self.page: Page = paper_page(epoch=2)
        self.router: Service = service(self.page, "router", "sim")
        self.writer: Service = service(self.page, "audit_writer")
        self.state: Path = state_folder(self.page.names.instance)
        self.log = LogWriter(self.state / "audit", self.state / "heads")

    def fill(self, trade: int) -> None:
        self.router.emit(EventKind.ORDER_SENT, {"token": trade})
        self.router.emit(EventKind.FILL, {"trade": trade})

    def store(self, *, release: bool) -> None:
        """Commit the rings; a writer that dies before it releases leaves them both there."""
        drain = Drain(self.writer, self.log)
        frames = drain.gather()
        drain.store(frames)
        if release:
            drain.publish(frames)

    def trades(self) -> list[object]:
        events, places = traded(self.page, self.state / "audit", [self.router.slot])
        head = RingReader(self.page, "audit")
        assert places[self.router.slot].cursor == head.cursor(self.router.slot) + head.backlog(
            self.router.slot
        )
        return [event.body.get("trade", event.body.get("token")) for event in events]

    def close(self) -> None:
        self.log.close()
        self.router.close()
        self.writer.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_drain_when_rings_hold_more_than_a_batch_then_the_rest_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "BATCH_ROWS_MAX", 1)
    desk.writer.emit(EventKind.FLAT, {"scope": "portfolio"})
    desk.fill(1)
    for _ in range(3):
        desk.store(release=True)
    assert desk.trades() == [1]
    assert len(list(LogReader(desk.state / "audit").rows())) == 3


def test_drain_when_an_operator_ordered_something_then_it_is_stored_once(desk: Desk) -> None:
    drain = Drain(desk.writer, desk.log)
    for _ in range(2):
        number = append_record(desk.state, {"command": "halt", "scope": "portfolio"})
    drain.take_operator_records()
    assert RingReader(desk.page, "audit").backlog(desk.writer.slot) == 0, "nobody has said so yet"
    desk.page.header["operator_sequence"] = number
    for _ in range(2):
        drain.take_operator_records()
    desk.store(release=True)
    stored = LogReader(desk.state / "audit").rows(kinds=(int(EventKind.OPERATOR),))
    assert [unpack_body(row.row.body)["id"] for row in stored] == [1, 2]


def test_drain_when_its_writer_is_restarted_then_what_is_durable_is_known_at_once(
    desk: Desk,
) -> None:
    desk.fill(1)
    desk.store(release=True)
    sequences = desk.page.rows(WATERMARK)["sequence"]
    assert int(sequences[desk.router.slot]) == 2
    sequences[:] = 0
    Drain(desk.writer, desk.log)
    assert int(sequences[desk.router.slot]) == 2


def test_traded_when_nothing_happened_then_there_is_nothing(desk: Desk) -> None:
    assert desk.trades() == []


def test_traded_when_events_are_only_in_the_ring_then_they_are_found(desk: Desk) -> None:
    desk.fill(1)
    desk.router.emit(EventKind.ORDER_DONE, {"token": 77, "cumulative": 1})
    assert desk.trades() == [1, 77]


@pytest.mark.parametrize("release", [True, False])
def test_traded_when_events_move_into_the_log_then_each_counts_once_and_in_order(
    desk: Desk, release: bool
) -> None:
    for trade in (1, 2, 3):
        desk.fill(trade)
    desk.store(release=release)
    for trade in (4, 5):
        desk.fill(trade)
    assert desk.trades() == [1, 2, 3, 4, 5]
    desk.store(release=True)
    assert desk.trades() == [1, 2, 3, 4, 5]


def test_traded_when_an_earlier_epoch_has_the_same_sequences_then_both_count(desk: Desk) -> None:
    body = pack_body({"trade": 9})
    kind = int(EventKind.FILL)
    desk.log.append([Row(1, desk.router.slot, 1, utc_ns(), 1, 5, kind, None, body)])
    desk.router.emit(EventKind.FILL, {"trade": 10})
    assert desk.trades() == [9, 10]


def test_traded_when_read_then_market_time_and_kind_come_with_it(desk: Desk) -> None:
    desk.router.emit(EventKind.FILL, {"trade": 1}, market_ms=123)
    (event,), _ = traded(desk.page, desk.state / "audit", [desk.router.slot])
    assert (event.kind, event.market_ms) == (EventKind.FILL, 123)
