"""From a matching core to a book, and from a book to a matching core that goes on.

Invariants: R1 a core that was written and read goes on as if it had not been; R2 a book that does
not fit, or whose account is not what its orders and fills give, is refused whole.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from exchange_adapters.simulator.account import Position, Terms
from exchange_adapters.simulator.book import Book, BookError, FillRow, InstrumentBook, OrderRow
from exchange_adapters.simulator.matching import MatchingEngine, OrderRecord, shape_fault
from exchange_adapters.venue_port import OrderState, VenueFill, VenueOrder


def book_of(engine: MatchingEngine) -> Book:
    """Return what an engine has to remember."""
    account = engine.account
    places = {symbol: place for place, symbol in enumerate(account.terms)}
    records = engine.records()
    numbers = {record.order.client_id: number for number, record in enumerate(records)}
    return Book(
        starting_equity_money=account.starting_equity_money,
        fees_money=account.fees_money,
        instruments=tuple(
            InstrumentBook(
                symbol=symbol,
                tick=terms.units.tick,
                lot=terms.units.lot,
                contract_size=terms.units.contract_size,
                lots=account.positions[symbol].lots,
                entry_tick_lots=account.positions[symbol].entry_tick_lots,
                realised_tick_lots=account.positions[symbol].realised_tick_lots,
                mark_ticks=account.marks_ticks.get(symbol),
            )
            for symbol, terms in account.terms.items()
        ),
        orders=tuple(_order_row(record, places[record.order.symbol]) for record in records),
        fills=tuple(_fill_row(fill, numbers[fill.client_id]) for fill in engine.fills),
    )


def restore_engine(book: Book, terms: Sequence[Terms]) -> MatchingEngine:
    """Return an engine that goes on from a book.

    Parameters
    ----------
    terms
        The instruments that trade from now on, in the order of the ticks to come. One that only
        the book has keeps its history and takes no orders.

    Raises
    ------
    BookError
        The book has a position or an open order in an instrument that does not trade now, counts
        in another grid, or contradicts itself. All misfits are named in one line.
    """
    engine = MatchingEngine(book.starting_equity_money, terms)
    account = engine.account
    try:
        records = [_record(row, book.instruments[row.instrument].symbol) for row in book.orders]
        fills = [
            _fill(row, trade_id, records[row.order])
            for trade_id, row in enumerate(book.fills, start=1)
        ]
    except IndexError:
        raise BookError("contradicts itself: a row names a place that is not there") from None
    for record in records:
        if record.cancel_reason is not None:
            record.state = OrderState.CANCELLED
        elif not record.remaining_lots:
            record.state = OrderState.FILLED
    _refuse_misfits(book, account.terms, records)
    for one in book.instruments:
        if one.symbol not in account.terms:
            # No spread and no fees: nothing fills here. Its grid says what it earned in money.
            account.terms[one.symbol] = Terms(one.symbol, one.units(), *[Fraction(0)] * 3)
        account.positions[one.symbol] = Position(
            one.lots, one.entry_tick_lots, one.realised_tick_lots
        )
        if one.mark_ticks is not None:
            account.marks_ticks[one.symbol] = one.mark_ticks
    account.fees_money = book.fees_money
    _refuse_contradictions(book, records, fills)
    engine.take_over(records, fills)
    return engine


def _refuse_misfits(book: Book, terms: dict[str, Terms], records: Sequence[OrderRecord]) -> None:
    problems = []
    open_orders = Counter(
        record.order.symbol for record in records if record.state is OrderState.OPEN
    )
    for one in book.instruments:
        here = terms.get(one.symbol)
        if here is None and (one.lots or open_orders[one.symbol]):
            problems.append(
                f"it has a position of {one.lots} lots and {open_orders[one.symbol]} open orders "
                f"in {one.symbol}, which this feed does not have: start with a feed that has it"
            )
        if here is not None and here.units != one.units():
            problems.append(
                f"it counts {one.symbol} in ticks of {one.tick} and lots of {one.lot} times "
                f"{one.contract_size}, and this release in ticks of {here.units.tick} and lots of "
                f"{here.units.lot} times {here.units.contract_size}: use the release that wrote it"
            )
    if problems:
        raise BookError("does not fit: " + "; ".join(problems))


def _refuse_contradictions(
    book: Book, records: Sequence[OrderRecord], fills: Sequence[VenueFill]
) -> None:
    # A position's lots are what its fills sum to, and what its open lots cost less what it earned
    # is what the fills paid, whichever way the cost of closed lots was rounded.
    lots: Counter[str] = Counter()
    paid_tick_lots: Counter[str] = Counter()
    for fill in fills:
        lots[fill.symbol] += fill.side * fill.lots
        paid_tick_lots[fill.symbol] += fill.side * fill.lots * fill.price_ticks
    is_sound = book.fees_money == sum(fill.fee_money for fill in fills)
    for one in book.instruments:
        is_sound &= one.lots == lots[one.symbol]
        is_sound &= one.entry_tick_lots - one.realised_tick_lots == paid_tick_lots[one.symbol]
        is_sound &= (one.lots != 0 and one.mark_ticks is not None) or one.entry_tick_lots == 0
    is_sound &= len({one.symbol for one in book.instruments}) == len(book.instruments)
    is_sound &= len({record.order.client_id for record in records}) == len(records)
    for record in records:
        is_sound &= record.remaining_lots >= 0 and shape_fault(record.order) is None
    if not is_sound:
        raise BookError("contradicts itself: its account is not what its orders and fills give")


def _order_row(record: OrderRecord, place: int) -> OrderRow:
    order = record.order
    return OrderRow(
        client_id=order.client_id,
        instrument=place,
        side=order.side,
        lots=order.lots,
        kind=order.kind,
        price_ticks=order.price_ticks,
        stop_ticks=order.stop_ticks,
        time_in_force=order.time_in_force,
        reduce_only=order.reduce_only,
        accepted_ms=record.accepted_ms,
        updated_ms=record.updated_ms,
        cancel_reason=record.cancel_reason,
        has_seen_tick=record.has_seen_tick,
    )


def _record(row: OrderRow, symbol: str) -> OrderRecord:
    order = VenueOrder(
        client_id=row.client_id,
        symbol=symbol,
        side=row.side,
        lots=row.lots,
        kind=row.kind,
        price_ticks=row.price_ticks,
        stop_ticks=row.stop_ticks,
        time_in_force=row.time_in_force,
        reduce_only=row.reduce_only,
    )
    return OrderRecord(
        order,
        accepted_ms=row.accepted_ms,
        updated_ms=row.updated_ms,
        cancel_reason=row.cancel_reason,
        has_seen_tick=row.has_seen_tick,
    )


def _fill_row(fill: VenueFill, number: int) -> FillRow:
    return FillRow(
        order=number,
        market_ms=fill.market_ms,
        lots=fill.lots,
        price_ticks=fill.price_ticks,
        fee_money=fill.fee_money,
        liquidity=fill.liquidity,
    )


def _fill(row: FillRow, trade_id: int, record: OrderRecord) -> VenueFill:
    # Fills come by trade id, so an order's filled lots at each of them are a running sum.
    record.cumulative_lots += row.lots
    return VenueFill(
        market_ms=row.market_ms,
        trade_id=trade_id,
        client_id=record.order.client_id,
        symbol=record.order.symbol,
        side=record.order.side,
        lots=row.lots,
        price_ticks=row.price_ticks,
        fee_money=row.fee_money,
        cumulative_lots=record.cumulative_lots,
        remaining_lots=record.remaining_lots,
        liquidity=row.liquidity,
    )
