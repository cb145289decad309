"""From the rings of a page into batches for the log: fair, ordered, bounded.

A batch is gathered a few frames from each ring by turns, beginning after the ring that was served
last: a process that floods its ring delays the others by a turn and never starves them. Within a
batch the rings are merged by host time, so that the log reads like what happened; each ring keeps
its own order, which its gap-free sequences demand.

A strategy can write anything into its own ring. One that holds no frames any more is left alone
from then on: nothing of it becomes durable, its strategy's openings expire unsent, and nobody
else's do. A damaged ring of a tree process is a bug.

Invariants: D1 a gathered frame stays in its ring until ``release``; D2 a batch holds a prefix of
what each ring holds; D3 a ring that has something is served at least once in as many batches as
there are rings.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

from tripgate.errors import InvariantBroken
from tripgate.page.mapping import Page
from tripgate.page.ring import Frame, RingReader

BATCH_ROWS_MAX = 1_000
"""Rows of one commit: past this a larger transaction saves little and delays whoever waits."""
SHARE_ROWS = 50
"""Frames taken from one ring before it is the next one's turn."""


class RingDrain:
    """The audit side of all rings of a page.

    Parameters
    ----------
    page
        The page; its audit cursors are moved by ``release`` alone.
    tree_slots
        Slots 0 … ``tree_slots`` − 1 belong to processes of the tree.
    """

    def __init__(self, page: Page, tree_slots: int) -> None:
        self._reader = RingReader(page, "audit")
        self._slots = page.layout.capacities.slots
        self._tree_slots = tree_slots
        self._next = 0
        self._damaged: dict[int, str] = {}
        self._untold: list[int] = []

    def gather(self) -> list[Frame]:
        """Return up to ``BATCH_ROWS_MAX`` frames, merged by host time; the rings keep them."""
        turns = ((self._next + place) % self._slots for place in range(self._slots))
        waiting = [
            slot for slot in turns
            if slot not in self._damaged and self._reader.backlog(slot) > 0
        ]  # fmt: skip
        sources: dict[int, Iterator[Frame]] = {
            slot: self._reader.read(slot, BATCH_ROWS_MAX) for slot in waiting
        }
        taken: dict[int, list[Frame]] = {slot: [] for slot in waiting}
        count = 0
        while sources and count < BATCH_ROWS_MAX:
            for slot in list(sources):
                share = min(SHARE_ROWS, BATCH_ROWS_MAX - count)
                frames = self._take(slot, sources[slot], share)
                taken[slot] += frames
                count += len(frames)
                if len(frames) < share:
                    del sources[slot]
                if count >= BATCH_ROWS_MAX:
                    self._next = (slot + 1) % self._slots
                    break
        return list(heapq.merge(*taken.values(), key=lambda frame: frame.host_ns))

    def _take(self, slot: int, source: Iterator[Frame], share: int) -> list[Frame]:
        frames: list[Frame] = []
        try:
            for frame in islice(source, share):
                frames.append(frame)  # noqa: PERF402 - those before the damage are kept
        except InvariantBroken as error:
            self.leave_alone(slot, str(error))
        return frames

    def leave_alone(self, slot: int, reason: str) -> None:
        """Read a ring no more, because what it holds cannot be right.

        Raises
        ------
        InvariantBroken
            It is a tree process's.
        """
        if slot < self._tree_slots:
            raise InvariantBroken(reason)
        self._damaged[slot] = reason
        self._untold.append(slot)

    def newly_damaged(self) -> list[tuple[int, str]]:
        """Return the rings left alone since the last call, each with its reason."""
        told, self._untold = [(slot, self._damaged[slot]) for slot in self._untold], []
        return told

    def release(self, frames: Iterable[Frame]) -> None:
        """Give the rings back the space of frames that are safe."""
        for slot, frame in last_of_slot(frames).items():
            self._reader.release(slot, frame.end)

    def oldest_tree_ns(self) -> int | None:
        """Return when the oldest record of a tree process still in a ring was made, or None."""
        found = (next(self._reader.read(slot, 1), None) for slot in range(self._tree_slots))
        return min((frame.host_ns for frame in found if frame is not None), default=None)


def last_of_slot(frames: Iterable[Frame]) -> dict[int, Frame]:
    """Return the last frame of each slot in a batch."""
    return {frame.slot: frame for frame in frames}
