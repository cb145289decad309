"""The keeper's book: cases worked out by hand, and what it refuses."""

from collections.abc import Mapping
from fractions import Fraction

import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines import book
from tripgate.machines.book import (
    Book,
    BookInstrument,
    Equity,
    EquityChanged,
    Fill,
    Key,
    Marks,
    Position,
    PositionMoved,
    Releasable,
    Resolved,
    Terminal,
)

KEY = Key(1, 0)


def new() -> Book:
    instruments = {0: BookInstrument(Fraction(1, 3)), 1: BookInstrument(Fraction(2), venue=5)}
    return book.new_book(instruments, 10_000, {1: 6_000, 2: 4_000})


def fill(
    trade_id: int, lots: int, ticks: int, *, token: int = 0, fee: int = 0, instrument: int = 0
) -> Fill:
    return Fill(trade_id, token, 1, instrument, lots, ticks, fee, trade_id)


def marks(step: int, mark: Mapping[int, int], last: Mapping[int, int] | None = None) -> Marks:
    return Marks(step, step, mark, mark if last is None else last)


def run(state: Book, *messages: book.Message) -> tuple[Book, list[book.Effect]]:
    effects: list[book.Effect] = []
    for message in messages:
        state, more = book.step(state, message, 77)
        effects.extend(more)
    return state, effects


def test_book_when_filled_and_marked_then_equity_is_floored_less_fees() -> None:
    state, effects = run(new(), fill(1, 10, 100, fee=5))
    assert effects[0] == PositionMoved(KEY, 0, 10)
    assert book.equity(state) == Equity(None, None)
    state, effects = run(state, marks(1, {0: 104}, {0: 96}))
    # 10 lots x 4 ticks / 3 = 13.33 is floored to 13, and -13.33 to -14.
    expected = Equity(10_000 + 13 - 5, 10_000 - 14 - 5)
    assert effects == [
        EquityChanged(77, expected, {1: Equity(6_008, 5_981), 2: Equity(4_000, 4_000)})
    ]


def test_book_when_a_position_has_no_mark_then_equity_is_unknown_until_it_is_flat() -> None:
    state, _ = run(new(), marks(1, {0: 100}), fill(1, 3, 50, instrument=1))
    assert book.equity(state) == Equity(None, None)
    assert book.equity(state, 2) == Equity(4_000, 4_000)
    state, _ = run(state, fill(2, -3, 60, instrument=1))
    assert book.equity(state) == Equity(10_060, 10_060)


def test_book_when_a_trade_is_repeated_or_older_then_it_is_ignored_per_venue() -> None:
    state, _ = run(new(), fill(5, 10, 100))
    for duplicate in (fill(5, 10, 100), fill(4, 1, 1)):
        assert book.step(state, duplicate, 0) == (state, ())
    other, effects = run(state, fill(1, 1, 10, instrument=1))
    assert other.positions[Key(1, 1)].lots == 1
    assert effects[0] == PositionMoved(Key(1, 1), 0, 1)


@pytest.mark.parametrize(
    ("trades", "lots", "average", "realised"),
    [
        pytest.param([(4, 100), (4, 110)], 8, Fraction(105), 0, id="adds"),
        pytest.param([(8, 105), (-2, 120)], 6, Fraction(105), 30, id="reduces"),
        pytest.param([(8, 105), (-8, 100)], 0, None, -40, id="closes"),
        pytest.param([(8, 105), (-10, 110)], -2, Fraction(110), 40, id="turns"),
        pytest.param([(-8, 105), (3, 100)], -5, Fraction(105), 15, id="short reduces"),
    ],
)
def test_book_when_trades_follow_then_average_cost_splits_the_result(
    trades: list[tuple[int, int]], lots: int, average: Fraction | None, realised: int
) -> None:
    messages = [
        fill(number, signed, ticks, instrument=1)
        for number, (signed, ticks) in enumerate(trades, start=1)
    ]
    state, _ = run(new(), *messages, marks(1, {1: 130}))
    position = state.positions[Key(1, 1)]
    assert (position.lots, position.average_ticks) == (lots, average)
    open_money = 0 if average is None else int(lots * (130 - average)) * 2
    assert book.split_money(state, Key(1, 1)) == (realised * 2, open_money)


def test_book_when_there_is_no_mark_then_only_the_unrealised_part_is_unknown() -> None:
    state, _ = run(new(), fill(1, 4, 100, fee=7), fill(2, -1, 103))
    assert book.split_money(state, KEY) == (1 - 7, None)


def test_book_when_an_order_ends_then_it_is_releasable_once_its_fills_are_booked() -> None:
    state, effects = run(new(), fill(1, 2, 100, token=9), Terminal(9, 5))
    assert not any(isinstance(effect, Releasable) for effect in effects)
    state, effects = run(state, fill(2, 3, 100, token=9))
    assert Releasable(9, 5) in effects
    assert (state.filled_lots, state.waiting, state.ended) == ({}, {}, {9: 5})


def test_book_when_a_terminal_record_is_repeated_then_it_is_said_again() -> None:
    state, _ = run(new(), fill(1, 2, 100, token=9), Terminal(9, 2))
    assert book.step(state, Terminal(9, 2), 0) == (state, (Releasable(9, 2),))


