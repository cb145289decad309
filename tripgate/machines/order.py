"""Life cycle of one order at a venue, as a table, with the lots it has filled.

The router feeds what the venue says; the machine says what that means. Venues repeat, reorder and
lose messages, so everything that is not provably wrong is accepted and de-duplicated here, and what
is provably wrong (cumulative lots that exceed the order) raises.

Invariants
----------
O1  Filled lots only rise and never exceed the order's lots.
O2  UNKNOWN ends by an observation only: no event born of waiting leads out of it, and a rejection
    ends it only when it is observed. Silence is not an answer.
O3  A terminal state never becomes live again. A fill may still arrive after CANCELLED or EXPIRED
    (the cancel crossed it): its lots count, and the state becomes FILLED when they complete it.
O4  A trade id counts once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, unique

from tripgate.errors import InvariantBroken

TRADES_PER_ORDER_MAX = 10_000
"""Bound of the trade ids one order remembers; real orders fill in far fewer pieces."""


@unique
class OrderState(IntEnum):
    """State of an order as far as it has been observed."""

    SENDING = 1
    ACKNOWLEDGED = 2
    PARTIALLY_FILLED = 3
    FILLED = 4
    CANCELLED = 5
    REJECTED = 6
    EXPIRED = 7
    UNKNOWN = 8


@unique
class OrderEvent(IntEnum):
    """What was observed. ``LOST`` means that no definite answer came: a fact about us."""

    ACKNOWLEDGE = 1
    FILL = 2
    CANCEL = 3
    REJECT = 4
    EXPIRE = 5
    LOST = 6


TERMINAL = frozenset(
    {OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED}
)
"""States that end an order; its reservation is released once its fills are booked."""

_S, _E = OrderState, OrderEvent

TRANSITIONS: Mapping[tuple[OrderState, OrderEvent], OrderState] = {
    (_S.SENDING, _E.ACKNOWLEDGE): _S.ACKNOWLEDGED,
    (_S.SENDING, _E.FILL): _S.PARTIALLY_FILLED,
    (_S.SENDING, _E.CANCEL): _S.CANCELLED,
    (_S.SENDING, _E.REJECT): _S.REJECTED,
    (_S.SENDING, _E.EXPIRE): _S.EXPIRED,
    (_S.SENDING, _E.LOST): _S.UNKNOWN,
    (_S.ACKNOWLEDGED, _E.ACKNOWLEDGE): _S.ACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _E.FILL): _S.PARTIALLY_FILLED,
    (_S.ACKNOWLEDGED, _E.CANCEL): _S.CANCELLED,
    # Some venues acknowledge first and refuse when the order reaches the book.
    (_S.ACKNOWLEDGED, _E.REJECT): _S.REJECTED,
    (_S.ACKNOWLEDGED, _E.EXPIRE): _S.EXPIRED,
    (_S.ACKNOWLEDGED, _E.LOST): _S.UNKNOWN,
    # An acknowledgement that arrives after a fill says nothing new.
    (_S.PARTIALLY_FILLED, _E.ACKNOWLEDGE): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _E.FILL): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _E.CANCEL): _S.CANCELLED,
    (_S.PARTIALLY_FILLED, _E.EXPIRE): _S.EXPIRED,
    (_S.PARTIALLY_FILLED, _E.LOST): _S.UNKNOWN,
    (_S.UNKNOWN, _E.ACKNOWLEDGE): _S.ACKNOWLEDGED,
    (_S.UNKNOWN, _E.FILL): _S.PARTIALLY_FILLED,
    (_S.UNKNOWN, _E.CANCEL): _S.CANCELLED,
    (_S.UNKNOWN, _E.REJECT): _S.REJECTED,
    (_S.UNKNOWN, _E.EXPIRE): _S.EXPIRED,
    (_S.UNKNOWN, _E.LOST): _S.UNKNOWN,
    # After the end only echoes are legal, and the fill that a cancel or an expiry crossed.
    (_S.FILLED, _E.ACKNOWLEDGE): _S.FILLED,
    (_S.FILLED, _E.CANCEL): _S.FILLED,
    (_S.FILLED, _E.EXPIRE): _S.FILLED,
    (_S.FILLED, _E.LOST): _S.FILLED,
    (_S.CANCELLED, _E.ACKNOWLEDGE): _S.CANCELLED,
    (_S.CANCELLED, _E.FILL): _S.CANCELLED,
    (_S.CANCELLED, _E.CANCEL): _S.CANCELLED,
    (_S.CANCELLED, _E.EXPIRE): _S.CANCELLED,
    (_S.CANCELLED, _E.LOST): _S.CANCELLED,
    (_S.EXPIRED, _E.ACKNOWLEDGE): _S.EXPIRED,
    (_S.EXPIRED, _E.FILL): _S.EXPIRED,
    (_S.EXPIRED, _E.CANCEL): _S.EXPIRED,
    (_S.EXPIRED, _E.EXPIRE): _S.EXPIRED,
    (_S.EXPIRED, _E.LOST): _S.EXPIRED,
    (_S.REJECTED, _E.REJECT): _S.REJECTED,
    (_S.REJECTED, _E.LOST): _S.REJECTED,
}
"""Next state of every legal pair; FILL goes on to FILLED when the order is complete."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order and what is known of it.

    Attributes
    ----------
    token
        The gate's token, positive.
    lots
        Unsigned lots ordered.
    filled_lots
        Cumulative lots filled, 0 .. ``lots``.
    trade_ids
        Venue trade ids already counted.
    """

    token: int
    lots: int
    state: OrderState = OrderState.SENDING
    filled_lots: int = 0
    trade_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Observed:
    """One venue message about an order; ``trade_id`` and ``lots`` belong to FILL alone."""

    event: OrderEvent
    trade_id: int = 0
    lots: int = 0


@dataclass(frozen=True, slots=True)
class LotsFilled:
    """Effect: ``lots`` more were filled, ``cumulative_lots`` in all; ``late`` after the end."""

    token: int
    trade_id: int
    lots: int
    cumulative_lots: int
    late: bool


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """Effect: the order reached a terminal state with ``filled_lots`` so far."""

    token: int
    state: OrderState
    filled_lots: int


@dataclass(frozen=True, slots=True)
class FateUnknown:
    """Effect: the order must be looked up by its client order id; its reservation stays."""

    token: int


Effect = LotsFilled | OrderEnded | FateUnknown


def step(state: Order, message: Observed, now: int) -> tuple[Order, tuple[Effect, ...]]:
    """Apply one observation.

    Parameters
    ----------
    now
        Market time, ms. Unused: no state of an order ends by time (O2).

    Raises
    ------
    InvariantBroken
        The pair is not in the table, or the fill is not positive or exceeds the order.
    """
    if message.event is OrderEvent.FILL and message.trade_id in state.trade_ids:
        return state, ()
    following = TRANSITIONS.get((state.state, message.event))
    if following is None:
        raise InvariantBroken(
            f"order {state.token}: {message.event.name} is impossible in {state.state.name}"
        )
    if message.event is OrderEvent.FILL:
        return _fill(state, message, following)
    # An acknowledgement or a loss must not hide lots that were seen already.
    if following is OrderState.ACKNOWLEDGED and state.filled_lots:
        following = OrderState.PARTIALLY_FILLED
    if message.event is OrderEvent.REJECT and state.filled_lots:
        raise InvariantBroken(f"order {state.token}: rejected after {state.filled_lots} lots")
    moved = replace(state, state=following)
    if following is state.state:
        return moved, ()
    if following in TERMINAL:
        return moved, (OrderEnded(state.token, following, state.filled_lots),)
    return moved, (FateUnknown(state.token),) if following is OrderState.UNKNOWN else ()


def _fill(
    state: Order, message: Observed, following: OrderState
) -> tuple[Order, tuple[Effect, ...]]:
    cumulative = state.filled_lots + message.lots
    if message.lots <= 0 or cumulative > state.lots:
        raise InvariantBroken(
            f"order {state.token}: fill of {message.lots} lots makes {cumulative} of {state.lots}"
        )
    if len(state.trade_ids) >= TRADES_PER_ORDER_MAX:
        raise InvariantBroken(f"order {state.token}: over {TRADES_PER_ORDER_MAX} trades")
    if cumulative == state.lots:
        following = OrderState.FILLED
    moved = Order(
        state.token, state.lots, following, cumulative, state.trade_ids | {message.trade_id}
    )
    late = state.state in TERMINAL
    filled = LotsFilled(state.token, message.trade_id, message.lots, cumulative, late)
    if following in TERMINAL and not late:
        return moved, (filled, OrderEnded(state.token, following, cumulative))
    return moved, (filled,)
