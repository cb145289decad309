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
from actors.router_exits import Exits
from actors.router_fates import Fates, read_missed_trades
from actors.router_guests import Guests
from actors.router_orders import Live, Orders
from actors.router_queue import Job, JobQueue, lane_of
from actors.router_reception import Reception
from actors.router_requests import Requests
from actors.router_server import StrategyServer
from actors.router_shadow import require_simulated_if_shadow
from actors.service import Service
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.venue_port import (
    Acknowledged,
    OrderAccepted,
    OrderKind,
    OrderStatus,
    OrderStreamEvent,
    Rejected,
    VenueFill,
)
from tripgate.audit.history import traded
from tripgate.clock import NS_PER_S
from tripgate.errors import VenueUnknownError
from tripgate.gate.commit import (
    Approved,
    commit,
    is_committed,
    is_durable,
    live_rows,
    read_entry,
    take_back,
    why_not_send,
)
from tripgate.gate.steps import strategies_done
from tripgate.gate.words import RESERVED, STATE_MASK, UNSENT, token_slot
from tripgate.machines.order import Observed, OrderEvent
from tripgate.machines.pacing import Budget
from tripgate.messages import DoneState, EventKind
from tripgate.page.layout import ENTRY, KEY, ROLE
from tripgate.page.level import node_level
from tripgate.reasons import Level

PROBE_S = 1.0
PROBE_AGE_NS = 10 * NS_PER_S
PROBE_LATE_NS = 3 * NS_PER_S
"""Age of the last good probe beyond which the venue counts as faulted."""
UNKNOWN_MAX = 8
"""Orders of unknown fate above which the router's lease is left to lapse."""
DURABLE_WAIT_NS = 2 * NS_PER_S


