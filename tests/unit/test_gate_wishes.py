"""Wishes and claims word by word, and the router's hand on an exit taken during a repair."""

import pytest

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BETA_BTC,
    BTC,
    HEDGE,
    KEEPER,
    MARKET_MS,
    Bench,
    unlinked_bench,
)
from tripgate.gate import commit as router
from tripgate.gate import exits
from tripgate.gate.exits import drop_exit, issue_exit, issue_stop, lower_wish, wish_exit
from tripgate.gate.repair import freeze, thaw
from tripgate.gate.slots import owns_slot
from tripgate.gate.words import COMMITTED, RESERVED, UNPOSTED, UNSENT, entry_word
from tripgate.page import atomics
from tripgate.page.layout import COUNTERS_HEADER, ENTRY, KEY, SLOT
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason

HARD, EMERGENCY = 3, 4


@pytest.fixture
def bench() -> Bench:
    return unlinked_bench()


def words(bench: Bench) -> dict[str, int]:
    row = bench.page.rows(KEY)[0]
    names = ("claim", "lots", "cause", "count", "ms", "first_ms")
    return {name: int(row[f"exit_{name}"]) for name in names}


def test_wish_when_several_come_then_the_largest_and_highest_win(bench: Bench) -> None:
    bench.hold(-10)
    assert wish_exit(bench.page, 0, EMERGENCY, MARKET_MS)
    bench.hold(4)
    assert not wish_exit(bench.page, 0, HARD, MARKET_MS + 5)
    assert words(bench) == {
        "claim": 1, "lots": 10, "cause": EMERGENCY, "count": 2, "ms": MARKET_MS + 5,
        "first_ms": MARKET_MS,
    }  # fmt: skip


def test_drop_when_the_wish_was_judged_then_everything_of_it_is_cleared(bench: Bench) -> None:
    bench.hold(10)
    wish_exit(bench.page, 0, HARD, MARKET_MS)
    assert drop_exit(bench.page, 0, 10)
    assert set(words(bench).values()) == {0}


def test_drop_when_a_wish_was_raised_meanwhile_then_it_stands_with_its_claim(bench: Bench) -> None:
    bench.hold(10)
    wish_exit(bench.page, 0, HARD, MARKET_MS)
    lower_wish(bench.page, 0, 10)
    # The router has read 0; a strategy raises the wish, finds the claim set and relies on it.
    bench.page.rows(KEY)["exit_lots"][0] = 3
    assert not drop_exit(bench.page, 0, 0)
    assert (words(bench)["claim"], words(bench)["lots"]) == (1, 3)


def test_drop_when_a_wish_comes_between_clearing_and_looking_then_it_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(10)
    wish_exit(bench.page, 0, HARD, MARKET_MS)
    lower_wish(bench.page, 0, 10)
    claim, real = bench.page.address(KEY, 0, "exit_claim"), atomics.exchange

    class Between:
        """The atomics, with a strategy's raise at the worst moment: the claim is still set."""

        load, store = staticmethod(atomics.load), staticmethod(atomics.store)
        compare_exchange = staticmethod(atomics.compare_exchange)

        @staticmethod
        def exchange(address: int, value: int) -> int:
            bench.page.rows(KEY)["exit_lots"][0] = 2
            assert atomics.compare_exchange(claim, 0, 1) == 1
            return real(address, value)

    monkeypatch.setattr(exits, "atomics", Between)
    assert not drop_exit(bench.page, 0, 0)
    assert (words(bench)["claim"], words(bench)["lots"]) == (1, 2)


@pytest.mark.parametrize(("lots_max", "expected"), [(None, -10), (4, -4), (99, -10), (0, None)])
def test_issue_exit_when_part_is_wished_then_no_more_than_that_is_issued(
    bench: Bench, lots_max: int | None, expected: int | None
) -> None:
    bench.hold(10)
    ring = RingWriter(bench.page, ALPHA_ROUTER)
    token = issue_exit(bench.page, ring, 0, MARKET_MS, lots_max=lots_max)
    if expected is None:
        assert token == 0
        return
    (row,) = (bench.page.rows(ENTRY)["token"] == token).nonzero()[0]
    order = router.read_entry(bench.page, int(row), token)
    assert order is not None
    assert (order.lots, order.is_market, order.price_ticks) == (expected, True, 0)


def test_issue_exit_when_it_has_a_price_then_it_is_no_market_order(bench: Bench) -> None:
    bench.hold(-10)
    ring = RingWriter(bench.page, ALPHA_ROUTER)
    token = issue_exit(bench.page, ring, 0, MARKET_MS, price_ticks=612_000)
    (row,) = (bench.page.rows(ENTRY)["token"] == token).nonzero()[0]
    order = router.read_entry(bench.page, int(row), token)
    assert order is not None
    assert (order.lots, order.is_market, order.is_exit, order.price_ticks) == (
        10, False, True, 612_000,
    )  # fmt: skip


