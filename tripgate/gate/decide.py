"""Writing a decision down: the record, the entry that carries it, and the ring's copy.

An approval's record is embedded in its entry before the entry becomes RESERVED, and the ring's
copy follows; a denial's record goes to the ring alone. Either is written by the process that asked,
into memory that only it writes.
"""

from tripgate.gate.context import AT
from tripgate.gate.record import GROSS_AT, RECORD_BYTES, WORD
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
    CONTROL_HEADER,
    ENTRIES_PER_SLOT,
    ENTRY,
    NODES_PER_ORDER,
    RING_BYTES,
    RING_EXIT_RESERVE,
    SLOT,
)
from tripgate.page.ring import FRAME_BYTES, claim_frame, free_bytes, publish_frame

HEADER = CONTROL_HEADER.at
ORDER = ENTRY.at
OWN = SLOT.at

DECISION_KIND = 3
"""``messages.EventKind.DECISION``; a plain number, because kernels take no enums."""

RESERVATION_NS = 2_000_000_000
"""How long an entry stays RESERVED before the reaper may free it (OPERATIONS section 4)."""

FRAME_ROOM = 2 * (FRAME_BYTES + RECORD_BYTES)
_ENTRY_BYTES = ENTRY.row_bytes

_W_GROSS = 8 * GROSS_AT
_W_SIDE = _W_GROSS + 8 * NODES_PER_ORDER


@kernel("int64(int64)")
def ring_room(context: int) -> int:
    """Return the free bytes of the asking process's ring."""
    slot = atomics.load(context + AT.slot)
    holder = atomics.load(context + AT.holder)
    return free_bytes(
        atomics.load(slot + OWN.ring_head),
        atomics.load(context + AT.cursors),
        atomics.load(holder),
    )


@kernel("void(int64, int64, int64, int64, int64)")
def write_record(context: int, record: int, lots: int, price: int, stop: int) -> None:
    """Write the 256 bytes of a decision from its context to address ``record``."""
    header = atomics.load(context + AT.header)
    outcome = atomics.load(context + AT.reason)
    outcome |= atomics.load(context + AT.flags) << 16
    outcome |= atomics.load(context + AT.level) << 32
    atomics.store(record + WORD.token, atomics.load(context + AT.token))
    atomics.store(record + WORD.outcome, outcome)
    instrument = atomics.load(context + AT.instrument_number)
    strategy = atomics.load(context + AT.strategy_number)
    atomics.store(record + WORD.scope_ids, strategy | (instrument << 32))
    atomics.store(record + WORD.lots, lots)
    atomics.store(record + WORD.price, price)
    atomics.store(record + WORD.stop, stop)
    atomics.store(record + WORD.t_signed_ms, atomics.load(context + AT.t_signed))
    atomics.store(record + WORD.host_ns, atomics.load(context + AT.now_ns))
    atomics.store(record + WORD.generation, atomics.load(context + AT.generation))
    epoch = atomics.load(context + AT.epoch)
    atomics.store(
        record + WORD.limits, atomics.load(header + HEADER.limits_version) | (epoch << 32)
    )
    atomics.store(record + WORD.lease_left_ns, atomics.load(context + AT.lease_left))
    atomics.store(record + WORD.lease_role, atomics.load(context + AT.lease_role))
    atomics.store(record + WORD.mark, atomics.load(context + AT.mark))
    atomics.store(record + WORD.mark_sequence, atomics.load(context + AT.mark_sequence))
    atomics.store(record + WORD.mark_ms, atomics.load(context + AT.mark_ms))
    atomics.store(record + WORD.scope, atomics.load(context + AT.scope))
    atomics.store(record + WORD.limit, atomics.load(context + AT.limit))
    atomics.store(record + WORD.used, atomics.load(context + AT.used))
    atomics.store(record + WORD.requested, atomics.load(context + AT.requested))
    atomics.store(record + WORD.throttle, atomics.load(context + AT.throttle_before))
    atomics.store(record + WORD.notional, atomics.load(context + AT.notional))
    atomics.store(record + WORD.position, atomics.load(context + AT.position_before))
    for index in range(NODES_PER_ORDER):
        gross = atomics.load(context + AT.gross0 + 8 * index)
        atomics.store(record + _W_GROSS + 8 * index, gross)
        side = atomics.load(context + AT.side0 + 8 * index)
        atomics.store(record + _W_SIDE + 8 * index, side)


