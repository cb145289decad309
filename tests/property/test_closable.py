"""The closable table over any history, and the page's settlement against it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate_fixtures import BTC, MARKS, Bench, unlinked_bench
from tripgate.errors import InvariantBroken
from tripgate.gate.words import closable_parts
from tripgate.machines import closable
from tripgate.machines.closable import MOVES, Closable, ClosableEvent, Happened
from tripgate.page.layout import KEY

EVENTS = st.lists(
    st.tuples(st.sampled_from(ClosableEvent), st.integers(-6, 6).filter(bool)), max_size=60
)
REDUCING = frozenset(ClosableEvent) - {ClosableEvent.OPEN_FILL}
DONE = (
    ClosableEvent.OPEN_FILL, ClosableEvent.STOP_FILL, ClosableEvent.HOLD,
    ClosableEvent.CLOSE_FILL, ClosableEvent.RELEASE,
)  # fmt: skip
ACTIONS = st.lists(st.tuples(st.sampled_from(DONE), st.integers(1, 9)), max_size=30)


def run(start: Closable, event: ClosableEvent, lots: int) -> tuple[Closable, list[closable.Effect]]:
    """Apply an event by whoever may cause it; what the table calls impossible changes nothing."""
    actor = min(MOVES[event].actors)
    lots = lots if event is ClosableEvent.OPEN_FILL else abs(lots)
    try:
        moved, effects = closable.step(start, Happened(event, actor, lots), 0)
    except InvariantBroken:
        return start, []
    return moved, list(effects)


@given(EVENTS)
def test_P4_closable_when_anything_happens_then_its_invariants_hold(
    events: list[tuple[ClosableEvent, int]],
) -> None:
    state = Closable()
    for event, lots in events:
        moved, effects = run(state, event, lots)
        assert moved.pending_lots >= 0
        assert moved.closable_lots == max(0, abs(moved.position_lots) - moved.pending_lots)
        assert 0 <= moved.wish_lots <= abs(moved.position_lots)
        assert moved.claimed == (moved.wish_lots > 0)
        if event in REDUCING:
            assert moved.position_lots * state.position_lots >= 0, "it flipped a position"
            assert abs(moved.position_lots) <= abs(state.position_lots)
        if event is ClosableEvent.HOLD and not effects and moved != state:
            assert moved.pending_lots <= abs(moved.position_lots)
        state = moved


@given(EVENTS, st.integers(1, 6))
def test_closable_when_closes_are_held_and_then_fill_then_lots_are_never_lost(
    events: list[tuple[ClosableEvent, int]], lots: int
) -> None:
    state = Closable()
    for event, count in events:
        before = state
        state, effects = run(state, event, count)
        beyond = sum(e.lots for e in effects if isinstance(e, closable.Excess))
        taken = abs(before.position_lots) - abs(state.position_lots)
        if event in REDUCING and (taken or beyond):
            assert taken + beyond == abs(count)
    held, refused = run(state, ClosableEvent.HOLD, lots)
    fits = lots <= state.closable_lots and not state.claimed
    assert (held.pending_lots - state.pending_lots == lots) is fits
    assert bool(refused) is not fits


@settings(max_examples=60)
@given(ACTIONS)
def test_settlement_when_a_page_is_opened_closed_and_stopped_then_its_word_is_the_tables(
    actions: list[tuple[ClosableEvent, int]],
) -> None:
    bench = unlinked_bench()
    handle, key, state = bench.handle(BTC), bench.key(BTC), Closable()
    held: list[tuple[int, int]] = []
    for event, lots in actions:
        if event is ClosableEvent.OPEN_FILL:
            bench.hold(lots)
        elif event is ClosableEvent.STOP_FILL:
            lots = min(lots, state.position_lots)
            if lots == 0:
                continue
            bench.hold(-lots)
        elif event is ClosableEvent.HOLD:
            token = handle.check_raw(-lots, MARKS[BTC], 0)
            # The gate may refuse more than the table does (places, a running exit), never less.
            if token <= 0:
                assert word_of(bench, key) == (state.position_lots, state.pending_lots)
                continue
            held.append((token, lots))
        elif not held:
            continue
        else:
            token, lots = held.pop()
            entry = bench.settlement.find(token)
            if event is ClosableEvent.CLOSE_FILL and lots <= state.position_lots:
                after = bench.worth(BTC, state.position_lots - lots)
                bench.settlement.fill(key, entry, -lots, after)
            else:
                event = ClosableEvent.RELEASE
            assert bench.settlement.release(token)
        state, effects = run(state, event, lots)
        assert effects == []
        assert word_of(bench, key) == (state.position_lots, state.pending_lots)


def word_of(bench: Bench, key: int) -> tuple[int, int]:
    return closable_parts(int(bench.page.rows(KEY)["closable"][key]))
