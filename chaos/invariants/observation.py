"""What an invariant is shown after each step of a run, and what every invariant looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from tripgate.machines.book import Equity, Fill, Key
from tripgate.reasons import Level


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures that the run was started with, written down apart from the code under test.

    Attributes
    ----------
    value
        Money units per lot and tick, by instrument.
    drawdown_ppm
        Thresholds of SOFT, MEDIUM, HARD, EMERGENCY.
    flat_within_ms
        Time after reaching HARD within which every position must be closed.
    """

    value: Mapping[int, Fraction]
    starting_money: int
    drawdown_ppm: tuple[int, int, int, int]
    cool_down_ms: int
    confirm_ms: int
    flat_within_ms: int


@dataclass(frozen=True, slots=True)
class Observation:
    """The run after one step.

    Attributes
    ----------
    venue_fills, logged_fills
        All fills so far, as the venue made them and as the log holds them.
    shown_mark_ticks
        Last marks shown to the keeper since it was last restarted.
    book_lots, equity, drawdown_ppm, second_drawdown_ppm
        The keeper's own figures; None while it is dead or (the last three) has no value.
    unexplained
        The breaker found the page tighter than its log explains.
    evaluated, completed
        The breaker took in this step's readings; it also lived to carry out what follows from them.
    openings_wanted, openings_permitted, openings_sent
        Orders that add risk in this step: asked for; let through by level and leases; sent, being
        within the limit too.
    resumed
        The operator's command was carried out in this step; ``rebased`` if the mark went with it.
    lost
        The total-loss floor was reached: such a run ends closed and does not recover.
    """

    time_ms: int
    venue_fills: Sequence[Fill]
    logged_fills: Sequence[Fill]
    venue_lots: Mapping[Key, int]
    shown_mark_ticks: Mapping[int, int]
    book_lots: Mapping[Key, int] | None
    equity: Equity | None
    drawdown_ppm: int | None
    second_drawdown_ppm: int | None
    unexplained: bool
    evaluated: bool
    completed: bool
    level: Level
    keeper_restarts: int
    breaker_restarts: int
    faults_struck: int
    openings_wanted: int
    openings_permitted: int
    openings_sent: int
    resumed: bool
    rebased: bool
    healed: bool
    lost: bool


class Invariant(Protocol):
    """One promise.

    ``observe`` and ``finish`` return what is wrong, or None. ``exercised`` counts how often there
    was something to judge, and ``judges`` says what that was.
    """

    name: str
    judges: str
    exercised: int

    def observe(self, seen: Observation) -> str | None:
        """Judge one step."""

    def finish(self) -> str | None:
        """Judge the whole run."""
