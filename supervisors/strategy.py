"""one_for_one as a pure function: what to do after a child's death.

The first death in a quiet period restarts at once; more of them wait longer and longer; too many
escalate: the gate is closed for the child's scope first, then it is retried slowly. A supervisor
that gives up must leave the gate closed, never the exits dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from supervisors.child_spec import ChildSpec, RestartRule

SLOW_RETRY_S = 10.0


@dataclass(frozen=True)
class Restart:
    """Start the next incarnation after ``delay_s``; ``escalate`` closes the scope first."""

    delay_s: float
    escalate: bool = False


@dataclass(frozen=True)
class LeaveDown:
    """The child is done: do not start it again."""


Decision = Restart | LeaveDown


def decide(spec: ChildSpec, deaths_s: Sequence[float], now_s: float, failed: bool) -> Decision:
    """Return what to do after a death.

    Parameters
    ----------
    spec
        The child.
    deaths_s
        Times of all its deaths so far, this one included, host time in seconds.
    now_s
        Host time, seconds.
    failed
        False if it ended on its own with success.
    """
    if spec.restart is RestartRule.TEMPORARY:
        return LeaveDown()
    if spec.restart is RestartRule.TRANSIENT and not failed:
        return LeaveDown()
    recent = sum(1 for death_s in deaths_s if now_s - death_s <= spec.period_s)
    if recent > spec.intensity_max:
        return Restart(SLOW_RETRY_S, escalate=True)
    if recent <= 1:
        return Restart(0.0)
    return Restart(min(spec.back_off_max_s, spec.back_off_s * 2.0 ** (recent - 2)))
