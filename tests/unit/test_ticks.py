"""The tick rule: four ticks per bar, nearest tick, no tick where a bar is missing."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_adapters.market.ticks import (
    NO_TICK,
    PRICE_TICKS_MAX,
    Bars,
    TickFeed,
    bar_paths,
    nearest_ticks,
)
from exchange_adapters.simulator.instruments import listed_symbols, load_instruments
from tripgate.errors import DataError

START_MS = 1_600_000_000_000
MINUTE_MS = 60_000


def column(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def bars_of(*bars: tuple[float, float, float, float], bar_ms: int = MINUTE_MS) -> Bars:
    opens, highs, lows, closes = (column(*values) for values in zip(*bars, strict=True))
    return Bars(
        symbols=("BTC/USDT:USDT",),
        start_ms=START_MS,
        bar_ms=bar_ms,
        open=opens,
        high=highs,
        low=lows,
        close=closes,
    )


def test_path_when_bar_rises_then_open_low_high_close() -> None:
    path = bar_paths(column(10), column(13), column(8), column(12))
    assert path[:, 0].tolist() == [10, 8, 13, 12]


def test_path_when_bar_falls_then_open_high_low_close() -> None:
    path = bar_paths(column(12), column(13), column(8), column(10))
    assert path[:, 0].tolist() == [12, 13, 8, 10]


def test_path_when_close_equals_open_then_open_low_high_close() -> None:
    path = bar_paths(column(10), column(13), column(8), column(10))
    assert path[:, 0].tolist() == [10, 8, 13, 10]


@pytest.mark.parametrize("missing", range(4))
def test_path_when_any_price_is_nan_then_whole_bar_is_missing_and_others_stay(
    missing: int,
) -> None:
    values = [10.0, 13.0, 8.0, 12.0]
    values[missing] = math.nan
    arrays = [np.array([[value, whole]]) for value, whole in zip(values, (1, 4, 1, 2), strict=True)]
    path = bar_paths(*arrays)
    assert np.isnan(path[:, 0]).all()
    assert path[:, 1].tolist() == [1, 1, 4, 2]


def test_steps_when_bar_is_a_minute_then_times_are_quarters_and_one_ms_before_its_end() -> None:
    feed = TickFeed(bars_of((10, 13, 8, 12), (12, 12, 9, 9)))
    times = [feed.step(index).market_ms - START_MS for index in range(feed.length)]
    assert times == [0, 15_000, 30_000, 59_999, 60_000, 75_000, 90_000, 119_999]
    assert feed.step_ms == 15_000
    assert [feed.step(index).ticks for index in range(4)] == [(100,), (80,), (130,), (120,)]


def test_steps_when_bar_is_missing_then_none_and_not_the_last_price() -> None:
    gap = (math.nan, math.nan, math.nan, math.nan)
    feed = TickFeed(bars_of((10, 13, 8, 12), gap, (12, 12, 9, 9)))
    assert [feed.step(index).ticks for index in range(4, 8)] == [(None,)] * 4
    assert feed.step(8).ticks == (120,)


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_step_when_index_is_outside_then_index_error(index: int) -> None:
    feed = TickFeed(bars_of((10, 13, 8, 12)))
    with pytest.raises(IndexError, match="outside this feed of 4 steps"):
        feed.step(index)


@pytest.mark.parametrize("bar_ms", [0, 3, 60_001])
def test_feed_when_bar_has_no_quarters_then_data_error(bar_ms: int) -> None:
    with pytest.raises(DataError, match="four ticks"):
        TickFeed(bars_of((10, 13, 8, 12), bar_ms=bar_ms))


def test_nearest_when_price_is_below_half_a_tick_then_one_and_nan_is_no_tick() -> None:
    ticks = nearest_ticks(column(1e-9, math.nan, 0.26), np.array([0.1]))
    assert ticks[:, 0].tolist() == [1, NO_TICK, 3]


@pytest.mark.parametrize("price", [PRICE_TICKS_MAX * 0.1, 1e300, math.inf])
def test_nearest_when_price_cannot_be_counted_then_data_error(price: float) -> None:
    with pytest.raises(DataError, match="beyond what"):
        nearest_ticks(column(price), np.array([0.1]))


@given(symbol=st.sampled_from(listed_symbols()), price=st.floats(2.0**-10, 2.0**17, width=32))
def test_nearest_when_price_is_float32_then_no_tick_is_nearer(symbol: str, price: float) -> None:
    units = load_instruments([symbol])[symbol].units
    ticks = int(nearest_ticks(column(price), np.array([float(units.tick)]))[0, 0])
    tick = Fraction(units.tick)
    exact = units.nearest_ticks(price)
    # Only where the price lies between two ticks to within a float's error may the two differ.
    distance = abs(Fraction(price) - ticks * tick)
    best = abs(Fraction(price) - max(exact, 1) * tick)
    assert ticks >= 1
    assert distance <= best + tick * Fraction(1, 10**6)


@given(
    prices=st.lists(
        st.tuples(*[st.floats(1.0, 1e5)] * 4).map(
            lambda four: (four[0], max(four), min(four), four[3])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_path_when_bars_are_sound_then_every_bar_shows_exactly_its_four_prices(
    prices: list[tuple[float, float, float, float]],
) -> None:
    bars = bars_of(*prices)
    path = bar_paths(bars.open, bars.high, bars.low, bars.close)[:, 0].reshape(-1, 4)
    for shown, bar in zip(path.tolist(), prices, strict=True):
        assert shown[0] == bar[0]
        assert shown[3] == bar[3]
        assert sorted(shown) == sorted(bar)
