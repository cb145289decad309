"""The fate table: what frees an order of unknown fate, and that waiting alone never does."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.clock import NS_PER_MS, NS_PER_S
from tripgate.errors import InvariantBroken
from tripgate.machines import unknown
from tripgate.machines.unknown import (
    ANSWERS_APART_NS,
    ANSWERS_NEEDED,
    ENDED,
    SKEW_NS,
    TRANSITIONS,
    Fate,
    FateEvent,
    FateSettled,
    FateState,
)

E, S = FateEvent, FateState
WINDOW_MS = 1_000
OVER_NS = WINDOW_MS * NS_PER_MS + SKEW_NS
SAID = [event for event in E if event not in (E.WINDOW_PASSED, E.ENOUGH_ANSWERS)]
HALF = NS_PER_S // 2


def run(state: Fate, *events: tuple[FateEvent, int]) -> Fate:
    """Apply events, each some ns after the one before."""
    for event, gap_ns in events:
        state, _ = unknown.step(state, event, state.seen_ns + gap_ns)
    return state


def begun(window_ms: int | None = WINDOW_MS) -> Fate:
    return unknown.begin(7, window_ms, 100)


def waited() -> Fate:
    return run(begun(), (E.LOOKED, NS_PER_S), (E.LOOKED, HALF), (E.LOOKED, 1))


def asked(answers: int = ANSWERS_NEEDED) -> Fate:
    return run(waited(), *[(E.NOT_KNOWN, ANSWERS_APART_NS)] * answers)


def test_fate_when_answers_and_reading_agree_then_it_never_arrived() -> None:
    assert waited().state is S.ASKING
    assert [asked(n).state for n in range(4)] == [S.ASKING, S.ASKING, S.ASKING, S.READING]
    ended, effects = unknown.step(asked(), E.READ_AGREES, asked().seen_ns)
    assert (ended.state, effects) == (S.NEVER_ARRIVED, (FateSettled(7, S.NEVER_ARRIVED),))


def test_fate_when_asked_within_the_window_then_the_answers_do_not_count() -> None:
    early = run(begun(), *[(E.NOT_KNOWN, HALF)] * 3)
    assert (early.state, early.answers, early.waited_ns) == (S.WAITING, 0, OVER_NS)
    # The very answer that is asked for after the window is the first that counts.
    assert run(early, (E.NOT_KNOWN, 1)).answers == 1


def test_fate_when_answers_come_too_close_then_only_those_a_second_apart_count() -> None:
    once = asked(1)
    close = run(once, *[(E.NOT_KNOWN, ANSWERS_APART_NS // 4)] * 3)
    assert close.answers == 1
    assert run(close, (E.NOT_KNOWN, ANSWERS_APART_NS // 4)).answers == 2


def test_fate_when_the_venue_is_faulted_then_the_clock_stands_and_answers_are_void() -> None:
    half_way = run(begun(), (E.LOOKED, HALF))
    faulted = run(half_way, *[(E.FAULTED, NS_PER_S)] * 20)
    assert faulted.waited_ns == half_way.waited_ns
    healed = run(faulted, (E.LOOKED, NS_PER_S))
    assert healed.waited_ns == half_way.waited_ns, "at one end of that gap it was still faulted"
    assert run(healed, (E.LOOKED, HALF)).waited_ns == half_way.waited_ns + HALF
    assert run(asked(2), (E.FAULTED, 1)).answers == 0
    assert run(asked(), (E.FAULTED, 1)).state is S.ASKING


def test_fate_when_nobody_looked_for_long_then_the_gap_counts_as_a_second() -> None:
    assert run(begun(), (E.LOOKED, 3_600 * NS_PER_S)).waited_ns == NS_PER_S


def test_fate_when_history_and_account_differ_then_everything_is_asked_again() -> None:
    again = run(asked(), (E.READ_DIFFERS, 1))
    assert (again.state, again.answers) == (S.ASKING, 0)
    assert run(again, *[(E.NOT_KNOWN, ANSWERS_APART_NS)] * 3).state is S.READING


@pytest.mark.parametrize("state", [begun(), waited(), asked(2), asked()])
@pytest.mark.parametrize("event", [E.OBSERVED, E.RESOLVED])
def test_fate_when_the_venue_or_an_operator_speaks_then_it_is_settled_at_once(
    state: Fate, event: FateEvent
) -> None:
    ended, effects = unknown.step(state, event, state.seen_ns)
    assert ended.ended
    assert effects == (FateSettled(7, S[event.name]),)


def test_fate_when_a_pair_is_not_in_the_table_then_it_raises() -> None:
    for state, event in itertools.product(S, E):
        inner = event in (E.WINDOW_PASSED, E.ENOUGH_ANSWERS)
        if (state, event) in TRANSITIONS and not inner:
            assert unknown.step(replace(begun(), state=state), event, 100)
            continue
        with pytest.raises(InvariantBroken, match="impossible"):
            unknown.step(replace(begun(), state=state), event, 100)
    assert all(state not in ENDED for state, _ in TRANSITIONS)


def test_fate_when_time_runs_backwards_then_it_raises() -> None:
    with pytest.raises(InvariantBroken, match="before it was looked at last"):
        unknown.step(begun(), E.LOOKED, 99)


@given(
    st.lists(st.tuples(st.sampled_from(SAID), st.integers(0, 3 * NS_PER_S)), max_size=40),
    st.sampled_from([None, 0, WINDOW_MS]),
)
def test_P7_fate_when_anything_is_seen_then_never_arrived_only_with_its_whole_proof(
    events: list[tuple[FateEvent, int]], window_ms: int | None
) -> None:
    state = begun(window_ms)
    counted: list[int] = []
    faulted = False
    quiet_ns = 0
    for event, gap_ns in events:
        now = state.seen_ns + gap_ns
        if state.ended or (state.state, event) not in TRANSITIONS:
            passes = state.state is S.WAITING and event in (E.READ_AGREES, E.READ_DIFFERS)
            assert state.ended or passes or state.state is S.ASKING
            break
        if event is not E.FAULTED and not faulted:
            quiet_ns += min(gap_ns, NS_PER_S)
        faulted = event is E.FAULTED
        window_over = window_ms is not None and quiet_ns > window_ms * NS_PER_MS + SKEW_NS
        if event in (E.FAULTED, E.READ_DIFFERS):
            counted = []
        elif event is E.NOT_KNOWN and window_over and len(counted) < ANSWERS_NEEDED:
            if not counted or now - counted[-1] >= ANSWERS_APART_NS:
                counted.append(now)
        state, _ = unknown.step(state, event, now)
        assert state.answers == len(counted)
        if state.state is S.NEVER_ARRIVED:
            assert event is E.READ_AGREES
            assert window_over
            assert len(counted) == ANSWERS_NEEDED
        if window_ms is None:
            assert state.state in (S.WAITING, S.OBSERVED, S.RESOLVED)
