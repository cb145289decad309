"""``tripgate halt``: what it stores, in which order, and what it refuses."""

import json
from typing import Any

import pytest

from tests.unit.cli_pages import make_instance
from tripgate.cli import halt as halt_module
from tripgate.cli.app import main
from tripgate.durable import FileLock
from tripgate.instance import page_folder, state_folder
from tripgate.operator_file import read_records
from tripgate.page.doorbell import Doorbell
from tripgate.page.level import LevelWriter, bump_generation, node_level, set_level, writer_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level

NAME = "paper-1"


def run(*words: str) -> int:
    return main([words[0], "--instance", NAME, *words[1:]])


def records() -> list[dict[str, Any]]:
    return list(read_records(state_folder(NAME), 0))


def test_halt_when_no_process_lives_then_record_byte_generation_and_sequence_are_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    generation = int(page.header["generation"][0])
    words = ("--scope", "venue:sim", "--reason", "  odd \n fills ", "--operator", "ann")
    assert run("halt", *words) == 0
    assert writer_level(page, 1, LevelWriter.OPERATOR) is Level.HARD
    assert writer_level(page, 0, LevelWriter.OPERATOR) is Level.NORMAL
    assert int(page.header["generation"][0]) == generation + 1
    assert int(page.header["operator_sequence"]) == 1
    (record,) = records()
    assert record.pop("utc_ns") > 0
    assert record.pop("os_user")
    assert record == {
        "id": 1, "command": "halt", "scope": "venue:sim", "level": "HARD", "reason": "odd fills",
        "operator": "ann",
    }  # fmt: skip
    captured = capsys.readouterr()
    assert "venue:sim: the operator holds HARD (before: NORMAL), level HARD" in captured.out
    assert "the tree is not running" in captured.err


def test_halt_when_the_tree_lives_then_it_rings_every_bell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_instance()
    bells = [Doorbell(page_folder(NAME), name) for name in ("role1", "slot16")]
    assert run("halt", "--scope", "portfolio", "--reason", "r", "--level", "emergency") == 0
    assert [bell.socket.recv(64) for bell in bells] == [b"!", b"!"]
    for bell in bells:
        bell.close()
    assert "are being closed" in capsys.readouterr().err


def test_halt_when_a_higher_one_stands_then_it_is_not_lowered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    assert run("halt", "--scope", "portfolio", "--reason", "r", "--level", "EMERGENCY") == 0
    generation = int(page.header["generation"][0])
    capsys.readouterr()
    assert run("halt", "--scope", "portfolio", "--reason", "r", "--level", "MEDIUM", "--json") == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert (printed["operator_level"], printed["record"]) == ("EMERGENCY", 2)
    assert "earlier halt" in captured.err
    assert writer_level(page, 0, LevelWriter.OPERATOR) is Level.EMERGENCY
    assert int(page.header["generation"][0]) == generation
    assert int(page.header["operator_sequence"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scope", "venue:sin", "--reason", "r"), "did you mean 'venue:sim'?"),
        (("--scope", "portfolio", "--reason", " "), "had 0"),
        (("--scope", "portfolio", "--reason", "x" * 501), "had 501"),
        (("--scope", "portfolio", "--reason", "r", "--level", "HARDER"), "did you mean 'HARD'?"),
        (("--scope", "portfolio", "--reason", "r", "--level", "NORMAL"), "--level is one of"),
        (("--scope", "portfolio"), "--reason"),
    ],
)
def test_halt_when_it_is_asked_wrongly_then_nothing_happens_and_it_exits_2(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    assert run("halt", *words) == 2
    assert says in capsys.readouterr().err
    assert records() == []
    assert all(node_level(page, node) is Level.NORMAL for node in range(5))


def test_halt_when_the_instance_has_no_page_then_it_exits_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state_folder(NAME).mkdir(parents=True)
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 3
    assert "has no page" in capsys.readouterr().err


def test_halt_when_its_record_cannot_be_stored_then_it_exits_7_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    (state_folder(NAME) / "operator.jsonl").mkdir()
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 7
    assert "operator.jsonl" in capsys.readouterr().err
    assert node_level(page, 0) is Level.NORMAL


def test_halt_when_another_command_holds_the_lock_then_it_acts_all_the_same() -> None:
    page = make_instance()
    lock = FileLock(state_folder(NAME) / halt_module.LOCK_NAME, is_removed=False)
    assert lock.acquire()
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 0
    lock.release()
    assert node_level(page, 0) is Level.HARD


def test_halt_when_a_start_replaces_the_page_meanwhile_then_the_new_page_is_halted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = make_instance()
    fresh: list[Page] = []
    announce = halt_module.announce

    def replace_then_announce(page: Page, record: int) -> None:
        # A start between the store and the look at the page again cannot be timed from outside.
        announce(page, record)
        if not fresh:
            fresh.append(make_instance(epoch=2))

    monkeypatch.setattr(halt_module, "announce", replace_then_announce)
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 0
    assert node_level(old, 0) is Level.HARD
    assert node_level(fresh[0], 0) is Level.HARD
    assert int(fresh[0].header["operator_sequence"]) == 1


def test_halt_when_it_tightens_then_byte_and_actors_come_before_the_slow_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = make_instance()
    seen: list[tuple[Level, int]] = []

    def look_then_bump(target: Page) -> int:
        # In a fresh process this step imports the compiled atomics: seconds on a busy machine.
        seen.append((node_level(page, 0), int(page.header["operator_sequence"])))
        return bump_generation(target)

    monkeypatch.setattr(halt_module, "bump_generation", look_then_bump)
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 0
    assert seen == [(Level.HARD, 1)]


def test_halt_when_a_resume_that_held_the_lock_lowers_it_then_it_is_ordered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = make_instance()
    lock = FileLock(state_folder(NAME) / halt_module.LOCK_NAME, is_removed=False)
    assert lock.acquire()
    announce = halt_module.announce

    def announce_then_end_the_resume(target: Page, record: int) -> None:
        announce(target, record)
        if record == 1:
            set_level(page, 0, LevelWriter.OPERATOR, Level.NORMAL)
            lock.release()

    monkeypatch.setattr(halt_module, "announce", announce_then_end_the_resume)
    assert run("halt", "--scope", "portfolio", "--reason", "r") == 0
    assert writer_level(page, 0, LevelWriter.OPERATOR) is Level.HARD
    assert [record["id"] for record in records()] == [1, 2]
    assert int(page.header["operator_sequence"]) == 2
