"""Every way to die, once, on real processes under the real supervisor; a short soak; dead roots.

Nothing here is held to a time but the promise itself: no approval later than lease + 20 ms.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chaos.deaths.fates import BY_NAME, FATES, Noticed
from chaos.deaths.roots import run_roots
from chaos.deaths.run import BRITTLE_DEATHS, Verdict, run_matrix, run_soak
from tripgate.cli import chaos_deaths as command
from tripgate.cli.chaos import EXIT_VIOLATED
from tripgate.errors import UsageError
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.jit_only
TOGETHER = 8
SOAK_S, SOAK_VICTIMS = 2.0, 3


@pytest.fixture(scope="module")
def matrix() -> Verdict:
    return run_matrix(1, together=TOGETHER)


@pytest.mark.parametrize("name", BY_NAME)
def test_P3_victim_when_it_dies_in_any_way_then_it_is_noticed_told_and_replaced(
    matrix: Verdict, name: str, record_property: Callable[[str, object], None]
) -> None:
    fate, seen = BY_NAME[name], matrix.fates[name]
    record_property("seen", seen)
    assert seen["n"] == 1
    assert seen["recorded_ms"]
    assert seen["back_ms"]
    if fate.noticed is not Noticed.START:
        assert seen["denials"] == [DenyReason.LEASE_LAPSED.name]
        assert seen["zeroed_ms"]
    if fate.codes:
        assert seen["code"] in fate.codes


def test_P3_matrix_when_every_fate_was_dealt_then_nothing_was_wrong_and_nobody_is_left(
    matrix: Verdict,
) -> None:
    assert matrix.violations == []
    assert matrix.dealt == matrix.recorded == len(FATES)
    assert matrix.left == {}
    assert matrix.approvals > 100
    json.dumps(matrix.as_object(), allow_nan=False)


def test_drill_when_a_hung_victim_renews_from_a_thread_then_the_late_approval_is_found() -> None:
    verdict = run_matrix(together=1, fates=[BY_NAME["blocked"]], heartbeats=True)
    assert any("approved" in text for text in verdict.violations)


def test_P3_soak_when_streaming_victims_die_at_random_then_every_death_is_told() -> None:
    verdict = run_soak(SOAK_S, seed=5, victims=SOAK_VICTIMS)
    assert verdict.violations == []
    assert verdict.dealt == verdict.recorded > 0
    assert verdict.frames > 0
    assert verdict.left == {}
    # A loaded machine may not get as far as the last of these deaths.
    assert verdict.escalation["deaths"] <= BRITTLE_DEATHS


def test_P3_root_when_it_hangs_or_is_killed_then_openings_are_denied_and_nobody_is_left() -> None:
    result = run_roots(names=("hung", "killed_all_stopped"))
    assert result["violations"] == []
    assert result["left"] == {}
    rows: dict[str, Any] = result["rows"]
    assert rows["hung"]["denied_ms"]
    assert rows["hung"]["after"].endswith("same children")
    assert rows["killed_all_stopped"]["gone_ms"]


VERDICT: dict[str, Any] = {
    "schema": 1, "kind": "soak", "seed": 3, "dealt": 2, "recorded": 1, "approvals": 70,
    "fates": {
        "sigkill": {
            "n": 2, "says": "SIGKILL from outside", "noticed": "exit", "code": -9, "reason": "",
            "denials": ["LEASE_LAPSED"], "denied_ms": {"p50": 4.0, "p99": 9.5, "max": 150.0},
            "zeroed_ms": {}, "recorded_ms": {}, "back_ms": {},
        },
    },
    "violations": ["sigkill of victim(v1)#1: approved 300.0 ms after it"], "left": {},
    "false_denials": 0, "slow_starts": 0, "asked": 9, "turn_ms": {}, "lease_ms": 250,
    "frames": 12, "escalation": {"deaths": 3, "closed_ms": 9.0, "retried_s": None, "recorded": 1},
    "load_average": 0.5, "elapsed_s": 4.0,
}  # fmt: skip
ROOTS: dict[str, Any] = {
    "schema": 1, "kind": "roots", "left": {}, "violations": [], "load_average": 0.5,
    "elapsed_s": 4.0, "lease_ms": 500,
    "rows": {"hung": {"says": "root stopped", "n": 1, "denied_ms": {"p50": 480.0}, "gone_ms": {},
                      "after": "approved again"}},
}  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_deaths_command_when_something_was_wrong_then_it_says_so_and_exits_40(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A verdict made by hand: real drills are judged above.
    monkeypatch.setattr(command, "_run", lambda *_, **__: VERDICT)
    assert command.deaths(soak=1.0, json=as_json) == EXIT_VIOLATED
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out) == VERDICT
        return
    for part in ("4.0 / 9.5 / 150", "2 deaths dealt, 1 on record", "approved 300.0 ms after it",
                 "12 frames", "closed after 9.0 ms"):  # fmt: skip
        assert part in out


def test_deaths_command_when_all_held_then_its_table_is_printed_and_it_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chaos.deaths.roots.run_roots", lambda _: ROOTS)
    assert command.deaths(roots=True) == 0
    assert "root stopped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [{"rounds": 0}, {"together": 13}, {"soak": -1.0}, {"seed": -1}, {"roots": True, "soak": 1.0}],
)
def test_deaths_command_when_a_number_is_out_of_range_then_nothing_is_started(
    words: dict[str, Any],
) -> None:
    with pytest.raises(UsageError):
        command.deaths(**words)
