"""The runs behind docs/figures.md, in pieces: whole ones take minutes and are made by hand.

What kills and waits is tested on real processes; what renders is tested on results of the shape
that the summaries have.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, properties, runs
from benchmarks.properties import read_counts
from tripgate.cli.app import main
from tripgate.errors import DataError, DeadlineError, TripgateError

MARKET_MS = 1_621_393_200_000


def summary(digest: str = "d") -> dict[str, Any]:
    return {
        "elapsed_s": 12.5, "armed_s": 3.0, "steps": 1152, "ticks": 8064,
        "decisions": {"approved": 7, "denied": {"MARK_STALE": 3, "LEVEL": 2}, "digest": digest},
        "fills": 7, "drawdown_max": 0.1512, "equity": 84_880.0, "flat": True,
        "overshoot_at_grant_max": -100.0, "seconds_unprotected_max": 0.0,
        "levels": [[MARKET_MS, "portfolio", "SOFT", "drawdown"]],
        "audit": {"rows": 99, "head": "00", "verified": True}, "exit_code": 0,
    }  # fmt: skip


def gate_result() -> dict[str, Any]:
    row = {
        "minimum_ns": 40.0, "median_ns": 41.0, "p50_ns": 60.0, "p99_ns": 70.0, "p999_ns": 90.0,
        "max_ns": 12_345.0, "ratio": 20.0, "reference": "atomic_add", "says": "an opening",
    }  # fmt: skip
    skipped = {"reference": "atomic_add", "says": "two of them", "skipped": "needs two cores"}
    counts = {
        "total": 14, "fetch_add": 2, "compare_exchange": 12, "exchange": 0, "load": 9, "store": 8,
        "words": {"sum.gross": 5},
    }  # fmt: skip
    limits = {
        "granted": 9, "refused": 3, "standing": 90, "limit": 90, "difference": 0, "overshoot": 0,
        "residual": 0,
    }  # fmt: skip
    return {
        "figures": {"check_compiled": row, "two_processes_shared": skipped},
        "atomics": {"opening": counts},
        "two_processes": {
            "disjoint": {"chunks": 10, "chunks_contended": 4, "limits": limits},
            "idle": {"chunks": 3, "chunks_contended": 0, "limits": None}, "shared": {},
        },
        "goals": [
            {"goal": "fast enough", "reached": True, "figures": "40.0 ns"},
            {"goal": "together", "reached": None, "figures": "needs two cores"},
        ],
        "load_average": 0.5,
    }  # fmt: skip


MODELS = {
    "passed": True, "spin": "6.5.2",
    "models": [
        {"model": "trip", "variant": name, "demanded": verdict, "verdict": verdict, "states": 87,
         "depth": 9}
        for name, verdict in (("model", "holds"), ("ONE_READING", "refuted"))
    ],
}  # fmt: skip


PROPERTIES: dict[str, Any] = {
    "tests": 5, "examples": 300, "promises": {"P2": {"tests": 3, "examples": 120}},
}  # fmt: skip
STORM = {
    "killed": {"client": 5, "desk": 3}, "killed_inside": 2, "killed_repairing": 1,
    "overstayed": 1, "stops": 4, "grants": 90, "fills": 80, "denials": {"LEVEL": 7, "MIXED": 1},
    "repairs_begun": 6, "repairs": 5, "glances": 40, "exact": 9, "used_ppm_max": 987_600,
    "violations": [], "elapsed_s": 1.5, "exit_code": 0,
}  # fmt: skip


SPOKEN = """
tests/property/test_a.py::test_P2_sum_when_any_then_right PASSED              [ 20%]
tests/property/test_a.py::test_P2_P4_both_when_any_then_right[0-<b>] PASSED   [ 40%]
tests/property/test_a.py::test_plain_when_any_then_right SKIPPED (no need)    [ 60%]
tests/property/test_b.py::test_P10_back_when_any_then_right PASSED            [ 80%]
============================ Hypothesis Statistics =============================
tests/property/test_a.py::test_P2_P4_both_when_any_then_right[0-<b>]:

  - during reuse phase (0.01 seconds):
    - 3 passing, 0 failing, and 2 invalid test cases
  - during generate phase (0.09 seconds):
    - 100 passing, 0 failing, and 2 invalid test cases
  - Stopped because settings.max_examples=100

tests/property/test_b.py::test_P10_back_when_any_then_right:
  - during generate phase (0.09 seconds):
    - 7 passing, 0 failing, and 2 invalid test cases
