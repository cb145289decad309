"""router: the only sender. Commits what the gate approved, sends it once, records its fate.

Reads: entries, watermarks, levels, leases, exit claims, positions; the venue's order events.
Sends: orders, cancels and stops to the venue; events to strategies; records every order event.
Sole writer of: PROTECTION rows and stop wishes of its venue; its account_* and events_step words.
Lease: 500 ms; while it is lapsed, openings at the venue are denied.
State after restart: fills missed are read from the venue by trade id; every COMMITTED entry is
looked up by client order id; an order the venue does not know stays unknown until it is proved.
"""

from collections import deque
from pathlib import Path
from typing import Any

import trio

from actors.router_duties import Duties
from actors.router_orders import Live, Orders
from actors.router_server import StrategyServer
from actors.service import Service
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.venue_port import (
    Acknowledged,
    OrderAccepted,
    OrderKind,
    OrderStatus,
    Rejected,
    VenueFill,
)
from tripgate.audit.history import traded
from tripgate.clock import NS_PER_S
from tripgate.errors import VenueUnknownError
from tripgate.gate.commit import (
    VENUE_WINDOW_MS,
    Approved,
    commit,
    find_reserved,
    is_durable,
    live_rows,
    read_entry,
    take_back,
    why_not_send,
)
from tripgate.gate.steps import strategies_done
from tripgate.gate.words import RESERVED, token_slot
from tripgate.machines.order import Observed, OrderEvent
from tripgate.messages import DoneState, EventKind
from tripgate.page.layout import ENTRY, ROLE
from tripgate.page.level import node_level
from tripgate.reasons import Level

PROBE_S = 1.0
PROBE_AGE_NS = 10 * NS_PER_S
UNKNOWN_MAX = 8
"""Orders of unknown fate above which the router's lease is left to lapse."""
QUERIES_UNKNOWN = 3
QUERY_APART_S = 1.0
DURABLE_WAIT_NS = 2 * NS_PER_S
JOBS_MAX = 4_096


