"""The keeper's periodic look at the counters file: that every sum is the sum of its parts.

Clients write that file, so a wild store of one of them could widen what another may open. The look
copies the tables between two readings of all section counters, without stopping anybody; a copy in
which something moved is thrown away. Since the parts themselves may be caught in the middle of a
rewrite (a stop's entry), a difference counts once it stands unchanged in two looks.

Invariants: C1 a look changes no word; C2 clients that never rest cannot hide a difference: after
``BLIND_LOOKS_MAX`` vain looks the page is frozen for one copy.
"""

from tripgate.gate.recount import (
    Difference,
    Tables,
    Truth,
    differences,
    expected_words,
    truth_of_page,
)
from tripgate.gate.repair import SECTIONS, freeze, still_tables, thaw
from tripgate.page.mapping import Page

LOOK_TRIES = 5
BLIND_LOOKS_MAX = 10
"""At ten looks a second: openings are denied for a moment once a second, if nobody ever rests."""


class CountersCheck:
    """Remembers the last look, to tell what stands from what moves."""

    def __init__(self, page: Page, own_slot: int) -> None:
        self._page = page
        self._slot = own_slot
        self._seen: frozenset[tuple[str, int, str, int]] = frozenset()
        self._blind = 0
        self.is_clean = False

    def forget(self) -> None:
        """Begin anew: the page has been repaired."""
        self._seen, self.is_clean = frozenset(), False

    def look(self, positions: dict[int, int]) -> tuple[Difference, ...]:
        """Look once; return the differences that stood in the look before as well.

        Parameters
        ----------
        positions
            Signed lots by closable key, as the keeper's book has them.
        """
        tables = self._copy()
        if tables is None:
            return ()
        seen = truth_of_page(self._page, tables)
        words = expected_words(self._page, Truth(positions, seen.charged, seen.filled), tables)
        found = differences(tables, words)
        standing = tuple(one for one in found if one.identity in self._seen)
        self._seen = frozenset(one.identity for one in found)
        self.is_clean = not found
        return standing

    def _copy(self) -> Tables | None:
        for _ in range(LOOK_TRIES):
            tables = still_tables(self._page, SECTIONS)
            if tables is not None:
                self._blind = 0
                return tables
        self._blind += 1
        if self._blind < BLIND_LOOKS_MAX:
            return None
        self._blind = 0
        freeze(self._page, self._slot)
        tables = still_tables(self._page)
        thaw(self._page)
        return tables
