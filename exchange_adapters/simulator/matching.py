"""Matching core of the simulated venue: one account, one way, exact and deterministic.

An order is taken between two ticks and can fill from the next tick of its instrument on, never at a
price it could have known: that is the one rule that keeps a replay honest. A fill is at the tick
± half spread, or at an order's own limit once it rests. There is no book of other traders, so an
order fills whole; only reduce-only cuts one. Calls change the object in place, and the same calls
give the same events: no clock, no randomness, no I/O.

Invariants: M1 a client order id is used once for ever; M2 a reduce-only fill never moves a position
away from zero or through it; M3 trade ids rise by one; M4 the account equals the sum of the fills;
M5 a rejected order leaves no trace.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exchange_adapters.simulator.account import Account, Terms
from exchange_adapters.venue_port import (
    CLIENT_ID_LENGTH,
    CancelOutcome,
    CancelReason,
    Liquidity,
    OrderAccepted,
    OrderCancelled,
    OrderKind,
    OrderState,
    OrderStatus,
    RejectClass,
    Rejected,
    TimeInForce,
    VenueFill,
    VenueOrder,
)
from tripgate.errors import DataError
from tripgate.units import LOTS_MAX, notional_money

OPEN_ORDERS_MAX = 1_000
"""Orders that may be open at once: it bounds a tick's work and the size of an account answer."""

ORDERS_MAX = 1_000_000
"""Orders of an account's whole life: ids are kept for ever, so their number needs a bound."""

PRICE_TICKS_MAX = 2**40
"""Highest limit or stop; far above any market, low enough for products to stay exact and small."""

NOTIONAL_MONEY_MAX = 10**14
"""Largest opening order, money units (ten billion): it keeps every amount far inside 64 bits."""

MatchingEvent = OrderAccepted | VenueFill | OrderCancelled


@dataclass(slots=True)
class OrderRecord:
    """One order and what became of it."""

    order: VenueOrder
    accepted_ms: int
    updated_ms: int
    state: OrderState = OrderState.OPEN
    cumulative_lots: int = 0
    cancel_reason: CancelReason | None = None
    has_seen_tick: bool = False

    @property
    def remaining_lots(self) -> int:
        """Lots that have not filled."""
        return self.order.lots - self.cumulative_lots

    def status(self) -> OrderStatus:
        """Return the record as the venue tells it."""
        return OrderStatus(
            order=self.order,
            state=self.state,
            cumulative_lots=self.cumulative_lots,
            remaining_lots=self.remaining_lots,
            accepted_ms=self.accepted_ms,
            updated_ms=self.updated_ms,
            cancel_reason=self.cancel_reason,
        )


def execution(
    order: VenueOrder, tick: int, terms: Terms, *, is_first_tick: bool
) -> tuple[int, Liquidity] | None:
    """Return the price in ticks at which ``order`` fills on ``tick``, and how; ``None``: not now.

    A resting limit order fills when the other side's price reaches its limit, at the limit: it
    gains nothing when the market jumps through it, as an order in a queue would not.
    """
    touch = terms.touch_ticks(order.side, tick)
    if order.kind is OrderKind.MARKET:
        return touch, Liquidity.TAKER
    if order.kind is OrderKind.STOP_MARKET:
        assert order.stop_ticks is not None
        is_reached = order.side * (tick - order.stop_ticks) >= 0
        return (touch, Liquidity.TAKER) if is_reached else None
    assert order.price_ticks is not None
    if order.side * (touch - order.price_ticks) > 0:
        return None
    return (touch, Liquidity.TAKER) if is_first_tick else (order.price_ticks, Liquidity.MAKER)


