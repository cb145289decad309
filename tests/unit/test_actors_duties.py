"""What the router does unasked, read from the page: cancels, exits, stops, unprotected time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import router_duties
from actors.router_duties import ENTRY_GRACE_NS, Duties
from actors.router_orders import CANCEL_AGAIN_MS
from exchange_adapters.venue_port import OrderKind, OrderState, OrderStatus, VenueOrder
from tests.tree_fixtures import (
    BTC,
    MARKET_MS,
    approve,
    hold,
)
from tests.unit.duties_desk import MARK, STOP, Desk
from tripgate.audit.record import Row
from tripgate.audit.store import LogWriter
from tripgate.clock import host_ns, utc_ns
from tripgate.machines.order import Observed, OrderEvent
from tripgate.page.layout import LEASE, ROLE, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.ring import RingReader
from tripgate.processes import process_start_time
from tripgate.reasons import Level, Side


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


def test_cancels_when_all_is_well_then_entries_rest(desk: Desk) -> None:
    desk.entry()
    assert desk.cancels() == []


@pytest.mark.parametrize("level", [Level.SOFT, Level.MEDIUM, Level.HARD, Level.EMERGENCY])
@pytest.mark.parametrize("scope", ["portfolio", "venue:sim", "asset:BTC", "strategy:trend",
                                   f"instrument:sim/{BTC}"])  # fmt: skip
def test_cancels_when_a_scope_of_an_entry_is_at_medium_then_it_goes(
    desk: Desk, scope: str, level: Level
) -> None:
    entry = desk.entry()
    set_level(desk.page, desk.page.names.scope(scope), LevelWriter.OPERATOR, level)
    assert desk.cancels() == ([entry] if level >= Level.MEDIUM else [])


def test_cancels_when_another_asset_is_at_medium_then_the_entry_rests(desk: Desk) -> None:
    desk.entry()
    set_level(desk.page, desk.page.names.scope("asset:ETH"), LevelWriter.BREAKER, Level.HARD)
    assert desk.cancels() == []


def test_cancels_when_asked_before_then_it_asks_again_only_after_a_while(desk: Desk) -> None:
    entry = desk.entry()
    set_level(desk.page, 0, LevelWriter.BREAKER, Level.MEDIUM)
    assert desk.cancels() == [entry]
    desk.later(CANCEL_AGAIN_MS - 1)
    assert desk.cancels() == []
    desk.later(1)
    assert desk.cancels() == [entry]
    desk.orders.observe(entry, Observed(OrderEvent.CANCEL))
    desk.later(CANCEL_AGAIN_MS)
    assert desk.cancels() == []


@pytest.mark.parametrize("role", ["supervisor", "audit_writer", "position_keeper", "breaker",
                                  "market_feed(sim)"])  # fmt: skip
def test_cancels_when_a_critical_lease_is_lapsed_for_long_then_entries_go(
    desk: Desk, role: str
) -> None:
    entry, now_ns = desk.entry(), host_ns()
    number = [name.text for name in desk.page.names.roles].index(role)
    desk.page.rows(LEASE)["deadline_ns"][number] = 0
    assert desk.duties.cancels(now_ns) == [], "nobody has yet said since when"
    desk.page.rows(ROLE)["lapsed_since_ns"][number] = now_ns - ENTRY_GRACE_NS
    assert desk.duties.cancels(now_ns) == []
    assert desk.duties.cancels(now_ns + 1) == [entry]


def test_cancels_when_a_deadline_merely_ran_out_then_it_counts_from_there(desk: Desk) -> None:
    entry, now_ns = desk.entry(), host_ns()
    keeper = desk.page.names.role("position_keeper")
    desk.page.rows(LEASE)["deadline_ns"][keeper] = now_ns - ENTRY_GRACE_NS
    assert desk.duties.cancels(now_ns) == []
    assert desk.duties.cancels(now_ns + 1) == [entry]


def test_cancels_when_its_own_lease_is_lapsed_then_that_is_no_reason(desk: Desk) -> None:
    desk.entry()
    router = desk.place.role
    desk.page.rows(LEASE)["deadline_ns"][router] = 0
    desk.page.rows(ROLE)["lapsed_since_ns"][router] = 1
    assert desk.cancels() == []


def test_cancels_when_the_owner_is_dead_then_its_entries_go_and_exits_stay(desk: Desk) -> None:
    entry = desk.entry()
    desk.wish_stop(10)
    stop = desk.placed()
    with subprocess.Popen(["true"]) as owner:
        row = desk.page.rows(SLOT)[desk.slot]
        row["pid"], row["start_time"] = owner.pid, process_start_time(owner.pid) or 1
    assert desk.cancels() == [entry]
    assert not stop.opens
    assert stop.cancel_asked_ms < 0


@pytest.mark.parametrize("lots", [10, -10])
def test_stops_when_a_position_has_none_then_one_is_placed_for_all_of_it(
    desk: Desk, lots: int
) -> None:
    desk.wish_stop(lots, STOP)
    place, cancel = desk.duties.stops()
    assert [(s.key, s.lots, s.stop_ticks, s.is_stop) for s in place] == [(0, -lots, STOP, True)]
    assert cancel == []
    live = desk.sent(place[0])
    assert desk.duties.stops() == ([], []), "while it is on its way there is no second"
    assert desk.duties.stop_placed(live) is None
    assert desk.duties.stops() == ([], [])
    row = desk.protection[0]
    assert (int(row["stop_token"]), int(row["stop_lots"]), int(row["stop_ticks"])) == (
        live.order.token, 10, STOP,
    )  # fmt: skip


def test_stops_when_no_entry_named_a_price_then_the_position_shows_as_unprotected(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    assert desk.duties.stops() == ([], [])
    assert int(desk.protection[0]["open_since_ms"]) == MARKET_MS


def test_stops_when_the_position_grew_then_a_larger_one_replaces_the_first(desk: Desk) -> None:
    desk.wish_stop(10)
    first = desk.placed()
    hold(desk.page, 0, 5, 15 * MARK)
    place, cancel = desk.duties.stops()
    assert ([s.lots for s in place], cancel) == ([-15], []), "the first protects until then"
    second = desk.sent(place[0])
    assert desk.duties.stop_placed(second) is first
    assert desk.duties.stops() == ([], [])
    assert desk.duties.stop_placed(first) is first, "told late, it is still the one that must go"
    assert int(desk.protection[0]["stop_token"]) == second.order.token


def test_stops_when_the_position_shrank_then_the_larger_one_still_covers_it(desk: Desk) -> None:
    desk.wish_stop(10)
    desk.placed()
    hold(desk.page, 0, -4, 6 * MARK)
    assert desk.duties.stops() == ([], [])


def test_stops_when_a_nearer_price_is_wanted_then_the_stop_moves_there(desk: Desk) -> None:
    desk.wish_stop(10)
    first = desk.placed()
    desk.keys["stop_ticks"][0] = STOP + 1_000
    place, _ = desk.duties.stops()
    assert [s.stop_ticks for s in place] == [STOP + 1_000]
    assert desk.duties.stop_placed(desk.sent(place[0])) is first


def test_stops_when_the_position_turned_then_the_old_side_covers_nothing(desk: Desk) -> None:
    desk.wish_stop(10)
    desk.placed()
    hold(desk.page, 0, -20, -10 * MARK)
    place, _ = desk.duties.stops()
    assert [s.lots for s in place] == [10]


def test_stops_when_it_was_partly_filled_then_what_is_left_must_cover(desk: Desk) -> None:
    desk.wish_stop(10)
    live = desk.placed()
    desk.orders.observe(live, Observed(OrderEvent.FILL, 1, 4))
    place, _ = desk.duties.stops()
    assert [s.lots for s in place] == [-10], "the book still holds ten, the stop covers six"


def test_stops_when_the_position_is_gone_then_its_stop_is_cancelled(desk: Desk) -> None:
    desk.wish_stop(10)
    live = desk.placed()
    hold(desk.page, 0, -10)
    assert desk.duties.stops() == ([], [live])
    assert desk.duties.stops() == ([], []), "asked once is enough for a while"
    assert int(desk.keys["stop_ticks"][0]) == 0
    desk.orders.observe(live, Observed(OrderEvent.CANCEL))
    desk.later(CANCEL_AGAIN_MS)
    assert desk.duties.stops() == ([], [])


def test_stops_when_the_venue_ended_it_then_another_is_placed(desk: Desk) -> None:
    desk.wish_stop(10)
    live = desk.placed()
    desk.orders.observe(live, Observed(OrderEvent.CANCEL))
    place, _ = desk.duties.stops()
    assert [s.lots for s in place] == [-10]
    assert desk.duties.stop_placed(desk.sent(place[0])) is None, "the ended one needs no cancel"


def test_stops_when_the_book_closes_meanwhile_then_none_is_issued(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.keys["stop_ticks"][0] = STOP
    monkeypatch.setattr(Duties, "position", lambda self, key: 5 if key == 0 else 0)
    assert desk.duties.stops() == ([], [])


def test_unprotected_time_when_cover_comes_then_the_longest_gap_is_kept(desk: Desk) -> None:
    desk.wish_stop(10)
    place, _ = desk.duties.stops()
    assert int(desk.protection[0]["open_since_ms"]) == MARKET_MS
    desk.later(700)
    desk.duties.stop_placed(desk.sent(place[0]))
    row = desk.protection[0]
    assert (int(row["open_since_ms"]), int(row["unprotected_ms_max"])) == (0, 700)
    assert desk.protected() == [{"key": 0, "unprotected_ms": 700}]
    hold(desk.page, 0, 5, 15 * MARK)
    place, _ = desk.duties.stops()
    desk.later(300)
    desk.duties.stop_placed(desk.sent(place[0]))
    assert int(row["unprotected_ms_max"]) == 700
    assert [body["unprotected_ms"] for body in desk.protected()] == [700, 300]


@pytest.mark.parametrize(
    ("lots", "stops", "expected"),
    [(10, (470_000, 480_000, 460_000), 480_000), (-10, (530_000, 520_000, 540_000), 520_000)],
)
def test_entry_filled_when_several_entries_fill_then_the_nearest_stop_counts(
    desk: Desk, lots: int, stops: tuple[int, ...], expected: int
) -> None:
    for stop in stops:
        desk.duties.entry_filled(desk.entry(lots, stop=stop))
    assert int(desk.keys["stop_ticks"][0]) == expected


def test_entry_filled_when_it_is_no_entry_of_ours_then_no_stop_is_wished(desk: Desk) -> None:
    foreign = desk.entry()
    foreign.approved = None
    desk.duties.entry_filled(foreign)
    closing = desk.entry()
    closing.opens = False
    desk.duties.entry_filled(closing)
    assert int(desk.keys["stop_ticks"][0]) == 0


def test_adopt_stop_when_a_predecessor_placed_it_then_it_covers_from_the_start(desk: Desk) -> None:
    hold(desk.page, 0, 10, 10 * MARK)
    order = VenueOrder(
        desk.orders.client_id(5), BTC, Side.SELL, 10, OrderKind.STOP_MARKET, stop_ticks=STOP,
        reduce_only=True,
    )  # fmt: skip
    told = OrderStatus(order, OrderState.OPEN, 0, 10, MARKET_MS, MARKET_MS, None)
    live = desk.orders.adopt(told, None)
    desk.duties.adopt_stop(live, STOP)
    assert desk.duties.stops() == ([], [])
    assert int(desk.protection[0]["stop_token"]) == 5
    assert int(desk.keys["stop_ticks"][0]) == STOP
    assert desk.duties.stop_placed(live) is None, "told again, it does not replace itself"


def test_P9_recall_stops_when_the_last_tree_placed_none_then_the_log_still_knows_it(
    desk: Desk,
) -> None:
    state = Path(desk.page.names.state_folder)
    approve(desk.page, desk.slot, 0, 10, MARK, STOP - 10)
    approve(desk.page, desk.slot, 0, 10, MARK, STOP)
    rows = [
        Row(1, desk.slot, frame.sequence, utc_ns(), 0, 0, frame.kind, None, frame.payload)
        for frame in RingReader(desk.page, "audit").read(desk.slot)
    ]
    with LogWriter(state / "audit", state / "heads") as log:
        log.append(rows)
    assert int(desk.keys["stop_ticks"][0]) == 0
    desk.duties.recall_stops(state / "audit")
    assert int(desk.keys["stop_ticks"][0]) == STOP
    assert int(desk.keys["stop_ticks"][1]) == 0
    hold(desk.page, 0, 10)
    placed, _ = desk.duties.stops()
    assert [(order.lots, order.stop_ticks) for order in placed] == [(-10, STOP)]


def test_duties_when_made_then_they_are_about_the_keys_of_their_venue(desk: Desk) -> None:
    assert desk.duties.keys == [0, 1]
    assert router_duties.TREE_SLOTS == 254
