"""The check: one call that judges an order against everything in the page and reserves for it.

Everything a decision depends on is read once, after the clock and the market time (``t_signed``),
so that a lease or a window that holds at those moments held when the order was judged. The trip
generation is read first and again after all reserves: if it moved, everything is rolled back.
Closing orders of the strategy's own position take a path of their own that no limit, level, lease
or throttle can deny.

Invariants: K1 a negative answer leaves no word of another process changed; K2 no approval can
follow a trip that had completed before its second reading of the generation; K3 shared words
change only inside a section (own counter odd), which repair can wait for.
"""

from tripgate.gate.context import AT
from tripgate.gate.decide import (
    FRAME_ROOM,
    abandon_entry,
    claim_entry,
    deny,
    find_entry,
    grant,
    ring_room,
)
from tripgate.gate.judge import (
    admit,
    blame,
    collared_price,
    levels_and_leases,
    read_mark,
    size_reason,
    stop_reason,
    worth,
)
from tripgate.gate.record import FLAG_CLOSING, FLAG_MARKET
from tripgate.gate.reserve import (
    CAS_TRIES,
    charge_side,
    grant_overshoot,
    reserve_nodes,
    unreserve_nodes,
)
from tripgate.gate.words import DENY, PENDING_MASK, SEQUENCE_BITS, make_token
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import (
    CLOSING_ENTRIES,
    CONTROL_HEADER,
    ENTRIES_PER_SLOT,
    INSTRUMENT,
    KEY,
    NODES_PER_ORDER,
    RING_EXIT_RESERVE,
    SLOT,
    STRATEGY,
    SUM,
)
from tripgate.units import INT_MAX, LOTS_MAX

HEADER = CONTROL_HEADER.at
SPEC = INSTRUMENT.at
HELD = KEY.at
OWN = SLOT.at
PLAN = STRATEGY.at
TOTAL = SUM.at

FREEZE_TRIES = 1_000_000
"""How often an exit looks at the freeze word before it goes on: an exit is never denied by it."""


@kernel("int64(int64)")
def _charge_rate(context: int) -> int:
    """Count this opening in the strategy's present second; 0 if others used it up meanwhile."""
    word = atomics.load(context + AT.throttle)
    rate = atomics.load(atomics.load(context + AT.strategy) + PLAN.orders_per_second_max)
    second = atomics.load(context + AT.t_signed) // 1000
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        used = old & 0xFFFF if old >> 16 == second else 0
        if used >= rate:
            blame(context, atomics.load(context + AT.node0), rate, used, 1)
            return 0
        if atomics.compare_exchange(word, old, (second << 16) | (used + 1)) == old:
            return 1
    return 0


@kernel("int64(int64, int64, int64)")
def _claim_side(context: int, lots: int, position: int) -> int:
    """Add an opening to the instrument's claim word; 0 or the reason why its side is taken."""
    key = atomics.load(context + AT.key)
    node = atomics.load(context + AT.node1)
    if atomics.load(key + HELD.exit_claim) != 0:
        blame(context, node, 0, abs(position), abs(lots))
        return DENY.EXIT_IN_PROGRESS
    if position == 0 and atomics.load(key + HELD.closable) & PENDING_MASK:
        blame(context, node, 0, atomics.load(key + HELD.closable) & PENDING_MASK, abs(lots))
        return DENY.EXIT_PENDING
    claim = atomics.load(context + AT.claim)
    for _ in range(CAS_TRIES):
        old = atomics.load(claim)
        if (old > 0 and lots < 0) or (old < 0 and lots > 0):
            blame(context, node, 0, old, lots)
            return DENY.OPPOSED_POSITION
        if abs(old + lots) > LOTS_MAX:
            blame(context, node, LOTS_MAX, old, lots)
            return DENY.AMOUNT_OVERFLOW
        if atomics.compare_exchange(claim, old, old + lots) == old:
            return 0
    return DENY.FROZEN


