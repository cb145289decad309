"""What may come through a connection between two actors: framed messages, bounded and shaped.

A frame is four bytes of length (little endian) and that much msgpack. Whatever a peer sends that is
not exactly this ends its connection and nothing else: each way in which bytes can be wrong is one
exception, which the runtime takes for a closed connection.

Before a peer has proved that it belongs to the tree it may send 4 KiB at a time, must be done
within ``HANDSHAKE_WAIT_S`` and shares ``STRANGERS_MAX`` places with all others like it.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import trio

STRANGER_FRAME_BYTES_MAX = 4 * 1024
FRAME_BYTES_MAX = 1024 * 1024
"""Longest frame of a member: arrays go through the page, messages are far below 64 kB."""
HANDSHAKE_WAIT_S = 10.0
STRANGERS_MAX = 32
SEND_WAIT_S = 5.0
"""How long a frame may take to leave: a reader that stands still is not waited for."""
LENGTH = struct.Struct("<I")
COMMAND_PARTS = 5


class Transport(Protocol):
    """What ``Packets`` needs of a connection."""

    recv_stream: Any
    frame_bytes_max: int


class Packets:
    """The messages of one connection, in order.

    An iterator, not a generator: one that is left half way needs nobody to finish it.

    Parameters
    ----------
    transport
        The connection; its ``frame_bytes_max`` is looked at before every frame.
    closed
        The exception that says that the connection has ended.
    """

    def __init__(self, transport: Transport, closed: type[Exception]) -> None:
        self._transport = transport
        self._closed = closed
        self._decode = msgspec.msgpack.Decoder().decode
        self._is_broken = False

    def __aiter__(self) -> "Packets":
        return self

    async def asend(self, _value: None) -> Any:
        """Return the next message (generators have this name for it)."""
        return await self.__anext__()

    async def __anext__(self) -> Any:
        if self._is_broken:
            raise self._closed("the connection broke before")
        # Left true by whatever interrupts us, a cancellation too: the next byte is no header then.
        self._is_broken = True
        receive = self._transport.recv_stream.receive_exactly
        try:
            (size,) = LENGTH.unpack(await receive(LENGTH.size))
            if not 0 < size <= self._transport.frame_bytes_max:
                raise self._closed(f"the peer announced a frame of {size} bytes")
            message = self._decode(await receive(size))
        except (ValueError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._closed(f"no more messages: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._closed("the peer sent no msgpack") from None
        self._is_broken = False
        return message


class Door:
    """The places for peers that have not proved themselves; whoever has waited longest gives way.

    Somebody who opens connections and says nothing can hold every place but not for long: a member
    needs a place for a millisecond and enters at the end of the queue.
    """

    def __init__(self, places: int = STRANGERS_MAX) -> None:
        self._places = places
        self._waiting: dict[trio.CancelScope, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def place(self, scope: trio.CancelScope) -> Iterator[None]:
        """Hold a place for the block; ``scope`` is cancelled if it must be given up."""
        self._waiting[scope] = None
        if len(self._waiting) > self._places:
            eldest = next(iter(self._waiting))
            del self._waiting[eldest]
            eldest.cancel()
        try:
            yield
        finally:
            self._waiting.pop(scope, None)


def is_message(message: object) -> bool:
    """Return whether a member's message has one of the shapes that the runtime reads.

    None (the end), an answer (it has a ``cid``), a call, or a report of a fault.
    """
    if message is None:
        return True
    if not isinstance(message, dict):
        return False
    if "error" in message and not _is_error(message["error"]):
        return False
    if "cid" in message:
        return isinstance(message["cid"], str) and bool(message["cid"])
    return _is_call(message["cmd"]) if "cmd" in message else "error" in message


def _is_error(error: object) -> bool:
    return isinstance(error, dict) and all(
        isinstance(error.get(part), str) for part in ("tb_str", "type_str")
    )


def _is_call(call: object) -> bool:
    if not isinstance(call, list) or len(call) != COMMAND_PARTS:
        return False
    space, function, arguments, _, call_id = call
    named = all(isinstance(part, str) and part for part in (space, function, call_id))
    return named and isinstance(arguments, dict) and all(isinstance(key, str) for key in arguments)
