"""The breaker's step: readings of causes in, levels and actions per scope out.

Each cause is a ladder of comparators, one per threshold. A comparator switches on when the value
reaches its threshold and off when the value has stayed below 80 % of it for the cool-down, by fresh
evaluations. A cause's level is the highest comparator that is on; a scope's level is the highest of
its causes. Comparators that do not know of each other make the level monotone in the value: one
timer for the whole cause would let a worse history clear sooner than a better one.

HARD and above latch. Where a value comes from prices, HARD and above need the value on a second
price to agree for ``confirm_ms`` of market time; meanwhile the cause calls for MEDIUM.

Invariants
----------
K1  No message but ``Resume`` lowers a latched level (promise P5).
K2  After a restart nothing is lowered until every cause was evaluated afresh.
K3  A cause without a value is STALE: it keeps its level, cannot clear, and tightens its scope to
    SOFT until it has been fresh again for ``blind_hold_ms``.
K4  Time that runs backwards tightens only: a late reading never starts or completes a hold.
K5  A worse value never gives a lower level.
K6  ``SetLevel`` precedes the actions it causes; after a restart both are said again, because the
    predecessor may have died between them.
"""

from collections.abc import Mapping
from dataclasses import replace

from tripgate.errors import InvariantBroken
from tripgate.machines.breaker_types import (
    CLEAR_PPM,
    CONFIRM_MS,
    COOL_DOWN_MS,
    DRAWDOWN_THRESHOLDS,
    KEEPER_FAULT_THRESHOLDS,
    LEASE_LAPSED_THRESHOLDS,
    Breaker,
    BreakerSpec,
    CancelEntries,
    Cause,
    CauseKey,
    CauseState,
    Effect,
    Evaluate,
    Flatten,
    Halt,
    Message,
    Reading,
    Rebase,
    Restore,
    Resume,
    Resumed,
    ResumeRefused,
    SetFactor,
    SetLevel,
    Stop,
    Thresholds,
    Verdict,
    total_loss_thresholds,
)
from tripgate.machines.cause import called_level, held_level, read
from tripgate.reasons import Level
from tripgate.units import PPM

__all__ = [
    "CLEAR_PPM",
    "CONFIRM_MS",
    "COOL_DOWN_MS",
    "DRAWDOWN_THRESHOLDS",
    "KEEPER_FAULT_THRESHOLDS",
    "LEASE_LAPSED_THRESHOLDS",
    "UNMEASURED",
    "Breaker",
    "BreakerSpec",
    "CancelEntries",
    "Cause",
    "CauseKey",
    "CauseState",
    "Effect",
    "Evaluate",
    "Flatten",
    "Halt",
    "Message",
    "Reading",
    "Rebase",
    "Restore",
    "Resume",
    "ResumeRefused",
    "Resumed",
    "SetFactor",
    "SetLevel",
    "Stop",
    "Thresholds",
    "Verdict",
    "called_level",
    "dominant",
    "factor_ppm",
    "is_evaluated",
    "level_of",
    "new_breaker",
    "persisted_first",
    "step",
    "total_loss_thresholds",
]

UNMEASURED = frozenset({Cause.OPERATOR, Cause.RECOVERED})
"""Causes that are said, not measured: they have no reading, and only ``Resume`` ends them."""


def new_breaker(spec: BreakerSpec) -> Breaker:
    """Return a breaker whose causes have all never been evaluated."""
    for key in spec.causes:
        if key.cause in UNMEASURED:
            raise InvariantBroken(f"{key.cause.name} has no thresholds: it is never measured")
    causes = {key: CauseState() for key in spec.causes}
    return Breaker(spec, causes, locked=bool(spec.causes))


def is_evaluated(state: Breaker) -> bool:
    """Return whether every cause has a value or the verdict STALE: the condition of the lease."""
    return all(cause.verdict is not Verdict.NEVER for cause in state.causes.values())


def level_of(state: Breaker, scope: int) -> Level:
    """Return the level of one scope's own causes."""
    return dominant(state, scope)[1]


def factor_ppm(state: Breaker, scope: int) -> int:
    """Return the factor on one scope's limits and order sizes, ppm."""
    return state.spec.soft_factor_ppm if level_of(state, scope) >= Level.SOFT else PPM


