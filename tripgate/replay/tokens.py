"""A token's parts as docs/gate.md gives them: epoch 15 bits, slot 8, sequence 40.

Of its own, because the gate's twin lives beside kernels that take seconds to load.
"""

SEQUENCE_BITS = 40
SLOT_BITS = 8


def token_sequence(token: int) -> int:
    """Return the number of the order within its slot and epoch."""
    return token & (1 << SEQUENCE_BITS) - 1


def token_slot(token: int) -> int:
    """Return the slot it was granted in."""
    return token >> SEQUENCE_BITS & (1 << SLOT_BITS) - 1


def token_epoch(token: int) -> int:
    """Return the run it was granted in."""
    return token >> SEQUENCE_BITS + SLOT_BITS
