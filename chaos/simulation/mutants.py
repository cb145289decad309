"""Planted bugs that the invariants must catch: the proof that the oracle is alive.

Each mutant breaks one fence of the steps and names the invariants of which at least one must see
it. A mutant that survives means a missing invariant or a fence that nothing needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from chaos.simulation.campaign import draw_plan
from chaos.simulation.run import RunResult, simulate
from chaos.simulation.surroundings import Steps
from models import drawdown
from models.drawdown import Drawdown
from tripgate.machines import book, breaker
from tripgate.machines.book import Book, Equity, EquityChanged, Fill
from tripgate.machines.breaker import (
    Breaker,
    Evaluate,
    Flatten,
    Reading,
    Restore,
    SetLevel,
    Verdict,
)
from tripgate.reasons import Level

_BookStep = tuple[Book, tuple[book.Effect, ...]]
_BreakerStep = tuple[Breaker, tuple[breaker.Effect, ...]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug, and the invariants of which one must catch it.

    Attributes
    ----------
    seed
        Where it was caught last; the hunt begins there, which saves time and decides nothing.
    """

    bug: str
    steps: Steps
    caught_by: frozenset[str]
    seed: int = 0


def _duplicates_booked(state: Book, message: book.Message, now: int) -> _BookStep:
    if isinstance(message, Fill):
        state = replace(state, last_trade_id={})
    return book.step(state, message, now)


def _fees_forgotten(state: Book, message: book.Message, now: int) -> _BookStep:
    if isinstance(message, Fill):
        message = replace(message, fee_money=0)
    return book.step(state, message, now)


def _unknown_is_starting_equity(state: Book, message: book.Message, now: int) -> _BookStep:
    state, effects = book.step(state, message, now)
    start = Equity(state.starting_money, state.starting_money)
    return state, tuple(
        replace(effect, portfolio=start)
        if isinstance(effect, EquityChanged) and effect.portfolio.on_mark_money is None
        else effect
        for effect in effects
    )


def _mark_decays(state: Drawdown, equity_money: int, flow_money: int, market_ms: int) -> Drawdown:
    lower = replace(state, high_water_mark_money=state.high_water_mark_money * 9_999 // 10_000)
    return drawdown.update(lower, equity_money, flow_money, market_ms)


def _latch_forgotten(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    following, effects = breaker.step(state, message, now)
    if not isinstance(message, Evaluate):
        return following, effects
    causes = dict(following.causes)
    for key, thresholds in following.spec.causes.items():
        cause = causes[key]
        below = breaker.called_level(thresholds, cause.value) < Level.HARD
        if cause.latched and below and cause.verdict is Verdict.FRESH:
            causes[key] = replace(cause, level=Level.MEDIUM, latched=False)
            following = replace(following, causes=causes)
            level = breaker.level_of(following, key.scope)
            effects = (*effects, SetLevel(key.scope, level, key.cause))
    return following, effects


def _restart_clears(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    if isinstance(message, Restore):
        message = Restore(dict.fromkeys(state.causes, breaker.CauseState()), {})
    return breaker.step(state, message, now)


def _flatten_ignored(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    state, effects = breaker.step(state, message, now)
    return state, tuple(effect for effect in effects if not isinstance(effect, Flatten))


def _actions_not_repeated(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    following, effects = breaker.step(state, message, now)
    return following, () if isinstance(message, Restore) else effects


def _level_not_published(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    state, effects = breaker.step(state, message, now)
    return state, tuple(effect for effect in effects if not isinstance(effect, SetLevel))


def _stale_is_zero(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    if isinstance(message, Evaluate):
        message = Evaluate(
            {
                key: Reading(0, 0) if isinstance(reading, Verdict) else reading
                for key, reading in message.values.items()
            }
        )
    return breaker.step(state, message, now)


def _no_cool_down(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    return breaker.step(replace(state, spec=replace(state.spec, cool_down_ms=0)), message, now)


def _confirmation_restarts(state: Breaker, message: breaker.Message, now: int) -> _BreakerStep:
    causes = {
        key: replace(cause, pending_hard_since_ms=None, pending_emergency_since_ms=None)
        for key, cause in state.causes.items()
    }
    return breaker.step(replace(state, causes=causes), message, now)


_BOOK = frozenset({"I4_book_equals_log_and_venue"})
_EQUITY = frozenset({"B2_equity_is_exact"})
_DRAWDOWN = frozenset({"D_drawdown_survives_restarts"})
_DEMANDED = frozenset({"P5_level_is_demanded_by_readings"})
_LATCH = frozenset({"P5_latch_needs_an_operator"})
_RESTART = frozenset({"I6_restart_never_loosens"})
_FLAT = frozenset({"I5_latched_ends_flat"})

MUTANTS: Mapping[str, Mutant] = {
    mutant.bug: mutant
    for mutant in (
        Mutant("duplicate fills are booked", Steps(book_step=_duplicates_booked), _BOOK),
        Mutant("fees are forgotten", Steps(book_step=_fees_forgotten), _EQUITY),
        Mutant(
            "unknown equity is the starting equity",
            Steps(book_step=_unknown_is_starting_equity),
            _EQUITY,
        ),
        Mutant("the high-water mark decays", Steps(drawdown_update=_mark_decays), _DRAWDOWN),
        Mutant("the latch is forgotten", Steps(breaker_step=_latch_forgotten), _LATCH, 123),
        Mutant("a restart clears the causes", Steps(breaker_step=_restart_clears), _RESTART),
        Mutant("flatten is ignored", Steps(breaker_step=_flatten_ignored), _FLAT),
        Mutant(
            "actions are not repeated after a restart",
            Steps(breaker_step=_actions_not_repeated),
            _FLAT | _DEMANDED,
        ),
        Mutant("levels are not published", Steps(breaker_step=_level_not_published), _DEMANDED),
        Mutant("a stale value counts as zero", Steps(breaker_step=_stale_is_zero), _DEMANDED, 89),
        Mutant("there is no cool-down", Steps(breaker_step=_no_cool_down), _DEMANDED | _RESTART),
        Mutant(
            "the confirmation never completes",
            Steps(breaker_step=_confirmation_restarts),
            _DEMANDED,
        ),
    )
}


def hunt(mutant: Mutant, seeds: int) -> RunResult | None:
    """Return the first run of ``seeds`` in which an invariant catches the mutant, else None."""
    for seed in (mutant.seed, *range(seeds)):
        result = simulate(draw_plan(seed), mutant.steps)
        if result.violation is not None:
            return result
    return None
