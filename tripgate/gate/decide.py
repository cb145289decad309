"""Writing a decision down: the record, the entry that carries it, and the ring's copy.

An approval's record is embedded in its entry before the entry becomes RESERVED, and the ring's
copy follows; a denial's record goes to the ring alone. Either is written by the process that asked,
into memory that only it writes.

Equal denials that follow one another within a second of market time merge: the first has its
record, the others are counted in the slot and one DENIALS_MERGED record tells how many there were.
So a loop that asks for the same impossible thing at full speed costs nobody's ring or log.
"""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.guards import order_hash
from tripgate.gate.record import (
    FLAG_CLOSING,
    FLAGS_SHIFT,
    LEASE_ROLE_SHIFT,
    LEVEL_SHIFT,
    RECORD_BYTES,
    SCOPE_SHIFT,
)
from tripgate.gate.words import (
    DENY,
    FREE,
    RESERVED,
    RESERVING,
    STATE_BITS,
    STATE_MASK,
    entry_checksum,
)
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import (
    CLOSING_ENTRIES,
    ENTRIES_PER_SLOT,
    ENTRY,
    LINE_BYTES,
    RING_BYTES,
    RING_EXIT_RESERVE,
    SLOT,
)
from tripgate.page.ring import FRAME_BYTES, claim_frame, free_bytes, publish_frame

ORDER = ENTRY.at
OWN = SLOT.at

DECISION_KIND = 3
"""``messages.EventKind.DECISION``; a plain number, because kernels take no enums."""
MERGED_KIND = 6
"""``messages.EventKind.DENIALS_MERGED``."""
MERGED_WORDS = 5
"""Sequence of the first denial's record, how many more, first and last market ms, reason."""

RESERVATION_NS = 2_000_000_000
"""How long an entry stays RESERVED before the reaper may free it (OPERATIONS section 4)."""

MERGE_MS = 1_000
RING_MERGE_RESERVE = RING_EXIT_RESERVE // 2
"""Ring space that only granted closes may use: more than all of a slot's entries need."""
FRAME_ROOM = 2 * (FRAME_BYTES + RECORD_BYTES)
_ENTRY_BYTES = ENTRY.row_bytes
_AHEAD_BYTES = 320


@kernel("int64(int64)", inline=True)
def ring_room(context: int) -> int:
    """Return the free bytes of the asking process's ring."""
    slot = atomics.peek(context + AT.slot)
    return free_bytes(
        atomics.load(slot + OWN.ring_head),
        atomics.peek(context + AT.cursors),
        atomics.load(atomics.peek(context + AT.holder)),
    )


@kernel("void(int64)", inline=True)
def fetch_ahead(context: int) -> None:
    """Ask for the lines that an approval will write, so that they are here when it does."""
    slot = atomics.peek(context + AT.slot)
    frame = atomics.peek(context + AT.ring) + atomics.load(slot + OWN.ring_head) % RING_BYTES
    hint = atomics.load(slot + OWN.entry_hint) % ENTRIES_PER_SLOT
    entry = atomics.peek(context + AT.entries) + hint * _ENTRY_BYTES
    for line in range(0, _AHEAD_BYTES, LINE_BYTES):
        atomics.prefetch(frame + line)
    for line in range(0, _ENTRY_BYTES, LINE_BYTES):
        atomics.prefetch(entry + line)


@kernel("void(int64, int64, int64, int64)", inline=True)
def _seal(context: int, lots: int, price: int, stop: int) -> None:
    """Complete the decision record in the context."""
    outcome = atomics.peek(context + AT.reason)
    outcome |= atomics.peek(context + AT.flags) << FLAGS_SHIFT
    outcome |= atomics.peek(context + AT.level) << LEVEL_SHIFT
    outcome |= atomics.peek(context + AT.lease_role) << LEASE_ROLE_SHIFT
    outcome |= (atomics.peek(context + AT.scope) & 0x7FFF) << SCOPE_SHIFT
    if atomics.peek(context + AT.scope) < 0:
        outcome |= -1 << 63
    atomics.poke(context + IMAGE.outcome, outcome)
    atomics.poke(context + IMAGE.scope_ids, atomics.peek(context + AT.scope_ids))
    atomics.poke(context + IMAGE.lots, lots)
    atomics.poke(context + IMAGE.price, price)
    atomics.poke(context + IMAGE.stop, stop)


