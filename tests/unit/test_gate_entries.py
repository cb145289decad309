"""The life of an entry after its grant: commit, send, take back, fill, release, exits and stops."""

from pathlib import Path
from typing import Any

import pytest

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BETA_ROUTER,
    BREAKER,
    BTC,
    ETH,
    HEDGE,
    MARKET_MS,
    TREND,
    Bench,
    entries_in,
    make_bench,
)
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate import commit as router
from tripgate.gate.commit import SEND_WINDOW_MS, Approved
from tripgate.gate.exits import drop_exit, issue_exit, issue_stop, wish_exit
from tripgate.gate.record import FLAG_CLOSING, FLAG_MARKET
from tripgate.gate.settle import Settlement
from tripgate.gate.words import (
    COMMITTED,
    FREE,
    RELEASING,
    RESERVED,
    UNSENT,
    closable_parts,
    make_token,
    token_epoch,
    token_sequence,
    token_slot,
)
from tripgate.page.layout import CLAIM, ENTRY, EXIT_SLOT, KEY, STOP_SLOT, WATERMARK
from tripgate.page.lease import zero_lease
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason, Level

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
BUY_MONEY = 6_000_000
NOTHING = (0, 0, 0)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def approve(bench: Bench, *order: Any, strategy: int = TREND) -> Approved:
    """Let the check approve an order and find it again as the router does."""
    token = bench.handle(strategy=strategy).check(*(order or BUY)).token
    assert token > 0
    found = router.find_reserved(bench.page, token, bench.slots[strategy])
    assert found is not None
    return found


def commit(bench: Bench, *order: Any) -> Approved:
    """Approve and commit an order."""
    approved = approve(bench, *order)
    assert router.commit(bench.page, approved)
    return approved


def test_token_when_packed_then_epoch_slot_and_sequence_come_back() -> None:
    for parts in [(1, 0, 1), (2**15 - 1, 255, 2**40 - 1), (7, 16, 12)]:
        token = make_token(*parts)
        assert 0 < token < 2**63
        assert (token_epoch(token), token_slot(token), token_sequence(token)) == parts


def test_closable_parts_when_short_then_the_sign_stays_in_the_high_half() -> None:
    assert closable_parts((-5 << 32) | 3) == (-5, 3)
    assert closable_parts((5 << 32) | (2**32 - 1)) == (5, 2**32 - 1)


def test_router_when_it_finds_an_order_then_it_is_what_was_checked(bench: Bench) -> None:
    order = approve(bench)
    assert (order.lots, order.price_ticks, order.stop_ticks) == (10, 600_000, 590_000)
    assert (order.key, order.instrument, order.t_signed_ms) == (0, BTC, MARKET_MS)
    assert (order.opens, order.is_market, order.is_stop, order.is_exit) == (
        True, False, False, False,
    )  # fmt: skip
    assert approve(bench, "0.01", None, "59000").is_market


def test_router_when_another_slots_owner_names_a_token_then_it_finds_nothing(bench: Bench) -> None:
    order = approve(bench)
    bench.handle(strategy=HEDGE)
    assert router.find_reserved(bench.page, order.token, bench.slots[HEDGE]) is None
    assert router.find_reserved(bench.page, order.token + 1, bench.slots[TREND]) is None


@pytest.mark.parametrize("field", ["lots", "price", "stop", "key", "flags", "reserved", "checksum"])
def test_router_when_an_entrys_word_was_changed_then_its_checksum_refuses_it(
    bench: Bench, field: str
) -> None:
    order = approve(bench)
    bench.page.rows(ENTRY)[field][order.row] += 1
    assert router.find_reserved(bench.page, order.token, bench.slots[TREND]) is None
    assert not router.commit(bench.page, order)


def test_router_when_the_epoch_is_another_then_an_old_entry_is_refused(bench: Bench) -> None:
    order = approve(bench)
    bench.page.header["epoch"] = 8
    assert router.read_entry(bench.page, order.row, order.token) is None


