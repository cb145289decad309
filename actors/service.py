"""What every actor is given: its page, lease, ring, bell and clock, and the way to say "ready".

An actor's loop is always the same: wait for its bell or a fifth of its lease, look at the words it
reads, run its pure step, write the words it owns, renew its lease if that was useful work. Nothing
in the loop waits for a disk or a network: that runs in sibling tasks.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from actors.own_ring import OwnRing
from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_MS, host_ns
from tripgate.gate.slots import take_role_slot
from tripgate.logs import open_log
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.doorbell import WAIT_MAX_S, Doorbell, Ringer
from tripgate.page.layout import CONTROL_HEADER, LEASE, ROLE
from tripgate.page.lease import LeaseHolder
from tripgate.page.mapping import Page, open_page
from tripgate.page.ring import RingWriter
from tripgate.processes import end_even_if_stopped, exit_with

Started = Callable[[Any], Awaitable[None]]


class Service:
    """One actor's place in the tree.

    Attributes
    ----------
    page, names
        The page, both files writable, and its names.
    role, slot
        Number of the role, which is also the number of its slot.
    settings
        What the run's launcher decided (speed, sockets, config text …), plain values.
    events
        The own ring with its backlog: where ``emit`` puts what it is given.
    readied, stopping
        Set when the loop begins, and when it is to end in order: finish what is under way, return.
    turns
        Turns of the loop so far.
    log
        The operational log, for people; nothing is decided by it, and no secret gets into it.
    """

    def __init__(
        self, page: Page, actor: str, venue: str, incarnation: int, settings: Mapping[str, Any],
        started: Started,
    ) -> None:  # fmt: skip
        self.page = page
        self.names = page.names
        self.venue = venue
        self.incarnation = incarnation
        self.settings = settings
        self.role = page.names.role(actor, venue)
        self.slot = take_role_slot(page, self.role, incarnation)
        self.lease = LeaseHolder(page, self.role)
        self.ring = RingWriter(page, self.slot)
        self.events = OwnRing(self.ring)
        self.readied, self.stopping = trio.Event(), trio.Event()
        self.turns = 0
        self._is_crowded = False
        self.bell = Doorbell(page.folder, f"role{self.role}")
        self.ringer = Ringer(page.folder)
        name = f"{actor}-{venue}" if venue else actor
        self.log = open_log(
            Path(page.names.state_folder) / "logs", name, epoch=page.epoch, incarnation=incarnation
        )
        self._started = started
        self._step = page.address(ROLE, self.role, "step")

    @property
    def header(self) -> Any:
        """The control header (live record)."""
        return self.page.header

    @property
    def market_ms(self) -> int:
        """Market time, ms."""
        return atomics.load(self.page.address(CONTROL_HEADER, 0, "market_ms"))

    @property
    def pace_ms(self) -> int:
        """Clock of retries and request budgets, ms.

        Market time in a replay, whose run must not depend on the host; host time on live data,
        where a feed that has gone silent must not stop an exit from being tried again.
        """
        return self.market_ms if self.header["replay"] else host_ns() // NS_PER_MS

    @property
    def market_step(self) -> int:
        """The market step that the board stands at."""
        return atomics.load(self.page.address(CONTROL_HEADER, 0, "step"))

    def now_ns(self) -> int:
        """Return host time, ns."""
        return host_ns()

    async def ready(self) -> None:
        """Tell the supervisor that state is rebuilt and the loop begins."""
        await self._started({"pid": os.getpid(), "incarnation": self.incarnation})
        self.readied.set()
        self.log.info("ready")

    async def turn(self, timeout_s: float = WAIT_MAX_S) -> None:
        """Wait for the bell, at most ``timeout_s``; then put into the ring what waited for room."""
        with trio.move_on_after(timeout_s):
            await trio.lowlevel.wait_readable(self.bell.socket.fileno())
        self.bell.drain()
        self.turns += 1
        self.events.flush()
        self.tell_crowded()

    def tell_crowded(self) -> bool:
        """Return whether the own ring has no room to spare; record when that begins and ends."""
        crowded = self.events.is_crowded
        if crowded is not self._is_crowded:
            self._is_crowded = crowded
            kind = EventKind.RING_CROWDED if crowded else EventKind.RING_ROOMY
            self.emit(kind, {"slot": self.slot, "pending": self.events.pending})
        return crowded

    def emit(
        self, kind: EventKind, body: Mapping[str, Any], *, market_ms: int | None = None
    ) -> None:
        """Put an event into the own ring, or in line for it while the ring is full.

        Parameters
        ----------
        market_ms
            The venue's own stamp of what is told, where there is one; else the page's market time.

        Raises
        ------
        InvariantBroken
            Ring and line are full: a tree process that cannot record what it did must not go on.
        """
        stamp_ms = self.market_ms if market_ms is None else market_ms
        self.log.debug(kind.name, body=body)
        self.events.append(int(kind), pack_body(dict(body)), host_ns(), stamp_ms)

    def finish_step(self, step: int) -> None:
        """Publish that this role has handled a market step, and ring everybody."""
        atomics.store(self._step, step)
        self.ringer.ring_all()

    def step_of(self, actor: str, venue: str = "", field: str = "step") -> int:
        """Return the step that another role has published."""
        return atomics.load(self.page.address(ROLE, self.names.role(actor, venue), field))

    def lease_left_ns(self, role: int) -> int:
        """Return how long a role's lease still holds, ns (negative once lapsed)."""
        return atomics.load(self.page.address(LEASE, role)) - host_ns()

    def close(self) -> None:
        """Take the bell down; tell the log what ended us, if it was an error."""
        error = sys.exception()
        if isinstance(error, Exception):
            self.log.error("failed", exc_info=error)
        else:
            self.log.info("ended")
        self.bell.close()
        self.ringer.close()


def attach(
    folder: str, actor: str, venue: str, incarnation: int, settings: Mapping[str, Any],
    started: Started,
) -> Service:  # fmt: skip
    """Open the page for an actor. The guard comes first: no actor outlives its tree."""
    exit_with(os.getppid())
    end_even_if_stopped()
    page = open_page(Path(folder), control_writable=True)
    return Service(page, actor, venue, incarnation, settings, started)
