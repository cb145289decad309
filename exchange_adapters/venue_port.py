"""What the engine asks of a venue: one Protocol and the plain values that cross it.

Every venue, simulated or real, stands behind ``VenuePort``, so that the router and the keeper hold
no venue's dialect. It is kept to what they use; marks, tiers, funding, streams' offsets and the
dead-man switch join it with the adapters that can serve them.

Invariants: V1 a price is in ticks, a quantity in lots, money in 1e-4 of the reporting currency,
always integers; V2 ``Rejected`` is definite (the order never existed), and everything that is
neither acknowledged nor rejected is raised as ``VenueUnknownError``; V3 a fill is identified by its
``trade_id``, which only rises, and ``cumulative_lots`` of an order only rises.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec

from tripgate.reasons import Side
from tripgate.units import InstrumentUnits

CLIENT_ID_LENGTH = 25
"""Characters of a client order id: 12 of the installation and 13 of the gate's token."""


class OrderKind(StrEnum):
    """How an order finds its price."""

    MARKET = "market"
    LIMIT = "limit"
    STOP_MARKET = "stop_market"


class TimeInForce(StrEnum):
    """How long a limit order may rest."""

    GTC = "gtc"
    IOC = "ioc"


class Liquidity(StrEnum):
    """Which side of the trade we were, which decides the fee."""

    TAKER = "taker"
    MAKER = "maker"


class RejectClass(StrEnum):
    """The definite rejects: the order never existed and its reservation may be released."""

    BAD_CLIENT_ID = "bad_client_id"
    DUPLICATE_CLIENT_ID = "duplicate_client_id"
    UNKNOWN_SYMBOL = "unknown_symbol"
    BAD_LOTS = "bad_lots"
    BAD_PRICE = "bad_price"
    REDUCE_ONLY_WITHOUT_POSITION = "reduce_only_without_position"
    TOO_MANY_OPEN_ORDERS = "too_many_open_orders"
    TOO_MANY_ORDERS = "too_many_orders"


class CancelReason(StrEnum):
    """Why an order ended without filling whole."""

    REQUESTED = "requested"
    IMMEDIATE_OR_CANCEL = "immediate_or_cancel"
    REDUCE_ONLY = "reduce_only"


class OrderState(StrEnum):
    """Life of an order at the venue; filled and cancelled are final."""

    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"


class CancelOutcome(StrEnum):
    """What a cancel found. ``ALREADY_FINAL`` says nothing about fills: ask ``query``."""

    CANCELLED = "cancelled"
    ALREADY_FINAL = "already_final"
    UNKNOWN_ORDER = "unknown_order"


class VenueOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order as the venue takes it.

    Attributes
    ----------
    client_id
        ``CLIENT_ID_LENGTH`` ASCII letters and digits, never used before on this account.
    lots
        1 .. ``LOTS_MAX``; the direction is in ``side``.
    price_ticks
        The limit of a LIMIT order; ``None`` otherwise.
    stop_ticks
        The trigger of a STOP_MARKET order; ``None`` otherwise.
    time_in_force
        IOC is for LIMIT orders; a market order is immediate by nature.
    reduce_only
        The order may only bring the position nearer to zero.
    """

    client_id: str
    symbol: str
    side: Side
    lots: int
    kind: OrderKind
    price_ticks: int | None = None
    stop_ticks: int | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False


class MarginTier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a venue's margin table: the largest notional and the leverage it may have."""

    notional_quote_max: str
    initial_leverage_max: int


class VenueMarket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One instrument's grid and costs; decimals as text so that none passes through a float.

    Attributes
    ----------
    inverse
        It settles in its base coin; ``contract_size`` is then an amount of the quote currency.
    quote
        Quote currency; empty stands for the one in the symbol.
    margin_tiers
        Ascending in notional; empty where the venue does not tell them.
    """

    symbol: str
    tick: str
    lot: str
    contract_size: str
    half_spread_bps: str
    taker_fee_bps: str
    maker_fee_bps: str
    inverse: bool = False
    quote: str = ""
    margin_tiers: tuple[MarginTier, ...] = ()

    def units(self) -> InstrumentUnits:
        """Return the grid as ``InstrumentUnits``."""
        return InstrumentUnits(Decimal(self.tick), Decimal(self.lot), Decimal(self.contract_size))


class Acknowledged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The venue has taken the order; ``market_ms`` is when."""

    client_id: str
    market_ms: int


class Rejected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The venue refused the order for good. The message is for people, the class for code."""

    client_id: str
    reject_class: RejectClass
    message: str
    market_ms: int


class VenueEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="event"):
    """Base of what the order stream tells; ``market_ms`` is the venue's stamp."""

    market_ms: int


