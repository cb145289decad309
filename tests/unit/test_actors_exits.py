"""Merged exits on a real page: what is sent for a wish, what makes way, and how a claim ends."""

from collections.abc import Iterator
from typing import Any

import pytest

from actors.router_exits import RETRY_MS, STEP_WAIT_NS, TOKENS_MAX, VOID_MS, Exits
from actors.router_orders import CANCEL_AGAIN_MS, Live, Orders
from exchange_adapters.venue_port import Capabilities, Liquidity, OrderKind, TimeInForce, VenueFill
from tests.tree_fixtures import (
    BTC,
    MARKET_MS,
    approve,
    hold,
    mark,
    paper_page,
    records,
    service,
)
from tripgate.gate.commit import Approved
from tripgate.gate.exits import lower_wish, wish_exit
from tripgate.gate.settle import Settlement
from tripgate.gate.slots import claim_strategy_slot
from tripgate.machines.order import Observed, OrderEvent
from tripgate.messages import EventKind
from tripgate.page.layout import INSTRUMENT, KEY
from tripgate.reasons import Level, Side

MARK, STOP = 500_000, 480_000
KINDS = (OrderKind.MARKET, OrderKind.LIMIT)
ENFORCED = Capabilities(True, 1_000, KINDS, 1_000, 1_000)
LAX = Capabilities(False, 1_000, KINDS, 1_000, 1_000)


class Desk:
    """A router's exits on a real page; the venue's and the keeper's parts are the test's."""

    def __init__(self, capabilities: Capabilities = ENFORCED) -> None:
        self.page = paper_page()
        self.place = service(self.page, "router", "sim")
        self.orders = Orders(self.place, lambda slot, event: None)
        self.exits = Exits(self.place, self.orders, [0, 1], capabilities)
        self.keys = self.page.rows(KEY)
        self.keeper = Settlement(self.page, self.page.names.role("position_keeper"))
        self.slot = claim_strategy_slot(self.page, 0)
        self.trade = 0
        for instrument in (0, 1):
            mark(self.page, instrument, MARK, step=0, market_ms=MARKET_MS)

    def wish(self, lots: int, key: int = 0) -> None:
        """Wish as a strategy's urgent close does that found no room."""
        self.keys["exit_lots"][key] = max(int(self.keys["exit_lots"][key]), lots)
        self.keys["exit_claim"][key] = 1

    def sent(self, order: Approved) -> Live:
        live = self.orders.begin(order, self.orders.venue_order(order, {}))
        self.orders.acknowledged(live)
        return live

    def closing(self, lots: int) -> Live:
        """Let a resting close stand at the venue."""
        return self.sent(approve(self.page, self.slot, 0, lots, MARK + 5_000))

    def plan(self, now_ns: int = 0, **more: Any) -> tuple[list[Approved], list[Live]]:
        return self.exits.plan(now_ns, **{"settled": True, **more})

    def lots(self, **more: Any) -> list[int]:
        """Plan and let the exits leave; return their lots."""
        exits, _ = self.plan(**more)
        for order in exits:
            self.sent(order)
        return [order.lots for order in exits]

    def last(self, key: int = 0) -> Live:
        return self.orders.exits[key]

    def fill(self, live: Live, lots: int) -> None:
        """Let the venue tell a fill, and the keeper book it."""
        self.trade += 1
        side = Side.BUY if live.signed > 0 else Side.SELL
        cumulative = live.order.filled_lots + lots
        self.orders.take(VenueFill(
            market_ms=MARKET_MS, trade_id=self.trade, client_id=live.client_id, symbol=BTC,
            side=side, lots=lots, price_ticks=MARK, fee_money=0, cumulative_lots=cumulative,
            remaining_lots=live.order.lots - cumulative, liquidity=Liquidity.TAKER,
        ))  # fmt: skip
        entry = self.keeper.find(live.order.token)
        left = (int(self.keys["closable"][0]) >> 32) + side * lots
        self.keeper.fill(0, entry, side * lots, left * MARK)

    def end(self, live: Live, event: OrderEvent) -> None:
        """Let an order end, and the keeper release what it held."""
        self.orders.observe(live, Observed(event))
        self.keeper.release(live.order.token)

    def later(self, ms: int) -> None:
        self.page.header["market_ms"] += ms

    def claim(self, key: int = 0) -> tuple[int, int]:
        return int(self.keys["exit_claim"][key]), int(self.keys["exit_lots"][key])

    def ended(self) -> list[Any]:
        events = records(self.page, self.place.slot)
        return [body for kind, body in events if kind is EventKind.EXIT_ENDED]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