@pytest.mark.parametrize("bit", [0, UNPOSTED])
def test_commit_when_an_exit_was_taken_during_a_repair_then_its_mark_stays(
    bench: Bench, bit: int
) -> None:
    bench.hold(10)
    token = bench.handle().check_raw(-4, 605_000, 0)
    assert token > 0
    (row,) = (bench.page.rows(ENTRY)["token"] == token).nonzero()[0]
    entry = bench.page.rows(ENTRY)
    assert int(entry["word"][row]) == entry_word(token, RESERVED)
    entry["word"][row] |= bit
    slot = bench.slots[0]
    order = router.find_reserved(bench.page, token, slot)
    assert order is not None
    assert router.commit(bench.page, order)
    assert int(entry["word"][row]) == entry_word(token, COMMITTED) | bit
    assert not router.commit(bench.page, order), "once"
    assert router.find_reserved(bench.page, token, slot) is None
    router.take_back(bench.page, order)
    assert int(entry["word"][row]) == entry_word(token, UNSENT) | bit


def test_commit_when_the_keeper_posts_meanwhile_then_the_swap_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(10)
    token = bench.handle().check_raw(-4, 605_000, 0)
    (row,) = (bench.page.rows(ENTRY)["token"] == token).nonzero()[0]
    entry = bench.page.rows(ENTRY)
    entry["word"][row] |= UNPOSTED
    order = router.find_reserved(bench.page, token, bench.slots[0])
    assert order is not None

    class Posting:
        """The atomics, with the keeper taking the mark away between the read and the swap."""

        @staticmethod
        def load(address: int) -> int:
            word = atomics.load(address)
            entry["word"][row] = word & ~UNPOSTED
            return word

        compare_exchange = staticmethod(atomics.compare_exchange)

    monkeypatch.setattr(router, "atomics", Posting)
    assert router.commit(bench.page, order)
    assert int(entry["word"][row]) == entry_word(token, COMMITTED)


def test_owns_slot_when_asked_then_only_its_living_owner_does(bench: Bench) -> None:
    bench.handle()
    slot, row = bench.slots[0], bench.page.rows(SLOT)[bench.slots[0]]
    pid = int(row["pid"])
    assert owns_slot(bench.page, pid, slot)
    assert not owns_slot(bench.page, 1, slot)
    assert not owns_slot(bench.page, pid, slot + 1)
    assert not owns_slot(bench.page, 0, slot + 1), "an empty slot is nobody's"
    assert not owns_slot(bench.page, pid, 255)
    assert not owns_slot(bench.page, pid, -1)
    row["start_time"] += 1
    assert not owns_slot(bench.page, pid, slot), "the number was another process's"


def test_exit_when_in_flight_then_it_makes_no_room_on_the_other_side(bench: Bench) -> None:
    bench.hold(10)
    ring = RingWriter(bench.page, ALPHA_ROUTER)
    worth = bench.worth(BTC, 10)
    assert bench.sums()["asset:BTC"] == (worth, worth, -worth)
    token = issue_exit(bench.page, ring, 0, MARKET_MS, lots_max=4)
    assert bench.sums()["asset:BTC"] == (worth, worth, -worth + worth * 4 // 10)
    # Another one beside it, the first being of unknown fate, counts instead of it.
    token = issue_exit(bench.page, ring, 0, MARKET_MS)
    assert bench.sums()["asset:BTC"] == (worth, worth, 0)
    bench.limit("asset:BTC", net=worth)
    denied = bench.handle(BETA_BTC, HEDGE).check_raw(-11, 120_000, 122_000)
    assert denied == -DenyReason.NET_LIMIT
    bench.settlement.fill(0, bench.settlement.find(token), -10, 0)
    assert set(bench.sums().values()) == {(0, 0, 0)}


def test_exit_when_a_repair_runs_then_it_waits_unposted_like_a_strategys_close(
    bench: Bench,
) -> None:
    bench.hold(10)
    ring, worth = RingWriter(bench.page, ALPHA_ROUTER), bench.worth(BTC, 10)
    count = bench.page.address(COUNTERS_HEADER, 0, "unposted")
    freeze(bench.page, KEEPER)
    for _ in range(2):
        assert issue_exit(bench.page, ring, 0, MARKET_MS)
        assert (atomics.load(count), bench.sums()["portfolio"]) == (1, (worth, worth, -worth))
    thaw(bench.page)
    assert bench.settlement.post_exits() == 1
    assert (atomics.load(count), bench.sums()["portfolio"]) == (0, (worth, worth, 0))
    sections = bench.page.rows(SLOT)[["section", "exit_section"]]
    assert not any(int(value) & 1 for row in sections for value in row)


def test_stop_when_replaced_then_it_counts_nothing_and_its_place_is_reused(bench: Bench) -> None:
    bench.hold(10)
    ring, before = RingWriter(bench.page, ALPHA_ROUTER), bench.sums()
    for ticks in (590_000, 591_000):
        assert issue_stop(bench.page, ring, 0, ticks, MARKET_MS)
        assert bench.sums() == before
