"""The control link: what the root and each of its children tell each other beside the page.

It runs over the stream of the context that is the child's life. Child to root: it lives, how its
loop turns and how late its event loop is. Root to child: it lives, and ``Stop``, upon which an
actor ends its loop in order, with cancellation only after the grace.

Nothing waits for this link: neither the child's work loop nor the supervisor's watch. Its silence
is recorded and shown; of an actor that has given its lease up it also tells the root that it hangs.
Leases alone decide what is safe.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from actors import secret
from actors.link import BEAT_S, End, LatestLink, Note
from actors.service import Service
from tripgate.clock import NS_PER_S, host_ns
from tripgate.messages import Heartbeat, LinkMessage, Stop
from tripgate.page.layout import LINK, ROLE
from tripgate.page.links import ROOT, from_root, to_root
from tripgate.page.mapping import Page

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
ROOT_ROLE = 0
ROOT_INCARNATION = 1
"""The root lives once per epoch."""


class Pulse:
    """What a process says of itself: turns of its loop, lag of its event loop, memory."""

    def __init__(self, turns: Callable[[], int]) -> None:
        self._turns = turns
        self._lag_us = 0

    async def watch(self) -> None:
        """Measure how late the event loop wakes a sleeper, for ever."""
        while True:
            began_ns = host_ns()
            await trio.sleep(BEAT_S)
            late_ns = host_ns() - began_ns - int(BEAT_S * NS_PER_S)
            self._lag_us = max(0, late_ns // 1000)

    def beat(self) -> Heartbeat:
        """Return the heartbeat of this moment."""
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return Heartbeat(self._turns(), self._lag_us, resident * PAGE_KIB)


async def run_actor(ctx: Any, place: Service, run: Callable[[Service], Awaitable[None]]) -> None:
    """Run an actor beside its control link; return when it has ended in order.

    Parameters
    ----------
    ctx
        The context of the call: a stream of it carries the link.
    run
        The actor's own ``run``; it ends when ``place.stopping`` is set, or is cancelled after the
        grace.
    """
    async with trio.open_nursery() as nursery:
        if secret.is_known():
            nursery.start_soon(_serve, ctx, place, nursery.cancel_scope)
        await run(place)
        nursery.cancel_scope.cancel()


async def _serve(ctx: Any, place: Service, life: trio.CancelScope) -> None:
    await place.readied.wait()
    name, rows = place.names.roles[place.role].text, place.page.rows(LINK)
    end = End(
        place.page.epoch, name, place.incarnation, ROOT, ROOT_INCARNATION, secret.get_key(),
        rows[to_root(place.role)], rows[from_root(place.role)],
    )  # fmt: skip
    pulse = Pulse(lambda: place.turns)
    async with ctx.open_stream() as stream, trio.open_nursery() as nursery:
        link = LatestLink(
            stream, end, beat=pulse.beat, note=place.emit, market_ms=lambda: place.market_ms,
            speaks_first=False,
        )  # fmt: skip
        nursery.start_soon(link.run)
        nursery.start_soon(pulse.watch)
        while True:
            message = await link.next()
            if isinstance(message, Stop) and not place.stopping.is_set():
                place.stopping.set()
                nursery.start_soon(_cancel_after, message.grace_s, life)


async def _cancel_after(grace_s: float, life: trio.CancelScope) -> None:
    await trio.sleep(grace_s)
    life.cancel()


class Control:
    """The root's end of one child's control link."""

    def __init__(self, page: Page, role: int, incarnation: int, note: Note) -> None:
        self._page = page
        self._role = role
        self._incarnation = incarnation
        self._note = note
        self._link: LatestLink | None = None
        self._stop: Stop | None = None
        self.over = trio.Event()

    def stop(self, grace_s: float) -> None:
        """Ask the child to end in order; it is told with every beat until it has. Never blocks."""
        self._stop = Stop(grace_s)
        if self._link is not None:
            self._link.stand(self._stop)

    async def attend(self, context: Any) -> Any:
        """Keep the link until the child's call ends; return its result or raise what ended it."""
        try:
            if secret.is_known():
                await self._talk(context)
            return await context.result()
        finally:
            self.over.set()

    async def _talk(self, context: Any) -> None:
        async with context.open_stream() as stream, trio.open_nursery() as nursery:
            self._link = self._open(stream)
            if self._stop is not None:
                self._link.stand(self._stop)
            nursery.start_soon(self._listen, self._link)
            await self._link.run()
            nursery.cancel_scope.cancel()

    def _open(self, stream: Any) -> LatestLink:
        rows, name = self._page.rows(LINK), self._page.names.roles[self._role].text
        end = End(
            self._page.epoch, ROOT, ROOT_INCARNATION, name, self._incarnation, secret.get_key(),
            rows[from_root(self._role)], rows[to_root(self._role)],
        )  # fmt: skip
        renewals = self._page.rows(ROLE)["renewals"]
        pulse = Pulse(lambda: int(renewals[ROOT_ROLE]))
        return LatestLink(
            stream, end, beat=pulse.beat, note=self._note,
            market_ms=lambda: int(self._page.header["market_ms"]),
        )  # fmt: skip

    async def _listen(self, link: LatestLink) -> None:
        row = self._page.rows(LINK)[to_root(self._role)]
        while True:
            message: LinkMessage = await link.next()
            if isinstance(message, Heartbeat):
                row["turns"], row["lag_us"] = message.turns, message.lag_us
                row["rss_kib"] = message.rss_kib