class MatchingEngine:
    """Orders of one account against a stream of ticks.

    Parameters
    ----------
    starting_equity_money
        Money units, above 0.
    terms
        The instruments, in the order of the ticks that ``apply_ticks`` will be given.
    """

    def __init__(self, starting_equity_money: int, terms: Sequence[Terms]) -> None:
        self.account = Account(starting_equity_money, terms)
        self.symbols = tuple(one.symbol for one in terms)
        self.fills: list[VenueFill] = []
        self._records: dict[str, OrderRecord] = {}
        self._open: dict[str, dict[str, OrderRecord]] = {symbol: {} for symbol in self.symbols}

    def send(self, order: VenueOrder, market_ms: int) -> OrderAccepted | Rejected:
        """Take or refuse an order. It cannot fill before the next ``apply_ticks``."""
        fault = self._fault(order)
        if fault is not None:
            return Rejected(
                client_id=order.client_id,
                reject_class=fault[0],
                message=fault[1],
                market_ms=market_ms,
            )
        record = OrderRecord(order, accepted_ms=market_ms, updated_ms=market_ms)
        self._records[order.client_id] = record
        self._open[order.symbol][order.client_id] = record
        return OrderAccepted(market_ms=market_ms, client_id=order.client_id, symbol=order.symbol)

    def cancel(self, client_id: str, market_ms: int) -> tuple[CancelOutcome, list[MatchingEvent]]:
        """Cancel one order at once."""
        record = self._records.get(client_id)
        if record is None:
            return CancelOutcome.UNKNOWN_ORDER, []
        if record.state is not OrderState.OPEN:
            return CancelOutcome.ALREADY_FINAL, []
        event = self._end(record, CancelReason.REQUESTED, market_ms)
        return CancelOutcome.CANCELLED, [event]

    def cancel_all(self, symbol: str | None, market_ms: int) -> list[OrderCancelled]:
        """Cancel every open order, or those of one symbol (an unknown symbol has none)."""
        return [
            self._end(record, CancelReason.REQUESTED, market_ms)
            for record in self.open_records()
            if symbol in (None, record.order.symbol)
        ]

    def query(self, client_id: str) -> OrderStatus | None:
        """Return what became of an order, or ``None`` if it never existed."""
        record = self._records.get(client_id)
        return None if record is None else record.status()

    def open_records(self) -> list[OrderRecord]:
        """Return the open orders, by symbol and then in order of arrival."""
        return [record for orders in self._open.values() for record in orders.values()]

    def records(self) -> list[OrderRecord]:
        """Return every order that was ever taken, in order of arrival."""
        return list(self._records.values())

    def take_over(self, records: Iterable[OrderRecord], fills: Iterable[VenueFill]) -> None:
        """Go on from the orders and fills of another engine, oldest first. Its account is not told.

        Only for an engine that has had no order yet.
        """
        assert not self._records
        for record in records:
            self._records[record.order.client_id] = record
            if record.state is OrderState.OPEN:
                self._open[record.order.symbol][record.order.client_id] = record
        self.fills = list(fills)

    def fills_after(self, trade_id: int, count_max: int) -> list[VenueFill]:
        """Return at most ``count_max`` fills with a higher trade id, oldest first."""
        # Trade ids are positions in the list, counted from 1 (M3).
        first = max(0, trade_id)
        return self.fills[first : first + count_max]

    def set_marks(self, ticks: Sequence[int | None], market_ms: int) -> None:
        """Take prices as the last ones and fill nothing; see ``apply_ticks`` for the arguments."""
        if len(ticks) != len(self.symbols) or any(tick is not None and tick < 1 for tick in ticks):
            raise DataError(f"the feed gave no valid prices at {market_ms} ms: check its data")
        for symbol, tick in zip(self.symbols, ticks, strict=True):
            if tick is not None:
                self.account.marks_ticks[symbol] = tick

    def apply_ticks(self, ticks: Sequence[int | None], market_ms: int) -> list[MatchingEvent]:
        """Let the market move once and return what it did, in order.

        Parameters
        ----------
        ticks
            Price of each symbol in ticks, above 0; ``None`` where the instrument has no tick (its
            orders wait and its mark stays).

        Raises
        ------
        DataError
            A price that is not above zero, or a number of prices other than that of the symbols.
        """
        self.set_marks(ticks, market_ms)
        events: list[MatchingEvent] = []
        for symbol, tick in zip(self.symbols, ticks, strict=True):
            if tick is None:
                continue
            for record in tuple(self._open[symbol].values()):
                # An earlier fill of this tick may have ended a reduce-only order.
                if record.state is OrderState.OPEN:
                    events += self._match(record, tick, market_ms)
        return events

    def _match(self, record: OrderRecord, tick: int, market_ms: int) -> list[MatchingEvent]:
        order = record.order
        is_first_tick = not record.has_seen_tick
        record.has_seen_tick = True
        terms = self.account.terms[order.symbol]
        found = execution(order, tick, terms, is_first_tick=is_first_tick)
        if found is None:
            if order.kind is OrderKind.LIMIT and order.time_in_force is TimeInForce.IOC:
                return [self._end(record, CancelReason.IMMEDIATE_OR_CANCEL, market_ms)]
            return []
        lots = record.remaining_lots
        if order.reduce_only:
            lots = min(lots, self._closable_lots(order))
        events: list[MatchingEvent] = []
        if lots:
            events.append(self._fill(record, lots, *found, market_ms))
        if record.remaining_lots:
            events.append(self._end(record, CancelReason.REDUCE_ONLY, market_ms))
        if lots:
            events += self._end_idle_reducers(order.symbol, market_ms)
        return events

    def _end_idle_reducers(self, symbol: str, market_ms: int) -> list[OrderCancelled]:
        # What has nothing left to reduce must not wait to reduce a later, other position.
        return [
            self._end(record, CancelReason.REDUCE_ONLY, market_ms)
            for record in tuple(self._open[symbol].values())
            if record.order.reduce_only and not self._closable_lots(record.order)
        ]

    def _fill(
        self, record: OrderRecord, lots: int, price: int, liquidity: Liquidity, market_ms: int
    ) -> VenueFill:
        order = record.order
        terms = self.account.terms[order.symbol]
        rate = terms.taker_fee if liquidity is Liquidity.TAKER else terms.maker_fee
        fee_money = self.account.apply_fill(order.symbol, order.side * lots, price, rate)
        record.cumulative_lots += lots
        record.updated_ms = market_ms
        if not record.remaining_lots:
            record.state = OrderState.FILLED
            del self._open[order.symbol][order.client_id]
        fill = VenueFill(
            market_ms=market_ms,
            trade_id=len(self.fills) + 1,
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            lots=lots,
            price_ticks=price,
            fee_money=fee_money,
            cumulative_lots=record.cumulative_lots,
            remaining_lots=record.remaining_lots,
            liquidity=liquidity,
        )
        self.fills.append(fill)
        return fill

    def _end(self, record: OrderRecord, reason: CancelReason, market_ms: int) -> OrderCancelled:
        record.state = OrderState.CANCELLED
        record.cancel_reason = reason
        record.updated_ms = market_ms
        del self._open[record.order.symbol][record.order.client_id]
        return OrderCancelled(
            market_ms=market_ms,
            client_id=record.order.client_id,
            symbol=record.order.symbol,
            reason=reason,
            cumulative_lots=record.cumulative_lots,
            remaining_lots=record.remaining_lots,
        )

    def _closable_lots(self, order: VenueOrder) -> int:
        return max(0, -order.side * self.account.positions[order.symbol].lots)

    def _fault(self, order: VenueOrder) -> tuple[RejectClass, str] | None:
        # First failure wins; the order's own shape first, then what it meets here.
        return (
            self._identity_fault(order)
            or shape_fault(order)
            or self._amount_fault(order)
            or self._capacity_fault(order)
        )

    def _identity_fault(self, order: VenueOrder) -> tuple[RejectClass, str] | None:
        client_id = order.client_id
        if len(client_id) != CLIENT_ID_LENGTH or not (client_id.isascii() and client_id.isalnum()):
            return (
                RejectClass.BAD_CLIENT_ID,
                f"a client order id has {CLIENT_ID_LENGTH} letters and digits",
            )
        if client_id in self._records:
            return RejectClass.DUPLICATE_CLIENT_ID, "duplicate client order id"
        if order.symbol not in self._open:
            return RejectClass.UNKNOWN_SYMBOL, f"no instrument {order.symbol!r} trades here"
        return None

    def _amount_fault(self, order: VenueOrder) -> tuple[RejectClass, str] | None:
        position = self.account.positions[order.symbol]
        if order.reduce_only:
            if not self._closable_lots(order):
                return (
                    RejectClass.REDUCE_ONLY_WITHOUT_POSITION,
                    "the order may only reduce, and there is no position on the other side",
                )
            return None
        reserved = sum(
            record.remaining_lots
            for record in self._open[order.symbol].values()
            if record.order.side is order.side
        )
        if abs(position.lots) + reserved + order.lots > LOTS_MAX:
            return RejectClass.BAD_LOTS, f"position and open orders would pass {LOTS_MAX} lots"
        mark = self.account.marks_ticks.get(order.symbol, 1)
        highest = max(mark, order.price_ticks or 0, order.stop_ticks or 0)
        value = self.account.terms[order.symbol].value
        if notional_money(order.lots, highest, value) > NOTIONAL_MONEY_MAX:
            return RejectClass.BAD_LOTS, "the order is worth more than this venue takes"
        return None

    def _capacity_fault(self, order: VenueOrder) -> tuple[RejectClass, str] | None:
        if sum(map(len, self._open.values())) >= OPEN_ORDERS_MAX:
            return RejectClass.TOO_MANY_OPEN_ORDERS, f"{OPEN_ORDERS_MAX} orders are open: cancel"
        if len(self._records) >= ORDERS_MAX:
            return RejectClass.TOO_MANY_ORDERS, f"this account has sent its {ORDERS_MAX} orders"
        return None


def shape_fault(order: VenueOrder) -> tuple[RejectClass, str] | None:
    """Return what is wrong with an order whatever the market and the account are, if anything."""
    if not 1 <= order.lots <= LOTS_MAX:
        return RejectClass.BAD_LOTS, f"lots must be 1 to {LOTS_MAX}"
    wants: dict[OrderKind, Iterable[str]] = {
        OrderKind.MARKET: (),
        OrderKind.LIMIT: ("price_ticks",),
        OrderKind.STOP_MARKET: ("stop_ticks",),
    }
    for name in ("price_ticks", "stop_ticks"):
        ticks: int | None = getattr(order, name)
        if name in wants[order.kind]:
            if ticks is None or not 1 <= ticks <= PRICE_TICKS_MAX:
                return (
                    RejectClass.BAD_PRICE,
                    f"a {order.kind} order needs {name} of 1 to {PRICE_TICKS_MAX}",
                )
        elif ticks is not None:
            return RejectClass.BAD_PRICE, f"a {order.kind} order has no {name}"
    return None
