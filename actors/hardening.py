"""What tractor's runtime believes its peers, replaced: handshake, frames, calls, failures.

tractor is handed in as a module, because only ``actors.runtime`` imports it; the table of the names
that are replaced stands there. Every replacement ends the same way: a peer whose bytes or calls are
wrong loses its connection (or gets an error as its answer), and no exception of its making reaches
the runtime's nursery, where it would end the whole process.
"""

import importlib
import logging
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from actors import handshake as proofs
from actors import secret, transport
from actors.spawner import Spawner

ENTRY_FUNCTION = "serve"
SELF_OF_ROOT = frozenset({"register_actor", "unregister_actor"})
"""What a child asks its root's runtime for: to be listed, and not to be."""
SELF_OF_CHILD = frozenset({"cancel", "_cancel_task"})
"""What the root asks a child's runtime for: to end, or to end one call."""

log = logging.getLogger(__name__)


@dataclass
class Membership:
    """What this process knows of its tree.

    Attributes
    ----------
    secret
        Of the tree.
    spawner
        Makes children; only in the root.
    entry
        Module of the one function that may be called here; empty in the root.
    awaited
        In the root: names of the children that there are; nobody else is let in.
    door
        The places for peers that have not proved themselves.
    """

    secret: bytes
    spawner: Spawner | None = None
    entry: str = ""
    awaited: set[tuple[str, str]] = field(default_factory=set)
    door: transport.Door = field(default_factory=transport.Door)

    def admits(self, name: tuple[str, str]) -> bool:
        """Return whether a member of this name may connect to us."""
        return self.spawner is None or name in self.awaited

    def allows(self, space: str, function: str) -> bool:
        """Return whether a member may call this function here."""
        if space == "self":
            return function in (SELF_OF_CHILD if self.entry else SELF_OF_ROOT)
        return bool(self.entry) and (space, function) == (self.entry, ENTRY_FUNCTION)


_memberships: list[Membership] = []


def join(member: Membership) -> None:
    """Make this process a member of a tree. It can be one of one tree only."""
    assert not _memberships, "this process belongs to a tree already"
    _memberships.append(member)
    secret.hold(member.secret)


def leave() -> None:
    """End what ``join`` began."""
    _memberships.clear()
    secret.forget()


def membership() -> Membership:
    """Return what this process knows of its tree."""
    assert _memberships, "this process belongs to no tree"
    return _memberships[0]


async def prove_membership(channel: Any, own: tuple[str, str]) -> tuple[str, str]:
    """Prove membership to the peer of a new channel, have it prove its own, return its name.

    Raises
    ------
    HandshakeError
        The peer is none of this tree, was too slow, or had to give way to others.
    """
    member = membership()
    with trio.move_on_after(transport.HANDSHAKE_WAIT_S) as scope:
        # Only a stream that was accepted is handed to a channel from outside.
        if channel._stream is None:
            return await _prove_first(channel, member.secret, own)
        with member.door.place(scope):
            return await _prove_last(channel, member, own)
    raise proofs.HandshakeError("the peer did not prove itself in time")


async def _prove_first(channel: Any, secret: bytes, own: tuple[str, str]) -> tuple[str, str]:
    mine = proofs.greet(own)
    await channel.send(msgspec.to_builtins(mine, builtin_types=(bytes,)))
    peer = proofs.read_greeting(await channel.recv(), mine)
    talk = proofs.Talk(mine, peer, channel.raddr)
    await channel.send({"mac": proofs.prove(secret, proofs.CONNECTOR, talk)})
    proofs.verify(secret, proofs.ACCEPTOR, talk, proofs.read_proof(await channel.recv()))
    return peer.name


