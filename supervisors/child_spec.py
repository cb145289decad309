"""What the supervisor must know of a child to start, watch and restart it."""

from dataclasses import dataclass
from enum import Enum


class RestartRule(Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


@dataclass(frozen=True)
class ChildSpec:
    """One child.

    Attributes
    ----------
    name
        Unique in the tree; an incarnation is ``name#n``.
    actor, venue
        Module under ``actors`` and the venue it serves (empty for tree-wide actors).
    restart
        PERMANENT: always; TRANSIENT: only after a failure; TEMPORARY: never.
    intensity_max, period_s
        More than this many deaths within the period escalate.
    back_off_s, back_off_max_s
        Wait before the second restart within a period; doubles up to the maximum.
    """

    name: str
    actor: str
    venue: str = ""
    restart: RestartRule = RestartRule.PERMANENT
    intensity_max: int = 5
    period_s: float = 60.0
    back_off_s: float = 0.2
    back_off_max_s: float = 5.0
