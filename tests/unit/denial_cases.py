"""Ways to be denied: what is set up on a page, what is asked, and what the denial must name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.gate_fixtures import (
    AGE_MAX_MS,
    ALPHA_ROUTER,
    BREAKER,
    BTC,
    BTC_SCOPE,
    COLLAR_PPM,
    HEDGE,
    MARKET_MS,
    STOP_DISTANCE_PPM,
    TREND,
    Bench,
)
from tripgate.gate.exits import wish_exit
from tripgate.gate.judge import AMOUNT_MAX
from tripgate.page import atomics
from tripgate.page.layout import (
    BOARD,
    CLAIM,
    CLOSING_ENTRIES,
    COUNTERS_HEADER,
    ENTRIES_PER_SLOT,
    INSTRUMENT,
    KEY,
    LIMIT,
    RATE,
    RING_BYTES,
    RING_EXIT_RESERVE,
    SLOT,
    STRATEGY,
)
from tripgate.page.lease import LeaseHolder, zero_lease
from tripgate.page.level import LevelWriter, set_effective_limits, set_level
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason, Level
from tripgate.units import LOTS_MAX, PPM

BUY = ("0.01", "60000", "59000")
BUY_MONEY = 10 * 600_000
"""Worth of ``BUY``: 10 lots at 600,000 ticks of 1 money unit each."""
ALL = "portfolio"
OPENINGS_MAX = ENTRIES_PER_SLOT - CLOSING_ENTRIES


@dataclass(frozen=True)
class Case:
    """One way to be denied: what is set up, what is asked, what is named."""

    reason: DenyReason
    arrange: Callable[[Bench], Any]
    order: tuple[Any, ...] = BUY
    scope: str = BTC_SCOPE
    limit: int = 0
    used: int = 0
    requested: int = 0
    instrument: int = BTC

    def __str__(self) -> str:
        return self.reason.name


def nothing(bench: Bench) -> None:
    """Leave the page as it is."""


def header(name: str, value: int) -> Callable[[Bench], None]:
    """Set a word of the control header."""

    def act(bench: Bench) -> None:
        bench.page.header[name] = value

    return act


def fill_entries(bench: Bench) -> None:
    """Reserve until only the places of closings are left."""
    for _ in range(OPENINGS_MAX):
        assert bench.handle().check(*BUY)


def fill_ring(bench: Bench) -> None:
    """Let the own process write until only the exits' share of its ring is free."""
    bench.handle()
    writer = RingWriter(bench.page, bench.slots[TREND])
    while bench.page.rows(SLOT)["ring_head"][bench.slots[TREND]] < RING_BYTES - RING_EXIT_RESERVE:
        assert writer.append(99, b"x" * 4064, 1, 1)


def spend_rate(bench: Bench) -> None:
    """Use up the strategy's two openings of this second."""
    bench.page.rows(STRATEGY)["orders_per_second_max"][TREND] = 2
    for _ in range(2):
        assert bench.handle().check(*BUY)


def hold_and_close_all(bench: Bench) -> None:
    """Hold 10 lots with a close of all of them open."""
    bench.hold(10)
    assert bench.handle().check("-0.01", "60000")


def closed_by_another(bench: Bench) -> None:
    """Let a liquidation take the position while a close of it is still open."""
    hold_and_close_all(bench)
    bench.hold(-10)


def wished(bench: Bench) -> None:
    """Hold 10 lots that the breaker has claimed for flattening."""
    bench.hold(10)
    assert wish_exit(bench.page, bench.key(), 1, MARKET_MS)


def huge_mark(bench: Bench) -> None:
    """Set a mark at which the largest quantity is worth more than money can count."""
    bench.mark(BTC, 2**40)


def replace_counters(bench: Bench) -> None:
    """Let the counters file say another epoch than the control file."""
    address = bench.page.address(COUNTERS_HEADER, 0, "epoch")
    atomics.store(address, 8)


def at_level(scope: str, level: Level) -> Callable[[Bench], None]:
    """Hold a node at a level."""

    def act(bench: Bench) -> None:
        set_level(bench.page, bench.page.names.scope(scope), LevelWriter.BREAKER, level)

    return act


