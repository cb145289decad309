"""The simulated venue behind a Unix socket.

One task per connection reads requests, one writes; the venue itself is called without an await in
between, so every request is atomic and all clients see one order of events. The venue belongs to
nobody: a client may die at any byte, and only its own connection ends. A reader that does not read
is cut, because waiting for it would let one client stop the market for the others.
"""

import functools
import os
import socket
import stat
from pathlib import Path

import trio

from exchange_adapters.frames import FrameStream
from exchange_adapters.simulator.requests import Channel, PortError
from exchange_adapters.simulator.venue import Outcome, SimulatedVenue
from tripgate.errors import AlreadyRunningError, StateUnwritableError, UsageError
from tripgate.frames import FrameError, encode

CONNECTIONS_MAX = 64
"""Connections at once: a tree needs three, the rest is for people, chaos and restarts."""

OUTBOUND_CHUNKS_MAX = 1_024
"""Answers and steps that may wait for one reader; in lock-step a healthy one has a few."""

SEND_DEADLINE_S = 5.0
"""How long one write may take before its reader is cut."""

CLOSING_S = 1.0
"""How long the last answers may take when the venue ends."""

SOCKET_PATH_BYTES_MAX = 107
"""What the kernel takes for the path of a Unix socket."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Connection:
    """One client: its stream, what waits to be written, and what it listens to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.frames = FrameStream(stream)
        self.channels: set[Channel] = set()
        self.scope = trio.CancelScope()
        self._outbox, self._outbox_reader = trio.open_memory_channel[bytes](OUTBOUND_CHUNKS_MAX)
        self._has_written = trio.Event()

    def post(self, chunk: bytes) -> None:
        """Queue whole frames; a reader whose queue is full is cut."""
        try:
            self._outbox.send_nowait(chunk)
        except trio.WouldBlock:
            self.scope.cancel()
        except GONE:
            pass  # The connection is ending: nobody will read this.

    async def wait_for_room(self) -> None:
        """Wait until at most half of the queue is taken.

        Asked before each request is read: a client that asks faster than it reads is slowed down,
        and the other half stays free for what the market has to tell it.
        """
        while self._outbox.statistics().current_buffer_used > OUTBOUND_CHUNKS_MAX // 2:
            await self._has_written.wait()

    def finish(self) -> None:
        """Let the writer end once everything queued is written."""
        self._outbox.close()

    async def write_all(self) -> None:
        """Write what is queued until ``finish`` or the reader's end; then end the connection."""
        async with self._outbox_reader:
            async for chunk in self._outbox_reader:
                with trio.move_on_after(SEND_DEADLINE_S):
                    try:
                        await self.frames.send_bytes(chunk)
                        self._has_written.set()
                        self._has_written = trio.Event()
                        continue
                    except GONE:
                        pass
                break
        # Either all is written and the connection is to end, or its reader is gone or too slow.
        self.scope.cancel()


class VenueServer:
    """Serves one venue until ``stop`` is called or nobody has been connected for a while.

    Parameters
    ----------
    idle_exit_s
        Seconds without any connection after which the server ends by itself, above 0.
    """

    def __init__(self, venue: SimulatedVenue, *, idle_exit_s: float) -> None:
        self._venue = venue
        self._idle_exit_s = idle_exit_s
        self._connections: set[Connection] = set()
        self._stopping = trio.Event()
        self._has_changed = trio.Event()

    def stop(self) -> None:
        """End orderly: what is queued is still written, within ``CLOSING_S``."""
        self._stopping.set()

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve ``listener`` until the end; it is closed on return."""
        async with trio.open_nursery() as nursery:
            serve = functools.partial(
                trio.serve_listeners, self._serve_stream, [listener], handler_nursery=nursery
            )
            nursery.start_soon(serve)
            nursery.start_soon(self._stop_when_idle)
            await self._stopping.wait()
            for connection in self._connections:
                connection.finish()
            with trio.move_on_after(CLOSING_S):
                while self._connections:
                    await self._has_changed.wait()
            nursery.cancel_scope.cancel()

    async def _stop_when_idle(self) -> None:
        while True:
            changed = self._has_changed
            if self._connections:
                await changed.wait()
                continue
            with trio.move_on_after(self._idle_exit_s):
                await changed.wait()
            if not self._connections and changed is self._has_changed:
                self.stop()
                return

    def _notify(self) -> None:
        self._has_changed.set()
        self._has_changed = trio.Event()

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        is_welcome = len(self._connections) < CONNECTIONS_MAX
        self._connections.add(connection)
        self._notify()
        try:
            with connection.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.write_all)
                    if is_welcome:
                        await self._read(connection)
                    else:
                        text = f"{CONNECTIONS_MAX} connections are open: close one"
                        connection.post(_port_error(PortError.TOO_MANY_CONNECTIONS, text))
                    connection.channels.clear()
                    connection.finish()
        finally:
            self._connections.discard(connection)
            self._notify()
            await trio.aclose_forcefully(stream)

    async def _read(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            await connection.wait_for_room()
            try:
                message = await connection.frames.receive()
            except FrameError as error:
                connection.post(_port_error(PortError.BAD_FRAME, str(error)))
                return
            except GONE:
                return
            if message is None:
                return
            self._act(connection, self._venue.handle(message))

    def _act(self, connection: Connection, outcome: Outcome) -> None:
        # The answer goes first, so that a client that also listens to orders sees its order
        # acknowledged before it sees it accepted.
        connection.post(b"".join(map(encode, (outcome.answer, *outcome.repeats))))
        for channel in Channel:
            frames = [encode(push) for to, push in outcome.pushes if to is channel]
            for other in self._connections:
                if frames and channel in other.channels:
                    other.post(b"".join(frames))
        connection.channels.update(outcome.subscribed)
        if outcome.is_last:
            self.stop()


def _port_error(error: PortError, text: str) -> bytes:
    return encode({"id": None, "error": str(error), "message": text})


async def open_listener(path: Path) -> trio.SocketListener:
    """Listen on a Unix socket that only this user may open (0600).

    A socket file that nobody answers on is a leftover of a killed venue and is replaced.

    Raises
    ------
    UsageError
        The path is too long for a socket, or something that is no socket stands there.
    AlreadyRunningError
        A venue answers there.
    StateUnwritableError
        The folder is missing or read-only.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise UsageError(f"{path} is longer than a socket's {SOCKET_PATH_BYTES_MAX} bytes: shorten")
    await _remove_leftover(path)
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask, not a later chmod: between bind and chmod another user could connect.
    previous = os.umask(0o177)
    try:
        await listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise StateUnwritableError(f"cannot make the socket {path}: {error.strerror}") from None
    finally:
        os.umask(previous)
    listening.listen(CONNECTIONS_MAX)
    return trio.SocketListener(listening)


async def _remove_leftover(path: Path) -> None:
    if not _is_socket(path):
        return
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError:
        remove_socket(path)
        return
    await stream.aclose()
    raise AlreadyRunningError(f"another venue already answers on {path}")


def _is_socket(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False  # Nothing there, or not ours to look at: bind will say.
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} exists and is no socket: choose another path")
    return True


def inode_of(path: Path) -> int | None:
    """Return the number of the file that stands at ``path`` now, or ``None``."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def remove_socket(path: Path) -> None:
    """Remove a socket file; one that is gone already is as good."""
    path.unlink(missing_ok=True)
