"""``LocalVenue`` against its own bounds, a dead line and a peer that is no venue."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from exchange_adapters import local_venue
from exchange_adapters.contract import kit
from exchange_adapters.frames import FrameStream
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.simulator.server import open_listener
from tests.contract.local_bench import BTC, PATIENCE_S, LocalBench, run
from tripgate.errors import VenueError, VenueUnknownError


def test_event_stream_when_its_reader_falls_behind_then_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_venue, "EVENTS_MAX", 3)

    async def check(bench: LocalBench) -> None:
        async with bench.open() as venue:
            events = await venue.events()
            for _ in range(3):
                await bench.move_market()
            steps = [(await anext(events)) for _ in range(3)]
            assert [getattr(step, "step", None) for step in steps] == [0, 1, 2]
            with pytest.raises(VenueError, match="read faster"):
                await anext(events)
            with pytest.raises(VenueError, match="was not sent"):
                await venue.account()

    run(tmp_path, check)


def test_send_when_too_many_requests_wait_then_is_refused_and_definitely_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(bench: LocalBench) -> None:
        monkeypatch.setattr(local_venue, "REQUESTS_MAX", 0)
        with pytest.raises(VenueError, match="was not sent") as caught:
            await bench.control.send(kit.market_order(bench, 1))
        assert not isinstance(caught.value, VenueUnknownError)

    run(tmp_path, check)


def test_send_when_an_order_cannot_be_framed_then_is_definitely_not_sent(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        order = msgspec.structs.replace(kit.market_order(bench, 1), lots=2**70)
        with pytest.raises(VenueError, match="was not sent") as caught:
            await bench.control.send(order)
        assert not isinstance(caught.value, VenueUnknownError)
        assert (await bench.control.account()).open_orders == ()

    run(tmp_path, check)


def test_second_reader_when_one_listens_already_then_is_refused(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        await bench.control.events()
        await bench.control.subscribe_ticks()
        with pytest.raises(VenueError, match="already"):
            await bench.control.events()
        with pytest.raises(VenueError, match="already"):
            await bench.control.subscribe_ticks()

    run(tmp_path, check)


def test_venue_when_nobody_listens_then_says_so(tmp_path: Path) -> None:
    async def body() -> None:
        async with open_local_venue(tmp_path / "none.sock"):
            pass

    with pytest.raises(VenueError, match="no venue answers"):
        trio.run(body)


def strange_venue(folder: Path, answers: Callable[[dict[str, Any]], object]) -> Any:
    """Connect to a peer that greets as a venue and then answers as ``answers`` says."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[LocalVenue]:
        listener = await open_listener(folder / "strange.sock")

        async def serve() -> None:
            async with listener, FrameStream(await listener.accept()) as frames:
                while isinstance(request := await frames.receive(), dict):
                    if (answer := answers(request)) is not None:
                        await frames.send(answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_local_venue(folder / "strange.sock", request_deadline_s=0.2) as venue:
                yield venue
            nursery.cancel_scope.cancel()

    return opened()


HELLO = {
    "symbols": [BTC],
    "instruments": {},
    "step": 0,
    "market_ms": 0,
    "step_ms": 1,
    "length": 1,
    "feed": "x",
    "seed": 0,
    "starting_equity_money": 1,
    "finished": False,
}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(None, id="silence"),
        pytest.param({}, id="neither ok nor error"),
        pytest.param({"ok": {}}, id="empty ok"),
        pytest.param({"ok": []}, id="ok of another shape"),
        pytest.param({"ok": {"client_id": kit.client_id(9), "market_ms": 1}}, id="other order"),
        pytest.param({"error": "overloaded", "message": "later"}, id="unlisted error"),
        pytest.param({"error": "bad_lots"}, id="reject without a message"),
        pytest.param({"error": ["bad_lots"]}, id="error of another shape"),
    ],
)
def test_answer_when_it_is_missing_or_nonsense_then_send_is_unknown_and_reads_fail(
    body: dict[str, object] | None, tmp_path: Path
) -> None:
    def answers(request: dict[str, Any]) -> object:
        if request["op"] == "hello":
            return {"id": request["id"], "ok": HELLO}
        return None if body is None else {"id": request["id"], **body}

    async def check() -> None:
        bench = LocalBench(tmp_path, control=None)  # type: ignore[arg-type]
        async with strange_venue(tmp_path, answers) as venue:
            with pytest.raises(VenueUnknownError):
                await venue.send(kit.market_order(bench, 1))
            with pytest.raises(VenueUnknownError):
                await venue.cancel(kit.client_id(1))
            with pytest.raises(VenueUnknownError):
                await venue.cancel_all()
            for read in (
                venue.account,
                lambda: venue.trades(0),
                lambda: venue.query(kit.client_id(1)),
                lambda: venue.advance(0),
            ):
                with pytest.raises(VenueError) as caught:
                    await read()
                assert not isinstance(caught.value, VenueUnknownError)

    async def body_in_time() -> None:
        with trio.fail_after(PATIENCE_S):
            await check()

    trio.run(body_in_time)


@pytest.mark.parametrize(
    "push",
    [
        pytest.param(["no", "map"], id="no map"),
        pytest.param({"push": "order", "event": "liquidated"}, id="unknown event"),
        pytest.param({"push": "step", "channel": "orders", "step": "1"}, id="step of text"),
        pytest.param({"id": None, "error": "bad_frame", "message": "garbled"}, id="error frame"),
    ],
)
def test_push_when_it_makes_no_sense_then_the_connection_and_its_streams_end(
    push: object, tmp_path: Path
) -> None:
    def answers(request: dict[str, Any]) -> object:
        return {"id": request["id"], "ok": HELLO} if request["op"] == "hello" else push

    async def body() -> None:
        with trio.fail_after(PATIENCE_S):
            async with strange_venue(tmp_path, answers) as venue:
                with pytest.raises(VenueError):
                    await venue.events()
                with pytest.raises(VenueError, match="was not sent"):
                    await venue.account()

    trio.run(body)
