"""What a guest may ask, and the answers: the public client's methods, spoken over the socket.

Numbers are whole: lots, ticks, money units. A check's answer holds what a ``Decision`` holds. An
operation that needs the router's queue (submit, cancel, move_stop) goes through the very requests
that processes with a slot of their own make.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.router_orders import Live, Orders
from actors.router_requests import Requests, is_whole, shown, style_problem
from actors.router_server import Answer
from actors.service import Service
from tripgate.clock import NS_PER_MS
from tripgate.errors import TripgateError
from tripgate.gate.commit import find_reserved
from tripgate.gate.decision import Decision
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.steps import StepTurn
from tripgate.gate.words import closable_parts
from tripgate.page.board import read_quote
from tripgate.page.layout import INSTRUMENT, KEY, PROTECTION
from tripgate.page.level import node_level
from tripgate.reasons import REASON_TEXT

ORDERS_TOLD_MAX = 256
"""Orders that one answer lists; a slot's entries, stops and exits are far fewer."""

Submit = Callable[[int, dict[str, Any]], str | None]
"""``submit(slot, request)`` acts on submit, cancel or move_stop and returns why not, or None."""


class Refused(TripgateError):
    """A request that is not carried out; its text is the answer. Gate effect: none."""


@dataclass
class Guest:
    """One guest.

    Attributes
    ----------
    handles
        By (instrument number, position side: 0 net, 1 long, -1 short).
    nodes, levels
        The nodes that its orders pass, and their levels as it was told last.
    told_step
        The step that it was told last; it may finish that one alone.
    """

    slot: int
    strategy: int
    handles: dict[tuple[int, int], InstrumentHandle]
    turn: StepTurn
    nodes: tuple[int, ...]
    levels: list[int]
    told_step: int = -1
    is_over: bool = False


