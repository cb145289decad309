"""Orders without an end: found in the log, and counted again in a page that is new."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.audit_writer import Drain
from actors.position_keeper import Keeper
from supervisors import unfinished as module
from supervisors.unfinished import restore_orders, unfinished
from tests.tree_fixtures import MARKET_MS, approve, hold, mark, paper_page, service
from tripgate.audit.numbers import number_rows
from tripgate.audit.store import LogWriter
from tripgate.errors import TripgateError
from tripgate.gate.commit import Approved, commit, live_rows, read_entry
from tripgate.gate.exits import issue_exit
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import ENTRY, KEY, SUM
from tripgate.page.mapping import Page

PRICE, STOP = 500_000, 480_000


class Desk:
    """A run whose page is about to be lost, and its log."""

    def __init__(self) -> None:
        self.page = paper_page()
        self.state = Path(self.page.names.state_folder)
        self.places = [service(self.page, name) for name in ("audit_writer", "position_keeper")]
        self.log = LogWriter(self.state / "audit", self.state / "heads")
        self.slot = claim_strategy_slot(self.page, 0)
        mark(self.page, 0, PRICE, step=0, market_ms=MARKET_MS)

    def order(self, lots: int = 10) -> Approved:
        return approve(self.page, self.slot, 0, lots, PRICE, STOP)

    def emit(self, kind: EventKind, **body: object) -> None:
        self.places[1].emit(kind, body)

    def store(self) -> None:
        drain = Drain(self.places[0], self.log)
        frames = drain.gather()
        drain.store(frames)
        drain.publish(frames)

    def lost(self) -> Page:
        """Store the log, lose the page, and return the page of the next run."""
        self.store()
        return paper_page(epoch=2)

    def tokens(self) -> list[int]:
        return [record.token for record, _ in unfinished(self.state / "audit")]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.log.close()
    for place in desk.places:
        place.close()


def test_unfinished_when_a_record_ends_an_order_then_it_is_not_among_them(desk: Desk) -> None:
    orders = [desk.order() for _ in range(5)]
    desk.emit(EventKind.ORDER_DONE, token=orders[0].token, cumulative=0)
    desk.emit(EventKind.RESERVATION_EXPIRED, token=orders[1].token)
    desk.emit(EventKind.ORDER_RESOLVED, token=orders[2].token, cumulative=0)
    desk.emit(EventKind.ORDER_RESOLVED, token=orders[3].token, refused="no")
    # A denial is a decision too, and ends nothing.
    assert InstrumentHandle(desk.page, desk.slot, 0).check_raw(10, PRICE, 0) < 0
    desk.store()
    assert desk.tokens() == [orders[3].token, orders[4].token]


def test_unfinished_when_the_end_stands_before_its_beginning_then_it_counts(desk: Desk) -> None:
    order = desk.order()
    desk.emit(EventKind.ORDER_DONE, token=order.token, cumulative=0)
    # The drain goes round by slots: the keeper's comes before the strategy's.
    desk.store()
    assert desk.tokens() == []


def test_restore_when_the_page_is_lost_then_its_orders_count_as_before(desk: Desk) -> None:
    order = desk.order()
    gross = int(desk.page.rows(SUM)["gross"][0])
    assert commit(desk.page, order)
    page = desk.lost()
    assert restore_orders(page, desk.state / "audit") == [order.token]
    (row,) = live_rows(page)
    again = read_entry(page, row, order.token, any_epoch=True)
    assert again is not None
    assert (again.lots, again.price_ticks, again.key) == (10, PRICE, order.key)
    keeper_place = service(page, "position_keeper")
    keeper = Keeper(keeper_place)
    keeper.rebuild()
    assert int(page.rows(SUM)["gross"][0]) == gross
    # Once it is resolved the entry is free again: its record is durable already.
    assert keeper._settlement.release(order.token)
    keeper._settlement.free_durable()
    assert live_rows(page) == []
    assert int(page.rows(ENTRY)["word"][row]) & 0x7F == 0
    assert int(page.rows(SUM)["gross"][0]) == 0
    keeper_place.close()


def test_restore_when_an_exit_has_no_end_then_the_router_adopts_it_instead(desk: Desk) -> None:
    hold(desk.page, 0, 10)
    assert issue_exit(desk.page, desk.places[1].ring, 0, MARKET_MS)
    page = desk.lost()
    assert restore_orders(page, desk.state / "audit") == []


def test_restore_when_the_key_is_gone_from_the_config_then_nothing_is_written(desk: Desk) -> None:
    desk.order()
    page = desk.lost()
    object.__setattr__(page.names, "keys", ((0, 1),))
    assert restore_orders(page, desk.state / "audit") == []
    assert int(page.rows(KEY)["closable"][0]) == 0


def test_restore_when_there_are_more_than_entries_then_the_start_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        desk.order()
    page = desk.lost()
    monkeypatch.setattr(module, "ENTRIES_PER_SLOT", 2)
    with pytest.raises(TripgateError, match="have no end on record"):
        restore_orders(page, desk.state / "audit")


def test_restore_when_the_config_is_in_another_order_then_names_say_whose_an_order_is(
    desk: Desk,
) -> None:
    order, names = desk.order(), desk.page.names
    ours = [f"{name.venue}/{name.symbol}" for name in names.instruments]
    # The lost run had them the other way round: its number 0 is our last instrument.
    told = {"strategies": list(names.strategies), "instruments": ours[::-1]}
    for table, texts in told.items():
        desk.emit(EventKind.NUMBERS_ASSIGNED, table=table, first=0, names=texts)
    page = desk.lost()
    assert restore_orders(page, desk.state / "audit") == [order.token]
    (row,) = live_rows(page)
    entry = page.rows(ENTRY)[row]
    assert int(entry["instrument"]) == len(ours) - 1
    assert names.keys[int(entry["key"])] == (0, len(ours) - 1)


@pytest.mark.parametrize("table", ["strategies", "instruments"])
def test_restore_when_nobody_has_the_orders_name_any_more_then_it_is_not_given_to_another(
    desk: Desk, table: str
) -> None:
    desk.order()
    for body in number_rows(desk.page.names):
        told = ["gone", *body["names"][1:]] if body["table"] == table else body["names"]
        desk.emit(EventKind.NUMBERS_ASSIGNED, **{**body, "names": told})
    assert restore_orders(desk.lost(), desk.state / "audit") == []


def test_numbers_when_there_are_many_then_each_row_fits_and_together_they_tell_all() -> None:
    names = replace(paper_page().names, strategies=tuple(f"s{n}" for n in range(250)))
    rows = [body for body in number_rows(names) if body["table"] == "strategies"]
    assert [body["first"] for body in rows] == [0, 100, 200]
    assert [name for body in rows for name in body["names"]] == list(names.strategies)
