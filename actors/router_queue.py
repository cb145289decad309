"""The router's queue: what gets out of a position goes first, and budget is kept for it.

Lanes in order: cancels, flattens of the breaker or an operator, stops, exits, account reads,
entries; within a lane first come, first served. A job of the last two lanes also waits while it
would use up the share of the venue's request budget that is kept for the others. A job is queued
once: a token is sent once, an order is cancelled once, whoever asks however often.
"""

from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from actors.router_orders import Live
from tripgate.gate.commit import Approved
from tripgate.machines import pacing
from tripgate.machines.pacing import Budget
from tripgate.reasons import Level

Job = tuple[str, Any, dict[str, Any]]
"""(``send`` | ``cancel`` | ``account``, its subject, execution style)."""


class Lane(IntEnum):
    """Rank of a job; the lowest leaves first."""

    CANCEL = 0
    FLATTEN = 1
    STOP = 2
    EXIT = 3
    ACCOUNT = 4
    ENTRY = 5


EXIT_LANES = frozenset({Lane.CANCEL, Lane.FLATTEN, Lane.STOP, Lane.EXIT})


def lane_of(kind: str, subject: Any, exit_cause: int) -> Lane:
    """Return a job's lane; ``exit_cause`` is the level that claimed the key of an exit, or 0."""
    if kind != "send":
        return Lane.CANCEL if kind == "cancel" else Lane.ACCOUNT
    if subject.is_stop:
        return Lane.STOP
    if subject.is_exit and exit_cause >= Level.HARD:
        return Lane.FLATTEN
    return Lane.ENTRY if subject.opens else Lane.EXIT


class JobQueue:
    """Jobs by lane, and the bucket of requests they are paid from."""

    def __init__(self, budget: Budget, market_ms: int) -> None:
        self._budget = budget
        self._bucket = pacing.full(budget, market_ms)
        self._lanes: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self._names: dict[Lane, set[object]] = {lane: set() for lane in Lane}
        self._duties: set[tuple[Lane, object]] = set()
        self._in_hand: object = None

    def put(self, job: Job, lane: Lane, *, duty: bool = False) -> bool:
        """Queue a job unless the same one waits already; return whether it is new.

        ``duty`` marks what the router does unasked: it looks at the page again only once all of
        that has left.
        """
        name = _name(job)
        if name in self._names[lane]:
            return False
        self._lanes[lane].append(job)
        self._names[lane].add(name)
        if duty:
            self._duties.add((lane, name))
        return True

    def take(self, market_ms: int) -> Job | None:
        """Remove and return the next job that the budget lets leave, or None."""
        lane = self._next_lane(market_ms)
        if lane is None:
            return None
        job = self._lanes[lane].popleft()
        name = _name(job)
        self._names[lane].discard(name)
        self._duties.discard((lane, name))
        self._bucket = pacing.take(self._budget, self._bucket, market_ms)
        self._in_hand = name
        return job

    def finish(self) -> None:
        """Take note that the job taken last is done."""
        self._in_hand = None

    def is_ready(self, market_ms: int) -> bool:
        """Whether ``take`` would return a job."""
        return self._next_lane(market_ms) is not None

    def holds(self, token: int) -> bool:
        """Whether a token waits to be sent, or is being sent."""
        return self._in_hand == token or any(
            token in names for lane, names in self._names.items() if lane != Lane.CANCEL
        )

    @property
    def has_duties(self) -> bool:
        """Whether something that the router decided on by itself still waits."""
        return bool(self._duties)

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return sum(len(jobs) for jobs in self._lanes.values())

    def __iter__(self) -> Iterator[Job]:
        """Yield the waiting jobs in the order in which they would leave."""
        for lane in Lane:
            yield from self._lanes[lane]

    def _next_lane(self, market_ms: int) -> Lane | None:
        for lane in Lane:
            if self._lanes[lane]:
                is_exit = lane in EXIT_LANES
                free = pacing.may_take(self._budget, self._bucket, market_ms, is_exit=is_exit)
                return lane if free else None
        return None


def _name(job: Job) -> object:
    """Return what makes two jobs of a lane the same."""
    _, subject, _ = job
    if isinstance(subject, Live):
        return subject.client_id
    return subject.token if isinstance(subject, Approved) else None
