"""A simulated venue behind a real Unix socket inside a test's own event loop.

``test_venue_process.py`` runs the venue as the process it is; here a test can reach its books.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from exchange_adapters.frames import FrameStream
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.market.feed import Step
from exchange_adapters.simulator.instruments import load_instruments
from exchange_adapters.simulator.server import VenueServer, open_listener
from exchange_adapters.simulator.venue import TRADES_PAGE_MAX, SimulatedVenue

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
PATIENCE_S = 60.0
STEP_MS = 15_000


@dataclass(frozen=True)
class TinyFeed:
    """Prices that rise by one tick a step; ETH has no tick on odd steps."""

    length: int = 1_000
    symbols: tuple[str, ...] = (BTC, ETH)
    step_ms: int = STEP_MS
    start_ms: int = 1_600_000_000_000

    def step(self, index: int) -> Step:
        ticks = (500_000 + index, None if index % 2 else 20_000 + index)
        return Step(index, self.start_ms + index * STEP_MS, ticks)


@dataclass(frozen=True)
class LocalBench:
    """The contract kit's way to one venue."""

    path: Path
    control: LocalVenue
    symbol: str = BTC
    fills_beyond_a_page: int = TRADES_PAGE_MAX + 5

    def open(self) -> AbstractAsyncContextManager[LocalVenue]:
        return open_local_venue(self.path, request_deadline_s=PATIENCE_S)

    @asynccontextmanager
    async def open_losing_answers(self) -> AsyncIterator[LocalVenue]:
        """Connect through a middleman that drops the answer to a send, and the line with it."""
        middle_path = self.path.with_name("middle.sock")
        listener = await open_listener(middle_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stand_between, listener)
            try:
                async with open_local_venue(middle_path, request_deadline_s=PATIENCE_S) as venue:
                    yield venue
            finally:
                nursery.cancel_scope.cancel()

    async def _stand_between(self, listener: trio.SocketListener) -> None:
        stream = await listener.accept()
        await listener.aclose()
        async with (
            FrameStream(stream) as client,
            FrameStream(await trio.open_unix_socket(str(self.path))) as venue,
        ):
            await self._pass_all_but_answers_to_sends(client, venue)

    async def _pass_all_but_answers_to_sends(self, client: FrameStream, venue: FrameStream) -> None:
        lost: set[int] = set()

        async def forward_requests() -> None:
            while isinstance(message := await client.receive(), dict):
                if message["op"] == "send":
                    lost.add(message["id"])
                await venue.send(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward_requests)
            while isinstance(answer := await venue.receive(), dict):
                if answer.get("id") in lost:
                    break
                await client.send(answer)
            nursery.cancel_scope.cancel()

    async def move_market(self) -> None:
        await self.control.advance((await self.control.hello()).step)


@asynccontextmanager
async def running(folder: Path, feed: TinyFeed | None = None) -> AsyncIterator[LocalBench]:
    path = folder / "venue.sock"
    feed = feed or TinyFeed()
    venue = SimulatedVenue(
        feed,
        load_instruments(feed.symbols),
        feed_spec="tiny",
        seed=3,
        starting_equity_money=10**9,
    )
    listener = await open_listener(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(VenueServer(venue, idle_exit_s=PATIENCE_S).serve, listener)
        async with open_local_venue(path, request_deadline_s=PATIENCE_S) as control:
            yield LocalBench(path, control)
        nursery.cancel_scope.cancel()


def run(
    folder: Path, check: Callable[[LocalBench], Awaitable[None]], feed: TinyFeed | None = None
) -> None:
    async def body() -> None:
        with trio.fail_after(PATIENCE_S):
            async with running(folder, feed) as bench:
                await check(bench)

    trio.run(body)
