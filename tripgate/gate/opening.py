"""Opening: an order that adds risk is judged, reserved narrow to wide and granted, or denied.

First everything that only reads; then, inside a section, the claim on the instrument's side, the
five nodes and the venue's margin by compare-and-swap, the trip generation a second time, and the
guards' charges. A refusal gives everything back in reverse.

Invariants: O1 a refused opening leaves nothing taken but the attempt it is charged with; O2 a
granted one was taken wholly while the generation stood still.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.decide import (
    FRAME_ROOM,
    abandon_entry,
    claim_entry,
    deny,
    find_entry,
    grant,
    ring_room,
)
from tripgate.gate.guards import attempts_reason, charge_attempt, charge_pace, pace_reason
from tripgate.gate.judge import (
    AMOUNT_MAX,
    blame,
    collared_price,
    levels_and_leases,
    read_mark,
    read_rate,
    size_reason,
    stop_reason,
    worth,
)
from tripgate.gate.reserve import grant_overshoot, reserve_nodes, unreserve_nodes
from tripgate.gate.section import enter, exits_unposted, leave
from tripgate.gate.tokens import next_token
from tripgate.gate.words import DENY, PENDING_MASK
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
    SUM,
)
from tripgate.units import LOTS_MAX

HEADER = CONTROL_HEADER.at
SPEC = INSTRUMENT.at
HELD = KEY.at
OWN = SLOT.at
TOTAL = SUM.at

CAS_TRIES = 10_000
"""Bound of every compare-and-swap loop; one try fails only because another process succeeded."""


@kernel("int64(int64, int64, int64)", inline=True)
def claim_side(context: int, lots: int, position: int) -> int:
    """Add an opening to the instrument's claim word; 0 or the reason why its side is taken.

    In hedge mode each side is a key of its own, so nothing can oppose.
    """
    key = atomics.peek(context + AT.key)
    if atomics.load(key + HELD.exit_claim) != 0:
        blame(context, atomics.peek(context + AT.node1), 0, abs(position), abs(lots))
        return DENY.EXIT_IN_PROGRESS
    if position == 0:
        pending = atomics.load(key + HELD.closable) & PENDING_MASK
        if pending:
            blame(context, atomics.peek(context + AT.node1), 0, pending, abs(lots))
            return DENY.EXIT_PENDING
    if atomics.load(key + HELD.side) != 0:
        return 0
    claim = atomics.peek(context + AT.claim)
    for _ in range(CAS_TRIES):
        old = atomics.load(claim)
        if (old > 0 and lots < 0) or (old < 0 and lots > 0):
            blame(context, atomics.peek(context + AT.node1), 0, old, lots)
            return DENY.OPPOSED_POSITION
        if abs(old + lots) > LOTS_MAX:
            blame(context, atomics.peek(context + AT.node1), LOTS_MAX, old, lots)
            return DENY.AMOUNT_OVERFLOW
        if atomics.compare_exchange(claim, old, old + lots) == old:
            return 0
    return DENY.FROZEN


@kernel("void(int64, int64)")
def _unclaim(context: int, lots: int) -> None:
    """Take an opening out of the claim word again."""
    if atomics.load(atomics.peek(context + AT.key) + HELD.side) == 0:
        atomics.fetch_add(atomics.peek(context + AT.claim), -lots)


@kernel("int64(int64, int64, int64, int64, int64)", inline=True)
def take(context: int, lots: int, price: int, stop: int, position: int) -> int:
    """Claim the side, reserve the nodes, test the generation again, charge the guards.

    Returns 0 with everything taken, or a reason with nothing taken.
    """
    if exits_unposted(context) != 0:
        blame(context, atomics.peek(context + AT.node4), 0, exits_unposted(context), 0)
        return DENY.FROZEN
    reason = claim_side(context, lots, position)
    if reason != 0:
        return reason
    amount = atomics.peek(context + IMAGE.notional)
    reason = reserve_nodes(context, amount, lots, 0)
    if reason != 0:
        _unclaim(context, lots)
        return reason
    header = atomics.peek(context + AT.header)
    if atomics.load(header + HEADER.generation) != atomics.peek(context + IMAGE.generation):
        blame(context, atomics.peek(context + AT.node4), 0, 0, 0)
        reason = DENY.TRIPPED
    elif atomics.load(header + HEADER.closed) != 0:
        blame(context, atomics.peek(context + AT.node4), 0, 0, 0)
        reason = DENY.PAGE_CLOSED
    else:
        reason = charge_pace(context, lots, price, stop)
    if reason != 0:
        side = TOTAL.long_worst if lots > 0 else TOTAL.short_worst
        unreserve_nodes(context, amount, side, NODES_PER_ORDER)
        _unclaim(context, lots)
    return reason


@kernel("int64(int64, int64, int64, int64)", inline=True)
def judge_opening(context: int, lots: int, price: int, stop: int) -> int:
    """Judge an opening by everything that only reads; 0 or a reason.

    Sets notional and margin, and leaves the price that binds the order in the image's price word.
    """
    if atomics.load(atomics.peek(context + AT.instrument) + SPEC.tradable) == 0:
        return DENY.NOT_TRADABLE
    reason = levels_and_leases(context)
    if reason != 0:
        return reason
    if read_mark(context) == 0:
        return DENY.MARK_STALE
    if read_rate(context) == 0:
        return DENY.QUOTE_STALE
    bound = collared_price(context, lots, price)
    if bound == 0:
        return DENY.PRICE_COLLAR
    atomics.poke(context + IMAGE.price, bound)
    reason = stop_reason(context, lots, bound, stop)
    if reason != 0:
        return reason
    notional = worth(context, lots, bound)
    if notional < 0:
        blame(context, atomics.peek(context + AT.node1), AMOUNT_MAX, 0, abs(lots))
        return DENY.AMOUNT_OVERFLOW
    atomics.poke(context + IMAGE.notional, notional)
    reason = size_reason(context, lots)
    return reason if reason != 0 else pace_reason(context, lots, bound, stop)


@kernel("int64(int64)", inline=True)
def _note_overshoot(context: int) -> int:
    """Keep the slot's largest overshoot; a limit cut since the grant is none of this grant's."""
    word = atomics.peek(context + AT.slot) + OWN.overshoot_max
    overshoot = grant_overshoot(context)
    if overshoot > atomics.load(word):
        header = atomics.peek(context + AT.header)
        if atomics.load(header + HEADER.generation) == atomics.peek(context + IMAGE.generation):
            atomics.store(word, overshoot)
    return 0


@kernel("int64(int64)", inline=True)
def find_place(context: int) -> int:
    """Return a free entry's address, or −reason if ring or entries are full."""
    if ring_room(context) < RING_EXIT_RESERVE + 2 * FRAME_ROOM:
        return -DENY.RING_FULL
    entry = find_entry(context, 0)
    if entry == 0:
        places = ENTRIES_PER_SLOT - CLOSING_ENTRIES
        blame(context, atomics.peek(context + AT.node0), places, places, 1)
        return -DENY.ENTRIES_FULL
    return entry


