"""Judging an opening: every test of the check that only reads.

Each function stores what it read in the handle's context, from which the decision record is made,
and returns 0 or the code of the ``DenyReason``. Nothing here changes a shared word, so their order
is free of side effects: the first failure wins.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.record import FLAG_MARKET
from tripgate.gate.words import DENY, level_of
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.board import READ_TRIES
from tripgate.page.layout import (
    BOARD,
    CONTROL_HEADER,
    COUNTERS_HEADER,
    INSTRUMENT,
    LIMIT,
    NODES_PER_ORDER,
    RATE,
    ROLE,
    SLOT,
)
from tripgate.reasons import Level
from tripgate.units import INT_MAX, LOTS_MAX, PPM

HEADER = CONTROL_HEADER.at
COUNTERS = COUNTERS_HEADER.at
SPEC = INSTRUMENT.at
NODE = LIMIT.at
DUTY = ROLE.at
OWN = SLOT.at
ROW = BOARD.at
QUOTED = RATE.at

TICKS_MAX = 2**40
"""Bound of a price in ticks: a collar product (ticks × ppm) then fits in 62 bits."""

AMOUNT_MAX = INT_MAX // 4
"""Bound of one order's worth: a limit less an amount, and a sum plus one, then stay in range."""

_WORTH_FLOAT_MAX = float(AMOUNT_MAX)
"""Below this bound a product in floats, right to 2**-50, proves that the integers fit."""

RATE_PPM_MAX = 2**42
"""Bound of a quote currency's rate: the remainder of a division by 1e6 times it fits in 62 bits."""

_MEDIUM = int(Level.MEDIUM)
_ROLE_BYTES = ROLE.row_bytes


@kernel("int64(int64, int64, int64, int64, int64)")
def blame(context: int, scope: int, limit: int, used: int, requested: int) -> int:
    """Name what speaks against the order: node (or −1 − role), limit, used, requested."""
    atomics.poke(context + AT.scope, scope)
    atomics.poke(context + IMAGE.limit, limit)
    atomics.poke(context + IMAGE.used, used)
    atomics.poke(context + IMAGE.requested, requested)
    return 0


@kernel("int64(int64, int64, int64, int64)", inline=True)
def admit(context: int, lots: int, price: int, stop: int) -> int:
    """Read clock and generation, judge page and inputs; return 0 or a reason."""
    atomics.clear_record(context + IMAGE.start)
    atomics.poke(context + AT.flags, 0)
    atomics.poke(context + AT.level, 0)
    atomics.poke(context + AT.lease_role, 0)
    atomics.poke(context + AT.factor, PPM)
    atomics.poke(context + AT.margin, 0)
    header = atomics.peek(context + AT.header)
    slot = atomics.peek(context + AT.slot)
    atomics.poke(context + IMAGE.t_signed_ms, atomics.load(header + HEADER.market_ms))
    now = atomics.read_clock(atomics.CLOCK_MONOTONIC_COARSE, slot + OWN.timespec)
    now += atomics.load(header + HEADER.coarse_resolution_ns)
    atomics.poke(context + IMAGE.host_ns, now)
    atomics.poke(context + IMAGE.generation, atomics.load(header + HEADER.generation))
    epoch = atomics.peek(context + AT.epoch)
    version = atomics.load(header + HEADER.limits_version)
    atomics.poke(context + IMAGE.limits, version | (epoch << 32))
    atomics.poke(context + AT.scope, atomics.peek(context + AT.node4))
    counters = atomics.peek(context + AT.counters)
    if (
        atomics.load(header + HEADER.epoch) != epoch
        or atomics.load(counters + COUNTERS.epoch) != epoch
    ):
        return DENY.EPOCH_CHANGED
    if atomics.load(header + HEADER.closed) != 0:
        return DENY.PAGE_CLOSED
    # From here on it is this order on this instrument that is judged, not the whole instance.
    atomics.poke(context + AT.scope, atomics.peek(context + AT.node1))
    # No abs(): that of the lowest 64-bit word is negative and would pass every bound.
    if lots == 0 or lots > LOTS_MAX or lots < -LOTS_MAX:
        return DENY.BAD_QUANTITY
    if price < 0 or price > TICKS_MAX or stop < 0 or stop > TICKS_MAX:
        return DENY.BAD_PRICE
    return 0


