"""Invariants of the accounts: book, equity and drawdown against an independent recomputation."""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

from chaos.invariants.observation import Limits, Observation
from tripgate.machines.book import Key


class BookEqualsVenue:
    """I4: the keeper's book = the sum of the log's fills = the venue's own positions."""

    name = "I4_book_equals_log_and_venue"
    judges = "steps with fills on record after a restart of the keeper"

    def __init__(self) -> None:
        self.exercised = 0
        self._summed = 0
        self._lots: dict[Key, int] = {}

    def observe(self, seen: Observation) -> str | None:
        """Compare the three wherever the keeper is alive."""
        for fill in seen.logged_fills[self._summed :]:
            key = Key(fill.strategy, fill.instrument)
            self._lots[key] = self._lots.get(key, 0) + fill.signed_lots
        self._summed = len(seen.logged_fills)
        if seen.book_lots is None:
            return None
        if seen.keeper_restarts and seen.logged_fills:
            self.exercised += 1
        book, log, venue = (
            {key: lots for key, lots in table.items() if lots}
            for table in (seen.book_lots, self._lots, seen.venue_lots)
        )
        if not book == log == venue:
            return f"book {book}, log {log}, venue {venue}"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class EquityExact:
    """B2, B3: equity is exact, floored per position, and unknown where a price is missing."""

    name = "B2_equity_is_exact"
    judges = "evaluations of equity with an open position"

    def __init__(self, limits: Limits) -> None:
        self.exercised = 0
        self._limits = limits
        self._summed = 0
        self._fees_money = 0
        self._bought: dict[int, dict[int, tuple[int, int]]] = {}

    def observe(self, seen: Observation) -> str | None:
        """Recompute equity from all fills of the venue."""
        for fill in seen.venue_fills[self._summed :]:
            held = self._bought.setdefault(fill.instrument, {})
            lots, paid = held.get(fill.strategy, (0, 0))
            held[fill.strategy] = lots + fill.signed_lots, paid + fill.signed_lots * fill.ticks
            self._fees_money += fill.fee_money
        self._summed = len(seen.venue_fills)
        if seen.equity is None:
            return None
        expected = self._equity_money(seen.shown_mark_ticks)
        self.exercised += int(any(seen.venue_lots.values()))
        if seen.equity.on_mark_money != expected:
            return f"equity was {seen.equity.on_mark_money}, expected {expected}"
        return None

    def _equity_money(self, mark_ticks: Mapping[int, int]) -> int | None:
        total = self._limits.starting_money - self._fees_money
        for instrument, held in self._bought.items():
            mark = mark_ticks.get(instrument)
            for lots, paid in held.values():
                if lots and mark is None:
                    return None
                gained = lots * (mark or 0) - paid
                total += floor(self._limits.value[instrument] * gained)
        return total

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class DrawdownExact:
    """D: drawdown is measured from the highest equity ever seen, through any restart."""

    name = "D_drawdown_survives_restarts"
    judges = "evaluations under water after a restart of the keeper"

    def __init__(self, limits: Limits) -> None:
        self.exercised = 0
        self._mark_money = limits.starting_money

    def observe(self, seen: Observation) -> str | None:
        """Recompute the drawdown from the equities seen so far."""
        equity_money = None if seen.equity is None else seen.equity.on_mark_money
        if equity_money is None or seen.drawdown_ppm is None:
            return None
        self._mark_money = max(self._mark_money, equity_money)
        under = Fraction(self._mark_money - equity_money, self._mark_money)
        expected = min(1_000_000, ceil(under * 1_000_000))
        self.exercised += expected > 0 and seen.keeper_restarts > 0
        if seen.rebased:
            self._mark_money = equity_money
        if seen.drawdown_ppm != expected:
            return f"drawdown was {seen.drawdown_ppm} ppm, expected {expected}"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None
