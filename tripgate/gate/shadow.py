"""Shadow: on a shadow page an opening that would be denied is granted, and its record says so.

So a desk can see what the gate would have done before it lets it. Refused all the same is what
could not be counted or placed: no price to value it by, no entry or ring space, a running repair,
an exit in progress, another strategy on the other side. Closes are as on an enforcing page.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.decide import abandon_entry, claim_entry, grant
from tripgate.gate.guards import attempts_reason
from tripgate.gate.judge import collared_price, read_mark, read_rate, worth
from tripgate.gate.opening import claim_side, deny_opening, find_place, judge_opening, take
from tripgate.gate.record import FLAG_SHADOW
from tripgate.gate.reserve import margin_of, reserve_nodes
from tripgate.gate.section import enter, exits_unposted, leave
from tripgate.gate.tokens import next_token
from tripgate.gate.words import DENY
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import INSTRUMENT, SLOT

SPEC = INSTRUMENT.at
OWN = SLOT.at


@kernel("int64(int64, int64, int64, int64)")
def _value(context: int, lots: int, price: int, would: int) -> int:
    """Value an order that would be denied; 0 with price and notional set, or why it cannot be."""
    fresh = read_mark(context)
    read_rate(context)
    bound = price
    if price == 0:
        if fresh == 0:
            return would
        bound = collared_price(context, lots, 0)
    notional = worth(context, lots, bound)
    if notional <= 0:
        return would
    atomics.poke(context + IMAGE.price, bound)
    atomics.poke(context + IMAGE.notional, notional)
    spec = atomics.peek(context + AT.instrument)
    atomics.poke(context + AT.margin, margin_of(notional, atomics.load(spec + SPEC.margin_ppm)))
    return 0


@kernel("int64(int64, int64, int64)")
def _take_unlimited(context: int, lots: int, position: int) -> int:
    """Take an order whatever the limits say; 0, or a reason that stands on any page."""
    if exits_unposted(context) != 0:
        return DENY.FROZEN
    reason = claim_side(context, lots, position)
    if reason == 0:
        reason = reserve_nodes(context, atomics.peek(context + IMAGE.notional), lots, 1)
    return reason


@kernel("int64(int64, int64, int64, int64, int64)")
def open_in_shadow(context: int, lots: int, price: int, stop: int, position: int) -> int:
    """Judge an opening and grant it; return a token, or −reason where nothing can be granted."""
    would = attempts_reason(context)
    if would == 0:
        would = judge_opening(context, lots, price, stop)
    reason = 0 if would == 0 else _value(context, lots, price, would)
    entry = find_place(context)
    if reason == 0 and entry < 0:
        reason = -entry
    if reason == 0:
        reason = enter(context)
    if reason != 0:
        return deny_opening(context, reason, lots, price, stop)
    bound = atomics.peek(context + IMAGE.price)
    sequence = next_token(context)
    claim_entry(entry, sequence, 0)
    if would == 0:
        would = take(context, lots, bound, stop, position)
        reason = 0 if would == 0 else _take_unlimited(context, lots, position)
    else:
        reason = _take_unlimited(context, lots, position)
    if reason != 0:
        abandon_entry(entry, sequence)
        leave(context)
        return deny_opening(context, reason, lots, price, stop)
    if would != 0:
        counter = atomics.peek(context + AT.slot) + OWN.denied + 8 * would
        atomics.store(counter, atomics.load(counter) + 1)
    atomics.poke(context + AT.flags, atomics.peek(context + AT.flags) | FLAG_SHADOW)
    atomics.poke(context + AT.reason, would)
    token = grant(context, entry, lots, bound, stop, 0)
    leave(context)
    return token
