"""What a new run takes over: from an old page, from the log, from the operator's file."""

import subprocess
from pathlib import Path

import pytest

from supervisors.carry_over import (
    CarryOver,
    carry_over,
    close_old_page,
    note_ended,
    read_ended,
)
from supervisors.root import restore_past
from tests.tree_fixtures import INSTANCE, levels, paper_page
from tripgate.audit.record import Body, Row, pack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import utc_ns
from tripgate.instance import page_folder
from tripgate.messages import EventKind
from tripgate.operator_file import append_record
from tripgate.page.layout import ACCOUNT, ROLE
from tripgate.page.level import LevelWriter, set_level, writer_level
from tripgate.page.mapping import open_page
from tripgate.processes import process_start_time
from tripgate.reasons import Level
from tripgate.units import money

PATIENCE_S = 60.0


def log(state: Path, *events: tuple[int, EventKind, Body]) -> None:
    """Write (epoch, kind, body) events as an audit_writer's log holds them."""
    with LogWriter(state / "audit", state / "heads") as writer:
        writer.append([
            Row(epoch, 0, number, utc_ns(), number, 1_000 + number, int(kind), None,
                pack_body(body))
            for number, (epoch, kind, body) in enumerate(events, 1)
        ])  # fmt: skip


def changed(scope: str, level: Level, cause: str = "drawdown", epoch: int = 1) -> tuple[
    int, EventKind, Body
]:  # fmt: skip
    body: Body = {"scope": scope, "level": level.name, "before": "NORMAL", "cause": cause}
    return epoch, EventKind.LEVEL_CHANGED, body


def test_carry_over_when_it_is_the_first_run_then_there_is_nothing(tmp_path: Path) -> None:
    assert carry_over(tmp_path, 0, {}) == CarryOver(True, {}, {}, 0)


def test_carry_over_when_the_last_run_did_not_end_in_order_then_it_begins_at_medium(
    tmp_path: Path,
) -> None:
    past = carry_over(tmp_path, 1, {})
    assert (past.orderly, past.levels) == (False, {"portfolio": Level.MEDIUM})


@pytest.mark.parametrize("ended", [0, 1, 3])
def test_carry_over_when_another_run_ended_in_order_then_this_one_did_not(
    tmp_path: Path, ended: int
) -> None:
    note_ended(tmp_path, ended)
    assert not carry_over(tmp_path, 2, {}).orderly


@pytest.mark.parametrize("level", [Level.HARD, Level.EMERGENCY])
def test_carry_over_when_the_end_was_orderly_then_latched_levels_stay(
    tmp_path: Path, level: Level
) -> None:
    log(tmp_path, changed("portfolio", level), changed("venue:sim", Level.SOFT),
        changed("asset:BTC", Level.MEDIUM))  # fmt: skip
    note_ended(tmp_path, 1)
    past = carry_over(tmp_path, 1, {})
    assert (past.orderly, past.levels) == (True, {"portfolio": level})


def test_carry_over_when_a_latch_was_taken_over_by_silent_runs_then_it_still_stays(
    tmp_path: Path,
) -> None:
    log(tmp_path, changed("portfolio", Level.HARD), changed("asset:BTC", Level.HARD),
        changed("asset:BTC", Level.NORMAL))  # fmt: skip
    note_ended(tmp_path, 4)
    assert carry_over(tmp_path, 4, {}).levels == {"portfolio": Level.HARD}


def test_carry_over_when_an_operator_halted_at_medium_then_only_a_resume_ends_it(
    tmp_path: Path,
) -> None:
    log(
        tmp_path,
        changed("portfolio", Level.MEDIUM, "operator"),
        changed("asset:BTC", Level.MEDIUM, "recovered"),
        changed("asset:ETH", Level.MEDIUM, "operator"),
        changed("asset:ETH", Level.NORMAL),
    )
    note_ended(tmp_path, 1)
    halted = {"portfolio": Level.MEDIUM, "asset:BTC": Level.MEDIUM}
    assert carry_over(tmp_path, 1, {}).levels == halted


@pytest.mark.parametrize(
    ("on_page", "in_log", "expected"),
    [
        (Level.SOFT, Level.HARD, Level.HARD),
        (Level.HARD, Level.SOFT, Level.HARD),
        (Level.NORMAL, Level.SOFT, Level.SOFT),
        (Level.SOFT, Level.NORMAL, Level.SOFT),
    ],
)
def test_carry_over_when_page_and_log_differ_then_the_tighter_one_counts(
    tmp_path: Path, on_page: Level, in_log: Level, expected: Level
) -> None:
    log(tmp_path, changed("asset:BTC", in_log))
    past = carry_over(tmp_path, 1, {"asset:BTC": on_page} if on_page else {})
    assert past.levels == {"asset:BTC": expected, "portfolio": Level.MEDIUM}