@kernel("int64(int64)", inline=True)
def _post(context: int) -> int:
    """Copy the sealed record into the own ring and return its sequence."""
    slot = atomics.peek(context + AT.slot)
    record = claim_frame(slot, atomics.peek(context + AT.ring), DECISION_KIND, RECORD_BYTES)
    atomics.copy_record(record, context + IMAGE.start)
    return publish_frame(
        slot,
        record,
        atomics.peek(context + IMAGE.host_ns),
        atomics.peek(context + IMAGE.t_signed_ms),
    )


@kernel("int64(int64, int64, int64)")
def flush_merged(slot: int, data: int, host_ns: int) -> int:
    """Post how many equal denials were merged in a slot, if any; return how many.

    Called by the slot's owner before its next record, and by the keeper for the dead.
    """
    merged = atomics.load(slot + OWN.merged_count)
    atomics.store(slot + OWN.merged_key, 0)
    if merged == 0:
        return 0
    last_ms = atomics.load(slot + OWN.merged_last_ms)
    reason = atomics.load(slot + OWN.merged_sequence) & 0xFF
    payload = claim_frame(slot, data, MERGED_KIND, 8 * MERGED_WORDS)
    atomics.store(payload, atomics.load(slot + OWN.merged_sequence) >> 8)
    atomics.store(payload + 8, merged)
    atomics.store(payload + 16, atomics.load(slot + OWN.merged_first_ms))
    atomics.store(payload + 24, last_ms)
    atomics.store(payload + 32, reason)
    # Published and zeroed in this order: a process killed between tells the number twice, which
    # the counters of the slot show, rather than never.
    publish_frame(slot, payload, host_ns, last_ms)
    atomics.store(slot + OWN.merged_count, 0)
    return merged


@kernel("int64(int64, int64, int64, int64, int64)", inline=True)
def _merge_key(context: int, reason: int, lots: int, price: int, stop: int) -> int:
    """Return what equal denials have in common, as one positive word."""
    scope = atomics.peek(context + AT.scope)
    place = (atomics.peek(context + AT.key_number) << 20) ^ ((scope + 512) << 8) ^ reason
    return (order_hash(lots, price, stop) << 31 ^ place) & 0x7FFFFFFFFFFFFFFF | 1


@kernel("int64(int64, int64)", inline=True)
def _merges(context: int, key: int) -> int:
    """Count a denial into the run of equal ones before it; 0 if it begins a new run."""
    slot = atomics.peek(context + AT.slot)
    if atomics.load(slot + OWN.merged_key) != key:
        return 0
    now_ms = atomics.peek(context + IMAGE.t_signed_ms)
    if abs(now_ms - atomics.load(slot + OWN.merged_first_ms)) >= MERGE_MS:
        return 0
    atomics.store(slot + OWN.merged_last_ms, now_ms)
    atomics.store(slot + OWN.merged_count, atomics.load(slot + OWN.merged_count) + 1)
    return 1


@kernel("int64(int64, int64, int64, int64, int64)")
def deny(context: int, reason: int, lots: int, price: int, stop: int) -> int:
    """Count and record a denial; return ``-reason``.

    A denial that the ring has no room for is counted under RING_FULL and answered so: an
    uncounted denial would be a hole in the record.
    """
    slot = atomics.peek(context + AT.slot)
    atomics.poke(context + AT.reason, reason)
    key = _merge_key(context, reason, lots, price, stop)
    if _merges(context, key) == 0:
        room = ring_room(context)
        closing = atomics.peek(context + AT.flags) & FLAG_CLOSING
        if closing and room < RING_MERGE_RESERVE:
            # The merge itself stands in the key; that it was asked for is counted all the same.
            pass
        elif closing == 0 and room < RING_EXIT_RESERVE + 2 * FRAME_ROOM:
            reason = DENY.RING_FULL
            atomics.poke(context + AT.reason, reason)
            atomics.poke(context + AT.scope, atomics.peek(context + AT.node0))
            atomics.poke(context + IMAGE.limit, RING_BYTES - RING_EXIT_RESERVE)
            atomics.poke(context + IMAGE.used, RING_BYTES - room)
            atomics.poke(context + IMAGE.requested, FRAME_ROOM)
        else:
            host_ns = atomics.peek(context + IMAGE.host_ns)
            flush_merged(slot, atomics.peek(context + AT.ring), host_ns)
            atomics.poke(context + IMAGE.token, 0)
            _seal(context, lots, price, stop)
            sequence = _post(context)
            atomics.store(slot + OWN.merged_sequence, sequence << 8 | reason)
            atomics.store(slot + OWN.merged_first_ms, atomics.peek(context + IMAGE.t_signed_ms))
            atomics.store(slot + OWN.merged_key, key)
    counter = slot + OWN.denied + 8 * reason
    atomics.store(counter, atomics.load(counter) + 1)
    return -reason


