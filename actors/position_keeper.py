"""position_keeper: the book. Applies fills exactly once, marks positions, keeps equity and sums.

Reads: routers' rings, the board, the operator's file (rebases, resolved orders).
Sends: rings every bell when a step is marked; records RISK_SNAPSHOT, ORDER_RESOLVED,
RESERVATION_EXPIRED, FILL_UNPLACED, REPAIRED and COUNTERS_BROKEN.
Sole writer of: ACCOUNT and RATE rows, venues' margin limits, position halves of closable
words, releases of entries, the keeper's byte of level words.
Lease: 250 ms; while it is lapsed, openings are denied everywhere.
State after restart: rebuilt from the log and the rings; the page is repaired to agree with it.
"""

from fractions import Fraction

from actors.keeper_accounts import Accounts
from actors.keeper_counters import PORTFOLIO, Counters
from actors.keeper_resolves import Resolves, resolved_of
from actors.keeper_unplaced import Unplaced
from actors.service import Service
from tripgate.audit.history import TRADED, Event, traded
from tripgate.audit.record import unpack_body
from tripgate.config.structs import RESERVED_STRATEGY
from tripgate.gate.recount import Truth
from tripgate.gate.repair import died_inside, freeze, rebuild, thaw
from tripgate.gate.settle import EntryRef, Settlement
from tripgate.machines import book
from tripgate.machines.book_types import (
    BookInstrument,
    Fill,
    Key,
    Marks,
    Message,
    PositionMoved,
    Releasable,
    Terminal,
)
from tripgate.messages import EventKind
from tripgate.page.board import read_quote
from tripgate.page.layout import ACCOUNT, INSTRUMENT, KEY, RATE, SLOT
from tripgate.page.lossless import GapFound, LosslessReader
from tripgate.units import PPM, notional_money


