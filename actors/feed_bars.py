"""A feed's bars: the pure builder beside the page rows that it fills.

Apart from ``market_feed`` because the same hand serves any feed, whatever its wire.
"""

from tripgate.machines.bars import Bar, BarBuilder, take_tick
from tripgate.page.bars import bar_in_progress, closed_count, publish_bar, read_bars, write_bar
from tripgate.page.mapping import Page


class BarHistory:
    """One instrument's bars: the pure builder, and its rows in the page."""

    def __init__(self, page: Page, instrument: int, bar_ms: int) -> None:
        self._page = page
        self._instrument = instrument
        self._number = closed_count(page, instrument)
        last = read_bars(page, instrument, 1)
        until_ms = int(last["opened_ms"][0]) + bar_ms if len(last) else 0
        values = bar_in_progress(page, instrument)
        current = None if values is None else Bar(*values)
        self._builder = BarBuilder(bar_ms, until_ms, current)

    def take(self, market_ms: int, price: int | None) -> None:
        """Put one tick, or the mere passing of time, into the page's bars.

        It may safely be told again after a death in the middle: extremes and close stay the same,
        only the bar's count of ticks may then be one too high.
        """
        self._builder, closed = take_tick(self._builder, market_ms, price)
        if closed is not None:
            self._write(closed)
            publish_bar(self._page, self._instrument, self._number)
            self._number += 1
        if price is not None and self._builder.current is not None:
            self._write(self._builder.current)

    def _write(self, bar: Bar) -> None:
        values = (bar.opened_ms, bar.open, bar.high, bar.low, bar.close, bar.ticks)
        write_bar(self._page, self._instrument, self._number, values)
