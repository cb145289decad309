"""Replay of recorded panels: what is played, and how each malformed panel is refused."""

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange_adapters.market.feed import open_feed
from exchange_adapters.market.replay import (
    PANEL_FILE,
    PANELS_VARIABLE,
    find_panel,
    panels_folder,
    read_panel,
)
from exchange_adapters.market.selection import market_ms_of
from exchange_adapters.simulator.instruments import load_instruments
from tripgate.errors import DataError, UsageError

START = "2021-05-19"
START_MS = market_ms_of(START)
BAR_MS = 300_000
BARS = 6
Arrays = dict[str, Any]


def arrays_of() -> Arrays:
    opens = np.array([[100.0 + bar, 10.0 + bar] for bar in range(BARS)], dtype=np.float32)
    return {
        "ts": START_MS + BAR_MS * np.arange(BARS, dtype=np.int64),
        "symbols": np.array(["BTC", "ETH"]),
        "open": opens,
        "high": opens + 2,
        "low": opens - 2,
        "close": opens + 1,
        "volume": np.ones((BARS, 2), dtype=np.float32),
    }


def written(folder: Path, arrays: Arrays) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / PANEL_FILE, **arrays)
    return folder


def test_replay_when_panel_is_sound_then_ticks_follow_the_rule(tmp_path: Path) -> None:
    feed = open_feed(f"replay:{written(tmp_path, arrays_of())}", seed=0)
    assert feed.symbols == ("BTC/USDT:USDT", "ETH/USDT:USDT")
    assert (feed.start_ms, feed.step_ms, feed.length) == (START_MS, BAR_MS // 4, 4 * BARS)
    assert feed.step(0).ticks == (1000, 1000)
    assert feed.step(1).ticks == (980, 800)
    assert feed.step(2).ticks == (1020, 1200)
    assert feed.step(3).ticks == (1010, 1100)
    assert feed.step(3).market_ms == START_MS + BAR_MS - 1


def test_replay_when_steps_are_asked_in_any_order_then_answers_are_equal(tmp_path: Path) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    feed, again = open_feed(spec, seed=0), open_feed(spec, seed=99)
    forwards = [feed.step(index) for index in range(feed.length)]
    backwards = [again.step(index) for index in reversed(range(again.length))]
    assert forwards == backwards[::-1]


def test_replay_when_one_price_of_a_bar_is_nan_then_that_symbol_has_no_tick(
    tmp_path: Path,
) -> None:
    arrays = arrays_of()
    arrays["low"][2, 1] = math.nan
    feed = open_feed(f"replay:{written(tmp_path, arrays)}", seed=0)
    for index in range(8, 12):
        first, second = feed.step(index).ticks
        assert first is not None
        assert second is None
    assert None not in feed.step(12).ticks


def test_replay_when_window_is_given_then_it_is_half_open_on_open_times(tmp_path: Path) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    feed = open_feed(spec, seed=0, start=f"{START}T00:05", stop=f"{START}T00:15")
    assert feed.start_ms == START_MS + BAR_MS
    assert feed.length == 8
    inside = open_feed(spec, seed=0, start=f"{START}T00:06", stop=f"{START}T00:15:01")
    assert inside.start_ms == START_MS + 2 * BAR_MS
    assert inside.length == 8
    offset = open_feed(spec, seed=0, start="2021-05-19T02:05+02:00")
    assert offset.start_ms == START_MS + BAR_MS


def test_replay_when_window_is_wider_than_the_data_then_the_data_ends_it(tmp_path: Path) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    assert open_feed(spec, seed=0, start="1970-01-01", stop="2100-01-01").length == 4 * BARS


@pytest.mark.parametrize(
    ("start", "stop"), [("2022-01-01", None), (None, START), (f"{START}T00:26", f"{START}T00:29")]
)
def test_replay_when_window_is_empty_then_error_names_the_range_of_the_panel(
    tmp_path: Path, start: str | None, stop: str | None
) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    with pytest.raises(DataError, match="2021-05-19T00:00 to 2021-05-19T00:30 UTC"):
        open_feed(spec, seed=0, start=start, stop=stop)


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [("yesterday", None, "not an ISO date"), ("2021-05-20", START, "is not before")],
)
def test_replay_when_dates_make_no_sense_then_usage_error(
    tmp_path: Path, start: str, stop: str | None, message: str
) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    with pytest.raises(UsageError, match=message):
        open_feed(spec, seed=0, start=start, stop=stop)


