"""The router's socket with real connections: what strategies get, and what breaks nobody else."""

import os
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from actors import router_server
from actors.router_server import StrategyServer
from exchange_adapters.frames import FrameStream
from tests.tree_fixtures import PATIENCE_S, until
from tripgate.errors import InvariantBroken
from tripgate.frames import encode

HELLO = {"id": 1, "op": "hello", "slot": 16}


class Desk:
    """A server whose handler notes what it was asked, and refuses what is not asked nicely."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "deep" / "router.sock"
        self.asked: list[tuple[int, Any]] = []
        self.strangers: set[int] = set()
        self.server = StrategyServer(self.path, self._handle, self._owns)

    def _handle(self, slot: int, request: dict[str, Any]) -> str | None:
        self.asked.append((slot, request))
        return None if request.get("op") == "submit" else "no"

    def _owns(self, pid: int, slot: int) -> bool:
        return pid == os.getpid() and slot not in self.strangers

    @asynccontextmanager
    async def peer(self, hello: dict[str, Any] | None = None) -> AsyncIterator[FrameStream]:
        async with FrameStream(await trio.open_unix_socket(str(self.path))) as peer:
            if hello is not None:
                assert await ask(peer, hello) == {"id": hello["id"], "ok": True}
            yield peer

    async def is_cut_off(self, data: bytes) -> bool:
        """Whether the server hangs up on these bytes without a word."""
        stream = await trio.open_unix_socket(str(self.path))
        with trio.fail_after(PATIENCE_S):
            async with stream:
                try:
                    await stream.send_all(data)
                    return await stream.receive_some(1_000) == b""
                except trio.BrokenResourceError:
                    return True


async def ask(peer: FrameStream, message: object) -> Any:
    with trio.fail_after(PATIENCE_S):
        await peer.send(message)
        return await peer.receive()


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    desk = Desk(isolated_folders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.server.serve)
        await until(desk.path.exists)
        await until(lambda: desk.server._nursery is not None)
        yield desk
        nursery.cancel_scope.cancel()


async def test_serve_when_listening_then_only_its_user_may_connect(desk: Desk) -> None:
    assert desk.path.stat().st_mode & 0o777 == 0o600
    assert desk.path.parent.stat().st_mode & 0o777 == 0o700
    assert desk.path.stat().st_uid == os.getuid()


async def test_request_when_sent_then_it_is_answered_with_its_id(desk: Desk) -> None:
    async with desk.peer(HELLO) as peer:
        assert await ask(peer, {"id": 7, "op": "submit", "token": 3}) == {"id": 7, "ok": True}
        assert await ask(peer, {"id": 8, "op": "cancel"}) == {"id": 8, "error": "no"}
    assert desk.asked == [
        (16, {"id": 7, "op": "submit", "token": 3}), (16, {"id": 8, "op": "cancel"}),
    ]  # fmt: skip


async def test_request_when_nobody_said_hello_then_it_comes_from_no_slot(desk: Desk) -> None:
    async with desk.peer() as peer:
        await ask(peer, {"id": 7, "op": "submit"})
        await ask(peer, {"id": 8, "op": "hello", "slot": "16"})
    assert [slot for slot, _ in desk.asked] == [-1, -1]


@pytest.mark.parametrize("slot", [-1, 256, 2**60])
async def test_hello_when_the_slot_cannot_be_then_it_is_refused(desk: Desk, slot: int) -> None:
    async with desk.peer() as peer:
        answer = await ask(peer, {**HELLO, "slot": slot})
        assert answer == {"id": 1, "error": "a slot is 0 to 255"}
    assert desk.server._peers == {}


async def test_hello_when_the_slot_is_another_processs_then_it_is_refused_and_may_be_corrected(
    desk: Desk,
) -> None:
    desk.strangers.add(16)
    async with desk.peer() as peer:
        answer = await ask(peer, HELLO)
        assert answer == {"id": 1, "error": "slot 16 belongs to another process: attach again"}
        assert await ask(peer, {"id": 2, "op": "submit", "token": 3}) == {"id": 2, "ok": True}
        assert await ask(peer, {**HELLO, "id": 3, "slot": 17}) == {"id": 3, "ok": True}
        await ask(peer, {"id": 4, "op": "submit"})
    assert [slot for slot, _ in desk.asked] == [-1, 17]


async def test_hello_when_another_process_connects_then_the_kernel_tells_which(desk: Desk) -> None:
    asked = []

    def owns(pid: int, slot: int) -> bool:
        asked.append((pid, slot))
        return False

    desk.server._owns = owns
    code = (
        "import socket, struct, sys; from tripgate.frames import encode;"
        "line = socket.socket(socket.AF_UNIX); line.connect(sys.argv[1]);"
        "line.sendall(encode({'id': 1, 'op': 'hello', 'slot': 16}));"
        "sys.stdout.buffer.write(line.recv(1000))"
    )
    async with trio.open_nursery() as nursery:
        child = await nursery.start(
            partial(
                trio.run_process, [sys.executable, "-c", code, str(desk.path)], capture_stdout=True
            )
        )
        with trio.fail_after(PATIENCE_S):
            await child.wait()
    assert asked == [(child.pid, 16)]
    assert child.pid != os.getpid()
    assert desk.server._peers == {}


async def test_hello_when_said_again_then_the_first_one_stands(desk: Desk) -> None:
    async with desk.peer(HELLO) as peer:
        answer = await ask(peer, {"id": 2, "op": "hello", "slot": 17})
        assert answer == {"id": 2, "error": "hello was said already"}
        desk.server.tell(17, {"event": "fill"})
        desk.server.tell(16, {"event": "order_done"})
        with trio.fail_after(PATIENCE_S):
            assert await peer.receive() == {"event": "order_done"}
    await until(lambda: desk.server._peers == {16: []})


async def test_tell_when_a_slot_has_connections_then_each_hears_it_and_others_do_not(
    desk: Desk,
) -> None:
    async with (
        desk.peer(HELLO) as one,
        desk.peer(HELLO) as two,
        desk.peer({**HELLO, "slot": 17}) as other,
    ):
        desk.server.tell(16, {"event": "fill", "trade": 2**40})
        desk.server.tell(17, {"event": "cancel"})
        desk.server.tell(99, {"event": "nobody"})
        with trio.fail_after(PATIENCE_S):
            for peer in (one, two):
                assert await peer.receive() == {"event": "fill", "trade": 2**40}
            assert await other.receive() == {"event": "cancel"}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 0),
        struct.pack(">I", 2**31),
        struct.pack(">I", 2) + b"\xc1\xc1",
        encode([1, 2]),
        encode({"op": "hello", "slot": 16}),
        encode({"id": "one", "op": "hello"}),
    ],
)
async def test_peer_when_it_sends_garbage_then_it_is_cut_off_and_nobody_else(
    desk: Desk, data: bytes
) -> None:
    async with desk.peer(HELLO) as peer:
        assert await desk.is_cut_off(data)
        assert await ask(peer, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}


async def test_peer_when_it_leaves_inside_a_frame_then_its_place_is_free_again(desk: Desk) -> None:
    stream = await trio.open_unix_socket(str(desk.path))
    await stream.send_all(encode(HELLO) + struct.pack(">I", 50) + b"half")
    await stream.aclose()
    await until(lambda: desk.server._peers.get(16) == [] and desk.server._count == 0)


async def test_peer_when_there_are_too_many_then_the_next_is_cut_off_until_one_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_server, "CONNECTIONS_MAX", 2)
    async with desk.peer(HELLO) as one:
        async with desk.peer(HELLO):
            assert await desk.is_cut_off(encode(HELLO))
            assert await ask(one, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}
        await until(lambda: desk.server._count == 1)
        async with desk.peer(HELLO):
            pass


async def test_tell_when_a_peer_does_not_read_then_it_is_cut_off_and_others_hear(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_server, "SEND_WAIT_S", 0.05)
    async with desk.peer(HELLO), desk.peer({**HELLO, "slot": 17}) as reader:
        # More than any socket buffer holds, and then more to one that is already cut off.
        for _ in range(30):
            desk.server.tell(16, {"event": "x" * 500_000})
        await until(lambda: desk.server._peers[16] == [])
        desk.server.tell(17, {"event": "fill"})
        with trio.fail_after(PATIENCE_S):
            assert await reader.receive() == {"event": "fill"}


def test_tell_when_the_server_does_not_run_then_it_is_a_bug(tmp_path: Path) -> None:
    server = StrategyServer(tmp_path / "socket", lambda slot, request: None, lambda pid, slot: True)
    server.tell(16, {"event": "nobody"})
    server._peers[16] = [None]  # type: ignore[list-item]
    with pytest.raises(InvariantBroken):
        server.tell(16, {"event": "fill"})


async def test_serve_when_an_earlier_socket_lies_there_then_it_is_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path.parent.mkdir()
    desk.path.touch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.server.serve)
        await until(lambda: desk.path.is_socket() and desk.server._nursery is not None)
        async with desk.peer(HELLO):
            pass
        nursery.cancel_scope.cancel()
