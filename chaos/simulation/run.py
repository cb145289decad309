"""One simulated run: a plan in, verdicts and a trace hash out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from chaos.faults import sigkill
from chaos.invariants import Invariant, Limits, Observation, all_invariants
from chaos.plan import Plan
from chaos.simulation.guard import SCOPE, BreakerActor
from chaos.simulation.keeper import Keeper
from chaos.simulation.market import Market, Tick
from chaos.simulation.surroundings import Log, Page, SimulatedProcess, Steps
from chaos.simulation.trader import STRATEGIES, Trader
from chaos.simulation.venue import Venue
from tripgate.errors import ConfigError
from tripgate.machines.book import BookInstrument
from tripgate.machines.breaker import (
    DRAWDOWN_THRESHOLDS,
    LEASE_LAPSED_THRESHOLDS,
    BreakerSpec,
    Cause,
    CauseKey,
    total_loss_thresholds,
)
from tripgate.reasons import Level

STEP_MS = 15_000
STARTING_MONEY = 100_000 * 10_000
LOSS_MAX_MONEY = 60_000 * 10_000
GROSS_MAX_MONEY = 160_000 * 10_000
CHECKPOINT_STEPS = 23
OPERATE_STEPS = 8
"""Steps between two commands of the operator after the run has healed."""

FLAT_WITHIN_MS = 10 * STEP_MS
"""A restart, the order, two ticks for two pieces, and instruments that miss ticks."""

VALUE: Mapping[int, Fraction] = {0: Fraction(1), 1: Fraction(7, 3), 2: Fraction(50)}
"""Money units per lot and tick; one of them is no whole number, so that rounding is exercised."""

STEPS_MIN = 2
TARGETS = ("breaker", "keeper")
DOWN_MS = "down_ms"
"""Argument of a plan: time for which the killed process is not started again (default 0)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold: which, when (ms after the start) and what was seen."""

    invariant: str
    time_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """Outcome of one run. ``exercised`` counts per invariant what it had to judge."""

    plan: Plan
    trace_hash: str
    exercised: Mapping[str, int]
    violation: Violation | None
    fills: int
    restarts: int
    level_max: Level


class World:
    """Everything of one run, wired together."""

    def __init__(self, plan: Plan, steps: Steps) -> None:
        unknown = sorted({fault.target for fault in plan.faults} - set(TARGETS))
        if unknown:
            raise ConfigError(f"faults: unknown target {unknown}: known are {list(TARGETS)}")
        if plan.end_ms < STEPS_MIN * STEP_MS:
            raise ConfigError(f"end_ms: at least {STEPS_MIN * STEP_MS}, was {plan.end_ms}")
        self.plan = plan
        self.page, self.log = Page(), Log()
        self.venue = Venue(plan.seed, VALUE)
        self.market = Market(plan.seed, plan.end_ms // STEP_MS)
        self.trader = Trader(plan.seed, self.venue, self.page, self.log, GROSS_MAX_MONEY)
        instruments = {identity: BookInstrument(value) for identity, value in VALUE.items()}
        own = {strategy: STARTING_MONEY // len(STRATEGIES) for strategy in STRATEGIES}
        self.keeper = Keeper(steps, self.page, self.log, instruments, STARTING_MONEY, own)
        spec = BreakerSpec(
            causes={
                CauseKey(Cause.DRAWDOWN, SCOPE): DRAWDOWN_THRESHOLDS,
                CauseKey(Cause.TOTAL_LOSS, SCOPE): total_loss_thresholds(LOSS_MAX_MONEY),
                CauseKey(Cause.LEASE_LAPSED, SCOPE): LEASE_LAPSED_THRESHOLDS,
            },
            soft_factor_ppm=500_000,
        )
        self.breaker = BreakerActor(steps, self.page, self.log, spec, self.keeper.rebase)
        self.faults = list(plan.faults)
        self.struck = 0
        self.evaluated = self.completed = False
        self.lost = False

    def step(self, number: int) -> Tick:
        """Run one step of the world."""
        time_ms = number * STEP_MS
        # Market time 0 means "never" in places; a run begins one step after it.
        now = time_ms + STEP_MS
        self._restart_the_dead(time_ms, now)
        self._strike(time_ms)
        tick = self.market.step()
        self.log.append(self.venue.match(tick.mark_ticks, now))
        if self.keeper.is_alive:
            self.keeper.run(number, tick, now)
        self.evaluated = self.breaker.is_alive
        self.completed = self.evaluated and self.breaker.run(now)
        self._note_loss(now)
        self.breaker.has_resumed = self.breaker.has_rebased = False
        if time_ms >= self.plan.heal_ms and number % OPERATE_STEPS == 0:
            self._operate(number, now)
        self.trader.carry_out_wishes()
        leased = self.keeper.is_alive and self.breaker.is_alive and self.page.published_ms == now
        self.trader.trade(tick.mark_ticks, leased)
        if number % CHECKPOINT_STEPS == 0 and self.keeper.is_alive:
            self.keeper.take_checkpoint()
        return tick

    def _processes(self) -> Mapping[str, SimulatedProcess]:
        return {"breaker": self.breaker, "keeper": self.keeper}

    def _restart_the_dead(self, time_ms: int, now: int) -> None:
        for process in self._processes().values():
            if process.is_alive or time_ms < process.down_until_ms:
                continue
            if process is self.keeper:
                self.keeper.restart()
            else:
                self.breaker.restart(now)

    def _strike(self, time_ms: int) -> None:
        if time_ms >= self.plan.heal_ms:
            for process in self._processes().values():
                process.spare()
        while self.faults and self.faults[0].time_ms <= time_ms:
            fault = self.faults.pop(0)
            process = self._processes()[fault.target]
            process.down_until_ms = time_ms + fault.arguments.get(DOWN_MS, 0)
            after_effects = fault.arguments.get(sigkill.AFTER_EFFECTS, 0)
            sigkill.apply_simulated(process, after_effects)
            self.struck += 1

    def _note_loss(self, now: int) -> None:
        reading = self.page.loss_reading
        if self.page.published_ms == now and reading is not None:
            self.lost = self.lost or reading.value >= LOSS_MAX_MONEY

    def _operate(self, number: int, now: int) -> None:
        """Do what an operator would after the faults: close what is left, then resume."""
        known = self.page.equity is not None and self.page.equity.on_mark_money is not None
        alive = self.breaker.is_alive and self.keeper.is_alive and known
        if not alive or self.lost or self.page.level < Level.MEDIUM:
            return
        if any(self.venue.lots.values()):
            self.breaker.halt(number, now)
            return
        self.breaker.resume(number, now)
        if self.breaker.has_resumed:
            self.page.stopped = False

    def observe(self, number: int) -> Observation:
        """Return what invariants are shown after step ``number``."""
        keeper, page = self.keeper, self.page
        is_current = keeper.is_alive and page.published_ms == (number + 1) * STEP_MS
        reading = page.drawdown_reading if is_current else None
        lots = {key: position.lots for key, position in keeper.book.positions.items()}
        return Observation(
            time_ms=number * STEP_MS,
            venue_fills=self.venue.fills,
            logged_fills=self.log.fills,
            venue_lots=self.venue.lots,
            shown_mark_ticks=keeper.shown_mark_ticks,
            book_lots=lots if is_current else None,
            equity=page.equity if is_current else None,
            drawdown_ppm=None if reading is None else reading.value,
            second_drawdown_ppm=None if reading is None else reading.second,
            unexplained=self.breaker.is_unexplained,
            evaluated=self.evaluated,
            completed=self.completed,
            level=page.level,
            keeper_restarts=keeper.restarts,
            breaker_restarts=self.breaker.restarts,
            faults_struck=self.struck,
            openings_wanted=self.trader.openings_wanted,
            openings_permitted=self.trader.openings_permitted,
            openings_sent=self.trader.openings_sent,
            resumed=self.breaker.has_resumed,
            rebased=self.breaker.has_rebased,
            healed=number * STEP_MS >= self.plan.heal_ms,
            lost=self.lost,
        )


def simulate(plan: Plan, steps: Steps | None = None) -> RunResult:
    """Run a plan to its end or to the first violation.

    Raises
    ------
    ConfigError
        The plan names a target or an invariant that the simulation does not have.
    """
    world = World(plan, steps or Steps())
    limits = Limits(
        VALUE,
        STARTING_MONEY,
        (50_000, 100_000, 150_000, 200_000),
        cool_down_ms=15 * 60 * 1_000,
        confirm_ms=500,
        flat_within_ms=FLAT_WITHIN_MS,
    )
    invariants = _chosen(plan, all_invariants(limits))
    digest = hashlib.sha256()
    violation: Violation | None = None
    level_max = Level.NORMAL
    for number in range(plan.end_ms // STEP_MS):
        tick = world.step(number)
        seen = world.observe(number)
        level_max = max(level_max, seen.level)
        digest.update(_trace(tick, seen).encode())
        violation = _first_violation(invariants, seen)
        if violation is not None:
            break
    else:
        violation = _last_violation(invariants, plan.end_ms)
    return RunResult(
        plan=plan,
        trace_hash=digest.hexdigest(),
        exercised={invariant.name: invariant.exercised for invariant in invariants},
        violation=violation,
        fills=len(world.venue.fills),
        restarts=world.keeper.restarts + world.breaker.restarts,
        level_max=level_max,
    )


def _chosen(plan: Plan, invariants: list[Invariant]) -> list[Invariant]:
    names = [invariant.name for invariant in invariants]
    unknown = [name for name in plan.hypothesis if name not in names]
    if unknown:
        raise ConfigError(f"hypothesis: unknown invariant {unknown}: known are {names}")
    return [item for item in invariants if not plan.hypothesis or item.name in plan.hypothesis]


def _first_violation(invariants: list[Invariant], seen: Observation) -> Violation | None:
    for invariant in invariants:
        message = invariant.observe(seen)
        if message is not None:
            return Violation(invariant.name, seen.time_ms, message)
    return None


def _last_violation(invariants: list[Invariant], end_ms: int) -> Violation | None:
    for invariant in invariants:
        message = invariant.finish()
        if message is not None:
            return Violation(invariant.name, end_ms, message)
    return None


def _trace(tick: Tick, seen: Observation) -> str:
    """Return one line that two equal runs share and two different runs hardly ever do."""
    return repr(
        (
            seen.time_ms,
            sorted(tick.mark_ticks.items()),
            sorted(seen.venue_lots.items()),
            len(seen.venue_fills),
            seen.equity,
            seen.drawdown_ppm,
            int(seen.level),
            seen.keeper_restarts,
            seen.breaker_restarts,
            seen.openings_sent,
            seen.resumed,
        )
    )
