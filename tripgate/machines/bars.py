"""Bars from ticks: a pure step that the feed runs on every tick, and tests on every list.

Bars stand on a grid of market time that begins at 0 (1970), so that the bars of all instruments
and of every restart fall together. A stretch without a tick makes no bar: a bar of the last price
would be a zero return that nobody traded, and would make every volatility too small.

Invariants: A1 a bar closes only when market time has reached its end, and never changes after
that; A2 bars open in rising order; A3 what is no positive price (an outage, NaN, infinity) is no
tick, and what is older than the bar in progress is too late to be one; A4 a closed bar has
low ≤ open, close ≤ high and at least one tick.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: prices in ticks, ``ticks`` how many of them it holds, ``opened_ms`` its grid time.

    A bar covers ``opened_ms ≤ time < opened_ms + bar_ms``.
    """

    opened_ms: int
    open: int
    high: int
    low: int
    close: int
    ticks: int


@dataclass(frozen=True, slots=True)
class BarBuilder:
    """Where one instrument's bars stand.

    Attributes
    ----------
    bar_ms
        Length of a bar, ms of market time, above 0.
    closed_until_ms
        End of the last closed bar: no tick before it counts any more.
    current
        The bar in progress, None before its first tick.
    """

    bar_ms: int
    closed_until_ms: int = 0
    current: Bar | None = None


def take_tick(
    builder: BarBuilder, market_ms: int, price_ticks: float | None
) -> tuple[BarBuilder, Bar | None]:
    """Return the builder after a moment of market time, and the bar that closed then, if any.

    Parameters
    ----------
    market_ms
        The moment; time that goes backwards changes nothing.
    price_ticks
        The price at that moment; None (or no positive finite number) if there was none, so that
        time alone closes a bar.
    """
    current, closed = builder.current, None
    if current is not None and market_ms >= current.opened_ms + builder.bar_ms:
        closed, current = current, None
        builder = replace(builder, closed_until_ms=closed.opened_ms + builder.bar_ms, current=None)
    price = _price_of(price_ticks)
    opened_ms = market_ms - market_ms % builder.bar_ms
    if price is None or opened_ms < builder.closed_until_ms:
        return builder, closed
    if current is None:
        return replace(builder, current=Bar(opened_ms, price, price, price, price, 1)), closed
    if opened_ms < current.opened_ms:
        return builder, closed
    grown = replace(
        current, high=max(current.high, price), low=min(current.low, price), close=price,
        ticks=current.ticks + 1,
    )  # fmt: skip
    return replace(builder, current=grown), closed


def bars_of(ticks: Iterable[tuple[int, float | None]], bar_ms: int) -> Sequence[Bar]:
    """Return the closed bars of (market ms, price) pairs in order of time."""
    builder, bars = BarBuilder(bar_ms), []
    for market_ms, price in ticks:
        builder, closed = take_tick(builder, market_ms, price)
        if closed is not None:
            bars.append(closed)
    return bars


def _price_of(price: float | None) -> int | None:
    if price is None or not math.isfinite(price) or price < 1:
        return None
    return int(price)
