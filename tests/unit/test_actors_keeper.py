"""The position_keeper on a real page: fills once, marks once a step, and a restart that agrees."""

import subprocess
from collections.abc import Iterator

import pytest
import trio

from actors.position_keeper import Keeper, run
from tests.tree_fixtures import (
    EQUITY,
    approve,
    until,
)
from tests.unit.keeper_desk import PRICE, STOP, Desk
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.words import FREE, RELEASING
from tripgate.messages import EventKind
from tripgate.page.layout import (
    ACCOUNT,
    BOARD,
    CLAIM,
    ENTRY,
    INSTRUMENT,
    KEY,
    LEASE,
    RATE,
    ROLE,
    SLOT,
    SUM,
)
from tripgate.page.ring import RingReader


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_take_events_when_an_order_fills_then_position_and_sums_follow(desk: Desk) -> None:
    order = desk.entry(10)
    reserved = desk.gross()
    assert reserved >= 10 * PRICE
    desk.fill(order.token, 4, fee=7)
    desk.router.emit(EventKind.ORDER_SENT, {"token": 1})
    desk.keeper.take_events()
    assert desk.lots() == 4
    assert desk.gross() == pytest.approx(reserved, abs=1)
    desk.fill(order.token, 6)
    desk.done(order.token, 10)
    desk.keeper.take_events()
    assert (desk.lots(), desk.gross()) == (10, 10 * PRICE)
    assert desk.state_of(order) == RELEASING
    row = desk.page.rows(KEY)[0]
    assert (int(row["cash_lot_ticks"]), int(row["fees"])) == (-10 * PRICE, 7)
    assert not RingReader(desk.page, "keeper").backlog(desk.router.slot)
    desk.store()
    desk.keeper.tidy(host_ns())
    assert desk.state_of(order) == FREE


