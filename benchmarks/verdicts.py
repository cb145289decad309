"""The goals that the gate's speed is held to, and whether this run reached them.

A goal is written as nanoseconds *or* a ratio to a reference of the same run: the ratio is what a
slower machine is judged by. Smallest chunks judge compiled code; calls from Python and processes
beside each other are judged by the middle chunk.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

COMPILED_NS_MAX, COMPILED_ADDS_MAX = 100.0, 22.0
PYTHON_NS_MAX, PYTHON_CALLS_MAX = 130.0, 8.0
PAIR_NS_MAX = 200.0


@dataclass(frozen=True)
class Verdict:
    """One goal; ``reached`` is None where it could not be measured."""

    goal: str
    reached: bool | None
    figures: str


def judge_goals(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdict on each goal for a result of ``gate.run_gate``, JSON-ready."""
    figures = result["figures"]
    verdicts = (
        _compiled(figures["check_compiled"]),
        _from_python(figures["check_handle_raw"]),
        _pair(figures["two_processes_disjoint"]),
        _limits(result["two_processes"]),
    )
    return [asdict(verdict) for verdict in verdicts]


def _compiled(figure: Mapping[str, Any]) -> Verdict:
    ns, adds = figure["minimum_ns"], figure["ratio"]
    return Verdict(
        f"check in compiled code, record included: at most {COMPILED_NS_MAX:g} ns or "
        f"{COMPILED_ADDS_MAX:g} uncontended atomic adds",
        ns <= COMPILED_NS_MAX or adds <= COMPILED_ADDS_MAX,
        f"{ns:.1f} ns, {adds:.1f} adds",
    )


def _from_python(figure: Mapping[str, Any]) -> Verdict:
    ns, calls = figure["median_ns"], figure["ratio_median"]
    return Verdict(
        f"check_raw from Python, median: at most {PYTHON_NS_MAX:g} ns or {PYTHON_CALLS_MAX:g} "
        "empty builtin calls with three integers",
        ns <= PYTHON_NS_MAX or calls <= PYTHON_CALLS_MAX,
        f"{ns:.1f} ns, {calls:.1f} calls",
    )


def _pair(figure: Mapping[str, Any]) -> Verdict:
    goal = f"two processes on disjoint instruments, median: at most {PAIR_NS_MAX:g} ns each"
    if "skipped" in figure:
        return Verdict(goal, None, figure["skipped"])
    ns = figure["median_ns"]
    return Verdict(goal, ns <= PAIR_NS_MAX, f"{ns:.1f} ns")


def _limits(pairs: Mapping[str, Any]) -> Verdict:
    goal = "two processes saturating one limit: limits exact"
    counted = [pair.get("limits") for pair in pairs.values()]
    if not all(counted):
        return Verdict(goal, None, "the two processes did not meet")
    figures = "; ".join(
        f"{where}: {pair['limits']['granted']} granted, {pair['limits']['refused']} refused, "
        f"words differ by {pair['limits']['difference']}"
        for where, pair in pairs.items()
    )
    return Verdict(goal, all(limits["exact"] for limits in counted), figures)
