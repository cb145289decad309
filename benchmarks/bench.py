"""One process on a page of its own, and the gate's answers timed there.

What is timed is checked: a batch in which one order got another answer than the figure is named
for is an error, and so is a batch that left another number of reservations than it made.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import loops
from benchmarks.measure import (
    Call,
    Effort,
    Spread,
    measure_batch,
    measure_call,
    no_collection,
    summarize,
)
from benchmarks.page import (
    MARK_TICKS,
    OWN_KEY,
    SECOND_KEY,
    STOP_TICKS,
    make_page,
    set_position,
)
from tripgate.errors import InvariantBroken
from tripgate.gate import fastcall
from tripgate.gate.context import build_context
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.layout import SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - where the product's own pages lie
ADDS_PER_CHUNK = 2_000
APPROVED = 1
SAMPLES_PER_ROUND = 1_000


@contextmanager
def private_page() -> Iterator[Page]:
    """Make a page in a temporary folder of the shared memory, and remove it afterwards."""
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-bench-", dir=root))
    try:
        yield make_page(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Bench:
    """The first strategy's process on a page, with a handle on each of the two instruments."""

    def __init__(self, page: Page, effort: Effort | None = None) -> None:
        self.page = page
        self.effort = effort or Effort()
        self.slot = claim_strategy_slot(page, 0)
        self.handle = InstrumentHandle(page, self.slot, OWN_KEY)
        self._words = build_context(page, self.slot, OWN_KEY)
        self._second_words = build_context(page, self.slot, SECOND_KEY)
        self.context = int(self._words.ctypes.data)
        self.second_context = int(self._second_words.ctypes.data)
        self._scratch = np.zeros(16, dtype=np.int64)
        self.scratch = int(self._scratch.ctypes.data)

    def atomic_add(self) -> Spread:
        """Time uncontended atomic adds in a private word."""
        word = self.scratch + 64
        chunks = [
            loops.time_adds(word, ADDS_PER_CHUNK, self.scratch) / ADDS_PER_CHUNK
            for _ in self.effort.rounds(self.effort.chunks)
        ]
        return summarize(chunks, self._sample_adds(word))

    def compiled_timer(self) -> Spread:
        """Time the compiled timer alone: what stands in every single compiled figure."""
        samples = self._sample_adds(0)
        return summarize([float(samples.min()), float(np.median(samples))], samples)

    def _sample_adds(self, word: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        samples = np.zeros(max(SAMPLES_PER_ROUND, self.effort.singles), dtype=np.int64)
        loops.sample_adds(word, len(samples), self.scratch, int(samples.ctypes.data))
        return samples

    def compiled(
        self, lots: int, price: int, stop: int, *, wanted: int = APPROVED, by_turns: bool = False
    ) -> Spread:
        """Time the check inside compiled code.

        Parameters
        ----------
        wanted
            ``APPROVED``, or −reason of the denial that is timed.
        by_turns
            Ask with the handles of both instruments by turns, so that no denial equals the last.
        """
        other = self.second_context if by_turns else self.context

        def batch(samples: int) -> int:
            took = loops.time_orders(
                self.context, other, lots, price, stop, wanted, self.scratch, samples
            )
            if took < 0:
                raise InvariantBroken(f"the benchmark's order got the answer {took}")
            self.release_batch(wanted)
            return took

        chunks = [batch(0) / loops.BATCH for _ in self.effort.rounds(self.effort.chunks)]
        samples = np.zeros(loops.BATCH, dtype=np.int64)
        singles = []
        with no_collection():
            for _ in self.effort.rounds(self.effort.singles // loops.BATCH):
                batch(int(samples.ctypes.data))
                singles.append(samples.copy())
        return summarize(chunks, np.concatenate(singles))

    def from_python(
        self, call: Call, one: tuple[object, ...], two: tuple[object, ...], *,
        wanted: int = APPROVED,
    ) -> Spread:  # fmt: skip
        """Time a Python callable that asks the gate, with two orders by turns."""
        return measure_call(
            call, one, two, loops.BATCH, self.effort, after=lambda: self.release_batch(wanted)
        )

    def batch_from_python(self) -> Spread:
        """Time the handle's batch form, per order."""
        orders = np.array([(1 + (n & 1), MARK_TICKS, STOP_TICKS) for n in range(loops.BATCH)])
        return measure_batch(
            self.handle.check_batch, orders, self.effort, lambda: self.release_batch(APPROVED)
        )

    def builtin(self) -> Call | None:
        """Return the builtin made for this handle's context, or None where it cannot be made."""
        if not fastcall.self_test():
            return None
        return fastcall.bind(self._words, self.page, by="fastcall")

    def release_batch(self, wanted: int) -> None:
        """Undo a batch; raise if it left other reservations than its answers say."""
        released = loops.release_all(self.context)
        if released != (loops.BATCH if wanted > 0 else 0):
            raise InvariantBroken(f"a batch of {loops.BATCH} orders left {released} reservations")

    def records_per_denial(self, ask: Callable[[], object]) -> float:
        """Return how many records the slot wrote for each denial that ``ask`` caused."""
        row = self.page.rows(SLOT)[self.slot]
        denials, records = int(row["denied"].sum()), int(row["record_sequence"])
        ask()
        return (int(row["record_sequence"]) - records) / (int(row["denied"].sum()) - denials)

    def release(self) -> None:
        """Put the page back below its limits."""
        loops.release_all(self.context)

    def hold(self, lots: int) -> None:
        """Give the strategy a position."""
        self.release()
        set_position(self.page, OWN_KEY, lots)

    def trip(self, level: Level) -> None:
        """Set the portfolio's level."""
        set_level(self.page, 0, LevelWriter.BREAKER, level)


DENIED_BY_LEVEL = -int(DenyReason.LEVEL)
