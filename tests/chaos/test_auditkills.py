"""P6 under kills: each record that was published is stored once, whoever dies and wherever."""

import json

import pytest

from chaos.auditkills.ground import record_of
from chaos.auditkills.members import MUTANTS
from chaos.auditkills.run import Verdict, run_kills
from tripgate.audit.record import unpack_body
from tripgate.cli import chaos_auditkills as command
from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.errors import UsageError
from tripgate.messages import EventKind

pytestmark = pytest.mark.jit_only
KILLS, MUTANT_KILLS = 50, 200


def test_P6_log_when_producers_and_writer_are_killed_then_every_record_is_stored_once() -> None:
    verdict = run_kills(kills=KILLS, seed=1)
    assert verdict.violations == []
    assert verdict.is_exercised, verdict.killed
    assert sum(verdict.killed.values()) >= KILLS
    assert 0 < verdict.acknowledged <= verdict.recorded
    assert verdict.files == 1


@pytest.mark.parametrize("mutant", MUTANTS)
def test_kills_when_a_bug_is_planted_then_it_is_found(mutant: str) -> None:
    verdict = run_kills(kills=MUTANT_KILLS, seed=2, mutant=mutant)
    assert any("is missing, the next one is" in text for text in verdict.violations)
    assert any("published" in text for text in verdict.violations)


def test_record_when_its_number_is_known_then_so_is_all_of_it() -> None:
    records = [record_of(2, sequence) for sequence in range(1, 100)]
    assert len(set(records)) == len(records)
    assert records[0] != record_of(3, 1)
    decisions = [payload for kind, payload in records if kind == EventKind.DECISION]
    assert {len(payload) for payload in decisions} == {256}
    bodies = [unpack_body(payload) for kind, payload in records if kind != EventKind.DECISION]
    assert {type(body["sequence"]) for body in bodies} == {int}


@pytest.mark.parametrize(
    ("violations", "acknowledged", "code"),
    [([], 5, EXIT_NOT_EXERCISED), (["slot 2: garbled"], 5, EXIT_VIOLATED)],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_auditkills_command_when_it_has_a_verdict_then_its_output_and_code_say_so(
    violations: list[str], acknowledged: int, code: int, as_json: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # A verdict made by hand, in which nobody died at most places; real ones are judged above.
    verdict = Verdict(7, {"writer stored": 3}, 90, acknowledged, 1, 2.5, violations)
    monkeypatch.setattr("chaos.auditkills.run.run_kills", lambda **_: verdict)
    assert command.auditkills(kills=9, json=as_json) == code
    out, err = capsys.readouterr()
    if as_json:
        assert json.loads(out)["killed"] == {"writer stored": 3}
    else:
        assert "90 records stored" in out
        assert ("garbled" in out) == bool(violations)
    assert ("--kills" in err) == (not violations)


@pytest.mark.parametrize(("kills", "seed"), [(0, 0), (10**7, 0), (1, -1)])
def test_auditkills_command_when_a_number_is_out_of_range_then_nothing_is_started(
    kills: int, seed: int
) -> None:
    with pytest.raises(UsageError, match="expected"):
        command.auditkills(kills=kills, seed=seed)