def test_commit_when_done_once_then_never_again(bench: Bench) -> None:
    order = commit(bench)
    assert not router.commit(bench.page, order)
    assert router.find_reserved(bench.page, order.token, bench.slots[TREND]) is None
    assert router.live_rows(bench.page) == [order.row]


def test_commit_when_the_reaper_was_first_then_it_fails_and_the_reverse(bench: Bench) -> None:
    order = approve(bench)
    assert bench.settlement.reap(1 << 62) == [order.token]
    assert not router.commit(bench.page, order)
    commit(bench)
    assert bench.settlement.reap(1 << 62) == []


def test_commit_when_a_stale_token_meets_a_reused_entry_then_it_sends_nothing(
    bench: Bench,
) -> None:
    old = approve(bench)
    bench.settlement.reap(1 << 62)
    bench.make_durable()
    bench.settlement.free_durable()
    fresh = [approve(bench) for _ in range(56)]
    reused = next(order for order in fresh if order.row == old.row)
    assert not router.commit(bench.page, old)
    assert router.commit(bench.page, reused)


def test_take_back_when_never_sent_then_unsent_and_the_keeper_releases_it(bench: Bench) -> None:
    order = commit(bench)
    router.take_back(bench.page, order)
    assert list(entries_in(bench, UNSENT)) == [order.row] == router.live_rows(bench.page)
    assert bench.settlement.release(order.token)
    assert set(bench.sums().values()) == {NOTHING}
    router.take_back(bench.page, order)
    assert list(entries_in(bench, RELEASING)) == [order.row]


def test_durable_when_the_log_has_the_record_then_and_only_then(bench: Bench) -> None:
    order = approve(bench)
    assert not router.is_durable(bench.page, order)
    bench.make_durable()
    assert router.is_durable(bench.page, order)
    bench.page.rows(ENTRY)["record_sequence"][order.row] = 0
    assert not router.is_durable(bench.page, order)


def test_send_when_nothing_tightened_then_it_may_leave(bench: Bench) -> None:
    order = commit(bench)
    assert router.why_not_send(bench.page, order, MARKET_MS + SEND_WINDOW_MS, host_ns()) is None


def test_send_when_something_tightened_since_the_check_then_an_opening_stays(
    bench: Bench,
) -> None:
    order = commit(bench)

    def why(market_ms: int = MARKET_MS, now_ns: int | None = None) -> str | None:
        return router.why_not_send(bench.page, order, market_ms, now_ns or host_ns())

    assert why(MARKET_MS + SEND_WINDOW_MS + 1) == "expired before the send"
    zero_lease(bench.page, BETA_ROUTER)
    assert why() is None
    zero_lease(bench.page, ALPHA_ROUTER)
    assert why() == "lease of router(alpha) lapsed"
    zero_lease(bench.page, BREAKER)
    assert why() == "lease of breaker lapsed"
    set_level(bench.page, bench.page.names.scope("asset:BTC"), LevelWriter.KEEPER, Level.MEDIUM)
    assert why() == "level MEDIUM"


def test_send_when_the_instance_closed_or_a_lease_ran_out_then_an_opening_stays(
    bench: Bench,
) -> None:
    order = commit(bench)
    bench.page.header["closed"] = 1
    assert router.why_not_send(bench.page, order, MARKET_MS, host_ns()) == "the instance is closed"
    far = host_ns() + 7_200 * NS_PER_S
    assert router.why_not_send(bench.page, order, MARKET_MS, far) == "lease of breaker lapsed"


def test_P4_send_when_everything_is_tight_then_a_close_leaves_all_the_same(bench: Bench) -> None:
    bench.hold(10)
    order = commit(bench, "-0.01", "60000")
    assert order.flags == FLAG_CLOSING
    set_level(bench.page, 0, LevelWriter.OPERATOR, Level.EMERGENCY)
    zero_lease(bench.page, BREAKER)
    assert router.why_not_send(bench.page, order, MARKET_MS + 10**9, 1 << 62) is None


