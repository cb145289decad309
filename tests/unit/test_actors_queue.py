"""The router's queue: lanes, one job per order, and the share that entries leave."""

from collections.abc import Iterator
from typing import Any

import pytest

from actors.router_orders import Live
from actors.router_queue import Job, JobQueue, Lane, lane_of
from tripgate.gate.commit import Approved
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.machines import order as machine
from tripgate.machines.pacing import Budget
from tripgate.reasons import Level

WIDE = Budget(1_000, 1_000)


def approved(token: int, flags: int = 0) -> Approved:
    return Approved(token, 0, 0, 0, flags, 1, 0, 0, 0)


def send(token: int, flags: int = 0) -> Job:
    return "send", approved(token, flags), {}


def cancel(name: str) -> Job:
    live = Live(name, machine.Order(1, 1), None, 0, 1, False, False, True)
    return "cancel", live, {}


ACCOUNT: Job = ("account", None, {})


def drained(queue: JobQueue, market_ms: int = 0) -> Iterator[Any]:
    while (job := queue.take(market_ms)) is not None:
        yield getattr(job[1], "token", getattr(job[1], "client_id", "account"))
        queue.finish()


@pytest.mark.parametrize(
    ("job", "cause", "lane"),
    [
        (cancel("a"), 0, Lane.CANCEL),
        (send(1, FLAG_EXIT), Level.HARD, Lane.FLATTEN),
        (send(1, FLAG_EXIT), 0, Lane.EXIT),
        (send(1, FLAG_STOP), Level.HARD, Lane.STOP),
        (send(1, FLAG_CLOSING), Level.HARD, Lane.EXIT),
        (send(1), 0, Lane.ENTRY),
        (ACCOUNT, 0, Lane.ACCOUNT),
    ],
)
def test_lane_of_when_a_job_is_ranked_then_by_what_it_is(job: Job, cause: int, lane: Lane) -> None:
    assert lane_of(job[0], job[1], cause) is lane


def test_take_when_jobs_of_all_lanes_wait_then_what_gets_out_goes_first() -> None:
    queue = JobQueue(WIDE, 0)
    for lane, job in (
        (Lane.ENTRY, send(1)), (Lane.ACCOUNT, ACCOUNT), (Lane.EXIT, send(2)), (Lane.ENTRY, send(3)),
        (Lane.STOP, send(4)), (Lane.FLATTEN, send(5)), (Lane.CANCEL, cancel("a")),
        (Lane.EXIT, send(6)),
    ):  # fmt: skip
        assert queue.put(job, lane)
    waiting = [getattr(job[1], "token", None) for job in queue]
    assert (len(queue), waiting[1:6]) == (8, [5, 4, 2, 6, None])
    assert list(drained(queue)) == ["a", 5, 4, 2, 6, "account", 1, 3]
    assert (len(queue), list(queue)) == (0, [])


def test_put_when_the_same_order_is_queued_again_then_it_waits_once() -> None:
    queue = JobQueue(WIDE, 0)
    assert queue.put(cancel("a"), Lane.CANCEL)
    assert not queue.put(cancel("a"), Lane.CANCEL)
    assert queue.put(cancel("b"), Lane.CANCEL)
    assert queue.put(send(7), Lane.ENTRY)
    assert not queue.put(send(7), Lane.ENTRY)
    assert queue.holds(7)
    assert list(drained(queue)) == ["a", "b", 7]
    assert queue.put(cancel("a"), Lane.CANCEL), "what has left may be asked again"


def test_holds_when_a_token_is_in_hand_then_it_is_not_free_until_done() -> None:
    queue = JobQueue(WIDE, 0)
    queue.put(send(7), Lane.ENTRY)
    queue.take(0)
    assert queue.holds(7)
    queue.finish()
    assert not queue.holds(7)


def test_take_when_the_budget_is_low_then_entries_wait_and_exits_do_not() -> None:
    queue = JobQueue(Budget(1, 4, kept_ppm=500_000), 0)
    for token in range(1, 6):
        queue.put(send(token), Lane.ENTRY)
    assert list(drained(queue)) == [1, 2]
    assert not queue.is_ready(0)
    queue.put(send(9), Lane.STOP)
    assert queue.is_ready(0)
    assert list(drained(queue)) == [9]
    assert not queue.is_ready(999)
    assert list(drained(queue, 2_000)) == [3], "three are left, two of them kept"


def test_has_duties_when_they_have_left_then_the_page_is_looked_at_again() -> None:
    queue = JobQueue(WIDE, 0)
    queue.put(send(1), Lane.ENTRY)
    assert not queue.has_duties
    queue.put(send(2), Lane.FLATTEN, duty=True)
    seen = [queue.has_duties]
    queue.take(0)
    assert [*seen, queue.has_duties] == [True, False]
