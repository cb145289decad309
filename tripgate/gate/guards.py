"""Guards of a strategy's pace: opening rate, attempts, duplicates and repeated execution.

Each is one word that all processes of a strategy share. They are tested before anything is
reserved and charged after everything is, by compare-and-swap, so that two processes cannot both
take the last place. A denied attempt charges the attempt word alone. Windows are market time, so a
replay at any speed decides alike.

Words: rate and attempts = second << 16 | count. Last order = hash (31 bits) << 32 | ms (32 bits).
Repeats = hash (19 bits) << 44 | count (12 bits) << 32 | ms of the first (32 bits).
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.judge import blame
from tripgate.gate.words import DENY
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import KEY, STRATEGY, THROTTLE

HELD = KEY.at
PLAN = STRATEGY.at
PACE = THROTTLE.at

CAS_TRIES = 10_000
COUNT_MASK = 0xFFFF
MS_MASK = 2**32 - 1
REPEATS_MAX = 2**12 - 1
RUN_MASK = 2**19 - 1
_MIX, _MIX_PRICE, _MIX_STOP = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB
"""Odd multipliers, one for each part of an order: near orders must not look alike."""


@kernel("int64(int64, int64)", inline=True)
def _used_in_second(word: int, t_signed_ms: int) -> int:
    """Return the count of a rate word if it is of this second, else 0."""
    return word & COUNT_MASK if word >> 16 == t_signed_ms // 1000 else 0


@kernel("int64(int64, int64, int64)", inline=True)
def order_hash(lots: int, price: int, stop: int) -> int:
    """Return 31 bits that tell one order from another."""
    mixed = atomics.wrap64(lots * _MIX) ^ atomics.wrap64(price * _MIX_PRICE)
    mixed = mixed ^ atomics.wrap64(stop * _MIX_STOP)
    return (atomics.wrap64((mixed ^ (mixed >> 29)) * _MIX) >> 32) & 0x7FFFFFFF


@kernel("int64(int64)", inline=True)
def attempts_reason(context: int) -> int:
    """Judge how often the strategy has been denied in this second."""
    attempts_max = atomics.load(atomics.peek(context + AT.strategy) + PLAN.attempts_per_second_max)
    word = atomics.load(atomics.peek(context + AT.throttle) + PACE.attempts)
    used = _used_in_second(word, atomics.peek(context + IMAGE.t_signed_ms))
    if used < attempts_max:
        return 0
    blame(context, atomics.peek(context + AT.node0), attempts_max, used, 1)
    return DENY.ATTEMPT_RATE


@kernel("void(int64)")
def charge_attempt(context: int) -> None:
    """Count a denied opening in the strategy's present second (it saturates)."""
    word = atomics.peek(context + AT.throttle) + PACE.attempts
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        used = min(_used_in_second(old, t_signed) + 1, COUNT_MASK)
        if atomics.compare_exchange(word, old, (t_signed // 1000) << 16 | used) == old:
            return


@kernel("int64(int64, int64, int64)", inline=True)
def _repeats(context: int, word: int, lots: int) -> int:
    """Return how often an order of these lots was approved in a row within the window."""
    window_ms = atomics.load(atomics.peek(context + AT.strategy) + PLAN.repeat_window_ms)
    age_ms = (atomics.peek(context + IMAGE.t_signed_ms) - word) & MS_MASK
    same = (word >> 44) == order_hash(lots, 0, 0) & RUN_MASK
    return (word >> 32) & REPEATS_MAX if same and age_ms < window_ms else 0


@kernel("int64(int64, int64, int64, int64)", inline=True)
def pace_reason(context: int, lots: int, price: int, stop: int) -> int:
    """Judge opening rate, duplicate window and repeated execution; nothing is charged yet."""
    plan = atomics.peek(context + AT.strategy)
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    rate = atomics.load(plan + PLAN.orders_per_second_max)
    word = atomics.load(atomics.peek(context + AT.throttle) + PACE.window)
    atomics.poke(context + IMAGE.throttle, word)
    used = _used_in_second(word, t_signed)
    if used >= rate:
        blame(context, atomics.peek(context + AT.node0), rate, used, 1)
        return DENY.ORDER_RATE
    key = atomics.peek(context + AT.key)
    window_ms = atomics.load(plan + PLAN.duplicate_window_ms)
    if window_ms > 0:
        last = atomics.load(key + HELD.last_order)
        age_ms = (t_signed - last) & MS_MASK
        if last >> 32 == order_hash(lots, price, stop) and age_ms < window_ms:
            blame(context, atomics.peek(context + AT.node1), window_ms, age_ms, 1)
            return DENY.DUPLICATE_ORDER
    repeats_max = atomics.load(plan + PLAN.repeats_max)
    if repeats_max > 0:
        count = _repeats(context, atomics.load(key + HELD.repeats), lots)
        if count >= repeats_max:
            blame(context, atomics.peek(context + AT.node1), repeats_max, count, 1)
            return DENY.REPEATED_ORDER
    return 0


@kernel("int64(int64)", inline=True)
def _charge_rate(context: int) -> int:
    """Count this opening in the strategy's present second; 0 if others used it up meanwhile."""
    word = atomics.peek(context + AT.throttle) + PACE.window
    rate = atomics.load(atomics.peek(context + AT.strategy) + PLAN.orders_per_second_max)
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        used = _used_in_second(old, t_signed)
        if used >= rate:
            blame(context, atomics.peek(context + AT.node0), rate, used, 1)
            return 0
        new = (t_signed // 1000) << 16 | (used + 1)
        if atomics.compare_exchange(word, old, new) == old:
            return 1
    return 0


@kernel("int64(int64, int64, int64, int64)", inline=True)
def _charge_order(context: int, lots: int, price: int, stop: int) -> int:
    """Remember the order for the duplicate guard; 0 if another process sent it just now."""
    window_ms = atomics.load(atomics.peek(context + AT.strategy) + PLAN.duplicate_window_ms)
    if window_ms == 0:
        return 1
    word = atomics.peek(context + AT.key) + HELD.last_order
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    new = order_hash(lots, price, stop) << 32 | (t_signed & MS_MASK)
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        if old >> 32 == new >> 32 and (t_signed - old) & MS_MASK < window_ms:
            blame(context, atomics.peek(context + AT.node1), window_ms, 0, 1)
            return 0
        if atomics.compare_exchange(word, old, new) == old:
            return 1
    return 0


@kernel("int64(int64, int64)", inline=True)
def _charge_repeat(context: int, lots: int) -> int:
    """Count the order in its run of equal ones; 0 if the run is full."""
    repeats_max = atomics.load(atomics.peek(context + AT.strategy) + PLAN.repeats_max)
    if repeats_max == 0:
        return 1
    word = atomics.peek(context + AT.key) + HELD.repeats
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        count = _repeats(context, old, lots)
        if count >= repeats_max:
            blame(context, atomics.peek(context + AT.node1), repeats_max, count, 1)
            return 0
        first = old & MS_MASK if count else t_signed & MS_MASK
        run = (order_hash(lots, 0, 0) & RUN_MASK) << 44
        if atomics.compare_exchange(word, old, run | (count + 1) << 32 | first) == old:
            return 1
    return 0


@kernel("int64(int64, int64, int64, int64)", inline=True)
def charge_pace(context: int, lots: int, price: int, stop: int) -> int:
    """Charge all guards for an opening that has everything else; 0 or the reason that refuses it.

    A later guard's refusal leaves the earlier ones charged: it can only make the strategy slower.
    """
    if _charge_rate(context) == 0:
        return DENY.ORDER_RATE
    if _charge_order(context, lots, price, stop) == 0:
        return DENY.DUPLICATE_ORDER
    if _charge_repeat(context, lots) == 0:
        return DENY.REPEATED_ORDER
    return 0
