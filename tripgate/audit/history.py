"""What has been traded so far: fills and what became of orders, from the log and the rings.

The rings are read first and the log second: a record that moves from one to the other meanwhile is
seen twice and recognised by (epoch, slot, sequence), never missed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tripgate.audit.reader import LogReader
from tripgate.audit.record import Body, Row, unpack_body
from tripgate.messages import EventKind
from tripgate.page.layout import RING_BYTES, WATERMARK
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader

TRADED = (
    EventKind.FILL,
    EventKind.ORDER_DONE,
    EventKind.ORDER_RESOLVED,
    EventKind.ORDER_UNKNOWN,
    EventKind.ORDER_ACKNOWLEDGED,
)
"""What a book is rebuilt from, and whose fate an operator may still decide."""


@dataclass(frozen=True)
class Event:
    """One logged event of interest, body unpacked."""

    kind: EventKind
    market_ms: int
    body: Body
    epoch: int = 0
    """Epoch of the run that recorded it; 0 where it was not read from a log or a page."""
    producer: int = -1
    sequence: int = 0
    """Slot and number of its record; -1 and 0 where it was not read from a log or a page."""


class Place(NamedTuple):
    """Where a ring was read to: the cursor, and the last sequence before it if that is certain."""

    cursor: int
    sequence: int | None


def traded(
    page: Page, audit_folder: Path, slots: list[int]
) -> tuple[list[Event], dict[int, Place]]:
    """Return all events of ``TRADED`` of the instance, oldest first, and where rings were read to.

    Parameters
    ----------
    slots
        Slots whose rings may hold events that the log does not have yet: those of the routers, and
        of the keeper, who records what operators have resolved.

    Returns
    -------
    events, places
        ``places`` maps each slot to the ring position after the last event taken.
    """
    kinds = tuple(int(kind) for kind in TRADED)
    ring_events, seen, places = [], set(), {}
    marks = page.rows(WATERMARK)["sequence"]
    reader = RingReader(page, "audit")
    for slot in slots:
        durable = int(marks[slot])
        cursor, last = reader.cursor(slot), None
        for frame in reader.read(slot, limit=RING_BYTES):
            cursor, last = frame.end, frame.sequence
            if frame.kind in kinds:
                seen.add((page.epoch, slot, frame.sequence))
                body = unpack_body(frame.payload)
                kind = EventKind(frame.kind)
                event = Event(kind, frame.market_ms, body, page.epoch, slot, frame.sequence)
                ring_events.append(event)
        if last is None and durable == int(marks[slot]):
            # Nothing beyond the cursor, and nothing was stored meanwhile: the log ends right here.
            last = durable
        places[slot] = Place(cursor, last)
    events = []
    for stored in LogReader(audit_folder).rows(kinds=kinds):
        row = stored.row
        if (row.epoch, row.producer, row.producer_sequence) not in seen:
            body = unpack_body(row.body)
            place = (row.epoch, row.producer, row.producer_sequence)
            events.append(Event(EventKind(row.kind), row.market_ms, body, *place))
    return events + ring_events, places


def logged_after(audit_folder: Path, epoch: int, producer: int, sequence: int) -> list[Row]:
    """Return a producer's logged rows after a sequence, in order of sequence.

    For a reader of its ring that fell behind where it does not hold the ring back.
    """
    found = [
        stored.row for stored in LogReader(audit_folder).rows(epoch=epoch)
        if stored.row.producer == producer and stored.row.producer_sequence > sequence
    ]  # fmt: skip
    return sorted(found, key=lambda row: row.producer_sequence)
