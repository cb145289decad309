"""Sections: how a process changes shared words so that a repair can wait for it or undo it.

The own counter is odd while the process is inside. Entering is an atomic add (a full barrier)
followed by a look at the freeze word: a repairer that has set the word then either sees the odd
counter, or the process sees the word and backs out. Leaving is a plain release store, because only
the owner writes its counter.

An exit never waits for a freeze. It first counts itself as *unposted*, looks again, and if the
freeze stands goes on outside every section: it takes its hold on the closable word and an entry
marked UNPOSTED, which no node's sum holds until the keeper posts it. Openings are denied while any
exit is unposted, so what no sum holds can make room for nobody. All of that happens with a second
counter of the slot odd, the unposted count included: so a repairer that sees every such counter
even knows that the count must equal the entries, whoever has died or stopped meanwhile.
"""

from tripgate.gate.context import AT
from tripgate.gate.words import DENY
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import CONTROL_HEADER, COUNTERS_HEADER, SLOT

HEADER = CONTROL_HEADER.at
COUNTERS = COUNTERS_HEADER.at
OWN = SLOT.at

FREEZE_TRIES = 1_000
"""How often an exit looks at a freeze word that comes and goes before it goes on unposted."""


@kernel("void(int64)", inline=True)
def leave(context: int) -> None:
    """End a section."""
    section = atomics.peek(context + AT.slot) + OWN.section
    atomics.store(section, atomics.load(section) + 1)


@kernel("int64(int64)", inline=True)
def enter(context: int) -> int:
    """Begin a section; return 0, or leave it again and return FROZEN while a repair runs."""
    atomics.fetch_add(atomics.peek(context + AT.slot) + OWN.section, 1)
    if atomics.load(atomics.peek(context + AT.header) + HEADER.freeze) == 0:
        return 0
    leave(context)
    return DENY.FROZEN


@kernel("int64(int64)", inline=True)
def exits_unposted(context: int) -> int:
    """Return how many exits no node's sum holds yet."""
    return atomics.load(atomics.peek(context + AT.counters) + COUNTERS.unposted)


@kernel("int64(int64)")
def enter_exit(context: int) -> int:
    """Begin an exit's section: 0 in the ordinary way, 1 if it must go on unposted."""
    unposted = atomics.peek(context + AT.counters) + COUNTERS.unposted
    exit_section = atomics.peek(context + AT.slot) + OWN.exit_section
    for _ in range(FREEZE_TRIES):
        if enter(context) == 0:
            return 0
        atomics.fetch_add(exit_section, 1)
        atomics.fetch_add(unposted, 1)
        if atomics.load(atomics.peek(context + AT.header) + HEADER.freeze) != 0:
            return 1
        atomics.fetch_add(unposted, -1)
        atomics.fetch_add(exit_section, 1)
    atomics.fetch_add(exit_section, 1)
    atomics.fetch_add(unposted, 1)
    return 1


@kernel("void(int64, int64, int64)")
def leave_exit(context: int, unposted: int, granted: int) -> None:
    """End an exit's section; a refused one is not counted as unposted any more."""
    if unposted == 0:
        leave(context)
        return
    if granted == 0:
        atomics.fetch_add(atomics.peek(context + AT.counters) + COUNTERS.unposted, -1)
    atomics.fetch_add(atomics.peek(context + AT.slot) + OWN.exit_section, 1)