@kernel("int64(int64, int64, int64, int64)")
def post_record(context: int, lots: int, price: int, stop: int) -> int:
    """Write the decision into the own ring and return the record's sequence."""
    slot = atomics.load(context + AT.slot)
    data = atomics.load(context + AT.ring)
    record = claim_frame(slot, data, DECISION_KIND, RECORD_BYTES)
    write_record(context, record, lots, price, stop)
    return publish_frame(
        slot,
        record,
        atomics.load(context + AT.now_ns),
        atomics.load(context + AT.t_signed),
    )


@kernel("int64(int64, int64, int64, int64, int64)")
def deny(context: int, reason: int, lots: int, price: int, stop: int) -> int:
    """Count and record a denial; return ``-reason``.

    A denial that the ring has no room for is counted under RING_FULL and answered so: an
    uncounted denial would be a hole in the record.
    """
    room = ring_room(context)
    if room < RING_EXIT_RESERVE + FRAME_ROOM:
        reason = DENY.RING_FULL
        atomics.store(context + AT.scope, atomics.load(context + AT.node0))
        atomics.store(context + AT.limit, RING_BYTES - RING_EXIT_RESERVE)
        atomics.store(context + AT.used, RING_BYTES - room)
        atomics.store(context + AT.requested, FRAME_ROOM)
        atomics.store(context + AT.reason, reason)
    else:
        atomics.store(context + AT.reason, reason)
        atomics.store(context + AT.token, 0)
        post_record(context, lots, price, stop)
    counter = atomics.load(context + AT.slot) + OWN.denied + 8 * reason
    atomics.store(counter, atomics.load(counter) + 1)
    return -reason


@kernel("int64(int64, int64)")
def find_entry(context: int, closing: int) -> int:
    """Return the address of a free entry of the own slot, or 0 if there is none.

    Openings leave the last ``CLOSING_ENTRIES`` to closings.
    """
    slot = atomics.load(context + AT.slot)
    entries = atomics.load(context + AT.entries)
    count = ENTRIES_PER_SLOT if closing else ENTRIES_PER_SLOT - CLOSING_ENTRIES
    hint = atomics.load(slot + OWN.entry_hint)
    for index in range(count):
        place = (hint + index) % count
        entry = entries + place * _ENTRY_BYTES
        if atomics.load(entry) & STATE_MASK == FREE:
            atomics.store(slot + OWN.entry_hint, place + 1)
            return entry
    return 0


@kernel("void(int64, int64)")
def claim_entry(entry: int, sequence: int) -> None:
    """Take a free entry for the token with ``sequence``: it becomes RESERVING."""
    atomics.store(entry, (sequence << STATE_BITS) | RESERVING)


@kernel("void(int64, int64)")
def abandon_entry(entry: int, sequence: int) -> None:
    """Give a RESERVING entry back: nothing was granted under it."""
    atomics.store(entry, (sequence << STATE_BITS) | FREE)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def grant(context: int, entry: int, sequence: int, lots: int, price: int, stop: int) -> int:
    """Fill in the entry, embed the record, make it RESERVED, post the record; return the token."""
    token = atomics.load(context + AT.token)
    amount = atomics.load(context + AT.notional)
    atomics.store(context + AT.reason, 0)
    atomics.store(entry + ORDER.token, token)
    atomics.store(entry + ORDER.strategy, atomics.load(context + AT.strategy_number))
    atomics.store(entry + ORDER.instrument, atomics.load(context + AT.instrument_number))
    atomics.store(entry + ORDER.key, atomics.load(context + AT.key_number))
    atomics.store(entry + ORDER.flags, atomics.load(context + AT.flags))
    atomics.store(entry + ORDER.lots, lots)
    atomics.store(entry + ORDER.price, price)
    atomics.store(entry + ORDER.stop, stop)
    atomics.store(entry + ORDER.t_signed_ms, atomics.load(context + AT.t_signed))
    deadline = atomics.load(context + AT.now_ns) + RESERVATION_NS
    atomics.store(entry + ORDER.deadline_ns, deadline)
    atomics.store(entry + ORDER.reserved, amount)
    atomics.store(entry + ORDER.charged, amount)
    atomics.store(entry + ORDER.remaining, abs(lots))
    atomics.store(entry + ORDER.checksum, entry_checksum(entry))
    # Until the ring's copy is out the entry counts as not durable: zero is no sequence.
    atomics.store(entry + ORDER.record_sequence, 0)
    write_record(context, entry + ORDER.record, lots, price, stop)
    atomics.store(entry, (sequence << STATE_BITS) | RESERVED)
    atomics.store(entry + ORDER.record_sequence, post_record(context, lots, price, stop))
    slot = atomics.load(context + AT.slot)
    atomics.store(slot + OWN.approved, atomics.load(slot + OWN.approved) + 1)
    return token
