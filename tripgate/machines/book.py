"""The position keeper's step: fills and marks in, positions and equity out, all of it exact.

A position is kept as two integers per (strategy, instrument): lots, and the cash of all its fills
in lot-ticks. Their worth at any mark is one multiplication, so replaying the same fills in any
process gives the same equity to the last unit. Average cost is kept beside them only to split the
result into realised and unrealised; being rounded it never touches equity.

Invariants
----------
B1  A trade counts once: trade ids rise per venue, and one at or below the highest seen is a
    repetition. Whoever delivers fills must deliver them in the venue's order.
B2  Equity = starting + Σ floor(value × (cash + lots × mark)) − fees: it is never rounded up.
B3  A position without a mark makes its equity unknown (None), never zero.
B4  Every fill is booked, whatever was said before about its order: a late one only moves truth.
B5  An order's reservation is releasable only when its terminal record's lots have been booked.
B6  Lots booked on an operator's word are replaced, one for one, by the venue's own trades of that
    order whenever they come: nothing counts twice, in whatever order the two are told.
B7  A fill of a shared instrument that its strategy's position cannot take is booked in parts, which
    sum to it; the trade still counts once.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from tripgate.errors import InvariantBroken
from tripgate.machines.assumed import replaced_lots, repriced
from tripgate.machines.attribution import Part, attribute
from tripgate.machines.book_types import (
    Assumed,
    Book,
    BookInstrument,
    Effect,
    Equity,
    EquityChanged,
    Fill,
    Key,
    Marks,
    Message,
    Position,
    PositionMoved,
    Releasable,
    Resolved,
    Restore,
    Terminal,
)
from tripgate.units import INT_MAX, LOTS_MAX

__all__ = [
    "TOKENS_MAX",
    "Book",
    "BookInstrument",
    "Effect",
    "Equity",
    "EquityChanged",
    "Fill",
    "Key",
    "Marks",
    "Message",
    "Position",
    "PositionMoved",
    "Releasable",
    "Resolved",
    "Restore",
    "Terminal",
    "checkpoint",
    "equity",
    "moved",
    "new_book",
    "result_money",
    "split_money",
    "step",
    "worth_money",
]

TOKENS_MAX = 4_096
"""Orders counted at once, waiting or ended. The oldest is forgotten beyond it: its terminal record
then waits for ever (reservation kept), which errs on the tight side."""


def new_book(
    instruments: Mapping[int, BookInstrument],
    starting_money: int,
    strategy_starting_money: Mapping[int, int],
) -> Book:
    """Return an empty book.

    Parameters
    ----------
    instruments
        Everything that may ever be filled, by instrument id.
    starting_money
        Portfolio equity before the first fill, money units.
    strategy_starting_money
        The same per strategy id, for every strategy that may own a fill.
    """
    for identity, instrument in instruments.items():
        if instrument.value <= 0:
            raise InvariantBroken(f"instrument {identity}: a lot must be worth more than nothing")
    return Book(dict(instruments), starting_money, dict(strategy_starting_money))


def step(state: Book, message: Message, now: int) -> tuple[Book, tuple[Effect, ...]]:
    """Apply one message.

    Parameters
    ----------
    now
        Market time, ms; stamps ``EquityChanged``.

    Raises
    ------
    InvariantBroken
        The message cannot be true: unknown instrument or strategy, a fill of no lots, a price that
        is not positive, a terminal record out of range, a checkpoint into a book that is not
        empty. The state is unchanged.
    """
    match message:
        case Fill():
            return _fill(state, message, now)
        case Marks():
            return _marks(state, message, now)
        case Terminal():
            return _terminal(state, message)
        case Resolved():
            return _resolved(state, message, now)
    return _restore(state, message)


def moved(position: Position, signed_lots: int, ticks: int, fee_money: int) -> Position:
    """Return the position after a fill; average cost is floored so realised is never flattered."""
    lots = position.lots + signed_lots
    opens = position.lots == 0 or (position.lots > 0) == (signed_lots > 0)
    if opens:
        basis = position.basis_lot_ticks + signed_lots * ticks
    elif lots == 0 or (lots > 0) == (position.lots > 0):
        basis = position.basis_lot_ticks * lots // position.lots
    else:
        basis = lots * ticks
    if abs(lots) > LOTS_MAX:
        raise InvariantBroken(f"a position of {lots} lots is out of range")
    cash = position.cash_lot_ticks - signed_lots * ticks
    return Position(lots, cash, position.fees_money + fee_money, basis)


def worth_money(lot_ticks: int, value: Fraction) -> int:
    """Return lot-ticks in money units, rounded down."""
    return lot_ticks * value.numerator // value.denominator


def result_money(state: Book, key: Key, ticks: int | None) -> int | None:
    """Return profit and loss of one key at a price, fees deducted; None without a price."""
    position = state.positions[key]
    if position.lots and ticks is None:
        return None
    lot_ticks = position.cash_lot_ticks + position.lots * (ticks or 0)
    value = state.instruments[key.instrument].value
    return worth_money(lot_ticks, value) - position.fees_money


def split_money(state: Book, key: Key) -> tuple[int, int | None]:
    """Return (realised less fees, unrealised at mark) of one key, money units, each rounded down.

    Their sum is the key's result or one unit less, because both parts are floored.
    """
    position = state.positions[key]
    value = state.instruments[key.instrument].value
    realised = worth_money(position.cash_lot_ticks + position.basis_lot_ticks, value)
    mark = state.mark_ticks.get(key.instrument)
    if position.lots == 0:
        return realised - position.fees_money, 0
    if mark is None:
        return realised - position.fees_money, None
    unrealised = worth_money(position.lots * mark - position.basis_lot_ticks, value)
    return realised - position.fees_money, unrealised


def equity(state: Book, strategy: int | None = None) -> Equity:
    """Return equity of one strategy, or of the portfolio when ``strategy`` is None."""
    starting = state.starting_money
    if strategy is not None:
        starting = state.strategy_starting_money[strategy]
    keys = [key for key in state.positions if strategy is None or key.strategy == strategy]
    return Equity(
        _sum_money(state, keys, state.mark_ticks, starting),
        _sum_money(state, keys, state.last_ticks, starting),
    )


def _sum_money(
    state: Book, keys: list[Key], prices: Mapping[int, int], starting: int
) -> int | None:
    total = starting
    for key in keys:
        result = result_money(state, key, prices.get(key.instrument))
        if result is None:
            return None
        total += result
    return total


def _evaluated(state: Book, now: int) -> EquityChanged:
    strategies = {strategy: equity(state, strategy) for strategy in state.strategy_starting_money}
    return EquityChanged(now, equity(state), strategies)


def _fill(state: Book, fill: Fill, now: int) -> tuple[Book, tuple[Effect, ...]]:
    instrument = state.instruments.get(fill.instrument)
    if instrument is None or fill.strategy not in state.strategy_starting_money:
        raise InvariantBroken(f"trade {fill.trade_id}: unknown instrument or strategy")
    if fill.signed_lots == 0 or fill.ticks <= 0 or fill.trade_id <= 0:
        raise InvariantBroken(f"trade {fill.trade_id}: no lots, no price or no id")
    if fill.trade_id <= state.last_trade_id.get(instrument.venue, 0):
        return state, ()
    positions, effects = dict(state.positions), list[Effect]()
    assumed, replaced = replaced_lots(state, fill)
    fresh = fill.signed_lots - replaced
    if replaced:
        key = Key(fill.strategy, fill.instrument)
        before = positions.get(key, Position())
        after = repriced(before, replaced, state.assumed[fill.token].ticks, fill.ticks)
        if not fresh:
            after = replace(after, fees_money=after.fees_money + fill.fee_money)
        positions[key] = after
        effects.append(PositionMoved(key, before.lots, after.lots))
    for part in _parts(state, fill, fresh):
        key = Key(part.strategy, fill.instrument)
        before = positions.get(key, Position())
        positions[key] = moved(before, part.signed_lots, fill.ticks, part.fee_money)
        effects.append(PositionMoved(key, before.lots, positions[key].lots))
    booked = replace(
        state,
        assumed=assumed,
        positions=positions,
        last_trade_id={**state.last_trade_id, instrument.venue: fill.trade_id},
    )
    if fill.token:
        booked, ended = _count(booked, fill.token, abs(fill.signed_lots) - abs(replaced))
        effects.extend(ended)
    effects.append(_evaluated(booked, now))
    return booked, tuple(effects)


def _resolved(state: Book, message: Resolved, now: int) -> tuple[Book, tuple[Effect, ...]]:
    """Book what an operator says was filled beyond what the venue has told, and end the order."""
    token = message.token
    known = message.instrument in state.instruments
    if not known or message.strategy not in state.strategy_starting_money or token <= 0:
        raise InvariantBroken(f"token {token}: resolved, but its owner is unknown")
    if message.side not in (1, -1) or not 0 <= message.cumulative_lots <= LOTS_MAX:
        raise InvariantBroken(f"token {token}: resolved as {message.cumulative_lots} lots")
    if token in state.assumed:
        return state, (Releasable(token, state.ended[token]),)
    counted = state.ended.get(token, state.filled_lots.get(token, 0))
    fresh = message.side * max(0, message.cumulative_lots - counted)
    if fresh and not 0 < message.ticks <= INT_MAX:
        raise InvariantBroken(f"token {token}: resolved at a price of {message.ticks} ticks")
    effects: list[Effect] = []
    if fresh:
        key = Key(message.strategy, message.instrument)
        before = state.positions.get(key, Position())
        after = moved(before, fresh, message.ticks, 0)
        assumed = {**state.assumed, token: Assumed(fresh, message.ticks)}
        if len(assumed) > TOKENS_MAX:
            raise InvariantBroken(f"over {TOKENS_MAX} orders wait for trades that were vouched for")
        state = replace(state, positions={**state.positions, key: after}, assumed=assumed)
        effects.append(PositionMoved(key, before.lots, after.lots))
    total = counted + abs(fresh)
    state = replace(
        state,
        filled_lots=_without(state.filled_lots, token),
        waiting=_without(state.waiting, token),
        ended=_with(state.ended, token, total),
    )
    effects.extend((Releasable(token, total), _evaluated(state, now)))
    return state, tuple(effects)


def _parts(state: Book, fill: Fill, fresh_lots: int) -> tuple[Part, ...]:
    """Return whose the lots (signed) of a fill are that nobody has vouched for before."""
    if not fresh_lots:
        return ()
    if not state.instruments[fill.instrument].shared:
        return (Part(fill.strategy, fresh_lots, fill.fee_money),)
    held = {
        key.strategy: position.lots
        for key, position in state.positions.items()
        if key.instrument == fill.instrument
    }
    return attribute(held, fill.strategy, fresh_lots, fill.fee_money, is_own=fill.is_own)


def _count(state: Book, token: int, lots: int) -> tuple[Book, tuple[Effect, ...]]:
    """Add lots to an order's count; end it if its terminal record was waiting for them."""
    if token in state.ended:
        # A cancel crossed this fill: the entry is gone already and only the position moves.
        return replace(state, ended=_with(state.ended, token, state.ended[token] + lots)), ()
    filled = state.filled_lots.get(token, 0) + lots
    counted = replace(state, filled_lots=_with(state.filled_lots, token, filled))
    if token in state.waiting:
        return _terminal(counted, Terminal(token, state.waiting[token]))
    return counted, ()


