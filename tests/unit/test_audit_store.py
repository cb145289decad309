"""The writer and the reader while nothing is wrong, and what they refuse."""

import json
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.audit_logs import HOUR_NS, Folders, make_log, make_rows, next_month_ns, start_ns
from tripgate import clock
from tripgate.audit.chain import GENESIS, next_hash
from tripgate.audit.heads import LINE_BYTES_MAX, read_checkpoints
from tripgate.audit.record import RecordError, canonical
from tripgate.audit.store import AuditUnwritableError, LogReader, LogWriter, ProducerGapError
from tripgate.errors import AlreadyRunningError, ChainBrokenError, StateUnwritableError, UsageError


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "state")


def test_append_when_rows_are_stored_then_each_hash_covers_the_one_before(folders: Folders) -> None:
    rows = make_rows(30)
    with folders.writer() as writer:
        assert writer.append(rows[:10]) == 10
        assert writer.append(rows[10:]) == 30
        head = writer.head
    digest = GENESIS
    for stored, row in zip(folders.rows(), rows, strict=True):
        digest = next_hash(digest, canonical(row, stored.sequence))
        assert (stored.row, stored.hash) == (row, digest)
    assert head == (30, digest, 30)
    verdict = folders.verify()
    assert (verdict.rows, verdict.head, verdict.problems) == (30, digest.hex(), [])
    assert verdict.verified


def test_append_when_there_is_nothing_then_the_head_is_genesis(folders: Folders) -> None:
    with folders.writer() as writer:
        assert writer.append([]) == 0
        assert writer.head == (0, GENESIS, 0)
    assert folders.verify().verified


def test_append_when_rows_are_drained_again_then_each_is_stored_once(folders: Folders) -> None:
    rows = make_rows(20) + make_rows(20, producer=3) + make_rows(20, epoch=2)
    with folders.writer() as writer:
        writer.append(rows[:33])
        writer.append(rows[:33])
        assert writer.append(rows + rows) == 60
    with folders.writer() as writer:
        assert writer.last_sequences() == {(1, 0): 20, (1, 3): 20, (2, 0): 20}
        assert writer.append(rows) == 60
    assert [stored.row for stored in folders.rows()] == rows


@pytest.mark.parametrize("known", [0, 5])
def test_append_when_a_record_is_missing_then_nothing_of_the_call_is_stored(
    folders: Folders, known: int
) -> None:
    with folders.writer() as writer:
        writer.append(make_rows(known))
        bad = make_rows(4, producer=1) + make_rows(3, first=known + 2)
        with pytest.raises(ProducerGapError, match=f"record {known + 1} is missing"):
            writer.append(bad)
        assert writer.append(make_rows(4, producer=1)) == known + 4
    assert folders.verify().verified


def test_append_when_a_row_is_malformed_then_the_writer_goes_on(folders: Folders) -> None:
    good, bad = make_rows(2)
    with folders.writer() as writer:
        for malformed in (
            replace(good, kind=2**70),
            replace(good, utc_ns=-5),
            replace(good, utc_ns=2**63),
        ):
            with pytest.raises(RecordError):
                writer.append([malformed])
        assert writer.append([good, bad]) == 2
    assert folders.verify().verified


def test_append_when_called_from_another_thread_then_it_works(folders: Folders) -> None:
    with folders.writer() as writer:
        thread = threading.Thread(target=writer.append, args=(make_rows(5),))
        thread.start()
        thread.join()
        assert writer.head.sequence == 5


