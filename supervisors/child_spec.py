"""What the supervisor must know of a child, and of a group of them, to start, watch and restart."""

from dataclasses import dataclass
from enum import Enum, unique

from tripgate.errors import InvariantBroken

PORTFOLIO = "portfolio"


@unique
class RestartRule(Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


@unique
class GroupRule(Enum):
    """Who is restarted with a child that is: nobody, those after it, or all of its group."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


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
    entry
        Module whose ``serve`` is the child's life.
    scope
        Scope that an escalation closes; empty: that of the venue, or the portfolio.
    start_s
        How long it may take from its start until it is ready, s; the very first one compiles.
    grace_s
        How long it may take to end once it was asked to, s; then it is killed.
    exit_path
        Positions cannot be closed without it: no decision of the supervisor stops it while
        anything is open in its group's scope.
    waits_for_earlier
        It starts only once every member before it is ready, and ends before they do.
    ends_before_earlier
        It may start beside the members before it, but has ended before they are asked to.
    gives_up
        After an escalation it is left down instead of being tried again slowly.
    """

    name: str
    actor: str
    venue: str = ""
    restart: RestartRule = RestartRule.PERMANENT
    intensity_max: int = 5
    period_s: float = 60.0
    back_off_s: float = 0.2
    back_off_max_s: float = 5.0
    entry: str = "actors.entry"
    scope: str = ""
    start_s: float = 60.0
    grace_s: float = 5.0
    exit_path: bool = False
    waits_for_earlier: bool = False
    ends_before_earlier: bool = False
    gives_up: bool = False

    def __post_init__(self) -> None:
        """Refuse a way out of positions that could be left down."""
        if self.exit_path and (self.gives_up or self.restart is not RestartRule.PERMANENT):
            raise InvariantBroken(f"{self.name} is on the exit path: it must always come back")

    @property
    def closes(self) -> str:
        """Name of the scope that is closed when this child dies too often."""
        return self.scope or (f"venue:{self.venue}" if self.venue else PORTFOLIO)


@dataclass(frozen=True)
class GroupSpec:
    """Children that one supervisor task keeps, in start order."""

    name: str
    children: tuple[ChildSpec, ...]
    rule: GroupRule = GroupRule.ONE_FOR_ONE

    def __post_init__(self) -> None:
        """Refuse two children of one name."""
        names = [spec.name for spec in self.children]
        if len(set(names)) != len(names):
            raise InvariantBroken(f"group {self.name} names a child twice: {names}")
