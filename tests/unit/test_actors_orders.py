"""The router's orders: every word of the venue becomes the right records, once."""

from typing import Any

import pytest

from actors.router_orders import Live, Orders
from actors.service import Service
from exchange_adapters.venue_port import (
    CancelReason,
    Liquidity,
    OrderAccepted,
    OrderCancelled,
    OrderKind,
    OrderState,
    OrderStatus,
    StepEnded,
    TimeInForce,
    VenueFill,
    VenueOrder,
)
from tests.tree_fixtures import (
    BTC,
    ETH,
    INSTALLATION,
    MARKET_MS,
    approve,
    hold,
    kinds,
    mark,
    paper_page,
    records,
    service,
)
from tripgate.audit.record import Body
from tripgate.gate.commit import Approved, read_entry
from tripgate.gate.exits import issue_exit, issue_stop
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import make_token
from tripgate.machines import order as machine
from tripgate.machines.order import Observed, OrderEvent
from tripgate.messages import EventKind
from tripgate.page.layout import exit_entry, stop_entry
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader
from tripgate.reasons import Side

MARK = 500_000
STOP = 480_000
FOREIGN = "ZZZZZZZZZZZZ0000000000001"


class Desk:
    """A router's orders on a real page, and what they told the strategies."""

    def __init__(self) -> None:
        self.page: Page = paper_page()
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.place: Service = service(self.page, "router", "sim")
        self.orders = Orders(self.place, lambda slot, event: self.told.append((slot, event)))
        self.slot = claim_strategy_slot(self.page, 0)
        for instrument in (0, 1):
            mark(self.page, instrument, MARK, step=0, market_ms=MARKET_MS)

    def approved(self, lots: int = 10, price: int = MARK) -> Approved:
        return approve(self.page, self.slot, 0, lots, price, STOP)

    def sent(self, lots: int = 10) -> Live:
        order = self.approved(lots)
        return self.orders.begin(order, self.orders.venue_order(order, {}))

    def fill(
        self, live: Live | None, trade: int, lots: int, cumulative: int, **more: Any
    ) -> Live | None:
        values: dict[str, Any] = {
            "client_id": live.client_id if live else FOREIGN, "symbol": BTC, "side": Side.BUY,
            "remaining_lots": 0, **more,
        }  # fmt: skip
        return self.orders.take(VenueFill(
            market_ms=MARKET_MS + 5, trade_id=trade, lots=lots, price_ticks=MARK, fee_money=3,
            cumulative_lots=cumulative, liquidity=Liquidity.TAKER, **values,
        ))  # fmt: skip

    def cancelled(self, live: Live) -> None:
        reason = CancelReason.REQUESTED
        self.orders.take(OrderCancelled(MARKET_MS, live.client_id, BTC, reason, 0, 0))

    def events(self) -> list[tuple[EventKind, Body]]:
        return records(self.page, self.place.slot)

    def last(self) -> Body:
        return self.events()[-1][1]

    def kinds(self) -> list[EventKind]:
        return kinds(self.page, self.place.slot)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(autouse=True)
def _bells_are_taken_down(desk: Desk) -> Any:
    yield
    desk.place.close()


def test_begin_when_an_order_leaves_then_everything_of_it_is_on_record_first(desk: Desk) -> None:
    live = desk.sent()
    assert desk.events() == [(EventKind.ORDER_SENT, {
        "token": live.order.token, "client_id": live.client_id, "venue": "sim", "symbol": BTC,
        "lots": 10, "kind": "limit", "price": MARK, "stop": 0, "time_in_force": "gtc",
        "reduce_only": False,
    })]  # fmt: skip
    assert desk.orders.live == {live.client_id: live}
    assert (live.opens, live.is_exit, live.is_stop, live.signed) == (True, False, False, 1)


def test_venue_order_when_it_opens_at_market_then_it_is_an_ioc_at_the_collar(desk: Desk) -> None:
    order = desk.approved(price=0)
    sent = desk.orders.venue_order(order, {})
    assert (sent.kind, sent.time_in_force) == (OrderKind.LIMIT, TimeInForce.IOC)
    assert sent.price_ticks == order.price_ticks == MARK * 102 // 100
    assert not sent.reduce_only


@pytest.mark.parametrize(("style", "expected"), [({}, "gtc"), ({"time_in_force": "IOC"}, "ioc")])
def test_venue_order_when_it_is_a_limit_then_only_its_rest_is_the_strategys(
    desk: Desk, style: dict[str, Any], expected: str
) -> None:
    sent = desk.orders.venue_order(desk.approved(), style)
    assert (sent.kind, sent.price_ticks, str(sent.time_in_force)) == ("limit", MARK, expected)
    assert (sent.lots, sent.side, sent.stop_ticks) == (10, Side.BUY, None)


