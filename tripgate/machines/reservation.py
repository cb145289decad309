"""Life cycle of a reservation entry as one table: which process may move it from where to where.

The entry's state is a word in shared memory that four kinds of process change by compare-and-swap.
The table is the only place that says who may do what; the gate's kernels, the router, the reaper
and the keeper's repair all follow it, and tests read it instead of the code that obeys it.

Invariants
----------
R1  Only the router commits and only the router calls an entry unsent: nobody else can know.
R2  Only the keeper ends a COMMITTED entry, after it has booked every fill of the terminal record;
    otherwise exposure would be missing from both the position and the reservation for a moment.
R3  The reaper, which acts on a deadline alone, reaches RESERVED only: time never ends an order
    that may have left.
R4  Every state other than FREE has a way back to FREE.
R5  An entry is released on a ground, and which grounds end which state stands in ``GROUNDS``: an
    order that may have left ends by what was observed of it, by proof that it never arrived, or by
    an operator's recorded word.
R6  The UNPOSTED bit is set when a client takes an exit during a freeze, kept by every change of
    state, and cleared by the keeper alone, in a change that moves nothing else. A free entry never
    carries it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique

from tripgate.errors import InvariantBroken


@unique
class EntryState(IntEnum):
    """State of one reservation entry. FREE is 0, so that a zeroed page is an empty table."""

    FREE = 0
    RESERVING = 1
    RESERVED = 2
    COMMITTED = 3
    RELEASING = 4
    UNSENT = 5


@unique
class EntryActor(IntEnum):
    """Who changes an entry.

    ``CLIENT`` owns the slot; ``ROUTER`` is the only sender; ``REAPER`` frees what expired;
    ``KEEPER`` books fills and completes or undoes what a dead process left half done.
    """

    CLIENT = 1
    ROUTER = 2
    REAPER = 3
    KEEPER = 4


_CLIENT, _ROUTER = EntryActor.CLIENT, EntryActor.ROUTER
_REAPER, _KEEPER = EntryActor.REAPER, EntryActor.KEEPER

TRANSITIONS: Mapping[tuple[EntryState, EntryState], frozenset[EntryActor]] = {
    (EntryState.FREE, EntryState.RESERVING): frozenset({_CLIENT}),
    (EntryState.RESERVING, EntryState.RESERVED): frozenset({_CLIENT}),
    # A refused or tripped check rolls back; the keeper undoes the section of a dead client.
    (EntryState.RESERVING, EntryState.RELEASING): frozenset({_CLIENT, _KEEPER}),
    (EntryState.RESERVED, EntryState.COMMITTED): frozenset({_ROUTER}),
    (EntryState.RESERVED, EntryState.RELEASING): frozenset({_CLIENT, _REAPER}),
    # The router re-reads generation, level and leases after its swap and may find them moved.
    (EntryState.COMMITTED, EntryState.UNSENT): frozenset({_ROUTER}),
    (EntryState.COMMITTED, EntryState.RELEASING): frozenset({_KEEPER}),
    (EntryState.UNSENT, EntryState.RELEASING): frozenset({_ROUTER, _KEEPER}),
    (EntryState.RELEASING, EntryState.FREE): frozenset(EntryActor),
}
"""Every legal change of an entry and who may make it. What is absent is a bug."""

COUNTED = frozenset(EntryState) - {EntryState.FREE}
"""States in which an entry may be charged at the nodes: sums over entries include all of these."""


def allowed(actor: EntryActor, old: EntryState, new: EntryState) -> bool:
    """Return whether ``actor`` may move an entry from ``old`` to ``new``."""
    return actor in TRANSITIONS.get((old, new), frozenset())


def step(state: EntryState, actor: EntryActor, new: EntryState) -> EntryState:
    """Return ``new`` after checking that ``actor`` may go there from ``state``.

    Raises
    ------
    InvariantBroken
        The table does not allow it.
    """
    if not allowed(actor, state, new):
        raise InvariantBroken(f"{actor.name} may not move an entry {state.name} -> {new.name}")
    return new


@unique
class Ground(IntEnum):
    """Why an entry is released."""

    REFUSED = 1
    OWNER_DIED = 2
    EXPIRED = 3
    NEVER_SENT = 4
    ENDED_AT_VENUE = 5
    NEVER_ARRIVED = 6
    RESOLVED_BY_OPERATOR = 7


GROUNDS: Mapping[tuple[EntryState, Ground], frozenset[EntryActor]] = {
    (EntryState.RESERVING, Ground.REFUSED): frozenset({_CLIENT}),
    (EntryState.RESERVING, Ground.OWNER_DIED): frozenset({_KEEPER}),
    (EntryState.RESERVED, Ground.REFUSED): frozenset({_CLIENT}),
    (EntryState.RESERVED, Ground.EXPIRED): frozenset({_REAPER}),
    (EntryState.UNSENT, Ground.NEVER_SENT): frozenset({_ROUTER, _KEEPER}),
    (EntryState.COMMITTED, Ground.ENDED_AT_VENUE): frozenset({_KEEPER}),
    (EntryState.COMMITTED, Ground.NEVER_ARRIVED): frozenset({_KEEPER}),
    (EntryState.COMMITTED, Ground.RESOLVED_BY_OPERATOR): frozenset({_KEEPER}),
}
"""Which ground lets whom release an entry in which state (R5)."""


def may_release(actor: EntryActor, state: EntryState, ground: Ground) -> bool:
    """Return whether ``actor`` may release an entry in ``state`` on this ground."""
    return actor in GROUNDS.get((state, ground), frozenset())


def is_reapable(state: EntryState, deadline_ns: int, now_ns: int) -> bool:
    """Return whether the reaper frees an entry: RESERVED and beyond its deadline (host time)."""
    expired = deadline_ns < now_ns
    return expired and may_release(EntryActor.REAPER, state, Ground.EXPIRED)


@dataclass(frozen=True, slots=True)
class EntryWord:
    """State and UNPOSTED bit of an entry: what one compare-and-swap changes together."""

    state: EntryState = EntryState.FREE
    unposted: bool = False


def step_word(word: EntryWord, actor: EntryActor, new: EntryWord) -> EntryWord:
    """Return ``new`` after checking that ``actor`` may change an entry's word to it (R6).

    Raises
    ------
    InvariantBroken
        The table does not allow it.
    """
    if word.state is new.state and word.unposted and not new.unposted and actor is _KEEPER:
        return new
    takes_bit = new.unposted and not word.unposted
    if takes_bit and (word.state, new.state) != (EntryState.FREE, EntryState.RESERVING):
        raise InvariantBroken(f"{actor.name} may not mark a {word.state.name} entry unposted")
    # Given back before it was ever posted: the keeper takes it from the count in the same change.
    given_back = new.state is EntryState.FREE
    if word.unposted and not new.unposted and not given_back:
        raise InvariantBroken(f"{actor.name} may not post an entry while it moves its state")
    if given_back and new.unposted:
        raise InvariantBroken("a free entry is never unposted")
    return EntryWord(step(word.state, actor, new.state), new.unposted)
