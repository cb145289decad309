"""The check: one call that judges an order against everything in the page and reserves for it.

Everything a decision depends on is read once, after the clock and the market time (``t_signed``),
so that a lease or a window that holds at those moments held when the order was judged. The trip
generation is read first and again after all reserves: if it moved, everything is rolled back.
Orders that reduce the strategy's own position take a path of their own (``close``).

Invariants: K1 a negative answer leaves no word of another process changed, but for the wish of a
merged close; K2 no approval can follow a trip that had completed before its second reading of the
generation; K3 shared words change only inside a section (own counter odd), which repair can wait
for.
"""

from tripgate.gate.close import close
from tripgate.gate.context import AT, IMAGE
from tripgate.gate.decide import deny, fetch_ahead
from tripgate.gate.judge import admit, blame
from tripgate.gate.opening import open_order
from tripgate.gate.shadow import open_in_shadow
from tripgate.gate.words import DENY
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import CONTROL_HEADER, ENTRIES_PER_SLOT, KEY

HEADER = CONTROL_HEADER.at
HELD = KEY.at

BATCH_MAX = ENTRIES_PER_SLOT
"""Orders that one call of ``check_batch`` judges at most: more could not all be live."""


@kernel("int64(int64, int64, int64, int64)")
def _reduce(context: int, lots: int, price: int, position: int) -> int:
    """Answer an order against the own position: closed, or why it is not a close.

    The opening half of a split order waits instead: its closing half has not ended.
    """
    if atomics.peek(context + AT.only_opens) != 0:
        blame(context, atomics.peek(context + AT.node1), 0, abs(position), abs(lots))
        return deny(context, DENY.EXIT_PENDING, lots, price, 0)
    if abs(lots) <= abs(position):
        return close(context, lots, price, position)
    reason = DENY.NO_POSITION if position == 0 else DENY.MIXED
    blame(context, atomics.peek(context + AT.node1), abs(position), 0, abs(lots))
    return deny(context, reason, lots, price, 0)


@kernel("int64(int64, int64, int64, int64)")
def check_raw(context: int, lots: int, price: int, stop: int) -> int:
    """Judge an order and reserve for it.

    Parameters
    ----------
    context
        Address of the handle's context (``InstrumentHandle.address``).
    lots
        Signed: positive buys.
    price
        Limit price in ticks; 0 is a market order (an opening is then an IOC at the collar).
    stop
        Protective stop in ticks; 0 is none, which only a close may have.

    Returns
    -------
    int
        A positive token, or −``DenyReason``; the context's result words say the rest.
    """
    if atomics.peek(context + AT.usable) == 0:
        return -DENY.STALE_HANDLE
    fetch_ahead(context)
    reason = admit(context, lots, price, stop)
    if reason != 0:
        return deny(context, reason, lots, price, stop)
    key = atomics.peek(context + AT.key)
    closable = atomics.load(key + HELD.closable)
    position, side = closable >> 32, atomics.load(key + HELD.side)
    atomics.poke(context + IMAGE.position, closable)
    reduces = (position > 0) != (lots > 0) if side == 0 else (side > 0) != (lots > 0)
    if reduces and (position != 0 or side != 0):
        return _reduce(context, lots, price, position)
    if atomics.load(atomics.peek(context + AT.header) + HEADER.shadow) != 0:
        return open_in_shadow(context, lots, price, stop, position)
    return open_order(context, lots, price, stop, position)


@kernel("int64(int64, int64, int64, int64)")
def check_batch(context: int, orders: int, count: int, answers: int) -> int:
    """Judge up to ``BATCH_MAX`` orders one after another; return how many were approved.

    Parameters
    ----------
    orders
        Address of ``count`` rows of three int64: lots, price and stop, as ``check_raw`` takes them.
    answers
        Address of ``count`` int64: a token or −``DenyReason`` each. Rows beyond ``BATCH_MAX`` are
        answered −BAD_QUANTITY, unjudged.
    """
    approved = 0
    for index in range(count):
        answer = -DENY.BAD_QUANTITY
        if index < BATCH_MAX:
            row = orders + 24 * index
            answer = check_raw(
                context, atomics.peek(row), atomics.peek(row + 8), atomics.peek(row + 16)
            )
        atomics.poke(answers + 8 * index, answer)
        approved += answer > 0
    return approved
