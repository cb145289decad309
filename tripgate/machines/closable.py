"""The closable word and the exit claim of one key, as a table: what a strategy may still close.

A key is one (strategy, instrument, position side). Its word holds the position and the lots that
closes on their way have promised to take from it; what is left is closable. The table says which
event moves which half and who may cause it; the gate's kernels, the keeper's settlement and the
router follow it, and tests compare them with it.

Invariants
----------
C1  Pending lots are never negative.
C2  A reducing event never takes a position through zero. What it would take beyond zero is an
    ``Excess``: it belongs to another owner of the account's position, never to this key.
C3  Closable = max(0, |position| - pending), and a hold is granted only within it. A stop or a
    liquidation may leave more promised than there is: then nothing is closable.
C4  A wish is positive exactly while the claim stands, and never above the position.
C5  An opening is admitted against neither a position of the other sign nor promised lots on the
    other side, so a net key changes its sign only through zero in both halves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import NamedTuple

from tripgate.errors import InvariantBroken
from tripgate.units import LOTS_MAX


@unique
class ClosableEvent(IntEnum):
    """What can happen to a key."""

    OPEN_FILL = 1
    CLOSE_FILL = 2
    EXIT_FILL = 3
    STOP_FILL = 4
    LIQUIDATION = 5
    DELEVERAGE = 6
    MANUAL = 7
    HOLD = 8
    RELEASE = 9
    CLAIM = 10
    LOWER_WISH = 11
    DROP = 12
    RELEASED_CLOSE_FILL = 13


@unique
class ClosableActor(IntEnum):
    """Who may cause it: a strategy's client, the keeper, the router, breaker or operator."""

    CLIENT = 1
    KEEPER = 2
    ROUTER = 3
    BREAKER = 4


@unique
class Change(IntEnum):
    """How an event moves a part of the key."""

    NONE = 0
    SIGNED = 1
    TOWARDS_ZERO = 2
    UP = 3
    DOWN = 4
    CLEARED = 5


class Move(NamedTuple):
    """One line of the table: how the parts move, and who may move them."""

    position: Change
    pending: Change
    wish: Change
    actors: frozenset[ClosableActor]


_CLIENT, _KEEPER = ClosableActor.CLIENT, ClosableActor.KEEPER
_ROUTER, _BREAKER = ClosableActor.ROUTER, ClosableActor.BREAKER
_BOOKED = frozenset({_KEEPER})
_TAKEN = Move(Change.TOWARDS_ZERO, Change.NONE, Change.NONE, _BOOKED)

MOVES: Mapping[ClosableEvent, Move] = {
    # The only event that may carry a sign of its own: two openings may have crossed.
    ClosableEvent.OPEN_FILL: Move(Change.SIGNED, Change.NONE, Change.NONE, _BOOKED),
    ClosableEvent.CLOSE_FILL: Move(Change.TOWARDS_ZERO, Change.DOWN, Change.NONE, _BOOKED),
    # The tree's own exits and stops hold nothing, so they take from the position alone.
    ClosableEvent.EXIT_FILL: _TAKEN,
    # A close of unknown fate gave its hold back where the venue enforces reduce-only; it filled.
    ClosableEvent.RELEASED_CLOSE_FILL: _TAKEN,
    ClosableEvent.STOP_FILL: _TAKEN,
    ClosableEvent.LIQUIDATION: _TAKEN,
    ClosableEvent.DELEVERAGE: _TAKEN,
    ClosableEvent.MANUAL: _TAKEN,
    ClosableEvent.HOLD: Move(Change.NONE, Change.UP, Change.NONE, frozenset({_CLIENT})),
    ClosableEvent.RELEASE: Move(Change.NONE, Change.DOWN, Change.NONE,
                                frozenset({_CLIENT, _KEEPER})),
    ClosableEvent.CLAIM: Move(Change.NONE, Change.NONE, Change.UP, frozenset({_CLIENT, _BREAKER})),
    ClosableEvent.LOWER_WISH: Move(Change.NONE, Change.NONE, Change.DOWN, frozenset({_ROUTER})),
    ClosableEvent.DROP: Move(Change.NONE, Change.NONE, Change.CLEARED, frozenset({_ROUTER})),
}  # fmt: skip
"""Every event of a key. What an event does not name it leaves alone."""


