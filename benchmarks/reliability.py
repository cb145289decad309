"""The figures of docs/reliability.md: every drill and benchmark of the tree, its links and its log.

They stand in the document between two marks, and only this command writes between them: what is
told there was measured on the machine that is named there, by the commands that stand beside it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import reliability_text
from benchmarks.audit import run_audit
from benchmarks.links import run_links
from benchmarks.runs import run_once
from benchmarks.tree import measure_tree
from tripgate.errors import TripgateError, UsageError

BEGIN = "<!-- figures: written by `tripgate bench reliability` -->"
END = "<!-- figures end -->"

DRILLS: dict[str, tuple[str, ...]] = {
    "matrix": ("chaos", "deaths", "--rounds", "5", "--together", "1", "--json"),
    "soak": ("chaos", "deaths", "--soak", "60", "--seed", "7", "--json"),
    "roots": ("chaos", "deaths", "--roots", "--rounds", "3", "--json"),
    "powercut": ("chaos", "powercut", "--states", "600", "--seed", "5", "--json"),
    "tampering": ("chaos", "tampering", "--trials", "5", "--seed", "5", "--json"),
    "auditkills": ("chaos", "auditkills", "--kills", "400", "--seed", "5", "--json"),
}
"""Each drill and the command that makes it, as it stands in the document."""


def make_reliability(report: Callable[[str], None]) -> dict[str, Any]:
    """Make every run (some ten minutes), telling ``report`` what is under way; return results."""
    report("measuring a tree: start, deaths, restarts")
    results: dict[str, Any] = {"tree": measure_tree(report=report)}
    report("measuring links")
    results["links"] = run_links()
    report("measuring the audit log")
    results["audit"] = run_audit()
    for name, words in DRILLS.items():
        report(f"tripgate {' '.join(words)}")
        try:
            results[name] = run_once(*words)
        except TripgateError as error:
            # A drill without a C compiler, say: the document then says what is missing.
            report(f"left out: {error}")
            results[name] = {"skipped": str(error)}
    return results


def render(results: Mapping[str, Any]) -> str:
    """Return the part between the marks."""
    parts = [
        reliability_text.machine_text(),
        *reliability_text.tree_part(results["tree"]),
        *reliability_text.links_part(results["links"]),
        *reliability_text.audit_part(results["audit"]),
    ]
    for name, words in DRILLS.items():
        parts += reliability_text.drill_part(name, words, results[name])
    return "\n".join(parts)


def replace_between(document: str, part: str) -> str:
    """Return a document with the part between its two marks replaced.

    Raises
    ------
    UsageError
        The document does not have the two marks, in order, once each.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise UsageError(f"the document needs the lines '{BEGIN}' and '{END}', once each")
    before, _, rest = document.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise UsageError(f"'{END}' stands before '{BEGIN}'")
    return f"{before}{BEGIN}\n\n{part.strip()}\n\n{END}{after}"
