"""Random histories of groups of children: what the supervisor's decisions never do.

The world below keeps the processes that were started, the clock and the timers, as the real
executor does; Hypothesis chooses the specs and what happens. Each history ends with the end of the
run, so that every one of them also shows that a group can be ended from wherever it stands.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisors.child_spec import ChildSpec, GroupRule, GroupSpec, RestartRule
from supervisors.group_types import (
    ChildState,
    CloseScope,
    Died,
    Group,
    GroupDown,
    Kill,
    LeftDown,
    Message,
    Ready,
    ScopeBusy,
    ScopeIdle,
    Start,
    StartAll,
    Stop,
    StopAll,
    Timer,
    TimerDue,
)
from supervisors.strategy import JITTER, SLOW_RETRY_S, step

MEMBERS_MAX = 4
EVENTS_MAX = 60
PERIOD_S = 30.0
SPECS: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    restart=st.sampled_from(RestartRule),
    intensity_max=st.integers(0, 3),
    exit_path=st.booleans(),
    waits_for_earlier=st.booleans(),
    ends_before_earlier=st.booleans(),
    gives_up=st.booleans(),
)
EVENTS = st.tuples(
    st.sampled_from(["ready", "die", "return", "timer", "busy", "idle"]),
    st.integers(0, MEMBERS_MAX - 1),
    st.floats(0.0, 1.0, exclude_max=True),
)


def spec_of(number: int, wishes: dict[str, object]) -> ChildSpec:
    chosen = dict(wishes)
    if chosen["exit_path"]:
        chosen |= {"restart": RestartRule.PERMANENT, "gives_up": False}
    name = f"child{number}"
    return ChildSpec(name, name, period_s=PERIOD_S, start_s=8.0, grace_s=3.0, **chosen)  # type: ignore[arg-type]


@dataclass
class World:
    """The processes that a group's effects have made, and what must hold of them."""

    group: Group
    now_s: float = 0.0
    live: dict[str, int] = field(default_factory=dict)
    started: dict[str, list[float]] = field(default_factory=dict)
    timers: dict[str, tuple[float, int]] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    is_down: bool = False

    def tell(self, message: Message) -> None:
        before = {child.spec.name: child for child in self.group.children}
        self.group, effects = step(self.group, message, self.now_s)
        closes = [isinstance(effect, CloseScope) for effect in effects]
        assert closes == sorted(closes, reverse=True), "the gate closes before anything else"
        for effect in effects:
            if isinstance(effect, Start):
                assert effect.child not in self.live, "a predecessor's exit was not seen"
                assert effect.incarnation > before[effect.child].incarnation
                assert effect.child not in self.left
                self.live[effect.child] = effect.incarnation
                self.started.setdefault(effect.child, []).append(self.now_s)
            elif isinstance(effect, Stop):
                assert self.live[effect.child] == effect.incarnation
                self.is_allowed(effect)
            elif isinstance(effect, Kill):
                assert self.live[effect.child] == effect.incarnation
            elif isinstance(effect, Timer):
                self.timers[effect.child] = (self.now_s + effect.delay_s, effect.timer)
            elif isinstance(effect, LeftDown):
                self.left.add(effect.child)
            elif isinstance(effect, GroupDown):
                assert not self.live
                self.is_down = True
        self.holds()

    def is_allowed(self, stop: Stop) -> None:
        """Check that the exit path is not stopped, and that nobody ends out of order."""
        place = self.group.place(stop.child)
        spec = self.group.children[place].spec
        assert self.group.is_ending or not (spec.exit_path and self.group.is_busy)
        wave = 0
        for later in self.group.children[place + 1 :]:
            ordered = self.group.rule is GroupRule.REST_FOR_ONE
            wave += ordered or later.spec.waits_for_earlier or later.spec.ends_before_earlier
            if self.group.is_ending and wave:
                assert later.spec.name not in self.live, "it had to end before"

    def holds(self) -> None:
        """Check what is true after every step."""
        for child in self.group.children:
            name = child.spec.name
            assert child.is_live == (name in self.live)
            if child.is_live:
                assert child.incarnation == self.live[name]
            waits = child.state is ChildState.WAITING and self.group.is_started
            assert not (waits and self.group.is_ending)
            if child.state is ChildState.DOWN and not self.group.is_ending:
                assert name in self.left, "left down without a word"
            if child.spec.exit_path and not self.group.is_ending:
                assert child.state is not ChildState.DOWN
            if child.spec.exit_path and waits and self.group.is_busy and child.incarnation:
                assert self.is_timed(child.spec.name), "nobody else may hold the exit path up"
        assert not self.group.is_down or not self.live

    def is_timed(self, name: str) -> bool:
        due, number = self.timers.get(name, (0.0, -1))
        return number == self.group.children[self.group.place(name)].timer and due > self.now_s

    def happen(self, what: str, place: int, random: float) -> None:
        """Let something happen to a member that can happen to it."""
        child = self.group.children[place % len(self.group.children)]
        name = child.spec.name
        if what == "busy":
            self.tell(ScopeBusy())
        elif what == "idle":
            self.tell(ScopeIdle())
        elif what == "ready" and name in self.live:
            self.tell(Ready(name, self.live[name]))
        elif what in ("die", "return") and name in self.live:
            number = self.live.pop(name)
            code, failed = (-9, True) if what == "die" else (0, False)
            self.tell(Died(name, number, what, code, failed, random))
        elif what == "timer" and self.timers:
            first = min(self.timers, key=lambda one: self.timers[one])
            due, number = self.timers.pop(first)
            self.now_s = max(self.now_s, due)
            self.tell(TimerDue(first, number))

    def settle(self) -> None:
        """Let everything go well from here on: whoever should run must then run."""
        for _ in range(10 * EVENTS_MAX):
            starting = [c for c in self.group.children if c.state is ChildState.STARTING]
            stopping = [c for c in self.group.children if c.state is ChildState.STOPPING]
            for child in starting:
                self.tell(Ready(child.spec.name, child.incarnation))
            for child in stopping:
                number = self.live.pop(child.spec.name)
                self.tell(Died(child.spec.name, number, "stopped", 0, False, 0.0))
            if not starting and not stopping:
                if all(child.is_live or child.spec.name in self.left or self.group.is_ending
                       for child in self.group.children):  # fmt: skip
                    return
                self.happen("timer", 0, 0.0)
        raise AssertionError("it never comes to rest")