class Router:
    """One venue's router: jobs in, orders out, in the order in which they were decided."""

    def __init__(self, service: Service, venue: LocalVenue) -> None:
        self._service = service
        self._page = service.page
        self._venue = venue
        self._role = service.page.rows(ROLE)[service.role]
        self.server = StrategyServer(Path(service.names.sockets[service.venue]), self._request)
        self.orders = Orders(service, self.server.tell)
        self.duties = Duties(service, self.orders)
        self.events: deque[Any] = deque()
        self._jobs: deque[tuple[str, Any, dict[str, Any]]] = deque(maxlen=JOBS_MAX)
        self._busy = False
        self._job_queued = trio.Event()
        self._account_step = -1
        self.probed_ns = 0

    async def recover(self) -> None:
        """Learn from the venue what happened while no router listened."""
        folder = Path(self._service.names.state_folder) / "audit"
        events, _ = traded(self._page, folder, [self._service.slot])
        trades = (int(str(e.body["trade"])) for e in events if e.kind is EventKind.FILL)
        self.orders.last_trade = max(trades, default=0)
        account = await self._venue.account()
        for row in live_rows(self._page):
            token = int(self._page.rows(ENTRY)["token"][row])
            approved = read_entry(self._page, row, token)
            if approved is None or approved.key not in self.duties.keys:
                continue
            await self._look_up(approved)
        for status in account.open_orders:
            known = self.orders.live.get(status.order.client_id)
            live = known or self.orders.adopt(status, None)
            if live.is_stop:
                self.duties.adopt_stop(live, status.order.stop_ticks or 0)
            elif known is None:
                self._put(("cancel", live, {}))
        await self._read_missed_trades()
        if int(self._role["incarnation"]) == 1:
            # The page is new: what the last tree wished stands in the log alone.
            self.duties.recall_stops(folder)

    async def _look_up(self, approved: Approved) -> None:
        status = await self._venue.query(self.orders.client_id(approved.token))
        if status is not None:
            self._adopt(status, approved)
            return
        live = self.orders.begin(approved, self.orders.venue_order(approved, {}))
        self.orders.observe(live, Observed(OrderEvent.LOST))

    def _adopt(self, status: OrderStatus, approved: Approved | None) -> None:
        live = self.orders.adopt(status, approved)
        if status.cumulative_lots:
            # It filled while nobody listened: its position needs its stop all the same.
            self.duties.entry_filled(live)
        self._note_stop(live)

    def _note_stop(self, live: Live) -> None:
        """Take a stop that stands as its position's cover, and let the one before it go."""
        if not live.is_stop or live.ended:
            return
        replaced = self.duties.stop_placed(live)
        if replaced is not None:
            self._put(("cancel", replaced, {}))

    async def _read_missed_trades(self) -> None:
        while True:
            page = await self._venue.trades(self.orders.last_trade)
            for fill in page.fills:
                self.orders.take(fill)
            if not page.more or not page.fills:
                return

    def _request(self, slot: int, request: dict[str, Any]) -> str | None:
        token = request.get("token")
        if not isinstance(token, int) or len(self._jobs) >= JOBS_MAX:
            return "a request names a token" if not isinstance(token, int) else "too many requests"
        if request.get("op") == "cancel":
            live = self.orders.live.get(self.orders.client_id(token))
            # Its own orders only: neither another strategy's nor the tree's stops and exits.
            if live is None or token_slot(token) != slot:
                return f"no live order has token {token}"
            self._put(("cancel", live, {}))
        elif request.get("op") == "submit":
            order = find_reserved(self._page, token, slot)
            if order is None:
                return f"token {token} is not a reservation of this process (used or expired?)"
            if (problem := _style_problem(order, request)) is not None:
                return problem
            self._put(("send", order, request))
        else:
            return f"unknown operation {request.get('op')!r}"
        self._wake()
        return None

    def _put(self, job: tuple[str, Any, dict[str, Any]]) -> None:
        self._jobs.append(job)
        self._job_queued.set()

    def _wake(self) -> None:
        self._service.ringer.ring(f"role{self._service.role}")

    def take_events(self) -> None:
        """Apply what the venue has told, in its order."""
        while self.events:
            event = self.events.popleft()
            live = self.orders.take(event)
            if live is not None and isinstance(event, VenueFill):
                self.duties.entry_filled(live)
            elif live is not None and isinstance(event, OrderAccepted):
                self._note_stop(live)
        if self.orders.events_step > int(self._role["events_step"]):
            self._role["events_step"] = self.orders.events_step
            self._service.ringer.ring_all()
        self._role["last_trade"] = self.orders.last_trade

    def work(self, now_ns: int) -> None:
        """Queue what the page calls for; publish the step once everything of it is sent."""
        step = self._service.market_step
        # Fills are told before their step's prices: until the keeper has booked them, and the
        # breaker judged them, positions in the page are those of the step before.
        told_step = max(step, self.orders.events_step)
        judged = self._service.step_of("breaker") >= told_step >= 0 and not self.orders.in_step
        ready = judged and strategies_done(self._page, step)
        # Duties look at orders that were sent: what still waits to be sent would be queued again.
        if judged and not self._busy and not self._jobs:
            self._queue_duties(now_ns)
        idle = not self._jobs and not self._busy and not self.events
        told = self.orders.events_step >= step
        if ready and idle and told and step > int(self._role["step"]):
            self._service.finish_step(step)

    def _queue_duties(self, now_ns: int) -> None:
        for live in self.duties.cancels(now_ns):
            self._put(("cancel", live, {}))
        for order in self.duties.exits():
            self._put(("send", order, {}))
        place, cancel = self.duties.stops()
        for order in place:
            self._put(("send", order, {}))
        for live in cancel:
            self._put(("cancel", live, {}))
        levels = (node_level(self._page, n) for n in range(len(self._service.names.scopes)))
        step = self._service.market_step
        if step > self._account_step and (max(levels) >= Level.HARD or self._account_step < 0):
            self._account_step = step
            self._put(("account", None, {}))

    async def send_jobs(self) -> None:
        """Carry out queued jobs one by one, for ever (sibling task of the loop)."""
        while True:
            while not self._jobs:
                self._job_queued = trio.Event()
                await self._job_queued.wait()
            self._busy = True
            kind, subject, style = self._jobs.popleft()
            if kind == "send":
                await self._send(subject, style)
            elif kind == "cancel":
                await self._cancel(subject)
            else:
                await self._read_account()
            self._busy = False
            self._wake()

    async def _send(self, order: Approved, style: dict[str, Any]) -> None:
        ours = order.is_exit or order.is_stop
        in_time = not order.opens or await self._wait_durable(order)
        if not in_time or not (ours or commit(self._page, order)):
            self._unsent(order, DoneState.EXPIRED, "the reservation expired before the send")
            return
        reason = why_not_send(self._page, order, self._service.market_ms, self._service.now_ns())
        if reason is not None:
            take_back(self._page, order)
            self._unsent(order, DoneState.UNSENT, reason)
            return
        sent = self.orders.venue_order(order, style)
        live = self.orders.begin(order, sent)
        try:
            answer = await self._venue.send(sent)
        except VenueUnknownError:
            self.orders.observe(live, Observed(OrderEvent.LOST))
            return
        self._answered(live, answer)

    def _unsent(self, order: Approved, state: DoneState, reason: str) -> None:
        """Record and tell that an order never left; the keeper releases what it reserved."""
        body = {"token": order.token, "state": state.name, "cumulative": 0, "reason": reason}
        self._service.emit(EventKind.ORDER_DONE, body)
        self.server.tell(token_slot(order.token), {"event": "order_done", **body})

    def _answered(self, live: Live, answer: Acknowledged | Rejected) -> None:
        if isinstance(answer, Rejected):
            if not live.ended:
                self.orders.observe(live, Observed(OrderEvent.REJECT))
            return
        self.orders.acknowledged(live)
        self._note_stop(live)

    async def _wait_durable(self, order: Approved) -> bool:
        deadline = self._service.now_ns() + DURABLE_WAIT_NS
        while not is_durable(self._page, order):
            if self._service.now_ns() > deadline:
                return False
            await trio.sleep(0.001)
        return True

    async def _cancel(self, live: Live) -> None:
        if live.ended or live.client_id not in self.orders.live:
            return
        live.cancel_asked_ms = self._service.market_ms
        self._service.emit(EventKind.CANCEL_SENT, {"token": live.order.token})
        await self._venue.cancel(live.client_id)

    async def _read_account(self) -> None:
        account = await self._venue.account()
        stops = OrderKind.STOP_MARKET
        entries = any(status.order.kind is not stops for status in account.open_orders)
        reserved = live_rows(self._page, (RESERVED,))
        held = any(account.positions.values())
        self._role["account_flat"] = int(not held and not entries and not reserved)
        self._role["account_ms"] = account.market_ms
        self._role["account_reads"] += 1

    def renew(self, now_ns: int) -> None:
        """Renew while the send path was probed lately and few fates are unknown.

        Otherwise the lease is given up by name: a router that waits for the venue does not hang,
        and killing it for its silence would only make it forget what it has asked already.
        """
        if now_ns - self.probed_ns <= PROBE_AGE_NS and len(self._unknown()) <= UNKNOWN_MAX:
            self._service.lease.renew(now_ns)
        else:
            self._service.lease.give_up_stale()

    def _unknown(self) -> list[Live]:
        return [live for live in self.orders.live.values() if live.unknown]

    async def probe(self) -> None:
        """Prove the way to the venue every second, for ever (sibling task)."""
        while True:
            asked_ns = self._service.now_ns()
            await self._venue.hello()
            self.probed_ns = asked_ns
            await trio.sleep(PROBE_S)

    async def resolve(self) -> None:
        """Find out what became of orders of unknown fate, for ever (sibling task)."""
        while True:
            await self._query(self._unknown())
            await self._end_never_arrived(self._unknown())
            await trio.sleep(PROBE_S)

    async def _query(self, asked: list[Live]) -> None:
        for live in asked:
            status = await self._venue.query(live.client_id)
            # The stream may have told its fate meanwhile.
            if status is not None and self.orders.live.get(live.client_id) is live:
                self.orders.live.pop(live.client_id)
                self._adopt(status, live.approved)

    async def _end_never_arrived(self, asked: list[Live]) -> None:
        """End those of which it is proved that they never reached the venue (GATE section 2).

        All are asked about together: one by one, a backlog would take minutes, and positions whose
        stop is among them would have none for as long.
        """
        if not asked:
            return
        await trio.sleep(VENUE_WINDOW_MS / 1_000)
        for _ in range(QUERIES_UNKNOWN):
            await self._query([live for live in asked if live.unknown])
            await trio.sleep(QUERY_APART_S)
        await self._read_missed_trades()
        account = await self._venue.account()
        standing = {status.order.client_id for status in account.open_orders}
        for live in asked:
            is_live = self.orders.live.get(live.client_id) is live
            if is_live and live.unknown and live.client_id not in standing:
                self.orders.observe(live, Observed(OrderEvent.EXPIRE))


def _style_problem(order: Approved, request: dict[str, Any]) -> str | None:
    if request.get("type") not in (None, "market" if order.is_market else "limit"):
        checked = "market" if order.is_market else "limit"
        return f"the order was checked as a {checked} order and cannot be sent as another"
    if str(request.get("time_in_force", "GTC")) not in ("GTC", "IOC"):
        return f"time in force is GTC or IOC, was {request.get('time_in_force')!r}"
    return None


async def run(service: Service) -> None:
    """Recover, then serve: events in, duties and strategies' orders out."""
    path = Path(service.settings["venue_sockets"][service.venue])
    async with open_local_venue(path) as venue, trio.open_nursery() as nursery:
        router = Router(service, venue)
        stream = await venue.events()
        await router.recover()

        async def listen() -> None:
            async for event in stream:
                router.events.append(event)
                service.ringer.ring(f"role{service.role}")

        nursery.start_soon(listen)
        nursery.start_soon(router.server.serve)
        nursery.start_soon(router.send_jobs)
        nursery.start_soon(router.probe)
        nursery.start_soon(router.resolve)
        await service.ready()
        while True:
            await service.turn()
            now_ns = service.now_ns()
            router.take_events()
            router.work(now_ns)
            router.renew(now_ns)
