"""Are the limits exact while two processes saturate them? Counted, not timed.

Both processes ask for more than the portfolio's limit allows, release what they got, and ask again;
at the end both leave their last batch standing. Each has counted privately what it was granted, so
every node's words can be compared with sums that the gate did not make: equal, to the money unit.
After every answer each process looked at all its nodes: none was ever beyond its limit. Released,
every word is zero again.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import loops
from benchmarks.page import LIMIT_MONEY, MARK_TICKS, OWN_KEY, set_limits
from benchmarks.pair import (
    FILL,
    KEY_OF_NEIGHBOUR,
    MINE,
    SLOT_WORD,
    TALLY,
    Pace,
    fill_until,
    neighbour,
    wait_for_start,
)
from tripgate.gate.context import build_context, order_nodes
from tripgate.page.layout import CLAIM, SUM
from tripgate.page.mapping import Page

DURATION_S = 1.0
LIMIT = 150 * MARK_TICKS
"""About half of what both batches together ask for: whoever comes later is refused. A lot at the
mark is worth as many money units as the mark has ticks (``page.SYMBOLS``)."""

PORTFOLIO = 0


@dataclass(frozen=True)
class Exactness:
    """What two saturating processes left in the nodes, money units.

    Attributes
    ----------
    granted, refused
        Orders of both processes.
    difference
        Largest |node word − private sums of the processes that pass the node|.
    overshoot
        Largest gross − limit that either process saw at any node after any answer.
    residual
        Sum of all node and claim words after both batches were released.
    """

    granted: int
    refused: int
    standing: int
    limit: int
    difference: int
    overshoot: int
    residual: int

    @property
    def exact(self) -> bool:
        """Whether the limit was reached, never passed, and every word was right."""
        return (
            self.refused > 0 and self.overshoot <= 0 and self.standing <= self.limit
            and self.difference == self.residual == 0
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the verdict, JSON-ready."""
        return {**asdict(self), "exact": self.exact}


def measure_exactness(
    page: Page, context: int, where: str, cores: list[int], scale: float
) -> Exactness | None:
    """Saturate one limit from two processes; None if the neighbour did not come up.

    ``where`` they meet: ``pair.DISJOINT`` or ``pair.SHARED``.
    """
    pace = Pace(page.folder)
    tally = np.zeros(loops.TALLY_WORDS, dtype=np.int64)
    set_limits(page, PORTFOLIO, LIMIT)
    try:
        with neighbour(page.folder, cores, where, FILL) as process:
            if not wait_for_start(process, pace):
                return None
            place = int(tally.ctypes.data)
            fill_until(page, context, 1, pace, place, MINE, DURATION_S * min(1.0, scale))
        theirs = pace.words[TALLY : TALLY + loops.TALLY_WORDS]
        return _compare(page, context, where, tally, theirs, int(pace.words[SLOT_WORD]))
    finally:
        set_limits(page, PORTFOLIO, LIMIT_MONEY)


def _compare(
    page: Page, context: int, where: str, mine: Any, theirs: Any, their_slot: int
) -> Exactness:
    standing = loops.STANDING // 8
    expected = np.zeros(len(page.names.scopes), dtype=np.int64)
    their_key = KEY_OF_NEIGHBOUR[where]
    for key, tally in ((OWN_KEY, mine), (their_key, theirs)):
        for node in order_nodes(page, *page.names.keys[key]):
            expected[node] += tally[standing]
    sums = page.rows(SUM)
    differences = [np.abs(sums[name] - expected).max() for name in ("gross", "long_worst")]
    # The neighbour has ended: its entries are released through a context on its slot.
    their_words = build_context(page, their_slot, their_key)
    loops.release_all(int(their_words.ctypes.data))
    loops.release_all(context)
    names = ("gross", "long_worst", "short_worst", "margin")
    residual = sum(int(np.abs(sums[name]).sum()) for name in names)
    residual += int(np.abs(page.rows(CLAIM)["lots"]).sum())
    total = [int(mine[word] + theirs[word]) for word in range(loops.TALLY_WORDS)]
    overshoot = max(int(tally[loops.OVERSHOOT // 8]) for tally in (mine, theirs))
    return Exactness(
        granted=total[loops.GRANTED // 8], refused=total[loops.REFUSED // 8],
        standing=total[standing], limit=LIMIT, difference=int(max(differences)),
        overshoot=overshoot, residual=residual,
    )  # fmt: skip
