"""P6 against an adversary: every known way of changing a log is noticed, or changed nothing."""

import json
import shutil
from pathlib import Path

import pytest

from chaos.tampering.examiner import Question, examine
from chaos.tampering.kinds import Demand, Kind, Scene
from chaos.tampering.run import (
    HARMLESS,
    KINDS,
    MISSED,
    OUTSIDE,
    Examiner,
    Tally,
    Verdict,
    finder_of,
    run_tampering,
)
from tests.unit.audit_logs import Folders, make_log
from tripgate.cli import chaos_tampering as command
from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.errors import UsageError


def test_P6_log_when_it_is_tampered_with_in_any_known_way_then_it_is_noticed_or_harmless() -> None:
    verdict = run_tampering(trials=1, seed=5)
    assert verdict.violations == []
    assert verdict.is_exercised
    assert verdict.rows > 5_000
    assert len(verdict.kinds) == len({kind.name for kind in KINDS}) > 80
    finders = {name for kind in verdict.kinds for name in kind.found_by}
    expected = {"chain", "heads", "schema", "files", "integrity", "read error", HARMLESS, OUTSIDE}
    assert finders == expected


def _spoil_nothing(scene: Scene) -> None:
    """A kind that claims to damage and does not: the campaign must not pass it."""


def _spoil_much(scene: Scene) -> None:
    shutil.rmtree(scene.log.audit)


def test_campaign_when_a_change_escapes_or_an_alarm_is_false_then_it_is_a_violation() -> None:
    verdict = run_tampering(
        trials=1,
        seed=1,
        kinds=(
            Kind("must be found", Demand.FOUND, _spoil_nothing),
            Kind("must be harmless", Demand.HARMLESS, _spoil_much),
        ),
    )
    assert [kind.found_by for kind in verdict.kinds] == [{MISSED: 1}, {"false alarm": 1}]
    assert verdict.violations[0] == "must be found: missed: []"
    assert "there is no log" in verdict.violations[1]
    assert not verdict.is_exercised


def test_examiner_when_it_dies_then_that_is_an_accident_and_another_one_answers(
    tmp_path: Path,
) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    question = Question(str(folders.state), str(folders.heads), 20)
    with Examiner() as examiner:
        # It cannot know such a question and falls over it.
        answer = examiner.ask(Question(str(folders.state), None, 20))  # type: ignore[arg-type]
        assert answer.accidents == ["the examiner died"]
        answer = examiner.ask(question)
        assert (answer.problems, answer.count, answer.accidents) == ([], 20, [])


def test_examiner_when_a_part_raises_what_it_never_promised_then_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    question = Question(str(folders.state), str(folders.heads), 20)
    sound = examine(question)
    assert (sound.problems, sound.count, sound.accidents) == ([], 20, [])

    def fall_over(*_: object) -> None:
        raise ZeroDivisionError("one")

    monkeypatch.setattr("chaos.tampering.examiner.verify", fall_over)
    answer = examine(question)
    assert answer.problems == ["none: see accidents"]
    assert "ZeroDivisionError: one" in answer.accidents[0]
    folders.paths()[0].write_bytes(b"no database")
    assert examine(question).digest is None


def test_verify_when_the_heads_are_empty_then_it_says_so(tmp_path: Path) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    folders.heads_file.write_bytes(b"")
    assert "heads.jsonl names no row" in folders.verify().problems[0]


@pytest.mark.parametrize("name", ["audit-9999-12.db", "audit-0000-01.db", "audit-1969-12.db"])
def test_log_when_a_file_of_an_impossible_month_lies_there_then_it_is_no_part_of_it(
    tmp_path: Path, name: str
) -> None:
    folders: Folders = make_log(tmp_path / "state", rows=20, batch=10)
    shutil.copy(folders.paths()[0], folders.audit / name)
    folders.writer().close()
    assert folders.verify().problems == []
    assert len(folders.paths()) == 1


def test_finder_when_a_problem_is_new_then_it_is_other() -> None:
    assert finder_of("something never said before") == "other"


@pytest.mark.parametrize(
    ("violations", "found", "code"),
    [([], 1, 0), (["missed: []"], 1, EXIT_VIOLATED), ([], 0, EXIT_NOT_EXERCISED)],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_tampering_command_when_it_has_a_verdict_then_its_output_and_code_say_so(
    violations: list[str], found: int, code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # A verdict made by hand: a real campaign is judged above.
    tally = Tally("DELETE", Demand.FOUND.value, 1, found, {"chain": found}, violations)
    monkeypatch.setattr(
        "chaos.tampering.run.run_tampering", lambda **_: Verdict(3, 5400, [tally], 1.5)
    )
    assert command.tampering(trials=1, json=as_json) == code
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out)["violations"] == [f"DELETE: {text}" for text in violations]
    else:
        assert "1 trials on 5400 rows" in out
        assert ("DELETE: missed" in out) == bool(violations)


@pytest.mark.parametrize(("trials", "seed"), [(0, 0), (10**6, 0), (1, -1)])
def test_tampering_command_when_a_number_is_out_of_range_then_nothing_is_started(
    trials: int, seed: int
) -> None:
    with pytest.raises(UsageError, match="expected"):
        command.tampering(trials=trials, seed=seed)
