"""The order's life cycle: table cases and any sequence of events."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.errors import InvariantBroken
from tripgate.machines import order
from tripgate.machines.order import (
    TERMINAL,
    TRANSITIONS,
    FateUnknown,
    LotsFilled,
    Observed,
    Order,
    OrderEnded,
    OrderEvent,
    OrderState,
)

E, S = OrderEvent, OrderState


def run(start: Order, *messages: Observed) -> tuple[Order, list[order.Effect]]:
    effects: list[order.Effect] = []
    for message in messages:
        start, more = order.step(start, message, 0)
        effects.extend(more)
    return start, effects


def fill(trade_id: int, lots: int) -> Observed:
    return Observed(E.FILL, trade_id, lots)


def test_order_when_filled_in_pieces_then_cumulative_lots_rise_to_filled() -> None:
    end, effects = run(Order(7, 5), Observed(E.ACKNOWLEDGE), fill(1, 2), fill(2, 3))
    assert end.state is S.FILLED
    assert effects == [
        LotsFilled(7, 1, 2, 2, False),
        LotsFilled(7, 2, 3, 5, False),
        OrderEnded(7, S.FILLED, 5),
    ]


def test_order_when_a_trade_is_repeated_then_it_counts_once() -> None:
    once, _ = run(Order(7, 5), fill(1, 2))
    assert order.step(once, fill(1, 2), 0) == (once, ())
    filled, _ = run(Order(7, 5), fill(1, 5))
    assert order.step(filled, fill(1, 5), 0) == (filled, ())


def test_order_when_a_fill_crosses_the_cancel_then_its_lots_count_late() -> None:
    end, effects = run(Order(7, 5), fill(1, 2), Observed(E.CANCEL), fill(2, 1))
    assert (end.state, end.filled_lots) == (S.CANCELLED, 3)
    assert effects[1:] == [OrderEnded(7, S.CANCELLED, 2), LotsFilled(7, 2, 1, 3, True)]
    end, effects = run(end, fill(3, 2))
    assert (end.state, effects) == (S.FILLED, [LotsFilled(7, 3, 2, 5, True)])


def test_order_when_no_answer_comes_then_it_is_unknown_until_something_is_observed() -> None:
    unknown, effects = run(Order(7, 5), Observed(E.LOST))
    assert (unknown.state, effects) == (S.UNKNOWN, [FateUnknown(7)])
    again, effects = run(unknown, *[Observed(E.LOST)] * 50)
    assert (again.state, effects) == (S.UNKNOWN, [])
    assert run(unknown, Observed(E.ACKNOWLEDGE))[0].state is S.ACKNOWLEDGED
    assert run(unknown, fill(1, 5))[0].state is S.FILLED
    assert run(unknown, Observed(E.REJECT))[1] == [OrderEnded(7, S.REJECTED, 0)]


def test_order_when_an_unknown_was_partly_filled_then_an_answer_keeps_the_lots() -> None:
    end, _ = run(Order(7, 5), fill(1, 2), Observed(E.LOST), Observed(E.ACKNOWLEDGE))
    assert (end.state, end.filled_lots) == (S.PARTIALLY_FILLED, 2)
    with pytest.raises(InvariantBroken, match="rejected after 2 lots"):
        run(Order(7, 5), fill(1, 2), Observed(E.LOST), Observed(E.REJECT))


@pytest.mark.parametrize(
    "message", [fill(2, 4), fill(2, 0), fill(2, -1)], ids=["too much", "none", "negative"]
)
def test_order_when_a_fill_cannot_be_true_then_the_state_is_unchanged(message: Observed) -> None:
    before, _ = run(Order(7, 5), fill(1, 2))
    with pytest.raises(InvariantBroken, match="fill of"):
        order.step(before, message, 0)
    assert before == Order(7, 5, S.PARTIALLY_FILLED, 2, frozenset({1}))


def test_order_when_a_pair_is_not_in_the_table_then_it_raises() -> None:
    illegal = [pair for pair in itertools.product(S, E) if pair not in TRANSITIONS]
    assert (S.FILLED, E.FILL) in illegal
    for state, event in illegal:
        with pytest.raises(InvariantBroken, match="impossible"):
            order.step(Order(7, 5, state), Observed(event, 1, 1), 0)


def test_order_when_trades_pass_the_bound_then_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "TRADES_PER_ORDER_MAX", 2)
    two, _ = run(Order(7, 5), fill(1, 1), fill(2, 1))
    with pytest.raises(InvariantBroken, match="over 2 trades"):
        order.step(two, fill(3, 1), 0)


@given(
    st.lists(
        st.builds(Observed, st.sampled_from(OrderEvent), st.integers(1, 6), st.integers(1, 3)),
        max_size=25,
    )
)
def test_P7_order_when_events_come_in_any_order_then_lots_only_rise_and_ends_are_final(
    messages: list[Observed],
) -> None:
    state = Order(7, 6)
    counted: dict[int, int] = {}
    ends = 0
    for message in messages:
        try:
            following, effects = order.step(state, message, 0)
        except InvariantBroken:
            continue
        for effect in effects:
            if isinstance(effect, LotsFilled):
                assert effect.trade_id not in counted
                counted[effect.trade_id] = effect.lots
            ends += isinstance(effect, OrderEnded)
        assert state.filled_lots <= following.filled_lots == sum(counted.values()) <= 6
        if state.state in TERMINAL:
            assert following.state in TERMINAL
        if following.state is S.REJECTED and state.state is not S.REJECTED:
            assert message.event is E.REJECT
        state = following
    assert ends == (state.state in TERMINAL)