class Router:
    """One venue's router: jobs in, orders out, in the order in which they were decided."""

    def __init__(self, service: Service, venue: LocalVenue) -> None:
        self._service = service
        self._page = service.page
        self._venue = venue
        self._role = service.page.rows(ROLE)[service.role]
        self.server = StrategyServer(Path(service.names.sockets[service.venue]))
        self.orders = Orders(service, self._tell)
        self.duties = Duties(service, self.orders)
        self.fates = Fates(service, venue, self.orders, self._adopt, self._is_well, self._take)
        self.exits = Exits(service, self.orders, self.duties.keys, venue.capabilities)
        self.events: deque[Any] = deque()
        allowed = venue.capabilities
        budget = Budget(allowed.requests_per_second, allowed.burst_requests)
        self._jobs = JobQueue(budget, service.pace_ms)
        self._requests = Requests(service, self.orders, self.duties, self._jobs, self._put)
        self.guests = Guests(
            service, self.orders, self.duties, self._requests, self._request, self.server.tell
        )
        self.reception = Reception(service, self.guests, self._request)
        self._busy = False
        self._job_queued = trio.Event()
        self._account_step = -1
        self._audit_bell = f"role{service.names.role('audit_writer')}"
        self.probed_ns = 0

    async def recover(self) -> None:
        """Learn from the venue what happened while no router listened."""
        folder = Path(self._service.names.state_folder) / "audit"
        events, _ = traded(self._page, folder, [self._service.slot])
        fills = (e.body for e in events if e.kind is EventKind.FILL)
        # Each venue counts its own trades.
        own = (int(str(b["trade"])) for b in fills if b["venue"] == self._service.venue)
        self.orders.last_trade = max(own, default=0)
        self.orders.recall(folder)
        account = await self._venue.account()
        for row in live_rows(self._page):
            entry = self._page.rows(ENTRY)[row]
            # Of an earlier run too: a page outlives its tree, and so do its orders.
            approved = read_entry(self._page, row, int(entry["token"]), any_epoch=True)
            if approved is None or approved.key not in self.duties.keys:
                continue
            if int(entry["word"]) & STATE_MASK == UNSENT:
                self._unsent(approved, DoneState.UNSENT, "the router died before it was sent")
                continue
            await self._look_up(approved)
        for status in account.open_orders:
            known = self.orders.live.get(status.order.client_id)
            live = known or self.orders.adopt(status, None)
            if live.is_stop:
                # One of a symbol that this run does not trade is left alone: it covers something.
                if live.key < 0:
                    continue
                replaced = self.duties.adopt_stop(live, status.order.stop_ticks or 0)
                if replaced is not None:
                    self._put(("cancel", replaced, {}))
            elif known is None:
                self._put(("cancel", live, {}))
        await read_missed_trades(self._venue, self.orders, self._take)
        if int(self._role["incarnation"]) == 1:
            # The page is new: what the last tree wished stands in the log alone.
            self.duties.recall_stops(folder)

    async def _look_up(self, approved: Approved) -> None:
        status = await self._venue.query(self.orders.client_id(approved.token))
        if status is not None:
            self._adopt(status, approved)
            return
        live = self.orders.register(approved, self.orders.venue_order(approved, {}))
        self.orders.observe(live, Observed(OrderEvent.LOST))

    def _adopt(self, status: OrderStatus, approved: Approved | None) -> None:
        live = self.orders.adopt(status, approved)
        if not live.ended:
            self.orders.found(live)
            if approved is not None and not is_committed(self._page, approved):
                # Its reservation was given back meanwhile: what nobody counts may not stand.
                self._put(("cancel", live, {}))
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

    def _request(self, slot: int, request: dict[str, Any]) -> str | None:
        problem = self._requests.handle(slot, request)
        self._wake()
        return problem

    def _tell(self, slot: int, event: dict[str, Any]) -> None:
        self.guests.tell(slot, event)

    def _put(self, job: Job, *, duty: bool = False) -> None:
        kind, subject, _ = job
        cause = int(self._page.rows(KEY)["exit_cause"][subject.key]) if kind == "send" else 0
        self._jobs.put(job, lane_of(kind, subject, cause), duty=duty)
        self._job_queued.set()

    def _wake(self) -> None:
        self._service.ringer.ring(f"role{self._service.role}")

    def take_events(self) -> None:
        """Apply what the venue has told, in its order."""
        while self.events:
            self._take(self.events.popleft())
        if self._service.events.pending:
            return  # What was told is not in the ring yet: a step must not be marked without it.
        if self.orders.events_step > int(self._role["events_step"]):
            self._role["events_step"] = self.orders.events_step
            self._service.ringer.ring_all()
        self._role["last_trade"] = self.orders.last_trade

    def _take(self, event: OrderStreamEvent) -> None:
        live = self.orders.take(event)
        if isinstance(event, VenueFill):
            # A fill that crossed its cancel opens a position all the same, which needs its stop.
            order = live.approved if live else self.orders.approved_of(event.client_id)
            if order is not None:
                self.duties.opened(order)
        elif live is not None and isinstance(event, OrderAccepted):
            self._note_stop(live)

    def work(self, now_ns: int) -> None:
        """Queue what the page calls for; publish the step once everything of it is sent."""
        step = self._service.market_step
        # Fills are told before their step's prices: until the keeper has booked them, and the
        # breaker judged them, positions in the page are those of the step before.
        told_step = max(step, self.orders.events_step)
        judged = self._service.step_of("breaker") >= told_step >= 0 and not self.orders.in_step
        ready = judged and strategies_done(self._page, step)
        # Duties look at orders that were sent: what still waits to be sent would be queued again.
        if self._may_act(now_ns, judged=judged) and not self._jobs.has_duties:
            self._queue_duties(now_ns, ready=ready)
        sendable = self._jobs.is_ready(self._service.pace_ms)
        if sendable:
            self._job_queued.set()
        # What the budget holds back waits for market time, which a step must not wait for.
        idle = not sendable and not self._busy and not self.events
        idle = idle and not self.exits.holds_up(now_ns)
        told = self.orders.events_step >= step
        if ready and idle and told and step > int(self._role["step"]):
            self._service.finish_step(step)

    def _may_act(self, now_ns: int, *, judged: bool) -> bool:
        """Whether duties may be done: cancels, exits and stops wait for nobody for long.

        A replay's run must not depend on who is faster, so there the verdict on the step is waited
        for, until an actor that has to give it is overdue.
        """
        return judged or not self._service.header["replay"] or self.duties.is_overdue(now_ns)

    def _queue_duties(self, now_ns: int, *, ready: bool) -> None:
        exits, closes = self.exits.turn(now_ns, acted=ready, overdue=self.duties.is_overdue(now_ns))
        stops, replaced = self.duties.stops()
        for live in (*self.duties.cancels(now_ns), *closes, *replaced):
            self._put(("cancel", live, {}), duty=True)
        for order in (*exits, *stops):
            self._put(("send", order, {}), duty=True)
        levels = (node_level(self._page, n) for n in range(len(self._service.names.scopes)))
        step = self._service.market_step
        if step > self._account_step and (max(levels) >= Level.HARD or self._account_step < 0):
            self._account_step = step
            self._put(("account", None, {}), duty=True)

    async def send_jobs(self) -> None:
        """Carry out queued jobs one by one, until the end (sibling task of the loop)."""
        while not self._service.stopping.is_set():
            job = self._jobs.take(self._service.pace_ms)
            if job is None:
                self._job_queued = trio.Event()
                await self._job_queued.wait()
                continue
            self._busy = True
            kind, subject, style = job
            if kind == "send":
                await self._send(subject, style)
            elif kind == "cancel":
                await self._cancel(subject)
            else:
                await self._read_account()
            self._busy = False
            self._jobs.finish()
            self._wake()

    async def _send(self, order: Approved, style: dict[str, Any]) -> None:
        ours = order.is_exit or order.is_stop
        in_time = not order.opens or await self._wait_durable(order)
        if not in_time or not (ours or commit(self._page, order)):
            self._unsent(order, DoneState.EXPIRED, "the reservation expired before the send")
            return
        reason = why_not_send(self._page, order, self._service.market_ms, self._service.now_ns())
        if self.exits.is_crowded(order):
            reason = "merged into the exit of its position"
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
        self._tell(token_slot(order.token), {"event": "order_done", **body})

    def _answered(self, live: Live, answer: Acknowledged | Rejected) -> None:
        if isinstance(answer, Rejected):
            if not live.ended:
                self.orders.observe(live, Observed(OrderEvent.REJECT))
            return
        self.orders.acknowledged(live)
        self._note_stop(live)

    async def _wait_durable(self, order: Approved) -> bool:
        deadline = self._service.now_ns() + DURABLE_WAIT_NS
        if not is_durable(self._page, order):
            # The audit writer may be waiting for its bell: nobody else tells it of an opening.
            self._service.ringer.ring(self._audit_bell)
        while not is_durable(self._page, order):
            if self._service.now_ns() > deadline:
                return False
            await trio.sleep(0.001)
        return True

    async def _cancel(self, live: Live) -> None:
        if live.ended or live.client_id not in self.orders.live:
            return
        live.cancel_asked_ms = self._service.pace_ms
        self._service.emit(EventKind.CANCEL_SENT, {"token": live.order.token})
        await self._venue.cancel(live.client_id)

    async def _read_account(self) -> None:
        account = await self._venue.account()
        stops = OrderKind.STOP_MARKET
        entries = any(status.order.kind is not stops for status in account.open_orders)
        reserved = live_rows(self._page, (RESERVED,))
        held = any(account.positions.values())
        # An order of unknown fate may fill this very moment: with one of them nothing is flat.
        unknown = any(not live.is_stop for live in self.fates.unknown())
        self._role["account_flat"] = int(not (held or entries or reserved or unknown))
        self._role["account_ms"] = account.market_ms
        self._role["account_reads"] += 1

    def renew(self, now_ns: int) -> None:
        """Renew while the send path was probed lately, few fates are unknown and records fit.

        Otherwise the lease is given up by name: a router that waits for the venue does not hang,
        and killing it for its silence would only make it forget what it has asked already.
        """
        unknown = len(self.fates.unknown())
        fits = not self._service.tell_crowded()
        if fits and now_ns - self.probed_ns <= PROBE_AGE_NS and unknown <= UNKNOWN_MAX:
            self._service.lease.renew(now_ns)
        else:
            self._service.lease.give_up_stale()

    async def finish(self) -> None:
        """End in order: finish the send under way, record what its answer says, begin none."""
        while self._busy or self._service.events.pending:
            await self._service.turn()
            self.take_events()

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
            await self.fates.look()
            await trio.sleep(PROBE_S)

    def _is_well(self) -> bool:
        return self._service.now_ns() - self.probed_ns <= PROBE_LATE_NS


async def run(service: Service) -> None:
    """Recover, then serve: events in, duties and strategies' orders out."""
    require_simulated_if_shadow(service)
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
        await nursery.start(router.server.serve, router.reception)
        nursery.start_soon(router.send_jobs)
        nursery.start_soon(router.probe)
        nursery.start_soon(router.resolve)
        await service.ready()
        while not service.stopping.is_set():
            await service.turn()
            now_ns = service.now_ns()
            router.take_events()
            router.work(now_ns)
            router.guests.turn()
            router.renew(now_ns)
        await router.finish()
        nursery.cancel_scope.cancel()
