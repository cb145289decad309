"""The reservation table: what it allows, and that nothing else is."""

import itertools

import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines import reservation
from tripgate.machines.reservation import TRANSITIONS, EntryActor, EntryState

ALLOWED = {
    ("FREE", "RESERVING"): "CLIENT",
    ("RESERVING", "RESERVED"): "CLIENT",
    ("RESERVING", "RELEASING"): "CLIENT KEEPER",
    ("RESERVED", "COMMITTED"): "ROUTER",
    ("RESERVED", "RELEASING"): "CLIENT REAPER",
    ("COMMITTED", "UNSENT"): "ROUTER",
    ("COMMITTED", "RELEASING"): "KEEPER",
    ("UNSENT", "RELEASING"): "ROUTER KEEPER",
    ("RELEASING", "FREE"): "CLIENT ROUTER REAPER KEEPER",
}


@pytest.mark.parametrize("actor", EntryActor)
def test_reservation_when_any_pair_is_tried_then_only_the_table_passes(actor: EntryActor) -> None:
    for old, new in itertools.product(EntryState, EntryState):
        expected = actor.name in ALLOWED.get((old.name, new.name), "").split()
        assert reservation.allowed(actor, old, new) is expected
        if expected:
            assert reservation.step(old, actor, new) is new
        else:
            with pytest.raises(InvariantBroken, match=f"{actor.name} may not move"):
                reservation.step(old, actor, new)


def test_reservation_when_in_any_state_then_there_is_a_way_back_to_free() -> None:
    for start in EntryState:
        seen, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            following = {new for old, new in TRANSITIONS if old is here} - seen
            seen |= following
            waiting.extend(following)
        assert EntryState.FREE in seen


def test_reservation_when_only_time_passes_then_a_committed_entry_stays() -> None:
    reached = {
        new
        for (old, new), actors in TRANSITIONS.items()
        if old is EntryState.COMMITTED and EntryActor.REAPER in actors
    }
    assert reached == set()
    assert EntryState(0) is EntryState.FREE
    assert EntryState.FREE not in reservation.COUNTED
