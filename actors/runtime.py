"""The seam to tractor: the one module that imports it.

tractor spawns processes and carries calls; it does not tell us that a child was killed or hangs,
and a child that dies in the middle of a frame can crash its parent's runtime. So this module takes
what works (spawn, context, ready handshake), patches the transport against bytes from the dying or
the hostile (``harden``, an import side effect, so that it is in place before any channel of ours),
and hands out the process of each child, which the supervisor watches through a pidfd.

Nothing that decides about money passes here: leases in the page do.
"""

import contextlib
import socket
import struct
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import trio

with warnings.catch_warnings():
    # tractor 0.1.0a5 imports trio's deprecated MultiError; nothing we could do differently.
    warnings.simplefilter("ignore", FutureWarning)
    import tractor
    import tractor._actor
    import tractor._ipc

from tripgate.errors import AlreadyRunningError, TripgateError

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Longest frame a peer may announce: an HTTP request line reads as half a gigabyte."""
REGISTRY_HOST = "127.0.0.1"
ENTRY_MODULE = "actors.entry"
END_WAIT_S = 2.0
"""How long a child may take to end when it is asked to."""

Context: TypeAlias = Any
"""A tractor context; Any, because tractor ships no types."""


class ChildStartError(TripgateError):
    """A child did not come up. Gate effect: its lease was never live, so openings are denied."""


def actor_context(function: Function) -> Function:
    """Mark the function that a tree may call in its children."""
    return cast(Function, tractor.context(function))


@dataclass(frozen=True)
class Child:
    """A running child: its process, its portal, and what it answered when it was ready."""

    pid: int
    process: trio.Process
    context: Any
    ready: Any


def free_port() -> int:
    """Return a TCP port that nobody listens on, for one tree's private registry."""
    with socket.socket() as probe:
        probe.bind((REGISTRY_HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def open_tree(name: str) -> AsyncIterator[None]:
    """Run this process as the root of a tree of its own, with a registry port of its own.

    Raises
    ------
    AlreadyRunningError
        We are not our own registrar: another tree sits on the port, and joining it silently would
        mix two trees.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        async with tractor.open_root_actor(
            arbiter_addr=(REGISTRY_HOST, free_port()), name=name, loglevel="critical"
        ):
            if not tractor.current_actor().is_arbiter:
                raise AlreadyRunningError("another tree answers on our registry port: start again")
            yield


@asynccontextmanager
async def open_child(
    name: str,
    arguments: dict[str, Any],
    on_spawn: Callable[[trio.Process], None],
    on_end: Callable[[BaseException | None], None],
) -> AsyncIterator[Child]:
    """Start a child, wait for its ready handshake, and keep its context open for the block.

    Parameters
    ----------
    name
        Unique per incarnation (``breaker#2``), so that no stale registry entry can be meant.
    arguments
        Plain msgpack values for ``actors.entry.serve``.
    on_spawn
        Called with the process as soon as it exists, before it is ready, so that its exit is
        watched from the first moment.
    on_end
        Called with what ended the call, before the process is ended: who waits for the process
        finds the reason there.
    """
    async with tractor.open_nursery() as nursery:
        portal = await nursery.start_actor(name, enable_modules=[ENTRY_MODULE], loglevel="critical")
        process = _process_of(nursery, portal)
        on_spawn(process)
        try:
            from actors import entry

            async with portal.open_context(entry.serve, **arguments) as (context, ready):
                yield Child(process.pid, process, context, ready)
        finally:
            on_end(sys.exception())
            await _end(portal, process)


async def _end(portal: Any, process: trio.Process) -> None:
    """Ask a child to end, then kill it: tractor's own reaping of a stopped child takes seconds."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            with trio.move_on_after(END_WAIT_S), contextlib.suppress(Exception):
                await portal.cancel_actor()
        with trio.move_on_after(END_WAIT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()


def _process_of(nursery: Any, portal: Any) -> trio.Process:
    for _, process, candidate in nursery._children.values():
        if candidate is portal:
            return cast(trio.Process, process)
    raise ChildStartError("the runtime does not know its own child")


def split_errors(error: BaseException) -> list[BaseException]:
    """Return the leaves of an exception group, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in split_errors(part)]
    return [error]


def harden() -> None:
    """Make the transport survive peers that die mid-frame, flood, or do not speak it."""
    closed = tractor._ipc.TransportClosed

    async def iter_packets(self: Any) -> AsyncIterator[Any]:
        while True:
            try:
                header = await self.recv_stream.receive_exactly(4)
                if header == b"":
                    raise closed(f"{self} was closed")
                (size,) = struct.unpack("<I", header)
                if size > FRAME_BYTES_MAX:
                    raise closed(f"{self} announced a frame of {size} bytes")
                body = await self.recv_stream.receive_exactly(size)
                message = self.decode(body)
            except (ValueError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                raise closed(f"{self} broke in the middle of a frame") from None
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise closed(f"{self} sent no message") from None
            yield message

    async def handshake(self: Any, channel: Any) -> tuple[str, str]:
        await channel.send(self.uid)
        value = await channel.recv()
        named = isinstance(value, list | tuple) and len(value) == 2
        if not named or not all(isinstance(part, str) for part in value):
            raise closed("the peer did not name itself")
        channel.uid = (value[0], value[1])
        return value[0], value[1]

    push = tractor._actor.Actor._push_result

    async def push_result(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            await push(self, *arguments, **named)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The local reader has left; its context is being torn down.

    tractor._ipc.MsgpackTCPStream._iter_packets = iter_packets
    tractor._actor.Actor._do_handshake = handshake
    tractor._actor.Actor._push_result = push_result


harden()