def test_book_when_a_fill_crosses_the_cancel_then_the_position_moves_anyway() -> None:
    state, _ = run(new(), fill(1, 2, 100, token=9), Terminal(9, 2))
    state, effects = run(state, fill(2, 1, 100, token=9))
    assert effects[0] == PositionMoved(KEY, 2, 3)
    assert state.ended == {9: 3}
    _, effects = run(new(), fill(1, 3, 100, token=9), Terminal(9, 2))
    assert effects[-1] == Releasable(9, 3)


def test_book_when_tokens_pass_the_bound_then_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(book, "TOKENS_MAX", 2)
    state, _ = run(new(), *(fill(token, 1, 100, token=token) for token in (1, 2, 3)))
    assert state.filled_lots == {2: 1, 3: 1}
    state, effects = run(state, Terminal(1, 1))
    assert effects == []


def test_book_when_marks_are_repeated_or_older_then_they_are_ignored() -> None:
    state, _ = run(new(), marks(3, {0: 100}))
    for old in (marks(3, {0: 1}), marks(2, {0: 1})):
        assert book.step(state, old, 0) == (state, ())


def test_book_when_restored_then_positions_stand_and_prices_are_unknown() -> None:
    state, _ = run(
        new(), marks(1, {0: 100}), fill(1, 2, 100, token=9), fill(2, 4, 90, token=8), Terminal(9, 2)
    )
    restored, effects = run(new(), book.checkpoint(state))
    assert effects == [PositionMoved(KEY, 0, 6)]
    assert book.equity(restored) == Equity(None, None)
    assert book.step(restored, fill(2, 4, 90, token=8), 0) == (restored, ())
    again, _ = run(restored, marks(2, {0: 100}))
    assert book.equity(again) == book.equity(state)
    with pytest.raises(InvariantBroken, match="empty"):
        book.step(state, book.checkpoint(state), 0)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(fill(2, 0, 100), id="no lots"),
        pytest.param(fill(2, 1, 0), id="zero price"),
        pytest.param(fill(2, 1, -5), id="negative price"),
        pytest.param(fill(0, 1, 5), id="no id"),
        pytest.param(fill(2, 1, 5, instrument=9), id="unknown instrument"),
        pytest.param(Fill(2, 0, 3, 0, 1, 5, 0, 0), id="unknown strategy"),
        pytest.param(fill(2, 2**31, 5), id="too many lots"),
        pytest.param(marks(9, {0: 0}), id="zero mark"),
        pytest.param(marks(9, {0: 5}, {0: -1}), id="negative last"),
        pytest.param(marks(9, {9: 5}), id="mark of an unknown instrument"),
        pytest.param(Terminal(0, 1), id="terminal without a token"),
        pytest.param(Terminal(5, -1), id="negative terminal"),
    ],
)
def test_P8_book_when_a_message_cannot_be_true_then_it_raises_and_nothing_changes(
    message: book.Message,
) -> None:
    state, _ = run(new(), fill(1, 2, 100, token=9), marks(1, {0: 100}))
    copy, _ = run(new(), fill(1, 2, 100, token=9), marks(1, {0: 100}))
    with pytest.raises(InvariantBroken):
        book.step(state, message, 0)
    assert state == copy


@pytest.mark.parametrize("key", [Key(1, 9), Key(9, 0)])
def test_book_when_a_checkpoint_names_the_unknown_then_it_raises(key: Key) -> None:
    checkpoint = book.Restore({key: Position(1, -100, 0, 100)}, {}, {}, {}, {})
    with pytest.raises(InvariantBroken, match="checkpoint"):
        book.step(new(), checkpoint, 0)


def test_book_when_a_lot_is_worth_nothing_then_it_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="worth"):
        book.new_book({0: BookInstrument(Fraction(0))}, 1, {})


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Resolved(7, 9, 0, 1, 5, 10), "its owner is unknown"),
        (Resolved(7, 1, 9, 1, 5, 10), "its owner is unknown"),
        (Resolved(0, 1, 0, 1, 5, 10), "its owner is unknown"),
        (Resolved(7, 1, 0, 2, 5, 10), "resolved as 5 lots"),
        (Resolved(7, 1, 0, 1, -1, 10), "resolved as -1 lots"),
        (Resolved(7, 1, 0, 1, 5, 0), "at a price of 0 ticks"),
    ],
)
def test_book_when_an_operators_word_cannot_be_true_then_it_raises(
    message: Resolved, says: str
) -> None:
    with pytest.raises(InvariantBroken, match=says):
        book.step(new(), message, 0)


def test_book_when_words_wait_for_too_many_trades_then_it_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(book, "TOKENS_MAX", 1)
    one, _ = book.step(new(), Resolved(7, 1, 0, 1, 5, 10), 0)
    with pytest.raises(InvariantBroken, match="vouched for"):
        book.step(one, Resolved(8, 1, 0, 1, 5, 10), 0)


def test_book_when_a_word_is_repeated_then_it_counts_once_and_is_restored() -> None:
    once, effects = book.step(new(), Resolved(7, 1, 0, -1, 5, 10), 0)
    assert effects[0] == book.PositionMoved(Key(1, 0), 0, -5)
    again, effects = book.step(once, Resolved(7, 1, 0, -1, 5, 10), 0)
    assert (again, effects) == (once, (book.Releasable(7, 5),))
    restored, _ = book.step(new(), book.checkpoint(once), 0)
    assert restored.assumed == once.assumed
    # A trade of the other side is no trade of that order.
    other, _ = book.step(restored, Fill(1, 7, 1, 0, 2, 10, 0, 0), 0)
    assert other.assumed == once.assumed
