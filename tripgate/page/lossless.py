"""Lossless links: a producer's ring, read by one consumer without a hole and without a double.

The ring carries the messages and the consumer's cursor in the page says how far they are applied;
a doorbell only says "look". A frame counts as applied when the consumer releases it, so a consumer
killed in between reads it again and tells by its sequence whether it has it already. Sequences of a
slot go on through its owners' incarnations and begin anew with a page alone.

A reader named in the ring's holder mask can lose nothing. Another one may be run over: then it is
told so, reads what it missed from the log (``audit.history.logged_after``) and resumes where the
audit_writer's cursor stood before.

Invariants: S1 the frames a consumer releases of a slot are gap-free in sequence; S2 no frame is
given out whose sequence was released before.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken, TripgateError
from tripgate.page.layout import LINK, RING_BYTES
from tripgate.page.links import ring_row
from tripgate.page.mapping import Page
from tripgate.page.ring import DRAIN_FRAMES_MAX, FRAME_BYTES, PAYLOAD_MAX, Frame, RingReader

RUN_OVER_BYTES = RING_BYTES - 2 * (FRAME_BYTES + PAYLOAD_MAX)
"""How far a reader that does not hold the ring back may be behind and still trust what it reads:
the producer may be writing one frame, and a pad before it, beyond its published head."""


class GapFound(TripgateError):
    """Frames of a ring are missing. Gate effect: the consumer's lease lapses until it reconciled.

    Attributes
    ----------
    slot, expected, found
        The ring, the sequence that should have come, and what came (0: it was run over).
    """

    def __init__(self, slot: int, expected: int, found: int) -> None:
        super().__init__(f"ring {slot} goes on with {found} where {expected} was to come")
        self.slot, self.expected, self.found = slot, expected, found


class LosslessReader:
    """One consumer's gap-free view of some rings, with its cursors in the page.

    Parameters
    ----------
    consumer
        ``audit``, ``keeper`` or ``breaker``: whose cursors.
    slots
        The rings that are read.
    holds
        Whether the consumer is in these rings' holder masks, so that it is never run over.
    """

    def __init__(
        self, page: Page, consumer: str, slots: Iterable[int], *, holds: bool = True
    ) -> None:
        self._ring = RingReader(page, consumer)
        self._durable = RingReader(page, "audit")
        self._holds = holds
        self._next: dict[int, int | None] = dict.fromkeys(slots)
        self._row: Any = page.rows(LINK)[ring_row(page, consumer)]

    def applied_to(self, slot: int, sequence: int) -> None:
        """Say that everything up to ``sequence`` is applied: what comes again is passed over."""
        self._next[slot] = sequence + 1

    def backlog(self, slot: int) -> int:
        """Return how many bytes of a slot's ring are published and not yet released."""
        return self._ring.backlog(slot)

    def read(self, slot: int, limit: int = DRAIN_FRAMES_MAX) -> Iterator[Frame]:
        """Yield what is new from a ring, oldest first, at most ``limit`` frames.

        Nothing counts as applied before ``release``. The first frame ever read of a ring may have
        any sequence, unless ``applied_to`` was called.

        Raises
        ------
        GapFound
            A sequence is missing, or the reader was run over: reconcile, then ``resume``.
        """
        following = self._next[slot]
        if not self._holds and self._ring.backlog(slot) > RUN_OVER_BYTES:
            raise self._gap(slot, following or 0, 0)
        for frame in self._ring.read(slot, limit):
            if not self._holds and self._ring.backlog(slot) > RUN_OVER_BYTES:
                # It was copied while the producer may have written over it.
                raise self._gap(slot, following or 0, 0)
            if following is not None and frame.sequence < following:
                self._row["replayed"] += 1
                self._ring.release(slot, frame.end)
                continue
            if following is not None and frame.sequence > following:
                raise self._gap(slot, following, frame.sequence)
            following = frame.sequence + 1
            yield frame

    def release(self, frame: Frame) -> None:
        """Give ring space back up to a frame: it and all before it are applied and safe."""
        following = self._next[frame.slot]
        if following is not None and frame.sequence < following:
            raise InvariantBroken(f"frame {frame.sequence} of ring {frame.slot} released twice")
        now_ns = host_ns()
        row = self._row
        row["received"] += 1 if following is None else frame.sequence - following + 1
        row["heard_ns"] = now_ns
        row["age_max_ns"] = max(int(row["age_max_ns"]), now_ns - frame.host_ns)
        self._next[frame.slot] = frame.sequence + 1
        self._ring.release(frame.slot, frame.end)

    def resume(self, slot: int, cursor: int, sequence: int | None = None) -> None:
        """Go on at a ring position after a rebuild; ``sequence`` is the last one applied."""
        self._ring.release(slot, cursor)
        self._next[slot] = None if sequence is None else sequence + 1

    def durable_cursor(self, slot: int) -> int:
        """Return the ring position up to which everything is in the log: ask before reading it."""
        return self._durable.cursor(slot)

    def _gap(self, slot: int, expected: int, found: int) -> GapFound:
        self._row["gap"] += 1
        return GapFound(slot, expected, found)
