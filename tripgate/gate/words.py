"""Packed words of the gate and the kernels that build them: tokens, entry words, closable words.

Token = epoch 15 bits, slot 8, sequence 40: positive in 63 bits. An entry word is the token's
sequence over the entry's state, so that one compare-and-swap checks both and a stale token can
never send another order. A closable word is position lots (signed, high half) over pending-close
lots (low half).
"""

from typing import Any

from tripgate.machines.reservation import EntryState
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import ENTRY, LEVEL_WRITERS, offsets_tuple
from tripgate.reasons import DenyReason

ORDER = ENTRY.at

SEQUENCE_BITS = 40
SLOT_BITS = 8
EPOCH_MAX = 2**15 - 1
STATE_BITS = 8
STATE_MASK = 2**7 - 1
UNPOSTED = 2**7
"""Bit of an entry word: an exit taken during a freeze, which no node's sum holds yet."""
PENDING_MASK = 2**32 - 1

FREE = int(EntryState.FREE)
RESERVING = int(EntryState.RESERVING)
RESERVED = int(EntryState.RESERVED)
COMMITTED = int(EntryState.COMMITTED)
RELEASING = int(EntryState.RELEASING)
UNSENT = int(EntryState.UNSENT)

_WEIGHT, _WEIGHT_STEP = 0x9E3779B97F4A7C1, 0x2545F4914F6CDD2
"""First weight of the checksum (odd) and its step (even, so that every weight is odd)."""

DENY: Any = offsets_tuple({reason.name: int(reason) for reason in DenyReason})
"""Codes of ``DenyReason`` as plain ints: what compiled kernels can read."""


@kernel("int64(int64, int64, int64)", inline=True, from_python=True)
def make_token(epoch: int, slot: int, sequence: int) -> int:
    """Return the token of a slot's sequence number in an epoch."""
    return (epoch << 48) | (slot << 40) | sequence


@kernel("int64(int64)")
def level_of(word: int) -> int:
    """Return the level of a level word: the maximum of its bytes."""
    level = 0
    if word != 0:
        for writer in range(LEVEL_WRITERS):
            level = max(level, (word >> (8 * writer)) & 0xFF)
    return level


@kernel("int64(int64)", inline=True, from_python=True)
def entry_checksum(entry: int) -> int:
    """Return the checksum of an entry's fixed words: what the router builds the order from.

    Each word is folded and weighted by an odd number of its own place: the products do not wait
    for one another, and two words that changed places are noticed.
    """
    total, weight = 0, _WEIGHT
    for offset in range(ORDER.token, ORDER.reserved + 8, 8):
        word = atomics.load(entry + offset)
        total = atomics.wrap64(total + (word ^ (word >> 29)) * weight)
        weight += _WEIGHT_STEP
    return total


def token_slot(token: int) -> int:
    """Return the slot of a token."""
    return (token >> SEQUENCE_BITS) & (2**SLOT_BITS - 1)


def token_sequence(token: int) -> int:
    """Return the sequence of a token."""
    return token & (2**SEQUENCE_BITS - 1)


def token_epoch(token: int) -> int:
    """Return the epoch of a token."""
    return token >> (SEQUENCE_BITS + SLOT_BITS)


def entry_word(token: int, state: int) -> int:
    """Return the entry word of a token in a state."""
    return (token_sequence(token) << STATE_BITS) | state


def closable_parts(word: int) -> tuple[int, int]:
    """Return (signed position lots, pending-close lots) of a closable word."""
    return word >> 32, word & PENDING_MASK
