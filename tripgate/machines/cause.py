"""One cause of the breaker: a ladder of comparators that do not know of each other.

A comparator switches on when the value reaches its threshold and off when the value has stayed
below 80 % of it for the cool-down, by fresh evaluations. The cause's level is the highest that is
on. HARD and above latch (a fault already at MEDIUM); where the value comes from prices they also
need a second price to agree for a while, and an EMERGENCY reading goes through the same
confirmation with a timer of its own.
"""

from tripgate.machines.breaker_types import (
    CLEAR_PPM,
    BreakerSpec,
    CauseState,
    Reading,
    Thresholds,
    Verdict,
)
from tripgate.reasons import Level
from tripgate.units import PPM


def called_level(thresholds: Thresholds, value: int) -> Level:
    """Return the highest level whose threshold ``value`` has reached."""
    called = Level.NORMAL
    for level, threshold in thresholds.rungs():
        if value >= threshold:
            called = level
    return called


def read(
    spec: BreakerSpec,
    thresholds: Thresholds,
    before: CauseState,
    reading: Reading,
    now: int,
    late: bool,
    locked: bool,
) -> CauseState:
    """Return a cause after one fresh reading.

    Parameters
    ----------
    now
        Market time, ms; never before the last reading's.
    late
        The reading is older than the last one: it may tighten and does nothing else.
    locked
        Some cause has not been evaluated since the restart: nothing may be withdrawn.
    """
    called, hard_ms, emergency_ms = _confirmed(spec, thresholds, before, reading, now, late)
    below = _below(thresholds, before.below_since_ms, reading.value, now, late or locked)
    fresh_since_ms = before.fresh_since_ms
    if fresh_since_ms is None and not late:
        fresh_since_ms = now
    held = before.level
    blind = before.blind
    if not (late or locked):
        if not before.latched:
            held = held_level(before.level, below, now - spec.cool_down_ms)
        if fresh_since_ms is not None and now - fresh_since_ms >= spec.blind_hold_ms:
            blind = False
    level = max(called, held)
    return CauseState(
        level=level,
        value=max(reading.value, before.value) if late else reading.value,
        since_ms=before.since_ms if level is before.level else now,
        latched=before.latched or level >= thresholds.latches_at,
        verdict=before.verdict if late else Verdict.FRESH,
        blind=blind,
        fresh_once=before.fresh_once or not late,
        fresh_since_ms=fresh_since_ms,
        pending_hard_since_ms=hard_ms,
        pending_emergency_since_ms=emergency_ms,
        below_since_ms=below,
    )


def _confirmed(
    spec: BreakerSpec,
    thresholds: Thresholds,
    before: CauseState,
    reading: Reading,
    now: int,
    late: bool,
) -> tuple[Level, int | None, int | None]:
    """Return (level called for, HARD pending since, EMERGENCY pending since)."""
    called = called_level(thresholds, reading.value)
    if not thresholds.by_prices:
        return called, None, None
    second = Level.NORMAL if reading.second is None else called_level(thresholds, reading.second)
    agreed = min(called, second)
    if late:
        # Too old to begin, complete or break a confirmation; it can still call for MEDIUM.
        pending = before.pending_hard_since_ms, before.pending_emergency_since_ms
        return (min(called, Level.MEDIUM), *pending)
    hard_ms = _pending(before.pending_hard_since_ms, agreed >= Level.HARD, now)
    emergency_ms = _pending(before.pending_emergency_since_ms, agreed >= Level.EMERGENCY, now)
    if emergency_ms is not None and now - emergency_ms >= spec.confirm_ms:
        return Level.EMERGENCY, hard_ms, emergency_ms
    if hard_ms is not None and now - hard_ms >= spec.confirm_ms and thresholds.hard is not None:
        return Level.HARD, hard_ms, emergency_ms
    return min(called, Level.MEDIUM), hard_ms, emergency_ms


def _pending(since_ms: int | None, beyond: bool, now: int) -> int | None:
    if not beyond:
        return None
    return now if since_ms is None else since_ms


def _below(
    thresholds: Thresholds, since_ms: tuple[int | None, ...], value: int, now: int, frozen: bool
) -> tuple[int | None, ...]:
    """Return since when the value has been below 80 % of each level's threshold."""
    updated: list[int | None] = []
    for since, threshold in zip(since_ms, thresholds.comparators(), strict=True):
        if threshold is None or value * PPM >= threshold * CLEAR_PPM:
            updated.append(None)
        elif since is None and frozen:
            updated.append(None)
        else:
            updated.append(now if since is None else since)
    return tuple(updated)


def held_level(level: Level, below: tuple[int | None, ...], cleared_at_ms: int) -> Level:
    """Return the highest level up to ``level`` whose comparator has not cleared yet."""
    while level > Level.NORMAL:
        since_ms = below[level - 1]
        if since_ms is None or since_ms > cleared_at_ms:
            return level
        level = Level(level - 1)
    return level
