"""Taking the next token of a slot: only its owner does, and no token is ever used twice."""

from tripgate.gate.context import AT, IMAGE
from tripgate.gate.words import SEQUENCE_BITS, make_token
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import SLOT

OWN = SLOT.at


@kernel("int64(int64)", inline=True)
def next_token(context: int) -> int:
    """Take the slot's next token into the context; return its sequence."""
    slot = atomics.peek(context + AT.slot)
    sequence = atomics.load(slot + OWN.token_sequence) + 1
    atomics.store(slot + OWN.token_sequence, sequence)
    epoch = atomics.peek(context + AT.epoch)
    number = atomics.peek(context + AT.slot_number)
    atomics.poke(context + IMAGE.token, make_token(epoch, number, sequence))
    return sequence & ((1 << SEQUENCE_BITS) - 1)