def test_replay_when_symbols_are_chosen_then_they_come_in_that_order(tmp_path: Path) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    feed = open_feed(spec, seed=0, symbols=["ETH/USDT:USDT", "BTC"])
    assert feed.symbols == ("ETH/USDT:USDT", "BTC/USDT:USDT")
    assert feed.step(3).ticks == (1100, 1010)


def test_replay_when_symbol_is_not_in_the_panel_then_nearest_is_named(tmp_path: Path) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    with pytest.raises(DataError, match="has no BTCC/USDT:USDT: did you mean BTC/USDT:USDT"):
        open_feed(spec, seed=0, symbols=["BTCC"])


@pytest.mark.parametrize("symbols", [[], ["BTC", "BTC/USDT:USDT"]])
def test_replay_when_no_symbol_or_one_twice_then_usage_error(
    tmp_path: Path, symbols: list[str]
) -> None:
    spec = f"replay:{written(tmp_path, arrays_of())}"
    with pytest.raises(UsageError, match="only once"):
        open_feed(spec, seed=0, symbols=symbols)


def test_replay_when_venue_does_not_list_a_coin_then_data_error(tmp_path: Path) -> None:
    arrays = arrays_of() | {"symbols": np.array(["BTC", "ETHX"])}
    with pytest.raises(DataError, match="does not list ETHX/USDT:USDT: did you mean ETH"):
        open_feed(f"replay:{written(tmp_path, arrays)}", seed=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("replay", "names no feed"),
        ("replay:", "names no feed"),
        ("tape:x", "names no feed"),
        ("public:kraken", "arrives with the ccxt adapter"),
    ],
)
def test_feed_when_spec_is_unknown_then_usage_error(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed(spec, seed=0)


def _dropped(arrays: Arrays) -> None:
    del arrays["low"], arrays["volume"]


def _shorter(arrays: Arrays) -> None:
    arrays["close"] = arrays["close"][:-1]


def _whole_prices(arrays: Arrays) -> None:
    arrays["open"] = arrays["open"].astype(np.int64)


def _float_times(arrays: Arrays) -> None:
    arrays["ts"] = arrays["ts"].astype(np.float64)


def _one_row(arrays: Arrays) -> None:
    for key in ("ts", "open", "high", "low", "close", "volume"):
        arrays[key] = arrays[key][:1]


def _irregular(arrays: Arrays) -> None:
    arrays["ts"][3:] += 1


def _descending(arrays: Arrays) -> None:
    arrays["ts"] = arrays["ts"][::-1].copy()


def _seconds(arrays: Arrays) -> None:
    arrays["ts"] = arrays["ts"] * 1_000_000


def _zero(arrays: Arrays) -> None:
    arrays["low"][1, 0] = 0


def _negative(arrays: Arrays) -> None:
    arrays["close"][1, 0] = -1


def _infinite(arrays: Arrays) -> None:
    arrays["high"][1, 1] = math.inf


def _outside(arrays: Arrays) -> None:
    arrays["high"][4, 0] = arrays["close"][4, 0] - 0.5


def _twice(arrays: Arrays) -> None:
    arrays["symbols"] = np.array(["BTC", "BTC"])


def _numbered(arrays: Arrays) -> None:
    arrays["symbols"] = np.array([1, 2])


def _pickled(arrays: Arrays) -> None:
    arrays["symbols"] = np.array(["BTC", "ETH"], dtype=object)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_dropped, "lacks low, volume"),
        (_shorter, r"close is float32 of shape \(5, 2\), expected floats of shape \(6, 2\)"),
        (_whole_prices, "open is int64"),
        (_float_times, "ts is float64"),
        (_one_row, "at least 2"),
        (_irregular, r"not a regular ascending grid \(after row 2 it moves by 300001 ms"),
        (_descending, "not a regular ascending grid"),
        (_seconds, "not in ms since 1970"),
        (_zero, "low of BTC is 0.0 in row 1"),
        (_negative, "close of BTC is -1.0 in row 1"),
        (_infinite, "high of ETH is inf in row 1"),
        (_outside, "the bar of BTC in row 4 opens or closes outside"),
        (_twice, "symbols names a coin twice"),
        (_numbered, "symbols is int64"),
        (_pickled, "cannot be read"),
    ],
)
def test_panel_when_malformed_then_data_error_says_what_and_where(
    tmp_path: Path, spoil: Callable[[Arrays], None], message: str
) -> None:
    arrays = arrays_of()
    spoil(arrays)
    written(tmp_path, arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_panel(tmp_path)
    assert str(tmp_path / PANEL_FILE) in str(caught.value)


def test_panel_when_several_arrays_are_wrong_then_all_are_named(tmp_path: Path) -> None:
    arrays = arrays_of()
    _shorter(arrays)
    _whole_prices(arrays)
    with pytest.raises(DataError) as caught:
        read_panel(written(tmp_path, arrays))
    assert len(str(caught.value).splitlines()) == 2


def _plain_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def _cut_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays_of())
    return buffer.getvalue()[:-200]


