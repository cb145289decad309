"""Reservation: the sums of the five nodes, taken narrow to wide and given back in reverse.

All by compare-and-swap: a fetch-and-add would overshoot for a moment and deny a rightful order
near the limit. Fills and marks move the words in the order that only ever overstates, so that a
process killed between two moves leaves a sum too high, never too low.

The venue's node also carries initial margin: each instrument's rate is one constant, that of the
bracket which covers its gross limit, so that margin is a sum that can be reserved exactly.

Invariants: G1 a successful ``reserve_nodes`` leaves every node's gross and side word at or below
its limit as read in the same call; G2 a refused one leaves every word as it was, up to moves of
others; G3 position + entries are never understated in a node's sums.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.judge import share_up
from tripgate.gate.words import DENY, UNPOSTED
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import ENTRY, KEY, LIMIT, NODES_PER_ORDER, SUM
from tripgate.units import INT_MAX

ORDER = ENTRY.at
HELD = KEY.at
NODE = LIMIT.at
TOTAL = SUM.at

CAS_TRIES = 10_000
"""Bound of every compare-and-swap loop; one try fails only because another process succeeded."""

_CLOSING_FLAGS = 1 | 4 | 8
SUM_ROW_BYTES = SUM.row_bytes
VENUE_NODE = 3
"""Place of the venue among an order's five nodes: margin is counted there alone."""


@kernel("int64(int64, int64)", inline=True)
def margin_of(amount: int, ppm: int) -> int:
    """Return the initial margin of a worth (money units, rounded up) at a rate in ppm."""
    return share_up(amount, ppm)


@kernel("int64(int64, int64, int64, int64)", inline=True)
def add_within(word: int, amount: int, limit: int, before: int) -> int:
    """Add to a word by CAS if the result stays within ``limit``.

    Stores what stood there at ``before`` (own memory); returns 0 (added), 1 (over the limit) or
    2 (too busy). The limit less the amount is in range whatever stands in the word.
    """
    most = limit - amount
    for _ in range(CAS_TRIES):
        old = atomics.load(word)
        atomics.poke(before, old)
        if old > most:
            return 1
        if atomics.compare_exchange(word, old, old + amount) == old:
            return 0
    return 2


@kernel("void(int64, int64, int64, int64)")
def unreserve_nodes(context: int, amount: int, side: int, count: int) -> None:
    """Give back the first ``count`` nodes of a reservation, wide to narrow, side before gross.

    All five were taken with the venue's margin last, so giving all back begins with it.
    """
    if count == NODES_PER_ORDER:
        margin = atomics.peek(context + AT.margin)
        if margin:
            atomics.fetch_add(atomics.peek(context + AT.sum3) + TOTAL.margin, -margin)
    for index in range(count - 1, -1, -1):
        node = atomics.peek(context + AT.sum0 + 8 * index)
        atomics.fetch_add(node + side, -amount)
        atomics.fetch_add(node + TOTAL.gross, -amount)


@kernel("int64(int64, int64, int64, int64)")
def _refuse(context: int, reason: int, node: int, amount: int) -> int:
    """Name the node that refused; the numbers stand in ``used`` and ``limit`` already."""
    atomics.poke(context + AT.scope, node)
    atomics.poke(context + IMAGE.requested, amount)
    return reason


@kernel("int64(int64, int64, int64, int64)", inline=True)
def _reserve_margin(context: int, amount: int, side: int, lifted: int) -> int:
    """Reserve the order's initial margin at its venue, or give all five nodes back."""
    margin = atomics.peek(context + AT.margin)
    if margin == 0:
        return 0
    limit = atomics.load(atomics.peek(context + AT.limits3) + NODE.margin_max)
    limit = INT_MAX if lifted else limit
    word = atomics.peek(context + AT.sum3) + TOTAL.margin
    outcome = add_within(word, margin, limit, context + IMAGE.margin)
    if outcome == 0:
        if lifted == 0:
            # The keeper moves this limit with every mark: only the record can tell what it was.
            atomics.poke(context + IMAGE.limit, limit)
        return 0
    # The five nodes alone are given back: the margin was not taken.
    atomics.poke(context + AT.margin, 0)
    unreserve_nodes(context, amount, side, NODES_PER_ORDER)
    atomics.poke(context + AT.margin, margin)
    atomics.poke(context + IMAGE.limit, limit)
    atomics.poke(context + IMAGE.used, atomics.peek(context + IMAGE.margin))
    reason = DENY.FROZEN if outcome == 2 else DENY.MARGIN
    return _refuse(context, reason, atomics.peek(context + AT.node3), margin)