def test_append_when_the_month_ends_then_the_next_file_follows_the_last_row(
    folders: Folders,
) -> None:
    base = start_ns()
    later = next_month_ns(base)
    rows = make_rows(7, utc_ns=base) + make_rows(7, first=8, utc_ns=later)
    back = make_rows(4, first=15, utc_ns=base)
    with folders.writer() as writer:
        writer.append(rows[:3])
        writer.append(rows[3:] + back)
        assert writer.last_sequences() == {(1, 0): 18}
    assert len(folders.paths()) == 2
    assert [len(list(LogReader(folders.audit).rows(after=after))) for after in (0, 7)] == [18, 11]
    assert [stored.row for stored in folders.rows()] == rows + back
    with folders.writer() as writer:
        # Set back, the wall clock does not reopen a month that has ended.
        assert writer.path == folders.paths()[1]
        assert writer.last_sequences() == {(1, 0): 18}
    assert folders.verify().verified
    assert folders.verify().files == 2


def test_append_when_a_batch_is_large_then_it_is_split_into_transactions(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripgate.audit.store.TRANSACTION_ROWS_MAX", 7)
    with folders.writer() as writer:
        assert writer.append(make_rows(50)) == 50
    assert folders.verify().verified


def test_writer_when_another_one_writes_then_it_is_refused_until_that_one_ends(
    folders: Folders,
) -> None:
    first = folders.writer()
    with pytest.raises(AlreadyRunningError):
        folders.writer()
    first.append(make_rows(1))
    first.close()
    first.close()
    with folders.writer() as second:
        assert second.head.sequence == 1
    with pytest.raises(AuditUnwritableError, match="it was closed"):
        first.append(make_rows(1, first=2))


def test_files_when_made_then_they_are_their_owners_alone(folders: Folders) -> None:
    with folders.writer() as writer:
        writer.append(make_rows(1))
        paths = [*folders.audit.iterdir(), *folders.heads.iterdir()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folders.audit, folders.heads)} == {0o700}


def test_writer_when_the_making_of_a_file_was_cut_short_then_it_is_made_again(
    folders: Folders,
) -> None:
    folders.audit.mkdir(parents=True)
    with folders.writer() as writer:
        name = writer.path.name
    for path in folders.audit.iterdir():
        path.unlink()
    (folders.audit / f"{name}.new").write_bytes(b"half a file")
    (folders.audit / f"{name}.new-journal").write_bytes(b"half a journal")
    with folders.writer() as writer:
        writer.append(make_rows(3))
    assert folders.verify().verified


def test_probe_when_the_disk_works_then_the_chain_is_untouched(folders: Folders) -> None:
    with folders.writer() as writer:
        writer.append(make_rows(2))
        head = writer.head
        for _ in range(3):
            writer.probe()
        assert writer.head == head
    assert folders.verify().verified


def test_checkpoint_when_written_then_it_names_the_head_and_the_sums(folders: Folders) -> None:
    with folders.writer() as writer:
        writer.append(make_rows(4))
        writer.checkpoint({"portfolio": 2**60, "venue-x": -3}, 11, 22)
        line = json.loads(folders.heads_file.read_bytes().splitlines()[-1])
        assert line["head"] == writer.head.hash.hex()
    assert (line["sequence"], line["count"], line["host_ns"], line["utc_ns"]) == (4, 4, 11, 22)
    assert line["node_sums"] == {"portfolio": 2**60, "venue-x": -3}
    assert all(checkpoint for _, checkpoint in read_checkpoints(folders.heads_file))


def test_checkpoint_when_it_is_too_long_then_it_is_refused_and_the_writer_goes_on(
    folders: Folders,
) -> None:
    with folders.writer() as writer:
        with pytest.raises(RecordError, match="fewer node sums"):
            writer.checkpoint({"x" * LINE_BYTES_MAX: 1}, 1, 1)
        writer.checkpoint({}, 1, 1)
    assert folders.verify().verified


def test_heads_when_a_crash_left_half_a_line_then_it_is_cut_off(folders: Folders) -> None:
    make_log(folders.state, rows=20, batch=10)
    complete = folders.heads_file.read_bytes()
    with folders.heads_file.open("ab") as file:
        file.write(b'{"version":1,"sequ')
    assert folders.verify().verified
    with folders.writer():
        pass
    lines = folders.heads_file.read_bytes()
    assert lines.startswith(complete)
    assert len(lines.splitlines()) == len(complete.splitlines()) + 2
    assert folders.verify().verified