def _damaged_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays_of())
    data = bytearray(buffer.getvalue())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    return bytes(data)


def _foreign_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in arrays_of():
            archive.writestr(f"{key}.npy", "not an array")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", _plain_array(), _cut_archive(), _damaged_archive(), _foreign_archive()],
    ids=["empty", "text", "npy", "cut", "damaged", "foreign"],
)
def test_panel_when_file_is_no_sound_archive_then_data_error(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / PANEL_FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .*: fetch it again"):
        read_panel(tmp_path)


def test_panel_when_it_would_unpack_beyond_the_bound_then_it_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound is lowered because a panel of the real one would not fit a test.
    monkeypatch.setattr("exchange_adapters.market.replay.PANEL_BYTES_MAX", 100)
    with pytest.raises(DataError, match="at most 100 are read"):
        read_panel(written(tmp_path, arrays_of()))


def test_find_when_folder_is_missing_then_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "binance_5m", arrays_of())
    monkeypatch.setenv(PANELS_VARIABLE, str(tmp_path))
    assert find_panel("binance_5m") == tmp_path / "binance_5m"
    with pytest.raises(DataError, match="did you mean binance_5m"):
        find_panel("binance_6m")
    with pytest.raises(DataError, match="it has binance_5m"):
        find_panel("zzz")
    with pytest.raises(DataError, match="there is no folder"):
        find_panel(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no bars\.npz"):
        read_panel(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        find_panel(str(tmp_path / "binance_5m" / PANEL_FILE))


def test_panels_folder_when_variable_names_nothing_then_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PANELS_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(DataError, match=PANELS_VARIABLE):
        panels_folder()


PANELS = panels_folder()
CRASH_PANEL = "binance_spot_5m_2021-02_2021-07"


@pytest.mark.skipif(
    PANELS is None or not (PANELS / CRASH_PANEL).is_dir(),
    reason="needs the recorded panels (TRIPGATE_PANELS)",
)
def test_replay_when_19_may_2021_is_held_at_half_equity_then_levels_come_in_the_known_bars() -> (
    None
):
    feed = open_feed(f"replay:{CRASH_PANEL}", seed=0, start="2021-05-19", stop="2021-05-20")
    instruments = load_instruments(feed.symbols)
    sizes = [float(instruments[symbol].units.tick) for symbol in feed.symbols]
    ticks = [feed.step(index).ticks for index in range(feed.length)]
    prices = np.array(ticks, dtype=np.float64) * sizes
    equity = 0.5 + 0.5 * (prices / prices[0]).mean(axis=1)
    drawdown = 1 - equity / np.maximum.accumulate(equity)
    first = [int(np.argmax(drawdown >= level)) for level in (0.05, 0.10, 0.15)]
    times = [feed.step(index).market_ms for index in first]
    expected = ["2021-05-19T03:02:30", "2021-05-19T11:22:30", "2021-05-19T12:42:30"]
    assert times == [market_ms_of(text) for text in expected]
    assert drawdown[first[2] + 1] >= 0.15
