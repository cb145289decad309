"""How the fate of an order that nobody has heard of is settled, as a table.

A lost answer says nothing: the order may stand, may have filled, may still be on its way. It is
freed by what is seen, never by waiting alone. Waiting only makes the venue's "I know no such order"
believable: it counts from the moment the venue must refuse the request as too old.

Times are host time, ns, counted from when the order was known to be on its way. That is never
earlier than ``t_signed``, and host time is what a request spends in a socket: in a replay, market
time leaps a whole step while the bytes have not moved.

Invariants
----------
U1  NEVER_ARRIVED needs ``ANSWERS_NEEDED`` answers "unknown order", each ``ANSWERS_APART_NS`` after
    the one before, all later than the send window and ``SKEW_NS``, and then one complete trade
    history and account that agree and name the order nowhere.
U2  The clock stands while the venue is faulted, and answers from before a fault do not count: a
    venue that was away may still have the request in its hands.
U3  Where the venue enforces no send window, no answer and no wait leads to NEVER_ARRIVED.
U4  A terminal state is left by nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, unique

from tripgate.clock import NS_PER_MS, NS_PER_S
from tripgate.errors import InvariantBroken

ANSWERS_NEEDED = 3
ANSWERS_APART_NS = NS_PER_S
SKEW_NS = 500 * NS_PER_MS
"""The largest clock offset with which a venue is traded at all (OPERATIONS section 5)."""
INTERVAL_MAX_NS = NS_PER_S
"""What one gap between two looks counts at most: of a longer one nobody knows that it was quiet."""


@unique
class FateState(IntEnum):
    """How far the question has come."""

    WAITING = 1
    ASKING = 2
    READING = 3
    NEVER_ARRIVED = 4
    OBSERVED = 5
    RESOLVED = 6


@unique
class FateEvent(IntEnum):
    """What was seen.

    ``LOOKED`` only lets time pass; ``WINDOW_PASSED`` and ``ENOUGH_ANSWERS`` are what the step
    itself concludes from time and answers. ``OBSERVED`` is any word of the venue about the order,
    ``RESOLVED`` an operator's.
    """

    LOOKED = 1
    NOT_KNOWN = 2
    FAULTED = 3
    READ_AGREES = 4
    READ_DIFFERS = 5
    OBSERVED = 6
    RESOLVED = 7
    WINDOW_PASSED = 8
    ENOUGH_ANSWERS = 9


ENDED = frozenset({FateState.NEVER_ARRIVED, FateState.OBSERVED, FateState.RESOLVED})
"""States in which the question is settled."""

_S, _E = FateState, FateEvent

TRANSITIONS: Mapping[tuple[FateState, FateEvent], FateState] = {
    (_S.WAITING, _E.LOOKED): _S.WAITING,
    # An answer while the request may still arrive says nothing about a moment later.
    (_S.WAITING, _E.NOT_KNOWN): _S.WAITING,
    (_S.WAITING, _E.FAULTED): _S.WAITING,
    (_S.WAITING, _E.WINDOW_PASSED): _S.ASKING,
    (_S.WAITING, _E.OBSERVED): _S.OBSERVED,
    (_S.WAITING, _E.RESOLVED): _S.RESOLVED,
    (_S.ASKING, _E.LOOKED): _S.ASKING,
    (_S.ASKING, _E.NOT_KNOWN): _S.ASKING,
    (_S.ASKING, _E.FAULTED): _S.ASKING,
    (_S.ASKING, _E.ENOUGH_ANSWERS): _S.READING,
    (_S.ASKING, _E.OBSERVED): _S.OBSERVED,
    (_S.ASKING, _E.RESOLVED): _S.RESOLVED,
    (_S.READING, _E.LOOKED): _S.READING,
    (_S.READING, _E.NOT_KNOWN): _S.READING,
    (_S.READING, _E.FAULTED): _S.ASKING,
    # Where history and account disagree one of them is behind: the whole question begins again.
    (_S.READING, _E.READ_DIFFERS): _S.ASKING,
    (_S.READING, _E.READ_AGREES): _S.NEVER_ARRIVED,
    (_S.READING, _E.OBSERVED): _S.OBSERVED,
    (_S.READING, _E.RESOLVED): _S.RESOLVED,
}
"""Next state of every legal pair. What is absent is a bug."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What is known of the fate of one order.

    Attributes
    ----------
    token
        The gate's token, positive.
    window_ns
        How long after signing the venue may still take the order; None where it enforces nothing.
    seen_ns
        When it was last looked at.
    waited_ns
        Time without a fault so far.
    answers
        "Unknown order" answers that count, 0 .. ``ANSWERS_NEEDED``.
    answered_ns
        When the last of them was asked for.
    """

    token: int
    window_ns: int | None
    seen_ns: int
    state: FateState = FateState.WAITING
    waited_ns: int = 0
    answers: int = 0
    answered_ns: int = 0
    faulted: bool = False

    @property
    def ended(self) -> bool:
        """Whether the question is settled."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class FateSettled:
    """Effect: the question is settled, in this state."""

    token: int
    state: FateState


