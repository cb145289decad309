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
"""

from collections.abc import Mapping
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
