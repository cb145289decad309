"""Level words: how tight each node is, and the trip that makes a tightening take effect.

A node's level word has one byte per writer, stored by that writer alone; the node's level is the
largest of them, so nobody can loosen what another has tightened. Every tightening (level, factor,
limit) stores first and then adds 1 to the trip generation by an atomic add. The check reads the
generation first and last: once ``bump_generation`` returns, no grant can appear that has not seen
the tighter words.
"""

from enum import IntEnum

from tripgate.errors import InvariantBroken
from tripgate.page.layout import CONTROL_HEADER, LEVEL_WRITERS, LIMIT
from tripgate.page.mapping import Page
from tripgate.reasons import Level

FACTOR_ONE = 1_000_000
SWAP_TRIES = 10_000
"""A swap fails only because another process has stored: its value is looked at again."""


class LevelWriter(IntEnum):
    """Who owns which byte of a level word."""

    BREAKER = 0
    SUPERVISOR = 1
    KEEPER = 2
    OPERATOR = 3


def level_of_word(word: int) -> Level:
    """Return the level a level word stands for: the maximum of its bytes."""
    unsigned = word & (2**64 - 1)
    return Level(max((unsigned >> (8 * writer)) & 0xFF for writer in range(LEVEL_WRITERS)))


def node_level(page: Page, node: int) -> Level:
    """Return a node's present level."""
    return level_of_word(int(page.rows(LIMIT)["level"][node]))


def writer_level(page: Page, node: int, writer: LevelWriter) -> Level:
    """Return what one writer holds a node at."""
    return Level(page.bytes_of(LIMIT, node)[LIMIT.offset("level") + writer])


def set_level(page: Page, node: int, writer: LevelWriter, level: Level) -> None:
    """Store one writer's byte of a node's level word and, if it tightens, trip.

    The byte is stored alone: a read-modify-write of the word could undo another writer's trip.
    """
    row = page.bytes_of(LIMIT, node)
    place = LIMIT.offset("level") + writer
    tightens = level > row[place]
    row[place] = int(level)
    if tightens:
        bump_generation(page)


def set_effective_limits(page: Page, node: int, factor_ppm: int) -> None:
    """Store a node's effective limits, configured × factor, and trip if they became tighter.

    Parameters
    ----------
    factor_ppm
        In (0, 1_000_000]; a factor can only tighten (P5).
    """
    if not 0 < factor_ppm <= FACTOR_ONE:
        raise ValueError(f"a factor is in (0, 1], was {factor_ppm} ppm")
    row = page.rows(LIMIT)[node]
    tightens = factor_ppm < int(row["factor_ppm"])
    row["factor_ppm"] = factor_ppm
    fit_effective_limits(page, node, may_raise=True)
    if tightens:
        bump_generation(page)


def fit_effective_limits(page: Page, node: int, *, may_raise: bool) -> None:
    """Make a node's effective limits configured × factor, rounded down.

    The breaker's factor and an operator's tightening may meet here: each swaps against the word it
    read and then reads again, so that whoever comes last has seen what the other stored.

    Parameters
    ----------
    may_raise
        The breaker may; an operator's command only ever lowers.
    """
    from tripgate.page import atomics

    factor = page.address(LIMIT, node, "factor_ppm")
    for name in ("gross", "net"):
        configured = page.address(LIMIT, node, f"{name}_configured")
        effective = page.address(LIMIT, node, f"{name}_max")
        for _ in range(SWAP_TRIES):
            found = atomics.load(effective)
            fits = atomics.load(configured) * atomics.load(factor) // FACTOR_ONE
            if found == fits or (found < fits and not may_raise):
                break
            atomics.compare_exchange(effective, found, fits)
        else:
            raise InvariantBroken(f"node {node}: its effective {name} limit never stood still")


def bump_generation(page: Page) -> int:
    """Add 1 to the trip generation with a full barrier; return the new value."""
    # Onlookers (status, the live view) read levels too and must start without numba.
    from tripgate.page import atomics

    return atomics.fetch_add(page.address(CONTROL_HEADER, 0, "generation"), 1) + 1
