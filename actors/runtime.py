"""The seam to tractor: the one module that imports it.

tractor carries calls and keeps their scopes together; it does not tell us that a child was killed
or hangs, lets a dying child crash its parent, believes everybody who reaches its port, and starts a
child in seconds. So this module takes what works (contexts, the ready handshake, cancellation) and
replaces the rest (``harden``, an import side effect, in place before any channel of ours):

- children are forked by the zygote and watched through a pidfd (``actors.spawner``);
- a connection begins with a mutual proof of membership (``actors.handshake``);
- bytes that are no messages end their connection and nothing else (``actors.transport``);
- what may be called is a list: ``serve`` of the child's one entry module, and of the runtime itself
  ``SELF_OF_CHILD`` in a child, ``SELF_OF_ROOT`` in the root.

Nothing that decides about money passes here: leases in the page do.

Private names of 0.1.0a5 that this file touches; a move to another version ends here:

====================  ==============================================================================
module                names
====================  ==============================================================================
``_actor.Actor``      ``_async_main _do_handshake _get_rpc_func _push_result _stream_handler
                      load_modules wait_for_peer``, ``_arb_addr _contexts _mods _peer_connected``
``_actor.Arbiter``    ``_registry _waiters`` (entries of the dead are never removed)
``_ipc``              ``Channel._aiter_recv _stream``, ``MsgpackTCPStream._iter_packets send``,
                      ``TransportClosed``
``_spawn``            ``new_proc``, called with the nursery's ``_children _join_procs``
``_state``            ``_current_actor _runtime_vars``
====================  ==============================================================================
"""

import contextlib
import functools
import importlib
import os
import socket
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import trio

with warnings.catch_warnings():
    # tractor 0.1.0a5 imports trio's deprecated MultiError; nothing we could do differently.
    warnings.simplefilter("ignore", FutureWarning)
    import tractor
    import tractor._actor
    import tractor._exceptions
    import tractor._ipc
    import tractor._spawn
    import tractor._state

from actors.child_process import ChildProcess, Process
from actors.hardening import ENTRY_FUNCTION, Membership, harden, join, leave, membership
from actors.spawner import ChildStartError, Order, Spawner
from tripgate.errors import AlreadyRunningError

__all__ = ["Child", "ChildProcess", "ChildStartError", "Context", "Process", "Spawner"]

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])
REGISTRY_HOST = "127.0.0.1"
ENTRY_MODULE = "actors.entry"
CONNECT_WAIT_S = 60.0
"""How long a forked child may take to connect back."""
END_WAIT_S = 2.0
"""How long a child may take to end when it is asked to."""

Context: TypeAlias = Any
"""A tractor context; Any, because tractor ships no types."""


def actor_context(function: Function) -> Function:
    """Mark the function that a tree may call in its children.

    ``sys.exit`` within it ends the process with that code. The runtime would hear nothing more and
    live on, and a lapsed lease alone would tell that something is wrong.
    """

    @functools.wraps(function)
    async def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return await function(*arguments, **named)
        except (SystemExit, BaseExceptionGroup) as error:
            exits = [leaf for leaf in split_errors(error) if isinstance(leaf, SystemExit)]
            if not exits:
                raise
            code = exits[0].code
            os._exit(code if isinstance(code, int) else int(code is not None))

    return cast(Function, tractor.context(guarded))


@dataclass(frozen=True)
class Child:
    """A running child: its process, its context, and what it answered when it was ready."""

    pid: int
    process: Process
    context: Any
    ready: Any


