"""What a group of children is, what is told to its decisions, and what they order.

The decisions themselves are ``supervisors.strategy``; who carries the effects out is
``supervisors.group``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

from supervisors.child_spec import ChildSpec, GroupRule, GroupSpec


@unique
class ChildState(Enum):
    """Where a child's present incarnation stands; WAITING and DOWN have no process."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DOWN = "down"


@unique
class ChildEvent(Enum):
    """What moves a child from state to state."""

    START = "start"
    READY = "ready"
    STOP = "stop"
    EXIT = "exit"
    LEAVE = "leave"


_S, _E = ChildState, ChildEvent

TRANSITIONS: Mapping[tuple[ChildState, ChildEvent], ChildState] = {
    (_S.WAITING, _E.START): _S.STARTING,
    (_S.WAITING, _E.LEAVE): _S.DOWN,
    (_S.STARTING, _E.READY): _S.READY,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.READY, _E.STOP): _S.STOPPING,
    # A process is gone when its exit was seen and not before: only then may a successor start.
    (_S.STARTING, _E.EXIT): _S.WAITING,
    (_S.READY, _E.EXIT): _S.WAITING,
    (_S.STOPPING, _E.EXIT): _S.WAITING,
}
"""Next state of every legal pair. START leads out of WAITING alone: never two live incarnations."""

LIVE = frozenset({ChildState.STARTING, ChildState.READY, ChildState.STOPPING})
"""States with a process."""


@dataclass(frozen=True, slots=True)
class Child:
    """One member of a group.

    Attributes
    ----------
    incarnation
        Number of the present or last incarnation; only rises.
    deaths_s
        Host times of its deaths within its period, oldest first, s.
    timer
        Number of the timer that it waits for, 0 for none.
    is_gated
        It starts with others, in their order, and not for itself alone.
    is_doomed
        It is to be stopped as soon as those that must end before it have.
    is_owed
        It was spared when its group restarted; its turn comes once nothing is open.
    """

    spec: ChildSpec
    state: ChildState = ChildState.WAITING
    incarnation: int = 0
    deaths_s: tuple[float, ...] = ()
    timer: int = 0
    is_gated: bool = True
    is_doomed: bool = False
    is_owed: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it has a process."""
        return self.state in LIVE


@dataclass(frozen=True, slots=True)
class Group:
    """A group as its decisions see it.

    Attributes
    ----------
    children
        In start order.
    timers
        Number of the last timer set.
    is_started
        ``StartAll`` was told.
    is_busy
        A position, order or reservation is open in its scope, or might be: not knowing is busy.
    is_ending, is_down
        ``StopAll`` was told; and every child's exit was seen since.
    """

    name: str
    rule: GroupRule
    children: tuple[Child, ...]
    timers: int = 0
    is_started: bool = False
    is_busy: bool = True
    is_ending: bool = False
    is_down: bool = False

    @staticmethod
    def of(spec: GroupSpec, incarnations: Mapping[str, int] | None = None) -> "Group":
        """Return a group of which nothing runs yet; ``incarnations`` are the last ones used."""
        last = incarnations or {}
        children = tuple(Child(one, incarnation=last.get(one.name, 0)) for one in spec.children)
        return Group(spec.name, spec.rule, children)

    def place(self, name: str) -> int:
        """Return the index of a child."""
        return next(n for n, child in enumerate(self.children) if child.spec.name == name)


@dataclass(frozen=True, slots=True)
class StartAll:
    """Start every member, in order where a spec says so."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An incarnation has said that its state is rebuilt and its loop begins."""

    child: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Died:
    """An incarnation's exit was seen.

    Attributes
    ----------
    reason, code
        What is known of why, and the exit code, negative for a signal.
    failed
        False if it ended on its own with success.
    random
        Uniform in [0, 1), drawn by whoever tells: jitter without randomness in here.
    """

    child: str
    incarnation: int
    reason: str
    code: int
    failed: bool
    random: float


@dataclass(frozen=True, slots=True)
class TimerDue:
    """The timer of that number has run out."""

    child: str
    timer: int


@dataclass(frozen=True, slots=True)
class ScopeBusy:
    """A position, order or reservation is open in the group's scope."""


@dataclass(frozen=True, slots=True)
class ScopeIdle:
    """Nothing at all is open in the group's scope."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """End every member, the last started first: the run is over."""


Message = StartAll | Ready | Died | TimerDue | ScopeBusy | ScopeIdle | StopAll


@dataclass(frozen=True, slots=True)
class CloseScope:
    """Close the gate for a scope, before any other effect of the same step: an escalation."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start an incarnation."""

    child: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an incarnation to end."""

    child: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End an incarnation at once: it did not become ready, or did not end, within its time."""

    child: str
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Timer:
    """Tell ``TimerDue`` after a while; it replaces the child's timer before, if there is one."""

    child: str
    timer: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class LeftDown:
    """A child will not be started again."""

    child: str
    reason: str
    code: int
    gave_up: bool


@dataclass(frozen=True, slots=True)
class GroupRestarted:
    """Members are restarted because of another's death, or because that was owed since one."""

    because: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupDown:
    """Every member of an ending group has ended."""


Effect = CloseScope | Start | Stop | Kill | Timer | LeftDown | GroupRestarted | GroupDown
