"""Exits: what merges and how far, prices brought back to the collar, and a freeze that lasts."""

from pathlib import Path

import pytest

from tests.gate_fixtures import (
    EXIT_COLLAR_PPM,
    HEDGE,
    KEEPER,
    MARKET_MS,
    RESTING_MAX,
    TREND,
    Bench,
    entries_in,
    make_bench,
)
from tripgate.gate.record import FLAG_CLOSING, FLAG_MARKET
from tripgate.gate.repair import freeze, thaw
from tripgate.gate.words import RESERVED, UNPOSTED, closable_parts
from tripgate.page import atomics
from tripgate.page.layout import COUNTERS_HEADER, ENTRY, INSTRUMENT, KEY, SLOT
from tripgate.reasons import DenyReason
from tripgate.units import PPM

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
REACH = 600_000 * EXIT_COLLAR_PPM // PPM


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def wish(bench: Bench) -> tuple[int, int, int]:
    """Return (claim, lots, how often) of the first key's wish."""
    row = bench.page.rows(KEY)[0]
    return int(row["exit_claim"]), int(row["exit_lots"]), int(row["exit_count"])


def unposted(bench: Bench) -> int:
    return atomics.load(bench.page.address(COUNTERS_HEADER, 0, "unposted"))


def last_entry_price(bench: Bench) -> int:
    rows = list(entries_in(bench, RESERVED))
    return max(
        (int(bench.page.rows(ENTRY)["token"][row]), int(bench.page.rows(ENTRY)["price"][row]))
        for row in rows
    )[1]


@pytest.mark.parametrize(
    ("held", "lots", "price", "expected"),
    [
        (10, -1, 600_000 - REACH - 1, 600_000 - REACH),
        (10, -1, 1, 600_000 - REACH),
        (10, -1, 600_000 - REACH, 600_000 - REACH),
        (10, -1, 700_000, 700_000),
        (-10, 1, 600_000 + REACH + 1, 600_000 + REACH),
        (-10, 1, 2**40, 600_000 + REACH),
        (-10, 1, 500_000, 500_000),
        (10, -1, 0, 0),
    ],
)
def test_close_when_its_price_is_beyond_the_exit_collar_then_it_is_brought_back(
    bench: Bench, held: int, lots: int, price: int, expected: int
) -> None:
    bench.hold(held)
    assert bench.handle().check_raw(lots, price, 0) > 0
    assert last_entry_price(bench) == expected


def test_close_when_the_mark_is_stale_then_its_price_stays_as_asked(bench: Bench) -> None:
    bench.hold(10)
    bench.page.header["market_ms"] = MARKET_MS + 10**7
    assert bench.handle().check_raw(-1, 1, 0) > 0
    assert last_entry_price(bench) == 1


def test_close_when_it_does_not_fit_then_it_merges_into_one_wish_as_large_as_the_largest(
    bench: Bench,
) -> None:
    bench.hold(10)
    assert bench.handle().check_raw(-6, 610_000, 0) > 0
    assert bench.handle().check_raw(-5, 0, 0) == -DenyReason.EXIT_IN_PROGRESS
    assert wish(bench) == (1, 5, 1)
    assert bench.handle().check_raw(-8, 0, 0) == -DenyReason.EXIT_IN_PROGRESS
    # A smaller close is part of what is under way already; it is counted all the same.
    assert bench.handle().check_raw(-1, 0, 0) == -DenyReason.EXIT_IN_PROGRESS
    assert wish(bench) == (1, 8, 3)
    assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (10, 6)
    assert int(bench.page.rows(KEY)["exit_first_ms"][0]) == MARKET_MS


@pytest.mark.parametrize(("held", "price"), [(10, 600_001), (-10, 599_999)])
def test_close_when_it_does_not_fit_but_would_only_rest_then_it_waits_and_wishes_nothing(
    bench: Bench, held: int, price: int
) -> None:
    bench.hold(held)
    sign = -1 if held > 0 else 1
    assert bench.handle().check_raw(sign * 10, price, 0) > 0
    assert bench.handle().check_raw(sign, price, 0) == -DenyReason.EXIT_PENDING
    assert wish(bench) == (0, 0, 0)


def test_close_when_as_many_rest_as_may_then_the_next_one_merges(bench: Bench) -> None:
    bench.hold(10)
    for _ in range(RESTING_MAX):
        assert bench.handle().check_raw(-1, 610_000, 0) > 0
    passive = bench.handle().check("-0.001", "61000")
    assert (passive.reason, passive.limit, passive.used) == (DenyReason.EXIT_PENDING, 4, 4)
    assert bench.handle().check_raw(-1, 600_000, 0) == -DenyReason.EXIT_IN_PROGRESS
    assert wish(bench) == (1, 1, 1)


