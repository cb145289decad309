"""The simulated breaker actor: a thin shell around the breaker's step."""

from collections.abc import Callable

from chaos.simulation.surroundings import Log, Page, SimulatedProcess, Steps
from tripgate.machines import breaker
from tripgate.machines.breaker import (
    BreakerSpec,
    CancelEntries,
    Cause,
    CauseKey,
    Evaluate,
    Flatten,
    Halt,
    Reading,
    Rebase,
    Restore,
    Resume,
    Resumed,
    SetFactor,
    SetLevel,
    Stop,
    Verdict,
)
from tripgate.reasons import Level

SCOPE = 0
"""The portfolio: the one node that the simulated breaker watches."""


class BreakerActor(SimulatedProcess):
    """Evaluates the causes on what the keeper published and carries out the effects."""

    def __init__(
        self, steps: Steps, page: Page, log: Log, spec: BreakerSpec, rebase: Callable[[], None]
    ) -> None:
        super().__init__()
        self._steps = steps
        self._page = page
        self._log = log
        self._spec = spec
        self._rebase = rebase
        self.state = breaker.new_breaker(spec)
        self.has_resumed = False
        self.has_rebased = False

    @property
    def is_unexplained(self) -> bool:
        """Whether it found the page tighter than its log explains."""
        recovered = self.state.causes.get(CauseKey(Cause.RECOVERED, SCOPE))
        return recovered is not None and recovered.level > Level.NORMAL

    def restart(self, now: int) -> None:
        """Rebuild the causes from log and page; every level is said again."""
        self.revive()
        self.state = breaker.new_breaker(self._spec)
        self._run(Restore(self._log.causes, {SCOPE: self._page.level}), now)

    def run(self, now: int) -> bool:
        """Evaluate every cause; return whether it lived through all effects."""
        page = self._page
        is_fresh = page.published_ms == now
        lapsed_s = (now - page.published_ms) // 1_000
        readings = {
            Cause.DRAWDOWN: page.drawdown_reading if is_fresh else None,
            Cause.TOTAL_LOSS: page.loss_reading if is_fresh else None,
            Cause.LEASE_LAPSED: Reading(lapsed_s),
        }
        self._run(
            Evaluate(
                {
                    CauseKey(cause, SCOPE): Verdict.STALE if reading is None else reading
                    for cause, reading in readings.items()
                }
            ),
            now,
        )
        return self.is_alive

    def resume(self, record_id: int, now: int) -> None:
        """Carry out the operator's command for the whole scope."""
        self._run(Resume(SCOPE, rebase=True, operator="simulated", record_id=record_id), now)

    def halt(self, record_id: int, now: int) -> None:
        """Carry out the operator's command to close everything."""
        self._run(Halt(SCOPE, Level.HARD, record_id), now)

    def _run(self, message: breaker.Message, now: int) -> None:
        before = self.state
        self.state, effects = self._steps.breaker_step(before, message, now)
        self._log.causes = breaker.persisted_first(before, self.state)
        for effect in effects:
            if not self.survives_effect():
                return
            self._carry_out(effect)
        self._log.causes = self.state.causes

    def _carry_out(self, effect: breaker.Effect) -> None:
        page = self._page
        match effect:
            case SetLevel(level=level):
                page.level = level
                if level < Level.MEDIUM:
                    page.cancel_entries = False
                if level < Level.HARD:
                    page.flatten = False
            case SetFactor(ppm=ppm):
                page.factor_ppm = ppm
            case CancelEntries():
                page.cancel_entries = True
            case Flatten():
                page.flatten = True
            case Stop():
                page.stopped = True
            case Resumed():
                self.has_resumed = True
            case Rebase():
                self._rebase()
                self.has_rebased = True
            case _:
                # A refused resume is for the record only.
                pass
