"""``tripgate audit``: exit codes, what is printed, whose log is meant."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.unit.audit_logs import Folders, make_log, make_rows, start_ns, unguarded, with_body
from tripgate.cli import audit
from tripgate.cli.app import main
from tripgate.errors import NotRunningError, UsageError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state root that the commands look at."""
    monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "root"))
    monkeypatch.setenv("TRIPGATE_SHM", str(tmp_path / "shm"))
    monkeypatch.delenv("TRIPGATE_INSTANCE", raising=False)
    return tmp_path / "root"


def break_row(folders: Folders, sequence: int) -> None:
    with unguarded(folders.paths()[0]) as connection:
        connection.execute("UPDATE log SET kind = 88 WHERE seq = ?", (sequence,))


def test_verify_when_the_log_holds_then_it_exits_0(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_log(state / "paper-1", rows=20, batch=10)
    assert main(["audit", "verify", "paper-1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("paper-1: verified: 20 rows, 1 files, ")
    assert folders.verify().head in out


def test_verify_when_the_chain_is_broken_then_it_exits_30_and_names_the_row(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_row(make_log(state / "paper-1", rows=20, batch=10), 7)
    assert main(["audit", "verify"]) == 30
    captured = capsys.readouterr()
    assert captured.out.startswith("paper-1: BROKEN from row 7 on: ")
    assert "row 7 does not match its hash" in captured.out
    assert "copy both" in captured.err


@pytest.mark.parametrize("is_broken", [False, True])
def test_verify_when_json_is_asked_for_then_one_object_is_printed(
    state: Path, capsys: pytest.CaptureFixture[str], is_broken: bool
) -> None:
    folders = make_log(state / "paper-1", rows=20, batch=10)
    if is_broken:
        break_row(folders, 7)
    assert main(["audit", "verify", "--json"]) == (30 if is_broken else 0)
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1
    assert printed["verified"] is not is_broken
    assert printed["rows"] == 20
    assert printed["broken_sequence"] == (7 if is_broken else None)
    assert len(printed["problems"]) == is_broken


def test_verify_when_there_is_no_log_then_it_exits_3(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify"]) == 3
    (state / "paper-1").mkdir(parents=True)
    assert main(["audit", "verify"]) == 3
    assert main(["audit", "verify", "paper-1"]) == 3
    assert main(["audit", "verify", "other"]) == 3
    assert main(["audit", "verify", "--file", str(state / "none.db")]) == 3
    assert capsys.readouterr().out == ""


def test_verify_when_only_heads_are_left_then_the_log_is_broken(state: Path) -> None:
    folders = make_log(state / "paper-1", rows=20, batch=10)
    folders.paths()[0].unlink()
    assert audit.verify("paper-1") == 30


def test_verify_when_no_name_is_given_then_the_log_written_last_is_meant(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("paper-1", "paper-3", "paper-2")):
        folders = make_log(state / name, rows=2 * (number + 1), batch=2)
        for path in (*folders.audit.iterdir(), *folders.heads.iterdir()):
            os.utime(path, ns=(10**18 + number, 10**18 + number))
    assert audit.verify() == 0
    assert capsys.readouterr().out.startswith("paper-2: verified: 6 rows")


def test_verify_when_the_environment_names_an_instance_then_its_log_is_meant(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_log(state / "paper-1", rows=2, batch=2)
    make_log(state / "paper-2", rows=4, batch=2)
    monkeypatch.setenv("TRIPGATE_INSTANCE", "paper-1")
    assert audit.verify() == 0
    assert capsys.readouterr().out.startswith("paper-1: verified: 2 rows")


def test_verify_when_a_file_is_given_then_it_alone_is_verified(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_log(tmp_path / "elsewhere", rows=20, batch=10)
    path = folders.paths()[0]
    assert main(["audit", "verify", "--file", str(path)]) == 0
    assert f"{path}: verified: 20 rows" in capsys.readouterr().out
    break_row(folders, 3)
    assert main(["audit", "verify", "--file", str(path)]) == 30
    with pytest.raises(UsageError):
        audit.verify("paper-1", file=path)


def test_query_when_rows_match_then_the_newest_are_printed_oldest_first(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_log(state / "paper-1", rows=40, batch=10)
    assert main(["audit", "query", "--kind", "2", "--kind", "4", "--limit", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 3
    assert {row["kind"] for row in rows} <= {2, 4}
    sequences = [row["sequence"] for row in rows]
    assert sequences == sorted(sequences)
    assert rows[0]["body"]["sequence"] == rows[0]["producer_sequence"]
    assert main(["audit", "query", "--limit", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_query_when_a_body_is_raw_then_it_is_printed_in_hexadecimal(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = Folders(state / "paper-1")
    row = make_rows(1, utc_ns=start_ns())[0]
    nested = b"\x82\x01\x91\xc4\x01\xff\xa1m\x81\x02\x03"
    with folders.writer() as writer:
        writer.append([with_body(row, bytes(range(256)))])
        writer.append([with_body(make_rows(1, first=2)[0], nested)])
    assert main(["audit", "query", "--json"]) == 0
    raw, packed = json.loads(capsys.readouterr().out)["rows"]
    assert raw["body"] == bytes(range(256)).hex()
    assert packed["body"] == {"1": ["ff"], "m": {"2": 3}}


def test_query_when_the_limit_is_out_of_range_then_it_is_refused(state: Path) -> None:
    make_log(state / "paper-1", rows=2, batch=2)
    for limit in (0, 10**9):
        with pytest.raises(UsageError):
            audit.query("paper-1", limit=limit)
    with pytest.raises(NotRunningError):
        audit.query("paper-2")


def test_query_when_the_log_is_damaged_then_it_exits_30(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_log(state / "paper-1", rows=2, batch=2)
    folders.paths()[0].write_bytes(b"no database")
    assert main(["audit", "query"]) == 30
    assert "tripgate audit verify" in capsys.readouterr().err


def test_verify_when_log_and_heads_were_rolled_back_together_then_an_outside_copy_shows_it(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_log(state / "paper-1", rows=20, batch=10)
    older = folders.copy_to(tmp_path / "older")
    with folders.writer() as writer:
        writer.append(make_rows(7, epoch=2))
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(folders.heads_file.read_bytes())
    assert main(["audit", "verify", "--heads", str(outside)]) == 0
    shutil.rmtree(folders.state)
    older.copy_to(folders.state)
    assert main(["audit", "verify"]) == 0, "by itself it looks whole"
    capsys.readouterr()
    assert main(["audit", "verify", "--heads", str(outside)]) == 30
    printed = capsys.readouterr().out
    assert f"the log ends at row 20, but {outside} line " in printed
    assert "names row 27" in printed
    # The other way round: a forged log agrees with its own heads and not with the copy.
    with folders.writer() as writer:
        writer.append(make_rows(9, epoch=3))
    assert main(["audit", "verify"]) == 0
    assert main(["audit", "verify", "--heads", str(outside)]) == 30
    assert f"is not the row that {outside} line" in capsys.readouterr().out
    assert main(["audit", "verify", "--heads", str(tmp_path / "none")]) == 3
