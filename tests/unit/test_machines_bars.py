"""Bars from ticks, against a plain list of what was traded when."""

from hypothesis import given
from hypothesis import strategies as some

from tripgate.machines.bars import Bar, BarBuilder, bars_of, take_tick

BAR_MS = 60
START_MS = 1_621_382_400_000 // BAR_MS * BAR_MS
PRICES = some.one_of(
    some.integers(1, 2**53),
    some.sampled_from([None, float("nan"), float("inf"), float("-inf"), 0, -5, 0.25]),
)
TICKS = some.lists(some.tuples(some.integers(0, 3 * BAR_MS), PRICES), max_size=60)


def grouped(ticks: list[tuple[int, float | None]], bar_ms: int) -> list[Bar]:
    """Return the bars the slow way: every grid interval that has ended, by looking at the list."""
    bars, end_ms = [], ticks[-1][0]
    for opened_ms in sorted({ms // bar_ms * bar_ms for ms, _ in ticks}):
        inside = [
            int(price) for ms, price in ticks
            if opened_ms <= ms < opened_ms + bar_ms and price is not None
            and 1 <= price < float("inf")
        ]  # fmt: skip
        if inside and opened_ms + bar_ms <= end_ms:
            bars.append(
                Bar(opened_ms, inside[0], max(inside), min(inside), inside[-1], len(inside))
            )
    return bars


@given(TICKS.filter(bool), some.sampled_from([1, 7, BAR_MS]))
def test_bars_when_built_tick_by_tick_then_they_are_those_of_the_whole_list(
    steps: list[tuple[int, float | None]], bar_ms: int
) -> None:
    now_ms, ticks = START_MS, []
    for ahead_ms, price in steps:
        now_ms += ahead_ms
        ticks.append((now_ms, price))
    assert bars_of(ticks, bar_ms) == grouped(ticks, bar_ms)


@given(TICKS, some.integers(0, 60), some.integers(0, 60))
def test_bars_when_time_goes_back_then_nothing_closed_changes_and_order_holds(
    steps: list[tuple[int, float | None]], first: int, second: int
) -> None:
    times = [START_MS + (ms * (first + 3 * index) % (second + 1 + ms)) * 7
             for index, (ms, _) in enumerate(steps)]  # fmt: skip
    bars = bars_of(zip(times, (price for _, price in steps), strict=True), BAR_MS)
    opened = [bar.opened_ms for bar in bars]
    assert opened == sorted(set(opened))
    assert all(bar.opened_ms % BAR_MS == 0 and bar.ticks >= 1 for bar in bars)
    assert all(bar.low <= min(bar.open, bar.close) <= bar.high for bar in bars)
    assert all(bar.low <= max(bar.open, bar.close) <= bar.high for bar in bars)


def test_bar_when_the_market_is_out_then_a_bar_is_missing_not_flat() -> None:
    ticks = [(START_MS, 100), (START_MS + 2 * BAR_MS, None), (START_MS + 3 * BAR_MS, 90),
             (START_MS + 4 * BAR_MS, None)]  # fmt: skip
    assert bars_of(ticks, BAR_MS) == [
        Bar(START_MS, 100, 100, 100, 100, 1),
        Bar(START_MS + 3 * BAR_MS, 90, 90, 90, 90, 1),
    ]


def test_bar_when_only_time_passes_then_it_closes_at_its_end() -> None:
    builder, closed = take_tick(BarBuilder(BAR_MS), START_MS, 100)
    assert closed is None
    builder, closed = take_tick(builder, START_MS + BAR_MS - 1, None)
    assert closed is None
    builder, closed = take_tick(builder, START_MS + BAR_MS, None)
    assert closed == Bar(START_MS, 100, 100, 100, 100, 1)
    assert builder == BarBuilder(BAR_MS, START_MS + BAR_MS, None)


def test_tick_when_its_bar_has_closed_then_it_is_too_late() -> None:
    builder = BarBuilder(BAR_MS, closed_until_ms=START_MS + BAR_MS)
    assert take_tick(builder, START_MS + BAR_MS - 1, 100) == (builder, None)
