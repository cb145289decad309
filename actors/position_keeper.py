"""position_keeper: the book. Applies fills exactly once, marks positions, keeps equity and sums.

Reads: routers' rings, the board, the operator's file (rebases).
Sends: rings every bell when a step is marked; records RISK_SNAPSHOT.
Sole writer of: ACCOUNT rows, position halves of closable words, releases of entries.
Lease: 250 ms; while it is lapsed, openings are denied everywhere.
State after restart: rebuilt from the log and the rings; the page is repaired to agree with it.
"""

from fractions import Fraction

from actors.keeper_accounts import Accounts
from actors.service import Service
from tripgate.audit.history import Event, traded
from tripgate.audit.record import unpack_body
from tripgate.gate.repair import Truth, died_inside, freeze, rebuild, thaw
from tripgate.gate.settle import EntryRef, Settlement
from tripgate.machines import book
from tripgate.machines.book_types import BookInstrument, Fill, Key, Marks, Releasable, Terminal
from tripgate.messages import EventKind
from tripgate.page.board import read_quote
from tripgate.page.layout import ACCOUNT, INSTRUMENT, KEY
from tripgate.page.ring import RingReader
from tripgate.units import notional_money


class Keeper:
    """The book's hands: events and marks in, page words out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = service.page
        self._names = service.names
        self._settlement = Settlement(service.page, service.slot)
        self._reader = RingReader(service.page, "keeper")
        self._routers = [n for n, r in enumerate(self._names.roles) if r.actor == "router"]
        starting = self._page.rows(ACCOUNT)["starting"]
        shares = {
            number: int(starting[self._names.scope(f"strategy:{name}")])
            for number, name in enumerate(self._names.strategies)
        }
        specs = self._page.rows(INSTRUMENT)
        self._values = {
            number: Fraction(int(specs["value_numerator"][number]),
                             int(specs["value_denominator"][number]))
            for number in range(len(self._names.instruments))
        }  # fmt: skip
        instruments = {n: BookInstrument(value) for n, value in self._values.items()}
        self._book = book.new_book(instruments, int(starting[0]), shares)
        self._accounts = Accounts(service, shares)
        self.done = -1

    def rebuild(self) -> None:
        """Rebuild the book from the log and the rings, and repair the page to agree with it."""
        folder = self._accounts.state_folder / "audit"
        freeze(self._page, self._service.slot)
        events, cursors = traded(self._page, folder, self._routers)
        for event in events:
            self._replay(event)
        for slot, cursor in cursors.items():
            self._reader.release(slot, cursor)
        self._agree()
        self._settlement.adopt_releasing()
        for token in self._book.ended:
            self._settlement.release(token)
        thaw(self._page)
        self._store_positions()

    def _agree(self) -> None:
        """Make every word of the frozen page agree with the book and the entries."""
        marks = {}
        for number in range(len(self._names.instruments)):
            quote = read_quote(self._page, number)
            if quote is not None:
                marks[number] = quote.mark
        positions = {self._key(key): p.lots for key, p in self._book.positions.items()}
        charged = {
            self._key(key): self._worth(key, p.lots, marks.get(key.instrument))
            for key, p in self._book.positions.items()
        }
        filled = dict(self._book.filled_lots) | dict(self._book.ended)
        rebuild(self._page, Truth(positions, charged, filled))

    def take_events(self) -> None:
        """Apply everything the routers have recorded since the last look."""
        for slot in self._routers:
            for frame in self._reader.read(slot):
                if frame.kind in (EventKind.FILL, EventKind.ORDER_DONE):
                    body = unpack_body(frame.payload)
                    self._apply(Event(EventKind(frame.kind), frame.market_ms, body))
                self._reader.release(slot, frame.end)

    def step_to_mark(self) -> int | None:
        """Return the market step to mark now: its prices are out, its fills are all here."""
        step = self._service.market_step
        if step <= self.done or step < 0:
            return None
        venues = self._names.venues
        told = min(self._service.step_of("router", venue, "events_step") for venue in venues)
        drained = not any(self._reader.backlog(slot) for slot in self._routers)
        return step if told >= step and drained else None

    def mark(self, step: int) -> None:
        """Mark every instrument that had a tick, then re-mark nodes and accounts."""
        marks, lasts = {}, {}
        for number in range(len(self._names.instruments)):
            quote = read_quote(self._page, number)
            if quote is not None and quote.step == step:
                marks[number], lasts[number] = quote.mark, quote.last
        market_ms = self._service.market_ms
        self._book, _ = book.step(self._book, Marks(step, market_ms, marks, lasts), market_ms)
        for key, position in self._book.positions.items():
            if position.lots and key.instrument in marks:
                worth = self._worth(key, position.lots, marks[key.instrument])
                self._settlement.mark(self._key(key), worth)
        self._accounts.update(self._book, step, market_ms)
        self.done = step

    def tidy(self, now_ns: int) -> None:
        """Repair after the dead, reap expired reservations, free entries, act on rebases."""
        if died_inside(self._page):
            freeze(self._page, self._service.slot)
            self._agree()
            thaw(self._page)
        self._settlement.reap(now_ns)
        self._settlement.free_durable()
        self._accounts.take_rebases(self._book)

    def _apply(self, event: Event) -> None:
        if event.kind is EventKind.FILL:
            fill = self._fill_of(event)
            entry = self._settlement.find(fill.token) if fill.token else None
            self._book, effects = book.step(self._book, fill, event.market_ms)
            if effects:
                self._move(fill, entry)
        else:
            self._book, effects = book.step(self._book, _terminal_of(event), event.market_ms)
        for effect in effects:
            if isinstance(effect, Releasable):
                self._settlement.release(effect.token)

    def _replay(self, event: Event) -> None:
        message = self._fill_of(event) if event.kind is EventKind.FILL else _terminal_of(event)
        self._book, _ = book.step(self._book, message, event.market_ms)

    def _move(self, fill: Fill, entry: EntryRef | None) -> None:
        key = Key(fill.strategy, fill.instrument)
        lots = self._book.positions[key].lots
        quote = read_quote(self._page, fill.instrument)
        worth = self._worth(key, lots, quote.mark if quote else fill.ticks)
        self._settlement.fill(self._key(key), entry, fill.signed_lots, worth)
        self._store_positions()

    def _fill_of(self, event: Event) -> Fill:
        body = event.body
        return Fill(
            int(str(body["trade"])), int(str(body["token"])),
            self._names.strategy(str(body["strategy"])),
            self._names.instrument(str(body["venue"]), str(body["symbol"])),
            int(str(body["lots"])), int(str(body["ticks"])), int(str(body["fee"])),
            event.market_ms,
        )  # fmt: skip

    def _key(self, key: Key) -> int:
        return self._names.keys.index((key.strategy, key.instrument))

    def _worth(self, key: Key, lots: int, ticks: int | None) -> int:
        # Without any price the position is worth its cost: it must count for something.
        if ticks is None:
            average = self._book.positions[key].average_ticks
            ticks = round(average) if average is not None else 0
        worth = notional_money(lots, ticks, self._values[key.instrument])
        return worth if lots > 0 else -worth

    def _store_positions(self) -> None:
        rows = self._page.rows(KEY)
        for key, position in self._book.positions.items():
            row = rows[self._key(key)]
            row["cash_lot_ticks"], row["fees"] = position.cash_lot_ticks, position.fees_money
            row["basis_lot_ticks"] = position.basis_lot_ticks


def _terminal_of(event: Event) -> Terminal:
    return Terminal(int(str(event.body["token"])), int(str(event.body["cumulative"])))


async def run(service: Service) -> None:
    """Apply fills, mark each step once, keep the sums true."""
    keeper = Keeper(service)
    keeper.rebuild()
    await service.ready()
    while True:
        await service.turn()
        now_ns = service.now_ns()
        keeper.take_events()
        step = keeper.step_to_mark()
        if step is not None:
            keeper.mark(step)
            service.finish_step(step)
        keeper.tidy(now_ns)
        service.lease.renew(now_ns)
