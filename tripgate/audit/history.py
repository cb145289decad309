"""What has been traded so far: fills and ended orders, from the log and from what is not yet in it.

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


@dataclass(frozen=True)
class Event:
    """One logged event of interest, body unpacked."""

    kind: EventKind
    market_ms: int
    body: Body


def traded(page: Page, audit_folder: Path, slots: list[int]) -> tuple[list[Event], dict[int, int]]:
    """Return all FILL and ORDER_DONE events of the instance, oldest first, and the cursors read to.

    Parameters
    ----------
    slots
        Slots of the routers, whose rings may hold events that the log does not have yet.

    Returns
    -------
    events, cursors
        ``cursors`` maps each slot to the ring position after the last event taken.
    """
    kinds = (int(EventKind.FILL), int(EventKind.ORDER_DONE))
    ring_events, seen, cursors = [], set(), {}
    reader = RingReader(page, "audit")
    for slot in slots:
        cursors[slot] = reader.cursor(slot)
        for frame in reader.read(slot, limit=RING_BYTES):
            cursors[slot] = frame.end
            if frame.kind in kinds:
                seen.add((page.epoch, slot, frame.sequence))
                body = unpack_body(frame.payload)
                ring_events.append(Event(EventKind(frame.kind), frame.market_ms, body))
    events = []
    for stored in LogReader(audit_folder).rows(kinds=kinds):
        row = stored.row
        if (row.epoch, row.producer, row.producer_sequence) not in seen:
            events.append(Event(EventKind(row.kind), row.market_ms, unpack_body(row.body)))
    return events + ring_events, cursors
