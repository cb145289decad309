"""The router's Unix socket: strategies submit and cancel here, and hear of their orders.

Frames of length-prefixed msgpack; the first request is ``hello``, every request ``{id, op, …}``
gets one reply ``{id, ok, …}`` or ``{id, error}``, and events come in between (docs/protocol.md).
Who may connect at all is decided by the socket's mode and once more by what the kernel tells of
the peer. What a request means is the reception's business; here it is only carried.

Invariants: S1 nothing a peer sends raises out of its own conversation; S2 a request is acted on
once, because ids rise; S3 whoever is refused is told why, within a bound, and then cut.
"""

import os
from pathlib import Path
from typing import Any, Protocol

import trio

from actors.router_peer import Peer
from tripgate.frames import FrameError

CONNECTIONS_MAX = 64
"""Connections that are served; one more is told so and cut."""
BACKLOG_MAX = 64
HELLO_WAIT_S = 10.0
ID_MAX = 2**62

Answer = dict[str, Any]
"""What a reply says beside its id: ``{ok: True, …}`` or ``{error: text}``."""


class Reception(Protocol):
    """Whoever answers requests. None of its methods waits."""

    def hello(self, pid: int, request: dict[str, Any]) -> tuple[int, Answer]:
        """Return the slot that a process speaks for from now on (-1: refused), and the answer."""

    def handle(self, slot: int, request: dict[str, Any]) -> Answer:
        """Answer a request of a slot."""

    def left(self, slot: int, reason: str) -> None:
        """Take note that a connection of a slot has ended."""

    def refused(self, user: int) -> None:
        """Take note that another user's process connected; told once for each user."""


class StrategyServer:
    """Serves strategies at a path.

    Parameters
    ----------
    user
        The only user whose processes are served; by default our own.
    """

    def __init__(self, path: Path, user: int | None = None) -> None:
        self._path = path
        self._user = os.getuid() if user is None else user
        self._strangers: set[int] = set()
        self._peers: dict[int, list[Peer]] = {}
        self._count = 0
        self._reception: Reception | None = None

    async def serve(
        self, reception: Reception,
        task_status: Any = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Listen until cancelled; started once a connection would be taken."""
        self._reception = reception
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        # Before the bind, which gives the file the mode of its socket: it is never wider.
        os.fchmod(listener.fileno(), 0o600)
        await listener.bind(str(self._path))
        listener.listen(BACKLOG_MAX)
        await trio.serve_listeners(
            self._serve_one, [trio.SocketListener(listener)], task_status=task_status
        )

    def tell(self, slot: int, event: dict[str, Any]) -> None:
        """Send an event to the connections of a slot, without waiting for them."""
        for peer in tuple(self._peers.get(slot, ())):
            peer.post(event)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        self._count += 1
        try:
            peer = Peer(stream)
            if peer.user != self._user:
                self._note_stranger(peer.user)
                return
            is_one_too_many = self._count > CONNECTIONS_MAX
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.write_out)
                reason: str | None = f"all {CONNECTIONS_MAX} connections are taken"
                if not is_one_too_many:
                    reason = await self._converse(peer)
                await peer.end(reason)
                nursery.cancel_scope.cancel()
        finally:
            self._count -= 1
            await trio.aclose_forcefully(stream)

    def _note_stranger(self, user: int) -> None:
        # Once: whoever tries again and again shall not fill the log.
        if user not in self._strangers and len(self._strangers) < CONNECTIONS_MAX:
            self._strangers.add(user)
            self._desk.refused(user)

    async def _converse(self, peer: Peer) -> str | None:
        """Serve one connection; return why it is cut, or None if the peer left in order."""
        slot = -1
        reason: str | None = "the router ended"
        try:
            with peer.scope:
                slot = await self._hello(peer)
                while slot >= 0 and (request := await self._next(peer)) is not None:
                    peer.post({"id": request["id"]} | self._desk.handle(slot, request))
                reason = None
        except FrameError as error:
            reason = str(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            reason = "the connection was reset"
        finally:
            if slot >= 0:
                self._forget(peer, slot, peer.cut_reason or reason or "it hung up")
        return reason

    async def _hello(self, peer: Peer) -> int:
        """Receive requests until a hello is accepted; return its slot, or -1 at an end."""
        slot = -1
        try:
            with trio.fail_after(HELLO_WAIT_S):
                while slot < 0 and (request := await self._next(peer)) is not None:
                    answer: Answer = {"error": "the first request is hello"}
                    if request.get("op") == "hello":
                        slot, answer = self._desk.hello(peer.pid, request)
                    peer.post({"id": request["id"]} | answer)
        except trio.TooSlowError:
            raise FrameError(f"hello was not said within {HELLO_WAIT_S:.0f} s") from None
        if slot >= 0:
            self._peers.setdefault(slot, []).append(peer)
        return slot

    async def _next(self, peer: Peer) -> dict[str, Any] | None:
        """Return the next request, or None at an orderly end.

        Raises
        ------
        FrameError
            It is no map, or its id is not above the last one: a request that comes twice must not
            be carried out twice.
        """
        message = await peer.receive(self._count)
        if message is None:
            return None
        if not isinstance(message, dict):
            raise FrameError("a request is a map")
        number = message.get("id")
        if type(number) is not int or not peer.last_id < number <= ID_MAX:
            raise FrameError(f"a request's id is a whole number above the last, {peer.last_id}")
        peer.last_id = number
        return message

    def _forget(self, peer: Peer, slot: int, reason: str) -> None:
        self._peers[slot].remove(peer)
        if not self._peers[slot]:
            del self._peers[slot]
        self._desk.left(slot, reason)

    @property
    def _desk(self) -> Reception:
        if self._reception is None:
            raise AssertionError("a connection was served before the server ran")
        return self._reception