def free_port() -> int:
    """Return a TCP port that nobody listens on, for one tree's private registry."""
    with socket.socket() as probe:
        probe.bind((REGISTRY_HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def open_tree(name: str, spawner: Spawner | None = None) -> AsyncIterator[None]:
    """Run this process as the root of a tree of its own, with a registry port of its own.

    Parameters
    ----------
    name
        Of the root.
    spawner
        One that was started before, so that its zygote imports while the root does other things.

    Raises
    ------
    AlreadyRunningError
        We are not our own registrar: another tree sits on the port, and joining it silently would
        mix two trees.
    """
    spawner = spawner or Spawner()
    join(Membership(spawner.secret, spawner))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            async with tractor.open_root_actor(
                arbiter_addr=(REGISTRY_HOST, free_port()), name=name, loglevel="critical"
            ):
                if not tractor.current_actor().is_arbiter:
                    raise AlreadyRunningError(
                        "another tree answers on our registry port: start again"
                    )
                yield
    finally:
        leave()
        await spawner.close()


@asynccontextmanager
async def open_child(
    name: str,
    arguments: dict[str, Any],
    on_spawn: Callable[[Process], None],
    on_end: Callable[[BaseException | None], None],
    entry: str = ENTRY_MODULE,
) -> AsyncIterator[Child]:
    """Start a child, wait for its ready handshake, and keep its context open for the block.

    Parameters
    ----------
    name
        Unique per incarnation (``breaker#2``), so that no stale registry entry can be meant.
    arguments
        Plain msgpack values for the entry module's ``serve``.
    on_spawn
        Called with the process as soon as it exists, before it is connected or ready, so that its
        exit is watched from the first moment. The caller cancels the block when the process ends.
    on_end
        Called with what ended the call, before the process is ended: who waits for the process
        finds the reason there. Not called if there never was a process.
    entry
        The module whose function ``serve`` is run, and the only one that can be called.

    Raises
    ------
    ChildStartError
        No process could be forked, or it ended before it was connected.
    """
    serve = getattr(importlib.import_module(entry), ENTRY_FUNCTION)
    spawned: list[Process] = []

    def note(process: Process) -> None:
        spawned.append(process)
        on_spawn(process)

    portal = None
    async with tractor.open_nursery() as nursery:
        nursery.on_spawn = note
        try:
            portal = await nursery.start_actor(name, enable_modules=[entry])
            (process,) = spawned
            async with portal.open_context(serve, **arguments) as (context, ready):
                try:
                    yield Child(process.pid, process, context, ready)
                finally:
                    # A dead child answers no cancel request: tractor would wait for it.
                    if process.returncode is not None:
                        _hang_up(portal)
        finally:
            for process in spawned:
                on_end(sys.exception())
                await _end(portal, process)


async def _end(portal: Any, process: Process) -> None:
    """Ask a child to end, then kill it; return when it has been reaped."""
    with trio.CancelScope(shield=True):
        if portal is not None and process.returncode is None:
            with trio.move_on_after(END_WAIT_S), contextlib.suppress(Exception):
                await portal.cancel_actor()
                await process.wait()
        process.kill()
        await process.wait()
    if portal is not None:
        _hang_up(portal)


def _hang_up(portal: Any) -> None:
    portal.channel.msgstream.stream.socket.close()


async def new_process(
    name: str,
    nursery: Any,
    child: Any,
    _errors: Any,
    bind: tuple[str, int],
    parent: tuple[str, int],
    variables: dict[str, Any],
    *,
    infect_asyncio: bool = False,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stand in for tractor's ``new_proc``: fork a child, await its connection, keep it to its end.

    Raises
    ------
    ChildStartError
        There is no child.
    """
    assert not infect_asyncio, "actors here run on trio alone"
    member, root = membership(), tractor.current_actor()
    (entry,) = [module for module in child.enable_modules if not module.startswith("tractor.")]
    assert member.spawner is not None, "only the root has children"
    member.awaited.add(child.uid)
    process: ChildProcess | None = None
    try:
        process = await member.spawner.spawn(Order(child.uid, (parent[0], parent[1]), entry))
        nursery.on_spawn(process)
        channel = await _connection(root, child.uid, process)
        portal = tractor.Portal(channel)
        nursery._children[child.uid] = (child, process, portal)
        await channel.send({
            "_parent_main_data": {}, "enable_modules": {}, "_arb_addr": child._arb_addr,
            "bind_host": bind[0], "bind_port": bind[1], "_runtime_vars": variables,
        })  # fmt: skip
        task_status.started(portal)
        # ``open_child`` ends the process on its way out, whatever that way is.
        with trio.CancelScope(shield=True):
            await nursery._join_procs.wait()
            await process.wait()
    finally:
        if process is not None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        _forget(root, child.uid)
        member.awaited.discard(child.uid)
        nursery._children.pop(child.uid, None)


async def _connection(root: Any, name: tuple[str, str], process: ChildProcess) -> Any:
    """Return the channel that a new child opens to us."""
    channel: Any = None
    with trio.move_on_after(CONNECT_WAIT_S):
        async with trio.open_nursery() as nursery:

            async def give_up_when_it_ends() -> None:
                await process.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up_when_it_ends)
            _, channel = await root.wait_for_peer(name)
            nursery.cancel_scope.cancel()
    if channel is None:
        ended = process.returncode
        what = "is not connected" if ended is None else f"ended with exit code {ended}"
        raise ChildStartError(f"{name[0]} {what} after its start: see root.log")
    return channel


def _forget(root: Any, name: tuple[str, str]) -> None:
    """Remove what the runtime keeps of a dead child, or it would keep it for ever."""
    root._peer_connected.pop(name, None)
    root._registry.pop(name, None)
    root._waiters.pop(name[0], None)
    for key in [key for key in root._contexts if key[0] == name]:
        del root._contexts[key]


def run_child(order: Order, secret: bytes) -> None:
    """Run this process as the actor that was ordered, until it ends. Called once, in a child."""
    join(Membership(secret, entry=order.entry))
    # tractor handles errors with what trio calls deprecated; on stderr that is only noise.
    warnings.filterwarnings("ignore", ".*MultiError", FutureWarning)
    tractor.log.get_console_log("critical")
    name, unique = order.name
    actor = tractor._actor.Actor(name, uid=unique, loglevel="critical", spawn_method="trio")
    tractor._state._current_actor = actor
    trio.run(functools.partial(actor._async_main, parent_addr=order.parent))


def split_errors(error: BaseException) -> list[BaseException]:
    """Return the leaves of an exception group, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in split_errors(part)]
    return [error]


harden(tractor)
tractor._spawn.new_proc = new_process
