"""How fast the gate answers on this machine, beside references measured in the same run.

Every figure is the smallest of many chunks: on a shared machine the mean measures the neighbours.
Ratios to the references (one uncontended atomic add; one empty compiled call with three integers
from Python) outlive a change of machine, nanoseconds do not. Python loops have an empty loop
subtracted. Method and peers: docs/figures.md.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loops
from benchmarks.page import HELD_LOTS, MARK_TICKS, STOP_TICKS, make_page, set_position
from benchmarks.pair import measure_pair
from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.gate.check import check_raw
from tripgate.gate.client import InstrumentHandle
from tripgate.gate.context import build_context
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level

SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - where the product's own pages lie
CHUNKS = 2_000
PYTHON_CHUNKS = 500
REFERENCE_CHUNKS = 400
REFERENCE_COUNT = 2_000
PACKAGES = ("numba", "llvmlite", "numpy")
ATOMIC_ADD, PYTHON_CALL = "atomic_add", "python_call"


@dataclass(frozen=True)
class Figure:
    """One measured thing: ns per operation, and the reference it is to be divided by."""

    name: str
    ns: float
    reference: str
    says: str


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
    """The first strategy's process on a page, and what it measures."""

    def __init__(self, page: Page, scale: float = 1.0) -> None:
        self._page = page
        self._scale = scale
        slot = claim_strategy_slot(page, 0)
        self.handle = InstrumentHandle(page, slot, 0)
        self._words = build_context(page, slot, 0)
        self.context = int(self._words.ctypes.data)
        self._scratch = np.zeros(16, dtype=np.int64)
        self.scratch = int(self._scratch.ctypes.data)

    def _chunks(self, number: int) -> range:
        return range(max(3, int(number * self._scale)))

    def atomic_add(self) -> float:
        """Return ns of one uncontended atomic add in a private word."""
        return min(
            loops.time_adds(self.scratch + 64, REFERENCE_COUNT, self.scratch) / REFERENCE_COUNT
            for _ in self._chunks(REFERENCE_CHUNKS)
        )

    def compiled(self, lots: int, price: int, stop: int, *, denied: bool = False) -> float:
        """Return ns of one check inside compiled code."""
        time_batch = loops.time_denials if denied else loops.time_grants
        best = float("inf")
        for _ in self._chunks(CHUNKS):
            took = time_batch(self.context, lots, price, stop, loops.BATCH, self.scratch)
            if took < 0:
                raise InvariantBroken(f"the benchmark's order got the answer {took}")
            best = min(best, took / loops.BATCH)
            loops.release_all(self.context)
        return best

    def from_python(
        self, call: Callable[..., Any], *arguments: Any, before: Callable[[], object] | None = None
    ) -> float:
        """Return ns of one call from Python, the loop around it subtracted."""
        best = float("inf")
        for _ in self._chunks(PYTHON_CHUNKS):
            if before is not None:
                before()
            began = host_ns()
            for _ in range(loops.BATCH):
                call(*arguments)
            best = min(best, (host_ns() - began) / loops.BATCH)
        return max(0.0, best - self._empty_loop())

    def _empty_loop(self) -> float:
        best = float("inf")
        for _ in self._chunks(PYTHON_CHUNKS):
            began = host_ns()
            for _ in range(loops.BATCH):
                pass
            best = min(best, (host_ns() - began) / loops.BATCH)
        return best

    def release(self) -> None:
        """Put the page back below its limits."""
        loops.release_all(self.context)

    def hold(self, lots: int) -> None:
        """Give the strategy a position."""
        self.release()
        set_position(self._page, 0, lots)

    def trip(self, level: Level) -> None:
        """Set the portfolio's level."""
        set_level(self._page, 0, LevelWriter.BREAKER, level)


def measure(bench: Bench) -> tuple[dict[str, float], list[Figure]]:
    """Return the references and the figures of one process."""
    references = {
        ATOMIC_ADD: bench.atomic_add(),
        PYTHON_CALL: bench.from_python(loops.empty_call, 1, MARK_TICKS, STOP_TICKS),
    }
    opening = (1, MARK_TICKS, STOP_TICKS)
    context = bench.context
    figures = [
        Figure("check_compiled", bench.compiled(*opening), ATOMIC_ADD,
               "opening approved, called from compiled code"),
        Figure("check_dispatcher", bench.from_python(
            check_raw, context, *opening, before=bench.release), PYTHON_CALL,
               "opening approved, called from Python through the dispatcher"),
        Figure("check_handle_raw", bench.from_python(
            bench.handle.check_raw, *opening, before=bench.release), PYTHON_CALL,
               "opening approved, handle.check_raw from Python"),
        Figure("check_handle", bench.from_python(
            bench.handle.check, "0.001", "60000", "59000", before=bench.release), PYTHON_CALL,
               "opening approved, handle.check with decimal texts"),
    ]  # fmt: skip
    bench.release()
    bench.trip(Level.HARD)
    figures += [
        Figure("denied_compiled", bench.compiled(*opening, denied=True), ATOMIC_ADD,
               "opening denied by the level, from compiled code"),
        Figure("denied_dispatcher", bench.from_python(check_raw, context, *opening), PYTHON_CALL,
               "opening denied by the level, from Python through the dispatcher"),
    ]  # fmt: skip
    bench.trip(Level.NORMAL)
    bench.hold(HELD_LOTS)
    figures.append(
        Figure("close_compiled", bench.compiled(-1, MARK_TICKS, 0), ATOMIC_ADD,
               "close of the own position approved, from compiled code")
    )  # fmt: skip
    bench.hold(0)
    return references, figures


def run_gate(*, scale: float = 1.0, pair: bool = True) -> dict[str, Any]:
    """Measure the gate and return one JSON-ready object.

    Parameters
    ----------
    scale
        Share of the usual number of chunks; tests use a small one.
    pair
        Also measure two processes at once, on disjoint instruments.
    """
    load = os.getloadavg()[0]
    with private_page() as page:
        bench = Bench(page, scale)
        references, figures = measure(bench)
        two: dict[str, Any] = {"skipped": "not asked for"}
        if pair:
            two = measure_pair(page, bench.context, bench.scratch, scale)
    for name in ("alone_ns", "contended_ns"):
        if isinstance(two.get(name), float):
            says = f"opening approved in each of two processes, {name.removesuffix('_ns')}"
            figures.append(
                Figure(f"two_processes_{name.removesuffix('_ns')}", two[name], ATOMIC_ADD, says)
            )
    return {
        "benchmark": "gate",
        "machine": describe_machine(),
        "load_average": round(load, 2),
        "references_ns": {name: round(ns, 2) for name, ns in references.items()},
        "figures": {
            figure.name: {
                "ns": round(figure.ns, 1),
                "ratio": round(figure.ns / references[figure.reference], 2),
                "reference": figure.reference,
                "says": figure.says,
            }
            for figure in figures
        },
        "two_processes": two,
    }


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, kernel, versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines()
             if line.startswith(("model name", "Model"))]  # fmt: skip
    return names[0] if names else platform.machine()
