"""The book against independent arithmetic: exact equity, duplicates, replay from any point."""

from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from tripgate.machines import book
from tripgate.machines.book import Book, BookInstrument, Fill, Key, Marks

VALUES = {0: Fraction(1, 7), 1: Fraction(50), 2: Fraction(123, 1000)}
TRADE = st.tuples(
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, 2]),
    st.integers(-1_000, 1_000).filter(bool),
    st.integers(1, 10**7),
    st.integers(-100, 10_000),
)
TRADES = st.lists(TRADE, max_size=25)
PRICES = st.fixed_dictionaries({}, optional=dict.fromkeys(VALUES, st.integers(1, 10**7)))


def new() -> Book:
    instruments = {identity: BookInstrument(value) for identity, value in VALUES.items()}
    return book.new_book(instruments, 10**9, {1: 6 * 10**8, 2: 4 * 10**8})


def fills(trades: list[tuple[int, int, int, int, int]]) -> list[Fill]:
    return [
        Fill(number, 0, strategy, instrument, lots, ticks, fee, number)
        for number, (strategy, instrument, lots, ticks, fee) in enumerate(trades, start=1)
    ]


def run(state: Book, messages: list[Fill]) -> Book:
    for message in messages:
        state, _ = book.step(state, message, 0)
    return state


@given(TRADES, PRICES, PRICES)
def test_B2_book_when_any_fills_and_marks_then_equity_is_the_exact_sum_rounded_down(
    trades: list[tuple[int, int, int, int, int]], mark: dict[int, int], last: dict[int, int]
) -> None:
    state, _ = book.step(run(new(), fills(trades)), Marks(1, 1, mark, last), 0)
    for strategy, starting in ((None, 10**9), (1, 6 * 10**8), (2, 4 * 10**8)):
        own = [trade for trade in trades if strategy in (None, trade[0])]
        for prices, money in zip(
            (mark, last),
            (
                book.equity(state, strategy).on_mark_money,
                book.equity(state, strategy).on_last_money,
            ),
            strict=True,
        ):
            exact = Fraction(starting - sum(trade[4] for trade in own))
            floored = starting - sum(trade[4] for trade in own)
            unknown = False
            for key in {(trade[0], trade[1]) for trade in own}:
                mine = [trade for trade in own if trade[:2] == key]
                unknown |= key[1] not in prices and sum(trade[2] for trade in mine) != 0
                gained = sum(
                    lots * (prices.get(key[1], 0) - ticks) for _, _, lots, ticks, _ in mine
                )
                exact += VALUES[key[1]] * gained
                floored += floor(VALUES[key[1]] * gained)
            assert money == (None if unknown else floored)
            assert unknown or exact - 6 < floored <= exact


@given(TRADES, st.data())
def test_B1_book_when_fills_are_redelivered_anywhere_then_they_count_once(
    trades: list[tuple[int, int, int, int, int]], data: st.DataObject
) -> None:
    ordered = fills(trades)
    once = run(new(), ordered)
    state = new()
    for number, fill in enumerate(ordered):
        state, _ = book.step(state, fill, 0)
        back = data.draw(st.integers(0, number))
        state = run(state, ordered[back : number + 1])
    assert state == once


@given(TRADES, st.data())
def test_P6_book_when_restored_at_any_point_then_replay_of_the_rest_gives_the_same_book(
    trades: list[tuple[int, int, int, int, int]], data: st.DataObject
) -> None:
    ordered = fills(trades)
    cut = data.draw(st.integers(0, len(ordered)))
    overlap = data.draw(st.integers(0, cut))
    restored, _ = book.step(new(), book.checkpoint(run(new(), ordered[:cut])), 0)
    assert run(restored, ordered[overlap:]) == run(new(), ordered)


@given(TRADES, PRICES)
def test_book_when_the_result_is_split_then_the_parts_make_the_whole(
    trades: list[tuple[int, int, int, int, int]], mark: dict[int, int]
) -> None:
    state, _ = book.step(run(new(), fills(trades)), Marks(1, 1, mark, mark), 0)
    for key in state.positions:
        realised, unrealised = book.split_money(state, key)
        whole = book.result_money(state, key, mark.get(key.instrument))
        assert (unrealised is None) == (whole is None)
        if whole is not None and unrealised is not None:
            assert whole - 1 <= realised + unrealised <= whole


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 10**6))
def test_book_when_a_position_is_closed_in_pieces_then_average_cost_never_flatters(
    pieces: list[int], ticks: int
) -> None:
    state = run(new(), [Fill(1, 0, 1, 0, sum(pieces), ticks, 0, 1)])
    for number, piece in enumerate(pieces, start=2):
        state = run(state, [Fill(number, 0, 1, 0, -piece, ticks, 0, number)])
        position = state.positions[Key(1, 0)]
        assert 0 <= position.lots * ticks - position.basis_lot_ticks <= number
    assert state.positions[Key(1, 0)] == book.Position()


@given(TRADES)
def test_B6_book_when_an_instrument_is_shared_then_parts_are_the_accounts_and_count_once(
    trades: list[tuple[int, int, int, int, int]],
) -> None:
    shared = {number: BookInstrument(value, shared=True) for number, value in VALUES.items()}
    state = run(book.new_book(shared, 10**9, {1: 6 * 10**8, 2: 4 * 10**8}), fills(trades))
    alone = run(new(), fills(trades))
    for instrument in VALUES:
        for field in ("lots", "cash_lot_ticks", "fees_money"):
            assert _total(state, instrument, field) == _total(alone, instrument, field)
        held = [p.lots for key, p in state.positions.items() if key.instrument == instrument]
        assert all(one * other >= 0 for one in held for other in held), "a one-way account"
    again, effects = book.step(state, fills(trades)[-1], 0) if trades else (state, ())
    assert (again, effects) == (state, ())


def _total(state: Book, instrument: int, field: str) -> int:
    return sum(
        getattr(position, field)
        for key, position in state.positions.items()
        if key.instrument == instrument
    )