class Keeper:
    """The book's hands: events and marks in, page words out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = service.page
        self._names = service.names
        self._settlement = Settlement(service.page, service.slot)
        self._counters = Counters(service)
        self._routers = [n for n, r in enumerate(self._names.roles) if r.actor == "router"]
        self._reader = LosslessReader(service.page, "keeper", self._routers)
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
        instruments = {
            # Each venue counts its own trades.
            n: BookInstrument(value, int(specs["venue"][n]), bool(specs["shared"][n]))
            for n, value in self._values.items()
        }
        self._book = book.new_book(instruments, int(starting[0]), shares)
        self._applied: dict[int, int] = {}
        self._accounts = Accounts(service, shares, self._applied)
        self._resolves = Resolves(service, self._settlement)
        self._unplaced = Unplaced(service)
        self.done = -1

    def rebuild(self) -> None:
        """Rebuild the book from the log and the rings, and repair the page to agree with it."""
        folder = self._accounts.state_folder / "audit"
        killed = freeze(self._page, self._service.slot)
        published = self._page.rows(SLOT)["record_sequence"]
        self._applied.update({slot: int(published[slot]) for slot in self._routers})
        events, places = traded(self._page, folder, [*self._routers, self._service.slot])
        for event in events:
            self._replay(event)
            if event.epoch == self._page.epoch and event.producer in self._applied:
                slot = event.producer
                self._applied[slot] = max(self._applied[slot], event.sequence)
        for slot in self._routers:
            self._reader.resume(slot, *places[slot])
        killed += self._agree()
        thaw(self._page)
        if killed:
            self._tell_repair("start", killed)
        self._settlement.adopt_releasing()
        for token in self._book.ended:
            self._settlement.release(token)
        self._store_positions()
        self._unplaced.report()

    def _repair(self, cause: str) -> None:
        """Put the page's words right without a restart; the book is whole."""
        killed = freeze(self._page, self._service.slot)
        killed += self._agree()
        thaw(self._page)
        self._counters.forget()
        self._tell_repair(cause, killed)

    def _tell_repair(self, cause: str, killed: tuple[int, ...]) -> None:
        self._service.emit(EventKind.REPAIRED, {"cause": cause, "killed": list(killed)})

    def _agree(self) -> tuple[int, ...]:
        """Make every word of the frozen page agree with the book and the entries."""
        marks = {}
        for number in range(len(self._names.instruments)):
            quote = read_quote(self._page, number)
            if quote is not None:
                marks[number] = quote.mark
        charged = {
            self._key(key): self._worth(key, p.lots, marks.get(key.instrument))
            for key, p in self._book.positions.items()
        }
        filled = dict(self._book.filled_lots) | dict(self._book.ended)
        return rebuild(self._page, Truth(self._positions(), charged, filled))

    def _positions(self) -> dict[int, int]:
        return {self._key(key): p.lots for key, p in self._book.positions.items()}

    def take_events(self) -> None:
        """Apply everything the routers have recorded since the last look, each once.

        Raises
        ------
        GapFound
            A record is missing: the book can no longer be trusted until it is rebuilt.
        """
        for slot in self._routers:
            for frame in self._reader.read(slot):
                if frame.kind in TRADED:
                    body = unpack_body(frame.payload)
                    self._apply(Event(EventKind(frame.kind), frame.market_ms, body))
                self._applied[slot] = max(self._applied.get(slot, 0), frame.sequence)
                self._reader.release(frame)

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
        self._accounts.update(self._book, step, market_ms, marks)
        self.done = step

    def finish(self) -> None:
        """Put on record what is held once the run has ended."""
        self._accounts.finish(self._book, self.done)

    def tidy(self, now_ns: int) -> None:
        """Repair after the dead, reap expired reservations, free entries, obey operators."""
        if died_inside(self._page):
            self._repair("death")
        self._settlement.post_exits()
        for token in self._settlement.reap(now_ns):
            self._service.emit(EventKind.RESERVATION_EXPIRED, {"token": token})
        for event in self._resolves.take(self._book):
            self._apply(event)
        self._settlement.free_durable()
        self._accounts.take_rebases(self._book)
        if self._counters.are_broken(self._positions(), now_ns, self._unplaced.holds(PORTFOLIO)):
            self._repair("counters")

    def _apply(self, event: Event) -> None:
        self._resolves.note(event)
        message = self._message_of(event)
        if message is None:
            if event.kind is EventKind.FILL:
                self._unplaced.take(event)
            return
        token = int(str(event.body["token"]))
        entry = self._settlement.find(token) if token else None
        self._book, effects = book.step(self._book, message, event.market_ms)
        for effect in effects:
            if isinstance(effect, PositionMoved):
                self._move(effect, entry, int(str(event.body["ticks"])))
            elif isinstance(effect, Releasable):
                self._settlement.release(effect.token)

    def _replay(self, event: Event) -> None:
        self._resolves.note(event)
        message = self._message_of(event)
        if message is not None:
            self._book, _ = book.step(self._book, message, event.market_ms)
        elif event.kind is EventKind.FILL:
            self._unplaced.replay(event)

    def _move(self, part: PositionMoved, entry: EntryRef | None, ticks: int) -> None:
        quote, number = read_quote(self._page, part.key.instrument), self._key(part.key)
        worth = self._worth(part.key, part.lots_after, quote.mark if quote else ticks)
        # What goes to another holder of a shared instrument is no business of the order's entry.
        own = entry if entry is not None and entry.key == number else None
        # Trades that replace what an operator vouched for move the cash and not one lot.
        if lots := part.lots_after - part.lots_before:
            self._settlement.fill(number, own, lots, worth)
        self._store_positions()

    def _message_of(self, event: Event) -> Message | None:
        """Return what an event says to the book; None if it says nothing, or has no place."""
        body = event.body
        if event.kind is EventKind.ORDER_DONE:
            # An order that somebody else placed has no token of ours, and nothing was reserved.
            token = int(str(body["token"]))
            return Terminal(token, int(str(body["cumulative"]))) if token else None
        is_resolve = event.kind is EventKind.ORDER_RESOLVED and "refused" not in body
        if event.kind is not EventKind.FILL and not is_resolve:
            return None
        place = self._unplaced.place_of(event)
        if place is None or is_resolve:
            return None if place is None else resolved_of(event, *place)
        return Fill(
            int(str(body["trade"])), int(str(body["token"])), *place, int(str(body["lots"])),
            int(str(body["ticks"])), int(str(body["fee"])), event.market_ms,
            body["strategy"] != RESERVED_STRATEGY,
        )  # fmt: skip

    def _key(self, key: Key) -> int:
        return self._names.keys.index((key.strategy, key.instrument))

    def _worth(self, key: Key, lots: int, ticks: int | None) -> int:
        # Without any price the position is worth its cost: it must count for something.
        if ticks is None:
            average = self._book.positions[key].average_ticks
            ticks = round(average) if average is not None else 0
        spec = self._page.rows(INSTRUMENT)[key.instrument]
        # As the gate counts an order: an inverse contract whatever its price, a quote off par at
        # the dearer of rate and par. A fill must never make exposure cheaper than its order was.
        unit = 1 if spec["inverse"] else ticks
        row = self._page.rows(RATE)[int(spec["quote"])]
        dearer = Fraction(max(int(row["rate_ppm"]), int(row["par_ppm"])), PPM)
        worth = notional_money(lots, unit, self._values[key.instrument] * dearer)
        return worth if lots > 0 else -worth

    def _store_positions(self) -> None:
        rows = self._page.rows(KEY)
        for key, position in self._book.positions.items():
            row = rows[self._key(key)]
            row["cash_lot_ticks"], row["fees"] = position.cash_lot_ticks, position.fees_money
            row["basis_lot_ticks"] = position.basis_lot_ticks


async def run(service: Service) -> None:
    """Apply fills, mark each step once, keep the sums true."""
    keeper = Keeper(service)
    keeper.rebuild()
    await service.ready()
    while not service.stopping.is_set():
        await service.turn()
        now_ns = service.now_ns()
        try:
            keeper.take_events()
        except GapFound as gap:
            # No renewal before a whole turn on the rebuilt book: the lease lapses if it takes long.
            body = {"slot": gap.slot, "expected": gap.expected, "found": gap.found}
            service.emit(EventKind.LINK_GAP, body)
            keeper = Keeper(service)
            keeper.rebuild()
            continue
        step = keeper.step_to_mark()
        if step is not None:
            keeper.mark(step)
            service.finish_step(step)
        keeper.tidy(now_ns)
        keeper.finish()
        service.lease.renew(now_ns)
