"""What a grant does: its worth at five nodes, its price, its level, its exact fit to a limit."""

from pathlib import Path

import pytest

from tests.gate_fixtures import (
    AGE_MAX_MS,
    BETA_BTC,
    BTC,
    ETH,
    MARKET_MS,
    MARKS,
    TREND,
    make_bench,
)
from tripgate.page.layout import CLAIM, LIMIT, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
BUY_MONEY = 6_000_000
ALL = "portfolio"


def test_check_when_another_venue_is_shut_then_this_one_trades(isolated_folders: Path) -> None:
    bench = make_bench(isolated_folders / "page")
    set_level(bench.page, bench.page.names.scope("venue:alpha"), LevelWriter.KEEPER, Level.HARD)
    assert bench.handle(BTC).check(*BUY).reason is DenyReason.LEVEL
    assert bench.handle(BETA_BTC).check(*BUY)


@pytest.mark.parametrize(("ahead_ms", "granted"), [(AGE_MAX_MS, True), (AGE_MAX_MS + 1, False)])
def test_P8_check_when_a_mark_is_dated_into_the_future_then_it_is_stale_beyond_the_bound(
    isolated_folders: Path, ahead_ms: int, granted: bool
) -> None:
    bench = make_bench(isolated_folders / "page")
    bench.mark(BTC, int(MARKS[BTC]), MARKET_MS + ahead_ms)
    decision = bench.handle(BTC).check(*BUY)
    assert decision.reason is (None if granted else DenyReason.MARK_STALE)


def test_check_when_soft_then_it_is_granted_and_the_record_says_soft(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.SOFT)
    assert bench.handle().check(*BUY)
    assert bench.records(bench.slots[TREND])[-1].level == Level.SOFT


def test_check_when_granted_then_five_nodes_hold_its_worth_rounded_up(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    assert bench.handle(ETH).check("-0.03", "3000.001", "3010")
    # Three lots at 3,000,001 ticks of a tenth of a money unit: 900,000.3.
    amount = 900_001
    expected = {
        scope: (amount, 0, amount) if touched else (0, 0, 0)
        for scope, touched in (
            (scope, scope in {ALL, "venue:alpha", "asset:ETH", "strategy:trend"}
             or scope.endswith("ETH/USDT:USDT"))
            for scope in bench.page.names.scopes
        )
    }  # fmt: skip
    assert bench.sums() == expected
    assert int(bench.page.rows(CLAIM)["lots"][ETH]) == -3


def test_check_when_a_limit_is_met_exactly_then_it_is_granted_with_overshoot_zero(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    bench.limit(ALL, gross=BUY_MONEY, net=BUY_MONEY)
    assert bench.handle().check(*BUY)
    assert int(bench.page.rows(SLOT)["overshoot_max"][bench.slots[TREND]]) == 0


def test_check_when_it_is_a_market_order_then_the_entry_is_priced_at_the_collar(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    assert bench.handle().check("0.01", None, "59000")
    record = bench.records(bench.slots[TREND])[-1]
    assert (record.values["price"], record.values["notional"]) == (606_000, 10 * 606_000)
    assert bench.handle(ETH).check("-0.01", None, "3010")
    # A sale counts at the mark, although it may fill lower.
    record = bench.records(bench.slots[TREND])[-1]
    assert (record.values["price"], record.values["notional"]) == (2_970_000, 300_000)


def test_check_when_limit_none_is_configured_then_no_amount_passes_int_max(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    for scope in bench.page.names.scopes:
        bench.limit(scope, gross=INT_MAX, net=INT_MAX)
    assert bench.handle().check(*BUY)
    assert max(int(value) for value in bench.page.rows(LIMIT)["gross_max"]) == INT_MAX