@kernel("int64(int64, int64, int64, int64, int64)")
def deny_opening(context: int, reason: int, lots: int, price: int, stop: int) -> int:
    """Deny an opening; the attempt counts against its own strategy alone."""
    if reason != DENY.ATTEMPT_RATE:
        charge_attempt(context)
    return deny(context, reason, lots, price, stop)


@kernel("int64(int64, int64, int64, int64, int64)", inline=True)
def open_order(context: int, lots: int, price: int, stop: int, position: int) -> int:
    """Judge, reserve and grant an opening; return a token or −reason."""
    entry = 0
    reason = attempts_reason(context)
    if reason == 0:
        reason = judge_opening(context, lots, price, stop)
    if reason == 0:
        entry = find_place(context)
        if entry < 0:
            reason = -entry
    if reason == 0:
        reason = enter(context)
        if reason != 0:
            blame(context, atomics.peek(context + AT.node4), 0, 0, 0)
    if reason != 0:
        return deny_opening(context, reason, lots, price, stop)
    bound = atomics.peek(context + IMAGE.price)
    sequence = next_token(context)
    claim_entry(entry, sequence, 0)
    reason = take(context, lots, bound, stop, position)
    if reason != 0:
        abandon_entry(entry, sequence)
        leave(context)
        return deny_opening(context, reason, lots, price, stop)
    _note_overshoot(context)
    atomics.poke(context + AT.scope, 0)
    atomics.poke(context + AT.reason, 0)
    token = grant(context, entry, lots, bound, stop, 0)
    leave(context)
    return token
