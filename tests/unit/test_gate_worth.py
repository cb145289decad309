"""What an order is worth: linear and inverse contracts, quotes off par, initial margin."""

from pathlib import Path

import pytest

from tests.gate_fixtures import BTC, MARKET_MS, TREND, Bench, make_bench
from tripgate.gate.commit import Approved, commit, find_reserved
from tripgate.gate.judge import RATE_PPM_MAX
from tripgate.page.layout import INSTRUMENT, KEY, LIMIT, RATE, SUM
from tripgate.reasons import DenyReason
from tripgate.units import PPM

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
BUY_MONEY = 10 * 600_000


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def gross(bench: Bench) -> int:
    return bench.sums()["portfolio"][0]


def margin(bench: Bench, scope: str = "venue:alpha") -> int:
    return int(bench.page.rows(SUM)["margin"][bench.page.names.scope(scope)])


def demand_margin(bench: Bench, ppm: int) -> None:
    """Set the initial margin rate of every instrument and key."""
    bench.page.rows(INSTRUMENT)["margin_ppm"] = ppm
    bench.page.rows(KEY)["margin_ppm"] = ppm


def sent(bench: Bench, *order: object) -> Approved:
    """Approve an order and commit it as the router does."""
    decision = bench.handle().check(*order)
    approved = find_reserved(bench.page, decision.token, bench.slots[TREND])
    assert approved is not None
    assert commit(bench.page, approved)
    return approved


@pytest.mark.parametrize(
    ("rate", "par", "expected"),
    [
        (PPM, PPM, BUY_MONEY),
        (980_000, PPM, BUY_MONEY),
        (1_020_000, PPM, 6_120_000),
        (1_000_001, PPM, BUY_MONEY + 6),
    ],
)
def test_worth_when_the_quote_is_off_par_then_the_dearer_of_rate_and_par_counts(
    bench: Bench, rate: int, par: int, expected: int
) -> None:
    row = bench.page.rows(RATE)
    row["rate_ppm"], row["par_ppm"], row["market_ms"] = rate, par, MARKET_MS
    assert bench.handle().check(*BUY)
    assert gross(bench) == expected
    record = bench.records(bench.slots[TREND])[-1]
    assert record.values["rate_ppm"] == max(rate, par)


def test_worth_when_the_rate_is_unknown_then_the_opening_is_denied_and_a_close_is_not(
    bench: Bench,
) -> None:
    bench.hold(10)
    bench.page.rows(RATE)["rate_ppm"] = bench.page.rows(RATE)["par_ppm"] = 0
    assert bench.handle().check(*BUY).reason is DenyReason.QUOTE_STALE
    assert bench.handle().check("-0.01", "60000")


@pytest.mark.parametrize("field", ["rate_ppm", "par_ppm"])
@pytest.mark.parametrize("rate", [RATE_PPM_MAX + 1, 10**15, 2**62, 2**63 - 1])
def test_P8_worth_when_the_rate_is_beyond_counting_then_nothing_opens_and_a_close_counts_much(
    bench: Bench, field: str, rate: int
) -> None:
    bench.hold(10)
    bench.page.rows(RATE)[field] = rate
    before = bench.shared_words()
    assert bench.handle().check(*BUY).reason is DenyReason.QUOTE_STALE
    assert bench.shared_words() == before
    assert bench.handle().check("-0.01", "60000")
    gross_money, long_side, short_side = bench.sums()["portfolio"]
    assert (gross_money, long_side) == (BUY_MONEY, BUY_MONEY)
    assert short_side > 0


def test_worth_when_the_rate_is_at_its_bound_then_it_is_exact(bench: Bench) -> None:
    row = bench.page.rows(RATE)
    row["rate_ppm"] = RATE_PPM_MAX
    denied = bench.handle().check("0.001", "60000", "59000")
    assert denied.reason is DenyReason.ORDER_NOTIONAL
    assert denied.requested == -(-600_000 * RATE_PPM_MAX // PPM)


def test_worth_when_the_contract_is_inverse_then_the_price_does_not_matter(bench: Bench) -> None:
    spec = bench.page.rows(INSTRUMENT)[BTC]
    spec["inverse"], spec["value_numerator"], spec["value_denominator"] = 1, 1_000_000, 1
    assert bench.handle().check("0.01", "60000", "59000")
    assert gross(bench) == 10 * 1_000_000
    assert bench.handle().check("0.01", "59500", "59000")
    assert gross(bench) == 2 * 10 * 1_000_000


def test_worth_when_lot_values_are_broken_then_it_is_rounded_up(bench: Bench) -> None:
    spec = bench.page.rows(INSTRUMENT)[BTC]
    spec["value_numerator"], spec["value_denominator"] = 1, 7
    assert bench.handle().check(*BUY)
    assert gross(bench) == -(-BUY_MONEY // 7)


def test_margin_when_reserved_filled_and_released_then_it_follows_entry_and_position(
    bench: Bench,
) -> None:
    demand_margin(bench, 100_000)
    order = sent(bench, *BUY)
    assert (margin(bench), margin(bench, "portfolio")) == (600_000, 0)
    bench.settlement.fill(0, bench.settlement.find(order.token), 4, 4 * 600_000)
    assert margin(bench) == 240_000 + 360_000
    # The mark falls: the position's margin falls with it, the entry's stays as reserved.
    bench.settlement.mark(0, 4 * 500_000)
    assert margin(bench) == 200_000 + 360_000
    bench.settlement.release(order.token)
    assert margin(bench) == 200_000
    bench.hold(-4)
    assert margin(bench) == 0
    assert int(bench.page.rows(KEY)["margin_charged"][0]) == 0


def test_margin_when_it_is_rounded_then_never_down(bench: Bench) -> None:
    demand_margin(bench, 333_333)
    assert bench.handle().check("0.001", "60000", "59000")
    assert margin(bench) == 200_000
    assert bench.handle().check("0.001", "60000.1", "59000")
    assert margin(bench) == 200_000 + 200_001


def test_margin_when_the_balance_is_used_up_then_openings_end_and_closes_do_not(
    bench: Bench,
) -> None:
    demand_margin(bench, 100_000)
    bench.page.rows(LIMIT)["margin_max"][bench.page.names.scope("venue:alpha")] = 1_200_000
    assert bench.handle().check(*BUY)
    assert bench.handle().check(*BUY)
    before = bench.shared_words()
    denied = bench.handle().check("0.001", "60000", "59000")
    assert (denied.reason, denied.scope) == (DenyReason.MARGIN, "venue:alpha")
    assert (denied.limit, denied.used, denied.requested) == (1_200_000, 1_200_000, 60_000)
    assert bench.shared_words() == before
    bench.hold(10)
    assert bench.handle().check("-0.01", "60000")
    assert margin(bench) == 1_200_000 + 600_000
