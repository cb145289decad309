"""``tripgate bench``: measure the parts on this machine, as ratios beside references.

``gate`` takes half a minute, ``tree`` a few minutes. ``figures`` makes the long runs behind
docs/figures.md and writes that file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError
from tripgate.spelling import did_you_mean

NS_PER_US = 1_000
FIGURES = Path("docs/figures.md")
RELIABILITY = Path("docs/reliability.md")


def bench(name: str, *, output: Path | None = None, json: bool = False) -> int:
    """Measure a part of tripgate here.

    Parameters
    ----------
    name
        gate: the check in nanoseconds and in ratios, beside what one would take instead. audit: the
        log's rows per second and how soon one is durable, beside the disk alone. links: messages
        and rings between processes. socket: round trips over the router's socket. tree: a running
        tree's start, deaths, restarts and memory. figures, reliability: the long runs (minutes)
        behind docs/figures.md and docs/reliability.md, written there.
    output
        Where figures and reliability write.
    json
        Print one JSON object instead of text.
    """
    if name == "figures":
        return _figures(output or FIGURES, as_json=json)
    if name == "reliability":
        return _reliability(output or RELIABILITY, as_json=json)
    if name not in BENCHMARKS:
        names = (*BENCHMARKS, "figures", "reliability")
        raise UsageError(
            f"there is no benchmark {name!r}{did_you_mean(name, names)} (there are: "
            f"{', '.join(names)})"
        )
    return BENCHMARKS[name](as_json=json)


def bench_gate(*, as_json: bool) -> int:
    """Measure the check."""
    write_message("measuring the gate (about half a minute; the first run compiles its kernels)")
    from benchmarks.gate import run_gate

    result = run_gate()
    if as_json:
        write_json(result)
    else:
        write_gate(result)
    return 0


def bench_links(*, as_json: bool) -> int:
    """Measure links between processes."""
    write_message("measuring links (about a minute: it starts a tree with one child)")
    from benchmarks.links import run_links

    result = run_links()
    if as_json:
        write_json(result)
    else:
        rows = [(name, f"{value:,.0f}") for name, value in result["figures"].items()]
        write_table(("figure", "value"), rows)
    return 0


def write_gate(result: dict[str, Any]) -> None:
    """Print a gate benchmark as text: figures, counted atomics, two processes, goals."""
    from benchmarks import gate_text

    machine = result["machine"]
    write_line(
        f"{machine['processor']}, {machine['cores']} cores, load {result['load_average']}, "
        f"Python {machine['python']}, numba {machine['numba']}"
    )
    write_line()
    write_table(gate_text.HEAD, gate_text.figure_rows(result))
    write_line()
    write_table(gate_text.ATOMICS_HEAD, gate_text.atomics_rows(result))
    write_line()
    for line in gate_text.pair_lines(result):
        write_line(line)
    for goal, verdict, figures in gate_text.goal_rows(result):
        write_line(f"{verdict}: {goal}: {figures}")


def bench_tree(*, as_json: bool) -> int:
    """Measure a tree: start, deaths, restarts, memory, false denials."""
    write_message("measuring a tree (a few minutes)")
    from benchmarks.tree import measure_tree

    result = measure_tree(report=write_message)
    if as_json:
        write_json(result)
    else:
        write_tree(result)
    return 0


def write_tree(result: dict[str, Any]) -> None:
    """Print a tree benchmark as text."""
    from benchmarks import tree_text

    write_table(tree_text.HEAD, tree_text.actor_rows(result))
    write_line()
    write_table(tree_text.WHOLE_HEAD, tree_text.whole_rows(result))
    write_line()
    for goal, verdict, figures in tree_text.goal_rows(result):
        write_line(f"{verdict}: {goal}: {figures}")


def bench_socket(*, as_json: bool) -> int:
    """Measure round trips over the router's socket, as a guest makes them."""
    write_message("measuring the router's socket (a paper run of about twenty seconds)")
    from benchmarks.socket import run_socket

    result = run_socket()
    if as_json:
        write_json(result)
        return 0
    rows = [
        (name, *(f"{trip[key] / NS_PER_US:.0f}" for key in ("p50_ns", "p99_ns", "max_ns")))
        for name, trip in result["round_trips"].items()
    ]
    write_table(("round trip, µs", "p50", "p99", "max"), rows)
    write_line(f"load {result['load_average']}")
    return 0


def bench_audit(*, as_json: bool) -> int:
    """Measure the audit log on the disk where logs lie."""
    write_message("measuring the audit log (about half a minute)")
    from benchmarks.audit import run_audit

    result = run_audit()
    if as_json:
        write_json(result)
        return 0
    for name in ("references", "writer", "path", "submit_to_durable"):
        for row, figures in result[name].items():
            write_line(f"{name} {row}: {_figures_text(figures)}")
    for name in ("verify", "bytes_per_row", "export_jsonl", "archive"):
        write_line(f"{name}: {_figures_text(result[name])}")
    for goal in result["goals"]:
        verdict = "reached" if goal["reached"] else "not reached"
        write_line(f"{verdict}: {goal['goal']}: {goal['figures']}")
    return 0


def _figures_text(figures: object) -> str:
    if not isinstance(figures, dict):
        return str(figures)
    return ", ".join(
        f"{name} ({_figures_text(value)})" if isinstance(value, dict) else f"{name} {value}"
        for name, value in figures.items()
    )


def _figures(output: Path, *, as_json: bool) -> int:
    if not output.parent.is_dir():
        raise UsageError(
            f"there is no folder {output.parent}: run this in a checkout, or name an --output"
        )
    from benchmarks.figures import make_figures

    figures = make_figures(report=write_message)
    output.write_text(figures.markdown, encoding="utf-8")
    if as_json:
        write_json(figures.results)
    write_message(f"wrote {output}")
    return 0


def _reliability(output: Path, *, as_json: bool) -> int:
    if not output.is_file():
        raise UsageError(f"there is no {output}: run this in a checkout, or name an --output")
    from benchmarks.reliability import make_reliability, render, replace_between

    document = output.read_text(encoding="utf-8")
    replace_between(document, "")  # Found out now, not after ten minutes.
    results = make_reliability(report=write_message)
    output.write_text(replace_between(document, render(results)), encoding="utf-8")
    if as_json:
        write_json(results)
    write_message(f"wrote {output}")
    return 0


BENCHMARKS: dict[str, Callable[..., int]] = {
    "audit": bench_audit,
    "gate": bench_gate,
    "links": bench_links,
    "tree": bench_tree,
    "socket": bench_socket,
}
"""Benchmarks that one command runs, by name; each takes ``as_json`` and returns an exit code."""
