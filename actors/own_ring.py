"""A tree process's own ring, with a bounded backlog before it: a full ring stops openings alone.

Events of a tree process may fill its ring up to the share that is kept for the records of exits
(``RING_EXIT_RESERVE``); what comes then waits here, in order and with the stamps of its own moment,
until the readers have made room. Meanwhile the ring counts as crowded: its router gives up its
lease, so that no opening is granted or sent, while exits, cancels and stops go on. Only a process
whose backlog is full too must not go on: it can record nothing of what it does.

A process killed meanwhile takes its backlog with it. Nothing in it was acknowledged to anybody who
relies on the log: an opening waits for its durable record, and fills are read from the venue again.

Invariants: E1 events enter the ring in the order in which they were given; E2 what is pending is
bounded; E3 events leave the exits' share of the ring free.
"""

from collections import deque

from tripgate.errors import InvariantBroken
from tripgate.page.layout import RING_BYTES, RING_EXIT_RESERVE
from tripgate.page.ring import RingWriter

PENDING_BYTES_MAX = 8 << 20
"""Bytes of bodies that may wait: half an hour of a busy router without its audit_writer."""
ROOMY_BYTES = RING_BYTES // 2
"""Free bytes from which a crowded ring is roomy again."""


class OwnRing:
    """The producing side of a tree process's ring."""

    def __init__(self, ring: RingWriter) -> None:
        self._ring = ring
        self._pending: deque[tuple[int, bytes, int, int]] = deque()
        self._pending_bytes = 0
        self._crowded = False

    @property
    def pending(self) -> int:
        """Number of events that wait for room."""
        return len(self._pending)

    @property
    def is_crowded(self) -> bool:
        """Whether the ring has no room to spare: openings must not add to it."""
        room = self._ring.room
        if self._pending or room < RING_EXIT_RESERVE:
            self._crowded = True
        elif room >= ROOMY_BYTES:
            self._crowded = False
        return self._crowded

    def append(self, kind: int, payload: bytes, host_ns: int, market_ms: int) -> None:
        """Put an event into the ring, or in line for it.

        Raises
        ------
        InvariantBroken
            Ring and backlog are full: a process that can record nothing must not go on.
        """
        if not self._pending and self._fits(payload):
            self._ring.append(kind, payload, host_ns, market_ms)
            return
        self._pending.append((kind, payload, host_ns, market_ms))
        self._pending_bytes += len(payload)
        self._crowded = True
        self.flush()
        if self._pending_bytes > PENDING_BYTES_MAX:
            raise InvariantBroken(f"the ring of slot {self._ring.slot} is full, and so is its line")

    def flush(self) -> None:
        """Move what waits into the ring as far as there is room."""
        while self._pending and self._fits(self._pending[0][1]):
            kind, payload, host_ns, market_ms = self._pending.popleft()
            self._pending_bytes -= len(payload)
            self._ring.append(kind, payload, host_ns, market_ms)

    def _fits(self, payload: bytes) -> bool:
        # Twice the frame, as the ring itself asks: a pad may go before it.
        return self._ring.room >= RING_EXIT_RESERVE + 2 * (len(payload) + 40)
