"""Length-prefixed msgpack: the one wire format of our own Unix sockets.

A frame is a 4-byte big-endian length and that many bytes of msgpack. The codec is pure (bytes in,
objects out), so that a plain strategy process, the router and the simulated venue share it without
sharing an event loop. msgpack rather than JSON because ids and prices stay 64-bit integers.

Invariants: F1 no frame is longer than ``FRAME_BYTES_MAX``, so a length can never make a reader
allocate at will; F2 a decoder that has once met garbage stays broken, because after a wrong length
nothing that follows can be trusted to begin where a frame begins.
"""

import struct

import msgpack

from tripgate.errors import TripgateError

FRAME_BYTES_MAX = 1 << 20
"""Longest body of one frame, bytes. The largest answer (a page of trades) needs a tenth of it."""

HEADER = struct.Struct(">I")


class FrameError(TripgateError):
    """Bytes were no frame, or an object cannot be one. Gate effect: that connection is cut."""


def encode(message: object) -> bytes:
    """Return ``message`` as one frame.

    Parameters
    ----------
    message
        Maps, lists, text, bytes, ``bool``, ``None``, finite floats and integers of 64 bits.

    Raises
    ------
    FrameError
        A type or integer that msgpack does not have, or a body over ``FRAME_BYTES_MAX``.
    """
    try:
        body = msgpack.packb(message, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"the message cannot be framed: {error}") from None
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"the message has {len(body)} bytes; a frame holds {FRAME_BYTES_MAX}")
    return HEADER.pack(len(body)) + bytes(body)


def decode_body(body: bytes) -> object:
    """Return the object of one frame's body. Raises ``FrameError`` on anything but msgpack."""
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False, ext_hook=_refuse_extension)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FrameError(f"the frame is not msgpack: {error or type(error).__name__}") from None


class Decoder:
    """Turns a stream of bytes, cut anywhere, into objects.

    Parameters
    ----------
    bytes_max
        Longest body accepted, at most ``FRAME_BYTES_MAX``: a peer that only asks needs less.

    Example
    -------
    >>> decoder = Decoder()
    >>> frame = encode({"step": 7})
    >>> decoder.feed(frame[:3]), decoder.feed(frame[3:])
    ([], [{'step': 7}])
    """

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._is_broken = False

    @property
    def is_between_frames(self) -> bool:
        """Whether every byte so far belongs to a finished frame: an end here is an orderly one."""
        return not self._buffer and not self._is_broken

    @property
    def has_frame(self) -> bool:
        """Whether ``take`` has a message to return, or an error to raise."""
        if len(self._buffer) < HEADER.size:
            return self._is_broken
        (length,) = HEADER.unpack_from(self._buffer)
        is_wrong = not 0 < length <= self._bytes_max
        return is_wrong or len(self._buffer) >= HEADER.size + length

    def feed(self, data: bytes | bytearray) -> list[object]:
        """Return the objects that ``data`` completes, oldest first.

        Raises
        ------
        FrameError
            A length of 0 or above the bound, a body that is not msgpack, or any call after such
            an error. Objects completed by the same call are lost with it: the connection has to
            be cut anyway.
        """
        self.push(data)
        messages: list[object] = []
        while taken := self.take():
            messages += taken
        return messages

    def push(self, data: bytes | bytearray) -> None:
        """Add bytes without decoding any: ``take`` decodes them frame by frame."""
        if self._is_broken:
            raise FrameError("the stream was broken before: open a new connection")
        self._buffer += data

    def take(self) -> list[object]:
        """Return the next finished message in a list, or an empty list; raises as ``feed``.

        For whoever shares one thread among many peers: 64 KiB may hold ten thousand frames.
        """
        try:
            body = self._take_body()
            return [] if body is None else [decode_body(body)]
        except FrameError:
            self._is_broken = True
            self._buffer.clear()
            raise

    def _take_body(self) -> bytes | None:
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if not 0 < length <= self._bytes_max:
            raise FrameError(f"a frame of {length} bytes is announced; 1 to {self._bytes_max} fit")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return body


def _refuse_extension(code: int, _data: bytes) -> object:
    # Extension types have no meaning here, and an unknown one must not arrive as an odd object.
    raise ValueError(f"extension type {code} is not used")
