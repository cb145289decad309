"""The gate benchmark's result as tables: one form for the terminal and for docs/figures.md."""

from collections.abc import Mapping
from typing import Any

HEAD = ("figure", "min ns", "median", "p50", "p99", "p99.9", "max", "ratio", "of", "what")
ATOMICS_HEAD = ("answer", "atomics", "add", "compare", "exchange", "loads", "stores", "changed")
GOALS_HEAD = ("goal", "verdict", "figures")
VERDICTS = {True: "reached", False: "not reached", None: "not measured"}
SPREAD = ("minimum_ns", "median_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns")
COUNTS = ("total", "fetch_add", "compare_exchange", "exchange", "load", "store")


def figure_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of figures under ``HEAD``."""
    rows = []
    for name, figure in result["figures"].items():
        if "skipped" in figure:
            blank = ("-",) * (len(SPREAD) + 1)
            rows.append((name, *blank, figure["reference"], f"skipped: {figure['skipped']}"))
            continue
        spread = (_ns_text(figure[column]) for column in SPREAD)
        of = figure["reference"] or "the reference"
        rows.append((name, *spread, f"{figure['ratio']:.2f}", of, figure["says"]))
    return rows


def atomics_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of counted atomics under ``ATOMICS_HEAD``."""
    return [
        (name, *(str(counts[column]) for column in COUNTS),
         ", ".join(f"{word} × {count}" for word, count in counts["words"].items()))
        for name, counts in result["atomics"].items()
    ]  # fmt: skip


def goal_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one line for each goal under ``GOALS_HEAD``."""
    return [(goal["goal"], VERDICTS[goal["reached"]], goal["figures"]) for goal in result["goals"]]


def pair_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what was counted of the two processes, a sentence for each way to meet."""
    lines = []
    for where, pair in result["two_processes"].items():
        if not pair:
            continue
        text = f"{where}: {pair['chunks_contended']} of {pair['chunks']} chunks were contended"
        if limits := pair["limits"]:
            text += (
                f"; {limits['granted']} orders granted and {limits['refused']} refused at one "
                f"limit, {limits['standing']} of {limits['limit']} money units standing at the "
                f"end, words differ from private sums by {limits['difference']}, largest gross − "
                f"limit {limits['overshoot']}, left after release {limits['residual']}"
            )
        lines.append(f"Two processes, {text}.")
    return lines


def _ns_text(value: float) -> str:
    return f"{value:.1f}" if value < 1_000 else f"{value:.0f}"
