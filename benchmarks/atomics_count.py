"""How many atomic instructions one answer takes: counted, not estimated.

The gate's kernels run interpreted here, with counters in place of the atomic primitives, on the
very page that is timed: what is counted is the path that an order takes, not what the machine code
could do on another one. An atomic instruction costs several plain ones and is what grows when two
processes meet, so each is listed with the word of the page that it changes.

Run as a program (``python -m benchmarks.atomics_count``), because numba is switched off for a whole
process.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.bench import Bench, private_page
from benchmarks.page import HELD_LOTS, MARK_TICKS, STOP_TICKS
from tripgate.errors import InvariantBroken
from tripgate.gate.check import check_raw
from tripgate.page import atomics
from tripgate.page.layout import TABLES
from tripgate.page.mapping import Page
from tripgate.reasons import Level

ATOMIC = ("fetch_add", "compare_exchange", "exchange")
PLAIN = ("load", "store")
"""Ordered but not locked: what a word costs that another process may write."""

COUNT_BOUND_S = 120.0


def count_atomics() -> dict[str, Any]:
    """Return the counts of one opening, one close and one denial, from a process without numba.

    Each holds the number of each primitive, ``total`` (the atomic ones) and ``words``.
    """
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.atomics_count"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, env=environment, timeout=COUNT_BOUND_S, check=False,
    )  # fmt: skip
    if answer.returncode:
        words = answer.stderr.strip().splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise InvariantBroken(f"the atomics could not be counted: {words[0]}")
    counts: dict[str, Any] = json.loads(answer.stdout)
    return counts


class Tally:
    """Counts of primitives and of the words that the atomic ones changed."""

    def __init__(self, page: Page) -> None:
        self.calls: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self._page = page

    def note(self, name: str, address: int) -> None:
        """Count one primitive."""
        self.calls[name] += 1
        if name in ATOMIC:
            self.words[self._name_of(address)] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, JSON-ready."""
        return {
            "total": sum(self.calls[name] for name in ATOMIC),
            **{name: self.calls[name] for name in (*ATOMIC, *PLAIN)},
            "words": dict(sorted(self.words.items())),
        }

    def _name_of(self, address: int) -> str:
        for table in TABLES:
            rows = self._page.layout.capacities.rows(table)
            into = address - self._page.address(table, 0)
            if 0 <= into < rows * table.row_bytes:
                offset = into % table.row_bytes
                names = [name for name, at in table.offsets.items() if at <= offset]
                return f"{table.name}.{names[-1]}"
        return "header"


@contextmanager
def counting(tally: Tally) -> Iterator[None]:
    """Count every primitive that the kernels call meanwhile (they must run interpreted)."""
    if not atomics.INTERPRETED:
        raise InvariantBroken("compiled kernels cannot be counted: set NUMBA_DISABLE_JIT=1")
    names = (*ATOMIC, *PLAIN)
    originals = {name: vars(atomics)[name] for name in names}
    depth = 0

    def counted(name: str) -> Callable[..., Any]:
        original = originals[name]

        def call(address: int, *values: int) -> Any:
            nonlocal depth
            # A primitive may be made of others in its plain form: the outer one is what counts.
            if depth == 0:
                tally.note(name, address)
            depth += 1
            try:
                return original(address, *values)
            finally:
                depth -= 1

        return call

    # The clock's scratch words are counted as the stores that they are.
    vars(atomics).update({name: counted(name) for name in names})
    try:
        yield
    finally:
        vars(atomics).update(originals)


def count_here() -> dict[str, Any]:
    """Count in this process, which runs the kernels interpreted."""
    with private_page() as page:
        bench = Bench(page)

        def count(lots: int, stop: int, *, approved: bool) -> dict[str, Any]:
            tally = Tally(page)
            with counting(tally):
                answer = check_raw(bench.context, lots, MARK_TICKS, stop)
            if (answer > 0) != approved:
                raise InvariantBroken(f"the counted order got the answer {answer}")
            bench.release()
            return tally.as_dict()

        # The first order of a slot meets words that no later one meets in that state.
        count(2, STOP_TICKS, approved=True)
        counts = {"opening": count(1, STOP_TICKS, approved=True)}
        bench.hold(HELD_LOTS)
        counts["close"] = count(-1, 0, approved=True)
        bench.hold(0)
        bench.trip(Level.HARD)
        counts["denied"] = count(1, STOP_TICKS, approved=False)
        counts["denied_merged"] = count(1, STOP_TICKS, approved=False)
        return counts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count_here()))
