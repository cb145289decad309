"""``tripgate bench``: measure the parts on this machine, as ratios beside references.

``gate`` takes half a minute. ``figures`` makes the long runs behind docs/figures.md and writes that
file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError
from tripgate.spelling import did_you_mean

DEFAULT_OUTPUT = Path("docs/figures.md")


def bench(name: str, *, output: Path = DEFAULT_OUTPUT, json: bool = False) -> int:
    """Measure a part of tripgate here.

    Parameters
    ----------
    name
        gate: the check in nanoseconds and in ratios, beside what one would take instead. figures:
        the long runs (minutes), written to a file.
    output
        Where figures writes.
    json
        Print one JSON object instead of text.
    """
    if name == "figures":
        return _figures(output, as_json=json)
    if name not in BENCHMARKS:
        names = (*BENCHMARKS, "figures")
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


BENCHMARKS: dict[str, Callable[..., int]] = {
    "gate": bench_gate,
}
"""Benchmarks that one command runs, by name; each takes ``as_json`` and returns an exit code."""
