"""Invariants of what happens at the venue: no new risk when tight, flat when latched, recovery."""

from chaos.invariants.observation import Limits, Observation
from tripgate.reasons import Level


class NoOpeningWhenTight:
    """P3: at MEDIUM and above no order that adds risk is sent."""

    name = "P3_no_opening_at_medium"
    judges = "openings asked for at MEDIUM or above"

    def __init__(self) -> None:
        self.exercised = 0

    def observe(self, seen: Observation) -> str | None:
        """Compare what was sent with the level at which it was sent."""
        if seen.level < Level.MEDIUM or seen.resumed:
            return None
        self.exercised += seen.openings_wanted
        if seen.openings_sent:
            return f"{seen.openings_sent} openings were sent at {seen.level.name}"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class EndsFlat:
    """I5: HARD and EMERGENCY end flat, in bounded time, and stay flat."""

    name = "I5_latched_ends_flat"
    judges = "times that HARD was reached with a position open"

    def __init__(self, limits: Limits) -> None:
        self.exercised = 0
        self._limits = limits
        self._since_ms: int | None = None

    def observe(self, seen: Observation) -> str | None:
        """Measure how long positions have been open at HARD or above."""
        if seen.level < Level.HARD:
            self._since_ms = None
            return None
        is_open = any(seen.venue_lots.values())
        if self._since_ms is None:
            self._since_ms = seen.time_ms
            self.exercised += is_open
        if is_open and seen.time_ms - self._since_ms > self._limits.flat_within_ms:
            return f"still open {seen.time_ms - self._since_ms} ms after {seen.level.name}"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class Recovers:
    """I10: after the faults have healed and the operator has resumed, openings are let through.

    Whether one is then small enough for the limits is the strategy's affair.
    """

    name = "I10_trading_resumes"
    judges = "runs that were struck or tripped before they healed"

    def __init__(self) -> None:
        self.exercised = 0
        self._hurt = False
        self._lost = False
        self._opened = False

    def observe(self, seen: Observation) -> str | None:
        """Note what happened."""
        self._lost = self._lost or seen.lost
        if seen.healed:
            self._opened = self._opened or seen.openings_permitted > 0
        else:
            self._hurt = self._hurt or seen.faults_struck > 0 or seen.level >= Level.MEDIUM
        return None

    def finish(self) -> str | None:
        """Judge whether an opening was let through again."""
        if self._lost or not self._hurt:
            return None
        self.exercised += 1
        return None if self._opened else "no opening was let through after the faults had healed"
