"""Archives and retention: what is archived can be proved, and what is removed is never missed."""

import json
import sys
from pathlib import Path

import pytest

from tests.unit.audit_logs import ROOT, Folders, make_rows, next_month_ns, start_ns, unguarded
from tripgate.audit.archive import archive_rows, read_extent, verify_archive
from tripgate.audit.pruned import kept_rows, list_pruned
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Row, pack_body
from tripgate.cli.app import main
from tripgate.config.structs import KEEP_MONTHS_BOUND
from tripgate.gate.record import FLAG_CLOSING, FLAG_SHADOW, FLAGS_SHIFT
from tripgate.messages import EventKind
from tripgate.reasons import DenyReason


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """A log whose first month holds a run that ended, with another run in the month after."""
    monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "root"))
    folders = Folders(tmp_path / "root" / "paper-1")
    first_ns = next_month_ns(start_ns())
    rows = numbered(
        [(EventKind.RUN_STARTED, {}), (EventKind.NUMBERS_ASSIGNED, {"n": 1})]
        + [(EventKind.RISK_SNAPSHOT, {"n": n}) for n in range(40)]
        + [(EventKind.FILL, {"trade": n}) for n in range(5)]
        + [(EventKind.RUN_ENDED, {})],
        epoch=1,
        utc_ns=first_ns,
    )
    later = numbered(
        [(EventKind.RUN_STARTED, {}), (EventKind.FILL, {"trade": 9})],
        epoch=2,
        utc_ns=next_month_ns(first_ns),
    )
    with folders.writer() as writer:
        writer.append(rows[:20])
        writer.append(rows[20:])
        writer.append(later)
    keep(folders, 1)
    return folders


def numbered(events: list[tuple[EventKind, dict[str, int]]], epoch: int, utc_ns: int) -> list[Row]:
    return [
        Row(epoch, 0, number, utc_ns + number, number, number, int(kind), None, pack_body(body))
        for number, (kind, body) in enumerate(events, 1)
    ]


def keep(folders: Folders, months: int) -> None:
    """Give the instance a config as started that keeps so many months."""
    example = (ROOT / "tripgate" / "cli" / "init.py").read_text()
    text = example.partition('TEMPLATE = """\\\n')[2].partition('"""\n')[0]
    assert "keep_months = 84" in text
    (folders.state / "config.toml").write_text(text.replace("= 84", f"= {months}"))


def months(folders: Folders) -> list[str]:
    return [path.name[6:13] for path in folders.paths()]


def run(folders: Folders, month: str, output: Path, *options: str) -> int:
    output.mkdir(exist_ok=True)
    words = ["--month", month, "--output", str(output), *options]
    return main(["audit", "archive", folders.state.name, *words])


