"""The keeper of two venues: each counts its own trades, and none is taken for another's."""

from dataclasses import replace
from pathlib import Path

from actors.position_keeper import Keeper
from supervisors.page_setup import make_page
from tests.tree_fixtures import BTC, ETH, INSTANCE, MARKET_MS, facts, mark, paper_text, service
from tripgate.audit.store import LogWriter
from tripgate.config.reader import load_text
from tripgate.instance import prepare_state
from tripgate.messages import EventKind
from tripgate.page.layout import KEY
from tripgate.page.mapping import Page
from tripgate.units import money

OTHER = (
    "[limits.venues.other]\ngross_reporting_max = 7\nnet_reporting_max = 6\n"
    '[venues.other]\nexchange = "binanceusdm"\nkind = "simulated"\nposition_mode = "one-way"\n'
    "starting_equity_reporting = 5\nmargin_buffer_reporting = 0\n"
)


def page_of_two() -> Page:
    """Return a page on which one strategy trades BTC at ``sim`` and ETH at ``other``."""
    prepare_state(INSTANCE)
    text = paper_text().replace(f"sim/{ETH}", f"other/{ETH}") + OTHER
    told = facts((BTC,)) | {"other": replace(facts((ETH,))["sim"], starting_money=money(5_000))}
    return make_page(load_text(text, "two", {}).config, INSTANCE, 1, told, {})


def test_P6_keeper_when_two_venues_number_trades_alike_then_both_are_booked_once() -> None:
    page = page_of_two()
    state = Path(page.names.state_folder)
    LogWriter(state / "audit", state / "heads").close()
    routers = {"sim": service(page, "router", "sim"), "other": service(page, "router", "other")}
    place = service(page, "position_keeper")
    keeper = Keeper(place)
    keeper.rebuild()
    for number in range(2):
        mark(page, number, 500_000, step=0, market_ms=MARKET_MS)
    told = (("sim", BTC, 3, 3), ("other", ETH, -2, 2), ("sim", BTC, 3, 3), ("other", ETH, -2, 2))
    for venue, symbol, lots, cumulative in told:
        routers[venue].emit(EventKind.FILL, {
            "trade": 1, "token": 0, "strategy": "trend", "venue": venue, "symbol": symbol,
            "lots": lots, "ticks": 500_000, "fee": 1, "cumulative": cumulative,
        })  # fmt: skip
    keeper.take_events()
    held = [int(word) >> 32 for word in page.rows(KEY)["closable"]]
    assert held == [3, -2]
    for one in (*routers.values(), place):
        one.close()
