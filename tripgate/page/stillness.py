"""A moment of the page that the log can be compared with: sums, and which records they hold.

Sums are changed by many processes while they are read. But every change that a client makes lies
inside a section of its own slot, and its record is posted before the section ends. So if no slot
was inside a section, no section began and no record was posted while the sums were read, they hold
exactly what the records up to those numbers tell, and whoever has the log can add up the same.

Invariant: S1 a reading is still only if all that stood in it stood at one moment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tripgate.page.layout import CONTROL_HEADER, COUNTERS_HEADER, SLOT, SUM
from tripgate.page.mapping import Page

Words = np.ndarray[Any, np.dtype[np.int64]]

TRIES_MAX = 8
"""A busy gate is seldom still; the next snapshot tries again."""


@dataclass(frozen=True)
class Still:
    """One reading.

    Attributes
    ----------
    is_still
        Whether everything stood still while it was read; if not, the sums are of no moment.
    records
        Number of the last record of each slot that has any.
    sums
        (gross, long, short, margin) by node, money units.
    """

    is_still: bool
    records: dict[int, int]
    sums: list[tuple[int, int, int, int]]


def read_still(page: Page) -> Still:
    """Read the sums of a moment at which nobody changed them, if there is one within few tries."""
    reading = _read(page)
    for _ in range(TRIES_MAX - 1):
        if reading.is_still:
            break
        reading = _read(page)
    return reading


def _read(page: Page) -> Still:
    before = _marks(page)
    sums = page.rows(SUM).copy()
    after = _marks(page)
    sections = before[1]
    is_still = bool(np.array_equal(before[0], after[0]) and np.array_equal(sections, after[1]))
    is_still = is_still and not (sections & 1).any() and before[2] == after[2] == (0, 0)
    records = {slot: int(number) for slot, number in enumerate(before[0]) if number}
    names = ("gross", "long_worst", "short_worst", "margin")
    rows = [tuple(int(row[name]) for name in names) for row in sums]
    return Still(is_still, records, [(row[0], row[1], row[2], row[3]) for row in rows])


def _marks(page: Page) -> tuple[Words, Words, tuple[int, int]]:
    # Imported here: onlookers read pages without compiled atomics.
    from tripgate.page import atomics

    slots = page.rows(SLOT)
    records = slots["record_sequence"].copy()
    sections = np.concatenate([slots["section"], slots["exit_section"]])
    frozen = atomics.load(page.address(CONTROL_HEADER, 0, "freeze"))
    unposted = atomics.load(page.address(COUNTERS_HEADER, 0, "unposted"))
    return records, sections, (frozen, unposted)
