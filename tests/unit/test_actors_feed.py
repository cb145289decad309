"""The market feed on a real page: ticks, staleness, pace, and who is waited for."""

import os
from collections.abc import Iterator

import pytest
import trio

from actors import market_feed
from actors.market_feed import (
    HEARTBEAT_AGE_NS,
    STRATEGY_START_NS,
    STRATEGY_WAIT_NS,
    Feed,
    _half_spread_ppm,
    run,
)
from exchange_adapters.simulator.requests import TickStep
from tests.contract.local_bench import TinyFeed, running
from tests.tree_fixtures import BTC, ETH, MARKET_MS, STEP_MS, paper_page, records, service, until
from tripgate.clock import host_ns
from tripgate.messages import EventKind
from tripgate.page.bars import read_bars
from tripgate.page.board import read_quote
from tripgate.page.layout import BOARD, LEASE, ROLE, ROLE_SLOTS, SLOT, STRATEGY
from tripgate.processes import process_start_time

SYMBOLS = (BTC, ETH, "OTHER/USDT:USDT")
HALVES = {BTC: 100, ETH: 1}


class Desk:
    """A feed of two strategies' page, host time moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = paper_page(strategies=("trend", "pulse"))
        self.place = service(self.page, "market_feed", "sim")
        self.feed = Feed(self.place)
        self.now_ns = host_ns()
        monkeypatch.setattr(self.place, "now_ns", lambda: self.now_ns)

    def publish(self, step: int, btc: int | None, eth: int | None = 20_000) -> None:
        ticks = (btc, eth, 7)
        self.feed.publish(TickStep(step, MARKET_MS + step * STEP_MS, ticks, False), SYMBOLS, HALVES)

    def attach(self, strategy: int, step: int) -> None:
        row = self.page.rows(SLOT)[ROLE_SLOTS + strategy]
        row["strategy"], row["participating"], row["step"] = strategy, 1, step
        row["pid"], row["start_time"] = os.getpid(), process_start_time(os.getpid())

    def judge(self, step: int) -> None:
        for actor, venue in (("position_keeper", ""), ("breaker", ""), ("router", "sim")):
            self.page.rows(ROLE)["step"][self.page.names.role(actor, venue)] = step

    def dropped(self) -> list[int]:
        return [int(flag) for flag in self.page.rows(STRATEGY)["dropped"]]

    @property
    def deadline_ns(self) -> int:
        return int(self.page.rows(LEASE)["deadline_ns"][self.place.role])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    desk = Desk(monkeypatch)
    yield desk
    desk.place.close()


def test_publish_when_a_step_comes_then_board_clock_and_step_move(desk: Desk) -> None:
    desk.publish(0, 500_000)
    quote = read_quote(desk.page, 0)
    assert quote is not None
    assert (quote.mark, quote.last, quote.bid, quote.ask) == (500_000, 500_000, 499_950, 500_050)
    assert (quote.market_ms, quote.step) == (MARKET_MS, 0)
    other = read_quote(desk.page, 1)
    assert other is not None
    assert (other.bid, other.ask) == (19_999, 20_001), "at least one tick"
    header = desk.page.header
    assert (int(header["market_ms"]), int(header["step"])) == (MARKET_MS, 0)
    assert int(desk.page.rows(ROLE)["step"][desk.place.role]) == 0


def test_publish_when_there_is_no_tick_then_the_board_keeps_the_old_one(desk: Desk) -> None:
    desk.publish(0, 500_000)
    desk.publish(1, None)
    quote = read_quote(desk.page, 0)
    assert quote is not None
    assert (quote.step, quote.market_ms) == (0, MARKET_MS), "an outage is no zero return"


def test_publish_when_a_step_is_told_again_then_it_is_no_second_tick(desk: Desk) -> None:
    desk.publish(0, 500_000)
    desk.publish(0, 490_000)
    quote = read_quote(desk.page, 0)
    assert quote is not None
    assert quote.mark == 500_000
    assert int(desk.page.rows(BOARD)["ticks"][0]) == 1


def test_publish_when_steps_come_then_each_closed_bar_is_in_the_page(desk: Desk) -> None:
    for step, price in enumerate((500_000, 490_000, None, 510_000)):
        desk.publish(step, price)
    bars = read_bars(desk.page, 0)
    # Steps of 75 s and bars of 60 s: each bar holds one tick at most, and some hold none.
    opened = [(MARKET_MS + step * STEP_MS) // 60_000 * 60_000 for step in (0, 1)]
    assert list(bars["opened_ms"]) == opened
    assert [tuple(row.item()[1:6]) for row in bars] == [
        (500_000, 500_000, 500_000, 500_000, 1), (490_000, 490_000, 490_000, 490_000, 1),
    ]  # fmt: skip
    assert len(read_bars(desk.page, 1)) == 3


def test_publish_when_the_feed_is_restarted_then_its_bars_go_on(desk: Desk) -> None:
    desk.publish(0, 500_000)
    desk.feed = Feed(desk.place)
    desk.publish(0, 500_000)
    desk.publish(1, 490_000)
    assert [tuple(row.item()[1:6]) for row in read_bars(desk.page, 0)] == [
        (500_000, 500_000, 500_000, 500_000, 1)
    ]


@pytest.mark.parametrize("price", [0, -1])
def test_publish_when_a_price_is_no_price_then_it_is_not_published(desk: Desk, price: int) -> None:
    desk.publish(0, 500_000)
    desk.publish(1, price)
    quote = read_quote(desk.page, 0)
    assert quote is not None
    assert (quote.step, quote.mark, quote.index_price) == (0, 500_000, 0)


def test_renew_when_ticks_and_venue_are_fresh_then_the_lease_lives(desk: Desk) -> None:
    desk.page.rows(LEASE)["deadline_ns"][desk.place.role] = 0
    desk.feed.heartbeat_ns = desk.now_ns
    desk.feed.renew()
    assert desk.deadline_ns == 0, "no tick has ever come"
    assert not int(desk.page.rows(ROLE)["stale"][desk.place.role])
    desk.publish(0, 500_000)
    desk.feed.renew()
    assert desk.deadline_ns > desk.now_ns
    before = desk.deadline_ns
    desk.now_ns += HEARTBEAT_AGE_NS + 1
    desk.feed.renew()
    assert desk.deadline_ns == before, "a silent venue: it is left to lapse"


def test_renew_when_the_newest_tick_is_too_old_then_the_lease_is_given_up_at_once(
    desk: Desk,
) -> None:
    desk.publish(0, 500_000)
    for step in (1, 2):
        desk.publish(step, None, None)
        desk.feed.heartbeat_ns = desk.now_ns
        desk.feed.renew()
        assert desk.deadline_ns > desk.now_ns
    desk.publish(3, None, None)
    desk.feed.renew()
    assert desk.deadline_ns == 0
    assert int(desk.page.rows(ROLE)["stale"][desk.place.role]) == 1
    desk.publish(4, None, 20_000)
    desk.feed.heartbeat_ns = desk.now_ns
    desk.feed.renew()
    assert desk.deadline_ns > desk.now_ns, "one instrument's tick shows that the venue is back"


@pytest.mark.parametrize(("actor", "venue"), [("position_keeper", ""), ("breaker", ""),
                                              ("router", "sim")])  # fmt: skip
def test_is_handled_when_a_role_has_not_finished_then_the_step_waits(
    desk: Desk, actor: str, venue: str
) -> None:
    desk.publish(5, 500_000)
    for strategy in (0, 1):
        desk.attach(strategy, 5)
    desk.judge(5)
    assert desk.feed.is_handled(5)
    desk.page.rows(ROLE)["step"][desk.page.names.role(actor, venue)] = 4
    assert not desk.feed.is_handled(5)


def test_is_handled_when_the_gate_is_not_armed_then_the_first_step_waits(desk: Desk) -> None:
    for strategy in (0, 1):
        desk.attach(strategy, 0)
    desk.judge(0)
    desk.page.header["armed"] = 0
    assert not desk.feed.is_handled(0)


def test_is_handled_when_a_strategy_is_silent_then_it_is_dropped_after_its_time(desk: Desk) -> None:
    desk.publish(5, 500_000)
    desk.judge(5)
    desk.attach(0, 4)
    desk.attach(1, 4)
    assert not desk.feed.is_handled(5)
    desk.now_ns += STRATEGY_WAIT_NS
    assert not desk.feed.is_handled(5)
    assert desk.dropped() == [0, 0]
    desk.now_ns += 1
    assert not desk.feed.is_handled(5)
    assert desk.dropped() == [1, 0], "the second waited for the first"
    desk.attach(1, 5)
    assert desk.feed.is_handled(5)
    told = [
        b for kind, b in records(desk.page, desk.place.slot) if kind is EventKind.STRATEGY_DROPPED
    ]
    assert told == [{"strategy": "trend", "step": 5}]


def test_is_handled_when_a_strategy_is_not_attached_then_it_has_longer_to_come(desk: Desk) -> None:
    desk.publish(0, 500_000)
    desk.judge(0)
    desk.attach(0, 0)
    assert not desk.feed.is_handled(0)
    desk.now_ns += STRATEGY_START_NS
    assert not desk.feed.is_handled(0)
    assert desk.dropped() == [0, 0]
    desk.now_ns += 1
    assert not desk.feed.is_handled(0)
    assert desk.dropped() == [0, 1]
    assert desk.feed.is_handled(0)


def test_is_handled_when_a_strategy_comes_late_in_a_step_then_its_time_begins_then_but_only_once(
    desk: Desk,
) -> None:
    desk.publish(0, 500_000)
    desk.judge(0)
    desk.attach(0, 0)
    for _ in range(2):
        assert not desk.feed.is_handled(0)
        desk.now_ns += STRATEGY_WAIT_NS + 1
        desk.attach(1, -1)
        assert not desk.feed.is_handled(0)
        if desk.dropped() == [0, 1]:
            break
        desk.now_ns += STRATEGY_WAIT_NS
        assert not desk.feed.is_handled(0)
        assert desk.dropped() == [0, 0], "it has its ten seconds, however late it came"
        desk.page.rows(SLOT)["start_time"][ROLE_SLOTS + 1] = 0
    assert desk.dropped() == [0, 1], "who comes and goes does not hold the market for ever"


@pytest.mark.parametrize(("bps", "ppm"), [("1", 100), ("0.5", 50), ("0", 0)])
def test_half_spread_when_read_then_it_is_in_parts_per_million(bps: str, ppm: int) -> None:
    assert _half_spread_ppm(bps) == ppm


@pytest.mark.parametrize("speed", [0.0, 1_000_000.0])
async def test_run_when_everybody_follows_then_steps_are_released_up_to_the_end(
    isolated_folders: object, speed: float
) -> None:
    page = paper_page(strategies=("trend", "pulse"))
    async with running(page.folder, TinyFeed(length=4)) as bench:
        place = service(page, "market_feed", "sim", speed=speed,
                        venue_sockets={"sim": str(bench.path)})  # fmt: skip
        for number in range(2):
            page.rows(STRATEGY)["dropped"][number] = 1
        for actor, venue in (("position_keeper", ""), ("breaker", ""), ("router", "sim")):
            page.rows(ROLE)["step"][page.names.role(actor, venue)] = 99
        page.rows(LEASE)["deadline_ns"][place.role] = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, place)
            await until(lambda: bool(page.header["feed_finished"]))
            await until(lambda: int(page.rows(LEASE)["deadline_ns"][place.role]) > host_ns())
            assert int(page.header["step"]) == 4, "the end is a step of its own, without ticks"
            assert int(page.rows(BOARD)["ticks"][0]) == 4
            assert int(page.rows(BOARD)["ticks"][1]) == 2
            nursery.cancel_scope.cancel()
        place.close()
    assert market_feed.HEARTBEAT_S < HEARTBEAT_AGE_NS / 1e9
