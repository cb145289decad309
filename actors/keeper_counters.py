"""The keeper's watch over the counters file: looks ten times a second, trips, hands the level over.

A sum that is not the sum of its parts closes the portfolio at MEDIUM at once, by the keeper's own
byte, on record. The words are then repaired, but the level stays until an operator resumes: the
breaker takes the fault over as a cause that latches, and only then is the byte withdrawn.
"""

from actors.service import Service
from tripgate.clock import NS_PER_MS
from tripgate.gate.cause_rows import load_causes
from tripgate.gate.counters_check import CountersCheck
from tripgate.gate.recount import Difference
from tripgate.machines.breaker_types import Cause, CauseKey
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter, set_level, writer_level
from tripgate.reasons import Level

CHECK_NS = 100 * NS_PER_MS
WORDS_TOLD_MAX = 10
"""Differences that one record names; it also says how many there were."""
PORTFOLIO = 0


class Counters:
    """Sole user of the keeper's level byte at the portfolio beside fills that have no place."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = service.page
        self._check = CountersCheck(service.page, service.slot)
        self._checked_ns = 0
        self._told: frozenset[str] = frozenset()

    def forget(self) -> None:
        """Begin anew after a repair."""
        self._check.forget()

    def are_broken(self, positions: dict[int, int], now_ns: int, byte_is_held: bool) -> bool:
        """Look if it is time; return whether the page needs a repair.

        Parameters
        ----------
        positions
            Signed lots by closable key, as the book has them.
        byte_is_held
            Something else holds the keeper's byte at the portfolio: it may not be withdrawn.
        """
        if now_ns - self._checked_ns < CHECK_NS:
            return False
        self._checked_ns = now_ns
        standing = self._check.look(positions)
        # The unposted count may be left too high by a death: openings are denied until it is right.
        wrong = [one for one in standing if one.field != "unposted"]
        if wrong:
            set_level(self._page, PORTFOLIO, LevelWriter.KEEPER, Level.MEDIUM)
            return self._tell(wrong)
        if self._check.is_clean:
            self._told = frozenset()
            if not byte_is_held and self._is_taken_over():
                self._withdraw()
        return bool(standing)

    def _withdraw(self) -> None:
        before = writer_level(self._page, PORTFOLIO, LevelWriter.KEEPER)
        set_level(self._page, PORTFOLIO, LevelWriter.KEEPER, Level.NORMAL)
        self._service.emit(EventKind.LEVEL_WITHDRAWN, {
            "scope": "portfolio", "writer": LevelWriter.KEEPER.name, "before": before.name,
        })  # fmt: skip

    def _tell(self, wrong: list[Difference]) -> bool:
        """Record what is wrong; False if it was told already and no repair could mend it."""
        texts = frozenset(one.text for one in wrong)
        if texts == self._told:
            # An entry that was overwritten stays wrong until it ends.
            return False
        self._told = texts
        words = sorted(texts)[:WORDS_TOLD_MAX]
        body = {"scope": "portfolio", "words": words, "count": len(texts)}
        self._service.emit(EventKind.COUNTERS_BROKEN, body)
        return True

    def _is_taken_over(self) -> bool:
        if not writer_level(self._page, PORTFOLIO, LevelWriter.KEEPER):
            return False
        cause = load_causes(self._page).get(CauseKey(Cause.KEEPER_FAULT, PORTFOLIO))
        held = writer_level(self._page, PORTFOLIO, LevelWriter.BREAKER)
        return cause is not None and cause.latched and held >= Level.MEDIUM
