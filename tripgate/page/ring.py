"""Rings: what must not be lost on its way from one process into the log and other actors.

Each process has one ring and is its only producer; consumers keep cursors of their own. A record
is a frame of 64-bit words: length and kind, gap-free sequence, host time, market time, payload.
The head moves after the body is stored, so a reader never sees half a record, whenever the
producer is killed. A full ring is reported to the producer and never overwrites: only the
consumers named in the ring's holder mask hold it back.

Invariants: R1 sequences of a ring are gap-free from 1; R2 a frame once published never changes
until every holder's cursor has passed it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tripgate.errors import InvariantBroken
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import CONSUMERS, CURSOR, HOLDER, RING, RING_BYTES, SLOT, WATERMARK
from tripgate.page.mapping import Page

FRAME_BYTES = 32
PAYLOAD_MAX = RING_BYTES // 8
PAD_KIND = 0
DRAIN_FRAMES_MAX = 1000
"""Frames one drain takes at most, so that a flooding producer cannot starve the others."""

_HEAD = SLOT.offset("ring_head")
_RECORD_SEQUENCE = SLOT.offset("record_sequence")
CONSUMER_NAMES = ("audit", "keeper", "breaker")


@kernel("int64(int64, int64, int64)")
def free_bytes(head: int, cursors: int, mask: int) -> int:
    """Return the free bytes of a ring: its size less what the slowest holder has yet to read."""
    slowest = head
    for consumer in range(CONSUMERS):
        if (mask >> consumer) & 1:
            cursor = atomics.load(cursors + consumer * 8)
            if cursor < slowest:
                slowest = cursor
    return RING_BYTES - (head - slowest)


@kernel("int64(int64, int64, int64, int64)")
def claim_frame(slot: int, data: int, kind: int, payload_bytes: int) -> int:
    """Write a frame's first word and sequence; return the address of its payload.

    Pads to the end of the ring first if the frame would not fit in one piece. The frame becomes
    visible only by ``publish_frame``. The caller has checked that there is room for twice it.
    """
    size = FRAME_BYTES + ((payload_bytes + 7) // 8) * 8
    head = atomics.load(slot + _HEAD)
    place = head % RING_BYTES
    if RING_BYTES - place < size:
        atomics.store(data + place, (RING_BYTES - place) << 16)
        head += RING_BYTES - place
        atomics.store(slot + _HEAD, head)
        place = 0
    frame = data + place
    atomics.store(frame, (payload_bytes << 40) | (size << 16) | kind)
    atomics.store(frame + 8, atomics.load(slot + _RECORD_SEQUENCE) + 1)
    return frame + FRAME_BYTES


@kernel("int64(int64, int64, int64, int64)")
def publish_frame(slot: int, payload: int, host_ns: int, market_ms: int) -> int:
    """Stamp and publish the frame whose payload is at ``payload``; return its sequence."""
    frame = payload - FRAME_BYTES
    atomics.store(frame + 16, host_ns)
    atomics.store(frame + 24, market_ms)
    sequence = atomics.load(frame + 8)
    size = (atomics.load(frame) >> 16) & 0xFFFFFF
    atomics.store(slot + _RECORD_SEQUENCE, sequence)
    atomics.store(slot + _HEAD, atomics.load(slot + _HEAD) + size)
    return sequence


@dataclass(frozen=True)
class Frame:
    """One record as a consumer reads it; ``end`` is the cursor after it."""

    slot: int
    kind: int
    sequence: int
    host_ns: int
    market_ms: int
    payload: bytes
    end: int


class RingWriter:
    """The producing side of a slot's ring, for events written from Python."""

    def __init__(self, page: Page, slot: int) -> None:
        self._slot = page.address(SLOT, slot)
        self._data = page.address(RING, slot)
        self._cursors = page.address(CURSOR, slot)
        self._mask = page.rows(HOLDER)["mask"]
        self._number = slot
        self._bytes = page.bytes_of(RING, slot)

    @property
    def slot(self) -> int:
        """Number of the slot whose ring this is."""
        return self._number

    @property
    def sequence(self) -> int:
        """Sequence of the last record published."""
        return atomics.load(self._slot + _RECORD_SEQUENCE)

    @property
    def room(self) -> int:
        """Free bytes: the ring's size less what its slowest holder has yet to read."""
        head = atomics.load(self._slot + _HEAD)
        return free_bytes(head, self._cursors, int(self._mask[self._number]))

    def append(self, kind: int, payload: bytes, host_ns: int, market_ms: int) -> int | None:
        """Publish a record and return its sequence, or None if the ring has no room for it."""
        if len(payload) > PAYLOAD_MAX:
            raise InvariantBroken(f"a record has at most {PAYLOAD_MAX} bytes, was {len(payload)}")
        if self.room < 2 * (FRAME_BYTES + len(payload) + 8):
            return None
        place = claim_frame(self._slot, self._data, kind, len(payload))
        start = place - self._data
        self._bytes[start : start + len(payload)] = payload
        return publish_frame(self._slot, place, host_ns, market_ms)