def test_carry_over_when_the_portfolio_stood_above_medium_then_it_is_not_lowered(
    tmp_path: Path,
) -> None:
    levels_found = carry_over(tmp_path, 1, {"portfolio": Level.EMERGENCY}).levels
    assert levels_found == {"portfolio": Level.EMERGENCY}


def test_carry_over_when_snapshots_were_logged_then_the_last_marks_count(tmp_path: Path) -> None:
    def snapshot(mark: int) -> tuple[int, EventKind, Body]:
        accounts = {"portfolio": {"high_water_mark": mark, "equity": 1}}
        return 1, EventKind.RISK_SNAPSHOT, {"accounts": accounts}

    log(tmp_path, snapshot(5), snapshot(7), (1, EventKind.RISK_SNAPSHOT, {"accounts": 3}))
    assert carry_over(tmp_path, 1, {}).high_water_marks == {}
    log(tmp_path / "other", snapshot(5), snapshot(7))
    assert carry_over(tmp_path / "other", 1, {}).high_water_marks == {"portfolio": 7}


def test_restore_past_when_records_are_logged_then_nobody_acts_on_them_again(
    tmp_path: Path,
) -> None:
    page = paper_page()
    for _ in range(3):
        append_record(tmp_path, {"command": "halt"})
    for number in (1, 2):
        log(tmp_path / str(number), (1, EventKind.OPERATOR, {"id": number, "command": "halt"}))
    past = carry_over(tmp_path / "2", 1, {})
    assert past.operator_read == 2
    restore_past(page, past, tmp_path)
    assert set(page.rows(ROLE)["operator_read"]) == {2}
    assert int(page.header["operator_sequence"]) == 3, "the third is not yet in the log: to do"


def test_restore_past_when_marks_are_known_then_they_only_rise(tmp_path: Path) -> None:
    page = paper_page()
    before = int(page.rows(ACCOUNT)["high_water_mark"][0])
    marks = {"portfolio": before + 1, "venue:sim": before - 1, "asset:GONE": before}
    restore_past(page, CarryOver(True, {}, marks, 0), tmp_path)
    rows = page.rows(ACCOUNT)["high_water_mark"]
    assert int(rows[0]) == before + 1
    assert int(rows[page.names.scope("venue:sim")]) == before


def test_close_old_page_when_there_is_none_then_there_are_no_levels() -> None:
    assert close_old_page(INSTANCE) == {}


def test_close_old_page_when_a_page_stands_then_it_is_closed_and_every_writer_counts() -> None:
    page = paper_page({"asset:BTC": Level.HARD})
    set_level(page, 0, LevelWriter.OPERATOR, Level.MEDIUM)
    set_level(page, page.names.scope("venue:sim"), LevelWriter.SUPERVISOR, Level.SOFT)
    generation = int(page.header["generation"][0])
    found = close_old_page(INSTANCE)
    assert found == {
        "portfolio": Level.MEDIUM, "venue:sim": Level.SOFT, "asset:BTC": Level.HARD,
    }  # fmt: skip
    assert (int(page.header["closed"]), int(page.header["ended"])) == (1, 1)
    assert int(page.header["generation"][0]) > generation


def test_close_old_page_when_an_actor_is_left_then_it_is_killed_and_no_stranger() -> None:
    page = paper_page()
    rows = page.rows(ROLE)
    with subprocess.Popen(["sleep", "600"]) as left, subprocess.Popen(["sleep", "600"]) as other:
        rows["pid"][1], rows["start_time"][1] = left.pid, process_start_time(left.pid)
        rows["pid"][2], rows["start_time"][2] = other.pid, process_start_time(other.pid) + 1
        close_old_page(INSTANCE)
        assert left.wait(PATIENCE_S) < 0
        assert other.poll() is None
        other.kill()


def test_restart_when_a_page_is_made_again_then_no_level_has_been_withdrawn() -> None:
    paper_page({"asset:BTC": Level.HARD, "portfolio": Level.EMERGENCY, "asset:GONE": Level.HARD})
    carried = carry_over(page_folder(INSTANCE), 1, close_old_page(INSTANCE)).levels
    again = paper_page(carried, epoch=2)
    assert levels(again) == {"portfolio": Level.EMERGENCY, "asset:BTC": Level.HARD}
    node = again.names.scope("asset:BTC")
    assert writer_level(again, node, LevelWriter.BREAKER) is Level.HARD
    assert open_page(page_folder(INSTANCE), writable=False).epoch == 2


def test_note_ended_when_read_back_then_it_is_that_epoch(tmp_path: Path) -> None:
    assert read_ended(tmp_path) == 0
    note_ended(tmp_path, 12)
    assert read_ended(tmp_path) == 12
    (tmp_path / "ended").write_text("twelve")
    assert read_ended(tmp_path) == 0


def test_paper_page_when_starting_then_marks_are_the_starting_equity() -> None:
    assert int(paper_page().rows(ACCOUNT)["high_water_mark"][0]) == money(100_000)
