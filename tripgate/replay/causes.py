"""Records and their causes: what names an order must follow an approval, each approval stands once.

Rows of several producers come in any order, so an event may stand before the decision it names. A
cause that has not come by the next checkpoint that lies long enough behind it is missing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tripgate.audit.record import Row
from tripgate.messages import EventKind
from tripgate.replay.decided import Decided
from tripgate.replay.holdings import Problem
from tripgate.replay.report import kind_name
from tripgate.replay.tokens import token_epoch, token_sequence, token_slot
from tripgate.replay.walk import SETTLE_NS

APPROVED_MAX = 100_000
"""Approvals remembered one by one; of older ones only how far their slot's tokens had come."""


_SENT = int(EventKind.ORDER_SENT)


class Waiting(NamedTuple):
    """An event that waits for its approval; ``lots`` are what it says was ordered, if it does."""

    host_ns: int
    row: int
    kind: str
    lots: int | None


class Causes:
    """Which approvals there are, and which events still wait for theirs."""

    def __init__(self) -> None:
        self._lots: dict[int, int] = {}
        self._newest: dict[tuple[int, int, int], int] = {}
        self._reached: dict[tuple[int, int], int] = {}
        self._waiting: dict[int, list[Waiting]] = {}
        self._denied: dict[int, tuple[int, str]] = {}

    def decided(self, producer: int, sequence: int, told: Decided) -> None:
        """Note a decision of a producer, to which later denials may have been merged."""
        if told.token == 0 and told.reason is not None:
            self._denied[producer] = sequence, told.reason.name
        else:
            self._denied.pop(producer, None)

    def merged(self, producer: int, sequence: int, body: Mapping[Any, Any]) -> Problem | None:
        """Return a difference if a DENIALS_MERGED row does not follow the denial it counts on."""
        told = int(body["of"]), str(body["reason"])
        last = self._denied.get(producer)
        if told != last or told[0] >= sequence or int(body["more"]) < 1:
            return ("merged denials", f"{body['more']} more like {told}", f"last denial {last}")
        return None

    def approve(self, told: Decided, producer: int) -> Problem | None:
        """Note an approval; return a difference if its token is not new."""
        token = told.token
        place, number = (token_epoch(token), token_slot(token), producer), token_sequence(token)
        last = self._newest.get(place, 0)
        self._newest[place] = max(last, number)
        reached = self._reached.get(place[:2], 0)
        self._reached[place[0], place[1]] = max(reached, number)
        self._lots[token] = told.lots
        if len(self._lots) > APPROVED_MAX:
            del self._lots[next(iter(self._lots))]
        if number <= last:
            return ("token", str(token), f"not new: its slot had come to {last}")
        for event in self._waiting.pop(token, ()):
            if event.lots not in (None, told.lots):
                return _other_lots(token, event.lots, told.lots)
        return None

    def name(self, at: int, row: Row, body: Mapping[Any, Any]) -> Problem | None:
        """Note an event that names an order; return a difference if it tells another order."""
        token = int(body["token"])
        if token <= 0:
            return None
        kind = row.kind
        lots = self._lots.get(token)
        sent = int(body["lots"]) if kind == _SENT else None
        if lots is None and not self._is_known(token, kind):
            event = Waiting(row.host_ns, at, kind_name(kind), sent)
            self._waiting.setdefault(token, []).append(event)
        elif lots is not None and sent not in (None, lots):
            return _other_lots(token, sent, lots)
        return None

    def overdue(self, now_ns: int | None) -> Iterator[tuple[int, Problem]]:
        """Yield events whose approval has not come in time; at the end (None) all of them."""
        for token, events in list(self._waiting.items()):
            if now_ns is None or events[0].host_ns <= now_ns - SETTLE_NS:
                del self._waiting[token]
                for event in events:
                    problem = (f"{event.kind} of token {token}", "an order", "never approved")
                    yield event.row, problem

    def _is_known(self, token: int, kind: int) -> bool:
        """Whether an approval too old to be remembered must have been there."""
        if kind == _SENT and len(self._lots) < APPROVED_MAX:
            return False
        return token_sequence(token) <= self._reached.get(
            (token_epoch(token), token_slot(token)), 0
        )


def _other_lots(token: int, sent: int | None, approved: int) -> Problem:
    return (f"lots sent of token {token}", str(sent), str(approved))
