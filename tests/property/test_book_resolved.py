"""An operator's word and the venue's trades about one order, told in any order."""

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_book import new
from tripgate.machines import book
from tripgate.machines.book import Book, Fill, Key, Resolved, Terminal

KEY = Key(1, 0)
LOTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 1_000)), max_size=6)


def told(trades: list[tuple[int, int]], side: int, resolved: Resolved, at: int, ends: bool) -> Book:
    """Tell every trade, with the operator's word after the first ``at`` of them."""
    state = new()
    messages: list[book.Message] = [
        Fill(number, 7, 1, 0, side * lots, ticks, 1, number)
        for number, (lots, ticks) in enumerate(trades, start=1)
    ]
    messages.insert(min(at, len(messages)), resolved)
    if ends:
        messages.append(Terminal(7, sum(lots for lots, _ in trades)))
    for message in messages:
        state, _ = book.step(state, message, 0)
    return state


@given(LOTS, st.sampled_from([1, -1]), st.integers(0, 30), st.integers(0, 6), st.booleans())
def test_B6_book_when_a_word_and_trades_come_in_any_order_then_nothing_counts_twice(
    trades: list[tuple[int, int]], side: int, vouched: int, at: int, ends: bool
) -> None:
    resolved = Resolved(7, 1, 0, side, vouched, 500)
    state = told(trades, side, resolved, at, ends)
    traded = sum(lots for lots, _ in trades)
    assumed = max(0, vouched - traded)
    position = state.positions.get(KEY, book.Position())
    assert position.lots == side * max(traded, vouched)
    cash = -side * (sum(lots * ticks for lots, ticks in trades) + assumed * 500)
    assert (position.cash_lot_ticks, position.fees_money) == (cash, len(trades))
    assert state.ended[7] == max(traded, vouched)
    assert [word.lots for word in state.assumed.values()] == ([side * assumed] if assumed else [])
    first = told(trades, side, resolved, 0, ends)
    assert (state.positions, state.assumed, state.ended) == (
        first.positions, first.assumed, first.ended,
    )  # fmt: skip