async def _prove_last(channel: Any, member: Membership, own: tuple[str, str]) -> tuple[str, str]:
    mine = proofs.greet(own)
    peer = proofs.read_greeting(await channel.recv(), mine)
    talk = proofs.Talk(peer, mine, channel.laddr)
    await channel.send(msgspec.to_builtins(mine, builtin_types=(bytes,)))
    proof = proofs.read_proof(await channel.recv())
    proofs.verify(member.secret, proofs.CONNECTOR, talk, proof)
    if not member.admits(peer.name):
        raise proofs.HandshakeError(f"{peer.name[0]} is no child of ours any more")
    await channel.send({"mac": proofs.prove(member.secret, proofs.ACCEPTOR, talk)})
    return peer.name


class Messages:
    """The messages of a channel as the runtime's loop reads them: shaped, and calls allowed."""

    def __init__(self, channel: Any, tractor: Any) -> None:
        self._channel = channel
        self._tractor = tractor

    def __aiter__(self) -> "Messages":
        return self

    async def __anext__(self) -> Any:
        while True:
            message = await self._channel.msgstream.recv()
            if not transport.is_message(message):
                raise self._tractor._ipc.TransportClosed("the peer sent no message")
            if message is None or "cid" in message or "cmd" not in message:
                return message
            space, function, _, _, call_id = message["cmd"]
            if membership().allows(space, function):
                return message
            refused = self._tractor.ModuleNotExposed(f"{space}.{function} cannot be called here")
            await self._channel.send({**self._tractor._exceptions.pack_error(refused),
                                      "cid": call_id})  # fmt: skip


def harden(tractor: Any) -> None:
    """Put our handshake, frames, list of calls and end of connections into the runtime."""
    _harden_transport(tractor._ipc)
    _harden_actor(tractor)

    def messages(channel: Any) -> Messages:
        return Messages(channel, tractor)

    tractor._ipc.Channel._aiter_recv = messages


def _harden_transport(ipc: Any) -> None:
    stream, closed = ipc.MsgpackTCPStream, ipc.TransportClosed

    def packets(self: Any) -> transport.Packets:
        return transport.Packets(self, closed)

    async def send(self: Any, message: Any) -> None:
        body = self.encode(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        # Half a frame would make the next one unreadable: it leaves whole, or nothing does again.
        with trio.move_on_after(transport.SEND_WAIT_S) as scope:
            scope.shield = True
            async with self._send_lock:
                await self.stream.send_all(transport.LENGTH.pack(len(body)) + body)
        if scope.cancelled_caught:
            self.stream.socket.close()
            raise trio.BrokenResourceError("the peer does not read")

    stream.frame_bytes_max = transport.STRANGER_FRAME_BYTES_MAX
    stream._iter_packets, stream.send = packets, send


def _harden_actor(tractor: Any) -> None:
    actor, closed = tractor._actor.Actor, tractor._ipc.TransportClosed
    handle, push = actor._stream_handler, actor._push_result
    # What the runtime raises for a peer that reports its own crash, and for data of a shape that
    # ``is_message`` lets through and nothing expects.
    faults = (tractor.RemoteActorError, AttributeError, LookupError, TypeError, ValueError)

    async def do_handshake(self: Any, channel: Any) -> tuple[str, str]:
        try:
            channel.uid = name = await prove_membership(channel, self.uid)
        except (proofs.HandshakeError, trio.BrokenResourceError, OSError) as error:
            raise closed(f"no handshake: {error}") from None
        channel.msgstream.frame_bytes_max = transport.FRAME_BYTES_MAX
        return name

    async def stream_handler(self: Any, stream: Any) -> None:
        try:
            await handle(self, stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer has gone while it was being said good-bye.
        except* faults as fault:
            log.error("a connection ended with %r", fault)

    async def push_result(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            await push(self, *arguments, **named)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The local reader has left; its context is being torn down.

    def load_modules(self: Any) -> None:
        entry = membership().entry
        self._mods = {entry: importlib.import_module(entry)} if entry else {}

    actor._do_handshake, actor._stream_handler = do_handshake, stream_handler
    actor._push_result, actor.load_modules = push_result, load_modules