def test_fill_when_partial_then_the_entry_keeps_the_rest_rounded_up(bench: Bench) -> None:
    token = bench.handle(ETH).check("0.03", "3000.001", "2990").token
    entry = bench.settlement.find(token)
    assert entry is not None
    key = bench.key(ETH)
    bench.settlement.fill(key, entry, 1, 300_000)
    row = bench.page.rows(ENTRY)[entry.row]
    # 900,001 for three lots: two of them keep ceil(600,000.67).
    assert (int(row["charged"]), int(row["remaining"])) == (600_001, 2)
    assert bench.sums()["portfolio"] == (900_001, 900_001, -300_000)
    assert bench.position(key) == 1
    assert int(bench.page.rows(CLAIM)["lots"][ETH]) == 3
    assert bench.settlement.release(token)
    assert bench.sums()["portfolio"] == (300_000, 300_000, -300_000)
    assert int(bench.page.rows(CLAIM)["lots"][ETH]) == 1
    assert not row["charged"]


def test_fill_when_more_than_the_entry_has_then_the_position_counts_all_of_it(
    bench: Bench,
) -> None:
    order = commit(bench)
    bench.settlement.fill(0, bench.settlement.find(order.token), 12, 12 * 600_000)
    assert bench.position(0) == 12
    assert bench.sums()["portfolio"][0] == 12 * 600_000


def test_mark_when_prices_move_then_nodes_follow_both_ways(bench: Bench) -> None:
    bench.hold(10)
    for worth in (7_000_000, 5_000_000, 0, -4_000_000, -6_000_000, -1_000_000, 3_000_000):
        bench.settlement.mark(0, worth)
        assert bench.sums()["portfolio"] == (abs(worth), worth, -worth)
        assert bench.sums()["strategy:trend"] == (abs(worth), worth, -worth)
        assert bench.sums()["venue:beta"] == NOTHING


def test_close_when_open_then_its_side_is_charged_and_its_lots_are_held(bench: Bench) -> None:
    bench.hold(10)
    order = commit(bench, "-0.004", "59990")
    gross, long_side, short_side = bench.sums()["portfolio"]
    assert (gross, long_side) == (BUY_MONEY, BUY_MONEY)
    assert short_side == -BUY_MONEY + 4 * 600_000
    assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (10, 4)
    assert bench.handle().check("-0.007", "60000.1").reason is DenyReason.EXIT_PENDING
    bench.settlement.fill(0, bench.settlement.find(order.token), -4, 6 * 600_000)
    bench.settlement.release(order.token)
    assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (6, 0)
    assert bench.sums()["portfolio"] == (3_600_000, 3_600_000, -3_600_000)
    assert int(bench.page.rows(CLAIM)["lots"][BTC]) == 6


def test_close_when_cancelled_then_its_hold_is_given_back(bench: Bench) -> None:
    bench.hold(-10)
    order = commit(bench, "0.01", None)
    assert order.flags == FLAG_CLOSING | FLAG_MARKET
    assert bench.settlement.release(order.token)
    assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (-10, 0)
    assert bench.sums()["portfolio"] == (BUY_MONEY, -BUY_MONEY, BUY_MONEY)
    assert bench.handle().check("0.01", None)


def test_release_when_unknown_or_already_free_then_nothing_moves(bench: Bench) -> None:
    order = commit(bench)
    assert bench.settlement.release(order.token)
    assert bench.settlement.release(order.token)
    assert set(bench.sums().values()) == {NOTHING}
    bench.make_durable()
    bench.settlement.free_durable()
    assert not bench.settlement.release(order.token)
    assert bench.settlement.find(order.token) is None
    assert bench.settlement.find(make_token(7, EXIT_SLOT, 99)) is None


def test_entry_when_released_then_it_is_reused_only_once_its_record_is_durable(
    bench: Bench,
) -> None:
    order = commit(bench)
    bench.settlement.release(order.token)
    bench.settlement.free_durable()
    assert list(entries_in(bench, RELEASING)) == [order.row]
    bench.make_durable()
    bench.settlement.free_durable()
    assert list(entries_in(bench, RELEASING)) == []
    assert int(bench.page.rows(ENTRY)["word"][order.row]) & 0xFF == FREE


