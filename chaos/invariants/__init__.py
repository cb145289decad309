"""What must hold in every run, each judged from outside and by arithmetic of its own.

An invariant sees observations, never the code under test. It counts how often it had something to
judge: one that was never exercised in a run has not passed, it has said nothing.
"""

from chaos.invariants.accounts import BookEqualsVenue, DrawdownExact, EquityExact
from chaos.invariants.levels import (
    LatchHolds,
    LevelsJustified,
    LogExplainsPage,
    RestartNeverLoosens,
)
from chaos.invariants.observation import Invariant, Limits, Observation
from chaos.invariants.safety import EndsFlat, NoOpeningWhenTight, Recovers

__all__ = ["Invariant", "Limits", "Observation", "all_invariants"]


def all_invariants(limits: Limits) -> list[Invariant]:
    """Return a fresh set of invariants for one run."""
    return [
        BookEqualsVenue(),
        EquityExact(limits),
        DrawdownExact(limits),
        RestartNeverLoosens(),
        LogExplainsPage(),
        LatchHolds(),
        LevelsJustified(limits),
        NoOpeningWhenTight(),
        EndsFlat(limits),
        Recovers(),
    ]
