"""Damage to what lies around the rows: missing files, forged joints, damaged heads."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.audit_logs import (
    Folders,
    make_log,
    make_rows,
    next_month_ns,
    start_ns,
    unguarded,
)
from tripgate.audit.segments import Retirement, list_segments, write_retirement
from tripgate.audit.verify import verify_file

ROWS = 300


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A sound log of one file; tests damage copies of it."""
    return make_log(tmp_path_factory.mktemp("log") / "state", rows=ROWS)


@pytest.fixture
def folders(original: Folders, tmp_path: Path) -> Folders:
    """A copy of the sound log."""
    return original.copy_to(tmp_path / "state")


def months(state: Path) -> Folders:
    """Return a log of three monthly files of ten rows each."""
    folders = Folders(state)
    moment = start_ns()
    with folders.writer() as writer:
        for month in range(3):
            writer.append(make_rows(10, first=10 * month + 1, utc_ns=moment))
            moment = next_month_ns(moment)
    return folders


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_verify_when_a_file_is_missing_then_it_is_found(tmp_path: Path, lost: int) -> None:
    folders = months(tmp_path / "state")
    assert folders.verify().verified
    folders.paths()[lost].unlink()
    verdict = folders.verify()
    assert verdict.broken_sequence == 10 * lost + 1
    assert len(verdict.problems) <= 4


def test_verify_when_the_joint_of_a_file_is_forged_then_it_is_found(tmp_path: Path) -> None:
    folders = months(tmp_path / "state")
    for sql in (
        "UPDATE meta SET previous_hash = zeroblob(32)",
        "UPDATE meta SET previous_seq = 9",
        "UPDATE meta SET previous_seq = -1",
        "UPDATE meta SET previous_seq = 9223372036854775807",
        "UPDATE meta SET schema_version = 2",
        "UPDATE meta SET previous_hash = x'00'",
        "DELETE FROM meta",
    ):
        copy = folders.copy_to(tmp_path / "copy")
        with unguarded(copy.paths()[1]) as connection:
            connection.execute(sql)
        assert not copy.verify().verified, sql
        shutil.rmtree(copy.state)


def test_verify_when_rows_were_superseded_without_a_marker_then_it_is_found(
    tmp_path: Path,
) -> None:
    folders = months(tmp_path / "state")
    segment_file = folders.paths()[2]
    shutil.copy(folders.paths()[1], tmp_path / "whole.db")
    with unguarded(folders.paths()[1]) as connection:
        connection.execute("DELETE FROM log WHERE seq > 15")
    with unguarded(segment_file) as connection:
        connection.execute("UPDATE meta SET previous_seq = 15")
    assert folders.verify().broken_sequence is not None
    shutil.copy(tmp_path / "whole.db", folders.paths()[1])
    assert folders.verify().broken_sequence is not None


def test_verify_when_the_joint_of_an_empty_file_is_forged_then_it_is_found(
    folders: Folders,
) -> None:
    segment = list_segments(folders.audit)[0]
    retirement = Retirement(ROWS, folders.rows()[-1].hash, {})
    write_retirement(folders.audit, segment, retirement)
    folders.writer().close()
    assert folders.verify().verified
    with unguarded(folders.paths()[1]) as connection:
        connection.execute("UPDATE meta SET previous_hash = zeroblob(32)")
    assert folders.verify().broken_sequence == ROWS


HEADS_DAMAGE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "bit": lambda lines: [*lines[:3], lines[3].replace(b'"head":"', b'"head":"0'), *lines[4:]],
    "other head": lambda lines: [*lines[:3], lines[3].replace(b'"count":1', b'"count":2')],
    "garbage": lambda lines: [*lines[:2], b"\xff\x00\n", *lines[2:]],
    "deep": lambda lines: [b"[" * 100_000 + b"\n", *lines],
    "order": lambda lines: lines[::-1],
    "no object": lambda lines: [b"5\n", *lines],
    "wrong types": lambda lines: [*lines, lines[-1].replace(b'"sequence":', b'"sequence":1.5e')],
    "big number": lambda lines: [*lines, lines[-1].replace(b":300,", b":" + b"9" * 5000 + b",")],
    "sums": lambda lines: [lines[0].replace(b"null", b"[1]"), *lines[1:]],
}


@pytest.mark.parametrize("name", HEADS_DAMAGE)
def test_verify_when_the_heads_are_damaged_then_it_is_found(folders: Folders, name: str) -> None:
    lines = folders.heads_file.read_bytes().splitlines(keepends=True)
    damaged = HEADS_DAMAGE[name](lines)
    assert damaged != lines
    folders.heads_file.write_bytes(b"".join(damaged))
    verdict = folders.verify()
    assert not verdict.verified
    assert "heads.jsonl line" in verdict.problems[0]


def test_verify_when_the_heads_cannot_be_read_then_it_is_found(folders: Folders) -> None:
    folders.heads_file.unlink()
    folders.heads_file.mkdir()
    assert "heads.jsonl cannot be read" in folders.verify().problems[0]


def test_verify_when_there_is_nothing_then_that_is_not_called_verified(tmp_path: Path) -> None:
    verdict = Folders(tmp_path).verify()
    assert (verdict.verified, verdict.rows, verdict.files) == (False, 0, 0)


def test_verify_file_when_given_alone_then_its_place_is_believed_and_its_rows_are_not(
    tmp_path: Path,
) -> None:
    folders = months(tmp_path / "state")
    path = folders.paths()[1]
    verdict = verify_file(path)
    assert (verdict.verified, verdict.rows) == (True, 10)
    with unguarded(path) as connection:
        connection.execute("UPDATE log SET kind = 9 WHERE seq = 14")
    assert verify_file(path).broken_sequence == 14
    for other in (tmp_path / "none.db", tmp_path):
        assert not verify_file(other).verified