def test_venue_order_when_the_tree_exits_then_it_is_market_and_reduce_only(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    capacities = desk.page.layout.capacities
    token = issue_exit(desk.page, desk.place.ring, 0, MARKET_MS)
    exits = read_entry(desk.page, exit_entry(capacities, 0), token)
    assert exits is not None
    sent = desk.orders.venue_order(exits, {"time_in_force": "IOC"})
    assert (sent.kind, sent.side, sent.lots, sent.price_ticks, sent.reduce_only) == (
        OrderKind.MARKET, Side.SELL, 10, None, True,
    )  # fmt: skip
    assert sent.time_in_force is TimeInForce.GTC
    token = issue_stop(desk.page, desk.place.ring, 0, STOP, MARKET_MS)
    stop = read_entry(desk.page, stop_entry(capacities, 0), token)
    assert stop is not None
    sent = desk.orders.venue_order(stop, {})
    assert (sent.kind, sent.stop_ticks, sent.price_ticks, sent.reduce_only) == (
        OrderKind.STOP_MARKET, STOP, None, True,
    )  # fmt: skip


def test_take_when_it_is_accepted_twice_then_it_is_recorded_once(desk: Desk) -> None:
    live = desk.sent()
    for _ in range(2):
        desk.orders.take(OrderAccepted(MARKET_MS, live.client_id, BTC))
    assert desk.kinds() == [EventKind.ORDER_SENT, EventKind.ORDER_ACKNOWLEDGED]
    assert desk.told == [(desk.slot, {
        "event": "order_acknowledged", "token": live.order.token, "client_id": live.client_id,
    })]  # fmt: skip


def test_take_when_it_fills_in_pieces_then_each_is_booked_and_the_end_told_once(desk: Desk) -> None:
    live = desk.sent(10)
    assert desk.fill(live, 1, 4, 4) is live
    assert live.order.state is machine.OrderState.PARTIALLY_FILLED
    assert desk.fill(live, 2, 6, 10) is live
    assert live.ended
    assert desk.kinds() == [
        EventKind.ORDER_SENT, EventKind.FILL, EventKind.FILL, EventKind.ORDER_DONE,
    ]  # fmt: skip
    assert desk.events()[1][1] == {
        "trade": 1, "token": live.order.token, "strategy": "trend", "venue": "sim", "symbol": BTC,
        "lots": 4, "ticks": MARK, "fee": 3, "cumulative": 4,
    }  # fmt: skip
    assert (desk.last()["state"], desk.last()["cumulative"]) == ("FILLED", 10)
    assert desk.orders.live == {}
    assert [event["event"] for _, event in desk.told] == ["fill", "fill", "order_done"]


def test_take_when_a_fill_is_recorded_then_its_time_is_the_venues(desk: Desk) -> None:
    desk.fill(desk.sent(), 1, 10, 10)
    frames = list(RingReader(desk.page, "audit").read(desk.place.slot))
    stamps = [frame.market_ms for frame in frames if frame.kind == EventKind.FILL]
    assert stamps == [MARKET_MS + 5]


def test_take_when_a_fill_comes_again_then_it_is_not_booked_again(desk: Desk) -> None:
    live = desk.sent()
    desk.fill(live, 7, 4, 4)
    before = desk.events()
    for trade in (7, 6, 1):
        desk.fill(live, trade, 4, 4)
    assert desk.events() == before
    assert (live.order.filled_lots, desk.orders.last_trade) == (4, 7)


def test_take_when_a_fill_crosses_its_cancel_then_it_is_booked_after_the_end(desk: Desk) -> None:
    live = desk.sent()
    desk.cancelled(live)
    assert desk.last()["state"] == "CANCELLED"
    assert desk.fill(live, 1, 10, 10) is None
    kind, body = desk.events()[-1]
    assert kind is EventKind.FILL
    assert (body["token"], body["lots"]) == (live.order.token, 10)
    slot, told = desk.told[-1]
    assert (slot, told["event"], told["late"], told["lots"]) == (desk.slot, "fill", True, 10)
    assert [event["event"] for _, event in desk.told].count("fill") == 1


def test_take_when_a_late_fill_is_of_an_earlier_run_then_no_strategy_is_told(desk: Desk) -> None:
    earlier = make_token(desk.page.epoch + 1, desk.slot, 1)
    desk.fill(None, 1, 2, 2, client_id=desk.orders.client_id(earlier))
    assert (desk.last()["token"], desk.told) == (earlier, [])


def test_take_when_a_symbol_is_not_traded_then_its_fill_is_recorded_as_nobodys(
    desk: Desk,
) -> None:
    desk.fill(None, 1, 2, 2, symbol="GONE/USDT:USDT")
    assert (desk.last()["strategy"], desk.last()["symbol"]) == ("unattributed", "GONE/USDT:USDT")


def test_take_when_a_sell_of_another_symbol_fills_then_sign_and_key_follow(desk: Desk) -> None:
    desk.fill(None, 1, 2, 2, symbol=ETH, side=Side.SELL)
    assert (desk.last()["lots"], desk.last()["symbol"], desk.last()["token"]) == (-2, ETH, 0)


def test_take_when_an_order_is_nobodys_then_only_its_fill_counts(desk: Desk) -> None:
    desk.orders.take(OrderAccepted(MARKET_MS, FOREIGN, BTC))
    reason = CancelReason.REQUESTED
    desk.orders.take(OrderCancelled(MARKET_MS, FOREIGN, BTC, reason, 0, 0))
    assert desk.events() == []


def test_take_when_a_step_ends_then_fills_wait_for_its_marker(desk: Desk) -> None:
    seen = [desk.orders.in_step]
    desk.fill(desk.sent(), 1, 1, 1)
    seen.append(desk.orders.in_step)
    assert desk.orders.take(StepEnded(MARKET_MS, 4, False)) is None
    seen.append(desk.orders.in_step)
    assert (seen, desk.orders.events_step) == ([False, True, False], 4)
    desk.orders.take(StepEnded(MARKET_MS, 3, False))
    assert desk.orders.events_step == 4


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((OrderEvent.REJECT,), ["REJECTED"]),
        ((OrderEvent.LOST, OrderEvent.EXPIRE), [None, "NEVER_ARRIVED"]),
        ((OrderEvent.LOST, OrderEvent.LOST, OrderEvent.CANCEL), [None, "CANCELLED"]),
    ],
)
def test_observe_when_the_venue_is_unclear_then_only_an_observation_ends_it(
    desk: Desk, events: tuple[OrderEvent, ...], expected: list[str | None]
) -> None:
    live = desk.sent()
    for event in events:
        desk.orders.observe(live, Observed(event))
    assert [body.get("state") for _, body in desk.events()[1:]] == expected
    unknown = [kind for kind in desk.kinds() if kind is EventKind.ORDER_UNKNOWN]
    assert len(unknown) == expected.count(None)
    assert desk.orders.live == {}


