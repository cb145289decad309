"""The router's socket with real connections: what strategies get, and what breaks nobody else."""

import contextlib
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
from actors.router_server import Answer, StrategyServer
from exchange_adapters.frames import FrameStream
from tests.tree_fixtures import PATIENCE_S, until
from tripgate.frames import encode

HELLO = {"id": 1, "op": "hello", "slot": 16}


class Desk:
    """A server whose reception notes what it was asked, and refuses what is not asked nicely."""

    def __init__(self, folder: Path, user: int | None = None) -> None:
        self.path = folder / "deep" / "router.sock"
        self.asked: list[tuple[int, Any]] = []
        self.ended: list[tuple[int, str]] = []
        self.users: list[int] = []
        self.pids: list[int] = []
        self.server = StrategyServer(self.path, user)

    def hello(self, pid: int, request: dict[str, Any]) -> tuple[int, Answer]:
        self.pids.append(pid)
        slot = request.get("slot")
        return (slot, {"ok": True}) if type(slot) is int and slot > 0 else (-1, {"error": "no"})

    def handle(self, slot: int, request: dict[str, Any]) -> Answer:
        self.asked.append((slot, request))
        return {"ok": True} if request.get("op") == "submit" else {"error": "no"}

    def left(self, slot: int, reason: str) -> None:
        self.ended.append((slot, reason))

    def refused(self, user: int) -> None:
        self.users.append(user)

    @asynccontextmanager
    async def peer(self, hello: dict[str, Any] | None = None) -> AsyncIterator[FrameStream]:
        async with FrameStream(await trio.open_unix_socket(str(self.path))) as peer:
            if hello is not None:
                assert await ask(peer, hello) == {"id": hello["id"], "ok": True}
            yield peer

    async def cut_reason(self, data: bytes) -> str:
        """Send bytes; return what is said before the server hangs up."""
        async with self.peer() as peer:
            with trio.fail_after(PATIENCE_S):
                await peer.send_bytes(data)
                said: Any = await peer.receive()
                assert said["event"] == "cut"
                # Bytes that the server left unread reset the line; else it ends in order.
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await peer.receive() is None
        return str(said["reason"])


async def ask(peer: FrameStream, message: object) -> Any:
    with trio.fail_after(PATIENCE_S):
        await peer.send(message)
        return await peer.receive()


@asynccontextmanager
async def serving(desk: Desk) -> AsyncIterator[Desk]:
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.server.serve, desk)
        yield desk
        nursery.cancel_scope.cancel()


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with serving(Desk(isolated_folders)) as desk:
        yield desk


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
    await until(lambda: desk.ended == [(16, "it hung up")])


async def test_request_when_nobody_said_hello_then_it_reaches_nobody(desk: Desk) -> None:
    async with desk.peer() as peer:
        answer = await ask(peer, {"id": 7, "op": "submit"})
        assert answer == {"id": 7, "error": "the first request is hello"}
        assert await ask(peer, {"id": 8, "op": "hello"}) == {"id": 8, "error": "no"}
        assert await ask(peer, {**HELLO, "id": 9}) == {"id": 9, "ok": True}
    assert desk.asked == []


