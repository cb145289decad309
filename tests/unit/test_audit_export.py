"""``tripgate audit export``: the same rows give the same text, and it says how far it goes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.audit_logs import Folders, make_rows, start_ns
from tripgate.audit.record import Row, pack_body
from tripgate.cli.app import main
from tripgate.cli.audit_rows import utc_text
from tripgate.gate.record import FIELDS, FLAGS_SHIFT
from tripgate.messages import EventKind
from tripgate.page.layout import RECORD_WORDS
from tripgate.reasons import DenyReason


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """A log with names, one decision and some events."""
    monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "root"))
    folders = Folders(tmp_path / "root" / "paper-1")
    base = start_ns()
    record = np.zeros(RECORD_WORDS, dtype=np.int64)
    record[FIELDS.index("outcome")] = int(DenyReason.LEASE_LAPSED) | 1 << FLAGS_SHIFT
    told = {"table": "strategies", "first": 0, "names": ["trend"]}
    rows = [
        Row(9, 0, 1, base, 1, 1, int(EventKind.NUMBERS_ASSIGNED), None, pack_body(told)),
        Row(9, 0, 2, base + 5, 2, 2, int(EventKind.DECISION), None, record.tobytes()),
    ]
    with folders.writer() as writer:
        writer.append(rows)
        writer.append(make_rows(20, epoch=10, utc_ns=base + 1_000_000_000))
    return folders


def export(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["audit", "export", "paper-1", *words]) == 0
    return capsys.readouterr().out


def test_export_when_printed_as_json_lines_then_decisions_are_words_and_the_head_ends_it(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    text = export(capsys)
    assert text == export(capsys)
    *rows, end = [json.loads(line) for line in text.splitlines()]
    stored = folders.rows()
    assert [row["sequence"] for row in rows] == list(range(1, 23))
    assert [row["hash"] for row in rows] == [row.hash.hex() for row in stored]
    assert end == {"end": {"rows": 22, "sequence": 22, "head": folders.verify().head}}
    decision = rows[1]
    assert decision["kind_name"] == "DECISION"
    assert decision["body"]["reason"] == "LEASE_LAPSED"
    assert decision["body"]["strategy"] == "trend"
    assert decision["body"]["instrument"] == 0, "no name was told for it"


def test_export_when_filtered_then_the_choice_holds_in_both_formats(
    folders: Folders, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = folders.rows()
    later = utc_text(stored[2].row.utc_ns // 1000 * 1000)[:26]
    *rows, end = [
        json.loads(line) for line in export(capsys, "--from", later, "--kind", "2").splitlines()
    ]
    wanted = [row.sequence for row in stored[2:] if row.row.kind == 2]
    assert [row["sequence"] for row in rows] == wanted
    assert end["end"]["sequence"] == wanted[-1]
    *rows, _ = export(capsys, "--to", later + "+00:00").splitlines()
    assert len(rows) == 2
    *rows, end = export(capsys, "--kind", "decision", "--kind", "fill").splitlines()
    decided = [row for row in stored if row.row.kind == EventKind.DECISION]
    assert len(rows) == len(decided)

    file = tmp_path / "rows.csv"
    assert export(capsys, "--format", "csv", "--output", str(file)) == ""
    text = file.read_text()
    *lines, last = text.splitlines()
    table = list(csv.DictReader(lines))
    assert [int(row["sequence"]) for row in table] == list(range(1, 23))
    assert json.loads(table[1]["body"])["strategy"] == "trend"
    assert json.loads(last.removeprefix("# "))["end"]["rows"] == 22
    assert file.stat().st_mode & 0o077 == 0


def test_export_when_nothing_matches_then_the_end_says_so(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    text = export(capsys, "--kind", "OPERATOR")
    assert json.loads(text)["end"]["rows"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "xml"],
        ["--from", "yesterday"],
        ["--from", "2026-01-02", "--to", "2026-01-02"],
        ["--kind", "DECISIONS"],
        ["--output", "."],
    ],
)
def test_export_when_it_is_called_wrongly_then_it_exits_2_and_says_why(
    folders: Folders, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["audit", "export", "paper-1", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err
    assert folders.verify().verified


def test_export_when_the_file_cannot_be_written_then_it_exits_7(
    folders: Folders, tmp_path: Path
) -> None:
    absent = tmp_path / "none" / "rows.jsonl"
    assert main(["audit", "export", folders.state.name, "--output", str(absent)]) == 7