@kernel("int64(int64, int64, int64)")
def _take(context: int, lots: int, position: int) -> int:
    """Claim the side, reserve the nodes, test the generation again, charge the rate.

    Returns 0 with everything taken, or a reason with nothing taken.
    """
    claim = atomics.load(context + AT.claim)
    reason = _claim_side(context, lots, position)
    if reason != 0:
        return reason
    amount = atomics.load(context + AT.notional)
    reason = reserve_nodes(context, amount, lots)
    if reason != 0:
        atomics.fetch_add(claim, -lots)
        return reason
    header = atomics.load(context + AT.header)
    instance = atomics.load(context + AT.node4)
    if atomics.load(header + HEADER.generation) != atomics.load(context + AT.generation):
        blame(context, instance, 0, 0, 0)
        reason = DENY.TRIPPED
    elif atomics.load(header + HEADER.closed) != 0:
        blame(context, instance, 0, 0, 0)
        reason = DENY.PAGE_CLOSED
    elif _charge_rate(context) == 0:
        reason = DENY.ORDER_RATE
    if reason != 0:
        unreserve_nodes(
            context, amount, TOTAL.long_worst if lots > 0 else TOTAL.short_worst, NODES_PER_ORDER
        )
        atomics.fetch_add(claim, -lots)
    return reason


@kernel("int64(int64)")
def _next_token(context: int) -> int:
    """Take the slot's next token into the context; return its sequence."""
    slot = atomics.load(context + AT.slot)
    sequence = atomics.load(slot + OWN.token_sequence) + 1
    atomics.store(slot + OWN.token_sequence, sequence)
    epoch = atomics.load(context + AT.epoch)
    number = atomics.load(context + AT.slot_number)
    atomics.store(context + AT.token, make_token(epoch, number, sequence))
    return sequence & ((1 << SEQUENCE_BITS) - 1)


@kernel("int64(int64)")
def _enter(context: int) -> int:
    """Begin a section; return 0, or leave it again and return FROZEN while a repair runs."""
    section = atomics.load(context + AT.slot) + OWN.section
    atomics.fetch_add(section, 1)
    if atomics.load(atomics.load(context + AT.header) + HEADER.freeze) == 0:
        return 0
    atomics.fetch_add(section, 1)
    return DENY.FROZEN


@kernel("void(int64)")
def _leave(context: int) -> None:
    """End a section."""
    atomics.fetch_add(atomics.load(context + AT.slot) + OWN.section, 1)


@kernel("int64(int64, int64, int64, int64)")
def _judge_opening(context: int, lots: int, price: int, stop: int) -> int:
    """Judge an opening by everything that only reads; 0 or a reason. Sets the notional."""
    if atomics.load(atomics.load(context + AT.instrument) + SPEC.tradable) == 0:
        return DENY.NOT_TRADABLE
    reason = levels_and_leases(context)
    if reason != 0:
        return reason
    if read_mark(context) == 0:
        return DENY.MARK_STALE
    bound = collared_price(context, lots, price)
    if bound == 0:
        return DENY.PRICE_COLLAR
    reason = stop_reason(context, lots, bound, stop)
    if reason != 0:
        return reason
    notional = worth(context, lots, bound)
    if notional < 0:
        blame(context, atomics.load(context + AT.node1), INT_MAX, 0, abs(lots))
        return DENY.AMOUNT_OVERFLOW
    atomics.store(context + AT.notional, notional)
    return size_reason(context)


@kernel("int64(int64, int64, int64, int64, int64)")
def _open(context: int, lots: int, price: int, stop: int, position: int) -> int:
    """Judge, reserve and grant an opening; return a token or −reason."""
    reason = _judge_opening(context, lots, price, stop)
    if reason == 0 and ring_room(context) < RING_EXIT_RESERVE + FRAME_ROOM:
        reason = DENY.RING_FULL
    entry = 0
    if reason == 0:
        entry = find_entry(context, 0)
        if entry == 0:
            places = ENTRIES_PER_SLOT - CLOSING_ENTRIES
            blame(context, atomics.load(context + AT.node0), places, places, 1)
            reason = DENY.ENTRIES_FULL
    if reason == 0:
        reason = _enter(context)
        if reason != 0:
            blame(context, atomics.load(context + AT.node4), 0, 0, 0)
    if reason != 0:
        return deny(context, reason, lots, price, stop)
    bound = collared_price(context, lots, price)
    sequence = _next_token(context)
    claim_entry(entry, sequence)
    reason = _take(context, lots, position)
    if reason != 0:
        abandon_entry(entry, sequence)
        _leave(context)
        return deny(context, reason, lots, price, stop)
    slot = atomics.load(context + AT.slot)
    overshoot = grant_overshoot(context)
    # A limit cut since the second reading of the generation is no overshoot of this grant.
    header = atomics.load(context + AT.header)
    still = atomics.load(header + HEADER.generation) == atomics.load(context + AT.generation)
    if still and overshoot > atomics.load(slot + OWN.overshoot_max):
        atomics.store(slot + OWN.overshoot_max, overshoot)
    blame(context, 0, 0, 0, 0)
    token = grant(context, entry, sequence, lots, bound, stop)
    _leave(context)
    return token


