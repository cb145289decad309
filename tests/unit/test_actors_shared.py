"""Several strategies on one one-way instrument: whose an order is, and whose a fill."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.position_keeper import Keeper
from actors.router_orders import Live, Orders
from exchange_adapters.venue_port import (
    Liquidity,
    OrderKind,
    OrderState,
    OrderStatus,
    VenueFill,
    VenueOrder,
)
from tests.tree_fixtures import BTC, MARKET_MS, approve, mark, records, service
from tests.unit.shared_page import ETHER, FIRST, SECOND, shared_page
from tripgate.audit.record import Row
from tripgate.audit.store import LogWriter
from tripgate.clock import utc_ns
from tripgate.config.structs import RESERVED_STRATEGY
from tripgate.gate.commit import Approved, commit, read_entry
from tripgate.gate.exits import issue_exit, issue_stop
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import CLAIM, ENTRY, INSTRUMENT, KEY, exit_entry, stop_entry
from tripgate.page.ring import RingReader
from tripgate.reasons import Side

MARK, STOP = 500_000, 480_000
FOREIGN = "ZZZZZZZZZZZZ0000000000001"


class Desk:
    """A router's orders and a keeper on a page whose first instrument two strategies share."""

    def __init__(self) -> None:
        self.page = shared_page()
        self.place = service(self.page, "router", "sim")
        self.keeper_place = service(self.page, "position_keeper")
        self.orders = Orders(self.place, lambda slot, event: None)
        self.keeper = Keeper(self.keeper_place)
        self.keeper.rebuild()
        self.slots = [claim_strategy_slot(self.page, strategy) for strategy in (0, 1)]
        self.trade = 0
        for instrument in (0, 1):
            mark(self.page, instrument, MARK, step=0, market_ms=MARKET_MS)

    def entry(self, key: int, lots: int, price: int = MARK) -> Approved:
        order = approve(self.page, self.slots[min(key, 1)], key, lots, price, STOP)
        assert commit(self.page, order)
        return order

    def sent(self, order: Approved) -> Live:
        return self.orders.begin(order, self.orders.venue_order(order, {}))

    def fill(self, client_id: str, lots: int) -> Any:
        """Let the venue tell a fill, and the keeper book it; return what was recorded."""
        self.trade += 1
        side = Side.BUY if lots > 0 else Side.SELL
        self.orders.take(VenueFill(
            market_ms=MARKET_MS, trade_id=self.trade, client_id=client_id, symbol=BTC, side=side,
            lots=abs(lots), price_ticks=MARK, fee_money=7, cumulative_lots=abs(lots),
            remaining_lots=0, liquidity=Liquidity.TAKER,
        ))  # fmt: skip
        self.keeper.take_events()
        fills = [b for kind, b in records(self.page, self.place.slot) if kind is EventKind.FILL]
        return fills[-1]

    def hold(self, *lots: int) -> None:
        for key, amount in enumerate(lots):
            self.fill(self.sent(self.entry(key, amount)).client_id, amount)

    def positions(self) -> list[int]:
        return [int(word) >> 32 for word in self.page.rows(KEY)["closable"]]

    def close(self) -> None:
        self.place.close()
        self.keeper_place.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def issued(desk: Desk, key: int, *, stop: bool) -> int:
    ring = desk.place.ring
    if stop:
        return issue_stop(desk.page, ring, key, STOP, MARKET_MS)
    return issue_exit(desk.page, ring, key, MARKET_MS)


def test_page_when_two_strategies_list_an_instrument_then_it_is_marked_shared(desk: Desk) -> None:
    assert list(desk.page.rows(INSTRUMENT)["shared"]) == [1, 0]
    assert desk.orders.keys_of_symbol(BTC) == [FIRST, SECOND]


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_key_of_when_the_page_holds_the_entry_then_its_key_is_the_orders(
    desk: Desk, key: int
) -> None:
    assert desk.orders.key_of(desk.entry(key, 5).token, BTC) == key
    desk.hold(3, 4)
    for stop in (False, True):
        assert desk.orders.key_of(issued(desk, key, stop=stop), BTC) == key
    assert desk.orders.key_of(77, BTC) == -1
    assert desk.orders.key_of(None, BTC) == -1


