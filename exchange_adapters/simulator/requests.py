"""The words of the simulated venue's port: requests, answers and pushes as they lie in frames.

A request is ``{id, op, ...}``; its answer ``{id, ok: {...}}`` or ``{id, error, message,
market_ms}``. A push is ``{push: "order", event, ...}`` or ``{push: "step", channel, ...}``.
Requests are strictly typed: an unknown field, a float where an integer belongs or a bool as a
number is ``bad_request``, never a guess.
"""

from enum import StrEnum

import msgspec

from exchange_adapters.venue_port import OrderKind, TimeInForce, VenueMarket, VenueOrder
from tripgate.reasons import Side


class Channel(StrEnum):
    """What a connection may listen to, in the order in which a step is told."""

    ORDERS = "orders"
    TICKS = "ticks"


class PortError(StrEnum):
    """Errors of the port itself. None of them is a definite reject of an order."""

    BAD_FRAME = "bad_frame"
    BAD_REQUEST = "bad_request"
    STEP_AHEAD = "step_ahead"
    TOO_MANY_CONNECTIONS = "too_many_connections"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """Base of every request; ``id`` is chosen by the client and comes back with the answer."""

    id: int


class HelloRequest(Request, frozen=True, tag="hello"):
    """Ask what this venue is."""


class SubscribeRequest(Request, frozen=True, tag="subscribe"):
    """Listen to channels; the current step is pushed again at once on each."""

    channels: list[Channel]


class AdvanceRequest(Request, frozen=True, tag="advance"):
    """Say that ``step`` is handled: the next may begin. Repeating it changes nothing."""

    step: int


class SendRequest(Request, frozen=True, tag="send"):
    """Send an order; the fields are those of ``VenueOrder``."""

    client_id: str
    symbol: str
    side: Side
    lots: int
    kind: OrderKind
    price_ticks: int | None = None
    stop_ticks: int | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False

    def order(self) -> VenueOrder:
        """Return the order without the request around it."""
        fields = msgspec.structs.asdict(self)
        del fields["id"]
        return VenueOrder(**fields)


class CancelRequest(Request, frozen=True, tag="cancel"):
    """Cancel one order."""

    client_id: str


class CancelAllRequest(Request, frozen=True, tag="cancel_all"):
    """Cancel every open order, or those of one symbol."""

    symbol: str | None = None


class QueryRequest(Request, frozen=True, tag="query"):
    """Ask for one order."""

    client_id: str


class AccountRequest(Request, frozen=True, tag="account"):
    """Ask for the account."""


class TradesRequest(Request, frozen=True, tag="trades"):
    """Ask for a page of fills."""

    after: int


class ShutdownRequest(Request, frozen=True, tag="shutdown"):
    """End the venue; its account ends with it unless it keeps a book."""


AnyRequest = (
    HelloRequest
    | SubscribeRequest
    | AdvanceRequest
    | SendRequest
    | CancelRequest
    | CancelAllRequest
    | QueryRequest
    | AccountRequest
    | TradesRequest
    | ShutdownRequest
)


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the venue is and where its data clock stands.

    Attributes
    ----------
    symbols
        In the order of the prices of a tick push.
    step, market_ms
        The current step, 0-based, and its market time.
    step_ms, length
        Spacing and number of the feed's steps.
    finished
        The feed has ended: no further step comes and nothing fills any more.
    """

    symbols: tuple[str, ...]
    instruments: dict[str, VenueMarket]
    step: int
    market_ms: int
    step_ms: int
    length: int
    feed: str
    seed: int
    starting_equity_money: int
    finished: bool


class TickStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of the market: a price in ticks per symbol, ``None`` where there is no tick."""

    step: int
    market_ms: int
    ticks: tuple[int | None, ...]
    finished: bool
