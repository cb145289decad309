"""The request budget: never more than allowed in any span, and never the last share to entries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.errors import InvariantBroken
from tripgate.machines import pacing
from tripgate.machines.pacing import THOUSANDTHS, Bucket, Budget
from tripgate.units import PPM

BUDGETS = st.builds(Budget, st.integers(1, 50), st.integers(1, 40), st.integers(0, PPM - 1))
ASKED = st.lists(st.tuples(st.integers(-50, 2_000), st.booleans()), max_size=80)


def granted(budget: Budget, asked: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Ask one after another, time moving by the first of each pair; return what was granted."""
    bucket, now_ms, found = pacing.full(budget, 0), 0, []
    for later_ms, is_exit in asked:
        now_ms += later_ms
        if pacing.may_take(budget, bucket, now_ms, is_exit=is_exit):
            bucket = pacing.take(budget, bucket, now_ms)
            found.append((now_ms, is_exit))
            assert is_exit or bucket.left >= budget.kept
        assert 0 <= bucket.left <= budget.burst_requests * THOUSANDTHS
    return found


@given(BUDGETS, ASKED)
def test_Q1_budget_when_asked_at_any_times_then_no_span_holds_more_than_it_allows(
    budget: Budget, asked: list[tuple[int, bool]]
) -> None:
    forward = [(abs(later_ms), is_exit) for later_ms, is_exit in asked]
    times = [now_ms for now_ms, _ in granted(budget, forward)]
    for first, start_ms in enumerate(times):
        for last in range(first, len(times)):
            span_ms = times[last] - start_ms
            allowed = budget.burst_requests * THOUSANDTHS + span_ms * budget.requests_per_second
            assert (last - first + 1) * THOUSANDTHS <= allowed


@given(BUDGETS, ASKED)
def test_Q2_budget_when_entries_ask_without_end_then_the_kept_share_is_left_for_exits(
    budget: Budget, asked: list[tuple[int, bool]]
) -> None:
    bucket = pacing.full(budget, 0)
    for _ in range(budget.burst_requests):
        if pacing.may_take(budget, bucket, 0, is_exit=False):
            bucket = pacing.take(budget, bucket, 0)
    assert not pacing.may_take(budget, bucket, 0, is_exit=False)
    exits = 0
    while pacing.may_take(budget, bucket, 0, is_exit=True):
        bucket, exits = pacing.take(budget, bucket, 0), exits + 1
    assert exits >= budget.kept // THOUSANDTHS
    granted(budget, asked)


@given(BUDGETS, st.integers(0, 10**4), st.integers(-(10**6), 0))
def test_Q3_budget_when_time_stands_or_goes_back_then_nothing_is_refilled(
    budget: Budget, left: int, later_ms: int
) -> None:
    bucket = Bucket(min(left, budget.burst_requests * THOUSANDTHS), 5)
    assert pacing.refilled(budget, bucket, 5 + later_ms) == bucket


@pytest.mark.parametrize(
    "numbers", [(0, 1), (1, 0), (10**7, 1), (1, 10**7), (1, 1, PPM), (1, 1, -1)]
)
def test_budget_when_out_of_range_then_it_is_a_bug(numbers: tuple[int, ...]) -> None:
    with pytest.raises(InvariantBroken):
        Budget(*numbers)


def test_take_when_the_bucket_is_empty_then_it_is_a_bug() -> None:
    with pytest.raises(InvariantBroken):
        pacing.take(Budget(1, 1), Bucket(999, 0), 0)