def test_writer_when_its_last_head_has_no_row_then_it_refuses_to_go_on(tmp_path: Path) -> None:
    older = make_log(tmp_path / "a", rows=100)
    saved = older.copy_to(tmp_path / "b")
    with older.writer() as writer:
        writer.append(make_rows(5, epoch=2))
    (saved.heads_file).write_bytes(older.heads_file.read_bytes())
    with pytest.raises(ChainBrokenError, match="ends at row 100, but row 105"):
        saved.writer()
    assert not saved.verify().verified


def test_writer_when_its_last_head_names_another_row_then_it_refuses_to_go_on(
    tmp_path: Path,
) -> None:
    one, other = make_log(tmp_path / "a", rows=100), make_log(tmp_path / "b", rows=100)
    with other.writer() as writer:
        writer.append(make_rows(1, epoch=2))
    one_heads, other_heads = one.heads_file.read_bytes(), other.heads_file.read_bytes()
    one.heads_file.write_bytes(other_heads)
    other.heads_file.write_bytes(one_heads)
    for folders in (one, other):
        with pytest.raises(ChainBrokenError, match=r"row 10[01]\b"):
            folders.writer()
        assert not folders.verify().verified


def test_writer_when_a_folder_is_a_file_then_the_error_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    with pytest.raises(AuditUnwritableError, match="move it away") as caught:
        LogWriter(tmp_path / "audit", tmp_path / "heads")
    assert isinstance(caught.value, StateUnwritableError)
    assert caught.value.exit_code == 7


def test_writer_when_the_wall_clock_jumps_then_rows_stay_in_order(folders: Folders) -> None:
    base = start_ns()
    with folders.writer() as writer:
        writer.append(make_rows(1, utc_ns=base))
        writer.append(make_rows(1, first=2, utc_ns=base - 40 * 24 * HOUR_NS))
        writer.append(make_rows(1, first=3, utc_ns=base))
    assert len(folders.paths()) == 1
    assert folders.verify().verified


def test_reader_when_filtered_then_rows_match_and_keep_their_order(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripgate.audit.reader.BATCH_ROWS", 7)
    rows = make_rows(40) + make_rows(40, first=41, utc_ns=next_month_ns(start_ns()))
    with folders.writer() as writer:
        writer.append(rows + make_rows(9, epoch=2, utc_ns=rows[-1].utc_ns))
        reader = LogReader(folders.audit)
        assert [r.sequence for r in reader.rows()] == list(range(1, 90))
        assert [r.row for r in reader.rows(kinds=[2])] == [r for r in rows if r.kind == 2] + [
            r.row for r in reader.rows(epoch=2) if r.row.kind == 2
        ]
        assert [r.sequence for r in reader.rows(after=35, limit=10)] == list(range(36, 46))
        assert [r.sequence for r in reader.rows(epoch=2)] == list(range(81, 90))
        assert list(reader.rows(kinds=[])) == []
        assert [r.sequence for r in reader.newest(60)] == list(range(30, 90))
        assert [r.row.kind for r in reader.newest(3, kinds=[4])] == [4, 4, 4]
        assert sum(reader.count_by_kind().values()) == 89
        assert reader.count_by_kind()[0] == 17
    with pytest.raises(UsageError):
        list(reader.rows(kinds=range(1000)))


def test_reader_when_there_is_no_log_then_it_is_empty(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "none")
    assert (list(reader.rows()), reader.newest(5), reader.count_by_kind()) == ([], [], {})


def test_verify_when_the_log_is_being_written_then_it_holds(folders: Folders) -> None:
    with folders.writer() as writer:
        for first in range(1, 60, 10):
            writer.append(make_rows(10, first=first))
            writer.checkpoint(None, clock.host_ns(), clock.utc_ns())
            assert folders.verify().problems == []
