"""How a figure is taken: chunks for what an operation costs, single calls for how it scatters.

A chunk is a batch of operations between two readings of the clock; the smallest chunk is the cost
without the neighbours of a shared machine, the middle one what a caller meets on most days. Single
operations are timed one by one, their timer included: its own distribution stands beside them as a
row of the table. The garbage collector is off meanwhile, as it would be around an order.

Loops around Python calls are measured empty in the same run and subtracted from chunks.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tripgate.clock import NS_PER_S, host_ns

Call = Callable[..., Any]
PERCENTILES = (50.0, 99.0, 99.9)
CHUNKS_MIN = 3


@dataclass(frozen=True)
class Effort:
    """How much is measured for one figure: at most this many, at most this long.

    Attributes
    ----------
    chunks, singles
        Batches timed as a whole, and operations timed one by one.
    budget_s
        Seconds for either; what is slow is measured less often, but at least ``CHUNKS_MIN`` times.
    """

    chunks: int = 2_000
    singles: int = 100_000
    budget_s: float = 0.5

    def scaled(self, scale: float) -> "Effort":
        """Return a share of this effort; tests use a small one."""
        return Effort(
            max(CHUNKS_MIN, int(self.chunks * scale)),
            max(1, int(self.singles * scale)),
            self.budget_s * min(1.0, scale),
        )

    def rounds(self, number: int) -> Iterator[int]:
        """Yield up to ``number`` rounds within the budget, never fewer than ``CHUNKS_MIN``."""
        end_ns = host_ns() + int(self.budget_s * NS_PER_S)
        for index in range(max(CHUNKS_MIN, number)):
            if index >= CHUNKS_MIN and host_ns() > end_ns:
                return
            yield index


@dataclass(frozen=True)
class Spread:
    """One figure, ns: smallest and middle chunk per operation, and single operations."""

    minimum_ns: float
    median_ns: float
    p50_ns: float
    p99_ns: float
    p999_ns: float
    max_ns: float
    singles: int


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure beside its reference, or why there is none.

    Attributes
    ----------
    reference
        Name of the row that the ratio divides by; empty for a reference itself.
    skipped
        Why it was not measured; ``spread`` is then None.
    """

    name: str
    says: str
    reference: str
    spread: Spread | None
    skipped: str = ""


def summarize(chunks_ns: Sequence[float], singles_ns: Sequence[int] | Any) -> Spread:
    """Return the figure of some chunks (ns per operation) and single operations (ns)."""
    singles = np.asarray(singles_ns, dtype=np.int64)
    p50, p99, p999 = np.percentile(singles, PERCENTILES, method="higher")
    return Spread(
        float(min(chunks_ns)), float(np.median(chunks_ns)), float(p50), float(p99), float(p999),
        float(singles.max()), len(singles),
    )  # fmt: skip


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector off meanwhile."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def time_calls(call: Call, one: tuple[int, ...], two: tuple[int, ...], pairs: int) -> int:
    """Return ns of ``pairs`` calls with ``one`` and as many with ``two``, by turns.

    Three and four arguments are passed as such: unpacking a tuple would be part of the figure.
    """
    if len(one) == 3:
        a, b, c = one
        d, e, f = two
        began = host_ns()
        for _ in range(pairs):
            call(a, b, c)
            call(d, e, f)
        return host_ns() - began
    a, b, c, g = one
    d, e, f, h = two
    began = host_ns()
    for _ in range(pairs):
        call(a, b, c, g)
        call(d, e, f, h)
    return host_ns() - began


def time_empty(pairs: int) -> int:
    """Return ns of the loop of ``time_calls`` with nothing in it."""
    began = host_ns()
    for _ in range(pairs):
        pass
    return host_ns() - began


def sample_calls(
    call: Call, one: tuple[Any, ...], two: tuple[Any, ...], count: int, samples: list[int]
) -> None:
    """Append ns of each of ``count`` calls, ``one`` and ``two`` by turns, the timer included."""
    for index in range(count):
        arguments = two if index & 1 else one
        began = host_ns()
        call(*arguments)
        samples.append(host_ns() - began)


def sample_timer(count: int) -> list[int]:
    """Return ns between two readings of the clock from Python with nothing between them."""
    samples: list[int] = []
    for _ in range(count):
        began = host_ns()
        samples.append(host_ns() - began)
    return samples


def measure_call(
    call: Call, one: tuple[Any, ...], two: tuple[Any, ...], batch: int, effort: Effort,
    after: Callable[[], object] = lambda: None,
) -> Spread:  # fmt: skip
    """Return the figure of a Python callable with three or four arguments.

    Parameters
    ----------
    one, two
        Arguments that alternate: a guard against repeated orders would deny equal ones.
    batch
        Calls per chunk, even.
    after
        Called after each batch, outside what is timed: checks and undoes what the batch did.
    """
    pairs = batch // 2
    with no_collection():
        empty = [time_empty(pairs) / batch for _ in effort.rounds(effort.chunks)]
        chunks = []
        for _ in effort.rounds(effort.chunks):
            chunks.append(time_calls(call, one, two, pairs) / batch)
            after()
        samples: list[int] = []
        for _ in effort.rounds(effort.singles // batch):
            sample_calls(call, one, two, batch, samples)
            after()
    least = min(empty)
    return summarize([max(0.1, chunk - least) for chunk in chunks], samples)


def measure_batch(
    call: Callable[[Any], object], orders: Any, effort: Effort, after: Callable[[], object]
) -> Spread:
    """Return the figure, per order, of a Python callable that takes all ``orders`` at once.

    A single operation is one whole call here, shared among its orders.
    """
    chunks = []
    with no_collection():
        for _ in effort.rounds(max(effort.chunks, effort.singles // len(orders))):
            began = host_ns()
            call(orders)
            chunks.append((host_ns() - began) / len(orders))
            after()
    return summarize(chunks, chunks)
