"""Why an order was denied: a stable code, a text, and which limit spoke.

Codes are part of the log format and never change meaning or number. *Denied* is ours; what a venue
says is *rejected*. ``check_raw`` returns ``-code``; a ``Decision`` carries the numbers beside it.
"""

from enum import IntEnum


class Level(IntEnum):
    """Breaker level. Ordered, so that causes combine by ``max``."""

    NORMAL = 0
    SOFT = 1
    MEDIUM = 2
    HARD = 3
    EMERGENCY = 4


class Side(IntEnum):
    """Direction of an order; multiplies its lots."""

    BUY = 1
    SELL = -1


class DenyReason(IntEnum):
    """Why the gate refused. Numbers are part of the log; docs/gate.md has the order of tests."""

    PAGE_CLOSED = 1
    EPOCH_CHANGED = 2
    BAD_QUANTITY = 3
    BAD_PRICE = 4
    NOT_TRADABLE = 5
    LEVEL = 6
    LEASE_LAPSED = 7
    INPUT_STALE = 8
    MARK_STALE = 9
    PRICE_COLLAR = 10
    STOP_MISSING = 11
    STOP_WRONG_SIDE = 12
    STOP_TOO_FAR = 13
    ORDER_NOTIONAL = 14
    ORDER_RATE = 15
    OPPOSED_POSITION = 16
    EXIT_PENDING = 17
    EXIT_IN_PROGRESS = 18
    MIXED = 19
    GROSS_LIMIT = 20
    NET_LIMIT = 21
    AMOUNT_OVERFLOW = 22
    ENTRIES_FULL = 23
    RING_FULL = 24
    TRIPPED = 25
    FROZEN = 26
    MARGIN = 27
    ORDER_LOTS = 28
    DUPLICATE_ORDER = 29
    REPEATED_ORDER = 30
    ATTEMPT_RATE = 31
    STALE_HANDLE = 32
    NO_POSITION = 33
    QUOTE_STALE = 34


REASON_TEXT: dict[DenyReason, str] = {
    DenyReason.PAGE_CLOSED: "the instance is closed or its page is gone",
    DenyReason.EPOCH_CHANGED: "the instance was restarted: attach again",
    DenyReason.BAD_QUANTITY: "the quantity is zero, out of range or off the lot grid",
    DenyReason.BAD_PRICE: "the price or stop is negative, out of range or off the tick grid",
    DenyReason.NOT_TRADABLE: "the instrument is not tradable",
    DenyReason.LEVEL: "a breaker level at MEDIUM or above allows only exits",
    DenyReason.LEASE_LAPSED: "an actor the gate depends on has not renewed its lease",
    DenyReason.INPUT_STALE: "an actor the gate depends on reports that its input is too old",
    DenyReason.MARK_STALE: "the instrument's mark price is missing or too old",
    DenyReason.PRICE_COLLAR: "the price is too far from the mark",
    DenyReason.STOP_MISSING: "an opening needs a stop price",
    DenyReason.STOP_WRONG_SIDE: "the stop is on the wrong side of the order's price",
    DenyReason.STOP_TOO_FAR: "the stop is farther from the price than allowed",
    DenyReason.ORDER_NOTIONAL: "the order is larger than one order may be",
    DenyReason.ORDER_RATE: "the strategy opens faster than allowed",
    DenyReason.OPPOSED_POSITION: "the instrument is held or being opened on the other side",
    DenyReason.EXIT_PENDING: "an exit of this position is still pending",
    DenyReason.EXIT_IN_PROGRESS: "merged into the exit of this position that is under way",
    DenyReason.MIXED: "the order would close and open at once: send its halves one by one",
    DenyReason.GROSS_LIMIT: "gross exposure would pass its limit",
    DenyReason.NET_LIMIT: "net exposure would pass its limit",
    DenyReason.AMOUNT_OVERFLOW: "the order's worth is out of range",
    DenyReason.ENTRIES_FULL: "this process has too many live orders",
    DenyReason.RING_FULL: "this process's records have not been drained yet",
    DenyReason.TRIPPED: "the gate tightened while this order was being checked",
    DenyReason.FROZEN: "the gate is being repaired",
    DenyReason.MARGIN: "initial margin would pass what the venue's margin balance allows",
    DenyReason.ORDER_LOTS: "the order has more lots than one order may have",
    DenyReason.DUPLICATE_ORDER: "the same order was approved a moment ago",
    DenyReason.REPEATED_ORDER: "the same order was approved too often in a row",
    DenyReason.ATTEMPT_RATE: "the strategy was denied too often in this second",
    DenyReason.STALE_HANDLE: "the handle was closed or belongs to another process: attach again",
    DenyReason.NO_POSITION: "there is no position on this side to close",
    DenyReason.QUOTE_STALE: "the rate of the quote currency is missing, too old or out of range",
}
