"""The router's Unix socket: strategies submit and cancel here, and hear of their orders.

Frames of length-prefixed msgpack; a request ``{id, op, …}`` gets one reply ``{id, ok}`` or
``{id, error}``; events come in between. Nothing a strategy sends here is believed but the token,
and a token is only taken over a connection that said hello for its slot. The kernel tells which
process connected: hello is taken from the slot's owner alone, so that no process can submit or
cancel another one's orders. Who may connect at all is decided by the socket's mode.
"""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from exchange_adapters.frames import FrameStream
from tripgate.errors import InvariantBroken
from tripgate.frames import FrameError

CONNECTIONS_MAX = 64
SLOT_MAX = 255
SEND_WAIT_S = 1.0
"""A strategy that does not read its events for this long is cut off; its orders go on."""

_CREDENTIALS = struct.Struct("3i")

Handler = Callable[[int, dict[str, Any]], str | None]
Owner = Callable[[int, int], bool]


class StrategyServer:
    """Serves strategies.

    Parameters
    ----------
    handle
        ``handle(slot, request)`` returns an error text or None.
    owns
        ``owns(pid, slot)`` says whether a process is a slot's owner.
    """

    def __init__(self, path: Path, handle: Handler, owns: Owner) -> None:
        self._path = path
        self._handle = handle
        self._owns = owns
        self._peers: dict[int, list[FrameStream]] = {}
        self._count = 0
        self._nursery: trio.Nursery | None = None

    async def serve(self) -> None:
        """Listen until cancelled."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listener.bind(str(self._path))
        os.chmod(self._path, 0o600)
        listener.listen(CONNECTIONS_MAX)
        async with trio.open_nursery() as self._nursery:
            await trio.serve_listeners(self._serve_one, [trio.SocketListener(listener)])

    def tell(self, slot: int, event: dict[str, Any]) -> None:
        """Send an event to the connections of a slot, without waiting for them."""
        for peer in self._peers.get(slot, []):
            if self._nursery is None:
                raise InvariantBroken("an event was told before the server ran")
            self._nursery.start_soon(self._send, peer, event)

    async def _send(self, peer: FrameStream, message: dict[str, Any]) -> None:
        try:
            with trio.fail_after(SEND_WAIT_S):
                await peer.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            await trio.aclose_forcefully(peer)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        peer, slot = FrameStream(stream), -1
        self._count += 1
        try:
            while self._count <= CONNECTIONS_MAX:
                message = await peer.receive()
                if not isinstance(message, dict) or not isinstance(message.get("id"), int):
                    return
                if message.get("op") == "hello" and isinstance(message.get("slot"), int):
                    error = "hello was said already" if slot >= 0 else None
                    if error is None and not 0 <= message["slot"] <= SLOT_MAX:
                        error = f"a slot is 0 to {SLOT_MAX}"
                    elif error is None and not self._owns(_pid_of(stream), message["slot"]):
                        error = f"slot {message['slot']} belongs to another process: attach again"
                    elif error is None:
                        slot = message["slot"]
                        self._peers.setdefault(slot, []).append(peer)
                else:
                    error = self._handle(slot, message)
                reply = {"id": message["id"]}
                await self._send(peer, reply | ({"error": error} if error else {"ok": True}))
        except (FrameError, trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._count -= 1
            if peer in self._peers.get(slot, []):
                self._peers[slot].remove(peer)
            await trio.aclose_forcefully(peer)


def _pid_of(stream: trio.SocketStream) -> int:
    """Return the process that connected, or 0 if it is another user's."""
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if not isinstance(data, bytes):
        raise InvariantBroken("the kernel told no credentials of a Unix socket's peer")
    pid, user, _ = _CREDENTIALS.unpack(data)
    return pid if user == os.getuid() else 0
