"""The root's side of the zygote: start it, ask it for children, replace it when it dies.

A child forked by the zygote shares every page of code and libraries with its siblings and is there
in milliseconds, where a new interpreter with compiled kernels takes two seconds. The zygote is only
a mould: when it dies, no running child notices, and the next spawn starts another one.

What passes the socket between the two (one packet each): ``Hello`` once, ``Ready`` once, then an
``Order`` and its ``Forked`` or ``Refused`` at a time.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence

import msgspec
import trio

from actors.child_process import ChildProcess, adopting_orphans
from actors.handshake import make_secret
from tripgate.errors import TripgateError

PACKET_BYTES_MAX = 65_536
PRELOAD_WAIT_S = 90.0
"""How long a zygote may import; the very first one on a host may have kernels to compile."""
FORK_WAIT_S = 10.0
SPAWN_TRIES_MAX = 2
END_WAIT_S = 2.0
ZYGOTE_MODULE = "actors.zygote"
KERNEL_MODULES = ("tripgate.gate.check", "tripgate.gate.settle", "tripgate.page.board")
"""Importing them compiles every kernel, or loads it from the cache."""


class ChildStartError(TripgateError):
    """A child did not come up. Gate effect: its lease was never live, so openings are denied."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What the zygote must know of its root.

    Attributes
    ----------
    root
        Pid.
    secret
        Of the tree.
    path
        Where modules are found.
    preload
        Modules to import before the first fork; None for every actor and every kernel.
    """

    root: int
    secret: bytes
    path: list[str]
    preload: list[str] | None


class Ready(msgspec.Struct, frozen=True, array_like=True):
    """The zygote has imported everything."""

    pid: int


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A child to fork: its unique name, where its parent listens, which module it serves."""

    name: tuple[str, str]
    parent: tuple[str, int]
    entry: str


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The child runs and is the root's."""

    pid: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """There is no child, and why."""

    reason: str


class Spawner:
    """Makes the children of one tree.

    Parameters
    ----------
    preload
        What the zygote imports before it forks; by default every actor and every kernel.

    Attributes
    ----------
    secret
        Of this tree; whoever holds it is a member.
    zygote
        The running one, or None.
    """

    def __init__(self, preload: Sequence[str] | None = None) -> None:
        self._preload = None if preload is None else list(preload)
        self.secret = make_secret()
        self.zygote: ChildProcess | None = None
        self._socket: socket.socket | None = None
        self._is_ready = False
        self._turn = trio.Lock()

    def start(self) -> None:
        """Start a zygote if none runs. Returns at once: it imports while the caller goes on."""
        if self.zygote is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # Its libraries must start no threads: a process that has some cannot be forked safely.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            pid = os.posix_spawn(
                sys.executable, [sys.executable, "-m", ZYGOTE_MODULE], environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            )  # fmt: skip
        self.zygote, self._socket, self._is_ready = ChildProcess(pid), ours, False
        path = [part or os.getcwd() for part in sys.path]
        hello = Hello(os.getpid(), self.secret, path, self._preload)
        with contextlib.suppress(OSError):  # A zygote that died is found by the next spawn.
            ours.send(msgspec.msgpack.encode(hello))

    async def ready(self) -> None:
        """Start a zygote if none runs and wait until it can fork."""
        async with self._turn:
            self.start()
            await self._await_ready()

    async def spawn(self, order: Order) -> ChildProcess:
        """Return a new child of this process.

        Raises
        ------
        ChildStartError
            The zygote refuses, or it died twice.
        """
        async with self._turn:
            for _ in range(SPAWN_TRIES_MAX):
                self.start()
                try:
                    await self._await_ready()
                    # From the order on a child may exist: the answer must be taken.
                    with trio.CancelScope(shield=True), adopting_orphans():
                        return await self._fork(order)
                except (OSError, trio.TooSlowError):
                    await self._bury()
        raise ChildStartError("the process that forks children died twice: see root.log")

    async def close(self) -> None:
        """End the zygote; running children are not touched."""
        with trio.CancelScope(shield=True):
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            if self.zygote is not None:
                with trio.move_on_after(END_WAIT_S):
                    await self.zygote.wait()
            await self._bury()

    async def _await_ready(self) -> None:
        if not self._is_ready:
            packet = await self._receive(PRELOAD_WAIT_S)
            msgspec.msgpack.decode(packet, type=Ready)
            self._is_ready = True

    async def _fork(self, order: Order) -> ChildProcess:
        assert self._socket is not None, "a zygote has been started"
        self._socket.send(msgspec.msgpack.encode(order))
        answer = msgspec.msgpack.decode(await self._receive(FORK_WAIT_S), type=Forked | Refused)
        if isinstance(answer, Refused):
            raise ChildStartError(f"no child could be forked: {answer.reason}")
        return ChildProcess(answer.pid)

    async def _receive(self, wait_s: float) -> bytes:
        assert self._socket is not None, "a zygote has been started"
        with trio.fail_after(wait_s):
            while True:
                await trio.lowlevel.wait_readable(self._socket.fileno())
                with contextlib.suppress(BlockingIOError):
                    packet = self._socket.recv(PACKET_BYTES_MAX)
                    break
        if not packet:
            raise ConnectionResetError("the zygote hung up")
        return packet

    async def _bury(self) -> None:
        """Forget a zygote that does not work: kill it, reap it, close its socket."""
        with trio.CancelScope(shield=True):
            if self._socket is not None:
                self._socket.close()
            if self.zygote is not None:
                self.zygote.kill()
                await self.zygote.wait()
        self.zygote, self._socket, self._is_ready = None, None, False
