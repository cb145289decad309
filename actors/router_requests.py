"""What strategies may ask of their router, and the words in which it refuses.

A request names what it is about and nothing that was checked: the order is built from the gate's
own entry, a cancel reaches the asking process's own orders only, and a stop moves only nearer.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

from actors.router_duties import Duties
from actors.router_orders import Orders
from actors.router_queue import Job, JobQueue
from actors.service import Service
from tripgate.gate.commit import find_reserved
from tripgate.gate.words import token_slot
from tripgate.page.layout import SLOT

JOBS_MAX = 4_096
"""Jobs that may wait before strategies are refused; every one is of another order."""
WHOLE_MAX = 2**63 - 1
SHOWN_CHARACTERS_MAX = 40
"""Of a text that a peer sent, this much is said back to it."""


class Requests:
    """Answers strategies' requests; ``put`` queues what follows from them.

    Nothing in a request raises, whatever it holds: values are asked for their type before they are
    compared, and none is put into words but a short one.
    """

    def __init__(
        self, service: Service, orders: Orders, duties: Duties, jobs: JobQueue,
        put: Callable[[Job], None],
    ) -> None:  # fmt: skip
        self._service = service
        self._orders = orders
        self._duties = duties
        self._jobs = jobs
        self._put = put

    def handle(self, slot: int, request: dict[str, Any]) -> str | None:
        """Act on a request of a slot's owner (-1: of nobody); return why not, or None."""
        token, operation = request.get("token"), request.get("op")
        if operation == "move_stop":
            return self._move_stop(slot, request.get("key"), request.get("stop"))
        if not is_whole(token):
            return "a request names a token"
        if self.is_full:
            return "too many requests"
        if operation == "submit":
            return self._submit(slot, token, request)
        if operation == "cancel":
            return self._cancel(slot, token)
        return f"unknown operation {shown(operation)}"

    @property
    def is_full(self) -> bool:
        """Whether so many jobs wait that strategies are refused."""
        return len(self._jobs) >= JOBS_MAX

    def _submit(self, slot: int, token: int, request: dict[str, Any]) -> str | None:
        order = find_reserved(self._service.page, token, slot)
        if order is None:
            return f"token {token} is not a reservation of this process (used or expired?)"
        if self._jobs.holds(token):
            return f"token {token} is being sent already"
        if (problem := style_problem(request, is_market=order.is_market)) is not None:
            return problem
        self._put(("send", order, request))
        return None

    def _cancel(self, slot: int, token: int) -> str | None:
        live = self._orders.live.get(self._orders.client_id(token))
        # Its own orders only: neither another strategy's nor the tree's stops and exits.
        if live is None or token_slot(token) != slot:
            return f"no live order has token {token}"
        if self._orders.ask_cancel(live):
            self._put(("cancel", live, {}))
        return None

    def _move_stop(self, slot: int, key: object, stop: object) -> str | None:
        if not is_whole(key) or not is_whole(stop):
            return "move_stop names a key and a stop in ticks"
        slots = self._service.page.rows(SLOT)
        own = int(slots["strategy"][slot]) if 0 <= slot < len(slots) else -1
        if key not in self._duties.keys or self._service.names.keys[key][0] != own:
            return f"key {key} is not this strategy's at this venue"
        return self._duties.move_stop(key, stop)


def style_problem(request: dict[str, Any], *, is_market: bool) -> str | None:
    """Return why an order that was checked as market or limit may not be sent as asked, or None."""
    checked = "market" if is_market else "limit"
    if request.get("type") not in (None, checked):
        return f"the order was checked as a {checked} order and cannot be sent as another"
    in_force = request.get("time_in_force", "GTC")
    if in_force not in ("GTC", "IOC"):
        return f"time in force is GTC or IOC, was {shown(in_force)}"
    return None


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of 64 bits; msgpack tells true and false apart from 1."""
    return type(value) is int and -WHOLE_MAX <= value <= WHOLE_MAX


def shown(value: object) -> str:
    """Return a value as an error may show it: short, whatever a peer sent, and never recursive."""
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARACTERS_MAX])
    return repr(value) if value is None or type(value) is int else f"a {type(value).__name__}"
