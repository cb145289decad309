"""What the writer does when the disk fails, the file goes away or the process is killed."""

import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.unit.audit_logs import (
    CHILD_BOUND_S,
    ROOT,
    Folders,
    make_log,
    make_rows,
    next_month_ns,
    start_ns,
)
from tripgate import clock
from tripgate.audit.chain import GENESIS
from tripgate.audit.segments import (
    Retirement,
    list_segments,
    read_retirement,
    segment_of,
    write_retirement,
)
from tripgate.audit.store import AuditUnwritableError, LogReader
from tripgate.errors import ChainBrokenError, StateUnwritableError

KILLS = 5

WRITER = """
from pathlib import Path
from tests.unit.audit_logs import Folders, make_rows
folders, batch = Folders(Path(sys.argv[1])), int(sys.argv[2])
with folders.writer() as writer:
    first = writer.last_sequences().get((1, 0), 0) + 1
    while True:
        sequence = writer.append(make_rows(batch, first=first))
        first += batch
        sys.stdout.write(f"{sequence}\\n")
        sys.stdout.flush()
        if first % (4 * batch) == 1:
            writer.checkpoint({"portfolio": sequence}, 1, 1)
"""


def read_line(stream: IO[bytes]) -> bytes:
    """Return the child's next line, waiting for it within a generous bound."""
    ready, _, _ = select.select([stream], [], [], CHILD_BOUND_S)
    assert ready, "the writing process says nothing"
    return stream.readline()


