"""Frames over a trio stream: the thin asynchronous shell of ``tripgate.frames``.

Invariant: a frame is sent whole or the stream is closed. A send that is cancelled half-way would
leave the peer waiting inside a frame, and the next frame would be read as its rest.
"""

from collections import deque

import trio

from tripgate.frames import Decoder, FrameError, encode

RECEIVE_BYTES_MAX = 65_536
"""Bytes asked from the socket at once."""


class FrameStream(trio.abc.AsyncResource):
    """One peer that speaks frames.

    Any number of tasks may send; one task receives.

    Parameters
    ----------
    stream
        A connected stream; it is closed with this object.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = Decoder()
        # Bounded: it never holds more than the frames of one receive, and is emptied before it.
        self._ready: deque[object] = deque()
        self._send_lock = trio.Lock()

    async def receive(self) -> object | None:
        """Return the next message, or ``None`` when the peer has closed between two frames.

        Raises
        ------
        FrameError
            Garbage, an oversized frame, or an end inside a frame.
        trio.BrokenResourceError, trio.ClosedResourceError
            The connection was reset, or closed on this side.
        """
        # A peer that writes many small frames at once must not keep the other tasks waiting.
        await trio.lowlevel.checkpoint()
        while not self._ready:
            data = await self._stream.receive_some(RECEIVE_BYTES_MAX)
            if not data:
                if self._decoder.is_between_frames:
                    return None
                raise FrameError("the peer closed inside a frame")
            self._ready.extend(self._decoder.feed(data))
        message = self._ready.popleft()
        if message is None:
            raise FrameError("a frame must hold a map, was nil")
        return message

    async def send(self, message: object) -> None:
        """Send one message whole; a cancellation in the middle closes the stream.

        Raises
        ------
        FrameError
            The message cannot be framed; nothing was sent.
        trio.BrokenResourceError, trio.ClosedResourceError
            The peer is gone.
        """
        await self.send_bytes(encode(message))

    async def send_bytes(self, frames: bytes) -> None:
        """Send frames that are already encoded; otherwise like ``send``."""
        async with self._send_lock:
            is_whole = False
            try:
                await self._stream.send_all(frames)
                is_whole = True
            finally:
                if not is_whole:
                    await trio.aclose_forcefully(self._stream)

    async def aclose(self) -> None:
        """Close the stream; frames on their way to us are lost."""
        await self._stream.aclose()
