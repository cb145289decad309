"""What a verifier's text says: the numbers, the error, and whether the search was complete.

Spin generates a verifier (``pan``) whose only result is text. A search that was cut short by depth
or memory and found nothing has shown nothing, and an assertion that no state reached has not been
checked; both are read here, so that neither can pass for a proof.
"""

import re
from dataclasses import dataclass

_STATES = re.compile(r"^ *([0-9.e+]+) states, stored", re.MULTILINE)
_SUMMARY = re.compile(r"depth reached (\d+), errors: (\d+)")
_ERROR = re.compile(r"^pan:\d+: (.+?)(?: \(at depth -?\d+\))?$", re.MULTILINE)
_UNREACHED = re.compile(r'^\t(\S+\.pml:\d+), state \d+, "(.*)"$', re.MULTILINE)
_SHORTENED = (
    (re.compile(r"max search depth too small"), "the bound of the depth was reached"),
    (re.compile(r"reached -DMEMLIM bound|out of memory"), "the memory bound was reached"),
)


@dataclass(frozen=True)
class SearchReport:
    """What one run of a verifier reported.

    Attributes
    ----------
    states, depth
        Stored states, and the longest path.
    errors
        How many errors were reported (the search ends at the first).
    error
        The first error in the verifier's words, or empty.
    shortened
        Why the search was not complete, or empty.
    unreached_assertions
        ``file:line`` of each assertion that no state reached; complete only for a complete search.
    """

    states: int
    depth: int
    errors: int
    error: str
    shortened: str
    unreached_assertions: tuple[str, ...]

    @property
    def violates_assertion(self) -> bool:
        """Whether the error is a violated assertion, which is what a refutation means here."""
        return self.errors > 0 and self.error.startswith("assertion violated")


def read_report(text: str) -> SearchReport | None:
    """Return what the verifier's text says, or None if it did not come to its summary."""
    states, summary = _STATES.search(text), _SUMMARY.search(text)
    if states is None or summary is None:
        return None
    error = _ERROR.search(text)
    reasons = [reason for pattern, reason in _SHORTENED if pattern.search(text)]
    unreached = {
        place for place, source in _UNREACHED.findall(text) if source.startswith("assert(")
    }
    return SearchReport(
        states=int(float(states[1])),
        depth=int(summary[1]),
        errors=int(summary[2]),
        error=error[1] if error else "",
        shortened=reasons[0] if reasons else "",
        unreached_assertions=tuple(sorted(unreached)),
    )
