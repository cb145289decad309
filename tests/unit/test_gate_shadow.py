"""A shadow page: what would be denied is granted, counted and recorded as what it would be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gate_fixtures import BREAKER, KEEPER, MARKET_MS, TREND, Bench, make_bench
from tripgate.gate.record import FLAG_SHADOW
from tripgate.gate.repair import freeze
from tripgate.page.layout import INSTRUMENT, LIMIT, SLOT, STRATEGY, SUM
from tripgate.page.lease import zero_lease
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import DenyReason, Level

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
BUY_MONEY = 6_000_000


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    made = make_bench(isolated_folders / "page")
    made.page.header["shadow"] = 1
    return made


def test_shadow_when_nothing_forbids_the_order_then_it_is_plainly_approved(bench: Bench) -> None:
    decision = bench.handle().check(*BUY)
    assert (decision.approved, decision.would_deny, decision.reason) == (True, False, None)
    record = bench.records(bench.slots[TREND])[-1]
    assert (record.flags & FLAG_SHADOW, record.would_deny) == (FLAG_SHADOW, False)


@pytest.mark.parametrize(
    ("reason", "arrange", "order"),
    [
        (DenyReason.LEVEL, lambda b: set_level(b.page, 0, LevelWriter.BREAKER, Level.HARD), BUY),
        (DenyReason.LEASE_LAPSED, lambda b: zero_lease(b.page, BREAKER), BUY),
        (DenyReason.GROSS_LIMIT, lambda b: b.limit("portfolio", gross=0), BUY),
        (DenyReason.NET_LIMIT, lambda b: b.limit("asset:BTC", net=0), BUY),
        (DenyReason.STOP_MISSING, lambda _: None, ("0.01", "60000", None)),
        (DenyReason.PRICE_COLLAR, lambda _: None, ("0.01", "61000", "59000")),
        (DenyReason.NOT_TRADABLE, lambda b: b.page.rows(INSTRUMENT)["tradable"].fill(0), BUY),
        (
            DenyReason.ORDER_RATE,
            lambda b: b.page.rows(STRATEGY)["orders_per_second_max"].fill(0),
            BUY,
        ),
    ],
)
def test_shadow_when_the_order_would_be_denied_then_it_is_granted_and_the_record_says_so(
    bench: Bench, reason: DenyReason, arrange: Callable[[Bench], None], order: tuple[str, ...]
) -> None:
    arrange(bench)
    decision = bench.handle().check(*order)
    assert (decision.approved, decision.would_deny, decision.reason) == (True, True, reason)
    assert str(decision).startswith(f"would deny {reason.name}")
    assert bench.sums()["portfolio"][0] >= BUY_MONEY
    record = bench.records(bench.slots[TREND])[-1]
    assert (record.reason, record.would_deny, record.token) == (reason, True, decision.token)
    assert int(bench.page.rows(SLOT)["denied"][bench.slots[TREND]][reason]) == 1
    bench.settlement.reap(1 << 62)
    assert set(bench.sums().values()) == {(0, 0, 0)}


def test_shadow_when_margin_is_short_then_margin_is_counted_beyond_it(bench: Bench) -> None:
    bench.page.rows(INSTRUMENT)["margin_ppm"] = 100_000
    bench.page.rows(LIMIT)["margin_max"] = 0
    decision = bench.handle().check(*BUY)
    assert (decision.approved, decision.reason) == (True, DenyReason.MARGIN)
    venue = bench.page.names.scope("venue:alpha")
    assert int(bench.page.rows(SUM)["margin"][venue]) == BUY_MONEY // 10
    bench.limit("portfolio", gross=0)
    assert bench.handle().check(*BUY).reason is DenyReason.GROSS_LIMIT
    assert int(bench.page.rows(SUM)["margin"][venue]) == 2 * BUY_MONEY // 10


@pytest.mark.parametrize(
    ("reason", "arrange", "order"),
    [
        (DenyReason.BAD_QUANTITY, lambda _: None, ("0", "60000", "59000")),
        (DenyReason.PAGE_CLOSED, lambda b: b.page.header.__setitem__("closed", 1), BUY),
        (DenyReason.FROZEN, lambda b: freeze(b.page, KEEPER), BUY),
        (
            DenyReason.MARK_STALE,
            lambda b: b.page.header.__setitem__("market_ms", MARKET_MS + 10**7),
            ("0.01", None, "59000"),
        ),
        (
            DenyReason.OPPOSED_POSITION,
            lambda b: b.hold(-7, strategy=1),
            BUY,
        ),
        (
            DenyReason.AMOUNT_OVERFLOW,
            lambda b: b.mark(0, 2**40),
            ("2147483.647", None, "109000000000"),
        ),
    ],
)
def test_shadow_when_the_order_cannot_be_counted_then_it_is_denied_on_any_page(
    bench: Bench, reason: DenyReason, arrange: Callable[[Bench], None], order: tuple[str, ...]
) -> None:
    arrange(bench)
    before = bench.shared_words()
    decision = bench.handle().check(*order)
    assert (decision.approved, decision.would_deny) == (False, False)
    assert decision.reason is reason
    assert bench.shared_words() == before
