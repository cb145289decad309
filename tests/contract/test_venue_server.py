"""The local port against clients that misbehave."""

import socket
from pathlib import Path

import pytest
import trio

from exchange_adapters.contract import kit
from exchange_adapters.frames import FrameStream
from exchange_adapters.simulator import server
from tests.contract.local_bench import BTC, LocalBench, TinyFeed, run
from tripgate.errors import VenueError
from tripgate.frames import encode


def test_venue_when_a_client_dies_at_any_byte_then_keeps_serving(tmp_path: Path) -> None:
    frame = encode({"id": 1, "op": "subscribe", "channels": ["ticks", "orders"]})

    async def check(bench: LocalBench) -> None:
        for length in range(len(frame) + 1):
            stream = await trio.open_unix_socket(str(bench.path))
            await stream.send_all(frame[:length])
            await stream.aclose()
        await bench.move_market()
        assert (await bench.control.hello()).step == 1

    run(tmp_path, check)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff\xff\xff\xff", id="oversized"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\0\0\0\1\xc1", id="no msgpack"),
    ],
)
def test_connection_when_it_sends_garbage_then_is_told_and_cut_and_others_live(
    garbage: bytes, tmp_path: Path
) -> None:
    async def check(bench: LocalBench) -> None:
        async with FrameStream(await trio.open_unix_socket(str(bench.path))) as frames:
            await frames.send_bytes(garbage)
            answer = await frames.receive()
            assert isinstance(answer, dict)
            assert (answer["id"], answer["error"]) == (None, "bad_frame")
            assert await frames.receive() is None
        assert (await bench.control.hello()).step == 0

    run(tmp_path, check)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param([1, 2], id="no map"),
        pytest.param({"id": 1}, id="no op"),
        pytest.param({"id": 1, "op": "withdraw"}, id="unknown op"),
        pytest.param({"id": "1", "op": "hello"}, id="text id"),
        pytest.param({"id": 1, "op": "hello", "extra": 1}, id="unknown field"),
        pytest.param({"id": 1, "op": "advance", "step": 0.0}, id="float step"),
        pytest.param({"id": 1, "op": "subscribe", "channels": ["fills"]}, id="unknown channel"),
        pytest.param(
            {
                "id": 1,
                "op": "send",
                "client_id": kit.client_id(1),
                "symbol": BTC,
                "side": 1,
                "lots": True,
                "kind": "market",
            },
            id="bool lots",
        ),
    ],
)
def test_connection_when_it_sends_a_bad_request_then_is_answered_and_stays(
    request_: object, tmp_path: Path
) -> None:
    async def check(bench: LocalBench) -> None:
        async with FrameStream(await trio.open_unix_socket(str(bench.path))) as frames:
            await frames.send(request_)
            answer = await frames.receive()
            assert isinstance(answer, dict)
            assert answer["error"] == "bad_request"
            await frames.send({"id": 2, "op": "account"})
            answer = await frames.receive()
            assert isinstance(answer, dict)
            assert (answer["id"], answer["ok"]["open_orders"]) == (2, [])

    run(tmp_path, check)


@pytest.mark.parametrize(
    "request_",
    [
        {"id": 1, "op": "hello", "x" * 900_000: 1},
        {"id": 1, "op": "w" * 900_000},
        {"id": 1, "op": "cancel_all", "symbol": "\0" * 900_000},
        {
            "id": 1,
            "op": "send",
            "client_id": kit.client_id(1),
            "symbol": "\0" * 900_000,
            "side": 1,
            "lots": 1,
            "kind": "market",
        },
    ],
    ids=["field", "op", "symbol", "order"],
)
def test_venue_when_a_request_is_as_long_as_a_frame_then_its_answer_still_fits(
    request_: dict[str, object], tmp_path: Path
) -> None:
    async def check(bench: LocalBench) -> None:
        async with FrameStream(await trio.open_unix_socket(str(bench.path))) as frames:
            await frames.send(request_)
            assert isinstance(await frames.receive(), dict)
        assert (await bench.control.hello()).step == 0

    run(tmp_path, check)


def test_client_when_it_pipelines_more_than_the_outbox_holds_then_gets_every_answer(
    tmp_path: Path,
) -> None:
    count = 3 * server.OUTBOUND_CHUNKS_MAX

    async def check(bench: LocalBench) -> None:
        async with FrameStream(await trio.open_unix_socket(str(bench.path))) as frames:
            async with trio.open_nursery() as nursery:
                requests = [encode({"id": number, "op": "hello"}) for number in range(count)]
                nursery.start_soon(frames.send_bytes, b"".join(requests))
                for number in range(count):
                    answer = await frames.receive()
                    assert isinstance(answer, dict)
                    assert answer["id"] == number

    run(tmp_path, check)


def test_subscriber_when_it_does_not_read_then_is_cut_and_the_market_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OUTBOUND_CHUNKS_MAX", 4)
    # Only the full queue may cut it here, not the deadline of a write.
    monkeypatch.setattr(server, "SEND_DEADLINE_S", 1e6)

    async def check(bench: LocalBench) -> None:
        stream = await trio.open_unix_socket(str(bench.path))
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await stream.send_all(encode({"id": 1, "op": "subscribe", "channels": ["ticks"]}))
        is_cut = False
        for step in range(5_000):
            await bench.control.advance(step)
            try:
                # Writing into a closed connection is how a peer that never reads notices.
                await stream.send_all(encode({"id": 2, "op": "advance", "step": 0}))
            except trio.BrokenResourceError:
                is_cut = True
                break
        await stream.aclose()
        assert is_cut
        assert await bench.control.advance(step + 1) == step + 2

    run(tmp_path, check, TinyFeed(length=10_000))


def test_write_when_its_reader_is_stuck_then_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_DEADLINE_S", 0.05)

    async def check(bench: LocalBench) -> None:
        for number in range(600):
            await kit.send_well(bench.control, kit.market_order(bench, number))
        await bench.move_market()
        stream = await trio.open_unix_socket(str(bench.path))
        # Ten pages of trades are more than the kernel holds for a reader that does not read.
        frame = encode({"id": 1, "op": "trades", "after": 0})
        await stream.send_all(frame * 10)
        while True:
            try:
                await stream.send_all(encode({"id": 2, "op": "hello"}))
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.01)
        await stream.aclose()
        assert (await bench.control.hello()).step == 1

    run(tmp_path, check)


def test_connection_when_too_many_are_open_then_is_told_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)

    async def check(bench: LocalBench) -> None:
        async with bench.open():
            with pytest.raises(VenueError, match="2 connections are open"):
                async with bench.open():
                    pass
        while True:  # The venue needs a moment to see that the second has gone.
            try:
                async with bench.open() as venue:
                    assert (await venue.hello()).step == 0
                    return
            except VenueError:
                await trio.sleep(0.01)

    run(tmp_path, check)


def test_shutdown_when_asked_then_every_connection_ends_and_nobody_listens(
    tmp_path: Path,
) -> None:
    async def check(bench: LocalBench) -> None:
        async with bench.open() as other:
            ticks = await other.subscribe_ticks()
            await anext(ticks)
            await bench.control.shutdown()
            with pytest.raises(VenueError, match="reconnect"):
                await anext(ticks)
        is_up = True
        while is_up:
            try:
                async with bench.open():
                    await trio.sleep(0.01)
            except VenueError:
                is_up = False

    run(tmp_path, check)