@kernel("int64(int64, int64)")
def _hold_position(context: int, lots: int) -> int:
    """Hold |lots| of the position for a close; 0, or why not all of it can be closed."""
    word = atomics.load(context + AT.key) + HELD.closable
    node = atomics.load(context + AT.node1)
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        position, pending = old >> 32, old & PENDING_MASK
        if position == 0 or (position > 0) == (lots > 0) or abs(lots) > abs(position):
            blame(context, node, abs(position), pending, abs(lots))
            return DENY.MIXED
        if abs(lots) + pending > abs(position):
            blame(context, node, abs(position), pending, abs(lots))
            return DENY.EXIT_PENDING
        if atomics.compare_exchange(word, old, old + abs(lots)) == old:
            return 0
    return DENY.EXIT_PENDING


@kernel("int64(int64, int64, int64)")
def _close(context: int, lots: int, price: int) -> int:
    """Grant a close of the strategy's own position; return a token or −reason.

    No limit, level, lease, throttle or minimum is looked at, and a missing mark only means that
    the close is counted at its own price.
    """
    position = abs(atomics.load(context + AT.position_before) >> 32)
    if atomics.load(atomics.load(context + AT.key) + HELD.exit_claim) != 0:
        blame(context, atomics.load(context + AT.node1), 0, position, abs(lots))
        return deny(context, DENY.EXIT_IN_PROGRESS, lots, price, 0)
    entry = find_entry(context, 1)
    if entry == 0:
        blame(context, atomics.load(context + AT.node0), ENTRIES_PER_SLOT, ENTRIES_PER_SLOT, 1)
        return deny(context, DENY.EXIT_PENDING, lots, price, 0)
    read_mark(context)
    blame(context, 0, 0, 0, 0)
    reason = DENY.FROZEN
    for _ in range(FREEZE_TRIES):
        reason = _enter(context)
        if reason == 0:
            break
    if reason != 0:
        atomics.fetch_add(atomics.load(context + AT.slot) + OWN.section, 1)
    sequence = _next_token(context)
    claim_entry(entry, sequence)
    reason = _hold_position(context, lots)
    if reason != 0:
        abandon_entry(entry, sequence)
        _leave(context)
        return deny(context, reason, lots, price, 0)
    market = FLAG_MARKET if price == 0 else 0
    atomics.store(context + AT.flags, FLAG_CLOSING | market)
    notional = max(0, worth(context, lots, price))
    atomics.store(context + AT.notional, notional)
    header = atomics.load(context + AT.header)
    counters = atomics.load(context + AT.sums)
    charge_side(atomics.load(context + AT.key), counters, lots, notional)
    atomics.store(context + AT.generation, atomics.load(header + HEADER.generation))
    token = grant(context, entry, sequence, lots, price, 0)
    _leave(context)
    return token


@kernel("int64(int64, int64, int64, int64)")
def check_raw(context: int, lots: int, price: int, stop: int) -> int:
    """Judge an order and reserve for it.

    Parameters
    ----------
    context
        Address of the handle's context (``context.build_context``).
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
    reason = admit(context, lots, price, stop)
    if reason != 0:
        return deny(context, reason, lots, price, stop)
    closable = atomics.load(atomics.load(context + AT.key) + HELD.closable)
    position = closable >> 32
    atomics.store(context + AT.position_before, closable)
    if position != 0 and (position > 0) != (lots > 0):
        if abs(lots) > abs(position):
            blame(context, atomics.load(context + AT.node1), abs(position), 0, abs(lots))
            return deny(context, DENY.MIXED, lots, price, stop)
        return _close(context, lots, price)
    return _open(context, lots, price, stop, position)