@kernel("int64(int64)", inline=True)
def levels_and_leases(context: int) -> int:
    """Judge the level at all five nodes, then every lease the instrument depends on."""
    worst, tightest, factor = 0, 0, PPM
    for index in range(NODES_PER_ORDER):
        limits = atomics.peek(context + AT.limits0 + 8 * index)
        factor = min(factor, atomics.load(limits + NODE.factor_ppm))
        word = atomics.load(limits + NODE.level)
        if word != 0:
            level = level_of(word)
            if level > worst:
                worst = level
                tightest = atomics.peek(context + AT.node0 + 8 * index)
    atomics.poke(context + AT.level, worst)
    atomics.poke(context + AT.factor, factor)
    if worst >= _MEDIUM:
        blame(context, tightest, _MEDIUM, worst, 0)
        return DENY.LEVEL
    now = atomics.peek(context + IMAGE.host_ns)
    least, place = 1 << 62, 0
    for index in range(atomics.peek(context + AT.lease_count)):
        left = atomics.load(atomics.peek(context + AT.lease0 + 8 * index)) - now
        if left < least:
            least, place = left, index
    role = (atomics.peek(context + AT.lease0 + 8 * place) - atomics.peek(context + AT.leases)) >> 3
    atomics.poke(context + AT.lease_role, role)
    atomics.poke(context + IMAGE.lease_left_ns, least)
    if least > 0:
        return 0
    blame(context, -1 - role, 0, -least if least > -now else 0, 0)
    roles = atomics.peek(context + AT.roles)
    stale = atomics.load(roles + role * _ROLE_BYTES + DUTY.stale)
    return DENY.INPUT_STALE if stale else DENY.LEASE_LAPSED


@kernel("int64(int64)", inline=True)
def _age_max(context: int) -> int:
    """Return the oldest that a mark or rate of the instrument may be, ms of market time."""
    floor = atomics.load(atomics.peek(context + AT.header) + HEADER.age_floor_ms)
    return max(atomics.load(atomics.peek(context + AT.instrument) + SPEC.age_max_ms), floor)


@kernel("int64(int64)", inline=True)
def read_mark(context: int) -> int:
    """Read the mark into the context; return 1 if it is there and fresh, else 0."""
    row = atomics.peek(context + AT.board)
    sequence, mark, mark_ms = -1, 0, 0
    for _ in range(READ_TRIES):
        before = atomics.load(row + ROW.sequence)
        if before & 1:
            continue
        mark = atomics.load(row + ROW.mark)
        mark_ms = atomics.load(row + ROW.market_ms)
        if atomics.load(row + ROW.sequence) == before:
            sequence = before if before > 0 else -1
            break
    atomics.poke(context + IMAGE.mark_sequence, sequence)
    if sequence < 0:
        return 0
    atomics.poke(context + IMAGE.mark, mark)
    atomics.poke(context + IMAGE.mark_ms, mark_ms)
    age_max = _age_max(context)
    age = atomics.load(atomics.peek(context + AT.header) + HEADER.market_ms) - mark_ms
    # Age counts both ways: a mark dated into the future would otherwise never grow stale.
    if abs(age) <= age_max and 0 < mark <= TICKS_MAX:
        return 1
    blame(context, atomics.peek(context + AT.node1), age_max, age, 0)
    return 0


@kernel("int64(int64)", inline=True)
def read_rate(context: int) -> int:
    """Read the worth of the quote currency, off par against the caller; return 1 if it is fresh.

    A rate of the reporting currency itself has no time (−1) and never grows stale.
    """
    row = atomics.peek(context + AT.rate)
    rate = max(atomics.load(row + QUOTED.rate_ppm), atomics.load(row + QUOTED.par_ppm))
    # A close is counted at the bound; beyond it a product would wrap and look cheap.
    atomics.poke(context + IMAGE.rate_ppm, max(0, min(rate, RATE_PPM_MAX)))
    told_ms = atomics.load(row + QUOTED.market_ms)
    if rate > RATE_PPM_MAX:
        blame(context, atomics.peek(context + AT.node1), RATE_PPM_MAX, rate, 0)
        return 0
    if told_ms == -1:
        return rate > 0
    age = atomics.load(atomics.peek(context + AT.header) + HEADER.market_ms) - told_ms
    age_max = _age_max(context)
    if rate > 0 and abs(age) <= age_max:
        return 1
    blame(context, atomics.peek(context + AT.node1), age_max, age, 0)
    return 0