def _terminal(state: Book, message: Terminal) -> tuple[Book, tuple[Effect, ...]]:
    token = message.token
    if not 0 <= message.cumulative_lots <= LOTS_MAX or token <= 0:
        raise InvariantBroken(f"token {token}: {message.cumulative_lots} lots filled")
    if token in state.ended:
        # Said again because whoever acts on it may have died before it acted.
        return state, (Releasable(token, state.ended[token]),)
    filled = state.filled_lots.get(token, 0)
    if filled < message.cumulative_lots:
        waiting = _with(state.waiting, token, message.cumulative_lots)
        return replace(state, waiting=waiting), ()
    # More than the record says is possible: a fill that crossed the cancel was booked first.
    ended = replace(
        state,
        filled_lots=_without(state.filled_lots, token),
        waiting=_without(state.waiting, token),
        ended=_with(state.ended, token, filled),
    )
    return ended, (Releasable(token, filled),)


def _with(table: Mapping[int, int], token: int, lots: int) -> dict[int, int]:
    """Return a copy with one row set, the oldest row gone where the bound is passed."""
    copy = {**table, token: lots}
    if len(copy) > TOKENS_MAX:
        del copy[next(iter(copy))]
    return copy


def _without(table: Mapping[int, int], token: int) -> dict[int, int]:
    return {other: lots for other, lots in table.items() if other != token}