def status(desk: Desk, live: Live, state: OrderState, cumulative: int, **more: Any) -> OrderStatus:
    approved = live.approved
    assert approved is not None
    order = desk.orders.venue_order(approved, {})
    return OrderStatus(
        order, state, cumulative, 10 - cumulative, MARKET_MS, MARKET_MS, None, **more
    )


@pytest.mark.parametrize(
    ("state", "cumulative", "done"),
    [(OrderState.OPEN, 4, None), (OrderState.CANCELLED, 4, "CANCELLED"),
     (OrderState.FILLED, 10, "FILLED")],
)  # fmt: skip
def test_adopt_when_a_predecessors_order_is_found_then_its_state_is_taken_over(
    desk: Desk, state: OrderState, cumulative: int, done: str | None
) -> None:
    before = desk.sent()
    desk.orders.live.clear()
    live = desk.orders.adopt(status(desk, before, state, cumulative), before.approved)
    assert live.order.token == before.order.token
    assert (live.key, live.signed, live.opens) == (0, 1, True)
    if done is None:
        assert desk.kinds() == [EventKind.ORDER_SENT]
        assert desk.orders.live == {live.client_id: live}
        assert live.order.filled_lots == 4
    else:
        assert (desk.last()["state"], desk.last()["cumulative"]) == (done, cumulative)
        assert desk.orders.live == {}


def test_adopt_when_its_old_fills_are_told_afterwards_then_no_lot_counts_twice(desk: Desk) -> None:
    before = desk.sent(10)
    desk.orders.live.clear()
    live = desk.orders.adopt(status(desk, before, OrderState.OPEN, 6), before.approved)
    for trade, lots, cumulative in ((1, 4, 4), (2, 2, 6), (3, 3, 9)):
        desk.fill(live, trade, lots, cumulative)
    assert live.order.filled_lots == 9
    assert not live.ended
    desk.fill(live, 4, 1, 10)
    assert desk.last()["cumulative"] == 10
    assert [body["lots"] for kind, body in desk.events() if kind is EventKind.FILL] == [4, 2, 3, 1]


@pytest.mark.parametrize(
    ("kind", "is_stop", "is_exit"),
    [(OrderKind.STOP_MARKET, True, False), (OrderKind.MARKET, False, True)],
)
def test_adopt_when_nothing_of_ours_explains_it_then_the_venues_word_says_what_it_is(
    desk: Desk, kind: OrderKind, is_stop: bool, is_exit: bool
) -> None:
    order = VenueOrder(
        desk.orders.client_id(77), ETH, Side.SELL, 5, kind,
        stop_ticks=STOP if is_stop else None, reduce_only=True,
    )  # fmt: skip
    told = OrderStatus(order, OrderState.OPEN, 0, 5, MARKET_MS, MARKET_MS, None)
    live = desk.orders.adopt(told, None)
    assert (live.order.token, live.key, live.signed) == (77, 1, -1)
    assert (live.is_stop, live.is_exit, live.opens) == (is_stop, is_exit, False)


def test_keys_of_symbol_when_it_is_not_traded_then_there_are_none(desk: Desk) -> None:
    symbols = (BTC, ETH, "X/USDT:USDT")
    assert [desk.orders.keys_of_symbol(symbol) for symbol in symbols] == [[0], [1], []]
    assert [desk.orders.key_of(77, symbol) for symbol in symbols] == [0, 1, -1]


def test_client_id_when_made_then_it_begins_with_the_installation(desk: Desk) -> None:
    live = desk.sent()
    assert live.client_id == desk.orders.client_id(live.order.token)
    assert live.client_id.startswith(INSTALLATION)
    assert live.order.state is machine.OrderState.SENDING