def begin(token: int, window_ms: int | None, now_ns: int) -> Fate:
    """Return the fate of an order that was on its way at ``now_ns`` (host time) at the latest."""
    return Fate(token, None if window_ms is None else window_ms * NS_PER_MS, now_ns)


def step(state: Fate, event: FateEvent, now: int) -> tuple[Fate, tuple[FateSettled, ...]]:
    """Apply what was seen at ``now`` (host time, ns; of an answer, when it was asked for).

    Raises
    ------
    InvariantBroken
        The pair is not in the table, or time runs backwards.
    """
    if now < state.seen_ns:
        raise InvariantBroken(f"order {state.token}: looked at before it was looked at last")
    state = _pass_time(state, event, now)
    following = TRANSITIONS.get((state.state, event))
    if following is None or event in (FateEvent.WINDOW_PASSED, FateEvent.ENOUGH_ANSWERS):
        raise InvariantBroken(
            f"order {state.token}: {event.name} is impossible in {state.state.name}"
        )
    moved = replace(state, state=following)
    if event in (FateEvent.FAULTED, FateEvent.READ_DIFFERS):
        moved = replace(moved, answers=0)
    elif event is FateEvent.NOT_KNOWN:
        moved = _count(moved, now)
    if moved.ended:
        return moved, (FateSettled(moved.token, moved.state),)
    return moved, ()


def _pass_time(state: Fate, event: FateEvent, now: int) -> Fate:
    """Let the clock run to ``now``, and the window pass if it is over."""
    if state.ended:
        return state
    faulted = event is FateEvent.FAULTED
    # The time since the last look counts only if the venue was well at both ends of it.
    quiet = not faulted and not state.faulted
    waited = state.waited_ns + (min(now - state.seen_ns, INTERVAL_MAX_NS) if quiet else 0)
    state = replace(state, seen_ns=now, waited_ns=waited, faulted=faulted)
    passed = state.window_ns is not None and waited > state.window_ns + SKEW_NS
    if state.state is FateState.WAITING and passed:
        return replace(state, state=TRANSITIONS[(FateState.WAITING, FateEvent.WINDOW_PASSED)])
    return state


def _count(state: Fate, now: int) -> Fate:
    """Count an answer if it is far enough from the one before."""
    if state.state is not FateState.ASKING:
        return state
    if state.answers and now - state.answered_ns < ANSWERS_APART_NS:
        return state
    state = replace(state, answers=state.answers + 1, answered_ns=now)
    if state.answers < ANSWERS_NEEDED:
        return state
    return replace(state, state=TRANSITIONS[(FateState.ASKING, FateEvent.ENOUGH_ANSWERS)])
