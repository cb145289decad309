"""The guards of a strategy's pace: windows, who is charged, and what two processes can take."""

from pathlib import Path
from typing import Any

import pytest

from tests.gate_fixtures import HEDGE, MARKET_MS, TREND, Bench, make_bench
from tripgate.page.layout import STRATEGY, THROTTLE
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
OTHER = ("0.01", "60000.1", "59000")


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def plan(bench: Bench, **values: int) -> None:
    """Set a strategy's guards."""
    for name, value in values.items():
        bench.page.rows(STRATEGY)[name][TREND] = value


def later(bench: Bench, ms: int) -> None:
    """Turn the market's clock on."""
    bench.page.header["market_ms"] = int(bench.page.header["market_ms"]) + ms


def test_duplicate_guard_when_the_window_has_passed_then_the_same_order_is_new(
    bench: Bench,
) -> None:
    plan(bench, duplicate_window_ms=500)
    assert bench.handle().check(*BUY)
    later(bench, 499)
    denied = bench.handle().check(*BUY)
    assert (denied.reason, denied.used) == (DenyReason.DUPLICATE_ORDER, 499)
    later(bench, 1)
    assert bench.handle().check(*BUY)


@pytest.mark.parametrize(
    "other", [OTHER, ("0.011", "60000", "59000"), ("0.01", "60000", "59000.1")]
)
def test_duplicate_guard_when_price_lots_or_stop_differ_then_it_is_another_order(
    bench: Bench, other: Any
) -> None:
    plan(bench, duplicate_window_ms=500)
    assert bench.handle().check(*BUY)
    assert bench.handle().check(*other)
    # Only the last approved order is remembered: this one is a duplicate of no neighbour.
    assert bench.handle().check(*BUY)


def test_duplicate_guard_when_differences_would_cancel_then_it_is_another_order(
    bench: Bench,
) -> None:
    plan(bench, duplicate_window_ms=500)
    handle = bench.handle()
    assert handle.check_raw(10, 600_000, 590_000) > 0
    # A sum with small weights would take these for the same.
    for order in ((15, 599_997, 590_000), (10, 600_007, 589_995), (17, 600_000, 589_997)):
        assert handle.check_raw(*order) > 0


def test_duplicate_guard_when_a_denied_order_is_asked_again_then_it_is_no_duplicate(
    bench: Bench,
) -> None:
    plan(bench, duplicate_window_ms=500)
    bench.limit("portfolio", gross=0)
    assert bench.handle().check(*BUY).reason is DenyReason.GROSS_LIMIT
    bench.limit("portfolio", gross=10**14)
    assert bench.handle().check(*BUY)


def test_repeat_guard_when_another_size_comes_between_then_the_run_begins_anew(
    bench: Bench,
) -> None:
    plan(bench, repeats_max=2, repeat_window_ms=60_000)
    for order in (BUY, OTHER, ("0.02", "60000", "59000"), BUY, BUY):
        assert bench.handle().check(*order)
    denied = bench.handle().check(*OTHER)
    assert (denied.reason, denied.limit, denied.used) == (DenyReason.REPEATED_ORDER, 2, 2)
    later(bench, 60_000)
    bench.mark(0, 600_000, MARKET_MS + 60_000)
    assert bench.handle().check(*BUY)


def test_attempts_when_denied_too_often_then_only_that_strategy_waits_for_the_next_second(
    bench: Bench,
) -> None:
    plan(bench, attempts_per_second_max=3)
    for _ in range(3):
        assert bench.handle().check("0.01", "60000", None).reason is DenyReason.STOP_MISSING
    assert bench.handle().check(*BUY).reason is DenyReason.ATTEMPT_RATE
    assert bench.handle(strategy=HEDGE).check(*BUY)
    later(bench, 1_000)
    assert bench.handle().check(*BUY)


def test_attempts_when_orders_are_approved_then_they_charge_the_opening_rate_alone(
    bench: Bench,
) -> None:
    plan(bench, attempts_per_second_max=1)
    for _ in range(5):
        assert bench.handle().check(*BUY)
    row = bench.page.rows(THROTTLE)[TREND]
    assert (int(row["attempts"]), int(row["window"]) & 0xFFFF) == (0, 5)
    assert bench.handle().check("0.01", "60000", None).reason is DenyReason.STOP_MISSING
    assert bench.handle().check(*BUY).reason is DenyReason.ATTEMPT_RATE
    # An exit is no attempt to open.
    bench.hold(10)
    assert bench.handle().check("-0.01", "60000")