@pytest.mark.parametrize("field", ["rate_ppm", "par_ppm"])
def test_P2_fill_when_the_quote_is_off_par_then_the_position_counts_as_much_as_its_order(
    desk: Desk, field: str
) -> None:
    desk.page.rows(RATE)[field][0] = 1_020_000
    order = desk.entry(10)
    assert desk.gross() == 10 * PRICE * 102 // 100
    desk.fill(order.token, 10)
    desk.done(order.token, 10)
    desk.keeper.take_events()
    assert (desk.lots(), desk.gross()) == (10, 10 * PRICE * 102 // 100)


def test_P2_fill_when_the_contract_is_inverse_then_the_price_does_not_cheapen_it(
    desk: Desk,
) -> None:
    desk.page.rows(INSTRUMENT)["inverse"][0] = 1
    order = desk.entry(10)
    reserved = desk.gross()
    desk.fill(order.token, 10, price=PRICE // 2)
    desk.done(order.token, 10)
    desk.keeper.take_events()
    assert (desk.lots(), desk.gross()) == (10, reserved)


def test_take_events_when_the_end_comes_before_its_fills_then_the_entry_waits_for_them(
    desk: Desk,
) -> None:
    order = desk.entry(10)
    desk.done(order.token, 10)
    desk.keeper.take_events()
    assert desk.state_of(order) != RELEASING
    desk.fill(order.token, 10)
    desk.keeper.take_events()
    assert desk.state_of(order) == RELEASING
    assert desk.gross() == 10 * PRICE


def test_take_events_when_an_order_ends_unfilled_then_its_reservation_is_given_back(
    desk: Desk,
) -> None:
    order = desk.entry(10)
    desk.done(order.token, 0)
    desk.keeper.take_events()
    assert (desk.lots(), desk.gross()) == (0, 0)
    assert int(desk.page.rows(CLAIM)["lots"][0]) == 0


def test_take_events_when_a_fill_is_told_twice_then_it_is_booked_once(desk: Desk) -> None:
    order = desk.entry(10)
    desk.fill(order.token, 10)
    desk.trade -= 1
    desk.fill(order.token, 10)
    desk.keeper.take_events()
    assert desk.lots() == 10


def test_take_events_when_the_fill_is_nobodys_then_it_counts_all_the_same(desk: Desk) -> None:
    desk.fill(0, -3)
    desk.keeper.take_events()
    assert (desk.lots(), desk.gross()) == (-3, 3 * PRICE)


def test_step_to_mark_when_the_step_is_told_and_drained_then_once(desk: Desk) -> None:
    assert desk.keeper.step_to_mark() == 0
    desk.keeper.mark(0)
    assert desk.keeper.step_to_mark() is None
    desk.market(1, PRICE)
    desk.page.rows(ROLE)["events_step"][desk.router.role] = 0
    assert desk.keeper.step_to_mark() is None, "its fills may still come"
    desk.page.rows(ROLE)["events_step"][desk.router.role] = 1
    desk.fill(0, 1)
    assert desk.keeper.step_to_mark() is None, "they have come and are not yet booked"
    desk.keeper.take_events()
    assert desk.keeper.step_to_mark() == 1
    desk.page.header["step"] = -1
    assert desk.keeper.step_to_mark() is None


def test_mark_when_prices_move_then_the_nodes_carry_the_new_worth(desk: Desk) -> None:
    desk.fill(0, 10)
    desk.keeper.take_events()
    desk.market(1, PRICE + 1_000)
    desk.keeper.mark(1)
    assert desk.gross() == 10 * (PRICE + 1_000)
    assert int(desk.page.rows(ACCOUNT)["equity_mark"][0]) == EQUITY + 10_000
    desk.market(2, None)
    desk.keeper.mark(2)
    assert desk.gross() == 10 * (PRICE + 1_000), "without a tick the last mark stands"
    assert int(desk.page.rows(ACCOUNT)["step"][0]) == 2


def test_tidy_when_a_reservation_expires_then_it_is_given_back(desk: Desk) -> None:
    approve(desk.page, desk.slot, 0, 10, PRICE, STOP)
    desk.keeper.tidy(host_ns())
    assert desk.gross() > 0
    desk.keeper.tidy(host_ns() + 60 * NS_PER_S)
    assert desk.gross() == 0


def test_tidy_when_a_process_died_in_the_middle_of_a_move_then_words_are_repaired(
    desk: Desk,
) -> None:
    desk.fill(0, 10)
    desk.keeper.take_events()
    expected, row = desk.words(), desk.page.rows(SLOT)[desk.slot]
    with subprocess.Popen(["true"]) as dead:
        row["pid"], row["start_time"], row["section"] = dead.pid, 1, 3
    desk.page.rows(SUM)["gross"][0] += 999
    desk.keeper.tidy(host_ns())
    assert desk.words() == expected
    assert int(row["section"]) == 4
    assert not int(desk.page.header["freeze"])


@pytest.mark.parametrize("stored", ["nothing", "all", "half"])
def test_rebuild_when_the_keeper_is_restarted_then_the_page_agrees_with_the_fills(
    desk: Desk, stored: str
) -> None:
    first, second = desk.entry(10), desk.entry(6)
    desk.fill(first.token, 10, fee=5)
    desk.done(first.token, 10)
    if stored == "half":
        desk.store()
    desk.fill(second.token, 2, PRICE + 10)
    if stored == "all":
        desk.store()
    desk.keeper.take_events()
    expected, entries = desk.words(), desk.page.rows(ENTRY)["remaining"].tolist()
    for _ in range(2):
        again = Keeper(desk.place)
        again.rebuild()
        assert desk.words() == expected
        assert desk.page.rows(ENTRY)["remaining"].tolist() == entries
        assert not int(desk.page.header["freeze"])
        again.take_events()
        assert desk.lots() == 12


def test_rebuild_when_words_were_left_half_moved_then_they_are_repaired(desk: Desk) -> None:
    order = desk.entry(10)
    desk.fill(order.token, 10)
    desk.done(order.token, 10)
    desk.keeper.take_events()
    expected = desk.words()
    desk.page.rows(SUM)["gross"][:] += 999
    desk.page.rows(KEY)["closable"][0] = 77 << 32
    desk.page.rows(CLAIM)["lots"][0] = -5
    Keeper(desk.place).rebuild()
    assert desk.words() == expected
    assert desk.state_of(order) == RELEASING


def test_rebuild_when_there_is_no_price_then_a_position_counts_at_its_cost() -> None:
    desk = Desk()
    desk.fill(0, 10, PRICE + 7)
    desk.page.rows(BOARD)["sequence"] = 0
    Keeper(desk.place).rebuild()
    assert desk.gross() == 10 * (PRICE + 7)
    desk.close()


async def test_run_when_the_market_moves_then_steps_are_marked_and_the_lease_lives(
    desk: Desk,
) -> None:
    deadlines, steps = desk.page.rows(LEASE)["deadline_ns"], desk.page.rows(ROLE)["step"]
    deadlines[desk.place.role] = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, desk.place)
        await until(lambda: int(steps[desk.place.role]) == 0)
        await until(lambda: int(deadlines[desk.place.role]) > host_ns())
        desk.fill(0, 5)
        desk.market(1, PRICE)
        desk.place.ringer.ring_all()
        await until(lambda: int(steps[desk.place.role]) == 1)
        assert desk.lots() == 5
        nursery.cancel_scope.cancel()
