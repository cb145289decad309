"""Somebody who reaches an actor's port: raw sockets, frames of our own making, no tractor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from tricycle import BufferedReceiveStream

from actors import handshake, runtime
from actors.transport import LENGTH

PATIENCE_S = 60.0


def framed(value: object) -> bytes:
    """Return a value as a frame."""
    body = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(body)) + body


def builtins_of(greeting: handshake.Greeting) -> dict[str, Any]:
    """Return a greeting as it is sent."""
    return {"label": greeting.label, "name": greeting.name, "nonce": greeting.nonce}


class Peer:
    """One connection to an actor."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = BufferedReceiveStream(transport_stream=stream)

    async def send(self, value: object) -> None:
        """Send one frame."""
        await self.stream.send_all(framed(value))

    async def receive(self) -> Any:
        """Return the next message, or None once the actor has hung up."""
        try:
            header = await self._buffer.receive_all_or_none(LENGTH.size)
            if header is None:
                return None
            (size,) = LENGTH.unpack(header)
            return msgspec.msgpack.decode(await self._buffer.receive_exactly(size))
        except (trio.BrokenResourceError, ValueError):
            return None

    async def rest(self, data: bytes) -> list[Any]:
        """Send bytes and the end; return every message until the actor hangs up."""
        try:
            await self.stream.send_all(data)
            await self.stream.send_eof()
        except trio.BrokenResourceError:
            pass
        told = []
        while (message := await self.receive()) is not None:
            told.append(message)
        return told

    async def talk(self, name: tuple[str, str]) -> handshake.Talk:
        """Greet the actor and return what a proof would be about."""
        mine = handshake.greet(name)
        await self.send(builtins_of(mine))
        theirs = handshake.read_greeting(await self.receive(), mine)
        host, port = self.stream.socket.getpeername()
        return handshake.Talk(mine, theirs, (host, port))

    async def join(self, name: tuple[str, str], secret: bytes) -> Any:
        """Go through the whole handshake; return the actor's answer to our proof."""
        talk = await self.talk(name)
        await self.send({"mac": handshake.prove(secret, handshake.CONNECTOR, talk)})
        return await self.receive()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """Connect to an actor."""
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_tcp_stream(runtime.REGISTRY_HOST, port)
        async with stream:
            yield Peer(stream)
