"""The router's orders: what was sent, what became of it, and the venue's words turned into records.

Every message of the venue goes through the order machine; what the machine concludes is recorded
in the router's ring, from which the position_keeper books it. An order whose fate is unknown stays
live until an observation ends it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.service import Service
from exchange_adapters.venue_port import (
    OrderAccepted,
    OrderCancelled,
    OrderKind,
    OrderState,
    OrderStatus,
    OrderStreamEvent,
    StepEnded,
    TimeInForce,
    VenueFill,
    VenueOrder,
)
from tripgate.audit.numbers import Numbers
from tripgate.audit.reader import LogReader
from tripgate.config.structs import RESERVED_STRATEGY
from tripgate.gate.client_order_id import decode_client_id, encode_client_id
from tripgate.gate.commit import Approved, read_entry
from tripgate.gate.exits import lower_wish
from tripgate.gate.record import unpack_record
from tripgate.gate.words import token_epoch, token_slot
from tripgate.machines import order as machine
from tripgate.machines.order import TERMINAL, LotsFilled, Observed, OrderEnded, OrderEvent
from tripgate.messages import DoneState, EventKind
from tripgate.page.layout import ENTRY, EXIT_SLOT
from tripgate.reasons import Side

DONE = {
    machine.OrderState.FILLED: DoneState.FILLED,
    machine.OrderState.CANCELLED: DoneState.CANCELLED,
    machine.OrderState.REJECTED: DoneState.REJECTED,
    machine.OrderState.EXPIRED: DoneState.NEVER_ARRIVED,
}
LIVE_MAX = 4_096
"""Orders remembered at once; far above entries, exits and stops of one page."""
CANCEL_AGAIN_MS = 1_000
"""Time before an order is asked to go again: one cancel per order, however often it is wished."""
RECALLED_MAX = 10_000
"""How many of the newest decisions are searched for what the page no longer holds."""


@dataclass
class Live:
    """One order at the venue as the router knows it."""

    client_id: str
    order: machine.Order
    approved: Approved | None
    key: int
    signed: int
    is_stop: bool
    is_exit: bool
    opens: bool
    cancel_asked_ms: int = -1

    @property
    def is_close(self) -> bool:
        """Whether it is a strategy's own close, which holds lots of its closable word."""
        return not (self.opens or self.is_exit or self.is_stop)

    @property
    def ended(self) -> bool:
        """Whether a terminal state was observed."""
        return self.order.state in TERMINAL

    @property
    def unknown(self) -> bool:
        """Whether its fate is unknown."""
        return self.order.state is machine.OrderState.UNKNOWN


