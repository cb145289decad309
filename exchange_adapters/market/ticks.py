"""The tick rule: how a bar becomes four ticks, and a recorded price a whole number of ticks.

A bar knows its extremes but not their order. The rule assumes the order that a move in the bar's
direction most plausibly took: open, low, high, close if it closed at or above its open, else open,
high, low, close. The last tick comes 1 ms before the bar ends, so that it belongs to its own bar.

Invariants: T1 a bar with any NaN gives no tick at all (an outage is stale, never a zero return);
T2 a tick is never below 1; T3 nothing depends on a later bar.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exchange_adapters.simulator.instruments import load_instruments
from tripgate.errors import DataError

TICKS_PER_BAR = 4
NO_TICK = 0
"""In tick arrays: no tick. A price is at least one tick, so 0 is free."""

PRICE_TICKS_MAX = 2**53
"""Largest tick that a float64 still counts exactly."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lock-step feed.

    Attributes
    ----------
    index
        Number of the step, from 0.
    market_ms
        Market time of the step, ms since 1970.
    ticks
        Per symbol of the feed the price in ticks, ``None`` where there was no tick (an outage).
    """

    index: int
    market_ms: int
    ticks: tuple[int | None, ...]


@dataclass(frozen=True)
class Bars:
    """Consecutive bars of several symbols on one regular grid.

    Attributes
    ----------
    symbols
        N unified symbols.
    start_ms
        Market time at which the first bar opens.
    bar_ms
        Length of a bar, a multiple of 4 ms.
    open, high, low, close
        Prices in quote currency, float64 [bar, symbol]; NaN where there is no bar.
    """

    symbols: tuple[str, ...]
    start_ms: int
    bar_ms: int
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]


def bar_paths(
    open_: NDArray[np.float64],
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the four prices of every bar in the order of the rule.

    Parameters
    ----------
    open_, high, low, close
        float64 [bar, symbol].

    Returns
    -------
    NDArray
        float64 [4 × bar, symbol]; all four NaN where the bar has any NaN.
    """
    path = np.empty((len(open_), TICKS_PER_BAR, *open_.shape[1:]))
    rises = close >= open_
    path[:, 0] = open_
    path[:, 1] = np.where(rises, low, high)
    path[:, 2] = np.where(rises, high, low)
    path[:, 3] = close
    missing = np.isnan(path).any(axis=1, keepdims=True)
    path[np.broadcast_to(missing, path.shape)] = np.nan
    return path.reshape(TICKS_PER_BAR * len(open_), *open_.shape[1:])


def nearest_ticks(
    prices: NDArray[np.float64], tick_sizes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return prices as whole ticks: the nearest, never below 1, ``NO_TICK`` for NaN.

    Parameters
    ----------
    prices
        float64 [step, symbol], positive or NaN, quote currency.
    tick_sizes
        float64 [symbol], quote currency.

    Raises
    ------
    DataError
        A price of 2^53 ticks or more.
    """
    ticks = np.rint(prices / tick_sizes)
    if bool((ticks >= PRICE_TICKS_MAX).any()):
        raise DataError(
            "a price is beyond what its instrument's tick can count: check the panel's units"
        )
    return np.where(np.isnan(ticks), NO_TICK, np.maximum(ticks, 1)).astype(np.int64)


class TickFeed:
    """A feed over an array of ticks: random access, immutable, cheap to ask twice.

    Parameters
    ----------
    bars
        The bars to play.

    Raises
    ------
    DataError
        A symbol that the simulated venue does not list, or a bar length that has no quarters.
    """

    def __init__(self, bars: Bars) -> None:
        if bars.bar_ms < TICKS_PER_BAR or bars.bar_ms % TICKS_PER_BAR:
            raise DataError(f"bars of {bars.bar_ms} ms cannot be split into four ticks: use others")
        self.symbols: tuple[str, ...] = bars.symbols
        self.start_ms = bars.start_ms
        self.step_ms = bars.bar_ms // TICKS_PER_BAR
        instruments = load_instruments(bars.symbols)
        sizes = np.array([float(instruments[symbol].units.tick) for symbol in bars.symbols])
        path = bar_paths(bars.open, bars.high, bars.low, bars.close)
        self._ticks = nearest_ticks(path, sizes)
        self._ticks.flags.writeable = False
        self.length = len(self._ticks)

    def step(self, index: int) -> Step:
        """Return one step. Raises ``IndexError`` outside ``0 ≤ index < length``."""
        if not 0 <= index < self.length:
            raise IndexError(f"step {index} is outside this feed of {self.length} steps")
        row = self._ticks[index].tolist()
        ticks = tuple(None if tick == NO_TICK else tick for tick in row)
        return Step(index=index, market_ms=self._market_ms(index), ticks=ticks)

    def _market_ms(self, index: int) -> int:
        bar, quarter = divmod(index, TICKS_PER_BAR)
        bar_start_ms = self.start_ms + bar * TICKS_PER_BAR * self.step_ms
        if quarter == TICKS_PER_BAR - 1:
            return bar_start_ms + TICKS_PER_BAR * self.step_ms - 1
        return bar_start_ms + quarter * self.step_ms