def test_archive_when_written_then_it_verifies_and_a_change_of_it_is_found(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, month, _ = months(folders)
    out = tmp_path / "archives"
    assert run(folders, month, out, "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["archives"]
    path = Path(told["archive"])
    assert main(["audit", "verify", "--archive", str(path)]) == 0
    assert "verified: 48 rows" in capsys.readouterr().out
    rows = folders.rows()[:48]
    assert list(archive_rows(path)) == rows
    assert told["head"] == rows[-1].hash.hex() == verify_archive(path, id_of).head
    assert path.stat().st_mode & 0o077 == 0
    assert run(folders, month, out) == 2, "an archive is never overwritten"
    # A month without rows has an archive too.
    assert run(folders, empty, out) == 0
    assert read_extent(out / f"audit-{empty}.parquet").rows == 0

    changed = rewritten(path, lambda columns: columns["kind"].__setitem__(7, 21))
    assert "another hash" in verify_archive(changed, id_of).problems[0]
    shorter = rewritten(path, lambda columns: [column.pop() for column in columns.values()])
    assert "end at row 47" in verify_archive(shorter, id_of).problems[0]
    assert main(["audit", "verify", "--archive", str(shorter)]) == 30
    damaged = tmp_path / "damaged.parquet"
    data = bytearray(path.read_bytes())
    for place in range(4, len(data) - 8, max(1, len(data) // 40)):
        data[place] ^= 0x5A
    damaged.write_bytes(data)
    assert verify_archive(damaged, id_of).problems
    damaged.write_bytes(b"nothing of the kind")
    assert verify_archive(damaged, id_of).problems


def id_of(_rows: int) -> None:
    """Take the progress and do nothing with it."""


def rewritten(path: Path, change: object) -> Path:
    """Return a copy of an archive whose columns (lists by name) were changed."""
    import pyarrow
    import pyarrow.parquet

    assert callable(change)
    table = pyarrow.parquet.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    change(columns)
    arrays = [pyarrow.array(columns[field.name], type=field.type) for field in table.schema]
    copy = path.with_name(f"changed-{path.name}")
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=table.schema), copy)
    return copy


def test_prune_when_a_month_is_archived_then_the_log_goes_on_without_it(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, month, newest = months(folders)
    out = tmp_path / "archives"
    for name in (empty, month):
        assert run(folders, name, out) == 0
    before = folders.rows()
    assert run(folders, empty, out, "--prune") == 0
    assert run(folders, month, out, "--prune") == 0
    assert "48 rows; 9 of them stay" in capsys.readouterr().out
    assert months(folders) == [newest]

    verdict = folders.verify()
    assert verdict.problems == []
    assert (verdict.rows, verdict.begins_after) == (2, 48)
    assert main(["audit", "verify"]) == 0
    assert f"begins at row 49, after archive audit-{month}.parquet" in capsys.readouterr().out
    # What a start reads is all there, and the newest of the snapshots.
    bulk = [row for row in before if row.row.kind == EventKind.RISK_SNAPSHOT]
    assert folders.rows() == [row for row in before if row not in bulk[:-1]]
    fills = LogReader(folders.audit).newest(3, kinds=(int(EventKind.FILL),))
    assert fills == [row for row in before if row.row.kind == EventKind.FILL][-3:]
    with folders.writer() as writer:
        assert writer.head.sequence == 50
        assert writer.last_sequences() == {(1, 0): 48, (2, 0): 2}
        assert writer.append(make_rows(3, epoch=3, utc_ns=before[-1].row.utc_ns)) == 53
    assert folders.verify().problems == []
    # The chain still binds what is gone: its archive fits, and another head would be noticed.
    last = read_extent(out / f"audit-{month}.parquet")
    assert (last.sequence, last.head) == (48, before[47].hash)
    with unguarded(folders.paths()[0]) as connection:
        connection.execute("UPDATE meta SET previous_hash = ?", (bytes(32),))
    assert not folders.verify().verified


def test_prune_when_something_still_needs_the_month_then_it_stays(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, month, newest = months(folders)
    out = tmp_path / "archives"

    def refused(name: str, words: str, code: int = 2) -> None:
        assert run(folders, name, out, "--prune") == code
        assert words in capsys.readouterr().err
        assert folders.verify().problems == []
        assert months(folders)[-2:] == [month, newest]

    refused(newest, "the newest month stays")
    refused(month, "only the oldest month can go")
    refused(empty, "there is no archive")
    keep(folders, KEEP_MONTHS_BOUND)
    refused(empty, "audit.keep_months is")
    keep(folders, 1)
    refused("1999-01", "there is no file of 1999-01")
    assert run(folders, empty, out) == 0
    with folders.writer():
        refused(empty, "has one writer", 6)
    assert run(folders, empty, out, "--prune") == 0
    # An archive of another state of the month.
    assert run(folders, month, out) == 0
    archive = out / f"audit-{month}.parquet"
    kept = archive.read_bytes()
    rewritten(archive, lambda columns: columns["kind"].__setitem__(7, 21)).replace(archive)
    refused(month, "differs from", 30)
    archive.write_bytes(kept)
    assert run(folders, month, out, "--prune") == 0
    assert [segment.name[6:13] for segment in list_pruned(folders.audit)] == [empty, month]
    assert sum(len(rows) for rows in kept_rows(folders.audit)) == 9


def test_prune_when_an_order_or_a_run_has_no_end_then_the_month_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "root"))
    base = start_ns()
    decision = Row(1, 0, 1, base, 1, 1, int(EventKind.DECISION), 77, bytes(256))
    end = pack_body({"token": 77, "state": "FILLED"})
    done = Row(1, 0, 2, base, 1, 1, int(EventKind.ORDER_DONE), 77, end)
    later = make_rows(1, epoch=1, producer=4, utc_ns=next_month_ns(base))
    cases = (
        ("run", [decision, done], "has not ended in order"),
        ("order", [decision], "no end on record, the first in row 1"),
    )
    for name, rows, words in cases:
        folders = Folders(tmp_path / "root" / name)
        with folders.writer() as writer:
            writer.append(rows)
            if name == "order":
                ended = Row(1, 0, 2, base, 1, 1, int(EventKind.RUN_ENDED), None, pack_body({}))
                writer.append([ended])
            writer.append(later)
        keep(folders, 1)
        out = tmp_path / name
        month = months(folders)[0]
        assert run(folders, month, out) == 0
        assert run(folders, month, out, "--prune") == 2
        assert words in capsys.readouterr().err
        assert len(folders.paths()) == 2


def test_prune_when_a_shadow_page_approved_or_a_gate_denied_then_no_end_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "root"))
    folders, base = Folders(tmp_path / "root" / "paper-1"), start_ns()
    outcomes = (FLAG_SHADOW << FLAGS_SHIFT, int(DenyReason.LEVEL), FLAG_CLOSING << FLAGS_SHIFT)
    decided = [
        Row(1, 0, n, base, 1, 1, int(EventKind.DECISION), n, bytes(8) + body)
        for n, body in enumerate((outcome.to_bytes(248, "little") for outcome in outcomes), 1)
    ]
    end = pack_body({"token": 3, "state": "FILLED"})
    decided.append(Row(1, 0, 4, base, 1, 1, int(EventKind.ORDER_DONE), 3, end))
    with folders.writer() as writer:
        writer.append(decided)
        writer.append(make_rows(1, epoch=2, utc_ns=next_month_ns(base)))
    keep(folders, 1)
    month, _ = months(folders)
    assert run(folders, month, tmp_path / "archives") == 0
    assert run(folders, month, tmp_path / "archives", "--prune") == 0
    assert folders.verify().problems == []


