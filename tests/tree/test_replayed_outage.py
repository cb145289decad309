"""The outage of 2021-04-25, 04:05 to 08:45 UTC: stale is stale, and never a return of zero."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.tree.paper_runs import PaperRun, panel_or_none, paper_run
from tripgate.gate.record import DecisionRecord
from tripgate.messages import EventKind
from tripgate.reasons import DenyReason

STEPS = 289
"""Six hours of four steps a bar, and the first one."""


def at(text: str) -> int:
    """Return a time of the day in market ms."""
    return int(datetime.fromisoformat(f"2021-04-25T{text}").replace(tzinfo=UTC).timestamp()) * 1000


OUTAGE = (at("04:05"), at("08:45"))
STALE_AFTER = at("04:07:30")
"""The last tick is of 04:04:59; age bound in replay: two steps of 75 s, from the third on."""


def openings_of(run: PaperRun) -> list[tuple[int, DecisionRecord]]:
    """Return the decisions on openings: the demo is only ever long, so they are its buys."""
    return [(ms, told) for ms, told in run.decisions() if told.values["lots"] > 0]


@pytest.fixture(scope="module")
def run() -> Iterator[PaperRun]:
    panel = panel_or_none()
    if panel is None:
        pytest.skip("the recorded panel of 2021 is not on this machine (TRIPGATE_PANELS)")
    window = ("--from", "2021-04-25T03:30", "--to", "2021-04-25T09:30")
    with paper_run() as run:
        run.start("--replay", str(panel), *window, "--strategy", "pulse", "--speed", "max")
        assert run.wait() == 0, run.last_words
        yield run


def test_openings_when_the_feed_is_out_then_each_is_denied_as_stale(run: PaperRun) -> None:
    openings = openings_of(run)
    stale = [ms for ms, told in openings if told.reason is DenyReason.INPUT_STALE]
    assert min(stale) >= OUTAGE[0]
    assert max(stale) < OUTAGE[1]
    inside = [told.reason for ms, told in openings if STALE_AFTER <= ms < OUTAGE[1]]
    assert inside
    assert set(inside) == {DenyReason.INPUT_STALE}


def test_openings_when_the_feed_is_back_then_they_are_approved_again(run: PaperRun) -> None:
    approved = [ms for ms, told in openings_of(run) if told.approved]
    assert min(approved) < OUTAGE[0]
    assert max(approved) >= OUTAGE[1]
    assert not [ms for ms in approved if STALE_AFTER <= ms < OUTAGE[1]]


def test_fills_when_the_feed_is_out_then_there_are_none(run: PaperRun) -> None:
    times = [row.market_ms for row in run.rows(EventKind.FILL)]
    assert [ms for ms in times if ms < OUTAGE[0]]
    assert [ms for ms in times if ms >= OUTAGE[1]]
    assert not [ms for ms in times if OUTAGE[0] <= ms < OUTAGE[1]]


def test_board_when_the_feed_is_out_then_it_gets_no_tick(run: PaperRun) -> None:
    # 4 h 40 min of 6 h are out: 80 min of four ticks per bar remain, for each of ten symbols.
    assert run.summary["steps"] == STEPS
    assert run.summary["ticks"] == 16 * 4 * 10


def test_equity_when_the_feed_is_out_then_it_stands_still_and_is_no_return(run: PaperRun) -> None:
    told = []
    for row, body in zip(
        run.rows(EventKind.RISK_SNAPSHOT), run.bodies(EventKind.RISK_SNAPSHOT), strict=True
    ):
        accounts = body["accounts"]
        assert isinstance(accounts, dict)
        if STALE_AFTER <= row.market_ms < OUTAGE[1]:
            told.append(accounts["portfolio"]["equity"])
    assert told
    assert len(set(told)) == 1


def test_log_when_the_run_is_over_then_it_is_verified(run: PaperRun) -> None:
    assert run.summary["audit"]["verified"]
    assert run.summary["overshoot_at_grant_max"] <= 0