def halve_the_order_cap(bench: Bench) -> None:
    """Let a factor of one half at the venue cut an order cap of almost two orders."""
    bench.page.rows(INSTRUMENT)["order_money_max"].fill(2 * BUY_MONEY - 1)
    set_effective_limits(bench.page, bench.page.names.scope("venue:alpha"), PPM // 2)


def almost_full(scope: str, kind: str) -> Callable[[Bench], None]:
    """Reserve one order, and leave room for all but one money unit of a second."""

    def act(bench: Bench) -> None:
        assert bench.handle().check(*BUY)
        bench.limit(scope, **{kind: 2 * BUY_MONEY - 1})

    return act


def one_unposted(bench: Bench) -> None:
    """Let one exit taken during a freeze wait for the keeper to post it."""
    atomics.store(bench.page.address(COUNTERS_HEADER, 0, "unposted"), 1)


def short_of_margin(bench: Bench) -> None:
    """Demand ten per cent margin where one money unit is missing."""
    bench.page.rows(INSTRUMENT)["margin_ppm"].fill(PPM // 10)
    bench.page.rows(LIMIT)["margin_max"].fill(BUY_MONEY // 10 - 1)


def sent_a_moment_ago(bench: Bench) -> None:
    """Approve the order once under a duplicate window of half a second."""
    bench.page.rows(STRATEGY)["duplicate_window_ms"].fill(500)
    assert bench.handle().check(*BUY)


def sent_twice_already(bench: Bench) -> None:
    """Approve the order as often as it may be repeated within a minute."""
    plans = bench.page.rows(STRATEGY)
    plans["repeats_max"].fill(2)
    plans["repeat_window_ms"].fill(60_000)
    for _ in range(2):
        assert bench.handle().check(*BUY)


def denied_twice_already(bench: Bench) -> None:
    """Use up the denials that a strategy may have in a second."""
    bench.page.rows(STRATEGY)["attempts_per_second_max"].fill(2)
    for _ in range(2):
        assert bench.handle().check("0.01", "60000", None).reason is DenyReason.STOP_MISSING


CASES = [
    Case(DenyReason.PAGE_CLOSED, header("closed", 1), scope=ALL),
    Case(DenyReason.EPOCH_CHANGED, header("epoch", 8), scope=ALL),
    Case(DenyReason.EPOCH_CHANGED, replace_counters, scope=ALL),
    Case(DenyReason.BAD_QUANTITY, nothing, ("0", "60000", "59000")),
    Case(DenyReason.BAD_QUANTITY, nothing, ("0.0001", "60000", "59000")),
    Case(DenyReason.BAD_PRICE, nothing, ("0.01", "60000.05", "59000")),
    Case(DenyReason.BAD_PRICE, nothing, ("0.01", "60000", "0")),
    Case(DenyReason.NOT_TRADABLE, lambda b: b.page.rows(INSTRUMENT)["tradable"].fill(0)),
    *(
        Case(
            DenyReason.LEVEL,
            at_level(scope, level),
            scope=scope,
            limit=Level.MEDIUM,
            used=level,
        )
        for scope, level in zip(
            ("strategy:trend", BTC_SCOPE, "asset:BTC", "venue:alpha", ALL),
            (Level.MEDIUM, Level.HARD, Level.EMERGENCY, Level.MEDIUM, Level.HARD),
            strict=True,
        )
    ),
    Case(DenyReason.LEASE_LAPSED, lambda b: zero_lease(b.page, BREAKER), scope="lease:breaker"),
    Case(
        DenyReason.INPUT_STALE,
        lambda b: LeaseHolder(b.page, ALPHA_ROUTER).give_up_stale(),
        scope="lease:router(alpha)",
    ),
    Case(
        DenyReason.MARK_STALE,
        header("market_ms", MARKET_MS + AGE_MAX_MS + 1),
        limit=AGE_MAX_MS,
        used=AGE_MAX_MS + 1,
    ),
    Case(DenyReason.MARK_STALE, lambda b: b.mark(BTC, 0), limit=AGE_MAX_MS),
    Case(DenyReason.MARK_STALE, lambda b: b.mark(BTC, 2**40 + 1), limit=AGE_MAX_MS),
    Case(DenyReason.MARK_STALE, lambda b: b.page.rows(BOARD)["sequence"].fill(0)),
    Case(DenyReason.MARK_STALE, lambda b: b.page.rows(BOARD)["sequence"].fill(5)),
    Case(
        DenyReason.PRICE_COLLAR,
        nothing,
        ("0.01", "60600.1", "59000"),
        limit=COLLAR_PPM,
        requested=6_001 * PPM // 600_000,
    ),
    Case(
        DenyReason.PRICE_COLLAR,
        nothing,
        ("-0.01", "59399.9", "61000"),
        limit=COLLAR_PPM,
        requested=6_001 * PPM // 600_000,
    ),
    Case(DenyReason.STOP_MISSING, nothing, ("0.01", "60000", None)),
    *(
        Case(DenyReason.STOP_WRONG_SIDE, nothing, order, limit=nearest, requested=nearest)
        for order, nearest in (
            (("0.01", "59900", "59900"), 599_000),
            (("0.01", "60100", "60000"), 600_000),
            (("-0.01", "59900", "60000"), 600_000),
            (("0.01", None, "60000"), 600_000),
        )
    ),
    Case(
        DenyReason.STOP_TOO_FAR,
        nothing,
        ("0.01", "60000", "53999.9"),
        limit=STOP_DISTANCE_PPM,
        requested=60_001 * PPM // 600_000,
    ),
    Case(
        DenyReason.STOP_TOO_FAR,
        nothing,
        ("-0.01", None, "66000.1"),
        limit=STOP_DISTANCE_PPM,
        requested=60_001 * PPM // 600_000,
    ),
    Case(
        DenyReason.ORDER_NOTIONAL,
        lambda b: b.page.rows(INSTRUMENT)["order_money_max"].fill(BUY_MONEY - 1),
        limit=BUY_MONEY - 1,
        requested=BUY_MONEY,
    ),
    Case(
        DenyReason.ORDER_NOTIONAL,
        halve_the_order_cap,
        limit=BUY_MONEY - 1,
        requested=BUY_MONEY,
    ),
    Case(DenyReason.ORDER_RATE, spend_rate, scope="strategy:trend", limit=2, used=2, requested=1),
    Case(
        DenyReason.OPPOSED_POSITION,
        lambda b: b.hold(-7, strategy=HEDGE),
        used=-7,
        requested=10,
    ),
    Case(
        DenyReason.OPPOSED_POSITION,
        lambda b: b.handle(strategy=HEDGE).check(*BUY),
        ("-0.01", "60000", "61000"),
        used=10,
        requested=-10,
    ),
    Case(DenyReason.EXIT_PENDING, closed_by_another, used=10, requested=10),
    Case(
        DenyReason.EXIT_PENDING, hold_and_close_all, ("-0.001", "60000.1"), limit=10, used=10,
        requested=1,
    ),
    Case(DenyReason.EXIT_IN_PROGRESS, wished, used=10, requested=10),
    Case(DenyReason.EXIT_IN_PROGRESS, wished, ("-0.01", "60000"), used=10, requested=10),
    Case(DenyReason.MIXED, lambda b: b.hold(10), ("-0.011", "60000", "61000"), limit=10,
         requested=11),
    Case(DenyReason.MIXED, lambda b: b.hold(-10), ("0.02", "60000", "59000"), limit=10,
         requested=20),
    *(
        Case(
            DenyReason.GROSS_LIMIT,
            almost_full(scope, "gross"),
            scope=scope,
            limit=2 * BUY_MONEY - 1,
            used=BUY_MONEY,
            requested=BUY_MONEY,
        )
        for scope in ("strategy:trend", BTC_SCOPE, "asset:BTC", "venue:alpha", ALL)
    ),
    *(
        Case(
            DenyReason.NET_LIMIT,
            almost_full(scope, "net"),
            scope=scope,
            limit=2 * BUY_MONEY - 1,
            used=BUY_MONEY,
            requested=BUY_MONEY,
        )
        for scope in ("strategy:trend", BTC_SCOPE, "asset:BTC", "venue:alpha", ALL)
    ),
    Case(
        DenyReason.NET_LIMIT,
        lambda b: b.limit("venue:alpha", net=0),
        ("-0.01", "60000", "61000"),
        scope="venue:alpha",
        requested=BUY_MONEY,
    ),
    Case(
        DenyReason.AMOUNT_OVERFLOW,
        huge_mark,
        (str(LOTS_MAX / 1000), None, "109000000000"),
        limit=AMOUNT_MAX,
        requested=LOTS_MAX,
    ),
    Case(
        DenyReason.AMOUNT_OVERFLOW,
        lambda b: b.page.rows(CLAIM)["lots"].fill(LOTS_MAX - 9),
        limit=LOTS_MAX,
        used=LOTS_MAX - 9,
        requested=10,
    ),
    Case(
        DenyReason.ENTRIES_FULL, fill_entries, scope="strategy:trend", limit=OPENINGS_MAX,
        used=OPENINGS_MAX, requested=1,
    ),
    Case(DenyReason.FROZEN, header("freeze", 1), scope=ALL),
    Case(DenyReason.FROZEN, one_unposted, scope=ALL, used=1),
    Case(
        DenyReason.MARGIN, short_of_margin, scope="venue:alpha", limit=BUY_MONEY // 10 - 1,
        requested=BUY_MONEY // 10,
    ),
    Case(
        DenyReason.ORDER_LOTS, lambda b: b.page.rows(INSTRUMENT)["order_lots_max"].fill(9),
        limit=9, requested=10,
    ),
    Case(
        DenyReason.DUPLICATE_ORDER, sent_a_moment_ago, limit=500, used=0, requested=1,
    ),
    Case(
        DenyReason.REPEATED_ORDER, sent_twice_already, limit=2, used=2, requested=1,
    ),
    Case(
        DenyReason.ATTEMPT_RATE, denied_twice_already, scope="strategy:trend", limit=2, used=2,
        requested=1,
    ),
    Case(
        DenyReason.NO_POSITION, lambda b: b.page.rows(KEY)["side"].fill(1),
        ("-0.01", "60000", None), requested=10,
    ),
    Case(
        DenyReason.QUOTE_STALE,
        lambda b: b.page.rows(RATE)["market_ms"].fill(MARKET_MS - AGE_MAX_MS - 1),
        limit=AGE_MAX_MS, used=AGE_MAX_MS + 1,
    ),
]  # fmt: skip
