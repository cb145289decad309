"""How fast the gate answers on this machine, beside references measured in the same run.

Ratios to the references outlive a change of machine, nanoseconds do not: ``atomic_add`` is one
uncontended atomic add in compiled code, ``builtin_call`` a call from Python of a builtin that is
given three integers and does nothing. How a figure is taken: ``benchmarks.measure``. Beside the
gate stands what a user would take instead (``benchmarks.peers``), and under it one verdict for
each goal.
"""

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import loops
from benchmarks.atomics_count import count_atomics
from benchmarks.bench import DENIED_BY_LEVEL, Bench, private_page
from benchmarks.exactness import measure_exactness
from benchmarks.measure import Call, Effort, Row, Spread, measure_call, sample_timer, summarize
from benchmarks.page import HELD_LOTS, MARK_TICKS, STOP_TICKS
from benchmarks.pair import DISJOINT, SHARED, measure_meeting, two_cores
from benchmarks.peer_rows import measure_peers
from benchmarks.verdicts import judge_goals
from tripgate.errors import InvariantBroken
from tripgate.gate import fastcall
from tripgate.gate.check import check_raw
from tripgate.reasons import Level

PACKAGES = ("numba", "llvmlite", "numpy")
ATOMIC_ADD, BUILTIN_CALL = "atomic_add", "builtin_call"
OPENING, LARGER = (1, MARK_TICKS, STOP_TICKS), (2, MARK_TICKS, STOP_TICKS)
TEXTS = (("0.001", "60000", "59000"), ("0.002", "60000", "59000"))


def empty_builtin() -> Call:
    """Return a builtin in C that is given three integers by vector call and does nothing.

    ``math.gcd`` takes its arguments that way and, once its result is 1, only looks whether the
    others are integers: called with a leading 1 it is the floor of every builtin that must look at
    three integers.
    """
    return math.gcd


