"""The keeper and orders that need more than a fill: resolved by hand, expired, without a place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import keeper_resolves, keeper_unplaced
from actors.position_keeper import Keeper
from tests.tree_fixtures import BTC, approve, levels, records
from tests.unit.keeper_desk import PRICE, STOP, Desk
from tripgate.audit.record import Body
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.commit import Approved
from tripgate.gate.words import COMMITTED, RELEASING
from tripgate.machines.book_types import Key
from tripgate.messages import EventKind
from tripgate.operator_file import RESOLVE_COMMAND, append_record
from tripgate.page.layout import KEY
from tripgate.reasons import Level

AT = PRICE - 100


class OrdersDesk(Desk):
    """A keeper's desk with an operator at it."""

    def unknown(self, order: Approved) -> None:
        """Let the router say that nobody knows what became of an order."""
        self.router.emit(EventKind.ORDER_UNKNOWN, {"token": order.token})
        self.keeper.take_events()

    def resolve(self, order: Approved, state: str, lots: int, ticks: int = AT) -> int:
        record = {
            "command": RESOLVE_COMMAND, "scope": "instrument:sim/" + BTC, "token": order.token,
            "state": state, "filled_lots": lots, "ticks": ticks, "reason": "seen there",
            "operator": "ann",
        }  # fmt: skip
        number = append_record(Path(self.page.names.state_folder), record)
        self.page.header["operator_sequence"] = number
        self.keeper.tidy(host_ns())
        return number

    def told(self, kind: EventKind) -> list[Body]:
        return [body for found, body in records(self.page, self.place.slot) if found is kind]

    def cash(self) -> int:
        return int(self.page.rows(KEY)["cash_lot_ticks"][0])


@pytest.fixture
def desk() -> Iterator[OrdersDesk]:
    desk = OrdersDesk()
    yield desk
    desk.close()


def test_resolve_when_nobody_knows_the_order_then_it_is_booked_and_given_back(
    desk: OrdersDesk,
) -> None:
    order = desk.entry(10)
    desk.unknown(order)
    number = desk.resolve(order, "CANCELLED", 4)
    assert desk.told(EventKind.ORDER_RESOLVED) == [{
        "token": order.token, "record": number, "operator": "ann", "reason": "seen there",
        "state": "CANCELLED", "cumulative": 4, "ticks": AT, "side": 1, "strategy": "trend",
        "venue": "sim", "symbol": BTC,
    }]  # fmt: skip
    assert (desk.lots(), desk.cash(), desk.gross()) == (4, -4 * AT, 4 * PRICE)
    assert desk.state_of(order) == RELEASING
    desk.keeper.tidy(host_ns())
    assert len(desk.told(EventKind.ORDER_RESOLVED)) == 1, "a record is dealt with once"
    assert desk.keeper._resolves._words == {}


@pytest.mark.parametrize("state", ["CANCELLED", "REJECTED"])
def test_resolve_when_nothing_was_filled_then_only_the_reservation_goes(
    desk: OrdersDesk, state: str
) -> None:
    order = desk.entry(10)
    desk.unknown(order)
    desk.resolve(order, state, 0, 0)
    assert (desk.lots(), desk.gross(), desk.state_of(order)) == (0, 0, RELEASING)


def test_resolve_when_part_is_booked_then_only_the_rest_is_taken_on_trust(desk: OrdersDesk) -> None:
    order = desk.entry(10)
    desk.unknown(order)
    desk.fill(order.token, 4)
    desk.unknown(order)
    desk.resolve(order, "FILLED", 10)
    assert (desk.lots(), desk.cash()) == (10, -4 * PRICE - 6 * AT)


def test_resolve_when_the_venues_trades_come_later_then_they_replace_it(desk: OrdersDesk) -> None:
    order = desk.entry(10)
    desk.unknown(order)
    desk.resolve(order, "FILLED", 10)
    desk.fill(order.token, 4, PRICE + 7, fee=3)
    desk.keeper.take_events()
    assert (desk.lots(), desk.cash()) == (10, -4 * (PRICE + 7) - 6 * AT)
    desk.fill(order.token, 6, PRICE + 7, fee=3)
    desk.fill(order.token, 2, PRICE)
    desk.keeper.take_events()
    assert (desk.lots(), desk.cash()) == (12, -10 * (PRICE + 7) - 2 * PRICE)
    assert int(desk.page.rows(KEY)["fees"][0]) == 6


