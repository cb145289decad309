"""The keeper's share of ``orders resolve``: which orders of unknown fate an operator may end.

The venue's word goes before the operator's: a record is acted on only once the router has said, in
this run, that it does not know what became of the order. Until then it waits; if the venue turns
out to know the order, the record is refused, with the reason, on record. A record that has been
dealt with stands in the log, so it is dealt with once, whoever dies in between.
"""

from pathlib import Path
from typing import Any

from actors.service import Service
from tripgate.audit.history import Event
from tripgate.audit.record import Body
from tripgate.gate.settle import Settlement
from tripgate.machines.book_types import Book, Resolved
from tripgate.machines.reservation import EntryActor, EntryState, Ground, may_release
from tripgate.messages import EventKind
from tripgate.operator_file import RESOLVE_COMMAND, RESOLVE_STATES, read_records

PENDING_MAX = 1_000
"""Records that may wait for the router's word at once; what is beyond is refused."""


class Resolves:
    """Hears what the routers say of orders, and lets operators end those that nobody knows."""

    def __init__(self, service: Service, settlement: Settlement) -> None:
        self._service = service
        self._names = service.names
        self._settlement = settlement
        self._folder = Path(service.names.state_folder)
        self._words: dict[int, EventKind] = {}
        self._dealt: set[int] = set()
        self._pending: dict[int, dict[str, Any]] = {}
        self._read = 0

    def note(self, event: Event) -> None:
        """Hear an event of a router, or the keeper's own record of an earlier resolve."""
        if event.kind is EventKind.ORDER_RESOLVED:
            self._dealt.add(int(str(event.body["record"])))
            if "refused" not in event.body:
                self._words.pop(int(str(event.body["token"])), None)
            return
        token = int(str(event.body["token"]))
        if event.kind is EventKind.ORDER_DONE:
            self._words.pop(token, None)
        elif event.kind is EventKind.FILL:
            # A fill is a word about an order that is asked about, and none about one that ended.
            if token in self._words:
                self._words[token] = event.kind
        elif event.epoch in (0, self._service.page.epoch):
            # What an earlier run knew, this run's router must have asked again.
            self._words[token] = event.kind

    def take(self, book: Book) -> list[Event]:
        """Return the events of the orders that are ended now, each recorded already."""
        newest = int(self._service.header["operator_sequence"])
        if newest > self._read:
            for record in read_records(self._folder, self._read):
                self._read = int(record["id"])
                if record.get("command") == RESOLVE_COMMAND and self._read not in self._dealt:
                    self._pending[self._read] = record
        ended = []
        for number, record in list(self._pending.items()):
            event = self._deal(record, book)
            if event is not None:
                del self._pending[number]
                self._dealt.add(number)
                if "refused" not in event.body:
                    ended.append(event)
        return ended

    def _deal(self, record: dict[str, Any], book: Book) -> Event | None:
        """Act on a record or refuse it; None if it must wait for the router's word."""
        token = int(record["token"])
        entry = self._settlement.find(token)
        word = self._words.get(token)
        state = EntryState.FREE if entry is None else self._settlement.state_of(entry)
        by_operator = may_release(EntryActor.KEEPER, state, Ground.RESOLVED_BY_OPERATOR)
        problem = None
        if entry is None or not by_operator:
            problem = f"the order has ended already (its entry is {state.name})"
        elif len(self._pending) > PENDING_MAX:
            problem = f"over {PENDING_MAX} records wait for a router's word"
        elif word is None:
            return None
        elif word is not EventKind.ORDER_UNKNOWN:
            problem = "the venue knows the order: cancel it, or wait for its end"
        else:
            problem = _lots_problem(record, book.filled_lots.get(token, 0), abs(entry.lots))
        if problem is not None or entry is None:
            return self._record(record, {"refused": problem})
        strategy, instrument = self._names.keys[entry.key]
        name = self._names.instruments[instrument]
        return self._record(record, {
            "state": record["state"], "cumulative": int(record["filled_lots"]),
            "ticks": int(record["ticks"]), "side": 1 if entry.lots > 0 else -1,
            "strategy": self._names.strategies[strategy], "venue": name.venue,
            "symbol": name.symbol,
        })  # fmt: skip

    def _record(self, record: dict[str, Any], more: dict[str, Any]) -> Event:
        words = {name: str(record[name]) for name in ("operator", "reason")}
        numbers = {"token": int(record["token"]), "record": int(record["id"])}
        body: dict[str, Any] = {**numbers, **words, **more}
        self._service.emit(EventKind.ORDER_RESOLVED, body)
        copy = Body({name: value for name, value in body.items()})
        return Event(EventKind.ORDER_RESOLVED, self._service.market_ms, copy)


def _lots_problem(record: dict[str, Any], booked: int, ordered: int) -> str | None:
    """Return what of a record contradicts the book, or None."""
    lots, state = int(record["filled_lots"]), record["state"]
    if state not in RESOLVE_STATES:
        return f"{state!r} is no end of an order"
    if lots < booked:
        return f"{booked} lots of it are booked from the venue's own trades, more than {lots}"
    if lots > ordered:
        return f"it was ordered over {ordered} lots, fewer than {lots}"
    if lots > booked and int(record["ticks"]) <= 0:
        return "lots were filled at no price"
    return None


def resolved_of(event: Event, strategy: int, instrument: int) -> Resolved:
    """Return the book's message of a resolve that was not refused."""
    body = event.body
    return Resolved(
        int(str(body["token"])), strategy, instrument, int(str(body["side"])),
        int(str(body["cumulative"])), int(str(body["ticks"])),
    )  # fmt: skip
