"""Operational logs: lines, bounds, masks, and disks that refuse."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tripgate import logs
from tripgate.errors import ConfigError
from tripgate.logs import FILES_KEPT, MASK, LineFile, hide, level_of, open_log

CANARY = "canary-7f3a91c2e5"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_when_written_then_each_line_names_process_time_level_and_fields(
    tmp_path: Path,
) -> None:
    log = open_log(tmp_path / "logs", "router-sim", instance="paper-1")
    log.info("order sent", token=7, lots=-3)
    log.warning("venue silent", seconds=2.5)
    first, second = lines(tmp_path / "logs" / "router-sim.jsonl")
    assert (first["event"], first["level"], first["token"], first["lots"]) == (
        "order sent", "info", 7, -3,
    )  # fmt: skip
    assert (first["process"], first["instance"], first["pid"]) == (
        "router-sim", "paper-1", os.getpid(),
    )  # fmt: skip
    assert second["host_ns"] >= first["host_ns"] > 0
    assert second["utc_ns"] > 10**18
    assert (tmp_path / "logs").stat().st_mode & 0o077 == 0
    assert (tmp_path / "logs" / "router-sim.jsonl").stat().st_mode & 0o077 == 0


def test_log_when_an_exception_is_told_then_its_traceback_is_in_the_line(tmp_path: Path) -> None:
    log = open_log(tmp_path, "root")
    try:
        raise ValueError("no such price")
    except ValueError:
        log.exception("the step failed")
    (line,) = lines(tmp_path / "root.jsonl")
    assert line["level"] == "error"
    assert "ValueError: no such price" in line["exception"]


def test_log_when_a_hidden_value_occurs_anywhere_then_it_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_hidden", set())
    hide(CANARY)
    log = open_log(tmp_path, "root", where=f"/home/{CANARY}")
    try:
        raise ValueError(f"the venue refused {CANARY}")
    except ValueError:
        log.exception(f"it was {CANARY}", nested={"deep": [CANARY, (CANARY,)]}, raw=CANARY.encode())
    log.info("long", text="x" * (logs.LINE_CHARACTERS_MAX - 4) + CANARY)
    log.info("a key", **{f"name-{CANARY}": 1})
    text = (tmp_path / "root.jsonl").read_text()
    assert CANARY[:5] not in text
    assert MASK in text


def test_log_when_a_field_is_named_like_a_secret_then_its_value_is_masked(tmp_path: Path) -> None:
    log = open_log(tmp_path, "root")
    log.info("venue opened", config={"api_key": CANARY, "Secret": 12, "token": 99}, password="hm")
    (line,) = lines(tmp_path / "root.jsonl")
    assert line["config"] == {"api_key": MASK, "Secret": MASK, "token": 99}
    assert line["password"] == MASK


def test_secret_when_too_short_to_be_one_then_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 6 characters"):
        hide("abc")


def test_log_when_its_file_is_full_then_it_turns_over_and_keeps_few(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.jsonl", bytes_max=100)
    for number in range(50):
        file.msg(f"{number:030d}")
    file.close()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["a.jsonl", *(f"a.jsonl.{n}" for n in range(1, FILES_KEPT + 1))]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert int((tmp_path / "a.jsonl").read_text().split()[-1]) == 49
    assert (
        int((tmp_path / "a.jsonl.1").read_text().split()[-1])
        == int((tmp_path / "a.jsonl").read_text().split()[0]) - 1
    )


def test_log_when_the_folder_cannot_be_written_then_lines_are_counted_and_nothing_fails(
    tmp_path: Path,
) -> None:
    (tmp_path / "logs").write_text("a file where a folder belongs")
    log = open_log(tmp_path / "logs", "root")
    log.error("nobody will read this")
    file = LineFile(tmp_path / "logs" / "root.jsonl")
    file.msg("nor this")
    assert file.lost == 1
    assert (tmp_path / "logs").read_text() == "a file where a folder belongs"


def test_log_when_values_are_odd_then_the_line_is_bounded_json(tmp_path: Path) -> None:
    log = open_log(tmp_path, "root")
    deep: list[Any] = []
    for _ in range(20):
        deep = [deep]
    log.info("odd", deep=deep, many=list(range(10_000)), text="y" * 100_000, other=Path("/x"))

    class Mute:
        def __str__(self) -> str:
            raise OSError("no text")

    log.info("bad text", value="\ud800", huge=2**90, mute=Mute())
    first, second = lines(tmp_path / "root.jsonl")
    assert len(first["many"]) == logs.ITEMS_MAX
    assert len(first["text"]) == logs.LINE_CHARACTERS_MAX
    assert first["other"] == "/x"
    assert second["value"] == "\\ud800"
    assert second["huge"] == str(2**90)
    assert "Mute" in second["mute"]


def test_log_level_when_named_then_lower_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "warning")
    log = open_log(tmp_path, "root")
    log.info("left out")
    log.warning("kept")
    assert [line["event"] for line in lines(tmp_path / "root.jsonl")] == ["kept"]


def test_log_level_when_there_is_none_of_the_name_then_it_says_which_there_are() -> None:
    assert level_of({}) == 20
    with pytest.raises(ConfigError, match="debug, info, warning, error"):
        level_of({logs.LEVEL_VARIABLE: "loud"})
