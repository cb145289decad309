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
from tripgate.gate import check as gate_check
from tripgate.gate.context import AT, build_context, key_number
from tripgate.gate.decision import Decision, scope_text
from tripgate.gate.session import Order, RouterSession
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.status import GateStatus, read_status
from tripgate.gate.steps import StepClock, Tick
from tripgate.instance import page_folder, pick_instance
from tripgate.page.board import Quote, read_quote
from tripgate.page.layout import ENTRIES_PER_SLOT, ENTRY, KEY, SLOT
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with
from tripgate.reasons import DenyReason
from tripgate.units import InstrumentUnits

_TOKEN, _SCOPE, _LIMIT, _USED, _REQUESTED = (
    offset // 8 for offset in (AT.token, AT.scope, AT.limit, AT.used, AT.requested)
)


class InstrumentHandle:
    """One strategy's handle on one instrument: pre-bound, so that a check takes three integers."""

    def __init__(self, page: Page, slot: int, key: int) -> None:
        self._page = page
        self._key = key
        self._instrument = page.names.keys[key][1]
        self._context = build_context(page, slot, key)
        self._address = int(self._context.ctypes.data)
        self.name = page.names.instruments[self._instrument]
        self.units: InstrumentUnits = self.name.units

    def check_raw(self, lots: int, price_ticks: int, stop_ticks: int) -> int:
        """Return a token (> 0) or −``DenyReason`` for an order in lots and ticks.

        Parameters
        ----------
        lots
            Signed; positive buys.
        price_ticks
            Limit price; 0 is a market order.
        stop_ticks
            Protective stop; 0 is none, which only a close may have.
        """
        return gate_check.check_raw(self._address, lots, price_ticks, stop_ticks)

    def check(self, quantity: object, price: object = None, stop: object = None) -> Decision:
        """Judge an order and reserve for it.

        Parameters
        ----------
        quantity
            Signed quantity: Decimal, str, int or finite float, a multiple of the lot.
        price
            Limit price on the tick grid; None is a market order.
        stop
            Price of the protective stop; an opening needs one.

        Returns
        -------
        Decision
            Off-grid or non-finite input is denied with BAD_QUANTITY or BAD_PRICE, not raised:
            a strategy that computes nonsense must not crash into an unprotected position.
        """
        # Decimal answers numbers beyond its precision with an ArithmeticError, not a ValueError.
        try:
            lots = self.units.quantity_lots(quantity)
        except (ValueError, ArithmeticError):
            return self._deny_input(DenyReason.BAD_QUANTITY)
        try:
            price_ticks = 0 if price is None else self._positive_ticks(price)
            stop_ticks = 0 if stop is None else self._positive_ticks(stop)
        except (ValueError, ArithmeticError):
            return self._deny_input(DenyReason.BAD_PRICE)
        return self._decision(self.check_raw(lots, price_ticks, stop_ticks))

    @property
    def quote(self) -> Quote | None:
        """The instrument's latest prices in ticks, or None if there are none yet."""
        return read_quote(self._page, self._instrument)

    @property
    def position_lots(self) -> int:
        """The strategy's own position, signed lots."""
        return int(self._page.rows(KEY)["closable"][self._key]) >> 32

    def _positive_ticks(self, price: object) -> int:
        ticks = self.units.price_ticks(price)
        if ticks <= 0:
            raise ValueError(f"a price is positive, was {price}")
        return ticks

    def _deny_input(self, reason: DenyReason) -> Decision:
        # The kernel records and counts the denial: what is not in the log did not happen.
        lots, price = (0, 0) if reason is DenyReason.BAD_QUANTITY else (1, -1)
        return self._decision(self.check_raw(lots, price, 0))

    def _decision(self, answer: int) -> Decision:
        if answer > 0:
            return Decision(answer, None, "", 0, 0, 0)
        words = self._context
        return Decision(
            0,
            DenyReason(-answer),
            scope_text(self._page.names, int(words[_SCOPE])),
            int(words[_LIMIT]),
            int(words[_USED]),
            int(words[_REQUESTED]),
        )


class Gate:
    """A process's attachment to one instance's gate. Make it with ``Gate.attach``."""

    def __init__(self, page: Page, slot: int, strategy: int) -> None:
        self._page = page
        self._slot = slot
        self._strategy = strategy
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
        """Return a handle on an instrument. Raises ``UsageError`` if it may not be traded."""
        if position_side != "net":
            raise UsageError("this release trades one-way accounts: position_side is 'net'")
        names = self._page.names
        number = names.instrument(venue, symbol)
        key = key_number(self._page, self._strategy, number)
        if key < 0:
            raise UsageError(
                f"strategy {names.strategies[self._strategy]!r} does not list "
                f"{venue}/{symbol} in its config"
            )
        return InstrumentHandle(self._page, self._slot, key)

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
        row = self._page.rows(SLOT)[self._slot]
        if int(row["pid"]) == os.getpid():
            row["participating"] = 0

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
