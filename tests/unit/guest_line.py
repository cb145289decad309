"""A router with its socket open, and guests that speak to it over real connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from actors.router import Router
from exchange_adapters.frames import FrameStream
from tests.tree_fixtures import PATIENCE_S
from tests.unit.router_desk import Desk, carry_out, open_desk
from tripgate.gate.slots import release_slot
from tripgate.page.layout import SLOT, WATERMARK


class Line:
    """One guest's connection: answers by request, events in the order in which they came."""

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._number = 0
        self.events: list[dict[str, Any]] = []

    async def ask(self, operation: object, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request, without its id."""
        self._number += 1
        with trio.fail_after(PATIENCE_S):
            await self._stream.send({"id": self._number, "op": operation, **fields})
            while True:
                message: Any = await self._stream.receive()
                if message.pop("id", None) == self._number:
                    return dict(message)
                self.events.append(message)

    async def event(self, kind: str) -> dict[str, Any]:
        """Return the next event of a kind, dropping those before it."""
        with trio.fail_after(PATIENCE_S):
            while True:
                found: Any = self.events.pop(0) if self.events else await self._stream.receive()
                if found["event"] == kind:
                    return dict(found)


class GuestDesk:
    """A desk, its router and the way to it."""

    def __init__(self, desk: Desk, router: Router) -> None:
        self.desk = desk
        self.router = router
        self.page = desk.page
        # The venue tells where it stands when the stream is opened, and once for each move.
        self._markers = 1

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """Connect without a hello."""
        path = self.page.names.sockets["sim"]
        async with FrameStream(await trio.open_unix_socket(path)) as stream:
            yield Line(stream)

    @asynccontextmanager
    async def guest(self) -> AsyncIterator[Line]:
        """Connect and say hello for ``trend``."""
        async with self.line() as line:
            assert (await line.ask(**HELLO_FIELDS))["ok"]
            yield line

    @property
    def slot(self) -> int:
        """The slot of the one guest."""
        (slot,) = self.router.guests._guests
        return slot

    async def carry_out(self) -> None:
        """Make every record durable, as audit_writer does, and let the router send."""
        self.page.rows(WATERMARK)["sequence"] = self.page.rows(SLOT)["record_sequence"]
        await carry_out(self.router)

    async def trade(self) -> None:
        """Send what waits, and let the market move, so that what can fill has filled."""
        await self.carry_out()
        await self.desk.bench.move_market()
        for _ in range(self._markers + 1):
            await self.desk.told(self.router)
        self._markers = 0


HELLO_FIELDS: dict[str, Any] = {"operation": "hello", "protocol": 1, "strategy": "trend"}


@asynccontextmanager
async def open_guest_desk(folder: Path) -> AsyncIterator[GuestDesk]:
    """Run a router that listens, on a page whose one strategy nobody is attached for."""
    async with open_desk(folder) as desk, desk.router() as router, trio.open_nursery() as nursery:
        assert release_slot(desk.page, desk.slot)
        await nursery.start(router.server.serve, router.reception)
        yield GuestDesk(desk, router)
        nursery.cancel_scope.cancel()