def test_P6_append_when_the_writer_is_killed_then_no_row_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WRITER}"
    acknowledged = 0
    for attempt in range(KILLS):
        command = [sys.executable, "-c", code, str(folders.state), str(10 + 30 * attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as child:
            assert child.stdout is not None
            # The more lines are awaited, the deeper into its work the writer dies.
            for _ in range(1 + 7 * attempt):
                acknowledged = int(read_line(child.stdout))
            os.kill(child.pid, signal.SIGKILL)
            for line in child.stdout.read().split():
                acknowledged = int(line)
        verdict = folders.verify()
        assert verdict.problems == []
        assert verdict.rows >= acknowledged
    stored = folders.verify().rows
    rows = make_rows(stored + 25, utc_ns=clock.utc_ns())
    with folders.writer() as writer:
        assert writer.append(rows) == stored + 25
        assert writer.append(rows) == stored + 25
    sequences = [row.row.producer_sequence for row in folders.rows()]
    assert sequences == list(range(1, stored + 26))
    assert folders.verify().verified


def test_append_when_the_file_is_moved_then_it_fails_and_a_new_file_takes_the_rows(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    writer = folders.writer()
    writer.append(make_rows(10))
    path = writer.path
    aside = tmp_path / "aside.db"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).rename(f"{aside}{suffix}")
    with pytest.raises(AuditUnwritableError):
        writer.append(make_rows(10, first=11))
    assert writer.head.sequence == 10
    with folders.writer() as successor:
        assert successor.last_sequences() == {(1, 0): 10}
        assert successor.append(make_rows(15, first=6)) == 20
    verdict = folders.verify()
    assert not verdict.verified
    assert "a file or rows are missing" in verdict.problems[0]
    # Where the file comes back, its unacknowledged tail belongs to nobody.
    aside.rename(path)
    for suffix in ("-wal", "-shm"):
        if (moved := Path(f"{aside}{suffix}")).exists():
            moved.rename(f"{path}{suffix}")
    assert folders.verify().problems == []
    assert [row.row.producer_sequence for row in folders.rows()] == list(range(1, 21))
    assert len(LogReader(folders.audit).newest(100)) == 20
    assert sum(LogReader(folders.audit).count_by_kind().values()) == 20
    held = sqlite3.connect(path)
    assert held.execute("SELECT count(*) FROM log").fetchone() == (20,)
    held.close()
    with folders.writer() as third:
        assert third.last_sequences() == {(1, 0): 20}


def test_reader_when_the_newest_file_is_retired_then_its_unacknowledged_tail_is_not_read(
    tmp_path: Path,
) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    acknowledged = folders.rows()[14]
    (segment,) = list_segments(folders.audit)
    retirement = Retirement(15, acknowledged.hash, {})
    folders.heads_file.write_bytes(folders.heads_file.read_bytes().splitlines(True)[0])
    write_retirement(folders.audit, segment, retirement)
    assert [row.sequence for row in folders.rows()] == list(range(1, 16))
    assert folders.verify().problems == []
    assert folders.verify().rows == 15
    with folders.writer() as writer:
        assert writer.last_sequences() == {(1, 0): 10, (1, 1): 5}
        assert writer.append(make_rows(10, producer=1)) == 20
    assert folders.verify().problems == []


@pytest.mark.parametrize("use", ["append", "probe"])
def test_writer_when_the_file_is_replaced_then_it_fails(tmp_path: Path, use: str) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    writer = folders.writer()
    copy = tmp_path / "copy.db"
    shutil.copy(writer.path, copy)
    copy.replace(writer.path)
    with pytest.raises(AuditUnwritableError, match="took its place"):
        writer.probe() if use == "probe" else writer.append(make_rows(1, epoch=2))


def test_writer_when_commits_fail_again_and_again_then_each_time_a_file_follows(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    for round_number in range(4):
        writer = folders.writer()
        writer.append(make_rows(5, first=5 * round_number + 1))
        shutil.copy(writer.path, tmp_path / "copy.db")
        inode_before = writer.path.stat().st_ino
        writer.path.rename(tmp_path / "held.db")
        with pytest.raises(AuditUnwritableError):
            writer.append(make_rows(5, first=5 * round_number + 6))
        (tmp_path / "held.db").rename(writer.path)
        assert writer.path.stat().st_ino == inode_before
    numbers = [path.name.count(".") for path in folders.paths()]
    assert numbers == [1, 2, 2, 2]
    assert folders.verify().problems == []
    assert folders.verify().rows == 20


def test_append_when_the_next_months_file_cannot_be_made_then_a_new_writer_goes_on(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    base = start_ns()
    later = next_month_ns(base)
    obstacle = folders.audit / f"{segment_of(later).name}.new"
    rows = make_rows(5, utc_ns=base) + make_rows(5, first=6, utc_ns=later)
    writer = folders.writer()
    obstacle.mkdir()
    with pytest.raises(AuditUnwritableError):
        writer.append(rows)
    assert writer.head.sequence == 5
    obstacle.rmdir()
    with folders.writer() as successor:
        assert successor.append(rows) == 10
    assert len(folders.paths()) == 3
    assert folders.verify().problems == []


def test_marker_when_it_cannot_be_read_then_nothing_goes_on_by_guesswork(tmp_path: Path) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    segment = segment_of(clock.utc_ns())
    write_retirement(folders.audit, segment, Retirement(20, folders.rows()[-1].hash, {(1, 0): 10}))
    assert folders.verify().verified
    assert read_retirement(folders.audit, segment) is not None
    marker = folders.audit / f"{segment.name}.retired"
    for text in ("", "[]", '{"sequence": -1}', '{"sequence": 1, "head": "00"}', "[" * 10**5):
        marker.write_text(text)
        with pytest.raises(ChainBrokenError, match="cannot be read"):
            folders.writer()
        assert not folders.verify().verified
        with pytest.raises(ChainBrokenError):
            folders.rows()


def test_marker_when_it_claims_more_than_the_file_holds_then_the_verdict_says_so(
    tmp_path: Path,
) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    segment = segment_of(clock.utc_ns())
    write_retirement(folders.audit, segment, Retirement(25, GENESIS, {}))
    assert "had been acknowledged up to row 25" in "".join(folders.verify().problems)


def test_segment_when_writing_failed_too_often_then_the_error_says_what_to_do() -> None:
    segment = segment_of(0)
    for _ in range(999):
        segment = segment.next_in_month()
    with pytest.raises(StateUnwritableError, match="replace the disk"):
        segment.next_in_month()
