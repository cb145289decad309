"""Drawdown: table cases by hand, properties for everything between."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import drawdown
from models.drawdown import Drawdown

EQUITY = st.integers(-(10**15), 10**15)
POSITIVE = st.integers(1, 10**15)


@pytest.mark.parametrize(
    ("mark", "equity", "expected"),
    [
        pytest.param(100, 100, 0, id="at the mark"),
        pytest.param(100, 95, 50_000, id="five percent"),
        pytest.param(3, 2, 333_334, id="rounded up"),
        pytest.param(10**15, 10**15 - 1, 1, id="the smallest loss counts"),
        pytest.param(100, 0, 1_000_000, id="nothing left"),
        pytest.param(100, -5, 1_000_000, id="below nothing"),
    ],
)
def test_drawdown_when_equity_falls_then_ppm_is_rounded_up(
    mark: int, equity: int, expected: int
) -> None:
    state = drawdown.update(drawdown.start(mark, 0), equity, 0, 1)
    assert state.drawdown_ppm == expected
    assert state.high_water_mark_money == mark


def test_drawdown_when_equity_rises_then_mark_follows_and_time_under_water_restarts() -> None:
    state = drawdown.start(1_000, 0)
    state = drawdown.update(state, 900, 0, 10)
    state = drawdown.update(state, 950, 0, 40)
    assert state.under_water_ms == 40
    state = drawdown.update(state, 1_200, 0, 50)
    assert (state.high_water_mark_money, state.drawdown_ppm, state.under_water_ms) == (1_200, 0, 0)
    assert drawdown.update(state, 1_140, 0, 60).drawdown_ppm == 50_000


@pytest.mark.parametrize("flow", [500, -500])
def test_drawdown_when_money_is_transferred_then_it_is_no_result(flow: int) -> None:
    state = drawdown.start(1_000, 0)
    state = drawdown.update(state, 1_000 + flow, flow, 1)
    assert state == Drawdown(1_000 + flow, 0, 1, 1)


def test_drawdown_when_everything_is_withdrawn_then_it_is_whole() -> None:
    assert drawdown.update(drawdown.start(1_000, 0), 0, -1_000, 1).drawdown_ppm == 1_000_000


def test_drawdown_when_rebased_then_it_restarts_at_present_equity() -> None:
    state = drawdown.update(drawdown.start(1_000, 0), 700, 0, 10)
    state = drawdown.rebase(state, 700)
    assert state == Drawdown(700, 0, 10, 10)


@pytest.mark.parametrize(
    ("equity", "flow", "market_ms"),
    [
        pytest.param(1.5, 0, 1, id="float equity"),
        pytest.param(float("nan"), 0, 1, id="NaN"),
        pytest.param(None, 0, 1, id="unknown equity"),
        pytest.param(True, 0, 1, id="bool"),
        pytest.param(1, "0", 1, id="text flow"),
        pytest.param(2**63, 0, 1, id="out of range"),
        pytest.param(1, 0, -1, id="time backwards"),
    ],
)
def test_drawdown_when_input_is_bad_then_it_is_refused(
    equity: object, flow: object, market_ms: object
) -> None:
    with pytest.raises(ValueError, match=r"was|backwards|range"):
        drawdown.update(drawdown.start(10, 0), equity, flow, market_ms)  # type: ignore[arg-type]


@pytest.mark.parametrize("equity", [0, -1])
def test_drawdown_when_there_is_no_equity_then_it_neither_starts_nor_rebases(equity: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        drawdown.start(equity, 0)
    with pytest.raises(ValueError, match="rebase"):
        drawdown.rebase(drawdown.start(10, 0), equity)


@given(start=POSITIVE, equities=st.lists(EQUITY, max_size=30))
def test_D1_drawdown_when_any_equities_then_it_equals_the_exact_quotient_rounded_up(
    start: int, equities: list[int]
) -> None:
    state = drawdown.start(start, 0)
    highest = start
    for time, equity in enumerate(equities, start=1):
        state = drawdown.update(state, equity, 0, time)
        highest = max(highest, equity)
        exact = math.ceil(Fraction(highest - equity, highest) * 1_000_000)
        assert state.high_water_mark_money == highest
        assert state.drawdown_ppm == (min(exact, 1_000_000) if equity > 0 else 1_000_000)


@given(start=POSITIVE, low=EQUITY, gap=st.integers(0, 10**12))
def test_D3_drawdown_when_equity_is_lower_then_it_is_not_smaller(
    start: int, low: int, gap: int
) -> None:
    state = drawdown.start(start, 0)
    worse = drawdown.update(state, low, 0, 1)
    better = drawdown.update(state, low + gap, 0, 1)
    assert worse.drawdown_ppm >= better.drawdown_ppm


@given(start=POSITIVE, steps=st.lists(st.tuples(EQUITY, st.integers(-(10**9), 10**9))))
def test_D2_drawdown_when_nothing_is_withdrawn_then_the_mark_never_falls(
    start: int, steps: list[tuple[int, int]]
) -> None:
    state = drawdown.start(start, 0)
    for time, (equity, flow) in enumerate(steps, start=1):
        following = drawdown.update(state, equity, flow, time)
        assert following.high_water_mark_money >= state.high_water_mark_money + min(flow, 0)
        state = following