"""


def test_counts_when_read_then_each_promise_has_its_tests_and_examples() -> None:
    assert read_counts(SPOKEN) == {
        "tests": 3, "examples": 110,
        "promises": {
            "P2": {"tests": 2, "examples": 103}, "P4": {"tests": 1, "examples": 103},
            "P10": {"tests": 1, "examples": 7},
        },
    }  # fmt: skip


def test_counts_when_the_tests_are_not_installed_then_they_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(properties, "CHECKOUT", tmp_path)
    with pytest.raises(TripgateError, match="run it in a checkout"):
        properties.count_properties()
    (tmp_path / properties.FOLDER).mkdir(parents=True)
    (tmp_path / properties.FOLDER / "test_bad.py").write_text("def test_no():\n    assert 0\n")
    with pytest.raises(TripgateError, match="a property test failed"):
        properties.count_properties()


def test_figures_when_rendered_then_every_run_stands_under_its_command() -> None:
    results = {
        "gate": gate_result(), "storm": STORM,
        "spin": MODELS, "properties": PROPERTIES,
        "crash": [summary(), summary()], "outage": summary(),
    }  # fmt: skip
    text = figures.render(results)
    assert "$ tripgate bench gate --json" in text
    row = "| check_compiled | 40.0 | 41.0 | 60.0 | 70.0 | 90.0 | 12345 | 20.00 | atomic_add |"
    assert f"{row} an opening |" in text
    assert "| atomic_add | skipped: needs two cores |" in text
    assert "| opening | 14 | 2 | 12 | 0 | 9 | 8 | sum.gross × 5 |" in text
    assert "4 of 10 chunks were contended; 9 orders granted and 3 refused at one limit" in text
    assert "idle: 0 of 3 chunks were contended." in text
    assert "| fast enough | reached | 40.0 ns |" in text
    assert "| together | not measured | needs two cores |" in text
    assert f"$ tripgate {' '.join(figures.STORM)}" in text
    assert "| processes killed | 8 (client 5, desk 3) |" in text
    assert "| fullest node, of its limit | 98.76 % |" in text
    assert f"$ tripgate {' '.join(figures.CRASH)}" in text
    assert "| 2021-05-19 03:00:00 | portfolio | SOFT | drawdown |" in text
    assert "| denied | MARK_STALE 3, LEVEL 2 |" in text
    assert "| decisions equal in a second run | True |" in text
    assert "1 variants hold, 1 that break a rule are refuted; all as demanded: True" in text
    assert "| trip | ONE_READING | refuted | refuted | 87 | 9 |" in text
    assert "| P2 | 3 | 120 |" in text
    assert "| all of the folder | 5 | 300 |" in text
    assert text.count("\n## ") == 6


def test_figures_when_two_runs_differ_then_the_document_says_so() -> None:
    results = {
        "gate": gate_result(), "storm": STORM,
        "spin": {"skipped": "no Spin"}, "properties": {"skipped": "no tests"},
        "crash": [summary("a"), summary("b")], "outage": summary(),
    }  # fmt: skip
    text = figures.render(results)
    assert "| decisions equal in a second run | False |" in text
    assert "Not made: no Spin." in text
    assert "Not made: no tests." in text


@pytest.mark.parametrize("has_panels", [True, False])
def test_figures_when_made_then_replays_are_run_twice_or_said_to_be_missing(
    has_panels: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    # Stand-ins for runs of minutes each: what is tested is which are made and what is written.
    made: list[tuple[str, ...]] = []

    def run_once(*words: str) -> dict[str, Any]:
        made.append(words)
        if words == figures.SPIN:
            raise TripgateError("a run failed: no Spin")
        return STORM if words == figures.STORM else summary()

    def find_panel(name: str) -> Path:
        if not has_panels:
            raise DataError("there is no folder of panels")
        return tmp_path

    monkeypatch.setattr(figures, "run_once", run_once)
    monkeypatch.setattr(figures, "find_panel", find_panel)
    monkeypatch.setattr(figures, "count_properties", lambda: PROPERTIES)
    monkeypatch.setattr(figures, "run_gate", lambda: gate_result())
    output = tmp_path / "figures.md"
    assert main(["bench", "figures", "--output", str(output), "--json"]) == 0
    replays = [figures.CRASH, figures.CRASH, figures.OUTAGE] if has_panels else []
    assert made == [figures.STORM, figures.SPIN, *replays]
    assert "Not made: a run failed: no Spin." in output.read_text()
    assert ("the recorded panels were not on the machine" in output.read_text()) is not has_panels
    captured = capsys.readouterr()
    assert ("skipped" in json.loads(captured.out)) is not has_panels
    assert "wrote" in captured.err


def test_run_when_it_ends_with_a_summary_then_its_time_and_code_are_added() -> None:
    result = runs.run_once("config", "check", "absent.toml", "--json")
    assert (result["ok"], result["exit_code"]) == (False, 4)
    assert result["elapsed_s"] > 0


def test_place_when_it_is_left_then_nothing_of_it_stays() -> None:
    with runs.place() as here:
        assert (here.folder / "state").is_dir()
        assert here.page_folder("x").parent == here.folder / "page"
    assert not here.folder.exists()


def test_run_when_it_prints_no_summary_then_its_last_words_are_the_error() -> None:
    with pytest.raises(TripgateError, match="no instance is running"):
        runs.run_once("status", "--json")


def test_run_when_it_does_not_end_then_it_is_ended() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(120)"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(DeadlineError, match="did not end"):
        runs.finish(process, 0.05)
    assert process.returncode is not None
