"""What the breaker's step reads, keeps and says: specification, state, messages, effects.

Values are whole numbers in which more is worse; a cause whose measure falls as danger grows (the
distance to liquidation) is turned round by whoever measures it. Times are market time in ms. Host
time enters as a value only: ``lease_lapsed`` reads the seconds for which a lease has been lapsed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import NamedTuple

from tripgate.errors import InvariantBroken
from tripgate.reasons import Level
from tripgate.units import PPM

CONFIRM_MS = 500
"""Market time for which two prices must agree before HARD or EMERGENCY follows from prices."""

COOL_DOWN_MS = 15 * 60 * 1_000
"""Market time for which a value must stay below its clearing point."""

CLEAR_PPM = 800_000
"""Clearing point as a share of the threshold: far enough below that noise does not toggle it."""


@unique
class Cause(IntEnum):
    """Why a scope is tightened. Numbers are part of the log format and are never reused.

    ``RECOVERED`` is a level found on the page after a crash that no logged cause explains.
    ``KEEPER_FAULT`` is what the position_keeper found wrong and holds its own byte for: a sum of
    the counters file that is not the sum of its parts.
    """

    DRAWDOWN = 1
    TOTAL_LOSS = 2
    LEASE_LAPSED = 3
    OPERATOR = 4
    RECOVERED = 5
    KEEPER_FAULT = 6


class CauseKey(NamedTuple):
    """A cause at a scope; ``scope`` is a node index of the page."""

    cause: Cause
    scope: int


@unique
class Verdict(IntEnum):
    """How good a cause's value is."""

    NEVER = 0
    FRESH = 1
    STALE = 2


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Values at which one cause calls for each level; None where it never does.

    Attributes
    ----------
    by_prices
        HARD and EMERGENCY need a second price to agree (``Reading.second``).
    rebasable
        An operator may restart its measure (the drawdown's high-water mark).
    latches_at
        From this level on only ``Resume`` ends it.

    Raises
    ------
    InvariantBroken
        A threshold is not positive or thresholds do not rise with the level.
    """

    soft: int | None = None
    medium: int | None = None
    hard: int | None = None
    emergency: int | None = None
    by_prices: bool = False
    rebasable: bool = False
    latches_at: Level = Level.HARD

    def __post_init__(self) -> None:
        """Refuse ladders that are empty or do not rise."""
        given = [threshold for _, threshold in self.rungs()]
        if not given or given[0] <= 0 or given != sorted(set(given)):
            raise InvariantBroken(f"thresholds must be positive and rise with the level: {given}")

    def rungs(self) -> list[tuple[Level, int]]:
        """Return the (level, threshold) pairs that exist, in rising order."""
        ladder = (
            (Level.SOFT, self.soft),
            (Level.MEDIUM, self.medium),
            (Level.HARD, self.hard),
            (Level.EMERGENCY, self.emergency),
        )
        return [(level, threshold) for level, threshold in ladder if threshold is not None]

    def comparators(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Return the threshold whose clearing ends each level, SOFT .. EMERGENCY.

        A level that a cause can be at without having a threshold for it (MEDIUM while EMERGENCY is
        being confirmed) ends with the next threshold above.
        """
        emergency = self.emergency
        hard = emergency if self.hard is None else self.hard
        medium = hard if self.medium is None else self.medium
        soft = medium if self.soft is None else self.soft
        return soft, medium, hard, emergency


DRAWDOWN_THRESHOLDS = Thresholds(50_000, 100_000, 150_000, 200_000, by_prices=True, rebasable=True)
"""Drawdown from the high-water mark, ppm."""

LEASE_LAPSED_THRESHOLDS = Thresholds(medium=30)
"""Seconds of host time for which a critical lease has been lapsed."""

KEEPER_FAULT_THRESHOLDS = Thresholds(medium=1, latches_at=Level.MEDIUM)
"""1 while the keeper holds its level byte: a fault is not a measure that clears by waiting."""


def total_loss_thresholds(loss_max_money: int) -> Thresholds:
    """Return the floor under the whole account: starting equity − equity, money units."""
    return Thresholds(emergency=loss_max_money, by_prices=True)


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """What one run's breaker watches; fixed at its start.

    Attributes
    ----------
    causes
        Thresholds of every measured cause at every scope.
    soft_factor_ppm
        Factor on limits and order sizes from SOFT up, 1 .. 1_000_000.
    blind_hold_ms
        How long a cause that was STALE must be fresh before its SOFT ends.
    """

    causes: Mapping[CauseKey, Thresholds]
    soft_factor_ppm: int
    confirm_ms: int = CONFIRM_MS
    cool_down_ms: int = COOL_DOWN_MS
    blind_hold_ms: int = COOL_DOWN_MS

    def __post_init__(self) -> None:
        """Refuse a factor that would widen a limit."""
        if not 0 < self.soft_factor_ppm <= PPM:
            raise InvariantBroken(f"soft factor {self.soft_factor_ppm} ppm is not within (0, 1]")


@dataclass(frozen=True, slots=True)
class CauseState:
    """One cause as it stands.

    Attributes
    ----------
    level, since_ms, latched
        Level its value called for and has not withdrawn, since when, and whether it is latched.
    value
        Last fresh value.
    blind, fresh_since_ms
        STALE at some time and not yet fresh for long enough; start of the present fresh run.
    fresh_once
        Evaluated afresh since the last restart.
    pending_hard_since_ms, pending_emergency_since_ms
        Since when both prices have been beyond HARD and beyond EMERGENCY.
    below_since_ms
        For SOFT .. EMERGENCY: since when the value has been below that level's clearing point.
    """

    level: Level = Level.NORMAL
    value: int = 0
    since_ms: int = 0
    latched: bool = False
    verdict: Verdict = Verdict.NEVER
    blind: bool = False
    fresh_once: bool = False
    fresh_since_ms: int | None = None
    pending_hard_since_ms: int | None = None
    pending_emergency_since_ms: int | None = None
    below_since_ms: tuple[int | None, ...] = (None, None, None, None)

    @property
    def contribution(self) -> Level:
        """Level this cause gives its scope."""
        return max(self.level, Level.SOFT) if self.blind else self.level


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker's state; make it with ``new_breaker``. ``locked``: withdraws nothing yet."""

    spec: BreakerSpec
    causes: Mapping[CauseKey, CauseState]
    now_ms: int = 0
    locked: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """A fresh value on mark prices and, where there is one, the same value on last prices."""

    value: int
    second: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Readings of all measured causes; one that is absent or ``Verdict.STALE`` is STALE."""

    values: Mapping[CauseKey, Reading | Verdict]

    def __post_init__(self) -> None:
        """Refuse a verdict that claims freshness without a value."""
        for key, reading in self.values.items():
            if isinstance(reading, Verdict) and reading is not Verdict.STALE:
                raise InvariantBroken(f"{key.cause.name}: {reading.name} without a value")


@dataclass(frozen=True, slots=True)
class Resume:
    """An operator's recorded command to release the latches of one scope."""

    scope: int
    rebase: bool
    operator: str
    record_id: int


@dataclass(frozen=True, slots=True)
class Halt:
    """An operator's recorded command to tighten one scope; it holds until ``Resume``."""

    scope: int
    level: Level
    record_id: int


@dataclass(frozen=True, slots=True)
class Restore:
    """After a restart: causes from the log and the levels found on the page, by scope."""

    causes: Mapping[CauseKey, CauseState]
    published: Mapping[int, Level]


@dataclass(frozen=True, slots=True)
class SetLevel:
    """Effect: store the scope's level; ``cause`` set it, or withdrew what held it higher."""

    scope: int
    level: Level
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class SetFactor:
    """Effect: multiply the scope's limits and order sizes by ``ppm``."""

    scope: int
    ppm: int


@dataclass(frozen=True, slots=True)
class CancelEntries:
    """Effect: cancel resting entries of the scope until observed gone."""

    scope: int


@dataclass(frozen=True, slots=True)
class Flatten:
    """Effect: close every position of the scope until observed flat."""

    scope: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Effect: once observed flat, stop closed."""

    scope: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """Effect, for the record: an operator released a cause."""

    key: CauseKey
    level_before: Level
    level_after: Level
    operator: str
    record_id: int


@dataclass(frozen=True, slots=True)
class ResumeRefused:
    """Effect, for the record: a cause could not be released, and why."""

    key: CauseKey
    reason: str
    record_id: int


@dataclass(frozen=True, slots=True)
class Rebase:
    """Effect: restart the scope's high-water mark at present equity before the next reading."""

    scope: int
    operator: str
    record_id: int


Message = Evaluate | Resume | Halt | Restore
Effect = SetLevel | SetFactor | CancelEntries | Flatten | Stop | Resumed | ResumeRefused | Rebase