class Orders:
    """All live orders of one router, by client order id."""

    def __init__(self, service: Service, tell: Any) -> None:
        self._service = service
        self._names = service.names
        self._tell = tell
        self._installation = str(service.settings["installation"])
        self.live: dict[str, Live] = {}
        self.exits: dict[int, Live] = {}
        self._recalled: dict[int, int] = {}
        self.last_trade = 0
        self.events_step = -1
        self.in_step = False

    def client_id(self, token: int) -> str:
        """Return the client order id of a token."""
        return encode_client_id(self._installation, token)

    def keys_of_symbol(self, symbol: str) -> list[int]:
        """Return the closable keys that trade a symbol here; more than one share it."""
        instruments = self._names.instruments
        return [
            key for key, (_, number) in enumerate(self._names.keys)
            if (instruments[number].venue, instruments[number].symbol)
            == (self._service.venue, symbol)
        ]  # fmt: skip

    def key_of(self, token: int | None, symbol: str) -> int:
        """Return the key of an order that nobody here remembers, or -1 if it is nobody's.

        Its entry says it, or else the log; a symbol that one key alone trades leaves no doubt.
        """
        keys = self.keys_of_symbol(symbol)
        approved = self.approved(token) if token else None
        key = approved.key if approved else self._recalled.get(token or 0, -1)
        if key in keys:
            return key
        return keys[0] if len(keys) == 1 else -1

    def approved(self, token: int) -> Approved | None:
        """Return what an entry of this page says of a token, whatever has become of it."""
        page = self._service.page
        for row in (page.rows(ENTRY)["token"] == token).nonzero()[0]:
            return read_entry(page, int(row), token)
        return None

    def approved_of(self, client_id: str) -> Approved | None:
        """Return what an entry of this page says of a client order id."""
        token = decode_client_id(self._installation, client_id)
        return self.approved(token) if token else None

    def recall(self, audit_folder: Path) -> None:
        """Learn from the log whose the newest orders were: needed where instruments are shared."""
        symbols = {name.symbol for name in self._names.instruments}
        if all(len(self.keys_of_symbol(symbol)) < 2 for symbol in symbols):
            return
        numbers = Numbers(audit_folder, self._names)
        decisions = LogReader(audit_folder).newest(RECALLED_MAX, kinds=(int(EventKind.DECISION),))
        for stored in decisions:
            record = unpack_record(stored.row.body)
            pair = numbers.pair(record.epoch, record.strategy, record.instrument)
            if record.approved and pair is not None:
                self._recalled[record.token] = self._names.keys.index(pair)

    def ask_cancel(self, live: Live) -> bool:
        """Note that an order is asked to go; False if it was asked a moment ago or has ended."""
        now_ms, asked_ms = self._service.pace_ms, live.cancel_asked_ms
        if live.ended or (asked_ms >= 0 and now_ms - asked_ms < CANCEL_AGAIN_MS):
            return False
        live.cancel_asked_ms = now_ms
        return True

    def venue_order(self, order: Approved, style: dict[str, Any]) -> VenueOrder:
        """Build the venue's order from the gate's entry; ``style`` is only how it rests."""
        kind, price, stop = OrderKind.LIMIT, order.price_ticks, None
        in_force = TimeInForce(str(style.get("time_in_force", "GTC")).lower())
        if order.is_stop:
            kind, price, stop, in_force = (
                OrderKind.STOP_MARKET,
                0,
                order.stop_ticks,
                TimeInForce.GTC,
            )
        elif (order.is_market and order.opens) or (order.is_exit and order.price_ticks):
            # A market opening was checked as an IOC at its collar, and is sent as that; so is an
            # exit whose market order was refused.
            in_force = TimeInForce.IOC
        elif order.is_market:
            kind, price, in_force = OrderKind.MARKET, 0, TimeInForce.GTC
        return VenueOrder(
            client_id=self.client_id(order.token),
            symbol=self._names.instruments[order.instrument].symbol,
            side=Side.BUY if order.lots > 0 else Side.SELL,
            lots=abs(order.lots),
            kind=kind,
            price_ticks=price or None,
            stop_ticks=stop,
            time_in_force=in_force,
            reduce_only=not order.opens,
        )

    def begin(self, order: Approved, sent: VenueOrder) -> Live:
        """Register an order that is about to leave, on record."""
        live = self.register(order, sent)
        self._service.emit(EventKind.ORDER_SENT, {
            "token": order.token, "client_id": sent.client_id, "venue": self._service.venue,
            "symbol": sent.symbol, "lots": order.lots, "kind": str(sent.kind),
            "price": sent.price_ticks or 0, "stop": sent.stop_ticks or 0,
            "time_in_force": str(sent.time_in_force), "reduce_only": sent.reduce_only,
        })  # fmt: skip
        return live

    def register(self, order: Approved, sent: VenueOrder) -> Live:
        """Register an order that is on its way, or was when a predecessor died."""
        live = Live(
            sent.client_id, machine.Order(order.token, abs(order.lots)), order, order.key,
            1 if order.lots > 0 else -1, order.is_stop, order.is_exit, order.opens,
        )  # fmt: skip
        self._register(live)
        return live

    def found(self, live: Live) -> None:
        """Record that the venue knows an order whose fate was unknown."""
        self._record(live, EventKind.ORDER_ACKNOWLEDGED, {"found": True})

    def adopt(self, status: OrderStatus, approved: Approved | None) -> Live:
        """Register an order that a predecessor sent, as the venue tells it."""
        sent = status.order
        token = decode_client_id(self._installation, sent.client_id) or 0
        # What nobody knows counts as the first holder's: it must be looked after by someone.
        key = approved.key if approved else self.key_of(token, sent.symbol)
        if key < 0:
            key = next(iter(self.keys_of_symbol(sent.symbol)), -1)
        state = machine.OrderState.ACKNOWLEDGED
        is_exit = approved.is_exit if approved else sent.kind is OrderKind.MARKET
        is_stop = sent.kind is OrderKind.STOP_MARKET
        live = Live(
            sent.client_id,
            machine.Order(token, sent.lots, state, status.cumulative_lots),
            approved, key, int(sent.side), is_stop, is_exit, not sent.reduce_only,
        )  # fmt: skip
        self._register(live)
        if status.state is OrderState.CANCELLED:
            self.observe(live, Observed(OrderEvent.CANCEL))
        elif status.state is OrderState.FILLED:
            self.done(live, DoneState.FILLED, status.cumulative_lots)
        return live

    def observe(self, live: Live, seen: Observed) -> None:
        """Run the order machine on one observation and record what follows."""
        live.order, effects = machine.step(live.order, seen, self._service.market_ms)
        for effect in effects:
            if isinstance(effect, OrderEnded):
                self.done(live, DONE[effect.state], effect.filled_lots)
            elif isinstance(effect, LotsFilled):
                continue
            else:
                self._record(live, EventKind.ORDER_UNKNOWN, {})

    def done(self, live: Live, state: DoneState, cumulative: int) -> None:
        """Record an order's end and forget it."""
        self._record(live, EventKind.ORDER_DONE, {"state": state.name, "cumulative": cumulative})
        self.live.pop(live.client_id, None)

    def resolved(self, live: Live) -> None:
        """Forget an order that an operator has ended; the keeper's record tells how."""
        self.live.pop(live.client_id, None)
        body = {"token": live.order.token, "client_id": live.client_id}
        self._tell(token_slot(live.order.token), {"event": "order_resolved", **body})

    def acknowledged(self, live: Live) -> None:
        """Record that the venue has taken the order."""
        if live.order.state is machine.OrderState.SENDING:
            self._record(live, EventKind.ORDER_ACKNOWLEDGED, {})
        self.observe(live, Observed(OrderEvent.ACKNOWLEDGE))

    def take(self, event: OrderStreamEvent) -> Live | None:
        """Apply one event of the venue's stream; return the order it was about."""
        if isinstance(event, StepEnded):
            self.in_step = False
            self.events_step = max(self.events_step, event.step)
            return None
        live = self.live.get(event.client_id)
        if isinstance(event, VenueFill):
            # Until the step's marker comes, the page is behind what was told.
            self.in_step = True
            self._fill(event, live)
        elif live is not None and isinstance(event, OrderCancelled):
            self.observe(live, Observed(OrderEvent.CANCEL))
        elif live is not None and isinstance(event, OrderAccepted):
            self.acknowledged(live)
        return live

    def _register(self, live: Live) -> None:
        self.live[live.client_id] = live
        if live.is_exit:
            self.exits[live.key] = live

    def _fill(self, fill: VenueFill, live: Live | None) -> None:
        if fill.trade_id <= self.last_trade:
            return
        token = live.order.token if live else decode_client_id(self._installation, fill.client_id)
        key = live.key if live else self.key_of(token, fill.symbol)
        owner = self._names.strategies[self._names.keys[key][0]]
        strategy = owner if key >= 0 else RESERVED_STRATEGY
        body = {
            "trade": fill.trade_id, "token": token or 0, "strategy": strategy,
            "venue": self._service.venue, "symbol": fill.symbol,
            "lots": fill.lots * int(fill.side), "ticks": fill.price_ticks,
            "fee": fill.fee_money, "cumulative": fill.cumulative_lots,
        }  # fmt: skip
        if token and token_slot(token) == EXIT_SLOT and key >= 0:
            # Before the fill is told: a wish that is raised once it is booked is not its to lower.
            lower_wish(self._service.page, key, fill.lots)
        # Fills are told before their step's prices: the page's market time is still that before.
        self._service.emit(EventKind.FILL, body, market_ms=fill.market_ms)
        self.last_trade = fill.trade_id
        if live is None:
            self._tell_late(token, body)
            return
        self._tell(token_slot(live.order.token), {"event": "fill", **body})
        # An adopted order came with its lots so far: only what goes beyond them is new.
        fresh = fill.cumulative_lots - live.order.filled_lots
        if fresh > 0:
            self.observe(live, Observed(OrderEvent.FILL, fill.trade_id, fresh))

    def _tell_late(self, token: int | None, body: dict[str, Any]) -> None:
        """Tell a strategy of a fill that came after its order's end: the cancel had crossed it."""
        # A slot has other owners in another run: what is not of this one is told to nobody.
        if token and token_epoch(token) == self._service.page.epoch:
            self._tell(token_slot(token), {"event": "fill", **body, "late": True})

    def _record(self, live: Live, kind: EventKind, more: dict[str, Any]) -> None:
        body = {"token": live.order.token, "client_id": live.client_id, **more}
        self._service.emit(kind, body)
        self._tell(token_slot(live.order.token), {"event": kind.name.lower(), **body})
