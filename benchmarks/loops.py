"""Compiled loops around the gate's kernels: what is timed, and what puts the page back.

A loop times a batch between two readings of the clock and leaves the reservations standing; they
are released outside the timed part, by the very kernels with which the keeper releases. So a
figure of the check holds the check alone, and still every order passes below its limits.

Approved orders alternate between two sizes, because the gate's guard denies the same order twice.
"""

from tripgate.gate.check import check_raw
from tripgate.gate.context import AT
from tripgate.gate.record import FLAG_CLOSING
from tripgate.gate.reserve import SUM_ROW_BYTES, add_closable, shrink_entry
from tripgate.gate.words import DENY, FREE, RESERVED, STATE_MASK
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import (
    CONTROL_HEADER,
    ENTRIES_PER_SLOT,
    ENTRY,
    KEY,
    LIMIT,
    NODES_PER_ORDER,
    SUM,
)

HEADER = CONTROL_HEADER.at
ORDER = ENTRY.at
HELD = KEY.at
NODE = LIMIT.at
TOTAL = SUM.at
_ENTRY_BYTES = ENTRY.row_bytes
_LIMIT_BYTES = LIMIT.row_bytes
_FLAG_CLOSING = int(FLAG_CLOSING)
_SECOND_MS = 1_000

BATCH = 48
"""Orders per batch: even, and below the entries that a slot has for openings."""

GRANTED, REFUSED, STANDING, OVERSHOOT = 0, 8, 16, 24
"""Byte offsets of a tally: approvals, refusals by a limit, money granted, largest gross − limit."""
TALLY_WORDS = 4


@kernel("int64(int64, int64, int64, int64, int64, int64, int64, int64)")
def time_orders(
    context: int, other: int, lots: int, price: int, stop: int, wanted: int, scratch: int,
    samples: int,
) -> int:  # fmt: skip
    """Return the ns that one batch took, or −|answer| if one answer was not as wanted.

    Parameters
    ----------
    context, other
        The handles that ask by turns; the same one twice for a figure of one handle.
    wanted
        1: every order is approved, and its size alternates. −reason: every one is denied so.
    scratch
        Address of two words of this process, for the clock.
    samples
        Address of ``BATCH`` words for the ns of each order, the timer included; 0: only the sum.
    """
    unwanted = 0
    began = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
    last = began
    for index in range(BATCH):
        odd = index & 1
        answer = check_raw(
            other if odd else context, lots << odd if wanted > 0 else lots, price, stop
        )
        if answer <= 0 if wanted > 0 else answer != wanted:
            unwanted = answer
        if samples != 0:
            now = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
            atomics.store(samples + 8 * index, now - last)
            last = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
    spent = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch) - began
    return spent if unwanted == 0 else -abs(unwanted)


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


@kernel("int64(int64, int64, int64, int64)")
def sample_adds(word: int, count: int, scratch: int, samples: int) -> int:
    """Store at ``samples`` the ns of each of ``count`` atomic adds, the timer included.

    ``word`` 0 adds nothing: the distribution of the timer alone.
    """
    total = 0
    for index in range(count):
        began = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
        if word != 0:
            total += atomics.fetch_add(word, 1)
        now = atomics.read_clock(atomics.CLOCK_MONOTONIC, scratch)
        atomics.store(samples + 8 * index, now - began)
    return total


@kernel("int64(int64, int64, int64)")
def empty_call(first: int, second: int, third: int) -> int:
    """Do nothing: the price of crossing from Python into compiled code through the dispatcher."""
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
                atomics.store(key + HELD.resting, max(0, atomics.load(key + HELD.resting) - 1))
            else:
                signed = left if atomics.load(entry + ORDER.lots) > 0 else -left
                atomics.fetch_add(atomics.load(context + AT.claim), -signed)
            atomics.store(entry, word - RESERVED + FREE)
            released += 1
    atomics.fetch_add(atomics.load(context + AT.header) + HEADER.market_ms, _SECOND_MS)
    return released


@kernel("int64(int64, int64, int64, int64, int64, int64, int64, int64)")
def churn(
    context: int, lots: int, price: int, stop: int, batches: int, scratch: int, samples: int,
    progress: int,
) -> int:  # fmt: skip
    """Grant and release ``batches`` batches; return the ns of the grants, or −reason.

    Adds each batch to the word at ``progress``, where a neighbour sees how fast this one moves.
    ``samples`` has room for every order, or is 0.
    """
    spent = 0
    for batch in range(batches):
        place = samples + 8 * BATCH * batch if samples != 0 else 0
        took = time_orders(context, context, lots, price, stop, 1, scratch, place)
        if took < 0:
            return took
        spent += took
        release_all(context)
        atomics.store(progress, atomics.load(progress) + BATCH)
    return spent


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def fill(context: int, lots: int, price: int, stop: int, limits: int, tally: int) -> int:
    """Ask for a batch of openings where a limit binds; return 0 or a reason that is no limit.

    Adds to the tally what this process alone was granted, worth lots × price, and looks at every
    node after every answer: how far its gross is beyond its limit (negative: below). ``limits`` is
    the address of the table of limits.
    """
    key = atomics.load(context + AT.key)
    sums = atomics.load(context + AT.sums)
    for index in range(BATCH):
        asked = lots << (index & 1)
        # No two orders are equal, whichever of them are refused: the guard must not speak here.
        answer = check_raw(context, asked, price, stop - index)
        if answer > 0:
            atomics.store(tally + GRANTED, atomics.load(tally + GRANTED) + 1)
            atomics.store(tally + STANDING, atomics.load(tally + STANDING) + asked * price)
        elif answer == -DENY.GROSS_LIMIT or answer == -DENY.NET_LIMIT:
            atomics.store(tally + REFUSED, atomics.load(tally + REFUSED) + 1)
        else:
            return answer
        for place in range(NODES_PER_ORDER):
            node = atomics.load(key + HELD.node + 8 * place)
            gross = atomics.load(sums + node * SUM_ROW_BYTES + TOTAL.gross)
            limit = atomics.load(limits + node * _LIMIT_BYTES + NODE.gross_max)
            if gross - limit > atomics.load(tally + OVERSHOOT):
                atomics.store(tally + OVERSHOOT, gross - limit)
    return 0
