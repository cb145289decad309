"""The Promela models: each holds, and each variant that breaks a rule is refuted.

The verifier's texts below are recorded from real runs of Spin 6.5.2; the rest runs Spin itself and
is skipped where it is not installed.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.spin import manifest
from chaos.spin.manifest import CLOSABLE, MODELS, RESERVATION, TRIP, Model, Variant
from chaos.spin.run import FOLDER, Outcome, Tools, Verdict, Verification, find_tools, verify
from chaos.spin.verifier import read_report
from tripgate.cli.app import main
from tripgate.errors import MissingPartError

CASES = [
    pytest.param(model, variant, id=f"{model.name}-{variant.name}")
    for model in MODELS
    for variant in model.variants
]

HOLDING = """
(Spin Version 6.5.2 -- 6 December 2019)

Full statespace search for:
	never claim         	- (none specified)
	assertion violations	+
	cycle checks       	- (disabled by -DSAFETY)
	invalid end states	+

State-vector 40 byte, depth reached 124, errors: 0
  2040978 states, stored
  3837912 states, matched
  5878890 transitions (= stored+matched)

unreached in proctype router
	reservation.pml:70, state 22, "-end-"
	(1 of 22 states)
unreached in proctype keeper
	repair.pml:222, state 127, "assert(!(sent))"
	repair.pml:184, state 117, "pending = (pending-1)"
	(2 of 163 states)
"""
VIOLATED = """pan:1: assertion violated  !(late) (at depth 154)
pan: wrote trip.pml.trail

(Spin Version 6.5.2 -- 6 December 2019)
Warning: Search not completed

State-vector 32 byte, depth reached 258, errors: 1
     3705 states, stored
"""
STUCK = """pan:1: invalid end state (at depth 37)
pan: wrote reservation.pml.trail

State-vector 92 byte, depth reached 66, errors: 1
      673 states, stored
"""
TOO_SHALLOW = """error: max search depth too small

(Spin Version 6.5.2 -- 6 December 2019)

State-vector 32 byte, depth reached 99, errors: 0
    50321 states, stored
"""
OUT_OF_MEMORY = """pan: resizing hashtable to -w24..  done
pan: reached -DMEMLIM bound
	2.09715e+09 bytes used
hint: to reduce memory, recompile with

State-vector 116 byte, depth reached 207, errors: 0
 24329654 states, stored