@dataclass(frozen=True, slots=True)
class Closable:
    """One key.

    Attributes
    ----------
    position_lots
        Signed.
    pending_lots
        Promised by closes on their way, >= 0.
    wish_lots
        What the merged exit is to close; 0 while there is no claim.
    """

    position_lots: int = 0
    pending_lots: int = 0
    wish_lots: int = 0

    @property
    def closable_lots(self) -> int:
        """What a new close may still take (C3)."""
        return max(0, abs(self.position_lots) - self.pending_lots)

    @property
    def claimed(self) -> bool:
        """Whether a merged exit is wished for."""
        return self.wish_lots > 0


@dataclass(frozen=True, slots=True)
class Refused:
    """Effect: nothing was changed; the close merges into the exit or waits."""

    event: ClosableEvent
    lots: int


@dataclass(frozen=True, slots=True)
class Excess:
    """Effect: ``lots`` of a fill (unsigned) go beyond this key's position: another owner's."""

    lots: int


@dataclass(frozen=True, slots=True)
class ExitEnded:
    """Effect: wish and claim are cleared; nothing is left to be closed for it."""


Effect = Refused | Excess | ExitEnded


@dataclass(frozen=True, slots=True)
class Happened:
    """One event. ``lots`` is signed for OPEN_FILL and unsigned otherwise (ignored by DROP)."""

    event: ClosableEvent
    actor: ClosableActor
    lots: int = 0


def allowed(actor: ClosableActor, event: ClosableEvent) -> bool:
    """Return whether ``actor`` may cause ``event``."""
    return actor in MOVES[event].actors


def admits_opening(state: Closable, signed_lots: int) -> bool:
    """Return whether an opening of this sign may be granted on the key now (C5)."""
    if state.position_lots == 0:
        return state.pending_lots == 0
    return (state.position_lots > 0) == (signed_lots > 0)


def step(state: Closable, message: Happened, now: int) -> tuple[Closable, tuple[Effect, ...]]:
    """Apply one event.

    Parameters
    ----------
    now
        Market time, ms. Unused: nothing of a key ends by time.

    Raises
    ------
    InvariantBroken
        The actor may not cause it, or the lots are out of range. The state is unchanged.
    """
    event, lots = message.event, message.lots
    move = MOVES[event]
    if message.actor not in move.actors:
        raise InvariantBroken(f"{message.actor.name} may not cause {event.name}")
    signed = move.position is Change.SIGNED
    if event is not ClosableEvent.DROP and not 0 < (abs(lots) if signed else lots) <= LOTS_MAX:
        raise InvariantBroken(f"{event.name} of {lots} lots")
    if event is ClosableEvent.HOLD and (state.claimed or lots > state.closable_lots):
        return state, (Refused(event, lots),)
    if event is ClosableEvent.CLAIM and state.position_lots == 0:
        return state, (Refused(event, lots),)
    position, excess = _position(state, move.position, lots)
    pending = _pending(state, event, move.pending, lots)
    moved = Closable(position, pending, _wish(state, move.wish, lots, position))
    if abs(position) > LOTS_MAX:
        raise InvariantBroken(f"a position of {position} lots is out of range")
    effects: list[Effect] = [Excess(excess)] if excess else []
    if state.claimed and not moved.claimed:
        effects.append(ExitEnded())
    return moved, tuple(effects)


def _position(state: Closable, change: Change, lots: int) -> tuple[int, int]:
    """Return the position after the event and the lots (unsigned) that went beyond zero."""
    held = state.position_lots
    if change is Change.SIGNED:
        return held + lots, 0
    if change is not Change.TOWARDS_ZERO:
        return held, 0
    taken = min(lots, abs(held))
    return held - taken if held > 0 else held + taken, lots - taken


def _pending(state: Closable, event: ClosableEvent, change: Change, lots: int) -> int:
    if change is Change.UP:
        return state.pending_lots + lots
    if change is not Change.DOWN:
        return state.pending_lots
    if lots > state.pending_lots:
        raise InvariantBroken(f"{event.name} of {lots} lots, {state.pending_lots} are promised")
    return state.pending_lots - lots


def _wish(state: Closable, change: Change, lots: int, position: int) -> int:
    """Return the wish after the event, never above the position it is to close (C4)."""
    wish = state.wish_lots
    if change is Change.UP:
        # The latest and largest wish stands; a smaller one is part of it.
        wish = max(wish, lots)
    elif change is Change.DOWN:
        wish = max(0, wish - lots)
    elif change is Change.CLEARED:
        wish = 0
    return min(wish, abs(position))
