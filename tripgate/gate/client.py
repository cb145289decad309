"""The client: what a strategy process imports to ask the gate and to send what it approved.

``Gate.attach`` maps the instance's page and claims a slot; ``gate.instrument`` binds a handle to
one instrument; ``handle.check`` answers with a ``Decision``. Nothing here waits for another
process: a check is a few dozen loads and compare-and-swaps in shared memory. Only ``submit``,
``cancel`` and ``events`` talk to the router, over a Unix socket.

If the tree dies, the page stays mapped and every opening is denied, because the leases lapse.
"""

import contextlib
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tripgate.errors import DeadlineError, UsageError, VenueError
from tripgate.gate.context import key_number
from tripgate.gate.decision import Decision
from tripgate.gate.denials import post_merged
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.session import Order, RouterSession
from tripgate.gate.slots import claim_strategy_slot, release_slot
from tripgate.gate.status import GateStatus, read_status
from tripgate.gate.steps import StepClock, Tick
from tripgate.instance import page_folder, pick_instance
from tripgate.page.layout import ENTRIES_PER_SLOT, ENTRY, SLOT
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with

_SIDES = {"net": 0, "long": 1, "short": -1}


class Gate:
    """A process's attachment to one instance's gate. Make it with ``Gate.attach``."""

    def __init__(self, page: Page, slot: int, strategy: int) -> None:
        self._page = page
        self._slot = slot
        self._strategy = strategy
        self._pid = os.getpid()
        self._handles: list[InstrumentHandle] = []
        self._sessions: dict[str, RouterSession] = {}
        self._steps: StepClock | None = None

    @classmethod
    def attach(cls, *, strategy: str, instance: str | None = None) -> Self:
        """Attach this process to a running instance.

        Parameters
        ----------
        strategy
            A strategy named in the instance's config.
        instance
            Default: ``TRIPGATE_INSTANCE``, else the only one running.

        Raises
        ------
        NotRunningError, PageError, UsageError
            No such instance, a page that may not be trusted, or an unknown strategy.
        """
        if tree := os.environ.get("TRIPGATE_TREE_PID"):
            # The tree started us: a strategy must not outlive what supervises it.
            exit_with(int(tree))
        page = open_page(page_folder(pick_instance(instance)))
        number = page.names.strategy(strategy)
        return cls(page, claim_strategy_slot(page, number), number)

    @property
    def page(self) -> Page:
        """The mapped page (control read-only)."""
        return self._page

    @property
    def instruments(self) -> tuple[tuple[str, str], ...]:
        """(venue, symbol) of every instrument this strategy may trade."""
        names = self._page.names
        mine = [names.instruments[i] for s, i in names.keys if s == self._strategy]
        return tuple((name.venue, name.symbol) for name in mine)

    def instrument(
        self, venue: str, symbol: str, *, position_side: str = "net"
    ) -> InstrumentHandle:
        """Return a handle on an instrument. Raises ``UsageError`` if it may not be traded.

        Parameters
        ----------
        position_side
            ``net`` in one-way accounts; ``long`` or ``short`` in hedge mode.
        """
        if position_side not in _SIDES:
            raise UsageError(f"position_side is net, long or short, was {position_side!r}")
        if os.getpid() != self._pid:
            raise UsageError("this gate was attached by the parent process: attach here as well")
        names = self._page.names
        number = names.instrument(venue, symbol)
        key = key_number(self._page, self._strategy, number, _SIDES[position_side])
        if key < 0:
            raise UsageError(
                f"strategy {names.strategies[self._strategy]!r} does not trade {venue}/{symbol} "
                f"with position_side {position_side!r} (its config says what it trades)"
            )
        handle = InstrumentHandle(self._page, self._slot, key)
        self._handles.append(handle)
        return handle

    def submit(
        self, decision: Decision, *, type: str | None = None, time_in_force: str = "GTC"
    ) -> Order:
        """Send an approved order through the router and return it.

        The order is built by the router from the gate's own entry; ``type`` ("limit" or "market",
        by default what was checked) and ``time_in_force`` (GTC or IOC) are only its style.
        """
        if not decision.approved:
            raise UsageError(f"only an approved decision can be submitted; this one was {decision}")
        with self._line(self._venue_of(decision.token)) as session:
            return session.submit(decision.token, type, time_in_force)

    def move_stop(self, handle: InstrumentHandle, stop: object) -> None:
        """Bring the protective stop of a handle's position nearer.

        Raises
        ------
        UsageError
            Off the grid, farther than it stands, on the wrong side of the mark, or no position.
        """
        try:
            ticks = handle.units.price_ticks(stop)
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"a stop is a price on the tick grid: {error}") from None
        with self._line(handle.name.venue) as session:
            session.move_stop(handle.key, ticks)

    def cancel(self, order: Order) -> None:
        """Ask the router to cancel an order; its events tell when it is gone."""
        with self._line(self._venue_of(order.token)) as session:
            session.cancel(order.token)

    def events(self, *, wait_s: float = 0.0) -> Iterator[dict[str, object]]:
        """Yield order events of this strategy that have arrived, waiting ``wait_s`` for a first."""
        for venue in self._page.names.sockets:
            with self._line(venue) as session:
                yield from session.events(wait_s)

    def ticks(self) -> Iterator[Tick]:
        """Yield each market step, in lock-step with a replay: the step ends with the loop body.

        The iteration ends when the feed has ended, the instance closes or the tree dies.
        """
        if self._steps is None:
            self._steps = StepClock(self._page, self._slot, self._strategy)
        return self._steps.ticks()

    def status(self) -> GateStatus:
        """Return the gate's state from the page alone; it works when every actor is dead."""
        return read_status(self._page)

    def close(self) -> None:
        """Leave the gate. What is reserved or resting stays until the tree resolves it."""
        for session in self._sessions.values():
            session.close()
        if self._steps is not None:
            self._steps.close()
        for handle in self._handles:
            handle.disown()
        row = self._page.rows(SLOT)[self._slot]
        if int(row["pid"]) == os.getpid():
            post_merged(self._page, self._slot)
            release_slot(self._page, self._slot)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        with contextlib.suppress(OSError):
            self.close()

    def _venue_of(self, token: int) -> str:
        first = self._page.slot_entries(self._slot)
        entries = self._page.rows(ENTRY)[first : first + ENTRIES_PER_SLOT]
        for entry in entries[entries["token"] == token]:
            return self._page.names.instruments[int(entry["instrument"])].venue
        raise UsageError(f"token {token} is not an order of this process")

    @contextlib.contextmanager
    def _line(self, venue: str) -> Iterator[RouterSession]:
        """Yield the line to a venue's router; after a failure the next use opens a new one."""
        if venue not in self._page.names.sockets:
            raise UsageError(
                f"no router serves {venue}: this page has no tree, send approved orders yourself "
                "(tripgate.gate.standalone.commit_token)"
            )
        if venue not in self._sessions:
            self._sessions[venue] = RouterSession(
                self._page.names.sockets[venue],
                strategy=self._page.names.strategies[self._strategy],
                slot=self._slot,
            )
        try:
            yield self._sessions[venue]
        except (VenueError, DeadlineError):
            self._sessions.pop(venue).close()
            raise
