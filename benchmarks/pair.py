"""Two processes at the gate at once: the same loop in both, each on its own core and instrument.

They share the nodes that every order passes (venue and portfolio) and nothing else. A chunk counts
as contended only if the neighbour moved about as fast meanwhile, as alone if it did not move:
otherwise a chunk during which the neighbour was off its core would pass for a fast one.

The neighbour is this module run as a program: ``python -m benchmarks.pair FOLDER PARENT_PID``.
"""

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loops
from benchmarks.page import MARK_TICKS, STOP_TICKS
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.gate.context import build_context
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page import atomics
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with

BATCHES_PER_CHUNK = 40
CHUNK_ORDERS = BATCHES_PER_CHUNK * loops.BATCH
ALONE_CHUNKS = 1_000
DURATION_S = 1.5
START_WAIT_S = 60.0
END_WAIT_S = 10.0
NEIGHBOUR_LIFE_S = 120.0
PACE = (0.6, 1.6)
"""Share of this process's orders that the neighbour must have made for a chunk to be contended."""

POLL_S = 0.01
LINE_WORDS = 8
WORDS_FILE = "pace"
_MINE, _THEIRS, _STOP = 0, LINE_WORDS, 2 * LINE_WORDS
_WORDS = 3 * LINE_WORDS


class Pace:
    """Three words that both processes see: how far each has come, and whether to stop."""

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / WORDS_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _WORDS * 8)
            self._map = mmap.mmap(descriptor, _WORDS * 8)
        finally:
            os.close(descriptor)
        self.words = np.frombuffer(self._map, dtype=np.int64)
        self.address = int(self.words.ctypes.data)


def measure_pair(page: Page, context: int, scratch: int, scale: float = 1.0) -> dict[str, Any]:
    """Return ns per order alone and contended, and how many chunks stand behind each."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return {"skipped": "needs two cores"}
    pace = Pace(page.folder)
    os.sched_setaffinity(0, {cores[0]})
    try:
        alone = [
            _chunk(context, scratch, pace.address)[0]
            for _ in range(max(3, int(ALONE_CHUNKS * scale)))
        ]
        neighbour = _start_neighbour(page.folder, cores[1])
        try:
            chunks = _run_beside(neighbour, context, scratch, pace, DURATION_S * scale)
        finally:
            pace.words[_STOP] = 1
            _end(neighbour)
    finally:
        os.sched_setaffinity(0, cores)
    least, most = (share * CHUNK_ORDERS for share in PACE)
    contended = [ns for ns, moved in chunks if least <= moved <= most]
    return {
        "alone_ns": round(min(alone), 1),
        "contended_ns": round(min(contended), 1) if contended else None,
        "contended_median_ns": round(float(np.median(contended)), 1) if contended else None,
        "chunks_contended": len(contended),
        "chunks": len(chunks),
    }


def _chunk(context: int, scratch: int, pace: int) -> tuple[float, int]:
    """Run one chunk; return ns per order and how many orders the neighbour made meanwhile."""
    before = atomics.load(pace + 8 * _THEIRS)
    spent = loops.churn(
        context, 1, MARK_TICKS, STOP_TICKS, BATCHES_PER_CHUNK, scratch, pace + 8 * _MINE
    )
    if spent < 0:
        raise AssertionError(f"the benchmark's order got the answer {spent}")
    return spent / CHUNK_ORDERS, atomics.load(pace + 8 * _THEIRS) - before


def _start_neighbour(folder: Path, core: int) -> "subprocess.Popen[bytes]":
    box = str(Path(__file__).resolve().parent.parent)
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([box, *inherited])}
    command = [sys.executable, "-m", "benchmarks.pair", str(folder), str(os.getpid()), str(core)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)


def _run_beside(
    neighbour: "subprocess.Popen[bytes]", context: int, scratch: int, pace: Pace, duration_s: float
) -> list[tuple[float, int]]:
    give_up_ns = host_ns() + int(START_WAIT_S * NS_PER_S)
    while pace.words[_THEIRS] == 0:
        if neighbour.poll() is not None or host_ns() > give_up_ns:
            return []
        sleep_s(POLL_S)
    chunks: list[tuple[float, int]] = []
    end_ns = host_ns() + int(duration_s * NS_PER_S)
    while host_ns() < end_ns or len(chunks) < 3:
        chunks.append(_chunk(context, scratch, pace.address))
    return chunks


def _end(neighbour: "subprocess.Popen[bytes]") -> None:
    try:
        neighbour.wait(END_WAIT_S)
    except subprocess.TimeoutExpired:
        neighbour.kill()
        neighbour.wait()


def main(folder: str, parent: str, core: str) -> None:
    """Be the neighbour: the same loop on the second instrument, until told to stop."""
    exit_with(int(parent))
    os.sched_setaffinity(0, {int(core)})
    page = open_page(Path(folder), control_writable=True)
    slot = claim_strategy_slot(page, 1)
    words = build_context(page, slot, 1)
    scratch = np.zeros(LINE_WORDS, dtype=np.int64)
    pace = Pace(Path(folder))
    end_ns = host_ns() + int(NEIGHBOUR_LIFE_S * NS_PER_S)
    while not pace.words[_STOP] and host_ns() < end_ns:
        spent = loops.churn(
            int(words.ctypes.data), 1, MARK_TICKS, STOP_TICKS, 1, int(scratch.ctypes.data),
            pace.address + 8 * _THEIRS,
        )  # fmt: skip
        if spent < 0:
            raise AssertionError(f"the neighbour's order got the answer {spent}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
