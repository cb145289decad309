"""What is held, rebuilt from events alone: positions, open reservations, sums of the nodes.

The same pure book that the keeper runs books the fills; beside it stand the reservations, from the
decision that made each to the record that ended it. Positions and strategies are known by name,
because each run numbers them anew.

Invariants: H1 an order is reserved once, and released once, by a record; H2 sums are recomputed
from positions and reservations whenever they are asked for, never carried along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tripgate.config.structs import RESERVED_STRATEGY
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_SHADOW, FLAG_STOP
from tripgate.machines import book
from tripgate.machines.book_types import (
    Book,
    BookInstrument,
    Fill,
    Key,
    Marks,
    PositionMoved,
    Releasable,
    Resolved,
    Terminal,
)
from tripgate.messages import EventKind
from tripgate.page.layout import ROLE_SLOTS, STOP_SLOT
from tripgate.page.terms import INSTRUMENT_FIELDS
from tripgate.replay.amounts import part_up, share_up
from tripgate.replay.decided import Decided
from tripgate.replay.terms import RunTerms
from tripgate.replay.tokens import token_slot

Place = tuple[int, int]
Problem = tuple[str, str, str]
_SPEC = ("value_numerator", "value_denominator", "shared", "inverse")


@dataclass
class Reserved:
    """One reservation: whose, how much it counts whole, and how much of it is left (lots)."""

    token: int
    pair: Place
    flags: int
    lots: int
    remaining: int
    charge: int
    margin: int

    @property
    def counts_gross(self) -> bool:
        """Whether it adds to gross: only what opens does."""
        return not self.flags & (FLAG_CLOSING | FLAG_EXIT | FLAG_STOP)

    @property
    def charged(self) -> int:
        """What is left of its charge, money units."""
        return part_up(self.charge, self.remaining, abs(self.lots))

    @property
    def margin_charged(self) -> int:
        """What is left of its margin, money units."""
        return part_up(self.margin, self.remaining, abs(self.lots))


class Holdings:
    """Book and reservations of one run, in its own numbers."""

    def __init__(self, terms: RunTerms) -> None:
        self._terms, self.names = terms, terms.names
        latest = terms.latest
        assert latest is not None
        self.reserved: dict[int, Reserved] = {}
        self._venues = {asset[0]: n for n, asset in enumerate(self.names.assets)}
        instruments = {}
        self.specs: dict[int, tuple[int, ...]] = {}
        for number, words in latest.instruments.items():
            spec = dict(zip(INSTRUMENT_FIELDS, words, strict=True))
            self.specs[number] = tuple(spec[name] for name in _SPEC)
            value = Fraction(spec["value_numerator"], spec["value_denominator"])
            venue = self._venues[self.names.assets[number][0]]
            instruments[number] = BookInstrument(value, venue, bool(spec["shared"]))
        strategies = {
            number: terms.starting.get(self.names.number[f"strategy:{name}"], 0)
            for number, name in enumerate(self.names.strategies)
        }
        self.book: Book = book.new_book(instruments, terms.starting.get(0, 0), strategies)
        self._places = self._make_places()

    def is_alike(self, other: "Holdings") -> bool:
        """Whether another run's book means the same by the same numbers."""
        mine = self.names.strategies, self.names.instruments, self.names.keys, self.specs
        return mine == (
            other.names.strategies, other.names.instruments, other.names.keys, other.specs
        )  # fmt: skip

    def carry_book(self, other: "Holdings") -> None:
        """Take over what an earlier run, alike in its numbers, has booked."""
        self.book, _ = book.step(self.book, book.checkpoint(other.book), 0)

    def reserve(self, told: Decided) -> None:
        """Take an approval's reservation; an exit or stop replaces the one before it of its key."""
        pair = told.strategy, told.instrument
        if told.flags & (FLAG_EXIT | FLAG_STOP):
            slot = token_slot(told.token)
            for token, other in list(self.reserved.items()):
                if other.pair == pair and token_slot(token) == slot:
                    del self.reserved[token]
        lots, charge = told.lots, told.notional
        opens = not told.flags & (FLAG_CLOSING | FLAG_EXIT | FLAG_STOP)
        margin = self.margin_of(pair[1], charge) if opens else 0
        self.reserved[told.token] = Reserved(
            told.token, pair, told.flags, lots, abs(lots), charge, margin
        )

    def margin_of(self, instrument: int, charge: int) -> int:
        """Return the initial margin of a worth, money units."""
        latest = self._terms.latest
        assert latest is not None
        ppm = latest.instruments[instrument][INSTRUMENT_FIELDS.index("margin_ppm")]
        return share_up(charge, ppm)

    def release(self, token: int) -> None:
        """Release what an order still reserves."""
        self.reserved.pop(token, None)

    def carry_reserved(self, other: "Holdings", *, page_kept: bool) -> None:
        """Take over an earlier run's reservations.

        A page that was kept kept them all; of a lost one the clients' orders are restored, and the
        tree's own are adopted from the venue.
        """
        for token, old in other.reserved.items():
            pair = self._pair_of(other, old.pair)
            if pair is None or not (page_kept or self._is_restored(other, old)):
                continue
            margin = old.margin
            if not page_kept:
                margin = self.margin_of(pair[1], old.charge)
            self.reserved[token] = Reserved(
                token, pair, old.flags, old.lots, old.remaining, old.charge, margin
            )

    def _is_restored(self, other: "Holdings", old: Reserved) -> bool:
        slot = token_slot(old.token)
        is_clients = ROLE_SLOTS <= slot < STOP_SLOT
        return is_clients and old.token not in other.book.waiting and not old.flags & FLAG_SHADOW

    def _pair_of(self, other: "Holdings", pair: Place) -> Place | None:
        trader, traded = other.names.strategies[pair[0]], other.names.instruments[pair[1]]
        if trader not in self.names.strategies or traded not in self.names.instruments:
            return None
        found = self.names.strategies.index(trader), self.names.instruments.index(traded)
        return found if any(key[:2] == found for key in self.names.keys) else None

    def apply(self, kind: int, body: Mapping[Any, Any], market_ms: int) -> Problem | None:
        """Book an event; return a difference if what it says cannot follow what is booked."""
        token = int(body["token"])
        if kind == EventKind.RESERVATION_EXPIRED:
            self.release(token)
            return None
        problem = None
        if kind == EventKind.ORDER_DONE and not token:
            return None  # Somebody else's order: nothing was reserved for it.
        if kind == EventKind.ORDER_DONE:
            message: Any = Terminal(token, int(body["cumulative"]))
        elif (place := self._place_of(body)) is None:
            return None
        elif kind == EventKind.FILL:
            message = Fill(
                int(body["trade"]), token, *place, int(body["lots"]), int(body["ticks"]),
                int(body["fee"]), market_ms, body["strategy"] != RESERVED_STRATEGY,
            )  # fmt: skip
            problem = self._fill_problem(message, int(body["cumulative"]))
        else:
            message = Resolved(
                token, *place, int(body["side"]), int(body["cumulative"]), int(body["ticks"])
            )
        self.book, effects = book.step(self.book, message, market_ms)
        for effect in effects:
            if isinstance(effect, Releasable):
                self.release(effect.token)
            elif isinstance(effect, PositionMoved) and token in self.reserved:
                self._shrink(self.reserved[token], effect)
        return problem

    def _shrink(self, order: Reserved, effect: PositionMoved) -> None:
        if (effect.key.strategy, effect.key.instrument) == order.pair:
            lots = abs(effect.lots_after - effect.lots_before)
            order.remaining = max(0, order.remaining - lots)

    def _fill_problem(self, fill: Fill, cumulative: int) -> Problem | None:
        """Compare what the venue says was filled so far with what is booked of the order."""
        venue = self.book.instruments[fill.instrument].venue
        last = self.book.last_trade_id.get(venue, 0)
        if fill.trade_id <= last or fill.token == 0 or fill.token in self.book.assumed:
            return None
        before = self.book.ended.get(fill.token, self.book.filled_lots.get(fill.token, 0))
        booked = before + abs(fill.signed_lots)
        if booked == cumulative:
            return None
        return (f"lots filled of token {fill.token}", str(cumulative), str(booked))

    def _make_places(self) -> dict[tuple[str, str], Place]:
        places: dict[tuple[str, str], Place] = {}
        for strategy, instrument, _ in self.names.keys:
            traded = self.names.instruments[instrument]
            for holder in (self.names.strategies[strategy], RESERVED_STRATEGY):
                places.setdefault((holder, traded), (strategy, instrument))
        return places

    def _place_of(self, body: Mapping[Any, Any]) -> Place | None:
        traded = f"{body['venue']}/{body['symbol']}"
        return self._places.get((str(body["strategy"]), traded))

    def mark(self, step: int, market_ms: int, marks: Mapping[int, list[int]]) -> None:
        """Take prices as recorded."""
        at_mark = {int(n): int(pair[0]) for n, pair in marks.items()}
        at_last = {int(n): int(pair[1]) for n, pair in marks.items() if pair[1]}
        message = Marks(max(step, self.book.marks_step + 1), market_ms, at_mark, at_last)
        self.book, _ = book.step(self.book, message, market_ms)

    def sums(self, charged: Mapping[Key, tuple[int, int]]) -> dict[int, list[int]]:
        """Return [gross, long, short, margin] by node.

        Parameters
        ----------
        charged
            What each position counts (signed) and its margin, money units.
        """
        totals = {node: [0, 0, 0, 0] for node in range(len(self.names.scopes))}
        for key, (worth, margin) in charged.items():
            self._add(totals, (key.strategy, key.instrument), abs(worth), worth, -worth, margin)
        for order in self.reserved.values():
            amount = order.charged
            gross = amount if order.counts_gross else 0
            buys, sells = (amount, 0) if order.lots > 0 else (0, amount)
            self._add(totals, order.pair, gross, buys, sells, order.margin_charged)
        return totals

    def _add(
        self, totals: dict[int, list[int]], pair: Place, gross: int, long: int, short: int,
        margin: int,
    ) -> None:  # fmt: skip
        nodes = self.names.nodes_of(*pair)
        for node in nodes:
            row = totals[node]
            row[0], row[1], row[2] = row[0] + gross, row[1] + long, row[2] + short
        totals[nodes[3]][3] += margin
