"""Two processes at the gate at once: the same loop in both, each on its own core.

They meet in one of two ways: on disjoint instruments, where they share only the nodes that every
order passes (venue and portfolio), or as two processes of one strategy on one instrument, where
they share every word that an order moves. A chunk counts as contended only if the neighbour moved
about as fast meanwhile: otherwise a chunk during which the neighbour was off its core would pass
for a fast one.

The neighbour is this module run as a program, ``python -m benchmarks.pair``.
"""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loops
from benchmarks.measure import CHUNKS_MIN, Effort, Spread, summarize
from benchmarks.page import MARK_TICKS, OTHER_KEY, OWN_KEY, STOP_TICKS
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import InvariantBroken
from tripgate.gate.context import build_context
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page import atomics
from tripgate.page.layout import LIMIT
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with

BATCHES_PER_CHUNK = 20
CHUNK_ORDERS = BATCHES_PER_CHUNK * loops.BATCH
DURATION_S = 1.5
START_WAIT_S = 60.0
END_WAIT_S = 10.0
NEIGHBOUR_LIFE_S = 120.0
PACE = (0.6, 1.6)
"""Share of this process's orders that the neighbour must have made for a chunk to be contended."""

NEIGHBOUR_LOTS = 3
"""Other sizes than this process's 1 and 2: on a shared key equal orders would be repetitions."""

POLL_S = 0.01
LINE_WORDS = 8
WORDS_FILE = "pace"
MINE, THEIRS, STOP, TALLY, SLOT_WORD = (line * LINE_WORDS for line in range(5))
_WORDS = 5 * LINE_WORDS

DISJOINT, SHARED = "disjoint", "shared"
KEY_OF_NEIGHBOUR = {DISJOINT: OTHER_KEY, SHARED: OWN_KEY}
CHURN, FILL = "churn", "fill"


class Pace:
    """Words that both processes see: how far each has come, whether to stop, the other's tally."""

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / WORDS_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _WORDS * 8)
            self._map = mmap.mmap(descriptor, _WORDS * 8)
        finally:
            os.close(descriptor)
        self.words = np.frombuffer(self._map, dtype=np.int64)
        self.address = int(self.words.ctypes.data)

    def at(self, word: int) -> int:
        """Return the address of a word."""
        return self.address + 8 * word


@dataclass(frozen=True)
class Meeting:
    """What was measured beside a neighbour; ``spread`` is None if no chunk was contended."""

    spread: Spread | None
    chunks: int
    chunks_contended: int


def two_cores() -> list[int] | None:
    """Return the cores of this process, or None if there are not two."""
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) > 1 else None


def measure_meeting(
    page: Page, context: int, scratch: int, where: str, cores: list[int], effort: Effort
) -> Meeting:
    """Return what an approval costs while a neighbour makes as many (``where`` they meet)."""
    pace = Pace(page.folder)
    duration_s = DURATION_S * min(1.0, effort.budget_s)
    with neighbour(page.folder, cores, where, CHURN) as process:
        plain = _run_beside(process, context, scratch, 0, pace, duration_s)
        samples = np.zeros(CHUNK_ORDERS, dtype=np.int64)
        place = int(samples.ctypes.data)
        timed = _run_beside(process, context, scratch, place, pace, duration_s, samples)
    contended = [ns for ns, moved, _ in plain if is_contended(moved)]
    singles = [each for _, moved, each in timed if is_contended(moved)]
    spread = None
    if contended and singles:
        spread = summarize(contended, np.concatenate(singles))
    return Meeting(spread, len(plain), len(contended))


def is_contended(moved: int) -> bool:
    """Return whether the neighbour kept pace during a chunk in which it made ``moved`` orders."""
    return PACE[0] * CHUNK_ORDERS <= moved <= PACE[1] * CHUNK_ORDERS


