"""The reservation table: what it allows, and that nothing else is."""

import itertools

import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines import reservation
from tripgate.machines.reservation import (
    TRANSITIONS,
    EntryActor,
    EntryState,
    EntryWord,
    Ground,
)

WORDS = [
    EntryWord(state, unposted)
    for state in EntryState
    for unposted in (False, True)
    if not (unposted and state is EntryState.FREE)
]

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


RELEASED_ON = {
    ("RESERVING", "REFUSED"): "CLIENT",
    ("RESERVING", "OWNER_DIED"): "KEEPER",
    ("RESERVED", "REFUSED"): "CLIENT",
    ("RESERVED", "EXPIRED"): "REAPER",
    ("UNSENT", "NEVER_SENT"): "ROUTER KEEPER",
    ("COMMITTED", "ENDED_AT_VENUE"): "KEEPER",
    ("COMMITTED", "NEVER_ARRIVED"): "KEEPER",
    ("COMMITTED", "RESOLVED_BY_OPERATOR"): "KEEPER",
}


@pytest.mark.parametrize("actor", EntryActor)
def test_release_when_any_ground_is_given_then_only_the_table_passes(actor: EntryActor) -> None:
    for state, ground in itertools.product(EntryState, Ground):
        expected = actor.name in RELEASED_ON.get((state.name, ground.name), "").split()
        assert reservation.may_release(actor, state, ground) is expected
        if expected and state is not EntryState.RESERVING:
            assert reservation.allowed(actor, state, EntryState.RELEASING)


@pytest.mark.parametrize("state", EntryState)
def test_reaper_when_a_deadline_has_passed_then_it_frees_reserved_alone(state: EntryState) -> None:
    assert reservation.is_reapable(state, 10, 11) is (state is EntryState.RESERVED)
    assert not reservation.is_reapable(state, 10, 10)


def test_unposted_when_any_word_changes_then_the_bit_is_kept_until_the_keeper_posts() -> None:
    for old, new in itertools.product(WORDS, WORDS):
        for actor in EntryActor:
            try:
                passed = reservation.step_word(old, actor, new) == new
            except InvariantBroken:
                passed = False
            moves = reservation.allowed(actor, old.state, new.state)
            if old.state is new.state:
                expected = old.unposted and not new.unposted and actor is EntryActor.KEEPER
            elif new.unposted:
                begins = (old.state, new.state) == (EntryState.FREE, EntryState.RESERVING)
                expected = moves and (old.unposted or begins)
            else:
                expected = moves and (not old.unposted or new.state is EntryState.FREE)
            assert passed is expected, (old, new, actor)
