"""Reservation: the sums of the five nodes, taken narrow to wide and given back in reverse.

All by compare-and-swap: a fetch-and-add would overshoot for a moment and deny a rightful order
near the limit. Fills and marks move the words in the order that only ever overstates, so that a
process killed between two moves leaves a sum too high, never too low.

Invariants: G1 a successful ``reserve_nodes`` leaves every node's gross and side word at or below
its limit as read in the same call; G2 a refused one leaves every word as it was, up to moves of
others; G3 position + entries are never understated in a node's sums.
"""

from tripgate.gate.context import AT
from tripgate.gate.words import DENY
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import ENTRY, KEY, LIMIT, NODES_PER_ORDER, SUM

ORDER = ENTRY.at
HELD = KEY.at
NODE = LIMIT.at
TOTAL = SUM.at

CAS_TRIES = 10_000
"""Bound of every compare-and-swap loop; one try fails only because another process succeeded."""

_CLOSING_FLAGS = 1 | 4 | 8
SUM_ROW_BYTES = SUM.row_bytes


@kernel("int64(int64, int64, int64, int64)")
def add_within(word: int, amount: int, limit: int, before: int) -> int:
    """Add to a word by CAS if the result stays within ``limit``.

    Stores what stood there at ``before``; returns 0 (added), 1 (over the limit) or 2 (too busy).
    """
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        atomics.store(before, old)
        if old + amount > limit:
            return 1
        if atomics.compare_exchange(word, old, old + amount) == old:
            return 0
    return 2


@kernel("void(int64, int64, int64, int64)")
def unreserve_nodes(context: int, amount: int, side: int, count: int) -> None:
    """Give back the first ``count`` nodes of a reservation, wide to narrow, side before gross."""
    for index in range(count - 1, -1, -1):
        node = atomics.load(context + AT.sum0 + 8 * index)
        atomics.fetch_add(node + side, -amount)
        atomics.fetch_add(node + TOTAL.gross, -amount)


@kernel("int64(int64, int64, int64)")
def reserve_nodes(context: int, amount: int, lots: int) -> int:
    """Reserve ``amount`` (money) at the five nodes of a handle; return 0 or a deny reason.

    On refusal nothing stays reserved, and the context's result words name scope and numbers.
    """
    side = TOTAL.long_worst if lots > 0 else TOTAL.short_worst
    for index in range(NODES_PER_ORDER):
        node = atomics.load(context + AT.sum0 + 8 * index)
        limits = atomics.load(context + AT.limit0 + 8 * index)
        reason = DENY.GROSS_LIMIT
        limit = atomics.load(limits + NODE.gross_max)
        before = context + AT.gross0 + 8 * index
        outcome = add_within(node + TOTAL.gross, amount, limit, before)
        if outcome == 0:
            reason = DENY.NET_LIMIT
            limit = atomics.load(limits + NODE.net_max)
            before = context + AT.side0 + 8 * index
            outcome = add_within(node + side, amount, limit, before)
            if outcome == 0:
                continue
            atomics.fetch_add(node + TOTAL.gross, -amount)
        unreserve_nodes(context, amount, side, index)
        atomics.store(context + AT.scope, atomics.load(context + AT.node0 + 8 * index))
        atomics.store(context + AT.limit, limit)
        atomics.store(context + AT.used, atomics.load(before))
        atomics.store(context + AT.requested, amount)
        return DENY.FROZEN if outcome == 2 else reason
    return 0


@kernel("int64(int64)")
def grant_overshoot(context: int) -> int:
    """Return the largest (total − limit) over the nodes of the grant just reserved (money).

    Read again from the nodes' limits right after the grant; never positive if G1 holds.
    """
    worst = -(1 << 62)
    amount = atomics.load(context + AT.notional)
    for index in range(NODES_PER_ORDER):
        limits = atomics.load(context + AT.limit0 + 8 * index)
        gross = atomics.load(context + AT.gross0 + 8 * index) + amount
        worst = max(worst, gross - atomics.load(limits + NODE.gross_max))
        side = atomics.load(context + AT.side0 + 8 * index) + amount
        worst = max(worst, side - atomics.load(limits + NODE.net_max))
    return worst


