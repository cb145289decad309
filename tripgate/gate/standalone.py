"""The gate without a tree: hard limits across processes, kept alive by one process of yours.

``open_standalone`` makes a page and returns its owner's hand on it. Strategies in any process
attach with ``Gate.attach(strategy=..., instance=...)`` and ask as ever. The owner gives marks, says
what filled and ended, and calls ``renew`` several times per lease; everything else is in the page.

What there is: every rule of the check, one set of limits for all processes, reservations that
outlive their client until they are settled, repair after a client's death. What there is not, and
a tree has: a router (you send the orders, so nothing keeps an unchecked one from leaving),
protective stops at the venue, a breaker, margin and currency rates, and a log: a decision's record
is handed to ``on_record``, and counts as kept when that returns. Positions are not remembered from
run to run: ``adopt`` them before ``open``.

Invariants: S1 the page is closed until ``open``, and after ``close``; S2 the owner's death, or its
silence for one lease, denies every opening; S3 only the owner moves positions and releases orders.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tripgate.clock import NS_PER_S, coarse_resolution_ns, host_ns, utc_ms
from tripgate.errors import ConfigError, PageError, UsageError
from tripgate.gate.commit import commit, find_reserved
from tripgate.gate.repair import Truth, died_inside, freeze, rebuild, thaw
from tripgate.gate.settle import EntryRef, Settlement
from tripgate.gate.slots import take_role_slot
from tripgate.gate.standalone_tables import (
    OWNER_ROLE,
    StandaloneInstrument,
    capacities_of,
    make_names,
    read_limits,
    write_tables,
)
from tripgate.gate.words import token_slot
from tripgate.instance import InstanceLock, next_epoch, page_folder, prepare_state, state_folder
from tripgate.page.board import Quote, read_quote, write_quote
from tripgate.page.layout import KEY, WATERMARK
from tripgate.page.lease import LeaseHolder
from tripgate.page.level import bump_generation
from tripgate.page.mapping import Page, create_page, open_page
from tripgate.page.ring import Frame, RingReader
from tripgate.processes import process_start_time
from tripgate.units import notional_money

__all__ = ["GatePage", "StandaloneInstrument", "commit_token", "open_standalone"]

LEASE_S_MAX = 60.0
FIRST_STEP = 0


def open_standalone(
    instance: str,
    *,
    limits: Mapping[str, tuple[object, object]],
    instruments: Mapping[str, StandaloneInstrument],
    strategies: Mapping[str, int],
    reporting_currency: str,
    lease_s: float = 0.5,
    on_record: Callable[[Frame], None] | None = None,
) -> "GatePage":
    """Make the page of a standalone gate, closed, owned by this process.

    Parameters
    ----------
    instance
        Name that clients attach to; its epoch is kept in the state folder.
    limits
        (gross, net) in the reporting currency, amounts or "none", for each scope: ``portfolio``,
        ``venue:V``, ``asset:A``, ``strategy:S`` and ``instrument:V/SYMBOL``.
    instruments
        By ``VENUE/SYMBOL``.
    strategies
        Openings per second of each strategy, all its processes together.
    lease_s
        How long the owner may be silent before openings are denied, above 0, at most 60.
    on_record
        Called in ``renew`` with each new record of any process, oldest first of each. An exception
        from it ends ``renew`` before the lease is renewed.

    Raises
    ------
    ConfigError
        Everything that is wrong with the arguments; nothing was made.
    AlreadyRunningError
        A live process owns the instance.
    StateUnwritableError
        The state or shared-memory folder cannot be written.
    """
    if not 0 < lease_s <= LEASE_S_MAX:
        raise ConfigError(f"lease_s is above 0 and at most {LEASE_S_MAX:.0f}, was {lease_s!r}")
    state = state_folder(instance)
    names = make_names(instance, state, reporting_currency, instruments, strategies)
    amounts = read_limits(names, limits)
    with ExitStack() as stack:
        stack.enter_context(InstanceLock(instance))
        prepare_state(instance)
        _close_old_page(instance)
        epoch, folder = next_epoch(state), page_folder(instance)
        page = create_page(folder, capacities_of(names), names, epoch=epoch, shadow=False)
        write_tables(page, amounts, instruments, strategies, int(lease_s * NS_PER_S))
        _write_header(page)
        return GatePage(page, stack.pop_all(), on_record)


def commit_token(page: Page, token: int) -> bool:
    """Say that the order of a token is about to be sent, from whatever process sends it.

    A reservation that nobody commits is taken back two seconds after its grant. What is committed
    stays charged until the owner settles it with ``fill`` and ``release``.

    Returns
    -------
    bool
        False if the reservation has expired or was used: the order must not be sent.
    """
    order = find_reserved(page, token, token_slot(token))
    return order is not None and commit(page, order)


class GatePage:
    """The owner's hand on a standalone page. Made by ``open_standalone``."""

    def __init__(
        self, page: Page, stack: ExitStack, on_record: Callable[[Frame], None] | None
    ) -> None:
        self.page = page
        self._stack = stack
        self._on_record = on_record
        take_role_slot(page, OWNER_ROLE, 1)
        self._settlement = Settlement(page, OWNER_ROLE)
        self._lease = LeaseHolder(page, OWNER_ROLE)
        self._reader = RingReader(page, "audit")
        self._values = [name.units.value_fraction() for name in page.names.instruments]
        self._filled: dict[int, int] = {}
        self._step = FIRST_STEP

    def mark(
        self, instrument: str, price: object, *, bid: object = None, ask: object = None,
        last: object = None, index: object = None,
    ) -> None:  # fmt: skip
        """Publish an instrument's prices and count its positions at the new mark.

        Parameters
        ----------
        instrument
            ``VENUE/SYMBOL``.
        price
            The mark, on the tick grid. Bid, ask and last are the mark where they are not given;
            an index that is not given is absent.

        Raises
        ------
        UsageError
            An unknown instrument, or a price that is none; the board is unchanged.
        """
        number = self._instrument(instrument)
        mark = self._ticks(number, price)

        def given(other: object, absent: int) -> int:
            return absent if other is None else self._ticks(number, other)

        self._tick_clock()
        self._step += 1
        quote = Quote(
            mark, given(last, mark), given(bid, mark), given(ask, mark),
            int(self.page.header["market_ms"]), self._step, 0, given(index, 0),
        )  # fmt: skip
        write_quote(self.page, number, quote, host_ns())
        for key, (_, traded) in enumerate(self.page.names.keys):
            if traded == number and self._position(key):
                self._settlement.mark(key, self._worth(key, self._position(key)))

    def adopt(self, strategy: str, instrument: str, quantity: object) -> None:
        """Take over a position that a strategy holds already; it needs a mark first.

        Raises
        ------
        UsageError
            Unknown names, a quantity off the lot grid, or no mark yet.
        """
        number = self._instrument(instrument)
        key = self.page.names.keys.index((self.page.names.strategy(strategy), number))
        try:
            lots = self.page.names.instruments[number].units.quantity_lots(quantity)
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"{instrument}: {error}") from None
        if lots:
            worth = self._worth(key, self._position(key) + lots)
            self._settlement.fill(key, None, lots, worth)

    def open(self) -> None:
        """Let openings be judged: positions are adopted and marks are given."""
        self.renew()
        self.page.header["closed"], self.page.header["armed"] = 0, 1

    def renew(self) -> None:
        """Do the owner's work and vouch for one more lease; call it five times per lease.

        Hands new records on, takes back what nobody committed, frees what has ended, repairs after
        a client that died while it changed shared words, and moves market time.
        """
        now_ns = host_ns()
        self._tick_clock()
        self._drain()
        self._settlement.reap(now_ns)
        self._settlement.free_durable()
        if died_inside(self.page):
            self._repair()
        self._settlement.post_exits()
        self._lease.renew(now_ns)

    def commit(self, token: int) -> bool:
        """See ``commit_token``."""
        return commit_token(self.page, token)

    def fill(self, token: int, quantity: object) -> None:
        """Book a fill of a committed order; the last one also releases it.

        Parameters
        ----------
        quantity
            What this fill traded, above 0, at most what remains of the order.

        Raises
        ------
        UsageError
            No live order has the token, or the quantity is not one that can have filled.
        """
        entry = self._entry(token)
        units = self.page.names.instruments[self.page.names.keys[entry.key][1]].units
        try:
            lots = units.quantity_lots(quantity)
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"token {token}: {error}") from None
        if not 0 < lots <= entry.remaining:
            remaining = units.quantity_text(entry.remaining)
            raise UsageError(f"token {token}: {quantity} filled of the {remaining} that remain")
        signed = lots if entry.lots > 0 else -lots
        worth = self._worth(entry.key, self._position(entry.key) + signed)
        self._settlement.fill(entry.key, entry, signed, worth)
        self._filled[token] = self._filled.get(token, 0) + lots
        if lots == entry.remaining:
            self._end(token)

    def release(self, token: int) -> bool:
        """Give back what is left of an order that has ended at the venue, and only then.

        Returns
        -------
        bool
            False if no live order has the token.
        """
        return self._live(token) is not None and self._end(token)

    def close(self) -> None:
        """Deny everything from now on and let the instance go."""
        header = self.page.header
        header["closed"] = header["ended"] = 1
        header["armed"] = 0
        bump_generation(self.page)
        self._stack.close()

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
        self.close()

    def _drain(self) -> None:
        watermark = self.page.rows(WATERMARK)["sequence"]
        for slot in range(self.page.layout.capacities.slots):
            if not self._reader.backlog(slot):
                continue
            for frame in self._reader.read(slot):
                if self._on_record is not None:
                    self._on_record(frame)
                watermark[slot] = frame.sequence
                self._reader.release(slot, frame.end)

    def _repair(self) -> None:
        keys = range(len(self.page.names.keys))
        charged = self.page.rows(KEY)["charged"]
        positions = {key: self._position(key) for key in keys}
        truth = Truth(positions, {key: int(charged[key]) for key in keys}, self._filled)
        freeze(self.page, OWNER_ROLE)
        rebuild(self.page, truth)
        thaw(self.page)

    def _tick_clock(self) -> None:
        header = self.page.header
        header["market_ms"] = max(int(header["market_ms"]), utc_ms())

    def _end(self, token: int) -> bool:
        self._filled.pop(token, None)
        return self._settlement.release(token)

    def _live(self, token: int) -> EntryRef | None:
        entry = self._settlement.find(token)
        # One that has ended is found until its place is free again, with nothing left of it.
        return entry if entry is not None and entry.remaining else None

    def _entry(self, token: int) -> EntryRef:
        entry = self._live(token)
        if entry is None:
            raise UsageError(f"no live order has token {token}: it ended, or was never committed")
        return entry

    def _instrument(self, text: str) -> int:
        venue, _, symbol = text.partition("/")
        return self.page.names.instrument(venue, symbol)

    def _ticks(self, instrument: int, price: object) -> int:
        name = self.page.names.instruments[instrument]
        try:
            ticks = name.units.price_ticks(price)
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"{name.venue}/{name.symbol}: {error}") from None
        if ticks <= 0:
            raise UsageError(f"{name.venue}/{name.symbol}: a price is positive, was {price}")
        return ticks

    def _position(self, key: int) -> int:
        return int(self.page.rows(KEY)["closable"][key]) >> 32

    def _worth(self, key: int, lots: int) -> int:
        instrument = self.page.names.keys[key][1]
        quote = read_quote(self.page, instrument)
        if quote is None:
            name = self.page.names.instruments[instrument]
            raise UsageError(f"{name.venue}/{name.symbol} has no mark: give it one with mark()")
        worth = notional_money(lots, quote.mark, self._values[instrument])
        return worth if lots > 0 else -worth


def _close_old_page(instance: str) -> None:
    """Close the page a dead owner left, so that its clients are told and not merely starved."""
    try:
        page = open_page(page_folder(instance), control_writable=True)
    except PageError:
        return
    page.header["closed"] = page.header["ended"] = 1
    bump_generation(page)


def _write_header(page: Page) -> None:
    header, pid = page.header, os.getpid()
    header["owner_pid"], header["owner_start"] = pid, process_start_time(pid)
    header["coarse_resolution_ns"] = 2 * coarse_resolution_ns()
    header["limits_version"], header["step"] = 1, -1
    header["market_ms"] = header["starting_ms"] = utc_ms()