@pytest.fixture
def lax() -> Iterator[Desk]:
    desk = Desk(LAX)
    yield desk
    desk.place.close()


def test_plan_when_keys_are_claimed_then_each_gets_one_exit_for_its_wish(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    hold(desk.page, 1, -7, -7 * MARK)
    assert desk.plan() == ([], [])
    desk.wish(4)
    assert wish_exit(desk.page, 1, int(Level.HARD), MARKET_MS)
    exits, cancels = desk.plan()
    assert cancels == []
    assert [(e.key, e.lots, e.is_exit, e.is_market, e.opens) for e in exits] == [
        (0, -4, True, True, False), (1, 7, True, True, False),
    ]  # fmt: skip
    for order in exits:
        desk.sent(order)
    assert desk.plan() == ([], []), "while one is under way there is no second"


def test_plan_when_the_wish_grows_meanwhile_then_the_rest_follows_the_first(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.wish(4)
    assert desk.lots() == [-4]
    desk.wish(6)
    assert desk.lots() == []
    desk.fill(desk.last(), 4)
    assert desk.claim() == (1, 2)
    assert desk.lots() == [-2], "at once: the one before achieved something"
    desk.fill(desk.last(), 2)
    assert desk.lots() == []
    assert desk.claim() == (0, 0)
    assert int(desk.keys["closable"][0]) >> 32 == 4
    (told,) = desk.ended()
    assert (told["why"], told["sends"], len(told["tokens"])) == ("filled", 2, 2)


def test_plan_when_the_breaker_joins_then_all_of_it_goes_at_its_level(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.wish(4)
    assert desk.lots() == [-4]
    assert not wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS + 7)
    desk.fill(desk.last(), 4)
    assert desk.lots() == [-6]
    desk.fill(desk.last(), 6)
    assert desk.lots() == []
    (told,) = desk.ended()
    assert (told["why"], told["cause"], told["left"]) == ("flat", int(Level.HARD), 0)
    assert (told["count"], told["first_ms"], told["last_ms"]) == (1, MARKET_MS + 7, MARKET_MS + 7)
    assert desk.claim() == (0, 0)
    assert [int(desk.keys[name][0]) for name in ("exit_cause", "exit_count", "exit_ms")] == [0] * 3


def test_plan_when_the_wish_is_larger_than_the_position_then_the_position_is_all(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 3, 3 * MARK)
    desk.wish(10)
    assert desk.lots() == [-3]
    desk.fill(desk.last(), 3)
    assert desk.claim() == (1, 7)
    desk.plan()
    assert desk.claim() == (0, 0)


def test_plan_when_closes_rest_then_the_exit_leaves_and_the_newest_make_way(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    first, second, third = (desk.closing(-3) for _ in range(3))
    desk.wish(5)
    exits, cancels = desk.plan()
    assert [order.lots for order in exits] == [-5]
    assert cancels == [third, second], "six rest of which only five may"
    assert first.cancel_asked_ms < 0
    desk.sent(exits[0])
    assert desk.plan() == ([], [])


def test_plan_when_there_is_room_then_no_close_makes_way(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.closing(-5)
    desk.wish(5)
    exits, cancels = desk.plan()
    assert ([order.lots for order in exits], cancels) == ([-5], [])


@pytest.mark.parametrize("shared", [False, True])
def test_plan_when_nothing_enforces_reduce_only_then_each_observed_cancel_gives_its_lots(
    shared: bool,
) -> None:
    desk = Desk(ENFORCED if shared else LAX)
    desk.page.rows(INSTRUMENT)["shared"][0] = int(shared)
    hold(desk.page, 0, 10, 10 * MARK)
    first, second = desk.closing(-6), desk.closing(-4)
    wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
    assert desk.plan() == ([], [second, first])
    assert desk.exits.holds_up(STEP_WAIT_NS - 1)
    assert not desk.exits.holds_up(STEP_WAIT_NS), "a lost cancel must not stop the clock for ever"
    assert desk.plan() == ([], []), "each is asked once"
    desk.end(second, OrderEvent.CANCEL)
    assert desk.lots() == [-4]
    desk.end(first, OrderEvent.CANCEL)
    assert desk.lots() == [], "one at a time"
    desk.fill(desk.last(), 4)
    assert desk.lots() == [-6]
    assert not desk.exits.holds_up(0)
    desk.place.close()


def test_plan_when_a_close_fills_instead_then_only_the_rest_is_sent(lax: Desk) -> None:
    hold(lax.page, 0, 10, 10 * MARK)
    close = lax.closing(-6)
    wish_exit(lax.page, 0, int(Level.HARD), MARKET_MS)
    exits, cancels = lax.plan()
    assert ([order.lots for order in exits], cancels) == ([-4], [close]), "the free part at once"
    lax.sent(exits[0])
    lax.fill(close, 6)
    lax.fill(lax.last(), 4)
    lax.plan()
    assert lax.claim() == (0, 0)
    assert int(lax.keys["closable"][0]) == 0


def test_plan_when_a_cancel_is_not_heard_of_then_it_is_asked_again_later(lax: Desk) -> None:
    hold(lax.page, 0, 10, 10 * MARK)
    close = lax.closing(-10)
    lax.wish(10)
    assert lax.plan() == ([], [close])
    lax.later(CANCEL_AGAIN_MS - 1)
    assert lax.plan() == ([], [])
    lax.later(1)
    assert lax.plan() == ([], [close])


def test_plan_when_the_venue_refuses_then_the_next_kind_is_tried_a_second_later(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.wish(10)
    assert desk.lots() == [-10]
    desk.end(desk.last(), OrderEvent.REJECT)
    desk.later(RETRY_MS - 1)
    assert desk.lots() == []
    desk.later(1)
    (order,), _ = desk.plan()
    sent = desk.orders.venue_order(order, {})
    collar = int(desk.page.rows(INSTRUMENT)["exit_collar_ppm"][0])
    assert (sent.kind, sent.time_in_force, sent.reduce_only) == (
        OrderKind.LIMIT, TimeInForce.IOC, True,
    )  # fmt: skip
    assert sent.price_ticks == MARK - MARK * collar // 1_000_000
    desk.sent(order)
    desk.end(desk.last(), OrderEvent.CANCEL)
    desk.later(RETRY_MS)
    (order,), _ = desk.plan()
    assert order.is_market, "the kinds take turns"


def test_plan_when_a_short_is_refused_then_its_limit_is_above_the_mark(desk: Desk) -> None:
    hold(desk.page, 0, -10, -10 * MARK)
    desk.wish(10)
    assert desk.lots() == [10]
    desk.end(desk.last(), OrderEvent.REJECT)
    desk.later(RETRY_MS)
    (order,), _ = desk.plan()
    assert order.price_ticks > MARK
    assert order.lots == 10


def test_plan_when_the_fate_is_unknown_then_only_a_flatten_goes_on_beside_it(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.wish(4)
    assert desk.lots() == [-4]
    unknown = desk.last()
    desk.orders.observe(unknown, Observed(OrderEvent.LOST))
    desk.later(RETRY_MS)
    assert desk.lots() == [], "a part might be closed twice"
    wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
    assert desk.lots() == [-10]
    desk.fill(desk.last(), 10)
    assert desk.lots() == []
    assert desk.claim()[0] == 1, "the unknown one could still close what is opened next"
    desk.end(unknown, OrderEvent.EXPIRE)
    desk.plan()
    assert desk.claim() == (0, 0)


def test_plan_when_the_fate_is_unknown_at_a_lax_venue_then_it_is_waited_for(lax: Desk) -> None:
    hold(lax.page, 0, 10, 10 * MARK)
    wish_exit(lax.page, 0, int(Level.HARD), MARKET_MS)
    assert lax.lots() == [-10]
    lax.orders.observe(lax.last(), Observed(OrderEvent.LOST))
    lax.later(10 * RETRY_MS)
    assert lax.lots() == []


@pytest.mark.parametrize(("enforced", "overdue", "expected"), [
    (True, False, []), (True, True, [-10]), (False, True, []),
])  # fmt: skip
def test_plan_when_not_all_that_was_told_is_booked_then_only_a_harmless_exit_goes(
    enforced: bool, overdue: bool, expected: list[int]
) -> None:
    desk = Desk(ENFORCED if enforced else LAX)
    hold(desk.page, 0, 10, 10 * MARK)
    wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
    assert desk.lots(settled=False, overdue=overdue) == expected
    assert desk.exits.holds_up(0) is (not expected)
    desk.place.close()


def test_plan_when_a_claim_has_neither_wish_nor_order_then_it_is_void_after_a_second(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.keys["exit_claim"][0] = 1
    assert desk.lots() == []
    desk.later(VOID_MS - 1)
    assert desk.lots() == []
    assert desk.claim() == (1, 0)
    desk.later(1)
    assert desk.lots() == []
    assert desk.claim() == (0, 0)
    assert [told["why"] for told in desk.ended()] == ["void"]


def test_plan_when_another_router_sent_the_exit_then_its_fill_lowers_the_wish(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.wish(4)
    assert desk.lots() == [-4]
    live = desk.last()
    heir = Orders(desk.place, lambda slot, event: None)
    desk.orders = heir
    desk.exits = Exits(desk.place, heir, [0, 1], ENFORCED)
    desk.fill(live, 4)
    assert desk.claim() == (1, 0)
    desk.later(VOID_MS)
    desk.plan()
    desk.later(VOID_MS)
    assert desk.plan() == ([], [])
    assert desk.claim() == (0, 0)


def test_is_crowded_when_a_close_has_not_left_yet_then_it_goes_only_where_it_fits(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    close = approve(desk.page, desk.slot, 0, -4, MARK + 5_000)
    assert not desk.exits.is_crowded(close)
    desk.wish(6)
    desk.plan()
    assert not desk.exits.is_crowded(close)
    desk.wish(7)
    assert desk.exits.is_crowded(close)


def test_is_crowded_when_the_claim_was_not_planned_for_yet_then_the_close_may_leave(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    close = approve(desk.page, desk.slot, 0, -4, MARK + 5_000)
    desk.wish(10)
    assert not desk.exits.is_crowded(close)
    desk.plan()
    assert desk.exits.is_crowded(close)


def test_end_when_a_claim_was_sent_for_very_often_then_its_record_stays_small(desk: Desk) -> None:
    hold(desk.page, 0, 100, 100 * MARK)
    wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
    for _ in range(TOKENS_MAX + 4):
        assert len(desk.lots()) == 1
        desk.fill(desk.last(), 1)
        desk.end(desk.last(), OrderEvent.CANCEL)
    assert len(desk.lots()) == 1
    desk.fill(desk.last(), 100 - TOKENS_MAX - 4)
    desk.plan()
    (told,) = desk.ended()
    assert (told["sends"], len(told["tokens"])) == (TOKENS_MAX + 5, TOKENS_MAX)


def test_wish_when_lowered_below_what_was_left_then_it_is_nothing(desk: Desk) -> None:
    desk.wish(3)
    lower_wish(desk.page, 0, 5)
    assert desk.claim() == (1, 0)
