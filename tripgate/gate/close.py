"""Closing: an order that reduces the strategy's own position is granted or merged, never denied.

No limit, level, lease, throttle, minimum or full ring is looked at, and a missing mark only means
that the close is counted at its own price. What does not fit beside the closes that rest already
*merges*: it raises the key's wish and claims the key, and the router carries the wish out as one
exit, cancelling resting closes newest first. Only a passive limit close, which nobody wants
executed now, is answered EXIT_PENDING instead.

Invariants: E1 a granted close holds its lots in the closable word, so that closes together never
exceed the position; E2 a merged wish never exceeds the position it was asked for.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.decide import abandon_entry, claim_entry, deny, find_entry, grant
from tripgate.gate.judge import AMOUNT_MAX, blame, read_mark, read_rate, worth
from tripgate.gate.record import FLAG_CLOSING, FLAG_MARKET
from tripgate.gate.reserve import charge_side
from tripgate.gate.section import enter_exit, leave_exit
from tripgate.gate.tokens import next_token
from tripgate.gate.words import DENY, PENDING_MASK, UNPOSTED
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import CONTROL_HEADER, ENTRIES_PER_SLOT, INSTRUMENT, KEY, SLOT
from tripgate.units import PPM

HEADER = CONTROL_HEADER.at
SPEC = INSTRUMENT.at
HELD = KEY.at
OWN = SLOT.at

CAS_TRIES = 10_000
STRATEGY_CAUSE = 0
"""Cause of a wish that a strategy's own close raised; the breaker's are its level."""


@kernel("int64(int64, int64)")
def _hold(context: int, lots: int) -> int:
    """Hold |lots| of the position for a close; 0, or why not all of it can be held."""
    word = atomics.peek(context + AT.key) + HELD.closable
    node = atomics.peek(context + AT.node1)
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
    blame(context, node, 0, 0, abs(lots))
    return DENY.EXIT_PENDING


@kernel("int64(int64, int64)")
def _merge(context: int, lots: int) -> int:
    """Raise the key's wish to |lots| and claim the key; return EXIT_IN_PROGRESS."""
    key = atomics.peek(context + AT.key)
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    for _ in range(CAS_TRIES):
        old = atomics.load(key + HELD.exit_lots)
        if old >= abs(lots):
            break
        if atomics.compare_exchange(key + HELD.exit_lots, old, abs(lots)) == old:
            break
    atomics.compare_exchange(key + HELD.exit_first_ms, 0, t_signed)
    atomics.store(key + HELD.exit_ms, t_signed)
    atomics.fetch_add(key + HELD.exit_count, 1)
    # The wish first, the claim last: whoever sees the claim finds what it is for.
    atomics.compare_exchange(key + HELD.exit_claim, 0, 1)
    return DENY.EXIT_IN_PROGRESS


@kernel("int64(int64, int64, int64, int64)")
def _clamped_price(context: int, lots: int, price: int, fresh: int) -> int:
    """Return a close's limit price, brought back to the exit collar if it is beyond it.

    Only the aggressive side is clamped: a limit far on the passive side merely rests.
    """
    collar = atomics.load(atomics.peek(context + AT.instrument) + SPEC.exit_collar_ppm)
    if price == 0 or fresh == 0 or collar == 0:
        return price
    mark = atomics.peek(context + IMAGE.mark)
    reach = mark * collar // PPM
    if lots < 0:
        return max(price, max(1, mark - reach))
    return min(price, mark + reach)


@kernel("int64(int64, int64, int64, int64)")
def _is_passive(context: int, lots: int, price: int, fresh: int) -> int:
    """Return 1 for a limit close that would rest: away from a fresh mark on its own side."""
    if price == 0 or fresh == 0:
        return 0
    mark = atomics.peek(context + IMAGE.mark)
    return 1 if (lots < 0 and price > mark) or (lots > 0 and price < mark) else 0


@kernel("int64(int64, int64, int64)")
def _exit_worth(context: int, lots: int, price: int) -> int:
    """Return what an open close counts at its side's words, money units."""
    amount = worth(context, lots, price)
    if amount < 0:
        amount = worth(context, lots, 0)
    return amount if amount >= 0 else AMOUNT_MAX


@kernel("int64(int64, int64, int64, int64)")
def _take_close(context: int, entry: int, lots: int, price: int) -> int:
    """Hold the lots and grant the close; return a token, or −reason with nothing held."""
    unposted = enter_exit(context)
    mark = UNPOSTED if unposted else 0
    sequence = next_token(context)
    claim_entry(entry, sequence, mark)
    reason = _hold(context, lots)
    if reason != 0:
        abandon_entry(entry, sequence)
        leave_exit(context, unposted, 0)
        return -reason
    amount = _exit_worth(context, lots, price)
    atomics.poke(context + IMAGE.notional, amount)
    key = atomics.peek(context + AT.key)
    atomics.fetch_add(key + HELD.resting, 1)
    if unposted == 0:
        charge_side(key, atomics.peek(context + AT.sums), lots, amount)
    atomics.poke(context + AT.reason, 0)
    token = grant(context, entry, lots, price, 0, mark)
    leave_exit(context, unposted, 1)
    return token


@kernel("int64(int64, int64, int64, int64)")
def close(context: int, lots: int, price: int, position: int) -> int:
    """Grant or merge a close of the strategy's own position; return a token or −reason."""
    key = atomics.peek(context + AT.key)
    node = atomics.peek(context + AT.node1)
    fresh = read_mark(context)
    read_rate(context)
    blame(context, 0, 0, 0, 0)
    price = _clamped_price(context, lots, price, fresh)
    atomics.poke(context + AT.flags, FLAG_CLOSING | (FLAG_MARKET if price == 0 else 0))
    reason = 0
    entry = find_entry(context, 1)
    resting = atomics.load(key + HELD.resting)
    resting_max = atomics.load(atomics.peek(context + AT.instrument) + SPEC.resting_max)
    if atomics.load(key + HELD.exit_claim) != 0:
        blame(context, node, 0, abs(position), abs(lots))
        reason = DENY.EXIT_IN_PROGRESS
    elif entry == 0:
        blame(context, atomics.peek(context + AT.node0), ENTRIES_PER_SLOT, ENTRIES_PER_SLOT, 1)
        reason = DENY.EXIT_PENDING
    elif resting >= resting_max:
        blame(context, node, resting_max, resting, 1)
        reason = DENY.EXIT_PENDING
    else:
        answer = _take_close(context, entry, lots, price)
        if answer > 0:
            return answer
        reason = -answer
    if reason != DENY.MIXED and _is_passive(context, lots, price, fresh) == 0:
        reason = _merge(context, lots)
    return deny(context, reason, lots, price, 0)
