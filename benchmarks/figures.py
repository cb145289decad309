"""docs/figures.md: every figure the documents quote, with the command that made it.

The file is written whole, by machine, after the last run: a figure in it was measured on the
machine that stands at its head, or says why it is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.gate import describe_machine, run_gate
from benchmarks.restarts import COMMAND, measure_restarts
from benchmarks.runs import run_once
from exchange_adapters.market.replay import find_panel
from tripgate.clock import utc_ms
from tripgate.errors import DataError

PANEL = "binance_spot_5m_2021-02_2021-07"
CRASH = ("paper", "--replay", PANEL, "--from", "2021-05-19", "--to", "2021-05-20",
         "--strategy", "hold", "--gross", "0.5", "--speed", "max", "--json")  # fmt: skip
OUTAGE = ("paper", "--replay", PANEL, "--from", "2021-04-25", "--to", "2021-04-26",
          "--strategy", "pulse", "--gross", "0.5", "--speed", "max", "--json")  # fmt: skip

HEAD = """# Figures

Written by `tripgate bench figures` (`make figures`); edit the command, not this file. Times depend
on the machine and on what else it was doing; ratios and everything that is counted do not.
"""

METHOD = """A figure is the smallest of many chunks, with the loop around it subtracted where it is
called from Python. `atomic_add` is one uncontended atomic add in compiled code, `python_call` an
empty compiled call with three integers through the dispatcher; the ratio is the figure divided by
its reference.
Orders are released outside the timed part. The records are written; nobody drains them. A chunk
with two processes counts as contended if the neighbour made 0.6 to 1.6 times as many orders
meanwhile.
"""


@dataclass(frozen=True)
class Figures:
    """The document and the raw results behind it."""

    markdown: str
    results: dict[str, Any]


def make_figures(report: Callable[[str], None]) -> Figures:
    """Make every run (minutes), telling ``report`` what is under way; return the document."""
    report("measuring the gate")
    results: dict[str, Any] = {"gate": run_gate()}
    report("measuring starts and restarts")
    results["restarts"] = measure_restarts()
    try:
        find_panel(PANEL)
    except DataError as error:
        report(f"replays skipped: {error}")
        results["skipped"] = str(error)
    else:
        report("replaying the crash of 2021-05-19, twice")
        results["crash"] = [run_once(*CRASH), run_once(*CRASH)]
        report("replaying the outage of 2021-04-25")
        results["outage"] = run_once(*OUTAGE)
    return Figures(render(results), results)


def render(results: dict[str, Any]) -> str:
    """Return the document of some results."""
    parts = [HEAD, _machine_text(), _gate_text(results["gate"])]
    parts.append(_restarts_text(results["restarts"]))
    if "crash" in results:
        parts.append(_crash_text(*results["crash"]))
        parts.append(_outage_text(results["outage"]))
    else:
        parts.append(
            "## Replays\n\nNot made: the recorded panels were not on the machine "
            "(`TRIPGATE_PANELS` names their folder).\n"
        )
    return "\n".join(parts)


def _machine_text() -> str:
    machine = describe_machine()
    day = datetime.fromtimestamp(utc_ms() / 1000, UTC).strftime("%Y-%m-%d")
    return (
        f"Made on {day}: {machine['processor']}, {machine['cores']} cores, Linux "
        f"{machine['kernel']}, Python {machine['python']}, numba {machine['numba']}, numpy "
        f"{machine['numpy']}.\n"
    )


def _command_text(words: tuple[str, ...]) -> str:
    return f"```console\n$ tripgate {' '.join(words)}\n```\n"


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _gate_text(gate: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        (name, ns, 1, "", "the reference") for name, ns in gate["references_ns"].items()
    ]
    rows += [
        (name, row["ns"], row["ratio"], row["reference"], row["says"])
        for name, row in gate["figures"].items()
    ]
    two = gate["two_processes"]
    note = f"Two processes: {two['skipped']}.\n" if "skipped" in two else (
        f"Two processes: {two['chunks_contended']} of {two['chunks']} chunks were contended.\n"
    )  # fmt: skip
    command = _command_text(("bench", "gate", "--json"))
    table = _table(("figure", "ns", "ratio", "of", "what"), rows)
    load = f"Load average at its start: {gate['load_average']}.\n"
    return f"## The gate\n\n{command}\n{METHOD}\n{table}\n{note}{load}"


def _restarts_text(restarts: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        ("command to armed gate", f"{restarts['armed_s']} s"),
        *(
            (f"kill -9 of {role}, to its successor's live lease", f"{ms:.0f} ms")
            for role, ms in restarts["actors_ms"].items()
        ),
        ("kill -9 of the root, to no process of the tree", f"{restarts['tree_gone_ms']:.0f} ms"),
        ("next start on the surviving venue, to armed gate", f"{restarts['armed_again_s']} s"),
        ("log verified after all of it", restarts["verified"]),
    ]
    return f"## Starts and restarts\n\n{_command_text(COMMAND)}\n{_table(('what', 'time'), rows)}"


def _time_text(market_ms: int) -> str:
    return datetime.fromtimestamp(market_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _summary_rows(summary: dict[str, Any]) -> list[tuple[object, ...]]:
    denied = ", ".join(f"{name} {count}" for name, count in summary["decisions"]["denied"].items())
    return [
        ("time of the whole run", f"{summary['elapsed_s']} s, armed after {summary['armed_s']} s"),
        ("steps, ticks", f"{summary['steps']}, {summary['ticks']}"),
        ("approved", summary["decisions"]["approved"]),
        ("denied", denied or "none"),
        ("fills", summary["fills"]),
        ("largest drawdown", f"{summary['drawdown_max']:.2%}"),
        ("equity at the end", summary["equity"]),
        ("flat at the end", summary["flat"]),
        ("overshoot at grant, largest", summary["overshoot_at_grant_max"]),
        ("seconds unprotected, largest", summary["seconds_unprotected_max"]),
        ("log", f"{summary['audit']['rows']} rows, verified: {summary['audit']['verified']}"),
        ("exit code", summary["exit_code"]),
    ]


def _levels_table(summary: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        (_time_text(market_ms), scope, level, cause)
        for market_ms, scope, level, cause in summary["levels"]
    ]
    return _table(("market time (UTC)", "scope", "level", "cause"), rows)


def _crash_text(first: dict[str, Any], second: dict[str, Any]) -> str:
    digests = [run["decisions"]["digest"] for run in (first, second)]
    same = digests[0] == digests[1]
    rows = [*_summary_rows(first), ("decisions equal in a second run", same)]
    return (
        f"## Crash of 2021-05-19\n\n{_command_text(CRASH)}\n{_table(('what', 'figure'), rows)}\n"
        f"{_levels_table(first)}"
    )


def _outage_text(summary: dict[str, Any]) -> str:
    return (
        f"## Outage of 2021-04-25\n\n{_command_text(OUTAGE)}\n"
        f"{_table(('what', 'figure'), _summary_rows(summary))}\n{_levels_table(summary)}"
    )