@kernel("int64(int64, int64, int64)", inline=True)
def collared_price(context: int, lots: int, price: int) -> int:
    """Return the price that binds the order, or 0 if it is outside the collar.

    A market order is an IOC at the collar, rounded to the mark's side.
    """
    mark = atomics.peek(context + IMAGE.mark)
    collar = atomics.load(atomics.peek(context + AT.instrument) + SPEC.collar_ppm)
    if price == 0:
        atomics.poke(context + AT.flags, FLAG_MARKET)
        reach = mark * collar // PPM
        return mark + reach if lots > 0 else max(1, mark - reach)
    if abs(price - mark) * PPM > collar * mark:
        distance_ppm = abs(price - mark) * PPM // max(1, mark)
        blame(context, atomics.peek(context + AT.node1), collar, 0, distance_ppm)
        return 0
    return price


@kernel("int64(int64, int64, int64, int64)", inline=True)
def stop_reason(context: int, lots: int, price: int, stop: int) -> int:
    """Judge the mandatory stop against the order's price and the mark."""
    if stop == 0:
        return DENY.STOP_MISSING
    mark = atomics.peek(context + IMAGE.mark)
    reach = atomics.load(atomics.peek(context + AT.instrument) + SPEC.stop_distance_ppm)
    # A market order's price is the far end of its collar: the mark is what it will trade near.
    base = mark if atomics.peek(context + AT.flags) & FLAG_MARKET else price
    nearest = min(base, mark) if lots > 0 else max(base, mark)
    if (lots > 0 and stop >= nearest) or (lots < 0 and stop <= nearest):
        blame(context, atomics.peek(context + AT.node1), nearest, 0, stop)
        return DENY.STOP_WRONG_SIDE
    if abs(base - stop) * PPM > reach * base:
        far_ppm = abs(base - stop) * PPM // max(1, base)
        blame(context, atomics.peek(context + AT.node1), reach, 0, far_ppm)
        return DENY.STOP_TOO_FAR
    return 0


@kernel("int64(int64, int64)", inline=True)
def share_up(amount: int, ppm: int) -> int:
    """Return amount × ppm ÷ 1e6 rounded up; dividing first keeps the product in range."""
    if ppm == PPM:
        return amount
    return amount // PPM * ppm + (amount % PPM * ppm + PPM - 1) // PPM


@kernel("int64(int64, int64, int64)", inline=True)
def worth(context: int, lots: int, price: int) -> int:
    """Return an order's worth in money units, rounded up, or -1 if it is out of range.

    Linear: lots × value of a lot at one tick × max(price, mark); inverse: lots × contract value,
    whatever the price. Both × max(rate, par) of the quote currency.
    """
    spec = atomics.peek(context + AT.instrument)
    unit = max(price, atomics.peek(context + IMAGE.mark))
    if atomics.load(spec + SPEC.inverse) != 0:
        unit = 1
    factor = abs(lots) * atomics.load(spec + SPEC.value_numerator)
    rate = atomics.peek(context + IMAGE.rate_ppm)
    if float(factor) * float(unit) * max(1.0, rate / 1e6) > _WORTH_FLOAT_MAX:
        return -1
    denominator = atomics.load(spec + SPEC.value_denominator)
    amount = unit * factor
    if denominator != 1:
        amount = (amount + denominator - 1) // denominator
    return share_up(amount, rate)


@kernel("int64(int64, int64)", inline=True)
def size_reason(context: int, lots: int) -> int:
    """Judge the order against the lots cap and its worth against the order cap × factor."""
    spec = atomics.peek(context + AT.instrument)
    lots_max = atomics.load(spec + SPEC.order_lots_max)
    if abs(lots) > lots_max:
        blame(context, atomics.peek(context + AT.node1), lots_max, 0, abs(lots))
        return DENY.ORDER_LOTS
    notional = atomics.peek(context + IMAGE.notional)
    cap, factor = atomics.load(spec + SPEC.order_money_max), atomics.peek(context + AT.factor)
    if factor != PPM:
        # Dividing first keeps the product in range; it loses less than one money unit × ppm.
        cap = cap // PPM * factor + cap % PPM * factor // PPM
    if notional > cap:
        blame(context, atomics.peek(context + AT.node1), cap, 0, notional)
        return DENY.ORDER_NOTIONAL
    atomics.poke(context + AT.margin, share_up(notional, atomics.load(spec + SPEC.margin_ppm)))
    return 0