@kernel("int64(int64, int64, int64, int64)")
def reserve_nodes(context: int, amount: int, lots: int, lifted: int) -> int:
    """Reserve ``amount`` (money) at the five nodes and the venue's margin; 0 or a deny reason.

    On refusal nothing stays reserved, and the context's result words name scope and numbers.

    Parameters
    ----------
    lifted
        1 on a shadow page, which reserves whatever its limits say; else 0.
    """
    side = TOTAL.long_worst if lots > 0 else TOTAL.short_worst
    for index in range(NODES_PER_ORDER):
        node = atomics.peek(context + AT.sum0 + 8 * index)
        limits = atomics.peek(context + AT.limits0 + 8 * index)
        reason = DENY.GROSS_LIMIT
        limit = INT_MAX if lifted else atomics.load(limits + NODE.gross_max)
        before = context + IMAGE.gross + 8 * index
        outcome = add_within(node + TOTAL.gross, amount, limit, before)
        if outcome == 0:
            reason = DENY.NET_LIMIT
            limit = INT_MAX if lifted else atomics.load(limits + NODE.net_max)
            before = context + IMAGE.side + 8 * index
            outcome = add_within(node + side, amount, limit, before)
            if outcome == 0:
                continue
            atomics.fetch_add(node + TOTAL.gross, -amount)
        unreserve_nodes(context, amount, side, index)
        atomics.poke(context + IMAGE.limit, limit)
        atomics.poke(context + IMAGE.used, atomics.peek(before))
        reason = DENY.FROZEN if outcome == 2 else reason
        return _refuse(context, reason, atomics.peek(context + AT.node0 + 8 * index), amount)
    return _reserve_margin(context, amount, side, lifted)


@kernel("int64(int64)", inline=True)
def grant_overshoot(context: int) -> int:
    """Return the largest (total − limit) over the nodes of the grant just reserved (money).

    Read again from the nodes' limits right after the grant; never positive if G1 holds.
    """
    worst = -(1 << 62)
    amount = atomics.peek(context + IMAGE.notional)
    for index in range(NODES_PER_ORDER):
        limits = atomics.peek(context + AT.limits0 + 8 * index)
        gross = atomics.peek(context + IMAGE.gross + 8 * index) + amount
        worst = max(worst, gross - atomics.load(limits + NODE.gross_max))
        side = atomics.peek(context + IMAGE.side + 8 * index) + amount
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
def _move_margin(key: int, sums: int, amount: int) -> None:
    """Add to the margin committed at a key's venue."""
    if amount != 0:
        node = atomics.load(key + HELD.node + 8 * VENUE_NODE)
        atomics.fetch_add(sums + node * SUM_ROW_BYTES + TOTAL.margin, amount)


@kernel("int64(int64, int64)")
def _margin_change(key: int, charged_after: int) -> int:
    """Return by how much a position's margin changes when its worth becomes ``charged_after``."""
    after = margin_of(abs(charged_after), atomics.load(key + HELD.margin_ppm))
    return after - atomics.load(key + HELD.margin_charged)


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
    _move_margin(key, sums, max(0, _margin_change(key, charged_after)))


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
    change = _margin_change(key, charged_after)
    _move_margin(key, sums, min(0, change))
    atomics.store(key + HELD.margin_charged, atomics.load(key + HELD.margin_charged) + change)
    atomics.store(key + HELD.charged, charged_after)


@kernel("void(int64, int64, int64)")
def mark_position(key: int, sums: int, charged_after: int) -> None:
    """Re-mark a position: its worth in the nodes becomes ``charged_after`` (signed money)."""
    move_position_up(key, sums, charged_after)
    move_position_down(key, sums, charged_after)


@kernel("int64(int64, int64, int64)")
def part_up(amount: int, remaining: int, lots: int) -> int:
    """Return ceil(amount × remaining / lots); dividing first keeps the product in range."""
    return amount // lots * remaining + (amount % lots * remaining + lots - 1) // lots


@kernel("int64(int64, int64)")
def remaining_charge(entry: int, remaining: int) -> int:
    """Return ceil(reserved × remaining / lots): what a partly filled entry keeps (money)."""
    lots = abs(atomics.load(entry + ORDER.lots))
    return part_up(atomics.load(entry + ORDER.reserved), remaining, lots)


@kernel("int64(int64, int64)")
def remaining_margin(entry: int, remaining: int) -> int:
    """Return what of its margin a partly filled entry keeps (money)."""
    lots = abs(atomics.load(entry + ORDER.lots))
    return part_up(atomics.load(entry + ORDER.margin_reserved), remaining, lots)


@kernel("void(int64, int64, int64, int64)")
def shrink_entry(entry: int, key: int, sums: int, remaining: int) -> None:
    """Lower an entry to ``remaining`` lots and release exactly that part of its charge.

    An unposted exit is charged to no node yet: only the entry itself changes.
    """
    lots = atomics.load(entry + ORDER.lots)
    charged = atomics.load(entry + ORDER.charged)
    kept = min(charged, remaining_charge(entry, remaining))
    margin = atomics.load(entry + ORDER.margin_charged)
    margin_kept = min(margin, remaining_margin(entry, remaining))
    atomics.store(entry + ORDER.charged, kept)
    atomics.store(entry + ORDER.margin_charged, margin_kept)
    atomics.store(entry + ORDER.remaining, remaining)
    if atomics.load(entry) & UNPOSTED:
        return
    _move_margin(key, sums, margin_kept - margin)
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
