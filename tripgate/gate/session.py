"""The client's line to a router: submit, cancel and order events over its Unix socket.

Length-prefixed msgpack; a request has an id and gets one reply, events come in between. A submit
names only the token and the execution style: everything else the router reads from the gate's own
entry, so nothing sent here can differ from what was checked.
"""

import select
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tripgate.errors import DeadlineError, TripgateError, UsageError, VenueError
from tripgate.frames import Decoder, encode

REPLY_WAIT_S = 10.0
EVENTS_MAX = 10_000
"""Events kept for a strategy that does not read them; then the oldest are dropped."""


@dataclass(frozen=True)
class Order:
    """A submitted order."""

    token: int
    type: str | None
    time_in_force: str


class RouterSession:
    """One connection to one venue's router, opened on first use."""

    def __init__(self, path: str, *, strategy: str, slot: int) -> None:
        self._decoder = Decoder()
        self._events: deque[dict[str, object]] = deque(maxlen=EVENTS_MAX)
        self._replies: dict[int, dict[str, Any]] = {}
        self._next_id = 0
        self._reason = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(REPLY_WAIT_S)
        try:
            self._socket.connect(path)
            self._request("hello", strategy=strategy, slot=slot)
        except OSError as error:
            self._socket.close()
            raise VenueError(f"no router answers at {path} ({error.strerror})") from None
        except TripgateError:
            self._socket.close()
            raise

    def submit(self, token: int, type: str | None, time_in_force: str) -> Order:
        """Hand a token to the router. Raises ``UsageError`` with the router's words if refused."""
        self._request("submit", token=token, type=type, time_in_force=time_in_force)
        return Order(token, type, time_in_force)

    def cancel(self, token: int) -> None:
        """Ask for an order to be cancelled."""
        self._request("cancel", token=token)

    def move_stop(self, key: int, stop_ticks: int) -> None:
        """Ask for a position's protective stop to be brought nearer.

        Parameters
        ----------
        key
            Number of the closable key whose stop it is.
        stop_ticks
            New trigger, ticks: nearer than the present one, and on the right side of the mark.

        Raises
        ------
        UsageError
            The router's words, where it refused; the present stop stays.
        """
        self._request("move_stop", key=key, stop=stop_ticks)

    def events(self, wait_s: float) -> Iterator[dict[str, object]]:
        """Yield the events that have arrived; wait up to ``wait_s`` for a first one."""
        if not self._events:
            self._receive(wait_s)
        while True:
            while self._events:
                yield self._events.popleft()
            if not self._receive(0.0):
                return

    def close(self) -> None:
        """Hang up. Orders stay: they belong to the gate, not to the connection."""
        self._socket.close()

    def _request(self, operation: str, **arguments: object) -> dict[str, Any]:
        self._next_id += 1
        number = self._next_id
        try:
            self._socket.sendall(encode({"id": number, "op": operation, **arguments}))
        except OSError as error:
            raise VenueError(f"the router hung up ({error})") from None
        while number not in self._replies:
            if not self._receive(REPLY_WAIT_S):
                raise DeadlineError(f"the router did not answer {operation} in {REPLY_WAIT_S} s")
        reply = self._replies.pop(number)
        if "error" in reply:
            raise UsageError(f"the router refused {operation}: {reply['error']}")
        return reply

    def _receive(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._socket], [], [], wait_s)
        if not ready:
            return False
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise VenueError(f"the router hung up{self._reason}; orders already sent go on")
        for message in self._decoder.feed(data):
            if isinstance(message, dict) and message.get("event") == "cut":
                self._reason = f" ({message.get('reason')})"
            elif isinstance(message, dict) and "event" in message:
                self._events.append(message)
            elif isinstance(message, dict) and isinstance(message.get("id"), int):
                self._replies[message["id"]] = message
            else:
                raise VenueError("the router sent nonsense; orders already sent go on")
        return True
