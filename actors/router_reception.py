"""Who speaks on a connection of the router's socket: a process with a slot, or a guest.

A process that uses the client package attached to the page by itself; its hello names its slot,
which the kernel's word on the peer's pid must confirm. A guest has no page: its hello names the
protocol and a strategy, and the router holds a slot for it (router_guests.py).
"""

from collections.abc import Callable
from typing import Any

from actors.router_guests import Guests
from actors.router_requests import is_whole, shown
from actors.router_server import Answer
from actors.service import Service
from tripgate.gate.slots import owns_slot

SLOT_MAX = 255

Request = Callable[[int, dict[str, Any]], str | None]
"""``request(slot, request)`` acts on a page client's request and returns why not, or None."""


class Reception:
    """Tells the two kinds of strategies apart and passes on what they ask."""

    def __init__(self, service: Service, guests: Guests, request: Request) -> None:
        self._service = service
        self._guests = guests
        self._request = request

    def hello(self, pid: int, request: dict[str, Any]) -> tuple[int, Answer]:
        """See ``router_server.Reception``."""
        if "slot" not in request:
            return self._guests.attach(pid, request)
        slot = request["slot"]
        if not is_whole(slot) or not 0 <= slot <= SLOT_MAX:
            return -1, {"error": f"a slot is 0 to {SLOT_MAX}, was {shown(slot)}"}
        if not owns_slot(self._service.page, pid, slot):
            return -1, {"error": f"slot {slot} belongs to another process: attach again"}
        return slot, {"ok": True}

    def handle(self, slot: int, request: dict[str, Any]) -> Answer:
        """See ``router_server.Reception``."""
        if request.get("op") == "hello":
            return {"error": "hello was said already"}
        if self._guests.has(slot):
            return self._guests.handle(slot, request)
        problem = self._request(slot, request)
        return {"ok": True} if problem is None else {"error": problem}

    def left(self, slot: int, reason: str) -> None:
        """See ``router_server.Reception``."""
        if self._guests.has(slot):
            self._guests.leave(slot, reason)

    def refused(self, user: int) -> None:
        """See ``router_server.Reception``."""
        self._service.log.warning("refused a connection of another user", user=user)
