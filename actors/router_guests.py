"""Guests: strategies in any language, for which the router holds the slot that they cannot hold.

A guest speaks docs/protocol.md and knows nothing of the page. Its checks run here, through the same
kernels as everybody's, on a strategy slot that this process claims for it; so limits, throttles,
entries, records and repair are those of any strategy, and when the router dies the slot is a dead
process's like another. A guest takes part in the lock-step from its hello on.

Nothing that a guest says is believed: the strategy is one of the config's that nobody is attached
for, the instruments are that strategy's at this venue, and its orders are built from entries.

Invariants: G1 one connection is one guest, one slot, one strategy; G2 at most ``GUESTS_MAX`` slots
are held for guests, those of guests that left and are not settled yet included.
"""

from collections.abc import Callable
from typing import Any

from actors.router_duties import Duties
from actors.router_guest_operations import Guest, Operations, Submit
from actors.router_orders import Orders
from actors.router_requests import Requests, shown
from actors.router_server import Answer
from actors.service import Service
from tripgate.errors import InvariantBroken, PageError
from tripgate.gate.denials import post_merged
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot, is_attached, is_claimable, release_slot
from tripgate.gate.steps import StepTurn
from tripgate.messages import EventKind
from tripgate.page.board import read_quote
from tripgate.page.layout import EXIT_SLOT, INSTRUMENT, KEY, LIMIT, STOP_SLOT
from tripgate.page.level import level_of_word, node_level
from tripgate.units import MONEY_SCALE

PROTOCOL = 1
"""Version of docs/protocol.md. What is added keeps it; what changes meaning raises it."""
GUESTS_MAX = 8
"""Half of a page's strategy slots: guests cannot crowd out those that attach by themselves."""
CALL_ROUTE = "entry_point"
_KIND_OF_SLOT = {STOP_SLOT: "stop", EXIT_SLOT: "exit"}

Tell = Callable[[int, dict[str, Any]], None]


