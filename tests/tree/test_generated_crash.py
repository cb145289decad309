"""The scripted crash of the generator: no panel, no network, and the breaker trips all the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange_adapters.market.replay import PANELS_VARIABLE
from tests.tree.paper_runs import PaperRun, paper_run
from tripgate.messages import EventKind
from tripgate.reasons import Level


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperRun]:
    nowhere: Path = tmp_path_factory.mktemp("no-panels")
    with paper_run(**{PANELS_VARIABLE: str(nowhere)}) as run:
        options = ("--strategy", "hold", "--gross", "1.0", "--speed", "max")
        run.start("--feed", "generator:crash", *options)
        run.wait()
        yield run


def test_generated_crash_when_run_without_panels_then_it_reaches_hard_and_ends_flat(
    run: PaperRun,
) -> None:
    summary, code = run.summary, run.wait()
    assert Level[summary["level_max"]] >= Level.HARD
    assert code == (14 if summary["level_max"] == "EMERGENCY" else 0), run.last_words
    assert summary["flat"]
    assert run.log_positions() == {}
    assert summary["audit"]["verified"]
    assert summary["overshoot_at_grant_max"] <= 0
    assert summary["restarts"] == 0


def test_generated_crash_when_it_is_over_then_nothing_is_left_of_the_run(run: PaperRun) -> None:
    run.wait()
    assert run.processes() == {}
    assert not run.page_is_left
    assert [body["reason"] for body in run.bodies(EventKind.RUN_ENDED)] == ["feed finished"]


def test_P10_generated_crash_when_its_log_is_replayed_then_book_and_levels_come_out(
    run: PaperRun,
) -> None:
    run.wait()
    told = run.replayed()
    assert told["mismatches"] == []
    assert told["positions"] == {}
    assert told["decisions"]["equal"] == told["decisions"]["approved"] > 0
    assert told["levels"]["portfolio"] == run.summary["level_max"]
    assert told["checkpoints"]["snapshot_sums"] > 0