@kernel("int64(int64, int64)", inline=True)
def find_entry(context: int, closing: int) -> int:
    """Return the address of a free entry of the own slot, or 0 if there is none.

    Openings leave the last ``CLOSING_ENTRIES`` to closings.
    """
    slot = atomics.peek(context + AT.slot)
    entries = atomics.peek(context + AT.entries)
    count = ENTRIES_PER_SLOT if closing else ENTRIES_PER_SLOT - CLOSING_ENTRIES
    place = atomics.load(slot + OWN.entry_hint)
    for _ in range(count):
        if place >= count or place < 0:
            place = 0
        entry = entries + place * _ENTRY_BYTES
        place += 1
        if atomics.load(entry) & STATE_MASK == FREE:
            atomics.store(slot + OWN.entry_hint, place)
            return entry
    return 0


@kernel("void(int64, int64, int64)", inline=True)
def claim_entry(entry: int, sequence: int, mark: int) -> None:
    """Take a free entry for the token with ``sequence``: it becomes RESERVING.

    ``mark`` is 0, or UNPOSTED for an exit that is taken during a freeze.
    """
    atomics.store(entry, (sequence << STATE_BITS) | RESERVING | mark)


@kernel("void(int64, int64)", inline=True)
def abandon_entry(entry: int, sequence: int) -> None:
    """Give a RESERVING entry back: nothing was granted under it."""
    atomics.store(entry, (sequence << STATE_BITS) | FREE)


@kernel("void(int64, int64, int64, int64, int64)", inline=True)
def write_entry(context: int, entry: int, lots: int, price: int, stop: int) -> None:
    """Write everything that the router will build the order from."""
    amount = atomics.peek(context + IMAGE.notional)
    margin = atomics.peek(context + AT.margin)
    t_signed = atomics.peek(context + IMAGE.t_signed_ms)
    atomics.poke(entry + ORDER.token, atomics.peek(context + IMAGE.token))
    atomics.poke(entry + ORDER.strategy, atomics.peek(context + AT.strategy_number))
    atomics.poke(entry + ORDER.instrument, atomics.peek(context + AT.instrument_number))
    atomics.poke(entry + ORDER.key, atomics.peek(context + AT.key_number))
    atomics.poke(entry + ORDER.flags, atomics.peek(context + AT.flags))
    atomics.poke(entry + ORDER.lots, lots)
    atomics.poke(entry + ORDER.price, price)
    atomics.poke(entry + ORDER.stop, stop)
    atomics.poke(entry + ORDER.t_signed_ms, t_signed)
    atomics.poke(entry + ORDER.deadline_ns, atomics.peek(context + IMAGE.host_ns) + RESERVATION_NS)
    atomics.poke(entry + ORDER.reserved, amount)
    atomics.poke(entry + ORDER.charged, amount)
    atomics.poke(entry + ORDER.margin_reserved, margin)
    atomics.poke(entry + ORDER.margin_charged, margin)
    atomics.poke(entry + ORDER.remaining, abs(lots))
    atomics.poke(entry + ORDER.checksum, entry_checksum(entry))
    # Until the ring's copy is out the entry counts as not durable: zero is no sequence.
    atomics.poke(entry + ORDER.record_sequence, 0)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def grant(context: int, entry: int, lots: int, price: int, stop: int, mark: int) -> int:
    """Fill in the entry, embed the record, make it RESERVED, post the record; return the token."""
    slot = atomics.peek(context + AT.slot)
    token = atomics.peek(context + IMAGE.token)
    write_entry(context, entry, lots, price, stop)
    _seal(context, lots, price, stop)
    atomics.copy_record(entry + ORDER.record, context + IMAGE.start)
    sequence = token & ((1 << 40) - 1)
    atomics.store(entry, (sequence << STATE_BITS) | RESERVED | mark)
    if atomics.load(slot + OWN.merged_key) != 0:
        host_ns = atomics.peek(context + IMAGE.host_ns)
        flush_merged(slot, atomics.peek(context + AT.ring), host_ns)
    atomics.store(entry + ORDER.record_sequence, _post(context))
    atomics.store(slot + OWN.approved, atomics.load(slot + OWN.approved) + 1)
    return token