def test_close_when_it_is_refused_then_its_record_says_that_it_closes(bench: Bench) -> None:
    bench.hold(10)
    bench.page.rows(INSTRUMENT)["resting_max"] = 0
    assert not bench.handle().check("-0.01")
    record = bench.records(bench.slots[TREND])[-1]
    assert (record.reason, record.flags) == (
        DenyReason.EXIT_IN_PROGRESS, FLAG_CLOSING | FLAG_MARKET,
    )  # fmt: skip


def test_P4_close_when_a_repair_runs_then_it_is_taken_unposted_and_openings_wait(
    bench: Bench,
) -> None:
    bench.hold(10)
    handle, slot = bench.handle(), None
    slot = bench.page.rows(SLOT)[bench.slots[TREND]]
    before = bench.sums()
    freeze(bench.page, KEEPER)
    assert handle.check_raw(-4, 0, 0) > 0
    (row,) = entries_in(bench, RESERVED)
    assert int(bench.page.rows(ENTRY)["word"][row]) & UNPOSTED
    # It holds its lots at once, but no node's sum has it yet.
    assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (10, 4)
    assert bench.sums() == before
    assert (unposted(bench), int(slot["section"]) % 2, int(slot["exit_section"]) % 2) == (1, 0, 0)
    # A refused one leaves no trace in the count.
    assert handle.check_raw(-7, 0, 0) == -DenyReason.EXIT_IN_PROGRESS
    assert (unposted(bench), int(slot["exit_section"]) % 2) == (1, 0)
    thaw(bench.page)
    for strategy in (TREND, HEDGE):
        denied = bench.handle(strategy=strategy).check(*BUY)
        assert denied.reason in (DenyReason.FROZEN, DenyReason.EXIT_IN_PROGRESS)
    assert denied.reason is DenyReason.FROZEN


@pytest.mark.parametrize("side", [1, -1])
def test_hedge_side_when_orders_come_then_one_way_opens_and_the_other_closes(
    bench: Bench, side: int
) -> None:
    bench.page.rows(KEY)["side"] = side
    handle = bench.handle()
    assert handle.check_raw(-side * 5, 0, 0) == -DenyReason.NO_POSITION
    assert handle.check_raw(side * 5, 0, 590_000 if side > 0 else 610_000) > 0
    bench.hold(side * 10)
    assert handle.check_raw(-side * 11, 0, 0) == -DenyReason.MIXED
    assert handle.check_raw(-side * 10, 0, 0) > 0
    # In hedge mode another strategy may stand on the other side: no claim was made.
    assert not bench.page.rows(KEY)["exit_claim"].any()


def test_split_when_an_order_closes_and_opens_then_its_halves_go_one_by_one(bench: Bench) -> None:
    bench.hold(10)
    handle = bench.handle()
    assert handle.check("-0.015", "60000", "61000").reason is DenyReason.MIXED
    closing, opening = handle.check_split("-0.015", "60000", "61000")
    assert closing is not None
    assert closing.approved
    assert opening is not None
    assert (str(opening.quantity), opening.ready) == ("-0.005", False)
    assert opening.check().reason is DenyReason.EXIT_PENDING
    assert wish(bench) == (0, 0, 0)
    order = bench.settlement.find(closing.token)
    bench.settlement.fill(0, order, -10, 0)
    bench.settlement.release(closing.token)
    assert opening.ready
    assert opening.check().approved


@pytest.mark.parametrize("quantity", ["nan", 0, "0.0001", float("inf"), None])
def test_split_when_the_quantity_is_none_then_it_is_denied_and_nothing_opens(
    bench: Bench, quantity: object
) -> None:
    bench.hold(10)
    closing, opening = bench.handle().check_split(quantity, "60000", "61000")
    assert closing is not None
    assert (closing.reason, opening) == (DenyReason.BAD_QUANTITY, None)


@pytest.mark.parametrize(
    ("held", "quantity", "halves"),
    [(0, "0.01", (False, True)), (10, "0.01", (False, True)), (10, "-0.01", (True, False))],
)
def test_split_when_an_order_has_one_half_then_there_is_no_other(
    bench: Bench, held: int, quantity: str, halves: tuple[bool, bool]
) -> None:
    if held:
        bench.hold(held)
    closing, opening = bench.handle().check_split(quantity, "60000", "59000")
    assert (closing is not None, opening is not None) == halves
