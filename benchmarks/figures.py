"""docs/figures.md: every figure the documents quote, with the command that made it.

The file is written whole, by machine, after the last run: a figure in it was measured on the
machine that stands at its head, or says why it is missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.gate import describe_machine, run_gate
from benchmarks.gate_text import (
    ATOMICS_HEAD,
    GOALS_HEAD,
    atomics_rows,
    figure_rows,
    goal_rows,
    pair_lines,
)
from benchmarks.gate_text import (
    HEAD as FIGURES_HEAD,
)
from benchmarks.properties import COMMAND as PROPERTIES
from benchmarks.properties import count_properties
from benchmarks.runs import run_once
from exchange_adapters.market.replay import find_panel
from tripgate.clock import utc_ms
from tripgate.errors import DataError, TripgateError

PANEL = "binance_spot_5m_2021-02_2021-07"
CRASH = ("paper", "--replay", PANEL, "--from", "2021-05-19", "--to", "2021-05-20",
         "--strategy", "hold", "--gross", "0.5", "--speed", "max", "--json")  # fmt: skip
STORM = ("chaos", "storm", "--kills", "3000", "--seed", "11", "--json")
OUTAGE = ("paper", "--replay", PANEL, "--from", "2021-04-25", "--to", "2021-04-26",
          "--strategy", "pulse", "--gross", "0.5", "--speed", "max", "--json")  # fmt: skip
SPIN = ("chaos", "spin", "--json")

HEAD = """# Figures

Written by `tripgate bench figures` (`make figures`); edit the command, not this file. Times depend
on the machine and on what else it was doing; ratios and everything that is counted do not. The
figures of the tree, its links and its log stand in [reliability](reliability.md#figures).
"""

METHOD = """`min` is the smallest and `median` the middle of many batches, ns per operation, the
loop around a call from Python subtracted. `p50` to `max` are single operations, one timer pair
each: the timer is included, and the rows `timer_…` show it alone. `ratio` is `min` divided by the
`min` of the row named under `of`. `atomic_add` is one uncontended atomic add in compiled code,
`builtin_call` a call from Python of a builtin that is given three integers and does nothing.

Orders are released outside the timed part and every batch is checked: an order with another answer
than the row is named for stops the run. The records are written; nobody drains them. Two processes
run on a core each; a batch counts if the neighbour made 0.6 to 1.6 times as many orders meanwhile.

The peers reserve the same order at five nodes under hard gross and net limits, all or nothing, and
test level, leases, age of the mark, collar, stop and order cap. They are spared the decision
record, margin, throttles, duplicate guard, trip generation and recovery after a killed process.
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
    report("killing processes on one page, 3000 of them")
    results["storm"] = run_once(*STORM)
    report("running the property tests")
    try:
        results["properties"] = count_properties()
    except TripgateError as error:
        report(f"property tests skipped: {error}")
        results["properties"] = {"skipped": str(error)}
    report("checking the models")
    try:
        results["spin"] = run_once(*SPIN)
    except TripgateError as error:
        report(f"models skipped: {error}")
        results["spin"] = {"skipped": str(error)}
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
    parts.append(_storm_text(results["storm"]))
    parts.append(_properties_text(results["properties"]))
    parts.append(_spin_text(results["spin"]))
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


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _gate_text(gate: dict[str, Any]) -> str:
    parts = [
        "## The gate\n",
        _command_text(("bench", "gate", "--json")),
        METHOD,
        _table(FIGURES_HEAD, figure_rows(gate)),
        f"Load average at its start: {gate['load_average']}.\n",
        "Atomic instructions on the path of one answer, counted:\n",
        _table(ATOMICS_HEAD, atomics_rows(gate)),
        *(f"{line}\n" for line in pair_lines(gate)),
        "The goals:\n",
        _table(GOALS_HEAD, goal_rows(gate)),
    ]
    return "\n".join(parts)


def _storm_text(storm: dict[str, Any]) -> str:
    killed = ", ".join(f"{role} {count}" for role, count in sorted(storm["killed"].items()))
    rows: list[tuple[object, ...]] = [
        ("processes killed", f"{sum(storm['killed'].values())} ({killed})"),
        ("of them inside a section", storm["killed_inside"]),
        ("of them while repairing the page", storm["killed_repairing"]),
        ("stopped inside a section until a repair killed them", storm["overstayed"]),
        ("stopped and continued", storm["stops"]),
        ("grants, fills", f"{storm['grants']}, {storm['fills']}"),
        ("denials", sum(storm["denials"].values())),
        ("repairs begun, completed", f"{storm['repairs_begun']}, {storm['repairs']}"),
        ("looks at the running page", storm["glances"]),
        ("exact comparisons of every word with its tables", storm["exact"]),
        ("fullest node, of its limit", f"{storm['used_ppm_max'] / 10_000:.2f} %"),
        ("violations", len(storm["violations"])),
        ("time", f"{storm['elapsed_s']} s"),
    ]
    return f"## Storm\n\n{_command_text(STORM)}\n{_table(('what', 'figure'), rows)}"


def _properties_text(counts: dict[str, Any]) -> str:
    head = f"## Property tests\n\n```console\n$ {PROPERTIES}\n```\n\n"
    if "skipped" in counts:
        return f"{head}Not made: {counts['skipped']}.\n"
    rows: list[tuple[object, ...]] = [
        (promise, one["tests"], one["examples"]) for promise, one in counts["promises"].items()
    ]
    rows.append(("all of the folder", counts["tests"], counts["examples"]))
    note = (
        "All passed. Examples are those that hypothesis made up; what else a test tries (every "
        "combination, long seeded runs) is not among them.\n\n"
    )
    return f"{head}{note}{_table(('promise', 'tests', 'examples'), rows)}"


def _spin_text(spin: dict[str, Any]) -> str:
    head = f"## Models\n\n{_command_text(SPIN)}\n"
    if "skipped" in spin:
        return f"{head}Not made: {spin['skipped']}.\n"
    rows: list[tuple[object, ...]] = [
        (one["model"], one["variant"], one["demanded"], one["verdict"], one["states"], one["depth"])
        for one in spin["models"]
    ]
    held = sum(one["verdict"] == "holds" for one in spin["models"])
    refuted = sum(one["verdict"] == "refuted" for one in spin["models"])
    note = (
        f"Spin {spin['spin']}: {held} variants hold, {refuted} that break a rule are refuted; all "
        f"as demanded: {spin['passed']}. What each says: [models](reliability.md#models).\n"
    )
    table = _table(("model", "variant", "demanded", "verdict", "states", "depth"), rows)
    return f"{head}{note}\n{table}"


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
