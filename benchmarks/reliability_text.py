"""Results of drills and benchmarks as the Markdown of docs/reliability.md."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks import tree_text
from benchmarks.gate import describe_machine
from chaos.deaths import text as deaths_text
from tripgate.clock import NS_PER_MS, utc_ms

TITLES = {
    "matrix": "Every way to die", "soak": "Random deaths of streaming children",
    "roots": "Deaths of roots", "powercut": "Power cuts under the log",
    "tampering": "Tampering with a log", "auditkills": "Kills along the audit path",
}  # fmt: skip
NS_PER_US = 1_000


def machine_text() -> str:
    """Return when and where this was measured."""
    machine = describe_machine()
    day = datetime.fromtimestamp(utc_ms() / 1000, UTC).strftime("%Y-%m-%d")
    return (
        f"Made on {day}: {machine['processor']}, {machine['cores']} cores, Linux "
        f"{machine['kernel']}, Python {machine['python']}. Times depend on the machine and on what "
        "else it was doing; what is counted does not.\n"
    )


def command_text(words: Sequence[str]) -> str:
    """Return a command as a block."""
    return f"```console\n$ tripgate {' '.join(words)}\n```\n"


def tree_part(result: Mapping[str, Any]) -> list[str]:
    """Return the section on a running tree."""
    return [
        "### A running tree\n", command_text(("bench", "tree", "--json")),
        *tree_text.markdown(result),
    ]  # fmt: skip


def links_part(result: Mapping[str, Any]) -> list[str]:
    """Return the section on links."""
    rows = [(name, _link_figure(name, value)) for name, value in result["figures"].items()]
    return [
        "### Links\n", command_text(("bench", "links", "--json")),
        tree_text.table(("what", "figure"), rows), f"Load average {result['load_average']:.1f}.\n",
    ]  # fmt: skip


def _link_figure(name: str, value: float) -> str:
    if not name.endswith("_ns"):
        return f"{value:,.0f}"
    return f"{value / NS_PER_US:,.1f} µs" if value < NS_PER_MS else f"{value / NS_PER_MS:,.1f} ms"


def audit_part(result: Mapping[str, Any]) -> list[str]:
    """Return the section on the log's speed."""
    rows = [
        (f"{part}: {name}", _flat(figures))
        for part in ("references", "writer", "path", "submit_to_durable")
        for name, figures in result[part].items()
    ]
    rows += [(name, _flat(result[name])) for name in ("verify", "bytes_per_row", "export_jsonl",
                                                      "archive")]  # fmt: skip
    goals = [
        (goal["goal"], "reached" if goal["reached"] else "not reached", str(goal["figures"]))
        for goal in result["goals"]
    ]
    return [
        "### Speed of the log\n", command_text(("bench", "audit", "--json")),
        f"On {result['disk']}, load average {result['load_average']}. `writer`: rows of a commit; "
        "`path`: producers whose rings are drained; `submit_to_durable`: what a lone opening waits "
        "beside that load.\n",
        tree_text.table(("what", "figures"), rows),
        tree_text.table(("goal", "verdict", "figures"), goals),
    ]  # fmt: skip


def _flat(figures: object) -> str:
    if not isinstance(figures, Mapping):
        return str(figures)
    return ", ".join(
        f"{name} ({_flat(value)})" if isinstance(value, Mapping) else f"{name} {_number(value)}"
        for name, value in figures.items()
    )


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def drill_part(name: str, words: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Return the section on a drill."""
    head = [f"### {TITLES[name]}\n", command_text(words)]
    if "skipped" in result:
        return [*head, f"Not made: {result['skipped']}.\n"]
    body = {"powercut": _powercut, "tampering": _tampering, "auditkills": _auditkills}
    return [*head, *body.get(name, _deaths)(result)]


def _deaths(result: Mapping[str, Any]) -> Iterator[str]:
    yield tree_text.table(deaths_text.HEADS[result["kind"]], deaths_text.rows(result))
    yield "".join(f"- {line}\n" for line in deaths_text.lines(result))


def _powercut(result: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (one["says"], one["states"], one["lossy"], one["failed_states"])
        for one in (result["campaign"], *result["controls"])
    ]
    yield tree_text.table(("writer", "states", "that really lost something", "failed"), rows)
    yield (
        f"Drawn from {result['operations']} operations on files, {result['rows']} rows; "
        f"{result['elapsed_s']} s. All but the first leave a sync out and must fail.\n"
    )


def _tampering(result: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, int] = {}
    for kind in result["kinds"]:
        for by, count in kind["found_by"].items():
            found[by] = found.get(by, 0) + count
    trials = sum(kind["trials"] for kind in result["kinds"])
    noticed = sum(kind["found"] for kind in result["kinds"])
    yield tree_text.table(("noticed by", "trials"), sorted(found.items(), key=lambda one: -one[1]))
    yield (
        f"{len(result['kinds'])} kinds, {trials} trials on {result['rows']} rows, {noticed} "
        f"noticed, the others without any effect on a row; {len(result['violations'])} violations; "
        f"{result['elapsed_s']} s. A trial may be noticed by several.\n"
    )


def _auditkills(result: Mapping[str, Any]) -> Iterator[str]:
    yield tree_text.table(("who died where", "times"), list(result["killed"].items()))
    yield (
        f"{result['recorded']} records stored, each once; {result['acknowledged']} of them "
        f"acknowledged in time; {len(result['violations'])} violations; {result['elapsed_s']} s.\n"
    )
