"""What a replayed rule says of a decision, and how it is compared with what the record says."""

from typing import NamedTuple

from tripgate.reasons import DenyReason
from tripgate.replay.decided import Decided


class Verdict(NamedTuple):
    """What must have been decided.

    Attributes
    ----------
    reason
        None for an approval.
    scope, limit, used, requested
        As the record has them.
    is_partly
        A word that the rule read is in no record: the numbers are possible, no more is proved.
    problem
        Why what the record holds cannot be, whatever was decided; empty if it can.
    """

    reason: DenyReason | None
    scope: int = 0
    limit: int = 0
    used: int = 0
    requested: int = 0
    is_partly: bool = False
    problem: str = ""


APPROVED = Verdict(None)


def as_told(told: Decided) -> Verdict:
    """Return what the record itself says, for a reason of which one word is in no record."""
    return Verdict(
        told.reason, told.scope, told.limit, told.used, told.requested, is_partly=True
    )  # fmt: skip


def impossible(problem: str) -> Verdict:
    """Return that the record cannot be true."""
    return Verdict(None, problem=problem)


def possible(told: Decided, expected: Verdict, *, when: bool) -> Verdict:
    """Return ``expected`` as partly decided; impossible where what it says cannot have been."""
    if when:
        return expected._replace(is_partly=True)
    name = told.reason.name if told.reason else "approved"
    return impossible(f"{name} with limit {told.limit} and used {told.used} cannot be")


def difference(told: Decided, verdict: Verdict) -> tuple[str, str, str] | None:
    """Return (what, recorded, recomputed) where record and verdict differ, or None."""
    if verdict.problem:
        return ("record", _name(told.reason), verdict.problem)
    if told.reason is not verdict.reason:
        return ("reason", _name(told.reason), _name(verdict.reason))
    if verdict.reason is None:
        return None
    for what in ("scope", "limit", "used", "requested"):
        recorded, recomputed = getattr(told, what), getattr(verdict, what)
        if recorded != recomputed:
            return (f"{verdict.reason.name} {what}", str(recorded), str(recomputed))
    return None


def _name(reason: DenyReason | None) -> str:
    return reason.name if reason else "approved"
