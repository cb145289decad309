"""What has been traded so far: fills and what became of orders, from the log and the rings.

The rings are read first and the log second: a record that moves from one to the other meanwhile is
seen twice and recognised by (epoch, slot, sequence), never missed.
"""

from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.reader import LogReader
from tripgate.audit.record import Body, unpack_body
from tripgate.messages import EventKind
from tripgate.page.layout import RING_BYTES
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


def traded(page: Page, audit_folder: Path, slots: list[int]) -> tuple[list[Event], dict[int, int]]:
    """Return all events of ``TRADED`` of the instance, oldest first, and the cursors read to.

    Parameters
    ----------
    slots
        Slots whose rings may hold events that the log does not have yet: those of the routers, and
        of the keeper, who records what operators have resolved.

    Returns
    -------
    events, cursors
        ``cursors`` maps each slot to the ring position after the last event taken.
    """
    kinds = tuple(int(kind) for kind in TRADED)
    ring_events, seen, cursors = [], set(), {}
    reader = RingReader(page, "audit")
    for slot in slots:
        cursors[slot] = reader.cursor(slot)
        for frame in reader.read(slot, limit=RING_BYTES):
            cursors[slot] = frame.end
            if frame.kind in kinds:
                seen.add((page.epoch, slot, frame.sequence))
                body = unpack_body(frame.payload)
                kind = EventKind(frame.kind)
                ring_events.append(Event(kind, frame.market_ms, body, page.epoch))
    events = []
    for stored in LogReader(audit_folder).rows(kinds=kinds):
        row = stored.row
        if (row.epoch, row.producer, row.producer_sequence) not in seen:
            body = unpack_body(row.body)
            events.append(Event(EventKind(row.kind), row.market_ms, body, row.epoch))
    return events + ring_events, cursors