def reference_rows(bench: Bench) -> Iterator[Row]:
    """Yield what the other figures are divided by, and the timers that stand in single ones."""
    yield Row(ATOMIC_ADD, "one uncontended atomic add", "", bench.atomic_add())
    builtin = measure_call(empty_builtin(), OPENING, OPENING, loops.BATCH, bench.effort)
    yield Row(BUILTIN_CALL, "a builtin in C with three integers that does nothing", "", builtin)
    dispatcher = measure_call(loops.empty_call, OPENING, OPENING, loops.BATCH, bench.effort)
    yield Row("dispatcher_call", "an empty compiled function called through numba's dispatcher",
              BUILTIN_CALL, dispatcher)  # fmt: skip
    yield Row("timer_compiled", "nothing, between two readings of the clock in compiled code",
              ATOMIC_ADD, bench.compiled_timer())  # fmt: skip
    samples = sample_timer(max(loops.BATCH, bench.effort.singles))
    timer = summarize([min(samples), sorted(samples)[len(samples) // 2]], samples)
    yield Row("timer_python", "nothing, between two readings of the clock from Python",
              BUILTIN_CALL, timer)  # fmt: skip


def compiled_rows(bench: Bench) -> Iterator[Row]:
    """Yield the gate's answers inside compiled code."""
    yield Row("check_compiled", "opening approved, called from compiled code", ATOMIC_ADD,
              bench.compiled(*OPENING))  # fmt: skip
    bench.hold(HELD_LOTS)
    yield Row("close_compiled", "close of the own position approved", ATOMIC_ADD,
              bench.compiled(-1, MARK_TICKS, 0))  # fmt: skip
    bench.hold(0)
    bench.trip(Level.HARD)
    yield from denied_rows(bench)
    bench.trip(Level.NORMAL)


def denied_rows(bench: Bench) -> Iterator[Row]:
    """Yield denials by the level: each other than the last, and the same over and over."""
    for name, by_turns, says in (
        ("denied_compiled", True, "opening denied by the level, each other than the last"),
        ("denied_merged_compiled", False, "the same opening denied by the level over and over"),
    ):
        found: list[Spread] = []

        def ask(by_turns: bool = by_turns, found: list[Spread] = found) -> None:
            found.append(bench.compiled(*OPENING, wanted=DENIED_BY_LEVEL, by_turns=by_turns))

        records = bench.records_per_denial(ask)
        yield Row(name, f"{says} ({records:.3g} records per denial)", ATOMIC_ADD, found[0])


def python_rows(bench: Bench) -> Iterator[Row]:
    """Yield the routes from Python into the check."""
    context, says = bench.context, "opening approved, from Python"
    builtin = bench.builtin()
    yield Row("check_fastcall", f"{says}: the builtin made for a handle", BUILTIN_CALL,
              bench.from_python(builtin, OPENING, LARGER) if builtin else None,
              "" if builtin else "this interpreter cannot be given the builtin")  # fmt: skip
    yield Row("check_handle_raw", f"{says}: handle.check_raw, by {fastcall.route()}", BUILTIN_CALL,
              bench.from_python(bench.handle.check_raw, OPENING, LARGER))  # fmt: skip
    yield Row("check_dispatcher", f"{says}: the compiled check through numba's dispatcher",
              BUILTIN_CALL,
              bench.from_python(check_raw, (context, *OPENING), (context, *LARGER)))  # fmt: skip
    yield Row("check_batch", f"{says}: handle.check_batch, {loops.BATCH} at once, per order",
              BUILTIN_CALL, bench.batch_from_python())  # fmt: skip
    yield Row("check_handle", f"{says}: handle.check with decimal texts", BUILTIN_CALL,
              bench.from_python(bench.handle.check, *TEXTS))  # fmt: skip
    bench.trip(Level.HARD)
    if (answer := bench.handle.check_raw(*OPENING)) != DENIED_BY_LEVEL:
        raise InvariantBroken(f"the benchmark's order got the answer {answer}")
    denied = bench.from_python(bench.handle.check_raw, OPENING, LARGER, wanted=DENIED_BY_LEVEL)
    yield Row("denied_handle_raw", "opening denied by the level, from Python: handle.check_raw",
              BUILTIN_CALL, denied)  # fmt: skip
    bench.trip(Level.NORMAL)


MEETINGS = {
    DISJOINT: "in each of two processes on disjoint instruments (venue and portfolio shared)",
    SHARED: "in each of two processes on one instrument of one strategy (every word shared)",
}


def pair_rows(bench: Bench, cores: list[int] | None) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Yield of each way to meet its row, and what else was counted there."""
    for where, text in MEETINGS.items():
        name, says = f"two_processes_{where}", f"opening approved {text}, compiled"
        if cores is None:
            yield Row(name, says, ATOMIC_ADD, None, "needs two cores"), {}
            continue
        met = measure_meeting(bench.page, bench.context, bench.scratch, where, cores, bench.effort)
        busy = "" if met.spread else "the machine is too busy: no chunk in which both moved evenly"
        scale = min(1.0, bench.effort.budget_s)
        exactness = measure_exactness(bench.page, bench.context, where, cores, scale)
        yield Row(name, says, ATOMIC_ADD, met.spread, busy), {
            "chunks": met.chunks, "chunks_contended": met.chunks_contended,
            "limits": exactness.as_dict() if exactness else None,
        }  # fmt: skip


def run_gate(*, scale: float = 1.0) -> dict[str, Any]:
    """Measure the gate and its peers and return one JSON-ready object.

    Parameters
    ----------
    scale
        Share of the usual effort; tests use a small one.
    """
    load = os.getloadavg()[0]
    effort = Effort().scaled(scale)
    pairs: dict[str, Any] = {}
    with private_page() as page:
        bench = Bench(page, effort)
        rows = [*reference_rows(bench), *compiled_rows(bench), *python_rows(bench)]
        for where, (row, counted) in zip(MEETINGS, pair_rows(bench, two_cores()), strict=True):
            rows.append(row)
            pairs[where] = counted
        rows += measure_peers(page.folder, effort)
    result = {
        "benchmark": "gate",
        "machine": describe_machine(),
        "load_average": round(load, 2),
        "figures": render_rows(rows),
        "two_processes": pairs,
        "atomics": count_atomics(),
    }
    return {**result, "goals": judge_goals(result)}


def render_rows(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Return the rows by name, JSON-ready, each with its ratios to its reference."""
    spreads = {row.name: row.spread for row in rows if row.spread is not None}
    rendered = {}
    for row in rows:
        figure: dict[str, Any] = {"says": row.says, "reference": row.reference}
        if row.spread is None:
            figure["skipped"] = row.skipped
        else:
            whole = asdict(row.spread)
            figure |= {name: round(value, 2) for name, value in whole.items()}
            of = spreads[row.reference or row.name]
            figure["ratio"] = round(row.spread.minimum_ns / of.minimum_ns, 2)
            figure["ratio_median"] = round(row.spread.median_ns / of.median_ns, 2)
        rendered[row.name] = figure
    return rendered


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
