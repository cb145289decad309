"""The operator's file: durable, in order, each record once, whatever else stands in it."""

import threading
from pathlib import Path

import pytest

from tripgate import operator_file
from tripgate.errors import StateUnwritableError
from tripgate.operator_file import FILE_NAME, append_record, read_records


def test_append_record_when_called_again_then_ids_are_line_numbers(tmp_path: Path) -> None:
    assert [append_record(tmp_path, {"command": name}) for name in ("halt", "resume")] == [1, 2]
    assert [(r["id"], r["command"]) for r in read_records(tmp_path, 0)] == [
        (1, "halt"),
        (2, "resume"),
    ]
    assert [r["id"] for r in read_records(tmp_path, 1)] == [2]
    assert list(read_records(tmp_path, 2)) == []


def test_read_records_when_there_is_no_file_then_there_are_none(tmp_path: Path) -> None:
    assert list(read_records(tmp_path, 0)) == []


def test_append_record_when_many_write_at_once_then_every_id_is_given_once(tmp_path: Path) -> None:
    given: list[int] = []
    threads = [
        threading.Thread(target=lambda: given.append(append_record(tmp_path, {"command": "halt"})))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(1, 17))
    assert [record["id"] for record in read_records(tmp_path, 0)] == list(range(1, 17))


def test_read_records_when_the_last_line_is_torn_then_it_is_left_for_later(tmp_path: Path) -> None:
    append_record(tmp_path, {"command": "halt"})
    path = tmp_path / FILE_NAME
    with path.open("ab") as file:
        file.write(b'{"id": 2, "command": "res')
    assert [record["id"] for record in read_records(tmp_path, 0)] == [1]
    with path.open("ab") as file:
        file.write(b'ume"}\n')
    assert [record["id"] for record in read_records(tmp_path, 1)] == [2]


@pytest.mark.parametrize("line", ["no json", "[1]", '{"id": 7}', "{}", "\udcff"])
def test_read_records_when_a_line_is_no_record_then_it_is_passed_over(
    tmp_path: Path, line: str
) -> None:
    append_record(tmp_path, {"command": "halt"})
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    append_record(tmp_path, {"command": "resume"})
    assert [record["id"] for record in read_records(tmp_path, 0)] == [1, 3]


def test_read_records_when_the_file_has_too_many_lines_then_reading_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_file, "RECORDS_MAX", 2)
    for _ in range(4):
        append_record(tmp_path, {"command": "halt"})
    assert [record["id"] for record in read_records(tmp_path, 0)] == [1, 2]


def test_append_record_when_the_folder_is_gone_then_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritableError, match="free space there and try again"):
        append_record(tmp_path / "gone", {"command": "halt"})