def test_marker_of_a_removed_month_when_it_is_changed_then_it_is_found(
    folders: Folders, tmp_path: Path
) -> None:
    empty, month, _ = months(folders)
    out = tmp_path / "archives"
    for name in (empty, month):
        assert run(folders, name, out) == 0
        assert run(folders, name, out, "--prune") == 0
    marker = folders.audit / f"audit-{month}.db.pruned"
    text = marker.read_text()
    for changed in (text.replace('"sequence":48', '"sequence":47'), text[:-80], "", "[]\n"):
        assert changed != text
        marker.write_text(changed)
        assert not folders.verify().verified
        assert main(["audit", "query"]) == 30
    marker.unlink()
    assert not folders.verify().verified, "a removed beginning without its marker is a gap"


def test_archive_when_pyarrow_is_missing_then_the_error_names_what_installs_it(
    folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(folders, months(folders)[0], tmp_path) == 4
    assert "python -m pip install 'tripgate[archive]'" in capsys.readouterr().err
    assert list(tmp_path.glob("*.parquet*")) == []


@pytest.mark.parametrize("words", [["--month", "2026-13"], ["--month", "2026-01", "--bad"]])
def test_archive_when_it_is_called_wrongly_then_it_exits_2(
    folders: Folders, tmp_path: Path, words: list[str]
) -> None:
    assert main(["audit", "archive", "paper-1", "--output", str(tmp_path), *words]) == 2
    absent = str(tmp_path / "none")
    assert main(["audit", "archive", "paper-1", "--month", "2026-01", "--output", absent]) == 2
