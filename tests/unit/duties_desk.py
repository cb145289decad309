"""A router's duties on a real page; the venue's part is played by the test."""

from typing import Any

from actors.router_duties import Duties
from actors.router_orders import Live, Orders
from tests.tree_fixtures import MARKET_MS, approve, hold, mark, paper_page, records, service
from tripgate.clock import host_ns
from tripgate.gate.commit import Approved
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, PROTECTION

MARK, STOP = 500_000, 480_000


class Desk:
    """A router's duties on a real page; the venue's part is played by ``sent`` and ``fill``."""

    def __init__(self) -> None:
        self.page = paper_page()
        self.place = service(self.page, "router", "sim")
        self.orders = Orders(self.place, lambda slot, event: None)
        self.duties = Duties(self.place, self.orders)
        self.keys = self.page.rows(KEY)
        self.protection = self.page.rows(PROTECTION)
        self.slot = claim_strategy_slot(self.page, 0)
        for instrument in (0, 1):
            mark(self.page, instrument, MARK, step=0, market_ms=MARKET_MS)

    def sent(self, order: Approved) -> Live:
        live = self.orders.begin(order, self.orders.venue_order(order, {}))
        self.orders.acknowledged(live)
        return live

    def entry(self, lots: int = 10, key: int = 0, stop: int = STOP) -> Live:
        return self.sent(approve(self.page, self.slot, key, lots, MARK, stop))

    def cancels(self) -> list[Live]:
        return self.duties.cancels(host_ns())

    def later(self, ms: int) -> None:
        self.page.header["market_ms"] += ms

    def wish_stop(self, lots: int, stop: int = STOP) -> None:
        """Hold a position whose entry asked for a stop."""
        hold(self.page, 0, lots, lots * MARK)
        self.keys["stop_ticks"][0] = stop

    def placed(self) -> Live:
        """Let the duties place their stop and the venue take it."""
        place, _ = self.duties.stops()
        live = self.sent(place[0])
        assert self.duties.stop_placed(live) is None
        return live

    def protected(self) -> list[Any]:
        events = records(self.page, self.place.slot)
        return [body for kind, body in events if kind is EventKind.PROTECTED]
