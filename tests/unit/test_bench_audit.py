"""``tripgate bench audit``: that what it measures is what it says. How fast it is, is no test."""

import json

import pytest

from benchmarks import audit
from benchmarks.audit import decision_rows, disk_folder, file_system_of
from tripgate.cli.app import main
from tripgate.gate.record import RECORD_BYTES


def test_bench_audit_when_run_briefly_then_every_figure_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = audit.run_audit(scale=0.01, producers=(1,), loads=audit.LOADS[:1])
    assert set(result["writer"]) == {"1", "100", "1000"}
    # 400 records of one producer went through its ring into a log that verified.
    path = result["path"]["1"]
    assert round(path["rows_per_commit"] * path["commit"]["samples"]) in range(395, 406)
    figures = [
        result["references"]["plain_executemany"]["rows_per_s"],
        result["references"]["sqlite_utils_insert_all"]["rows_per_s"],
        result["references"]["append_fdatasync_4k"]["p50_ms"],
        result["submit_to_durable"]["alone"]["p50_ms"],
        result["verify"]["rows_per_s"],
        result["export_jsonl"]["rows_per_s"],
        result["archive"]["rows_per_s"],
        *(row["rows_per_s"] for row in result["writer"].values()),
        *(row["p99_ms"] for row in result["writer"].values()),
    ]
    assert all(figure > 0 for figure in figures)
    assert result["archive"]["bytes_per_row"] < result["bytes_per_row"]
    assert [type(goal["reached"]) for goal in result["goals"]] == [bool, bool]

    monkeypatch.setattr(audit, "run_audit", lambda: result)
    assert main(["bench", "audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == "audit"
    assert main(["bench", "audit"]) == 0
    assert "writer 1000: rows_per_s" in capsys.readouterr().out


def test_decision_rows_when_made_then_they_follow_each_other_and_have_a_records_size() -> None:
    rows = decision_rows(5, first=3)
    assert [row.producer_sequence for row in rows] == [3, 4, 5, 6, 7]
    assert {len(row.body) for row in rows} == {RECORD_BYTES}
    assert len({row.body for row in rows}) == 5


def test_disk_folder_when_left_then_nothing_stays_of_it() -> None:
    with disk_folder() as folder:
        assert folder.is_dir()
        assert file_system_of(folder) != "unknown"
    assert not folder.exists()
