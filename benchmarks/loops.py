"""Compiled loops around the gate's kernels: what is timed, and what puts the page back.

A loop times a batch between two readings of the clock and leaves the reservations standing; they
are released outside the timed part, by the very kernels with which the keeper releases. So a
figure of the check holds the check alone, and still every order passes below its limits.
"""

from tripgate.gate.check import check_raw
from tripgate.gate.context import AT
from tripgate.gate.record import FLAG_CLOSING
from tripgate.gate.reserve import add_closable, shrink_entry
from tripgate.gate.words import FREE, RESERVED, STATE_MASK
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import CONTROL_HEADER, ENTRIES_PER_SLOT, ENTRY

HEADER = CONTROL_HEADER.at
ORDER = ENTRY.at
_ENTRY_BYTES = ENTRY.row_bytes
_FLAG_CLOSING = int(FLAG_CLOSING)
_SECOND_MS = 1_000

BATCH = 48
"""Orders per batch: below the entries that a slot has for openings."""


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def time_grants(context: int, lots: int, price: int, stop: int, count: int, scratch: int) -> int:
    """Return the ns that ``count`` approvals took, or −reason if one was denied.

    ``scratch`` is the address of two words of this process, for the clock.
    """
    least = 1 << 62
    began = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
    for _ in range(count):
        least = min(least, check_raw(context, lots, price, stop))
    spent = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch) - began
    return spent if least > 0 else least


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def time_denials(context: int, lots: int, price: int, stop: int, count: int, scratch: int) -> int:
    """Return the ns that ``count`` denials took, or −1 if one was approved."""
    most = -(1 << 62)
    began = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
    for _ in range(count):
        most = max(most, check_raw(context, lots, price, stop))
    spent = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch) - began
    return spent if most < 0 else -1


@kernel("int64(int64, int64, int64)")
def time_adds(word: int, count: int, scratch: int) -> int:
    """Return the ns that ``count`` uncontended atomic adds to ``word`` took.

    Their results are used (summed into the next word), as the gate uses them: an add whose result
    nobody reads compiles to a cheaper instruction.
    """
    total = 0
    began = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
    for _ in range(count):
        total += atomics.fetch_add(word, 1)
    spent = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch) - began
    atomics.store(word + 8, total)
    return spent


@kernel("int64(int64, int64, int64)")
def empty_call(first: int, second: int, third: int) -> int:
    """Do nothing: the price of crossing from Python into compiled code with three integers."""
    return first


@kernel("int64(int64)")
def release_all(context: int) -> int:
    """Release every reservation of the context's slot; return how many there were.

    Also turns the market's clock on by a second, so that the opening rate begins anew.
    """
    entries = atomics.load(context + AT.entries)
    key = atomics.load(context + AT.key)
    sums = atomics.load(context + AT.sums)
    released = 0
    for index in range(ENTRIES_PER_SLOT):
        entry = entries + index * _ENTRY_BYTES
        word = atomics.load(entry)
        if word & STATE_MASK == RESERVED:
            left = atomics.load(entry + ORDER.remaining)
            shrink_entry(entry, key, sums, 0)
            if atomics.load(entry + ORDER.flags) & _FLAG_CLOSING:
                add_closable(key, 0, -left)
            else:
                signed = left if atomics.load(entry + ORDER.lots) > 0 else -left
                atomics.fetch_add(atomics.load(context + AT.claim), -signed)
            atomics.store(entry, word - RESERVED + FREE)
            released += 1
    atomics.fetch_add(atomics.load(context + AT.header) + HEADER.market_ms, _SECOND_MS)
    return released


@kernel("int64(int64, int64, int64, int64, int64, int64, int64)")
def churn(
    context: int, lots: int, price: int, stop: int, batches: int, scratch: int, progress: int
) -> int:
    """Grant and release ``batches`` batches; return the ns of the grants, or −reason.

    Adds each batch to the word at ``progress``, where a neighbour sees how fast this one moves.
    """
    spent = 0
    for _ in range(batches):
        took = time_grants(context, lots, price, stop, BATCH, scratch)
        if took < 0:
            return took
        spent += took
        release_all(context)
        atomics.store(progress, atomics.load(progress) + BATCH)
    return spent