def dominant(state: Breaker, scope: int) -> tuple[Cause | None, Level]:
    """Return the cause that sets a scope's level and that level; (None, NORMAL) if none does."""
    best: Cause | None = None
    level = Level.NORMAL
    for key in sorted(state.causes):
        if key.scope == scope and state.causes[key].contribution > level:
            best, level = key.cause, state.causes[key].contribution
    return best, level


def step(state: Breaker, message: Message, now: int) -> tuple[Breaker, tuple[Effect, ...]]:
    """Apply one message at market time ``now``, ms.

    Raises
    ------
    InvariantBroken
        A reading or a restored cause that the spec does not have. The state is unchanged.
    """
    match message:
        case Evaluate():
            return _evaluate(state, message, now)
        case Resume():
            return _resume(state, message)
        case Halt():
            return _halt(state, message, now)
    return _restore(state, message, now)


def _evaluate(state: Breaker, message: Evaluate, now: int) -> tuple[Breaker, tuple[Effect, ...]]:
    for key in message.values:
        if key not in state.spec.causes:
            raise InvariantBroken(f"no cause {key.cause.name} at scope {key.scope}")
    late = now < state.now_ms
    time_ms = max(now, state.now_ms)
    fresh = {
        key: reading for key, reading in message.values.items() if isinstance(reading, Reading)
    }
    # The last cause to be seen for the first time ends the lock for all of them at once.
    locked = state.locked and not all(
        (key in fresh and not late) or state.causes[key].fresh_once for key in state.spec.causes
    )
    causes = dict(state.causes)
    for key, thresholds in state.spec.causes.items():
        before = causes[key]
        reading = fresh.get(key)
        if reading is None:
            causes[key] = replace(
                before,
                verdict=Verdict.STALE,
                blind=True,
                fresh_since_ms=None,
                pending_hard_since_ms=None,
                pending_emergency_since_ms=None,
                below_since_ms=(None,) * 4,
            )
        else:
            causes[key] = read(state.spec, thresholds, before, reading, time_ms, late, locked)
    following = replace(state, causes=causes, now_ms=time_ms, locked=locked)
    return following, _difference(state, following)


def _resume(state: Breaker, message: Resume) -> tuple[Breaker, tuple[Effect, ...]]:
    causes = dict(state.causes)
    records: list[Effect] = []
    rebased = False
    for key in sorted(state.causes):
        before = state.causes[key]
        if key.scope != message.scope or before.contribution is Level.NORMAL:
            continue
        thresholds = state.spec.causes.get(key)
        rebases = message.rebase and thresholds is not None and thresholds.rebasable
        if not before.latched and not rebases:
            continue
        problem = _resume_problem(state, thresholds, before, rebases)
        if problem is not None:
            records.append(ResumeRefused(key, problem, message.record_id))
            continue
        causes[key] = after = _released(state, before, thresholds, rebases)
        rebased = rebased or rebases
        records.append(Resumed(key, before.level, after.level, message.operator, message.record_id))
    if rebased:
        records.append(Rebase(message.scope, message.operator, message.record_id))
    following = replace(state, causes=causes)
    return following, (*records, *_difference(state, following))


def _resume_problem(
    state: Breaker, thresholds: Thresholds | None, cause: CauseState, rebases: bool
) -> str | None:
    """Return why a cause may not be released now; None if it may."""
    if state.locked:
        return "not every cause has been evaluated afresh since the restart"
    if thresholds is None:
        return None
    if cause.verdict is not Verdict.FRESH:
        return "it has no fresh value"
    if not rebases and called_level(thresholds, cause.value) >= thresholds.latches_at:
        return "its value is still beyond the threshold that latches"
    return None


def _released(
    state: Breaker, before: CauseState, thresholds: Thresholds | None, rebases: bool
) -> CauseState:
    """Return a cause without its latch, at the level its ordinary hysteresis still holds."""
    if thresholds is None or thresholds.latches_at < Level.HARD:
        # What is said, or was mended, has no measure that could flutter.
        return CauseState(verdict=Verdict.FRESH, fresh_once=True)
    if rebases:
        return replace(
            CauseState(verdict=Verdict.FRESH, fresh_once=True),
            blind=before.blind,
            fresh_since_ms=before.fresh_since_ms,
            since_ms=state.now_ms,
        )
    level = min(before.level, Level.MEDIUM)
    level = held_level(level, before.below_since_ms, state.now_ms - state.spec.cool_down_ms)
    return replace(before, level=level, latched=False, since_ms=state.now_ms)


