"""What became of the router's orders of unknown fate: asked, waited for, and at last settled.

The rule is ``machines.unknown``; this asks the venue what the rule wants to know. All orders are
asked about together: one by one, a backlog would take minutes, and positions whose stop is among
them would have none for as long.
"""

from collections.abc import Callable

from actors.router_orders import Live, Orders
from actors.service import Service
from exchange_adapters.local_venue import LocalVenue
from exchange_adapters.venue_port import OrderStatus, VenueFill
from tripgate.gate.commit import Approved, is_committed
from tripgate.machines import unknown as machine
from tripgate.machines.order import Observed, OrderEvent
from tripgate.machines.unknown import Fate, FateEvent, FateState

HISTORY_PAGES_MAX = 1_000
"""Pages of trades read for one proof; a history that is longer proves nothing this time."""

Adopt = Callable[[OrderStatus, Approved | None], None]
Take = Callable[[VenueFill], None]


class Fates:
    """Settles orders of unknown fate, a look at a time.

    Parameters
    ----------
    adopt
        Takes over an order that the venue knows after all.
    is_well
        Whether the venue answers its probes: while it does not, the clock of every fate stands.
    """

    def __init__(
        self, service: Service, venue: LocalVenue, orders: Orders, adopt: Adopt,
        is_well: Callable[[], bool], take: Take,
    ) -> None:  # fmt: skip
        self._service = service
        self._venue = venue
        self._orders = orders
        self._adopt = adopt
        self._is_well = is_well
        self._take = take
        self._fates: dict[str, Fate] = {}

    def unknown(self) -> list[Live]:
        """Return the orders whose fate is unknown."""
        return [live for live in self._orders.live.values() if live.unknown]

    async def look(self) -> None:
        """Ask about every order of unknown fate once, and settle those that can be."""
        asked = self.unknown()
        known = {live.client_id for live in asked}
        self._fates = {name: fate for name, fate in self._fates.items() if name in known}
        for live in asked:
            if not self._is_resolved(live):
                await self._ask(live)
        reading = [live for live in asked if self._state(live) is FateState.READING]
        if reading:
            await self._read(reading)

    def _is_resolved(self, live: Live) -> bool:
        """Take an operator's word, which the keeper has acted on: the entry is committed no more.

        Only an order that stood in an entry can be resolved; its entry is then the keeper's.
        """
        if live.approved is None or is_committed(self._service.page, live.approved):
            return False
        self._step(live, FateEvent.RESOLVED, self._service.now_ns())
        self._orders.resolved(live)
        return True

    async def _ask(self, live: Live) -> None:
        asked_ns = self._service.now_ns()
        if not self._is_well():
            self._step(live, FateEvent.FAULTED, asked_ns)
            return
        status = await self._venue.query(live.client_id)
        # The stream may have told its fate meanwhile.
        if self._orders.live.get(live.client_id) is not live or not live.unknown:
            return
        if status is None:
            self._step(live, FateEvent.NOT_KNOWN, asked_ns)
            return
        self._step(live, FateEvent.OBSERVED, asked_ns)
        self._orders.live.pop(live.client_id)
        self._adopt(status, live.approved)

    async def _read(self, reading: list[Live]) -> None:
        """Read the trades, then the account; both must end at the same trade and know no order.

        The account comes second: a trade between the two makes them differ, and is asked again.
        """
        whole = await self._read_trades()
        account = await self._venue.account()
        standing = {status.order.client_id for status in account.open_orders}
        agrees = whole and account.last_trade_id == self._orders.last_trade
        for live in reading:
            # Its trades, if there were any, have ended its being unknown while they were read.
            if self._orders.live.get(live.client_id) is not live or not live.unknown:
                continue
            if not agrees or live.client_id in standing:
                self._step(live, FateEvent.READ_DIFFERS, self._service.now_ns())
                continue
            fate = self._step(live, FateEvent.READ_AGREES, self._service.now_ns())
            if fate.state is FateState.NEVER_ARRIVED:
                self._orders.observe(live, Observed(OrderEvent.EXPIRE))

    async def _read_trades(self) -> bool:
        """Apply the trades that were missed; return whether the history was read to its end."""
        return await read_missed_trades(self._venue, self._orders, self._take)

    def _state(self, live: Live) -> FateState | None:
        fate = self._fates.get(live.client_id)
        return None if fate is None or not live.unknown else fate.state

    def _step(self, live: Live, event: FateEvent, now_ns: int) -> Fate:
        fate = self._fates.get(live.client_id)
        if fate is None:
            window_ms = self._venue.capabilities.send_window_ms
            fate = machine.begin(live.order.token, window_ms, now_ns)
        now_ns = max(now_ns, fate.seen_ns)
        self._fates[live.client_id], _ = machine.step(fate, event, now_ns)
        return self._fates[live.client_id]


async def read_missed_trades(venue: LocalVenue, orders: Orders, take: Take) -> bool:
    """Apply every trade after the last one seen; return False if there were too many to end."""
    for _ in range(HISTORY_PAGES_MAX):
        page = await venue.trades(orders.last_trade)
        for fill in page.fills:
            take(fill)
        if not page.more or not page.fills:
            return True
    return False
