"""What to do about a group of children, as a pure function over messages.

The first death in a quiet period restarts at once; more of them wait longer and longer, with
jitter, so that what died of one cause does not come back in step; too many escalate: the gate is
closed for the child's scope first, then the child is tried again slowly, for ever. A supervisor
that gives up must leave the gate closed, never the exits dead.

Invariants
----------
S1  Never two live incarnations of a child; its incarnation numbers only rise.
S2  Every death of a member leads to a restart or to ``LeftDown``.
S3  ``CloseScope`` stands before all other effects of its step.
S4  While anything is open, or might be, a member of the exit path is stopped by the end of the run
    alone. A restart that it owes to its group is made up for once nothing is open.
S5  A member ends only after those that must end before it; the end of a run ends everybody.
S6  Within a period a child is restarted at most ``intensity_max`` times at a quick pace and then
    once in ``SLOW_RETRY_S`` less jitter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from supervisors.child_spec import ChildSpec, GroupRule, RestartRule
from supervisors.group_types import (
    TRANSITIONS,
    Child,
    ChildEvent,
    ChildState,
    CloseScope,
    Died,
    Effect,
    Group,
    GroupDown,
    GroupRestarted,
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
from tripgate.errors import InvariantBroken

SLOW_RETRY_S = 10.0
JITTER = 0.25
"""Share of a wait that chance may take off."""
NEVER_READY = "never ready"
NEVER_ENDED = "did not end in time"
RULE_ENDED = "ended, and its rule leaves it so"


@dataclass(frozen=True)
class Restart:
    """Start the next incarnation after ``delay_s``; ``escalate`` closes the scope first."""

    delay_s: float
    escalate: bool = False


@dataclass(frozen=True)
class LeaveDown:
    """The child is done: do not start it again; ``escalate`` says that it was given up."""

    escalate: bool = False


Decision = Restart | LeaveDown


def decide(
    spec: ChildSpec, deaths_s: Sequence[float], now_s: float, failed: bool, random: float = 0.0
) -> Decision:
    """Return what to do after a death.

    Parameters
    ----------
    spec
        The child.
    deaths_s
        Times of its deaths so far, this one included, host time in seconds.
    now_s
        Host time, seconds.
    failed
        False if it ended on its own with success.
    random
        Uniform in [0, 1): which part of the jitter is taken off the wait.
    """
    if spec.restart is RestartRule.TEMPORARY:
        return LeaveDown()
    if spec.restart is RestartRule.TRANSIENT and not failed:
        return LeaveDown()
    recent = len(recent_deaths(spec, deaths_s, now_s))
    if recent > spec.intensity_max:
        if spec.gives_up:
            return LeaveDown(escalate=True)
        return Restart(jittered(SLOW_RETRY_S, random), escalate=True)
    if recent <= 1:
        return Restart(0.0)
    wait_s = min(spec.back_off_max_s, spec.back_off_s * 2.0 ** (recent - 2))
    return Restart(jittered(wait_s, random))


def recent_deaths(spec: ChildSpec, deaths_s: Sequence[float], now_s: float) -> tuple[float, ...]:
    """Return the deaths that still count."""
    return tuple(death_s for death_s in deaths_s if now_s - death_s <= spec.period_s)


def jittered(wait_s: float, random: float) -> float:
    """Return a wait less a part that chance decides."""
    return wait_s * (1.0 - JITTER * random)


def step(group: Group, message: Message, now_s: float) -> tuple[Group, tuple[Effect, ...]]:
    """Apply one message.

    Parameters
    ----------
    now_s
        Host time, s.

    Returns
    -------
    tuple
        The group after it and what is to be done, in this order.

    Raises
    ------
    InvariantBroken
        A child would move along a way that is not in ``TRANSITIONS``.
    """
    work = _Work(group, now_s)
    _HANDLERS[type(message)](work, message)
    work.stop_doomed()
    work.start_due()
    work.note_down()
    closing = [effect for effect in work.effects if isinstance(effect, CloseScope)]
    others = [effect for effect in work.effects if not isinstance(effect, CloseScope)]
    return work.group, (*closing, *others)


class _Work:
    """One step under way: the group as it becomes, and the effects so far."""

    def __init__(self, group: Group, now_s: float) -> None:
        self.group = group
        self.now_s = now_s
        self.effects: list[Effect] = []

    def put(self, place: int, child: Child) -> None:
        children = list(self.group.children)
        children[place] = child
        self.group = replace(self.group, children=tuple(children))

    def move(self, place: int, event: ChildEvent, **fields: Any) -> None:
        child = self.group.children[place]
        following = TRANSITIONS.get((child.state, event))
        if following is None:
            raise InvariantBroken(
                f"{child.spec.name}: {event.name} is impossible while {child.state.name}"
            )
        self.put(place, replace(child, state=following, timer=0, **fields))

    def set_timer(self, place: int, delay_s: float) -> None:
        number = self.group.timers + 1
        self.group = replace(self.group, timers=number)
        child = replace(self.group.children[place], timer=number)
        self.put(place, child)
        self.effects.append(Timer(child.spec.name, number, delay_s))

    def leave(self, place: int, reason: str, code: int, *, gave_up: bool = False) -> None:
        self.move(place, ChildEvent.LEAVE)
        name = self.group.children[place].spec.name
        self.effects.append(LeftDown(name, reason, code, gave_up))

    def start_all(self, _message: StartAll) -> None:
        self.group = replace(self.group, is_started=True)

    def ready(self, message: Ready) -> None:
        place = self.group.place(message.child)
        child = self.group.children[place]
        # A word of readiness may cross the order to stop.
        if child.incarnation == message.incarnation and child.state is ChildState.STARTING:
            self.move(place, ChildEvent.READY)

    def timer_due(self, message: TimerDue) -> None:
        place = self.group.place(message.child)
        child = self.group.children[place]
        if child.timer != message.timer:
            return
        self.put(place, replace(child, timer=0))
        reasons = {ChildState.STARTING: NEVER_READY, ChildState.STOPPING: NEVER_ENDED}
        if reason := reasons.get(child.state):
            self.effects.append(Kill(child.spec.name, child.incarnation, reason))

    def died(self, message: Died) -> None:
        place = self.group.place(message.child)
        child = self.group.children[place]
        if child.incarnation != message.incarnation or not child.is_live:
            return
        # Who is needed to close a position does not wait for the rest of its group.
        needed = child.spec.exit_path and self.group.is_busy
        was_asked = child.state is ChildState.STOPPING or child.is_doomed
        if was_asked or self.group.is_ending:
            # No death of its own: it does not count against it.
            self.move(place, ChildEvent.EXIT, is_doomed=False, is_owed=False, is_gated=not needed)
            if child.spec.restart is RestartRule.TEMPORARY and not self.group.is_ending:
                self.leave(place, RULE_ENDED, message.code)
            return
        deaths_s = recent_deaths(child.spec, (*child.deaths_s, self.now_s), self.now_s)
        gated = self.group.rule is not GroupRule.ONE_FOR_ONE and not needed
        self.move(place, ChildEvent.EXIT, deaths_s=deaths_s, is_owed=False, is_gated=gated)
        decision = decide(child.spec, deaths_s, self.now_s, message.failed, message.random)
        if decision.escalate:
            reason = f"{child.spec.name} dies too often"
            self.effects.append(CloseScope(child.spec.closes, reason))
        if isinstance(decision, LeaveDown):
            self.leave(place, message.reason, message.code, gave_up=decision.escalate)
            return
        if decision.delay_s:
            self.set_timer(place, decision.delay_s)
        self.restart_others(place)

    def scope_busy(self, _message: ScopeBusy) -> None:
        self.group = replace(self.group, is_busy=True)
        for place, child in enumerate(self.group.children):
            if not child.spec.exit_path or self.group.is_ending:
                continue
            if child.is_doomed and child.state is not ChildState.STOPPING:
                self.put(place, replace(child, is_doomed=False, is_owed=True))
            elif child.state is ChildState.WAITING:
                self.put(place, replace(child, is_gated=False))

    def scope_idle(self, _message: ScopeIdle) -> None:
        self.group = replace(self.group, is_busy=False)
        owing = [n for n, child in enumerate(self.group.children) if child.is_owed]
        self.doom(owing, "owed since its group restarted")

    def stop_all(self, _message: StopAll) -> None:
        self.group = replace(self.group, is_ending=True)
        for place, child in enumerate(self.group.children):
            if child.is_live and child.state is not ChildState.STOPPING:
                self.put(place, replace(child, is_doomed=True, is_owed=False))

    def restart_others(self, place: int) -> None:
        """Doom those that a group's rule restarts with a child."""
        rule = self.group.rule
        if rule is GroupRule.ONE_FOR_ONE:
            return
        first = place + 1 if rule is GroupRule.REST_FOR_ONE else 0
        others = [n for n in range(first, len(self.group.children)) if n != place]
        self.doom(others, self.group.children[place].spec.name)

    def doom(self, places: Sequence[int], because: str) -> None:
        doomed = []
        for place in places:
            child = self.group.children[place]
            if child.state not in (ChildState.STARTING, ChildState.READY) or child.is_doomed:
                continue
            spared = child.spec.exit_path and self.group.is_busy
            self.put(place, replace(child, is_doomed=not spared, is_owed=spared))
            if not spared:
                doomed.append(child.spec.name)
        if doomed:
            self.effects.append(GroupRestarted(because, tuple(doomed)))

    def stop_doomed(self) -> None:
        """Ask the doomed to end, those of the last wave first."""
        waves = self.waves()
        leaving = [
            place
            for place, child in enumerate(self.group.children)
            if child.state is ChildState.STOPPING or (child.is_live and child.is_doomed)
        ]
        last = max((waves[n] for n in leaving), default=0)
        for place in reversed(leaving):
            child = self.group.children[place]
            if waves[place] == last and child.state is not ChildState.STOPPING:
                self.move(place, ChildEvent.STOP)
                self.effects.append(Stop(child.spec.name, child.incarnation))
                self.set_timer(place, child.spec.grace_s)
        if self.group.is_ending:
            for place, child in enumerate(self.group.children):
                if child.state is ChildState.WAITING:
                    self.move(place, ChildEvent.LEAVE)

    def waves(self) -> list[int]:
        """Return the wave of each member: a later one has ended before an earlier one is asked."""
        waves, wave = [], 0
        ordered = self.group.rule is GroupRule.REST_FOR_ONE
        for place, child in enumerate(self.group.children):
            spec = child.spec
            if place and (ordered or spec.waits_for_earlier or spec.ends_before_earlier):
                wave += 1
            waves.append(wave)
        return waves

    def start_due(self) -> None:
        """Start whoever waits for nothing any more."""
        if not self.group.is_started or self.group.is_ending:
            return
        children = self.group.children
        # Those that restart together wait for the last exit and for the longest wait of them.
        shut = any(
            child.state is ChildState.STOPPING
            or child.is_doomed
            or (child.is_gated and child.state is ChildState.WAITING and child.timer)
            for child in children
        )
        for place, child in enumerate(children):
            if child.state is not ChildState.WAITING or child.timer:
                continue
            if child.is_gated and (shut or not self._may_follow(place)):
                continue
            incarnation = child.incarnation + 1
            self.move(place, ChildEvent.START, incarnation=incarnation)
            self.effects.append(Start(child.spec.name, incarnation))
            self.set_timer(place, child.spec.start_s)

    def _may_follow(self, place: int) -> bool:
        child = self.group.children[place]
        if not child.spec.waits_for_earlier and self.group.rule is not GroupRule.REST_FOR_ONE:
            return True
        settled = (ChildState.READY, ChildState.DOWN)
        return all(earlier.state in settled for earlier in self.group.children[:place])

    def note_down(self) -> None:
        """Say once that an ending group has ended."""
        over = all(child.state is ChildState.DOWN for child in self.group.children)
        if self.group.is_ending and over and not self.group.is_down:
            self.group = replace(self.group, is_down=True)
            self.effects.append(GroupDown())


_HANDLERS: dict[type, Callable[..., None]] = {
    StartAll: _Work.start_all,
    Ready: _Work.ready,
    Died: _Work.died,
    TimerDue: _Work.timer_due,
    ScopeBusy: _Work.scope_busy,
    ScopeIdle: _Work.scope_idle,
    StopAll: _Work.stop_all,
}
"""What each message does; stopping, starting and ending follow from the state it leaves."""