def test_settlement_when_its_predecessor_died_then_releasing_entries_are_adopted(
    bench: Bench,
) -> None:
    order = commit(bench)
    bench.settlement.release(order.token)
    successor = Settlement(bench.page, 1)
    successor.adopt_releasing()
    bench.make_durable()
    successor.free_durable()
    assert int(bench.page.rows(ENTRY)["word"][order.row]) & 0xFF == FREE


@pytest.fixture
def ring(bench: Bench) -> RingWriter:
    return RingWriter(bench.page, ALPHA_ROUTER)


def test_exit_when_wished_then_claimed_once_and_dropped_again(bench: Bench) -> None:
    bench.hold(-10)
    assert wish_exit(bench.page, 0, 3, MARKET_MS)
    assert not wish_exit(bench.page, 0, 4, MARKET_MS + 1)
    row = bench.page.rows(KEY)[0]
    assert [int(row[n]) for n in ("exit_lots", "exit_cause", "exit_ms")] == [10, 4, MARKET_MS + 1]
    assert bench.handle().check(*BUY).reason is DenyReason.EXIT_IN_PROGRESS
    drop_exit(bench.page, 0)
    assert wish_exit(bench.page, 0, 3, MARKET_MS)


@pytest.mark.parametrize("held", [10, -10])
def test_P1_exit_when_issued_then_it_is_an_order_of_the_gate_on_record(
    bench: Bench, ring: RingWriter, held: int
) -> None:
    bench.hold(held)
    token = issue_exit(bench.page, ring, 0, MARKET_MS)
    assert token_slot(token) == EXIT_SLOT
    (row,) = entries_in(bench, COMMITTED)
    order = router.read_entry(bench.page, row, token)
    assert order is not None
    assert (order.lots, order.is_exit, order.is_market, order.opens) == (-held, True, True, False)
    record = bench.records(ALPHA_ROUTER)[-1]
    assert (record.token, record.values["lots"], record.approved) == (token, -held, True)
    assert router.why_not_send(bench.page, order, 1 << 62, 1 << 62) is None
    entry = bench.settlement.find(token)
    bench.settlement.fill(0, entry, -held, 0)
    assert bench.settlement.release(token)
    assert set(bench.sums().values()) == {NOTHING}
    assert int(bench.page.rows(CLAIM)["lots"][BTC]) == 0
    bench.settlement.free_durable()
    assert list(entries_in(bench, RELEASING)) == []
    assert issue_exit(bench.page, ring, 0, MARKET_MS) == 0


def test_P9_stop_when_issued_then_it_covers_the_position_and_holds_nothing(
    bench: Bench, ring: RingWriter
) -> None:
    bench.hold(10)
    before = bench.page.rows(KEY)["closable"].tobytes()
    token = issue_stop(bench.page, ring, 0, 590_000, MARKET_MS)
    assert token_slot(token) == STOP_SLOT
    (row,) = entries_in(bench, COMMITTED)
    order = router.read_entry(bench.page, row, token)
    assert order is not None
    assert (order.lots, order.stop_ticks, order.is_stop, order.opens) == (-10, 590_000, True, False)
    assert bench.page.rows(KEY)["closable"].tobytes() == before
    assert bench.handle().check("-0.01", "60000")
    assert issue_stop(bench.page, ring, bench.key(ETH), 1, MARKET_MS) == 0


def test_exit_when_issued_again_before_the_last_is_freed_then_the_new_one_lives(
    bench: Bench, ring: RingWriter
) -> None:
    bench.hold(10)
    first = issue_exit(bench.page, ring, 0, MARKET_MS)
    bench.settlement.release(first)
    second = issue_exit(bench.page, ring, 0, MARKET_MS)
    bench.settlement.free_durable()
    assert bench.settlement.find(first) is None
    found = bench.settlement.find(second)
    assert found is not None
    assert found.closes
    assert int(bench.page.rows(WATERMARK)["sequence"][ALPHA_ROUTER]) == 0
    assert list(entries_in(bench, RESERVED)) == []
