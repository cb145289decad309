"""A router in the test's own event loop: a real page, a real simulated venue behind its socket.

The router's tasks are left to the test, so that each moment that a process test could only hit by
luck (a fill while nobody listened, an answer that was lost) is made.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from actors.router import Router
from exchange_adapters.venue_port import StepEnded
from tests.contract.local_bench import LocalBench, running
from tests.tree_fixtures import (
    MARKET_MS,
    PATIENCE_S,
    approve,
    mark,
    paper_page,
    records,
    service,
    until,
)
from tripgate.gate.commit import Approved, commit
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import SLOT, WATERMARK
from tripgate.page.ring import RingReader

MARK, STOP = 500_000, 480_000


class Desk:
    """A page, a venue, and routers that come and go."""

    def __init__(self, bench: LocalBench) -> None:
        self.bench = bench
        self.page = paper_page()
        self.page.names.sockets["sim"] = str(bench.path.with_name("router.sock"))
        self.place = service(self.page, "router", "sim", venue_sockets={"sim": str(bench.path)})
        self.slot = claim_strategy_slot(self.page, 0)
        self.stream: Any = None
        mark(self.page, 0, MARK, step=0, market_ms=MARKET_MS)

    @asynccontextmanager
    async def router(self) -> AsyncIterator[Router]:
        """Start a router with an empty memory, as after a death; its tasks are left to the test."""
        async with self.bench.open() as venue:
            router = Router(self.place, venue)
            self.stream = await venue.events()
            await router.recover()
            yield router

    def approved(self, lots: int = 10, price: int = MARK + 5_000) -> Approved:
        order = approve(self.page, self.slot, 0, lots, price, STOP)
        self.page.rows(WATERMARK)["sequence"][self.slot] = 1 << 40
        return order

    async def leave(self, order: Approved) -> None:
        """Send an order as a router does that then dies: committed, at the venue, not recorded."""
        assert commit(self.page, order)
        async with self.router() as router:
            pass
        await self.bench.control.send(router.orders.venue_order(order, {}))

    async def told(self, router: Router) -> None:
        """Hand over what the venue tells until its next step marker."""
        with trio.fail_after(PATIENCE_S):
            while True:
                event = await anext(self.stream)
                router.events.append(event)
                if isinstance(event, StepEnded):
                    break
        router.take_events()

    def booked(self) -> None:
        """Let the keeper have taken everything that the router has told."""
        RingReader(self.page, "keeper").skip_to_head(self.place.slot)

    def all_acted(self) -> None:
        """Let every strategy have finished whatever step comes."""
        row = self.page.rows(SLOT)[self.slot]
        row["participating"], row["step"] = 1, 1 << 40

    def events(self, kind: EventKind) -> list[Any]:
        return [body for found, body in records(self.page, self.place.slot) if found is kind]


@asynccontextmanager
async def open_desk(folder: Path) -> AsyncIterator[Desk]:
    """Run a venue under ``folder`` for the length of the block."""
    async with running(folder) as bench:
        desk = Desk(bench)
        yield desk
        desk.place.close()


async def carry_out(router: Router) -> None:
    """Let the sender do all its jobs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(router.send_jobs)
        await until(lambda: not router._jobs and not router._busy)
        nursery.cancel_scope.cancel()
