"""A made-up market: fat-tailed whole-tick prices, a crash in most runs, gaps in the data.

Moves are whole parts per million. A move's size is uniform and then doubled with probability 1/4
again and again, which gives a tail that falls by a constant factor per doubling of the size: far
fatter than normal, and exact on every machine.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tripgate.units import PPM

START_TICKS: Mapping[int, int] = {0: 600_000, 1: 45_000, 2: 9_000}
"""Instruments and their first prices, ticks."""

MOVE_PPM_MAX = 2_400
"""Largest move of one step before doubling, ppm."""

DOUBLINGS_MAX = 6
CRASH_MOVE_PPM = 14_000
"""Average common fall per step of a crash, ppm."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Prices of one step; an instrument without fresh data is absent from both tables."""

    mark_ticks: Mapping[int, int]
    last_ticks: Mapping[int, int]


class Market:
    """Draws one ``Tick`` per step."""

    def __init__(self, seed: int, steps: int) -> None:
        self._random = random.Random(f"market/{seed}")
        self._ticks = dict(START_TICKS)
        start = self._random.randrange(steps * 3 // 4)
        self._crash = range(start, start + self._random.randrange(6, 30))
        self._step = -1

    def _move_ppm(self) -> int:
        size = self._random.randrange(MOVE_PPM_MAX)
        for _ in range(DOUBLINGS_MAX):
            if self._random.randrange(4):
                break
            size *= 2
        return size if self._random.randrange(2) else -size

    def step(self) -> Tick:
        """Return the next step's prices."""
        self._step += 1
        common = self._move_ppm() // 2
        if self._step in self._crash:
            common -= self._random.randrange(2 * CRASH_MOVE_PPM)
        marks: dict[int, int] = {}
        lasts: dict[int, int] = {}
        for instrument, before in self._ticks.items():
            move = max(common + self._move_ppm(), -PPM // 2)
            ticks = max(1, before * (PPM + move) // PPM)
            self._ticks[instrument] = ticks
            # The last trade strays from the mark, now and then by a lot: one print is no price.
            stray = self._random.randrange(-800, 801)
            if self._random.randrange(80) == 0:
                stray *= 60
            # The first step always has every price, so that a run begins with a known equity.
            if self._step == 0 or self._random.randrange(25):
                marks[instrument] = ticks
                lasts[instrument] = max(1, ticks * (PPM + stray) // PPM)
        return Tick(marks, lasts)
