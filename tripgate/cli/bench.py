"""``tripgate bench``: measure the parts on this machine, as ratios beside references.

``gate`` takes seconds. ``figures`` makes the long runs behind docs/figures.md and writes that file.
"""

from pathlib import Path
from typing import Any

from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError
from tripgate.spelling import did_you_mean

NAMES = ("gate", "figures")
DEFAULT_OUTPUT = Path("docs/figures.md")


def bench(name: str, *, output: Path = DEFAULT_OUTPUT, json: bool = False) -> int:
    """Measure a part of tripgate here.

    Parameters
    ----------
    name
        gate: the check in nanoseconds and in ratios. figures: the long runs (minutes), written to
        a file.
    output
        Where figures writes.
    json
        Print one JSON object instead of text.
    """
    if name not in NAMES:
        raise UsageError(
            f"there is no benchmark {name!r}{did_you_mean(name, NAMES)} (there are: "
            f"{', '.join(NAMES)})"
        )
    if name == "figures":
        return _figures(output, as_json=json)
    write_message("measuring the gate (a few seconds; the first run compiles its kernels)")
    from benchmarks.gate import run_gate

    result = run_gate()
    if json:
        write_json(result)
    else:
        write_gate(result)
    return 0


def write_gate(result: dict[str, Any]) -> None:
    """Print a gate benchmark as text."""
    machine = result["machine"]
    write_line(
        f"{machine['processor']}, {machine['cores']} cores, load {result['load_average']}, "
        f"Python {machine['python']}, numba {machine['numba']}"
    )
    write_line()
    references = [
        (name, f"{ns:.1f}", "1", "-", "the reference")
        for name, ns in result["references_ns"].items()
    ]
    figures = [
        (name, f"{row['ns']:.1f}", f"{row['ratio']:.1f}", row["reference"], row["says"])
        for name, row in result["figures"].items()
    ]
    write_table(("figure", "ns", "ratio", "of", "what"), [*references, *figures])
    two = result["two_processes"]
    if "skipped" in two:
        write_message(f"two processes: skipped: {two['skipped']}")
    elif two["contended_ns"] is None:
        write_message(
            "two processes: no chunk in which both moved evenly: the machine is too busy, try again"
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