@kernel("void(int64, int64, int64, int64)")
def add_to_key_nodes(key: int, sums: int, word: int, amount: int) -> None:
    """Add ``amount`` to one word (by byte offset) at the five nodes of a closable key."""
    for index in range(NODES_PER_ORDER):
        node = atomics.load(key + HELD.node + 8 * index)
        atomics.fetch_add(sums + node * SUM_ROW_BYTES + word, amount)


@kernel("void(int64, int64, int64, int64)")
def charge_side(key: int, sums: int, lots: int, amount: int) -> None:
    """Add an open close's worth to its side's word, without comparing with a limit."""
    add_to_key_nodes(key, sums, TOTAL.long_worst if lots > 0 else TOTAL.short_worst, amount)


@kernel("void(int64, int64, int64)")
def move_position_up(key: int, sums: int, charged_after: int) -> None:
    """Raise the words that a position's new worth raises (first half of a move)."""
    before = atomics.load(key + HELD.charged)
    gross, net = abs(charged_after) - abs(before), charged_after - before
    if gross > 0:
        add_to_key_nodes(key, sums, TOTAL.gross, gross)
    if net > 0:
        add_to_key_nodes(key, sums, TOTAL.long_worst, net)
    elif net < 0:
        add_to_key_nodes(key, sums, TOTAL.short_worst, -net)


@kernel("void(int64, int64, int64)")
def move_position_down(key: int, sums: int, charged_after: int) -> None:
    """Lower the words that a position's new worth lowers, and record the worth as charged."""
    before = atomics.load(key + HELD.charged)
    gross, net = abs(charged_after) - abs(before), charged_after - before
    if gross < 0:
        add_to_key_nodes(key, sums, TOTAL.gross, gross)
    if net > 0:
        add_to_key_nodes(key, sums, TOTAL.short_worst, -net)
    elif net < 0:
        add_to_key_nodes(key, sums, TOTAL.long_worst, net)
    atomics.store(key + HELD.charged, charged_after)


@kernel("void(int64, int64, int64)")
def mark_position(key: int, sums: int, charged_after: int) -> None:
    """Re-mark a position: its worth in the nodes becomes ``charged_after`` (signed money)."""
    move_position_up(key, sums, charged_after)
    move_position_down(key, sums, charged_after)


@kernel("int64(int64, int64)")
def remaining_charge(entry: int, remaining: int) -> int:
    """Return ceil(reserved × remaining / lots): what a partly filled entry keeps (money)."""
    lots = abs(atomics.load(entry + ORDER.lots))
    reserved = atomics.load(entry + ORDER.reserved)
    whole, rest = reserved // lots, reserved % lots
    return whole * remaining + (rest * remaining + lots - 1) // lots


@kernel("void(int64, int64, int64, int64)")
def shrink_entry(entry: int, key: int, sums: int, remaining: int) -> None:
    """Lower an entry to ``remaining`` lots and release exactly that part of its charge."""
    lots = atomics.load(entry + ORDER.lots)
    charged = atomics.load(entry + ORDER.charged)
    kept = min(charged, remaining_charge(entry, remaining))
    atomics.store(entry + ORDER.charged, kept)
    atomics.store(entry + ORDER.remaining, remaining)
    side = TOTAL.long_worst if lots > 0 else TOTAL.short_worst
    add_to_key_nodes(key, sums, side, kept - charged)
    if atomics.load(entry + ORDER.flags) & _CLOSING_FLAGS == 0:
        add_to_key_nodes(key, sums, TOTAL.gross, kept - charged)


@kernel("int64(int64, int64, int64)")
def add_closable(key: int, position: int, pending: int) -> int:
    """Change both halves of a closable word at once (deltas in lots; position signed).

    The halves are unpacked and packed again: a borrow must not run from one into the other.
    Returns 1 if it was done, 0 if the word was too busy.
    """
    for _ in range(CAS_TRIES):
        old = atomics.load(key + HELD.closable)
        held = max(0, (old & 0xFFFFFFFF) + pending)
        new = (((old >> 32) + position) << 32) | held
        if atomics.compare_exchange(key + HELD.closable, old, new) == old:
            return 1
    return 0