def test_resolve_when_the_router_has_not_spoken_then_it_waits_for_its_word(
    desk: OrdersDesk,
) -> None:
    order = desk.entry(10)
    desk.resolve(order, "REJECTED", 0, 0)
    desk.keeper.tidy(host_ns())
    assert (desk.told(EventKind.ORDER_RESOLVED), desk.state_of(order)) == ([], COMMITTED)
    desk.unknown(order)
    desk.keeper.tidy(host_ns())
    assert desk.state_of(order) == RELEASING


@pytest.mark.parametrize(
    ("word", "state", "lots", "says"),
    [
        (EventKind.ORDER_ACKNOWLEDGED, "REJECTED", 0, "the venue knows the order"),
        (EventKind.FILL, "FILLED", 10, "the venue knows the order"),
        (EventKind.ORDER_DONE, "REJECTED", 0, "ended already"),
        (EventKind.ORDER_UNKNOWN, "FILLED", 11, "ordered over 10 lots"),
        (EventKind.ORDER_UNKNOWN, "LOST", 0, "no end of an order"),
    ],
)
def test_resolve_when_it_contradicts_what_is_known_then_it_is_refused_on_record(
    desk: OrdersDesk, word: EventKind, state: str, lots: int, says: str
) -> None:
    order = desk.entry(10)
    desk.unknown(order)
    if word is EventKind.FILL:
        desk.fill(order.token, 4)
    elif word is EventKind.ORDER_DONE:
        desk.done(order.token, 0)
    else:
        desk.router.emit(word, {"token": order.token})
    desk.keeper.take_events()
    before = (desk.lots(), desk.state_of(order))
    number = desk.resolve(order, state, lots)
    (body,) = desk.told(EventKind.ORDER_RESOLVED)
    assert says in str(body["refused"])
    assert (body["record"], body["operator"]) == (number, "ann")
    assert (desk.lots(), desk.state_of(order)) == before


@pytest.mark.parametrize(
    ("lots", "ticks", "says"), [(3, AT, "4 lots of it are booked"), (5, 0, "at no price")]
)
def test_resolve_when_lots_do_not_fit_the_book_then_it_is_refused(
    desk: OrdersDesk, lots: int, ticks: int, says: str
) -> None:
    order = desk.entry(10)
    desk.fill(order.token, 4)
    desk.keeper.take_events()
    desk.unknown(order)
    desk.resolve(order, "CANCELLED", lots, ticks)
    assert says in str(desk.told(EventKind.ORDER_RESOLVED)[0]["refused"])


def test_resolve_when_too_many_wait_then_the_next_is_refused(
    desk: OrdersDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_resolves, "PENDING_MAX", 0)
    order = desk.entry(10)
    desk.resolve(order, "REJECTED", 0, 0)
    assert "wait for a router's word" in str(desk.told(EventKind.ORDER_RESOLVED)[0]["refused"])


@pytest.mark.parametrize("stored", [True, False])
def test_rebuild_when_orders_were_resolved_then_the_book_holds_them(
    desk: OrdersDesk, stored: bool
) -> None:
    first, second = desk.entry(10), desk.entry(6)
    for order, state, lots in ((first, "CANCELLED", 4), (second, "REJECTED", 0)):
        desk.unknown(order)
        desk.resolve(order, state, lots)
    desk.fill(first.token, 1, PRICE + 7)
    desk.keeper.take_events()
    if stored:
        desk.store()
    expected, entries = desk.words(), len(desk.told(EventKind.ORDER_RESOLVED))
    desk.keeper = Keeper(desk.place)
    desk.keeper.rebuild()
    desk.keeper.tidy(host_ns())
    assert desk.words() == expected
    assert desk.keeper._book.assumed[first.token].lots == 3
    assert len(desk.told(EventKind.ORDER_RESOLVED)) == (0 if stored else entries)


