"""Frames and messages of a connection: bounds, shapes, and the places for strangers."""

from typing import Any

import pytest
import trio
from tricycle import BufferedReceiveStream
from trio.testing import memory_stream_pair

from actors.transport import LENGTH, Door, Packets, is_message
from tests.hostile_peer import framed

LIMIT = 1_000


class HungUpError(Exception):
    """Stands for the runtime's word that a connection has ended."""


class End:
    """One end of a connection, with the other one in the test's hand."""

    def __init__(self) -> None:
        ours, self.peer = memory_stream_pair()
        self.recv_stream = BufferedReceiveStream(transport_stream=ours)
        self.frame_bytes_max = LIMIT
        self.packets = Packets(self, HungUpError)


async def test_packets_when_frames_arrive_in_pieces_then_each_message_comes_once() -> None:
    end = End()
    data = framed({"a": 1}) + framed([2]) + framed(None)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(len(data)):
                await end.peer.send_all(data[number : number + 1])
            await end.peer.aclose()

        nursery.start_soon(send)
        assert await end.packets.asend(None) == {"a": 1}
        assert await end.packets.asend(None) == [2]
        assert await end.packets.asend(None) is None
        with pytest.raises(HungUpError):
            await end.packets.asend(None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        LENGTH.pack(0),
        LENGTH.pack(LIMIT + 1) + b"x" * (LIMIT + 1),
        LENGTH.pack(0xFFFF_FFFF),
        LENGTH.pack(100) + b"cut off",
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        LENGTH.pack(2) + b"\xa1\xff",
        LENGTH.pack(LIMIT) + b"\x91" * LIMIT,
    ],
)
async def test_packets_when_bytes_are_no_frame_then_the_connection_has_ended(data: bytes) -> None:
    end = End()
    await end.peer.send_all(data)
    await end.peer.aclose()
    for _ in range(2):  # It stays ended: what follows is read by nobody.
        with pytest.raises(HungUpError):
            await end.packets.asend(None)


async def test_packets_when_a_reader_is_cancelled_within_a_frame_then_it_reads_no_more() -> None:
    end = End()
    await end.peer.send_all(LENGTH.pack(10) + b"half")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end.packets.asend, None)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await end.peer.send_all(b"-and rest")
    with pytest.raises(HungUpError, match="broke before"):
        await end.packets.asend(None)


async def test_door_when_it_is_full_then_whoever_came_first_gives_way() -> None:
    door = Door(places=2)
    scopes = [trio.CancelScope() for _ in range(3)]
    with door.place(scopes[0]), door.place(scopes[1]):
        assert len(door) == 2
        with door.place(scopes[2]):
            assert [scope.cancel_called for scope in scopes] == [True, False, False]
            assert len(door) == 2
    assert len(door) == 0


CALL: list[Any] = ["actors.entry", "serve", {"actor": "x"}, ["root", "id"], "call-1"]
ERROR = {"tb_str": "what happened", "type_str": "ValueError"}


@pytest.mark.parametrize(
    "message",
    [
        None, {"cid": "call-1", "yield": 7}, {"cid": "call-1", "error": ERROR}, {"error": ERROR},
        {"cmd": CALL},
    ],
)  # fmt: skip
def test_is_message_when_the_runtime_can_read_it_then_it_is_one(message: object) -> None:
    assert is_message(message)


@pytest.mark.parametrize(
    "message",
    [
        7, "text", b"bytes", [], ["a", "b"], {}, {"what": 1}, {"cid": ""}, {"cid": 7},
        {"cid": ["un", "hashable"]}, {"error": "text"}, {"error": {"tb_str": 1, "type_str": "X"}},
        {"cid": "call-1", "error": None}, {"cmd": None}, {"cmd": "self.cancel"},
        {"cmd": CALL[:4]}, {"cmd": [*CALL, "more"]}, {"cmd": [1, *CALL[1:]]},
        {"cmd": [*CALL[:2], [], *CALL[3:]]}, {"cmd": [*CALL[:2], {1: 2}, *CALL[3:]]},
        {"cmd": [*CALL[:4], {}]}, {"cmd": [*CALL[:4], ""]},
    ],
)  # fmt: skip
def test_is_message_when_it_would_break_the_loop_then_it_is_none(message: object) -> None:
    assert not is_message(message)
