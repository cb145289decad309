"""Stops that move: only nearer, on the right side, and through a router's death."""

from collections.abc import Iterator

import pytest

from exchange_adapters.venue_port import OrderKind, OrderState, OrderStatus, VenueOrder
from tests.tree_fixtures import BTC, MARKET_MS, hold, records
from tests.unit.duties_desk import MARK, STOP, Desk
from tripgate.messages import EventKind
from tripgate.page.layout import BOARD
from tripgate.reasons import Side


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


def test_adopt_stop_when_two_stand_then_the_later_one_stays_and_the_nearest_wish_counts(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    desk.keys["stop_ticks"][0] = STOP + 2_000
    lives = []
    for token in (6, 5):
        order = VenueOrder(
            desk.orders.client_id(token), BTC, Side.SELL, 10, OrderKind.STOP_MARKET,
            stop_ticks=STOP + token, reduce_only=True,
        )  # fmt: skip
        told = OrderStatus(order, OrderState.OPEN, 0, 10, MARKET_MS, MARKET_MS, None)
        lives.append(desk.orders.adopt(told, None))
    assert desk.duties.adopt_stop(lives[0], STOP + 6) is None
    assert desk.duties.adopt_stop(lives[1], STOP + 5) is lives[1]
    assert desk.orders.ask_cancel(lives[1]), "the router cancels what is handed back"
    assert int(desk.protection[0]["stop_token"]) == 6
    assert int(desk.keys["stop_ticks"][0]) == STOP + 2_000
    place, _ = desk.duties.stops()
    assert [order.stop_ticks for order in place] == [STOP + 2_000], "the move goes on"


@pytest.mark.parametrize(
    ("lots", "stop", "problem"),
    [
        (10, STOP + 1, None),
        (10, MARK - 1, None),
        (10, STOP, "a stop only moves nearer; it stands at 480000 ticks"),
        (10, STOP - 1, "only moves nearer"),
        (10, MARK, "wrong side of the mark, 500000"),
        (10, 0, "wrong side"),
        (10, -(2**70), "wrong side"),
        (-10, 2**70, "wrong side"),
        (-10, MARK + 1, None),
        (-10, 2 * MARK - STOP, "only moves nearer"),
        (-10, MARK - 1, "wrong side"),
        (0, STOP + 1, "there is no position"),
    ],
)
def test_move_stop_when_asked_then_only_nearer_and_on_the_right_side(
    desk: Desk, lots: int, stop: int, problem: str | None
) -> None:
    before = STOP if lots >= 0 else 2 * MARK - STOP
    if lots:
        desk.wish_stop(lots, before)
    answer = desk.duties.move_stop(0, stop)
    assert (answer is None) if problem is None else problem in (answer or "")
    moved = [b for kind, b in records(desk.page, desk.place.slot) if kind is EventKind.STOP_MOVED]
    if problem is not None:
        assert moved == []
        return
    assert int(desk.keys["stop_ticks"][0]) == stop
    assert [(body["before"], body["stop"]) for body in moved] == [(before, stop)]


def test_move_stop_when_there_is_no_stop_or_no_price_then_it_says_so(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    assert desk.duties.move_stop(0, STOP) == "the position has no stop yet"
    desk.keys["stop_ticks"][0] = STOP
    desk.page.rows(BOARD)["sequence"][0] = 0
    assert desk.duties.move_stop(0, STOP + 1) == "the instrument has no price yet"
    assert int(desk.keys["stop_ticks"][0]) == STOP
