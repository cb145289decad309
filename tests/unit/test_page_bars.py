"""Bar history on a real page: the ring, its reader, and a writer that died in the middle."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.feed_bars import BarHistory
from tests.gate_fixtures import BETA_BTC, BTC, ETH, Bench, make_bench
from tripgate.machines.bars import bars_of
from tripgate.page import bars as history
from tripgate.page.bars import (
    BARS_READABLE,
    bar_in_progress,
    closed_count,
    publish_bar,
    read_bars,
    write_bar,
)
from tripgate.page.layout import BAR, BARS_KEPT, BOARD
from tripgate.page.mapping import open_page

BAR_MS = 60_000
WRITER = """
import sys
from pathlib import Path
from tripgate.page.bars import publish_bar, write_bar
from tripgate.page.mapping import open_page

page, bar_ms = open_page(Path(sys.argv[1]), control_writable=True), int(sys.argv[2])
for number in range(10**7):
    write_bar(page, 0, number, (number * bar_ms, number, number, number, number, 1))
    publish_bar(page, 0, number)
"""
pytestmark = pytest.mark.kernels


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


def ticks(count: int, seed: int = 1) -> list[tuple[int, int | None]]:
    """Return a seeded walk: several ticks a bar, now and then an outage of some bars."""
    draw = np.random.default_rng(seed)
    gaps = draw.integers(1, BAR_MS // 2, count) + (draw.random(count) < 0.02) * 5 * BAR_MS
    times = np.cumsum(gaps) + 1_621_382_400_000
    prices = draw.integers(1, 10**9, count)
    return [(int(ms), int(price)) for ms, price in zip(times, prices, strict=True)]


def as_tuples(bars: "np.ndarray[tuple[int], np.dtype[np.void]]") -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in row.item()[:-1]) for row in bars]


def fill(bench: Bench, told: list[tuple[int, int | None]], instrument: int = BTC) -> None:
    hand = BarHistory(bench.page, instrument, BAR_MS)
    for market_ms, price in told:
        hand.take(market_ms, price)


def put(bench: Bench, number: int, instrument: int = BTC) -> None:
    """Close bar ``number``, made of its own number, the way the feed does."""
    write_bar(bench.page, instrument, number, (number * BAR_MS, number, number, number, number, 1))
    publish_bar(bench.page, instrument, number)


def test_bars_when_ticks_come_then_the_page_holds_what_the_list_gives(bench: Bench) -> None:
    told = ticks(4_000)
    fill(bench, told)
    expected = [
        (bar.opened_ms, bar.open, bar.high, bar.low, bar.close, bar.ticks)
        for bar in bars_of(told, BAR_MS)
    ]
    assert len(expected) > 500
    onlooker = open_page(bench.page.folder, writable=False)
    found = read_bars(onlooker, BTC)
    assert as_tuples(found) == expected[-BARS_READABLE:]
    assert list(found["number"]) == list(range(len(expected)))[-BARS_READABLE:]
    assert as_tuples(read_bars(onlooker, BTC, 7)) == expected[-7:]
    assert len(read_bars(onlooker, BTC, 0)) == 0
    assert [len(read_bars(onlooker, other)) for other in (ETH, BETA_BTC)] == [0, 0]


@pytest.mark.parametrize("length", [1, 2, 90, 400])
def test_bars_when_the_feed_is_restarted_then_they_go_on_as_if_it_had_not_been(
    bench: Bench, length: int
) -> None:
    told = ticks(400)
    for start in range(0, len(told), length):
        fill(bench, told[start : start + length])
    fill(bench, told, ETH)
    assert as_tuples(read_bars(bench.page, BTC)) == as_tuples(read_bars(bench.page, ETH))
    assert bar_in_progress(bench.page, BTC) == bar_in_progress(bench.page, ETH)


def test_bars_when_the_feed_died_between_bar_and_board_then_the_tick_told_again_moves_no_price(
    bench: Bench,
) -> None:
    told = ticks(300)
    fill(bench, told, ETH)
    for tick in told:
        fill(bench, [tick])
        fill(bench, [tick])
    once, twice = read_bars(bench.page, ETH), read_bars(bench.page, BTC)
    assert [row[:-1] for row in as_tuples(once)] == [row[:-1] for row in as_tuples(twice)]


def test_bars_when_the_ring_has_come_round_then_only_whole_bars_are_read(bench: Bench) -> None:
    last = 2 * BARS_KEPT + 5
    for number in range(last):
        put(bench, number)
    found = read_bars(bench.page, BTC)
    assert list(found["number"]) == list(range(last - BARS_READABLE, last))
    assert (found["open"] == found["number"]).all()
    assert int(bench.page.rows(BOARD)["bars"][BTC]) == closed_count(bench.page, BTC) == last
    assert list(read_bars(bench.page, ETH)["number"]) == []


def test_bars_when_the_ring_moves_on_under_the_readers_hand_then_no_overwritten_bar_is_returned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(BARS_KEPT):
        put(bench, number)
    plain, moves = history._copy, iter((BARS_KEPT + 10, BARS_KEPT + 30, BARS_KEPT + 60, 9_999))
    closed = BARS_KEPT

    def overtaken(page: object, instrument: int, numbers: object) -> object:
        nonlocal closed
        found = plain(bench.page, instrument, numbers)
        end = next(moves)
        while closed < end:
            put(bench, closed)
            closed += 1
        # What a slower copy would have met: rows that were taken meanwhile.
        late = plain(bench.page, instrument, numbers)
        found[:5] = late[:5]
        return found

    monkeypatch.setattr(history, "_copy", overtaken)
    found = read_bars(bench.page, BTC)
    assert (found["open"] == found["number"]).all()
    oldest = closed_count(bench.page, BTC) - BARS_READABLE
    assert list(found["number"]) == list(range(oldest, BARS_KEPT + 30))


def test_bars_when_a_row_is_half_written_then_it_is_not_in_progress(bench: Bench) -> None:
    for number in range(BARS_KEPT):
        put(bench, number)
    assert bar_in_progress(bench.page, BTC) is None, "the row is still the oldest bar's"
    row = bench.page.rows(BAR)[BTC * BARS_KEPT]
    row["number"], row["opened_ms"] = -1, 5
    assert bar_in_progress(bench.page, BTC) is None
    put(bench, BARS_KEPT)
    assert list(read_bars(bench.page, BTC, 1)["number"]) == [BARS_KEPT]


@pytest.mark.parametrize("count", [-1, BARS_READABLE + 1])
def test_bars_when_more_are_wanted_than_kept_then_it_is_refused(bench: Bench, count: int) -> None:
    with pytest.raises(ValueError, match=f"count is 0 to {BARS_READABLE}"):
        read_bars(bench.page, BTC, count)


@pytest.mark.jit_only
def test_bars_when_read_while_another_process_writes_then_every_bar_is_whole(
    bench: Bench,
) -> None:
    command = [sys.executable, "-c", WRITER, str(bench.page.folder), str(BAR_MS)]
    writer = subprocess.Popen(command)
    try:
        seen, reads = 0, 0
        while seen < 3 * BARS_KEPT and writer.poll() is None:
            found = read_bars(bench.page, BTC)
            reads += 1
            assert (found["open"] == found["number"]).all()
            assert (found["opened_ms"] == found["number"] * BAR_MS).all()
            assert (np.diff(found["number"]) == 1).all()
            seen = max(seen, int(found["number"][-1]) if len(found) else 0)
        assert seen >= 3 * BARS_KEPT
        assert reads > 1
    finally:
        writer.kill()
        writer.wait()