class Operations:
    """Carries out guests' requests."""

    def __init__(
        self, service: Service, orders: Orders, requests: Requests, submit: Submit
    ) -> None:
        self._service = service
        self._page = service.page
        self._orders = orders
        self._requests = requests
        self._submit_request = submit
        self._by_name: dict[str, Callable[[Guest, dict[str, Any]], Answer]] = {
            "board": self._board, "cancel": self._pass_on, "check": self._check,
            "close": self._close, "done": self._done, "level": self._level,
            "move_stop": self._move_stop, "order": self._order, "orders": self._list_orders,
            "ping": self._ping, "positions": self._positions, "submit": self._pass_on,
        }  # fmt: skip

    def carry_out(self, guest: Guest, request: dict[str, Any]) -> Answer:
        """Return the answer to a request; whatever is wrong with it is said in words."""
        name = request.get("op")
        operation = self._by_name.get(name) if isinstance(name, str) else None
        try:
            if operation is None:
                raise Refused(f"unknown operation {shown(name)}")
            return {"ok": True} | operation(guest, request)
        except Refused as refused:
            return {"error": str(refused)}

    def _check(self, guest: Guest, request: dict[str, Any]) -> Answer:
        return decision_answer(self._judge(guest, request))

    def _order(self, guest: Guest, request: dict[str, Any]) -> Answer:
        # Everything that could refuse the submit comes first: what is granted is also sent.
        price = _whole(request, "price", 0)
        if (problem := style_problem(request, is_market=price == 0)) is not None:
            raise Refused(problem)
        if self._requests.is_full:
            raise Refused("too many requests")
        return self._sent(guest, request, self._judge(guest, request), may_open=True)

    def _close(self, guest: Guest, request: dict[str, Any]) -> Answer:
        handle, price = _handle(guest, request), _whole(request, "price", 0)
        position = handle.position_lots
        lots = _whole(request, "lots", abs(position))
        if not position:
            raise Refused("there is no position to close")
        if not 0 < lots <= abs(position):
            raise Refused(f"lots to close are 1 to {abs(position)}, was {lots}")
        if (problem := style_problem(request, is_market=price == 0)) is not None:
            raise Refused(problem)
        if self._requests.is_full:
            raise Refused("too many requests")
        decision = handle.check_ticks(-lots if position > 0 else lots, price, 0)
        return self._sent(guest, request, decision, may_open=False)

    def _judge(self, guest: Guest, request: dict[str, Any]) -> Decision:
        handle, lots = _handle(guest, request), _whole(request, "lots")
        price, stop = _whole(request, "price", 0), _whole(request, "stop", 0)
        return handle.check_ticks(lots, price, stop)

    def _sent(
        self, guest: Guest, request: dict[str, Any], decision: Decision, *, may_open: bool
    ) -> Answer:
        answer = decision_answer(decision) | {"submitted": False}
        if not decision.approved:
            return answer
        order = find_reserved(self._page, decision.token, guest.slot)
        if order is None or (order.opens and not may_open):
            # A shadow page grants even the opening that is left of a close whose position ended.
            return answer | {"problem": "the position ended meanwhile; nothing was sent"}
        style = {"time_in_force": request.get("time_in_force", "GTC")}
        problem = self._submit_request(
            guest.slot, {"op": "submit", "token": decision.token, **style}
        )
        return answer | ({"submitted": True} if problem is None else {"problem": problem})

    def _pass_on(self, guest: Guest, request: dict[str, Any]) -> Answer:
        problem = self._submit_request(guest.slot, request)
        if problem is not None:
            raise Refused(problem)
        return {}

    def _move_stop(self, guest: Guest, request: dict[str, Any]) -> Answer:
        key, stop = _handle(guest, request).key, _whole(request, "stop")
        return self._pass_on(guest, {"op": "move_stop", "key": key, "stop": stop})

    def _board(self, guest: Guest, request: dict[str, Any]) -> Answer:
        _handle(guest, request)
        number = request["instrument"]
        quote = read_quote(self._page, number)
        if quote is None:
            return {"instrument": number, "is_stale": True}
        age_ms = quote.age_ms(self._service.market_ms)
        floor_ms = int(self._service.header["age_floor_ms"])
        bound_ms = max(int(self._page.rows(INSTRUMENT)["age_max_ms"][number]), floor_ms)
        return {
            "instrument": number, "mark": quote.mark, "last": quote.last, "bid": quote.bid,
            "ask": quote.ask, "index": quote.index_price, "market_ms": quote.market_ms,
            "step": quote.step, "age_ms": age_ms, "is_stale": abs(age_ms) > bound_ms,
            "host_age_ms": (self._service.now_ns() - quote.host_ns) // NS_PER_MS,
        }  # fmt: skip

    def _positions(self, guest: Guest, _request: dict[str, Any]) -> Answer:
        keys, protection = self._page.rows(KEY), self._page.rows(PROTECTION)
        found = []
        for (instrument, side), handle in guest.handles.items():
            lots, pending = closable_parts(handle.closable_word)
            found.append(
                {"instrument": instrument, "side": side, "lots": lots, "pending_lots": pending,
                 "stop": int(keys["stop_ticks"][handle.key]),
                 "is_protected": not int(protection["open_since_ms"][handle.key])}
            )  # fmt: skip
        return {"positions": found}

    def _list_orders(self, guest: Guest, _request: dict[str, Any]) -> Answer:
        keys = {handle.key: instrument for (instrument, _), handle in guest.handles.items()}
        mine = [live for live in self._orders.live.values() if live.key in keys]
        told = [_order_row(live, keys[live.key]) for live in mine[:ORDERS_TOLD_MAX]]
        return {"orders": told, "count": len(mine)}

    def _level(self, guest: Guest, _request: dict[str, Any]) -> Answer:
        names = self._service.names.scopes
        levels = {names[node]: int(node_level(self._page, node)) for node in guest.nodes}
        return {"level": max(levels.values()), "levels": levels}

    def _done(self, guest: Guest, request: dict[str, Any]) -> Answer:
        step = _whole(request, "step")
        if guest.turn.due() != step or guest.told_step != step:
            raise Refused(f"step {step} is not to be finished; told was {guest.told_step}")
        guest.turn.finish(step)
        return {}

    def _ping(self, _guest: Guest, _request: dict[str, Any]) -> Answer:
        return {"market_ms": self._service.market_ms, "step": self._service.market_step}


def decision_answer(decision: Decision) -> Answer:
    """Return a decision as a guest reads it."""
    answer: Answer = {"approved": decision.approved, "token": decision.token}
    if decision.reason is not None:
        answer |= {
            "reason": int(decision.reason), "name": decision.reason.name,
            "text": REASON_TEXT[decision.reason], "scope": decision.scope,
            "limit": decision.limit, "used": decision.used, "requested": decision.requested,
            "would_deny": decision.would_deny,
        }  # fmt: skip
    return answer


def _order_row(live: Live, instrument: int) -> dict[str, Any]:
    kind = "stop" if live.is_stop else "exit" if live.is_exit else "open" if live.opens else "close"
    order = live.approved
    return {
        "token": live.order.token, "client_id": live.client_id, "instrument": instrument,
        "kind": kind, "state": live.order.state.name.lower(),
        "lots": live.order.lots * live.signed, "filled_lots": live.order.filled_lots,
        "price": order.price_ticks if order else 0, "stop": order.stop_ticks if order else 0,
    }  # fmt: skip


def _handle(guest: Guest, request: dict[str, Any]) -> InstrumentHandle:
    number, side = _whole(request, "instrument"), _whole(request, "side", 0)
    handle = guest.handles.get((number, side))
    if handle is None:
        raise Refused(f"this strategy does not trade instrument {number} on side {side}")
    return handle


def _whole(request: dict[str, Any], name: str, default: int | None = None) -> int:
    """Return a field that is a whole number. Raises ``Refused``; amounts have no default."""
    value = request.get(name, default)
    if not is_whole(value):
        raise Refused(f"{name} is a whole number of 64 bits, was {shown(value)}")
    return value