def test_rebuild_when_an_earlier_run_knew_the_order_then_this_runs_router_is_awaited(
    desk: OrdersDesk,
) -> None:
    order = desk.entry(10)
    desk.router.emit(EventKind.ORDER_ACKNOWLEDGED, {"token": order.token})
    desk.store()
    desk.page.header["epoch"] = 2
    desk.keeper = Keeper(desk.place)
    desk.keeper.rebuild()
    desk.resolve(order, "REJECTED", 0, 0)
    assert desk.told(EventKind.ORDER_RESOLVED) == []
    desk.unknown(order)
    desk.keeper.tidy(host_ns())
    assert desk.state_of(order) != COMMITTED


def test_tidy_when_a_reservation_expires_then_it_is_on_record(desk: OrdersDesk) -> None:
    order = approve(desk.page, desk.slot, 0, 10, PRICE, STOP)
    desk.keeper.tidy(host_ns() + 60 * NS_PER_S)
    assert desk.told(EventKind.RESERVATION_EXPIRED) == [{"token": order.token}]


def stray(desk: OrdersDesk, **more: Any) -> None:
    """Let the router tell of a fill that this run has no place for."""
    desk.trade += 1
    desk.router.emit(EventKind.FILL, {
        "trade": desk.trade, "token": 0, "strategy": "", "venue": "sim", "symbol": "GONE/USDT:USDT",
        "lots": 3, "ticks": PRICE, "fee": 0, "cumulative": 3, **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("place", "scope"),
    [
        ({}, "venue:sim"), ({"symbol": BTC, "strategy": "gone"}, "venue:sim"),
        ({"venue": "gone"}, "portfolio"),
    ],
)  # fmt: skip
def test_fill_when_the_config_has_no_place_for_it_then_the_gate_closes_there_on_record(
    desk: OrdersDesk, place: dict[str, Any], scope: str
) -> None:
    stray(desk, **place)
    desk.fill(0, 5)
    desk.keeper.take_events()
    assert desk.lots() == 5, "and the book goes on"
    (body,) = desk.told(EventKind.FILL_UNPLACED)
    assert (body["lots"], body["fills"], body["trade"]) == (3, 1, 1)
    assert "restart" in str(body["advice"])
    assert levels(desk.page) == {scope: Level.MEDIUM}
    (changed,) = desk.told(EventKind.LEVEL_CHANGED)
    assert (changed["scope"], changed["cause"]) == (scope, "fill_unplaced")
    stray(desk, **place)
    desk.trade -= 1
    stray(desk, **place)
    desk.keeper.take_events()
    assert len(desk.told(EventKind.FILL_UNPLACED)) == 2, "a repetition is not told"
    assert len(desk.told(EventKind.LEVEL_CHANGED)) == 1


def test_rebuild_when_the_log_has_fills_without_a_place_then_each_place_is_told_once(
    desk: OrdersDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_unplaced, "PLACES_MAX", 1)
    stray(desk)
    stray(desk, lots=-1)
    stray(desk, symbol="ALSO/USDT:USDT")
    desk.fill(0, 5)
    desk.store()
    desk.keeper = Keeper(desk.place)
    desk.keeper.rebuild()
    told = [(b["symbol"], b["lots"], b["fills"]) for b in desk.told(EventKind.FILL_UNPLACED)]
    assert told == [("GONE/USDT:USDT", 2, 2), ("", 3, 1)]
    # Beyond the bound nobody knows where they happened: everywhere.
    held = {"venue:sim": Level.MEDIUM, "portfolio": Level.MEDIUM}
    assert (desk.lots(), levels(desk.page)) == (5, held)
    assert list(desk.keeper._book.positions) == [Key(0, 0)]


def test_keeper_when_an_order_of_somebody_else_ends_then_it_books_nothing_and_goes_on(
    desk: OrdersDesk,
) -> None:
    order = desk.entry()
    desk.done(0, 0)
    desk.fill(order.token, 10)
    desk.keeper.take_events()
    assert desk.lots() == 10
    desk.store()
    again = Keeper(desk.place)
    again.rebuild()
    assert desk.lots() == 10