@settings(max_examples=250, deadline=None)
@given(
    rule=st.sampled_from(GroupRule),
    wishes=st.lists(SPECS, min_size=1, max_size=MEMBERS_MAX),
    events=st.lists(EVENTS, max_size=EVENTS_MAX),
    rests=st.booleans(),
)
def test_supervision_when_anything_happens_then_its_promises_hold(
    rule: GroupRule,
    wishes: list[dict[str, object]],
    events: list[tuple[str, int, float]],
    rests: bool,
) -> None:
    specs = tuple(spec_of(number, wish) for number, wish in enumerate(wishes))
    world = World(Group.of(GroupSpec("g", specs, rule)))
    world.tell(StartAll())
    for event in events:
        world.happen(*event)
    if rests:
        world.settle()
        running = {child.spec.name for child in world.group.children if child.is_live}
        assert running | world.left == {spec.name for spec in specs}
    world.tell(StopAll())
    world.settle()
    assert world.is_down


@settings(max_examples=60, deadline=None)
@given(
    intensity_max=st.integers(0, 5),
    lives_s=st.lists(st.floats(0.0, 2.0), min_size=30, max_size=80),
    random=st.floats(0.0, 1.0, exclude_max=True),
)
def test_supervision_when_a_child_dies_on_and_on_then_its_restarts_in_a_period_are_bounded(
    intensity_max: int, lives_s: list[float], random: float
) -> None:
    spec = ChildSpec("child", "child", period_s=PERIOD_S, intensity_max=intensity_max)
    world = World(Group.of(GroupSpec("g", (spec,))))
    world.tell(StartAll())
    for life_s in lives_s:
        world.now_s += life_s
        world.happen("die", 0, random)
        while not world.live:
            world.happen("timer", 0, 0.0)
    starts = world.started["child"]
    slow = int(PERIOD_S / (SLOW_RETRY_S * (1.0 - JITTER))) + 1
    for first in starts:
        within = [start for start in starts if first < start <= first + PERIOD_S]
        assert len(within) <= intensity_max + slow