def _halt(state: Breaker, message: Halt, now: int) -> tuple[Breaker, tuple[Effect, ...]]:
    key = CauseKey(Cause.OPERATOR, message.scope)
    before = state.causes.get(key, CauseState(verdict=Verdict.FRESH, fresh_once=True))
    level = max(before.level, message.level)
    since_ms = before.since_ms if level is before.level else max(now, state.now_ms)
    after = replace(before, level=level, latched=level > Level.NORMAL, since_ms=since_ms)
    following = replace(state, causes={**state.causes, key: after})
    return following, _difference(state, following)


def _restore(state: Breaker, message: Restore, now: int) -> tuple[Breaker, tuple[Effect, ...]]:
    causes = dict(state.causes)
    for key, logged in message.causes.items():
        said = key.cause in UNMEASURED
        if not said and key not in state.spec.causes:
            raise InvariantBroken(f"restored cause {key.cause.name} at scope {key.scope} is gone")
        level = max(logged.level, causes[key].level if key in causes else Level.NORMAL)
        causes[key] = CauseState(
            level=level,
            value=logged.value,
            since_ms=logged.since_ms,
            latched=logged.latched or level >= Level.HARD,
            verdict=Verdict.FRESH if said else Verdict.NEVER,
            blind=logged.blind,
            fresh_once=said,
        )
    following = replace(
        state, causes=causes, now_ms=max(now, state.now_ms), locked=bool(state.spec.causes)
    )
    for scope in sorted(message.published):
        level = message.published[scope]
        if level > level_of(following, scope):
            # The page is tighter than the log explains: its lost reason may be a good one.
            found = CauseState(
                level=level,
                since_ms=following.now_ms,
                latched=True,
                verdict=Verdict.FRESH,
                fresh_once=True,
            )
            causes = {**causes, CauseKey(Cause.RECOVERED, scope): found}
            following = replace(following, causes=causes)
    return following, _difference(None, following)


def _difference(before: Breaker | None, after: Breaker) -> tuple[Effect, ...]:
    """Return the effects that lead from one state's levels to the next one's.

    ``before`` None stands for a predecessor of whom nothing is known: every scope is said again.
    """
    effects: list[Effect] = []
    for scope in sorted({key.scope for key in after.causes}):
        cause, level = dominant(after, scope)
        known = Level.NORMAL if before is None else level_of(before, scope)
        if before is not None and level is known:
            continue
        if cause is None and before is not None:
            cause = dominant(before, scope)[0]
        effects.append(SetLevel(scope, level, cause))
        factor = factor_ppm(after, scope)
        if before is None or factor != factor_ppm(before, scope):
            effects.append(SetFactor(scope, factor))
        if known < Level.MEDIUM <= level:
            effects.append(CancelEntries(scope))
        if known < Level.HARD <= level:
            effects.append(Flatten(scope))
        if known < Level.EMERGENCY <= level:
            effects.append(Stop(scope))
    return tuple(effects)


def persisted_first(before: Breaker, after: Breaker) -> Mapping[CauseKey, CauseState]:
    """Return what must be durable before the effects of a step: the tighter state of each cause.

    ``after.causes`` becomes durable once the effects are carried out. Then whoever dies in between
    leaves a log at least as tight as the page: a forgotten trip is impossible, and a withdrawal
    that was cut short is only withdrawn later. Were a withdrawal logged first, a death in between
    would leave a page that nothing explains, and a restart would need the operator (RECOVERED).
    """
    return {
        key: before.causes[key]
        if key in before.causes and _is_tighter(before, key, cause)
        else cause
        for key, cause in after.causes.items()
    }


def _is_tighter(before: Breaker, key: CauseKey, cause: CauseState) -> bool:
    old = before.causes[key]
    return (old.contribution, old.latched) > (cause.contribution, cause.latched)
