"""The crash of 2021-05-19, replayed twice: levels rise when they must, and nothing opens after.

The times were computed from the panel by hand (equal notional bought at the first tick of
2021-05-19, 0.5 × equity in all, ticks by the rule of the market-data page).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.tree.paper_runs import PaperRun, panel_or_none, paper_run
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.messages import EventKind
from tripgate.reasons import Level

BAR_MS = 300_000
SYMBOLS = 10
EXPECTED = {"SOFT": "03:00", "MEDIUM": "11:20", "HARD": "12:40"}
EXITS = FLAG_CLOSING | FLAG_EXIT | FLAG_STOP


@pytest.fixture(scope="module")
def runs() -> Iterator[list[PaperRun]]:
    panel = panel_or_none()
    if panel is None:
        pytest.skip("the recorded panel of 2021 is not on this machine (TRIPGATE_PANELS)")
    # Until an hour after the last level: once flat, the demo only watches.
    window = ("--from", "2021-05-19", "--to", "2021-05-19T13:45")
    options = ("--strategy", "hold", "--gross", "0.5", "--speed", "max")
    with paper_run() as first, paper_run() as second:
        for run in (first, second):
            run.start("--replay", str(panel), *window, *options)
            assert run.wait() == 0, run.last_words
        yield [first, second]


@pytest.mark.parametrize("level", EXPECTED)
def test_levels_when_the_market_crashes_then_each_is_reached_in_its_bar(
    runs: list[PaperRun], level: str
) -> None:
    expected = datetime.fromisoformat(f"2021-05-19T{EXPECTED[level]}").replace(tzinfo=UTC)
    bar_ms = int(expected.timestamp()) * 1000
    reached = [row[0] for row in runs[0].summary["levels"] if row[1:3] == ["portfolio", level]]
    assert len(reached) == 1
    assert bar_ms - BAR_MS <= reached[0] < bar_ms + 2 * BAR_MS


def test_levels_when_the_market_crashes_then_they_only_rise(runs: list[PaperRun]) -> None:
    for scope in ("portfolio", "venue:sim", "strategy:hold"):
        levels = [Level[row[2]] for row in runs[0].summary["levels"] if row[1] == scope]
        assert levels == [Level.SOFT, Level.MEDIUM, Level.HARD]
    assert runs[0].summary["level_max"] == "HARD"


def test_account_when_hard_was_reached_then_it_is_flat_and_observed_flat(
    runs: list[PaperRun],
) -> None:
    run = runs[0]
    assert run.summary["flat"]
    assert run.log_positions() == {}
    assert "portfolio" in [body["scope"] for body in run.bodies(EventKind.FLAT)]
    assert run.summary["fills"] == 2 * SYMBOLS
    assert run.summary["liquidations"] == 0


def test_decisions_when_medium_is_reached_then_no_opening_is_approved(
    runs: list[PaperRun],
) -> None:
    approved = [(ms, told) for ms, told in runs[0].decisions() if told.approved]
    openings = [(ms, told) for ms, told in approved if not told.flags & EXITS]
    assert len(openings) == SYMBOLS
    medium_ms = min(row[0] for row in runs[0].summary["levels"] if row[2] == "MEDIUM")
    assert all(ms < medium_ms and told.level < Level.MEDIUM for ms, told in openings)
    assert runs[0].summary["overshoot_at_grant_max"] <= 0


def test_stops_when_positions_are_open_then_each_has_one_placed(runs: list[PaperRun]) -> None:
    for run in runs:
        sent = [body for body in run.bodies(EventKind.ORDER_SENT) if body["kind"] == "stop_market"]
        assert len({body["symbol"] for body in sent}) == len(sent) == SYMBOLS
        assert all(body["reduce_only"] for body in sent)


def test_log_when_the_run_is_over_then_it_is_verified(runs: list[PaperRun]) -> None:
    for run in runs:
        assert run.summary["audit"]["verified"]
        assert run.command("audit", "verify", "--instance", run.instance).returncode == 0


def test_decisions_when_run_twice_then_they_are_equal(runs: list[PaperRun]) -> None:
    first, second = (run.summary["decisions"] for run in runs)
    assert first == second
    assert first["approved"] == SYMBOLS
