"""Bar history in the page: closed bars of each instrument in a ring, so that models start warm.

The bar in progress stands in the row after the last closed one, so that a feed that is restarted
goes on with it. ``BOARD.bars`` counts the closed bars and is raised only after a bar's row is
whole; rows below it do not change until the ring comes round.

Invariants: H1 a reader never returns a bar that was overwritten while it read; H2 numbers are
consecutive and rise by one per closed bar; a gap in market time is seen in ``opened_ms`` alone;
H3 one writer per row, the feed of the instrument's venue.
"""

from typing import Any

import numpy as np

from tripgate.page import atomics
from tripgate.page.layout import BAR, BARS_KEPT, BOARD
from tripgate.page.mapping import Page

BARS_READABLE = BARS_KEPT - 1
"""One row of the ring belongs to the bar in progress."""
READ_TRIES = 3
NOT_WHOLE = -1
FIELDS = ("opened_ms", "open", "high", "low", "close", "ticks", "number")
BAR_ROW = np.dtype([(name, np.int64) for name in FIELDS])
"""What ``read_bars`` returns: prices in ticks, ``opened_ms`` market time, ``ticks`` a count."""
_VALUES = FIELDS[:-1]


def closed_count(page: Page, instrument: int) -> int:
    """Return how many bars of an instrument have closed since the page was made."""
    return atomics.load(page.address(BOARD, instrument, "bars"))


def write_bar(page: Page, instrument: int, number: int, values: tuple[int, ...]) -> None:
    """Write bar ``number`` (feed of the venue only).

    Parameters
    ----------
    values
        opened_ms, open, high, low, close, ticks.
    """
    row = page.address(BAR, _row(instrument, number))
    numbered = row + BAR.offset("number")
    if atomics.load(numbered) != number:
        atomics.exchange(numbered, NOT_WHOLE)
    for name, value in zip(_VALUES, values, strict=True):
        atomics.store(row + BAR.offset(name), value)
    atomics.store(numbered, number)


def publish_bar(page: Page, instrument: int, number: int) -> None:
    """Count bar ``number``, whose row is whole, as closed (feed of the venue only)."""
    atomics.store(page.address(BOARD, instrument, "bars"), number + 1)


def bar_in_progress(page: Page, instrument: int) -> tuple[int, ...] | None:
    """Return the values of the bar in progress (the feed alone may ask), or None."""
    number = closed_count(page, instrument)
    row = page.rows(BAR)[_row(instrument, number)]
    # A page begins as zeros, which would read as bar 0.
    if int(row["number"]) != number or not int(row["ticks"]):
        return None
    return tuple(int(row[name]) for name in _VALUES)


def read_bars(
    page: Page, instrument: int, count: int = BARS_READABLE
) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """Return the newest closed bars of an instrument, oldest first.

    Parameters
    ----------
    count
        How many at most, 0 … ``BARS_READABLE``.

    Returns
    -------
    ndarray
        Shape (n,), dtype ``BAR_ROW``, n ≤ ``count``: fewer while history is short, or where the
        ring overtook this reader ``READ_TRIES`` times in a row (it was stopped for 2,047 bars).

    Raises
    ------
    ValueError
        ``count`` is out of range.
    """
    if not 0 <= count <= BARS_READABLE:
        raise ValueError(f"count is 0 to {BARS_READABLE}, was {count}")
    bars = np.empty(0, dtype=BAR_ROW)
    for _ in range(READ_TRIES):
        end = closed_count(page, instrument)
        numbers = np.arange(max(0, end - count), end)
        bars = _copy(page, instrument, numbers)
        # Row n is taken for bar n + BARS_KEPT once the bars before that have all closed.
        oldest_whole = closed_count(page, instrument) - BARS_READABLE
        whole = (bars["number"] == numbers) & (numbers >= oldest_whole)
        if whole.all():
            break
        # Overwriting goes from the oldest on, so what is left is one piece.
        bars = bars[whole]
    return bars


def _copy(page: Page, instrument: int, numbers: Any) -> Any:
    table = page.rows(BAR)
    rows = instrument * BARS_KEPT + numbers % BARS_KEPT
    bars = np.empty(len(numbers), dtype=BAR_ROW)
    for name in FIELDS:
        bars[name] = table[name][rows]
    return bars


def _row(instrument: int, number: int) -> int:
    return instrument * BARS_KEPT + number % BARS_KEPT