@pytest.mark.parametrize(("stop", "row_of"), [(False, exit_entry), (True, stop_entry)])
def test_adopt_when_the_second_holders_order_stands_then_it_is_taken_as_its_own(
    desk: Desk, stop: bool, row_of: Any
) -> None:
    desk.hold(3, 4)
    token = issued(desk, SECOND, stop=stop)
    approved = read_entry(desk.page, row_of(desk.page.layout.capacities, SECOND), token)
    assert approved is not None
    order = desk.orders.venue_order(approved, {})
    told = OrderStatus(order, OrderState.OPEN, 0, 4, MARKET_MS, MARKET_MS, None)
    assert desk.orders.adopt(told, None).key == SECOND


def test_adopt_when_only_the_log_knows_the_order_then_its_record_says_whose(desk: Desk) -> None:
    desk.hold(3, 4)
    token = issued(desk, SECOND, stop=True)
    state = Path(desk.page.names.state_folder)
    rows = [
        Row(1, desk.place.slot, f.sequence, utc_ns(), 0, 0, f.kind, None, f.payload)
        for f in RingReader(desk.page, "audit").read(desk.place.slot)
    ]
    with LogWriter(state / "audit", state / "heads") as log:
        log.append(rows)
    desk.page.rows(ENTRY)["token"][:] = 0
    order = VenueOrder(
        desk.orders.client_id(token), BTC, Side.SELL, 4, OrderKind.STOP_MARKET, stop_ticks=STOP,
        reduce_only=True,
    )  # fmt: skip
    told = OrderStatus(order, OrderState.OPEN, 0, 4, MARKET_MS, MARKET_MS, None)
    assert desk.orders.adopt(told, None).key == FIRST, "somebody must look after it"
    desk.orders.recall(state / "audit")
    assert desk.orders.adopt(told, None).key == SECOND


def test_fill_when_a_strategys_own_position_takes_it_then_it_is_its_own(desk: Desk) -> None:
    desk.hold(6, 3)
    assert desk.positions() == [6, 3, 0]
    close = desk.entry(SECOND, -3, MARK + 5_000)
    body = desk.fill(desk.sent(close).client_id, -3)
    assert body["strategy"] == "pulse"
    assert desk.positions() == [6, 0, 0]
    assert int(desk.page.rows(CLAIM)["lots"][0]) == 6


def test_fill_when_a_stop_and_a_close_both_fill_then_the_other_holder_gives_and_none_turns(
    desk: Desk,
) -> None:
    desk.hold(6, 3)
    close = desk.sent(desk.entry(SECOND, -3, MARK + 5_000))
    stop = read_entry(
        desk.page, stop_entry(desk.page.layout.capacities, SECOND), issued(desk, SECOND, stop=True)
    )
    assert stop is not None
    desk.fill(desk.sent(stop).client_id, -2)
    desk.fill(close.client_id, -3)
    assert desk.positions() == [4, 0, 0]
    assert int(desk.page.rows(CLAIM)["lots"][0]) == 4
    assert all(int(word) & 0xFFFF_FFFF == 0 for word in desk.page.rows(KEY)["closable"])
    assert [int(fee) for fee in desk.page.rows(KEY)["fees"]] == [7 + 5, 7 + 7 + 2, 0]


def test_fill_when_it_is_nobodys_then_all_holders_give_pro_rata(desk: Desk) -> None:
    desk.hold(6, 3)
    body = desk.fill(FOREIGN, -3)
    assert (body["strategy"], body["token"]) == (RESERVED_STRATEGY, 0)
    assert desk.positions() == [4, 2, 0]
    assert int(desk.page.rows(CLAIM)["lots"][0]) == 6
    desk.fill(FOREIGN, -6)
    assert desk.positions() == [0, 0, 0]


def test_fill_when_the_keeper_starts_again_then_its_book_is_the_same(desk: Desk) -> None:
    desk.hold(6, 3)
    desk.fill(FOREIGN, -4)
    before = desk.positions(), desk.page.rows(KEY)["cash_lot_ticks"].tobytes()
    successor = Keeper(desk.keeper_place)
    successor.rebuild()
    assert (desk.positions(), desk.page.rows(KEY)["cash_lot_ticks"].tobytes()) == before
    assert sum(desk.positions()) == 5


def test_fill_when_it_is_nobodys_and_one_alone_trades_it_then_it_is_that_ones(desk: Desk) -> None:
    desk.orders.take(VenueFill(
        market_ms=MARKET_MS, trade_id=1, client_id=FOREIGN, symbol="ETH/USDT:USDT", side=Side.BUY,
        lots=2, price_ticks=MARK, fee_money=0, cumulative_lots=2, remaining_lots=0,
        liquidity=Liquidity.TAKER,
    ))  # fmt: skip
    desk.keeper.take_events()
    assert desk.positions()[ETHER] == 2
