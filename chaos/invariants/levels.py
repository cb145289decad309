"""Invariants of the breaker's level: what may lower it, and what it must be at least."""

from chaos.invariants.observation import Limits, Observation
from tripgate.reasons import Level


class RestartNeverLoosens:
    """I6: no restart lowers a level, and nothing but a living breaker lowers one at all."""

    name = "I6_restart_never_loosens"
    judges = "restarts of the breaker while it was tripped"

    def __init__(self) -> None:
        self.exercised = 0
        self._level = Level.NORMAL
        self._restarts = 0

    def observe(self, seen: Observation) -> str | None:
        """Compare the level with the one before, around restarts."""
        before, self._level = self._level, seen.level
        restarted = seen.breaker_restarts != self._restarts
        self._restarts = seen.breaker_restarts
        self.exercised += restarted and before > Level.NORMAL
        if seen.level < before and not seen.resumed and (restarted or not seen.evaluated):
            return f"level fell from {before.name} to {seen.level.name} without an evaluation"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class LogExplainsPage:
    """P6: while the log loses nothing, a restart finds no level on the page that it cannot explain.

    Such a level would need an operator although no cause demands it.
    """

    name = "P6_log_explains_the_level"
    judges = "restarts of the breaker that found a tripped page"

    def __init__(self) -> None:
        self.exercised = 0
        self._restarts = 0

    def observe(self, seen: Observation) -> str | None:
        """Look at what a restart made of the page."""
        restarted = seen.breaker_restarts != self._restarts
        self._restarts = seen.breaker_restarts
        self.exercised += restarted and seen.level > Level.NORMAL
        if seen.unexplained:
            return f"{seen.level.name} stands on the page and no cause in the log explains it"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class LatchHolds:
    """P5: HARD and EMERGENCY end only by the operator's command."""

    name = "P5_latch_needs_an_operator"
    judges = "steps at HARD or above"

    def __init__(self) -> None:
        self.exercised = 0
        self._level = Level.NORMAL

    def observe(self, seen: Observation) -> str | None:
        """Compare the level with the one before."""
        before, self._level = self._level, seen.level
        self.exercised += before >= Level.HARD
        if before >= Level.HARD and seen.level < before and not seen.resumed:
            return f"level fell from {before.name} to {seen.level.name} without a resume"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None


class LevelsJustified:
    """P5, I11: the level is never below what the readings demand, and not above without a reason.

    SOFT and MEDIUM are demanded from the moment their threshold is reached until 15 minutes have
    passed in which each step brought a value below 80 % of it; HARD and EMERGENCY when two
    successive readings of one incarnation were beyond them on both prices, until a resume.
    """

    name = "P5_level_is_demanded_by_readings"
    judges = "evaluations that demanded a level"

    def __init__(self, limits: Limits) -> None:
        self.exercised = 0
        self._limits = limits
        self._held_until_ms = {Level.SOFT: -1, Level.MEDIUM: -1}
        self._latched = Level.NORMAL
        self._beyond: tuple[int, int, Level] | None = None
        self._quiet = True

    def observe(self, seen: Observation) -> str | None:
        """Derive the least level from the readings and compare."""
        value = seen.drawdown_ppm
        self._quiet = self._quiet and not seen.faults_struck and seen.completed
        if seen.resumed:
            self._latched = Level.NORMAL
            self._beyond = None
        if seen.rebased:
            self._held_until_ms = {Level.SOFT: -1, Level.MEDIUM: -1}
            return None
        if seen.evaluated and value is not None:
            self._take(seen, value)
        else:
            self._beyond = None
            self._prolong(seen.time_ms)
        if not seen.completed:
            return None
        demanded = max(self._latched, self._held(seen.time_ms))
        self.exercised += demanded > Level.NORMAL
        if seen.level < demanded:
            return f"level was {seen.level.name}, readings demand {demanded.name}"
        if value is not None and self._quiet:
            self._quiet = value < self._limits.drawdown_ppm[0] and not seen.lost
            if self._quiet and seen.level > Level.NORMAL:
                return f"level {seen.level.name} at a drawdown of {value} ppm and no fault"
        return None

    def finish(self) -> str | None:
        """Nothing is left to judge."""
        return None

    def _held(self, time_ms: int) -> Level:
        held = [level for level, until_ms in self._held_until_ms.items() if time_ms < until_ms]
        return max(held, default=Level.NORMAL)

    def _prolong(self, time_ms: int) -> None:
        """Restart the cool-down of everything held: it needs unbroken evaluations."""
        for level, until_ms in self._held_until_ms.items():
            if time_ms < until_ms:
                self._held_until_ms[level] = time_ms + self._limits.cool_down_ms

    def _take(self, seen: Observation, value: int) -> None:
        for level in (Level.SOFT, Level.MEDIUM):
            threshold = self._limits.drawdown_ppm[level - 1]
            held = seen.time_ms < self._held_until_ms[level]
            if value >= threshold or (held and value * 10 >= threshold * 8):
                self._held_until_ms[level] = seen.time_ms + self._limits.cool_down_ms
        both = min(value, seen.second_drawdown_ppm or 0)
        beyond = Level.NORMAL
        for level in (Level.HARD, Level.EMERGENCY):
            if both >= self._limits.drawdown_ppm[level - 1]:
                beyond = level
        if self._beyond is not None:
            time_ms, restarts, before = self._beyond
            confirmed = seen.time_ms - time_ms >= self._limits.confirm_ms
            if confirmed and restarts == seen.breaker_restarts:
                self._latched = max(self._latched, min(before, beyond))
        self._beyond = seen.time_ms, seen.breaker_restarts, beyond