class OrderAccepted(VenueEvent, frozen=True, tag="accepted"):
    """An order now stands at the venue."""

    client_id: str
    symbol: str


class VenueFill(VenueEvent, frozen=True, tag="fill"):
    """One trade of one order.

    Attributes
    ----------
    trade_id
        Rises by one with every fill of the account, from 1.
    fee_money
        Fee of this fill, money units, never negative, rounded up.
    cumulative_lots, remaining_lots
        Of the order, this fill included.
    """

    trade_id: int
    client_id: str
    symbol: str
    side: Side
    lots: int
    price_ticks: int
    fee_money: int
    cumulative_lots: int
    remaining_lots: int
    liquidity: Liquidity


class OrderCancelled(VenueEvent, frozen=True, tag="cancelled"):
    """An order ended; ``remaining_lots`` will never fill."""

    client_id: str
    symbol: str
    reason: CancelReason
    cumulative_lots: int
    remaining_lots: int


class StepEnded(VenueEvent, frozen=True, tag="step"):
    """Every order event of ``step`` has been told. Only lock-step venues send it."""

    step: int
    finished: bool


OrderStreamEvent = OrderAccepted | VenueFill | OrderCancelled | StepEnded


class OrderStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the venue knows of one order."""

    order: VenueOrder
    state: OrderState
    cumulative_lots: int
    remaining_lots: int
    accepted_ms: int
    updated_ms: int
    cancel_reason: CancelReason | None


class TradesPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fills after a trade id, oldest first; ``more`` says whether to ask again after the last."""

    fills: tuple[VenueFill, ...]
    more: bool


class AccountSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account at one instant.

    Attributes
    ----------
    positions
        Signed lots by symbol; a symbol that is not named is flat.
    average_prices
        Average entry price of each position, decimal text in quote currency.
    open_orders
        Every order that can still fill.
    equity_money
        Cash and unrealised profit at the last tick of each instrument, rounded down.
    cash_money
        Starting equity, realised profit and fees, rounded down.
    fees_money
        Fees paid so far.
    last_trade_id
        The snapshot holds exactly the fills up to this one; 0 before the first.
    step
        The lock-step index the snapshot belongs to.
    """

    positions: dict[str, int]
    average_prices: dict[str, str]
    open_orders: tuple[OrderStatus, ...]
    equity_money: int
    cash_money: int
    fees_money: int
    last_trade_id: int
    step: int
    market_ms: int


class Capabilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a venue can be relied on for.

    Attributes
    ----------
    enforces_reduce_only
        A reduce-only order can never open or turn a position, whatever else rests beside it.
    send_window_ms
        How long after its signature it may still take an order, ms. None where it enforces no such
        window: then an order of unknown fate never ends by time, only by what is observed of it or
        by an operator's word.
    exit_kinds
        Order kinds that an exit may take, best first; after one was refused the next is tried.
        LIMIT is sent as immediate-or-cancel at the exit collar.
    requests_per_second, burst_requests
        How many orders and cancels it takes, in market time.
    """

    enforces_reduce_only: bool
    send_window_ms: int | None
    exit_kinds: tuple[OrderKind, ...]
    requests_per_second: int
    burst_requests: int


class VenuePort(Protocol):
    """One account at one venue.

    Every method raises ``VenueError`` when the venue cannot be asked or answers nonsense; those
    that change something raise its subclass ``VenueUnknownError`` when it may have happened.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this venue can be relied on for."""
        ...

    async def markets(self) -> dict[str, VenueMarket]:
        """Return the instruments by unified symbol."""
        ...

    async def account(self) -> AccountSnapshot:
        """Return positions, open orders and money at one instant."""
        ...

    async def trades(self, after: int) -> TradesPage:
        """Return a page of the fills whose ``trade_id`` is above ``after``."""
        ...

    async def send(self, order: VenueOrder) -> Acknowledged | Rejected:
        """Send an order once. Raises ``VenueUnknownError`` when it may or may not stand."""
        ...

    async def cancel(self, client_id: str) -> CancelOutcome:
        """Cancel one order. It is safe to repeat."""
        ...

    async def cancel_all(self, symbol: str | None = None) -> tuple[str, ...]:
        """Cancel every open order (of one symbol), stops too, and return their client ids."""
        ...

    async def query(self, client_id: str) -> OrderStatus | None:
        """Return one order, or ``None`` when the venue says that it knows no such order."""
        ...

    async def events(self) -> AsyncIterator[OrderStreamEvent]:
        """Subscribe, and return an iterator over everything that happens from then on.

        The iterator raises ``VenueError`` when events may have been missed: reconnect, then read
        ``trades`` and ``account``.
        """
        ...
