"""One run of the instance as the log tells it: terms, levels, holdings, and what waits to be added.

Events are not booked as their rows come: the log interleaves its producers by chance. They wait in
a queue per producer until a snapshot says that the keeper had applied them, and are booked then;
what is left at the run's end is booked at its end.

Invariant: N1 each producer's events are booked in its own order, each once.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tripgate.errors import InvariantBroken
from tripgate.messages import EventKind
from tripgate.replay.decided import Decided
from tripgate.replay.holdings import Holdings, Problem
from tripgate.replay.levels import Levels
from tripgate.replay.snapshots import (
    book_problems,
    charge_problems,
    sum_problems,
)
from tripgate.replay.terms import RunTerms

MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""What reading a body raises that is not as its kind's should be."""


class Event(NamedTuple):
    """What is to be booked: an approval (``told``) or the body of an event."""

    row: int
    sequence: int
    host_ns: int
    market_ms: int
    kind: int
    told: Decided | None
    body: Mapping[Any, Any]


class Snapshot(NamedTuple):
    """A snapshot that waits until every record it names has been read."""

    row: int
    producer: int
    sequence: int
    host_ns: int
    market_ms: int
    body: Mapping[Any, Any]
    named: Mapping[int, int]


def snapshot_of(row: int, place: tuple[int, int], times: tuple[int, int], body: Any) -> Snapshot:
    """Return a snapshot of (producer, sequence), taken at (host ns, market ms).

    Its ``named`` records are those that the book holds and, where it was taken at one moment, those
    that the sums hold.

    Raises
    ------
    LookupError, TypeError, ValueError, AttributeError
        The body is no snapshot's.
    """
    named = {int(slot): int(number) for slot, number in body["applied"].items()}
    if body["still"]:
        for slot, number in body["records"].items():
            named.setdefault(int(slot), int(number))
    named[place[0]] = place[1] - 1
    return Snapshot(row, *place, *times, body, named)


class Compared(NamedTuple):
    """What came of comparing a snapshot."""

    snapshot: Snapshot
    problems: list[tuple[int, Problem]]
    sums_compared: bool


class Run:
    """State of one epoch."""

    def __init__(self, epoch: int, body: Mapping[Any, Any]) -> None:
        self.epoch = epoch
        self.is_orderly = bool(body.get("orderly", True))
        self.page_kept = bool(body.get("page_kept", False))
        self.is_shadow = bool(body.get("shadow", False))
        self.terms = RunTerms()
        self.levels = Levels(())
        self.holdings: Holdings | None = None
        self.flat_ns: int | None = None
        self._queues: dict[int, deque[Event]] = {}
        self._seen: dict[int, int] = {}
        self._snapshots: deque[Snapshot] = deque()

    def begin(self, before: "Run | None", *, carries: bool) -> None:
        """Begin to hold things, once the sheet is whole.

        Parameters
        ----------
        carries
            Whether the earlier run's numbers mean the same, so that its book is taken over.
        """
        self.levels = Levels(self.terms.names.scopes)
        latest = self.terms.latest
        assert latest is not None
        self.levels.take_words({n: list(row) for n, row in latest.nodes.items()}, 0)
        self.levels.forget(1 << 62)
        holdings = self.holdings = Holdings(self.terms)
        old = before.holdings if before else None
        if old is not None and carries:
            holdings.carry_book(old)
        if old is not None and not self.is_orderly:
            holdings.carry_reserved(old, page_kept=self.page_kept)

    def see(self, producer: int, sequence: int) -> None:
        """Note that a row of a producer has been read."""
        self._seen[producer] = sequence

    def wait(self, producer: int, event: Event) -> None:
        """Queue an event to be booked."""
        self._queues.setdefault(producer, deque()).append(event)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Queue a snapshot to be compared."""
        self._snapshots.append(snapshot)

    def compare_ready(self) -> Iterator[Compared]:
        """Compare, in their order, the snapshots of which every record has been read."""
        while self._snapshots and self._is_ready(self._snapshots[0]):
            yield self._compare(self._snapshots.popleft())

    def finish(self) -> list[tuple[int, Problem]]:
        """Book what is left and return what is missing or cannot be."""
        problems: list[tuple[int, Problem]] = []
        for snapshot in self._snapshots:
            lacking = [
                f"record {number} of slot {slot}"
                for slot, number in snapshot.named.items()
                if self._seen.get(slot, 0) < number
            ]
            problems.append((snapshot.row, ("records that a snapshot holds", str(lacking), "")))
        self._snapshots.clear()
        if self.holdings is not None:
            problems += self._book(None)
        return problems

    def _is_ready(self, snapshot: Snapshot) -> bool:
        if self.holdings is None:
            return False
        return all(self._seen.get(slot, 0) >= number for slot, number in snapshot.named.items())

    def _compare(self, snapshot: Snapshot) -> Compared:
        problems = self._book(snapshot.named)
        try:
            found = list(self._problems(snapshot))
        except (*MALFORMED, InvariantBroken) as error:
            found = [("RISK_SNAPSHOT", "its body", f"malformed: {error}")]
        problems += [(snapshot.row, problem) for problem in found]
        return Compared(snapshot, problems, bool(snapshot.body["still"]))

    def _problems(self, snapshot: Snapshot) -> Iterator[Problem]:
        holdings, body, latest = self.holdings, snapshot.body, self.terms.latest
        assert holdings is not None
        assert latest is not None
        holdings.mark(int(body["step"]), snapshot.market_ms, body["marks"])
        yield from book_problems(holdings, body)
        yield from charge_problems(holdings, latest, body)
        if body["still"]:
            yield from sum_problems(holdings, body)
            self.flat_ns = snapshot.host_ns if self._is_flat(body) else None

    def _is_flat(self, body: Mapping[Any, Any]) -> bool:
        holdings = self.holdings
        assert holdings is not None
        held = any(position.lots for position in holdings.book.positions.values())
        opens = any(order.counts_gross for order in holdings.reserved.values())
        return not held and not opens and not any(n["gross"] for n in body["nodes"].values())

    def _book(self, named: Mapping[int, int] | None) -> list[tuple[int, Problem]]:
        """Book every queued event up to the numbers named; all of them if none are.

        Approvals come first, whatever the order of their rows: nothing happens to an order before
        it was approved.
        """
        due: list[Event] = []
        for producer, queue in self._queues.items():
            last = named.get(producer, 0) if named is not None else 1 << 62
            while queue and queue[0].sequence <= last:
                due.append(queue.popleft())
        problems: list[tuple[int, Problem]] = []
        for event in sorted(due, key=_order):
            problem = self._book_one(event)
            if problem is not None:
                problems.append((event.row, problem))
        return problems

    def _book_one(self, event: Event) -> Problem | None:
        holdings = self.holdings
        assert holdings is not None
        if event.told is not None:
            holdings.reserve(event.told)
            return None
        try:
            return holdings.apply(event.kind, event.body, event.market_ms)
        except InvariantBroken as broken:
            return (EventKind(event.kind).name, "what is on record", f"impossible: {broken}")


def _order(event: Event) -> tuple[bool, int]:
    return event.told is None, event.host_ns