def _marks(state: Book, message: Marks, now: int) -> tuple[Book, tuple[Effect, ...]]:
    for prices in (message.mark_ticks, message.last_ticks):
        for instrument, ticks in prices.items():
            if instrument not in state.instruments or not 0 < ticks <= INT_MAX:
                raise InvariantBroken(f"instrument {instrument}: a price of {ticks} ticks")
    if message.step <= state.marks_step:
        return state, ()
    marked = replace(
        state,
        mark_ticks={**state.mark_ticks, **message.mark_ticks},
        last_ticks={**state.last_ticks, **message.last_ticks},
        marks_step=message.step,
    )
    return marked, (_evaluated(marked, now),)


def _restore(state: Book, message: Restore) -> tuple[Book, tuple[Effect, ...]]:
    if state.positions or state.last_trade_id:
        raise InvariantBroken("a checkpoint can only be restored into an empty book")
    for key in message.positions:
        if key.instrument not in state.instruments:
            raise InvariantBroken(f"checkpoint: unknown instrument {key.instrument}")
        if key.strategy not in state.strategy_starting_money:
            raise InvariantBroken(f"checkpoint: unknown strategy {key.strategy}")
    restored = replace(
        state,
        positions=dict(message.positions),
        last_trade_id=dict(message.last_trade_id),
        filled_lots=dict(message.filled_lots),
        waiting=dict(message.waiting),
        ended=dict(message.ended),
        assumed=dict(message.assumed),
    )
    effects = tuple(
        PositionMoved(key, 0, position.lots)
        for key, position in message.positions.items()
        if position.lots
    )
    return restored, effects


def checkpoint(state: Book) -> Restore:
    """Return what ``Restore`` needs to rebuild this book without its prices."""
    return Restore(
        state.positions, state.last_trade_id, state.filled_lots, state.waiting, state.ended,
        state.assumed,
    )  # fmt: skip