"""


@pytest.fixture(scope="module")
def tools() -> Tools:
    """Return Spin and a compiler, or skip."""
    try:
        return find_tools()
    except MissingPartError as error:
        pytest.skip(str(error))


def outcome(verdict: Verdict, holds: bool, unreached: tuple[str, ...] = ()) -> Outcome:
    """Return an outcome of a model named m."""
    variant = Variant((), holds, "")
    return Outcome(Model("m", "", (variant,)), variant, verdict, 1, 1, 0.0, "", unreached)


def test_report_when_a_search_is_complete_then_numbers_and_unreached_assertions_are_read() -> None:
    report = read_report(HOLDING)
    assert report is not None
    assert (report.states, report.depth, report.errors) == (2_040_978, 124, 0)
    assert (report.error, report.shortened) == ("", "")
    assert report.unreached_assertions == ("repair.pml:222",)
    assert not report.violates_assertion


def test_report_when_an_assertion_is_violated_then_it_is_named() -> None:
    report = read_report(VIOLATED)
    assert report is not None
    assert report.violates_assertion
    assert report.error == "assertion violated  !(late)"
    assert report.states == 3705


def test_report_when_processes_are_stuck_then_it_is_no_violated_assertion() -> None:
    report = read_report(STUCK)
    assert report is not None
    assert (report.errors, report.error) == (1, "invalid end state")
    assert not report.violates_assertion


@pytest.mark.parametrize(
    ("text", "why"), [(TOO_SHALLOW, "bound of the depth"), (OUT_OF_MEMORY, "memory bound")]
)
def test_report_when_a_bound_cuts_a_search_short_then_it_says_so(text: str, why: str) -> None:
    report = read_report(text)
    assert report is not None
    assert report.errors == 0
    assert why in report.shortened


@pytest.mark.parametrize("text", ["", "Segmentation fault", "State-vector 4 byte, errors: 0"])
def test_report_when_there_is_no_summary_then_there_is_none(text: str) -> None:
    assert read_report(text) is None


def test_manifest_when_compared_with_the_files_then_every_model_and_define_is_in_both() -> None:
    assert {path.stem for path in FOLDER.glob("*.pml")} == {model.name for model in MODELS}
    for model in MODELS:
        text = (FOLDER / f"{model.name}.pml").read_text()
        looked_at = set(re.findall(r"^#ifn?def (\w+)$|defined\((\w+)\)", text, re.MULTILINE))
        named = {define for variant in model.variants for define in variant.defines}
        assert {first or second for first, second in looked_at} == named, model.name
        assert any(variant.holds for variant in model.variants)
        assert any(not variant.holds for variant in model.variants)


@pytest.mark.parametrize(("model", "variant"), CASES)
def test_model_when_searched_then_its_verdict_is_the_demanded_one(
    tools: Tools, model: Model, variant: Variant
) -> None:
    found = verify(tools, model, variant)
    assert found.is_expected, (found.verdict, found.why)
    assert found.states > 50
    if variant.holds and len([one for one in model.variants if one.holds]) == 1:
        assert found.unreached_assertions == ()


def test_search_when_a_bound_is_too_small_then_it_is_undecided_and_not_a_proof(
    tools: Tools,
) -> None:
    shallow = verify(tools, TRIP, TRIP.variants[0], depth_max=60)
    assert (shallow.verdict, shallow.is_expected) == (Verdict.UNDECIDED, False)
    assert "depth" in shallow.why
    cramped = verify(tools, CLOSABLE, CLOSABLE.variants[0], memory_mb_max=24)
    assert cramped.verdict is Verdict.UNDECIDED
    assert "memory" in cramped.why
    hurried = verify(tools, RESERVATION, RESERVATION.variants[0], bound_s=0.01)
    assert hurried.verdict is Verdict.UNDECIDED
    assert "time" in hurried.why


def test_search_when_a_model_is_malformed_then_it_is_undecided_and_says_why(
    tools: Tools, tmp_path: Path
) -> None:
    (tmp_path / "broken.pml").write_text("active proctype p() { nonsense }\n")
    model = Model("broken", "", (Variant((), True, ""),))
    found = verify(tools, model, model.variants[0], folder=tmp_path)
    assert found.verdict is Verdict.UNDECIDED
    assert found.why.startswith("spin failed:")


def test_search_when_processes_deadlock_then_it_is_undecided(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "stuck.pml").write_text("byte x; active proctype p() { x == 1 }\n")
    model = Model("stuck", "", (Variant((), False, ""),))
    found = verify(tools, model, model.variants[0], folder=tmp_path)
    assert (found.verdict, found.why) == (Verdict.UNDECIDED, "invalid end state")


def test_verification_when_an_assertion_is_reached_by_no_holding_variant_then_it_is_no_pass() -> (
    None
):
    one = outcome(Verdict.HOLDS, True, ("m.pml:1", "m.pml:2"))
    other = outcome(Verdict.HOLDS, True, ("m.pml:2",))
    assert Verification((one, other)).unreached == ("m.pml:2",)
    assert not Verification((one, other)).is_passed
    assert Verification((one, replace(other, unreached_assertions=()))).is_passed
    assert Verification((outcome(Verdict.REFUTED, False),)).is_passed
    assert not Verification((outcome(Verdict.HOLDS, False),)).is_passed
    assert not Verification((outcome(Verdict.UNDECIDED, True),)).is_passed


@pytest.mark.parametrize("present", [(), ("spin",), ("cc",)])
def test_command_when_a_tool_is_missing_then_it_ends_with_4_and_says_what_to_install(
    present: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in present:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["chaos", "spin"]) == 4
    assert "run `apt-get install spin gcc`" in capsys.readouterr().err


def test_command_when_the_models_are_as_demanded_then_it_prints_their_table(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chaos.spin.run.verify_all.__defaults__", ((TRIP,), None))
    assert main(["chaos", "spin"]) == 0
    printed = capsys.readouterr().out
    assert "ONE_READING" in printed
    assert main(["chaos", "spin", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert [one["verdict"] for one in document["models"]].count("refuted") == 5
    assert document["spin"] == tools.spin_version()


def test_command_when_a_verdict_differs_then_it_ends_with_40(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(TRIP, variants=(replace(TRIP.variants[2], holds=True),))
    monkeypatch.setattr("chaos.spin.run.verify_all.__defaults__", ((wrong,), None))
    assert main(["chaos", "spin"]) == 40
    assert "trip ONE_READING: refuted instead of holds: assertion violated" in (
        capsys.readouterr().err
    )


def test_command_when_an_assertion_is_never_reached_then_it_ends_with_1(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openings = manifest.REPAIR.variants[1]
    assert openings.name == "OPENINGS_ONLY"
    part = replace(manifest.REPAIR, variants=(openings,))
    monkeypatch.setattr("chaos.spin.run.verify_all.__defaults__", ((part,), None))
    assert main(["chaos", "spin"]) == 1
    assert "never reached, which is not a pass: repair.pml:" in capsys.readouterr().err
