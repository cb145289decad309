"""Judging an opening: every test of the check that only reads.

Each function stores what it read in the handle's context, where the decision record is made from,
and returns 0 or the code of the ``DenyReason``. Nothing here changes a shared word, so their order
is free of side effects: the first failure wins, in the order of ``DenyReason``.
"""

from tripgate.gate.context import AT
from tripgate.gate.record import FLAG_MARKET
from tripgate.gate.words import DENY, level_of
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.board import read_row
from tripgate.page.layout import (
    CONTROL_HEADER,
    COUNTERS_HEADER,
    INSTRUMENT,
    LIMIT,
    NODES_PER_ORDER,
    ROLE,
    SLOT,
    STRATEGY,
)
from tripgate.reasons import Level
from tripgate.units import INT_MAX, LOTS_MAX, PPM

HEADER = CONTROL_HEADER.at
COUNTERS = COUNTERS_HEADER.at
SPEC = INSTRUMENT.at
NODE = LIMIT.at
DUTY = ROLE.at
OWN = SLOT.at
PLAN = STRATEGY.at

TICKS_MAX = 2**40
"""Bound of a price in ticks: a collar product (ticks × ppm) then fits in 62 bits."""

_MEDIUM = int(Level.MEDIUM)

_ROLE_BYTES = ROLE.row_bytes

_FIRST_RESULT = AT.reason
_LAST_RESULT = AT.side4


@kernel("int64(int64, int64, int64, int64, int64)")
def blame(context: int, scope: int, limit: int, used: int, requested: int) -> int:
    """Name what speaks against the order: node (or −1 − role), limit, used, requested."""
    atomics.store(context + AT.scope, scope)
    atomics.store(context + AT.limit, limit)
    atomics.store(context + AT.used, used)
    atomics.store(context + AT.requested, requested)
    return 0


@kernel("int64(int64, int64, int64, int64)")
def admit(context: int, lots: int, price: int, stop: int) -> int:
    """Read clock and generation, judge page and inputs; return 0 or a reason."""
    for offset in range(_FIRST_RESULT, _LAST_RESULT + 8, 8):
        atomics.store(context + offset, 0)
    header = atomics.load(context + AT.header)
    slot = atomics.load(context + AT.slot)
    atomics.store(context + AT.t_signed, atomics.load(header + HEADER.market_ms))
    now = atomics.read_clock(atomics.CLOCK_MONOTONIC_COARSE, slot + OWN.timespec)
    atomics.store(context + AT.now_ns, now + atomics.load(header + HEADER.coarse_resolution_ns))
    atomics.store(context + AT.generation, atomics.load(header + HEADER.generation))
    atomics.store(context + AT.scope, atomics.load(context + AT.node4))
    if atomics.load(header + HEADER.closed) != 0:
        return DENY.PAGE_CLOSED
    epoch = atomics.load(context + AT.epoch)
    counters = atomics.load(context + AT.counters)
    if (
        atomics.load(header + HEADER.epoch) != epoch
        or atomics.load(counters + COUNTERS.epoch) != epoch
    ):
        return DENY.EPOCH_CHANGED
    # From here on it is this order on this instrument that is judged, not the whole instance.
    atomics.store(context + AT.scope, atomics.load(context + AT.node1))
    # No abs(): that of the lowest 64-bit word is negative and would pass every bound.
    if lots == 0 or lots > LOTS_MAX or lots < -LOTS_MAX:
        return DENY.BAD_QUANTITY
    if price < 0 or price > TICKS_MAX or stop < 0 or stop > TICKS_MAX:
        return DENY.BAD_PRICE
    return 0


@kernel("int64(int64)")
def levels_and_leases(context: int) -> int:
    """Judge the level at all five nodes, then every lease the instrument depends on."""
    worst = 0
    tightest = 0
    for index in range(NODES_PER_ORDER):
        limits = atomics.load(context + AT.limit0 + 8 * index)
        word = atomics.load(limits + NODE.level)
        if word != 0 and level_of(word) > worst:
            worst = level_of(word)
            tightest = atomics.load(context + AT.node0 + 8 * index)
    atomics.store(context + AT.level, worst)
    if worst >= _MEDIUM:
        blame(context, tightest, _MEDIUM, worst, 0)
        return DENY.LEVEL
    now = atomics.load(context + AT.now_ns)
    mask = atomics.load(atomics.load(context + AT.instrument) + SPEC.role_mask)
    leases = atomics.load(context + AT.leases)
    least = 1 << 62
    for role in range(atomics.load(context + AT.role_count)):
        if (mask >> role) & 1:
            left = atomics.load(leases + 8 * role) - now
            if left < least:
                least = left
                atomics.store(context + AT.lease_role, role)
    atomics.store(context + AT.lease_left, least)
    if least <= 0:
        role = atomics.load(context + AT.lease_role)
        blame(context, -1 - role, 0, -least if least > -now else 0, 0)
        roles = atomics.load(context + AT.roles)
        stale = atomics.load(roles + role * _ROLE_BYTES + DUTY.stale)
        return DENY.INPUT_STALE if stale else DENY.LEASE_LAPSED
    return 0