class RingReader:
    """One consumer's view of all rings, with its cursors in the page."""

    def __init__(self, page: Page, consumer: str) -> None:
        self._page = page
        self._field = CURSOR.offset(consumer)
        self._consumer = consumer

    def backlog(self, slot: int) -> int:
        """Return how many bytes of a slot's ring are published and not yet released."""
        cursor = atomics.load(self._page.address(CURSOR, slot) + self._field)
        return atomics.load(self._page.address(SLOT, slot) + _HEAD) - cursor

    def cursor(self, slot: int) -> int:
        """Return the position up to which this consumer has released a ring."""
        return atomics.load(self._page.address(CURSOR, slot) + self._field)

    def read(self, slot: int, limit: int = DRAIN_FRAMES_MAX) -> Iterator[Frame]:
        """Yield published frames from the cursor on, at most ``limit``.

        The cursor does not move: the caller releases what it has made safe.
        """
        data = self._page.bytes_of(RING, slot)
        words = data.cast("q")
        cursor = atomics.load(self._page.address(CURSOR, slot) + self._field)
        head = atomics.load(self._page.address(SLOT, slot) + _HEAD)
        if head - cursor > RING_BYTES:
            raise InvariantBroken(f"ring {slot} ran over its {self._consumer} cursor")
        taken = 0
        while cursor < head and taken < limit:
            place = cursor % RING_BYTES
            first = words[place // 8]
            size = (first >> 16) & 0xFFFFFF
            if not 0 < size <= RING_BYTES - place:
                raise InvariantBroken(f"ring {slot} holds a frame of {size} bytes at {place}")
            cursor += size
            if first & 0xFFFF == PAD_KIND:
                continue
            start = place + FRAME_BYTES
            taken += 1
            yield Frame(
                slot, first & 0xFFFF, words[place // 8 + 1], words[place // 8 + 2],
                words[place // 8 + 3], bytes(data[start : start + (first >> 40)]), cursor,
            )  # fmt: skip

    def release(self, slot: int, cursor: int) -> None:
        """Give ring space back up to ``cursor`` (from ``Frame.end``)."""
        atomics.store(self._page.address(CURSOR, slot) + self._field, cursor)

    def skip_to_head(self, slot: int) -> None:
        """Start reading at the newest record (a consumer that just became interested)."""
        self.release(slot, atomics.load(self._page.address(SLOT, slot) + _HEAD))


def recover_sequence(page: Page, slot: int) -> None:
    """Set a taken-over slot's record sequence to that of its last published frame.

    A predecessor killed between storing its sequence and its head would otherwise leave a gap.
    Call it before the first append of a new owner, while nobody else produces there.
    """
    cursor = atomics.load(page.address(CURSOR, slot))
    head = atomics.load(page.address(SLOT, slot) + _HEAD)
    words = page.bytes_of(RING, slot).cast("q")
    last = int(page.rows(WATERMARK)["sequence"][slot])
    while cursor < head:
        place = cursor % RING_BYTES
        first = words[place // 8]
        if first & 0xFFFF != PAD_KIND:
            last = words[place // 8 + 1]
        cursor += (first >> 16) & 0xFFFFFF
    atomics.store(page.address(SLOT, slot) + _RECORD_SEQUENCE, last)
