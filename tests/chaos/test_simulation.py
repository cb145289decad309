"""The deterministic simulation: it repeats to the bit, it shrinks, and its oracle is alive."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.faults import FAULTS, sigkill
from chaos.invariants import Limits, all_invariants
from chaos.plan import FaultAt, Plan, from_json, read_plan, to_json
from chaos.simulation.campaign import (
    RunVerdict,
    draw_plan,
    invariant_names,
    regression_paths,
    run_campaign,
    shrink,
)
from chaos.simulation.mutants import MUTANTS, hunt
from chaos.simulation.run import simulate
from tripgate.cli import chaos as command
from tripgate.errors import ConfigError, UsageError
from tripgate.machines import breaker
from tripgate.reasons import Level

SEEDS_PER_MUTANT = 400


def test_simulation_when_200_seeds_run_then_every_invariant_is_exercised_and_holds() -> None:
    campaign = run_campaign(map(draw_plan, range(200)))
    assert campaign.failed is None
    assert campaign.runs == 200
    assert [count.name for count in campaign.invariants] == list(invariant_names())
    assert {count.verdict for count in campaign.invariants} == {RunVerdict.PASS}
    assert campaign.restarts > 400
    assert campaign.fills > 10_000


def test_simulation_when_a_seed_is_repeated_then_the_trace_is_equal_to_the_bit() -> None:
    hashes = [simulate(draw_plan(seed)).trace_hash for seed in range(12)]
    assert hashes == [simulate(draw_plan(seed)).trace_hash for seed in range(12)]
    assert len(set(hashes)) == 12


def test_simulation_when_run_in_another_process_then_hash_order_does_not_matter() -> None:
    code = (
        "from chaos.simulation.campaign import draw_plan;"
        "from chaos.simulation.run import simulate;"
        "print(simulate(draw_plan(3)).trace_hash)"
    )
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {simulate(draw_plan(3)).trace_hash}


def test_simulation_when_seeds_vary_then_every_level_is_reached() -> None:
    reached = {simulate(draw_plan(seed)).level_max for seed in range(60)}
    assert reached == set(Level)


@pytest.mark.parametrize("bug", MUTANTS)
def test_mutant_when_a_fence_is_broken_then_its_invariant_catches_it(bug: str) -> None:
    mutant = MUTANTS[bug]
    caught = hunt(mutant, SEEDS_PER_MUTANT)
    assert caught is not None, "the mutant survived"
    assert caught.violation is not None
    assert caught.violation.invariant in mutant.caught_by
    assert simulate(caught.plan).violation is None


def test_shrink_when_a_plan_fails_then_no_single_fault_can_be_left_out() -> None:
    mutant = MUTANTS["duplicate fills are booked"]
    caught = hunt(mutant, SEEDS_PER_MUTANT)
    assert caught is not None
    assert caught.violation is not None
    shrunk = shrink(caught, mutant.steps)
    assert shrunk.violation is not None
    assert shrunk.violation.invariant == caught.violation.invariant
    assert 0 < len(shrunk.plan.faults) < len(caught.plan.faults)
    for number in range(len(shrunk.plan.faults)):
        faults = shrunk.plan.faults[:number] + shrunk.plan.faults[number + 1 :]
        assert simulate(replace(shrunk.plan, faults=faults), mutant.steps).violation is None
    again = from_json(to_json(shrunk.plan))
    assert simulate(again, mutant.steps) == shrunk


def test_campaign_when_a_mutant_fails_then_it_stops_and_shrinks() -> None:
    steps = MUTANTS["a restart clears the causes"].steps
    campaign = run_campaign(map(draw_plan, range(50)), steps)
    assert campaign.failed is not None
    assert campaign.shrunk is not None
    assert campaign.runs < 50
    assert not campaign.is_passed
    failed = [count.name for count in campaign.invariants if count.verdict is RunVerdict.FAIL]
    assert failed == ["I6_restart_never_loosens"]


def test_campaign_when_nothing_strikes_then_the_rest_is_not_exercised_and_no_pass() -> None:
    calm = replace(draw_plan(5), faults=())
    campaign = run_campaign([calm])
    verdicts = {count.name: count.verdict for count in campaign.invariants}
    assert verdicts["I4_book_equals_log_and_venue"] is RunVerdict.NOT_EXERCISED
    assert verdicts["I6_restart_never_loosens"] is RunVerdict.NOT_EXERCISED
    assert verdicts["B2_equity_is_exact"] is RunVerdict.PASS
    assert not campaign.is_passed


def test_simulation_when_the_hypothesis_names_invariants_then_only_those_are_judged() -> None:
    plan = replace(draw_plan(1), hypothesis=("B2_equity_is_exact",))
    assert list(simulate(plan).exercised) == ["B2_equity_is_exact"]
    [count] = run_campaign([plan]).invariants
    assert (count.name, count.verdict) == ("B2_equity_is_exact", RunVerdict.PASS)


def test_regression_when_kept_plans_run_then_their_bugs_are_gone() -> None:
    plans = [read_plan(path) for path in regression_paths()]
    assert plans
    for plan in plans:
        assert plan.faults, "a kept plan says which faults it needs"
        assert simulate(plan).violation is None


def test_regression_when_a_withdrawal_is_logged_before_its_effect_then_the_plan_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [path] = [path for path in regression_paths() if path.stem == "withdrawal-cut-short"]
    monkeypatch.setattr(breaker, "persisted_first", lambda before, after: after.causes)
    violation = simulate(read_plan(path)).violation
    assert violation is not None
    assert violation.invariant == "P6_log_explains_the_level"


def test_invariants_when_listed_then_names_are_unique_and_say_what_they_judge() -> None:
    invariants = all_invariants(Limits({}, 1, (1, 2, 3, 4), 0, 0, 0))
    assert len({invariant.name for invariant in invariants}) == len(invariants)
    assert all(invariant.judges and invariant.exercised == 0 for invariant in invariants)


def plan_with(*faults: FaultAt) -> Plan:
    return Plan("t", 1, (), faults, heal_ms=100, end_ms=200)


def test_plan_when_written_and_read_then_it_is_equal() -> None:
    plan = draw_plan(8)
    assert plan.faults
    assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        pytest.param(FaultAt(0, "sigkil", "keeper"), "none of", id="unknown fault"),
        pytest.param(FaultAt(100, "sigkill", "keeper"), "time_ms", id="after healing"),
        pytest.param(FaultAt(-1, "sigkill", "keeper"), "time_ms", id="before the start"),
        pytest.param(FaultAt(0, "sigkill", "keeper", {"down_ms": -1}), "down_ms", id="negative"),
    ],
)
def test_plan_when_a_fault_is_wrong_then_it_is_refused_with_its_place(
    fault: FaultAt, part: str
) -> None:
    with pytest.raises(ConfigError, match=rf"faults\[0\].*{part}"):
        plan_with(fault)


def test_plan_when_its_frame_is_wrong_then_all_problems_are_said_at_once() -> None:
    late, early = FaultAt(9, "sigkill", "keeper"), FaultAt(3, "sigkill", "keeper")
    with pytest.raises(ConfigError) as caught:
        Plan("t", 1, (), (late, early), heal_ms=300, end_ms=200)
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match="at most"):
        plan_with(*[FaultAt(0, "sigkill", "keeper")] * 1_001)


@pytest.mark.parametrize(
    ("target", "hypothesis", "part"),
    [("router", (), "unknown target"), ("keeper", ("I99",), "unknown invariant")],
)
def test_simulation_when_the_plan_names_the_unknown_then_it_is_refused(
    target: str, hypothesis: tuple[str, ...], part: str
) -> None:
    faults = (FaultAt(0, "sigkill", target),)
    plan = replace(draw_plan(1), faults=faults, hypothesis=hypothesis)
    with pytest.raises(ConfigError, match=part):
        simulate(plan)


def test_simulation_when_the_plan_is_shorter_than_a_step_then_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="end_ms: at least"):
        simulate(plan_with())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param({"seed": "1"}, "seed: expected int", id="type"),
        pytest.param({"seed": True}, "seed: expected int", id="bool"),
        pytest.param({"sed": 1}, "unknown field 'sed'", id="unknown"),
        pytest.param({"schema": 9}, "schema", id="schema"),
        pytest.param({"hypothesis": [1]}, "hypothesis", id="hypothesis"),
        pytest.param({"heal_ms": 0}, "heal_ms", id="frame"),
        pytest.param({"faults": [7]}, "expected an object", id="fault no object"),
        pytest.param({"faults": [{"time_ms": 1}]}, "target is missing", id="fault incomplete"),
        pytest.param(
            {
                "faults": [
                    {
                        "time_ms": 1,
                        "fault": "sigkill",
                        "target": "keeper",
                        "arguments": {"down_ms": 0.5},
                    }
                ]
            },
            "down_ms: expected a whole number",
            id="argument",
        ),
    ],
)
def test_plan_when_json_is_wrong_then_the_file_and_field_are_named(
    change: dict[str, object], part: str
) -> None:
    document = {**json.loads(to_json(draw_plan(8))), **change}
    with pytest.raises(ConfigError, match="my plan: ") as caught:
        from_json(json.dumps(document), "my plan")
    assert part in str(caught.value)


def test_plan_when_the_file_cannot_be_read_then_the_error_says_which(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        read_plan(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not JSON"):
        read_plan(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected an object"):
        read_plan(tmp_path / "list.json")


def test_sigkill_when_applied_to_a_process_then_it_dies_by_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        sigkill.apply(child.pid)
        assert child.wait(timeout=30) == -9
        with pytest.raises(UsageError, match="No such process"):
            sigkill.apply(child.pid)


def test_sigkill_when_the_pid_is_not_another_process_then_it_is_refused() -> None:
    for pid in (-1, 0, 1, os.getpid()):
        with pytest.raises(UsageError, match="another ordinary process"):
            sigkill.apply(pid)


def test_command_when_a_campaign_passes_then_it_prints_verdicts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.run(seeds=30) == 0
    printed = capsys.readouterr().out
    for name in invariant_names():
        assert name in printed
    assert "30 runs" in printed
    assert command.run(seeds=30, json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert document["violation"] is None


def test_command_when_an_invariant_is_not_exercised_then_it_is_no_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.run(seeds=1, first_seed=9) == 1
    seen = capsys.readouterr()
    assert "not exercised" in seen.out
    assert "run more --seeds" in seen.err


@pytest.mark.parametrize("json_output", [False, True])
def test_command_when_an_invariant_is_violated_then_exit_40_with_seed_and_shrunk_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, json_output: bool
) -> None:
    # The real steps violate nothing, so the command is shown a campaign with a mutant in it.
    steps = MUTANTS["duplicate fills are booked"].steps
    monkeypatch.setattr(
        "chaos.simulation.campaign.run_campaign", lambda plans: run_campaign(plans, steps)
    )
    assert command.run(seeds=20, json=json_output) == 40
    printed = capsys.readouterr().out
    assert "I4_book_equals_log_and_venue" in printed
    if json_output:
        plan = from_json(json.dumps(json.loads(printed)["violation"]["shrunk_plan"]))
    else:
        plan = from_json(printed[printed.index("\n{") :])
    assert simulate(plan, steps).violation is not None


def test_command_when_given_a_plan_then_it_runs_that_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(draw_plan(4)), encoding="utf-8")
    assert command.run(plan=path) == 0
    assert "1 runs" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--seeds"):
        command.run(seeds=0)


def test_command_when_listing_then_faults_targets_and_invariants_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.list_plans() == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*FAULTS, "keeper", *invariant_names()))
    assert command.list_plans(json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["targets"] == ["breaker", "keeper"]
    assert len(document["plans"]) == len(regression_paths())