async def test_hello_when_another_process_connects_then_the_kernel_tells_which(desk: Desk) -> None:
    code = (
        "import socket, sys; from tripgate.frames import encode;"
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
    assert desk.pids == [child.pid]
    assert child.pid != os.getpid()


async def test_peer_when_it_is_another_users_then_it_is_cut_at_once_and_noted_once(
    isolated_folders: Path,
) -> None:
    # The kernel's word is real; that our own user is not the one served is what differs.
    async with serving(Desk(isolated_folders, os.getuid() + 1)) as desk:
        for _ in range(3):
            async with await trio.open_unix_socket(str(desk.path)) as stream:
                with trio.fail_after(PATIENCE_S):
                    assert await stream.receive_some(100) == b""
        assert desk.users == [os.getuid()]
        assert desk.pids == []
        await until(lambda: desk.server._count == 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_peer_when_the_sockets_mode_was_widened_then_another_user_is_cut_all_the_same(
    desk: Desk,
) -> None:
    for path in (desk.path.parent.parent, desk.path.parent):
        path.chmod(0o755)
    desk.path.chmod(0o666)
    code = (
        "import os, socket, sys; os.setuid(65534);"
        "line = socket.socket(socket.AF_UNIX); line.connect(sys.argv[1]);"
        "sys.stdout.write(str(line.recv(1000)))"
    )
    with trio.fail_after(PATIENCE_S):
        child = await trio.run_process(
            [sys.executable, "-I", "-c", code, str(desk.path)], capture_stdout=True
        )
    assert child.stdout == b"b''"
    assert (desk.users, desk.pids) == ([65534], [])


async def test_hello_when_it_is_not_said_in_time_then_the_peer_is_told_and_cut(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_server, "HELLO_WAIT_S", 0.02)
    async with desk.peer() as peer:
        with trio.fail_after(PATIENCE_S):
            said: Any = await peer.receive()
    assert said == {"event": "cut", "reason": "hello was not said within 0 s"}


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
    await until(lambda: desk.server._peers == {} and len(desk.ended) == 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "a frame of 1195725856 bytes", id="HTTP"),
        pytest.param(struct.pack(">I", 0), "a frame of 0 bytes", id="empty"),
        pytest.param(struct.pack(">I", 65_537), "1 to 65536 fit", id="oversized"),
        pytest.param(struct.pack(">I", 2) + b"\xc1\xc1", "not msgpack", id="garbage"),
        pytest.param(struct.pack(">I", 1) + b"\xc0", "was nil", id="nil"),
        pytest.param(struct.pack(">I", 2_000) + b"\x91" * 2_000, "not msgpack", id="too-deep"),
        pytest.param(struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff", "not msgpack", id="huge-list"),
        pytest.param(struct.pack(">I", 4) + b"\x81\x91\x01\x01", "not msgpack", id="list-as-key"),
        pytest.param(encode([1, 2]), "a request is a map", id="list"),
        pytest.param(encode({"op": "hello", "slot": 16}), "id is a whole number", id="no-id"),
        pytest.param(encode({"id": "one", "op": "hello"}), "id is a whole number", id="id-text"),
        pytest.param(encode({"id": True, "op": "hello"}), "id is a whole number", id="id-true"),
        pytest.param(encode({"id": 0, "op": "hello"}), "above the last, 0", id="id-zero"),
        pytest.param(encode({"id": 2**64 - 1, "op": "x"}), "above the last, 0", id="id-huge"),
    ],
)
async def test_peer_when_it_sends_garbage_then_it_is_told_and_cut_and_nobody_else(
    desk: Desk, data: bytes, reason: str
) -> None:
    async with desk.peer(HELLO) as peer:
        assert reason in await desk.cut_reason(data)
        assert await ask(peer, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}
    assert desk.asked == [(16, {"id": 2, "op": "submit"})]


async def test_request_when_its_id_came_before_then_it_is_not_acted_on_again(desk: Desk) -> None:
    request = {"id": 2, "op": "submit"}
    async with desk.peer(HELLO) as peer:
        assert await ask(peer, request) == {"id": 2, "ok": True}
        said = await ask(peer, request)
    assert said["event"] == "cut"
    assert desk.asked == [(16, request)]
    await until(lambda: desk.ended != [])
    assert "above the last, 2" in desk.ended[0][1]


async def test_peer_when_it_leaves_inside_a_frame_then_its_place_is_free_again(desk: Desk) -> None:
    stream = await trio.open_unix_socket(str(desk.path))
    await stream.send_all(encode(HELLO) + struct.pack(">I", 50) + b"half")
    await stream.aclose()
    await until(lambda: desk.server._peers == {} and desk.server._count == 0)


async def test_peer_when_it_shuts_its_writing_side_then_it_still_gets_its_answers(
    desk: Desk,
) -> None:
    data = b""
    async with await trio.open_unix_socket(str(desk.path)) as stream:
        await stream.send_all(encode(HELLO) + encode({"id": 2, "op": "submit"}))
        await stream.send_eof()
        with trio.fail_after(PATIENCE_S):
            while more := await stream.receive_some(1_000):
                data += more
    assert data == encode({"id": 1, "ok": True}) + encode({"id": 2, "ok": True})


async def test_peer_when_there_are_too_many_then_the_next_is_told_and_cut_until_one_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_server, "CONNECTIONS_MAX", 2)
    async with desk.peer(HELLO) as one:
        async with desk.peer(HELLO):
            assert await desk.cut_reason(encode(HELLO)) == "all 2 connections are taken"
            assert await ask(one, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}
        await until(lambda: desk.server._count == 1)
        async with desk.peer(HELLO):
            pass


async def test_serve_when_an_earlier_socket_lies_there_then_it_is_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path.parent.mkdir()
    desk.path.touch()
    async with serving(desk), desk.peer(HELLO):
        pass
    assert desk.ended[0][0] == 16
