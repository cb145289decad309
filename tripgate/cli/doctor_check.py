"""What one check of ``tripgate doctor`` answers."""

from dataclasses import dataclass
from enum import Enum, unique


@unique
class Verdict(Enum):
    """How a check ended. ``WARN`` runs, but less well or less safely than it should."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One check: its name, verdict, what was found, and what to do unless it is ok."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the check, JSON-ready."""
        return {
            "check": self.name,
            "verdict": self.verdict.value,
            "found": self.found,
            "advice": self.advice,
        }


def ok(name: str, found: str) -> Check:
    """Return a check that passed."""
    return Check(name, Verdict.OK, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Return a check that runs with a drawback."""
    return Check(name, Verdict.WARN, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Return a check that must be mended first."""
    return Check(name, Verdict.FAIL, found, advice)
