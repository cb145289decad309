"""Which bars and symbols of a data source are wanted, and clear words where they are not there.

Invariants: W1 a window is half-open, [start, stop), and compares with the open time of bars.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

from exchange_adapters.simulator.instruments import symbol_of
from tripgate.clock import MS_PER_S
from tripgate.errors import DataError, UsageError


def market_ms_of(text: str) -> int:
    """Return an ISO date or date and time as ms since 1970; UTC unless the text has an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not an ISO date: write 2021-05-19 or 2021-05-19T12:00 (UTC)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * MS_PER_S)


def market_text(market_ms: int) -> str:
    """Return a market time as an ISO date and time, UTC."""
    return datetime.fromtimestamp(market_ms / MS_PER_S, UTC).isoformat(timespec="minutes")[:16]


def bar_window(
    source: str, first_ms: int, bar_ms: int, count: int, start: str | None, stop: str | None
) -> slice:
    """Return the bars that open in [start, stop).

    Parameters
    ----------
    source
        Name of the data, for messages.
    first_ms, bar_ms, count
        Open time of the first bar, length of a bar, number of bars (at least 1).
    start, stop
        ISO texts, or ``None`` for the end of the data on that side.

    Raises
    ------
    UsageError
        A text is no date, or ``start`` is not before ``stop``.
    DataError
        No bar opens in the window; the message names the range that the data has.
    """
    begin, end = 0, count
    if start is not None:
        begin = -(-(market_ms_of(start) - first_ms) // bar_ms)
    if stop is not None:
        end = -(-(market_ms_of(stop) - first_ms) // bar_ms)
    if start is not None and stop is not None and market_ms_of(start) >= market_ms_of(stop):
        raise UsageError(f"--from {start} is not before --to {stop}: swap or widen them")
    begin, end = max(begin, 0), min(end, count)
    if begin >= end:
        raise DataError(
            f"{source} has no bar from {start or 'its start'} to {stop or 'its end'}: it has "
            f"{market_text(first_ms)} to {market_text(first_ms + count * bar_ms)} UTC "
            f"in bars of {bar_ms / MS_PER_S:g} s"
        )
    return slice(begin, end)


def symbol_columns(
    source: str, available: Sequence[str], wanted: Sequence[str] | None
) -> list[int]:
    """Return the columns of the wanted symbols, in the order in which they are wanted.

    Parameters
    ----------
    source
        Name of the data, for messages.
    available
        Unified symbols of the columns.
    wanted
        Unified symbols or base coins; ``None`` for all.

    Raises
    ------
    UsageError
        None is wanted, or one is wanted twice.
    DataError
        Some are not there; all of them are named at once.
    """
    if wanted is None:
        return list(range(len(available)))
    symbols = [text if "/" in text else symbol_of(text) for text in wanted]
    if not symbols or len(set(symbols)) != len(symbols):
        raise UsageError("name at least one symbol, and each only once")
    unknown = [symbol for symbol in symbols if symbol not in available]
    if unknown:
        lines = []
        for symbol in unknown:
            close = get_close_matches(symbol, available, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(available)}"
            lines.append(f"{source} has no {symbol}: {hint}")
        raise DataError("\n".join(lines))
    return [list(available).index(symbol) for symbol in symbols]
