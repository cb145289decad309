"""One connection of the router's socket, so bounded that its peer can cost nobody else anything.

Bytes are decoded one frame at a time, and no faster than the connection's share of requests; what
is to be told waits in an outbox of limited length. Nothing here trusts the peer to read, to finish
what it began to write, or to speak msgpack: each of the three ends the connection and nothing else.

Invariants: P1 ``post`` never waits, and no peer can make it raise; P2 after a frame was cut short
nothing more is written; P3 the buffered input is at most one frame and one receive.
"""

import socket
import struct
from collections import deque
from functools import cache

import trio

from tripgate.clock import NS_PER_MS, host_ns
from tripgate.errors import InvariantBroken
from tripgate.frames import Decoder, FrameError, encode
from tripgate.machines import pacing
from tripgate.machines.pacing import Budget

REQUEST_BYTES_MAX = 1 << 16
"""Longest request. The largest that means anything has a few hundred bytes."""
RECEIVE_BYTES_MAX = 1 << 14
REQUESTS_PER_SECOND_MAX = 8_000
"""Requests that all connections together may make; each has an equal share. What comes faster is
read later: the kernel's socket buffer fills and the peer's own writes wait."""
BURST_REQUESTS = 500
"""Requests that one connection may make at once."""
FRAME_WAIT_S = 5.0
"""A frame that was begun is finished within this time, or the connection is cut."""
OUTBOX_FRAMES_MAX = 2_048
OUTBOX_BYTES_MAX = 1 << 20
"""What may wait for a peer that does not read; beyond either it is cut, and its orders go on."""
SEND_WAIT_S = 10.0
"""A peer with a full socket buffer that takes nothing for this long is cut."""
FAREWELL_WAIT_S = 0.5

_CREDENTIALS = struct.Struct("3i")


class Peer:
    """One connection.

    Parameters
    ----------
    stream
        The accepted connection; it is closed by ``aclose``.

    Attributes
    ----------
    pid, user
        Process and user that connected, as the kernel tells them.
    last_id
        Id of the last request.
    cut_reason
        Why the connection was cut; None while it is served.
    scope
        The scope in which its conversation runs; ``cut`` cancels it.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._decoder = Decoder(REQUEST_BYTES_MAX)
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._posted, self._emptied = trio.Event(), trio.Event()
        self._budget = _budget_of(1)
        self._bucket = pacing.full(self._budget, _now_ms())
        self.pid, self.user = _credentials_of(stream)
        self.last_id = 0
        self.cut_reason: str | None = None
        self.scope = trio.CancelScope()

    async def receive(self, connections: int) -> object | None:
        """Return the next message, or None at an orderly end; at most at the connection's share.

        Parameters
        ----------
        connections
            How many connections share the socket now.

        Raises
        ------
        FrameError
            Garbage, an oversized frame, one that was not finished in time, or an end inside one.
        trio.BrokenResourceError, trio.ClosedResourceError
            The connection was reset, or closed on this side.
        """
        await self._await_share(connections)
        while not (messages := self._decoder.take()):
            if self._decoder.is_between_frames:
                data = await self._stream.receive_some(RECEIVE_BYTES_MAX)
                if not data:
                    return None
                self._decoder.push(data)
            else:
                await self._finish_frame()
        if messages[0] is None:
            raise FrameError("a frame holds a map, was nil")
        return messages[0]

    async def _finish_frame(self) -> None:
        """Receive until the frame that was begun is whole."""
        try:
            with trio.fail_after(FRAME_WAIT_S):
                while not self._decoder.has_frame:
                    data = await self._stream.receive_some(RECEIVE_BYTES_MAX)
                    if not data:
                        raise FrameError("the peer closed inside a frame")
                    self._decoder.push(data)
        except trio.TooSlowError:
            raise FrameError(f"a frame was not finished within {FRAME_WAIT_S:.0f} s") from None

    async def _await_share(self, connections: int) -> None:
        # A checkpoint in any case: a peer that writes many small frames at once must not keep the
        # router's own tasks waiting.
        await trio.lowlevel.checkpoint()
        self._budget = _budget_of(connections)
        now_ms = _now_ms()
        if not pacing.may_take(self._budget, self._bucket, now_ms, is_exit=True):
            # Until half a burst is there again: one long sleep instead of one for each request.
            await trio.sleep(BURST_REQUESTS / 2 / self._budget.requests_per_second)
            now_ms = _now_ms()
        self._bucket = pacing.take(self._budget, self._bucket, now_ms)

    def post(self, message: dict[str, object]) -> None:
        """Put a message into the outbox; a peer whose outbox is full is cut."""
        if self.cut_reason is not None:
            return
        frame = encode(message)
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if len(self._outbox) > OUTBOX_FRAMES_MAX or self._outbox_bytes > OUTBOX_BYTES_MAX:
            self.cut("it does not read what it is told")
            return
        if self._emptied.is_set():
            self._emptied = trio.Event()
        self._posted.set()

    def cut(self, reason: str) -> None:
        """End the connection: its conversation is cancelled, and nothing more is told."""
        if self.cut_reason is None:
            self.cut_reason = reason
            self._outbox.clear()
            self._emptied.set()
            self.scope.cancel()

    async def write_out(self) -> None:
        """Write the outbox, for ever (sibling task of the conversation)."""
        while self.cut_reason is None:
            if not self._outbox:
                self._emptied.set()
                self._posted = trio.Event()
                await self._posted.wait()
                continue
            frame = self._outbox.popleft()
            self._outbox_bytes -= len(frame)
            if not await self._write(frame):
                self.cut("it takes nothing")

    async def end(self, reason: str | None) -> None:
        """Write what was posted and, unless it is None, why the connection ends; within a bound."""
        if reason is not None:
            self.post({"event": "cut", "reason": reason})
        with trio.move_on_after(FAREWELL_WAIT_S):
            await self._emptied.wait()

    async def _write(self, frame: bytes) -> bool:
        """Write a frame whole; False if that failed, and nothing may be written after it."""
        try:
            with trio.move_on_after(SEND_WAIT_S) as waited:
                await self._stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return not waited.cancelled_caught


@cache
def _budget_of(connections: int) -> Budget:
    return Budget(max(1, REQUESTS_PER_SECOND_MAX // max(1, connections)), BURST_REQUESTS, 0)


def _now_ms() -> int:
    return host_ns() // NS_PER_MS


def _credentials_of(stream: trio.SocketStream) -> tuple[int, int]:
    """Return process and user of the other end."""
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if not isinstance(data, bytes):
        raise InvariantBroken("the kernel told no credentials of a Unix socket's peer")
    pid, user, _ = _CREDENTIALS.unpack(data)
    return pid, user