@contextmanager
def neighbour(
    folder: Path, cores: list[int], where: str, mode: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Pin this process to the first core and run a neighbour on the second meanwhile."""
    pace = Pace(folder)
    pace.words[:] = 0
    os.sched_setaffinity(0, {cores[0]})
    try:
        process = _start(folder, cores[1], where, mode)
        try:
            yield process
        finally:
            pace.words[STOP] = 1
            _end(process)
    finally:
        os.sched_setaffinity(0, cores)


def wait_for_start(process: "subprocess.Popen[bytes]", pace: Pace) -> bool:
    """Wait until the neighbour has made its first orders; return whether it has."""
    give_up_ns = host_ns() + int(START_WAIT_S * NS_PER_S)
    while pace.words[THEIRS] == 0:
        if process.poll() is not None or host_ns() > give_up_ns:
            return False
        sleep_s(POLL_S)
    return True


def _run_beside(
    process: "subprocess.Popen[bytes]", context: int, scratch: int, place: int, pace: Pace,
    duration_s: float, samples: Any = None,
) -> list[tuple[float, int, Any]]:  # fmt: skip
    """Run chunks; return of each ns per order, the neighbour's orders, and its samples."""
    if not wait_for_start(process, pace):
        return []
    chunks: list[tuple[float, int, Any]] = []
    end_ns = host_ns() + int(duration_s * NS_PER_S)
    while host_ns() < end_ns or len(chunks) < CHUNKS_MIN:
        before = atomics.load(pace.at(THEIRS))
        spent = loops.churn(
            context, 1, MARK_TICKS, STOP_TICKS, BATCHES_PER_CHUNK, scratch, place, pace.at(MINE)
        )
        if spent < 0:
            raise InvariantBroken(f"the benchmark's order got the answer {spent}")
        moved = atomics.load(pace.at(THEIRS)) - before
        chunks.append((spent / CHUNK_ORDERS, moved, None if samples is None else samples.copy()))
    return chunks


def _start(folder: Path, core: int, where: str, mode: str) -> "subprocess.Popen[bytes]":
    box = str(Path(__file__).resolve().parent.parent)
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([box, *inherited])}
    command = [sys.executable, "-m", "benchmarks.pair", str(folder), str(os.getpid()), str(core),
               where, mode]  # fmt: skip
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(END_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(folder: str, parent: str, core: str, where: str, mode: str) -> None:
    """Be the neighbour: the same loop on a key of its own or the same, until told to stop."""
    exit_with(int(parent))
    os.sched_setaffinity(0, {int(core)})
    page = open_page(Path(folder), control_writable=True)
    key = KEY_OF_NEIGHBOUR[where]
    slot = claim_strategy_slot(page, page.names.keys[key][0])
    words = build_context(page, slot, key)
    context = int(words.ctypes.data)
    pace = Pace(Path(folder))
    pace.words[SLOT_WORD] = slot
    if mode == FILL:
        fill_until(page, context, NEIGHBOUR_LOTS, pace, pace.at(TALLY), THEIRS)
        return
    scratch = np.zeros(LINE_WORDS, dtype=np.int64)
    end_ns = host_ns() + int(NEIGHBOUR_LIFE_S * NS_PER_S)
    while not pace.words[STOP] and host_ns() < end_ns:
        spent = loops.churn(
            context, NEIGHBOUR_LOTS, MARK_TICKS, STOP_TICKS, 1, int(scratch.ctypes.data), 0,
            pace.at(THEIRS),
        )  # fmt: skip
        if spent < 0:
            raise InvariantBroken(f"the neighbour's order got the answer {spent}")


def fill_until(
    page: Page, context: int, lots: int, pace: Pace, tally: int, progress: int,
    duration_s: float | None = None,
) -> None:  # fmt: skip
    """Fill up to the limit and release, over and over; then fill once more and leave it standing.

    Ends when told to stop or, if this process is the one to tell, after ``duration_s``.
    """
    limits = page.address(LIMIT, 0)
    atomics.store(tally + loops.OVERSHOOT, -(1 << 62))
    life_s = NEIGHBOUR_LIFE_S if duration_s is None else duration_s
    end_ns = host_ns() + int(life_s * NS_PER_S)
    ending = False
    while not ending:
        # Read before the batch, so that both processes' last batches meet.
        ending = bool(pace.words[STOP]) or host_ns() >= end_ns
        if ending and duration_s is not None:
            pace.words[STOP] = 1
        atomics.store(tally + loops.STANDING, 0)
        answer = loops.fill(context, lots, MARK_TICKS, STOP_TICKS, limits, tally)
        if answer < 0:
            raise InvariantBroken(f"an order against a full limit got the answer {answer}")
        if not ending:
            loops.release_all(context)
        atomics.store(pace.at(progress), atomics.load(pace.at(progress)) + loops.BATCH)


if __name__ == "__main__":
    main(*sys.argv[1:6])