@kernel("int64(int64)")
def read_mark(context: int) -> int:
    """Read the mark into the context; return 1 if it is there and fresh, else 0."""
    header = atomics.load(context + AT.header)
    instrument = atomics.load(context + AT.instrument)
    sequence = read_row(atomics.load(context + AT.board), context + AT.scratch0)
    atomics.store(context + AT.mark_sequence, sequence)
    if sequence < 0:
        return 0
    mark = atomics.load(context + AT.scratch0)
    mark_ms = atomics.load(context + AT.scratch0 + 32)
    atomics.store(context + AT.mark, mark)
    atomics.store(context + AT.mark_ms, mark_ms)
    age = atomics.load(header + HEADER.market_ms) - mark_ms
    age_max = max(
        atomics.load(instrument + SPEC.age_max_ms), atomics.load(header + HEADER.age_floor_ms)
    )
    # Age counts both ways: a mark dated into the future would otherwise never grow stale.
    if abs(age) <= age_max and 0 < mark <= TICKS_MAX:
        return 1
    blame(context, atomics.load(context + AT.node1), age_max, age, 0)
    return 0


@kernel("int64(int64, int64, int64)")
def collared_price(context: int, lots: int, price: int) -> int:
    """Return the price that binds the order, or 0 if it is outside the collar.

    A market order is an IOC at the collar, rounded to the mark's side.
    """
    mark = atomics.load(context + AT.mark)
    collar = atomics.load(atomics.load(context + AT.instrument) + SPEC.collar_ppm)
    if price == 0:
        atomics.store(context + AT.flags, FLAG_MARKET)
        reach = mark * collar // PPM
        return mark + reach if lots > 0 else max(1, mark - reach)
    distance_ppm = abs(price - mark) * PPM // mark
    if abs(price - mark) * PPM > collar * mark:
        blame(context, atomics.load(context + AT.node1), collar, 0, distance_ppm)
        return 0
    return price


@kernel("int64(int64, int64, int64, int64)")
def stop_reason(context: int, lots: int, price: int, stop: int) -> int:
    """Judge the mandatory stop against the order's price and the mark."""
    mark = atomics.load(context + AT.mark)
    reach = atomics.load(atomics.load(context + AT.instrument) + SPEC.stop_distance_ppm)
    node = atomics.load(context + AT.node1)
    if stop == 0:
        return DENY.STOP_MISSING
    # A market order's price is the far end of its collar: the mark is what it will trade near.
    base = mark if atomics.load(context + AT.flags) & FLAG_MARKET else price
    nearest = min(base, mark) if lots > 0 else max(base, mark)
    if (lots > 0 and stop >= nearest) or (lots < 0 and stop <= nearest):
        blame(context, node, nearest, 0, stop)
        return DENY.STOP_WRONG_SIDE
    if abs(base - stop) * PPM > reach * base:
        blame(context, node, reach, 0, abs(base - stop) * PPM // base)
        return DENY.STOP_TOO_FAR
    return 0


@kernel("int64(int64, int64, int64)")
def worth(context: int, lots: int, price: int) -> int:
    """Return lots × max(price, mark) in money units, rounded up, or -1 if out of range."""
    instrument = atomics.load(context + AT.instrument)
    unit = max(price, atomics.load(context + AT.mark))
    factor = abs(lots) * atomics.load(instrument + SPEC.value_numerator)
    denominator = atomics.load(instrument + SPEC.value_denominator)
    if factor != 0 and unit > (INT_MAX - denominator) // factor:
        return -1
    return (unit * factor + denominator - 1) // denominator


@kernel("int64(int64)")
def size_reason(context: int) -> int:
    """Judge the order's worth against the order cap (× factor at SOFT) and the opening rate."""
    notional = atomics.load(context + AT.notional)
    cap = atomics.load(atomics.load(context + AT.instrument) + SPEC.order_money_max)
    factor = PPM
    for index in range(NODES_PER_ORDER):
        limits = atomics.load(context + AT.limit0 + 8 * index)
        factor = min(factor, atomics.load(limits + NODE.factor_ppm))
    # Dividing first keeps the product in range; what is lost is less than one money unit × ppm.
    cap = cap // PPM * factor + cap % PPM * factor // PPM
    if notional > cap:
        blame(context, atomics.load(context + AT.node1), cap, 0, notional)
        return DENY.ORDER_NOTIONAL
    rate = atomics.load(atomics.load(context + AT.strategy) + PLAN.orders_per_second_max)
    word = atomics.load(atomics.load(context + AT.throttle))
    atomics.store(context + AT.throttle_before, word)
    second = atomics.load(context + AT.t_signed) // 1000
    used = word & 0xFFFF if word >> 16 == second else 0
    if used >= rate:
        blame(context, atomics.load(context + AT.node0), rate, used, 1)
        return DENY.ORDER_RATE
    return 0