class Guests:
    """All guests of one router, by slot."""

    def __init__(
        self, service: Service, orders: Orders, duties: Duties, requests: Requests,
        submit: Submit, tell: Tell,
    ) -> None:  # fmt: skip
        self._service = service
        self._page = service.page
        self._keys = duties.keys
        self._operations = Operations(service, orders, requests, submit)
        self._tell = tell
        self._guests: dict[int, Guest] = {}
        self._unsettled: set[int] = set()

    def has(self, slot: int) -> bool:
        """Whether a slot is held for a guest."""
        return slot in self._guests

    def attach(self, pid: int, request: dict[str, Any]) -> tuple[int, Answer]:
        """Answer a guest's hello: claim a slot for its strategy, or say why not (slot -1)."""
        name, names = request.get("strategy"), self._service.names
        if request.get("protocol") != PROTOCOL or type(request["protocol"]) is not int:
            asked = shown(request.get("protocol"))
            return -1, {"error": f"this router speaks protocol {PROTOCOL}, asked was {asked}"}
        if not isinstance(name, str) or name not in names.strategies:
            known = ", ".join(names.strategies)
            return -1, {"error": f"unknown strategy {shown(name)}; this instance has: {known}"}
        number = names.strategy(name)
        keys = [key for key in self._keys if names.keys[key][0] == number]
        if not keys:
            return -1, {"error": f"strategy {name!r} trades nothing at {self._service.venue}"}
        if is_attached(self._page, number):
            return -1, {"error": f"strategy {name!r} is attached already"}
        self._unsettled = {slot for slot in self._unsettled if not is_claimable(self._page, slot)}
        if len(self._guests) + len(self._unsettled) >= GUESTS_MAX:
            return -1, {"error": f"all {GUESTS_MAX} places for guests are taken: try again later"}
        try:
            slot = claim_strategy_slot(self._page, number)
        except PageError as error:
            return -1, {"error": str(error)}
        guest = self._seat(slot, number, keys)
        self._service.emit(
            EventKind.GUEST_ATTACHED,
            {"strategy": name, "slot": slot, "pid": pid, "protocol": PROTOCOL},
        )
        return slot, self._welcome(guest)

    def handle(self, slot: int, request: dict[str, Any]) -> Answer:
        """Carry out a guest's request."""
        return self._operations.carry_out(self._guests[slot], request)

    def leave(self, slot: int, reason: str) -> None:
        """Give a guest's slot back: its orders are from now on those of an owner that died.

        Resting entries are cancelled by the duty that cancels orphans; what it reserved and never
        submitted expires.
        """
        guest = self._guests.pop(slot)
        for handle in guest.handles.values():
            handle.disown()
        post_merged(self._page, slot)
        if not release_slot(self._page, slot):
            raise InvariantBroken(f"slot {slot} of a guest cannot be given back")
        self._unsettled.add(slot)
        self._service.emit(
            EventKind.GUEST_ENDED,
            {"strategy": self._service.names.strategies[guest.strategy], "slot": slot,
             "reason": reason},
        )  # fmt: skip
        self._service.ringer.ring_all()

    def turn(self) -> None:
        """Tell each guest whose turn it is of its step, and of levels that moved."""
        for guest in self._guests.values():
            self._tell_levels(guest)
            step = guest.turn.due()
            if step is not None and step != guest.told_step:
                guest.told_step = step
                self._tell(guest.slot, self._step_event(guest, step))
            elif not guest.is_over and guest.turn.is_over:
                guest.is_over = True
                self._tell(guest.slot, {"event": "ended"})

    def tell(self, slot: int, event: dict[str, Any]) -> None:
        """Tell an order's owner of it; a guest also hears of fills of its stops and exits."""
        kind = _KIND_OF_SLOT.get(slot)
        if kind is None:
            self._tell(slot, event)
            return
        for guest in self._guests.values():
            if event.get("strategy") == self._service.names.strategies[guest.strategy]:
                self._tell(guest.slot, {**event, "of": kind})

    def _seat(self, slot: int, strategy: int, keys: list[int]) -> Guest:
        names, rows = self._service.names, self._page.rows(KEY)
        sides = names.sides or (0,) * len(names.keys)
        handles = {
            (names.keys[key][1], sides[key]): InstrumentHandle(self._page, slot, key, by=CALL_ROUTE)
            for key in keys
        }
        nodes = tuple(dict.fromkeys(int(node) for key in keys for node in rows["node"][key]))
        turn = StepTurn(self._page, slot, strategy, self._service.ringer)
        guest = Guest(slot, strategy, handles, turn, nodes, self._levels(nodes))
        turn.join()
        self._guests[slot] = guest
        return guest

    def _welcome(self, guest: Guest) -> Answer:
        header, names = self._service.header, self._service.names
        return {
            "ok": True, "protocol": PROTOCOL, "instance": names.instance,
            "strategy": names.strategies[guest.strategy], "epoch": self._page.epoch,
            "level": int(node_level(self._page, 0)), "armed": bool(header["armed"]),
            "replay": bool(header["replay"]), "shadow": bool(header["shadow"]),
            "market_ms": self._service.market_ms, "step": self._service.market_step,
            "currency": names.reporting_currency, "money_per_unit": MONEY_SCALE,
            "instruments": [self._instrument(*place) for place in guest.handles],
        }  # fmt: skip

    def _instrument(self, number: int, side: int) -> dict[str, Any]:
        name = self._service.names.instruments[number]
        return {
            "number": number, "venue": name.venue, "symbol": name.symbol, "asset": name.asset,
            "tick": name.tick, "lot": name.lot, "contract_size": name.contract_size,
            "quote": name.quote or self._service.names.reporting_currency,
            "inverse": name.inverse, "side": side,
            "shared": bool(self._page.rows(INSTRUMENT)["shared"][number]),
        }  # fmt: skip

    def _step_event(self, guest: Guest, step: int) -> dict[str, Any]:
        quotes = []
        for number in dict.fromkeys(number for number, _ in guest.handles):
            quote = read_quote(self._page, number)
            if quote is not None and quote.step == step:
                quotes.append(
                    {"instrument": number, "mark": quote.mark, "last": quote.last,
                     "bid": quote.bid, "ask": quote.ask}
                )  # fmt: skip
        return {
            "event": "step", "step": step, "market_ms": self._service.market_ms,
            "level": int(node_level(self._page, 0)), "quotes": quotes,
        }  # fmt: skip

    def _levels(self, nodes: tuple[int, ...]) -> list[int]:
        words = self._page.rows(LIMIT)["level"][list(nodes)]
        return [int(level_of_word(int(word))) for word in words]

    def _tell_levels(self, guest: Guest) -> None:
        levels = self._levels(guest.nodes)
        if levels == guest.levels:
            return
        for node, before, after in zip(guest.nodes, guest.levels, levels, strict=True):
            if before != after:
                scope = self._service.names.scopes[node]
                self._tell(guest.slot, {"event": "level", "scope": scope, "level": after})
        guest.levels = levels
