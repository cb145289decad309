"""The command behind docs/reliability.md, on results of the drills' own types.

The drills are run, small, by their own tests; whole ones take minutes.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reliability
from benchmarks.reliability import BEGIN, DRILLS, END, render, replace_between
from chaos.auditkills import run as auditkills
from chaos.deaths import run as deaths
from chaos.powercut import run as powercut
from chaos.tampering import run as tampering
from tests.unit.tree_results import tree_result
from tripgate.cli.app import main
from tripgate.errors import TripgateError, UsageError

ROOT = Path(__file__).resolve().parents[2]
SPREAD = {"p50": 4.0, "p99": 120.0, "max": 121.0}
LINKS: dict[str, Any] = {
    "schema": 1, "load_average": 0.26,
    "figures": {"seal_ns": 4_700.0, "control_up_p99_ns": 2.5e6, "ring_events_per_s": 24_900.4},
}  # fmt: skip
AUDIT: dict[str, Any] = {
    "disk": "ext4", "load_average": 0.3, "references": {"fdatasync": {"p50": 0.1}},
    "writer": {"1000": {"rows_per_s": 71_000}}, "path": {"4": {"rows_per_s": 13_800}},
    "submit_to_durable": {"alone": {"wait": {"p50_ms": 3.9}}}, "verify": {"rows_per_s": 250_001},
    "bytes_per_row": {"sqlite": 358}, "export_jsonl": {"rows_per_s": 30_000},
    "archive": {"rows_per_s": 30_000},
    "goals": [{"goal": "verify", "reached": False, "figures": "1 of 2"}],
}  # fmt: skip


def drill_results() -> dict[str, dict[str, Any]]:
    """Return a result of each drill, made of its own types."""
    fate = {"says": "kill -9", "n": 5, "denied_ms": SPREAD, "zeroed_ms": SPREAD,
            "back_ms": {}, "code": -9, "reason": "signal SIGKILL"}  # fmt: skip
    matrix = deaths.Verdict(
        "matrix", 0, {"sigkill": fate}, 5, 5, [], {}, 0, 0, 900, 800, SPREAD, 1.0, 1.0, 9.0, 0.5
    ).as_object()
    roots = {
        "schema": 1, "kind": "roots", "lease_ms": 500, "violations": [], "left": {},
        "load_average": 0.1, "elapsed_s": 3.0,
        "rows": {"killed": {"says": "root killed", "n": 3, "denied_ms": SPREAD, "gone_ms": SPREAD,
                            "after": "nothing left"}},
    }  # fmt: skip
    cuts = powercut.Verdict(
        5, 1_585, 316, powercut.Tally("tripgate", "as it is", 600, 0, lossy=401),
        [powercut.Tally("off", "no syncs", 200, 150, lossy=160)], 11.0,
    )  # fmt: skip
    tampered = tampering.Verdict(
        5, 5_400, [tampering.Tally("flip", "found", 5, 4, {"chain": 3, "heads": 2})], 20.0
    )
    kills = auditkills.Verdict(5, {"writer stored": 12}, 59_622, 58_723, 1, 30.0, [])
    return {
        "matrix": matrix, "soak": matrix | {"kind": "soak"}, "roots": roots,
        "powercut": asdict(cuts), "auditkills": asdict(kills),
        "tampering": {**asdict(tampered), "violations": tampered.violations},
    }  # fmt: skip


def results() -> dict[str, Any]:
    return {"tree": tree_result(), "links": LINKS, "audit": AUDIT, **drill_results()}


def test_reliability_when_rendered_then_every_run_stands_under_its_command() -> None:
    text = render(results())
    for words in (("bench", "tree", "--json"), ("bench", "links", "--json"), *DRILLS.values()):
        assert f"$ tripgate {' '.join(words)}" in text
    assert "| breaker | 250 | 3 | 4.0 / 9.0 / 9.0 | 850 / 900 / 900 |" in text
    assert "| seal_ns | 4.7 µs |" in text
    assert "| control_up_p99_ns | 2.5 ms |" in text
    assert "| ring_events_per_s | 24,900 |" in text
    assert "| writer: 1000 | rows_per_s 71,000 |" in text
    assert "| submit_to_durable: alone | wait (p50_ms 3.9) |" in text
    assert "| verify | not reached | 1 of 2 |" in text
    assert "| sigkill | kill -9 | 5 | 4.0 / 120 / 121 |" in text
    assert "| root killed | 3 |" in text
    assert "| as it is | 600 | 401 | 0 |" in text
    assert "| no syncs | 200 | 160 | 150 |" in text
    assert "| chain | 3 |" in text
    assert "1 kinds, 5 trials on 5400 rows, 4 noticed" in text
    assert "59622 records stored, each once" in text
    assert text.count("\n### ") == 9


def test_reliability_when_a_drill_was_left_out_then_the_document_says_why() -> None:
    text = render(results() | {"powercut": {"skipped": "no C compiler"}})
    assert "Not made: no C compiler." in text


def test_document_when_it_is_written_again_then_only_the_part_between_the_marks_changes() -> None:
    document = f"# Head\n\n{BEGIN}\n\nold\n\n{END}\n\ntail\n"
    once = replace_between(document, "new\n")
    assert once == f"# Head\n\n{BEGIN}\n\nnew\n\n{END}\n\ntail\n"
    assert replace_between(once, "new") == once
    for broken in ("", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"):
        with pytest.raises(UsageError):
            replace_between(broken, "new")


def test_document_of_this_checkout_when_looked_at_then_it_has_the_marks() -> None:
    document = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert replace_between(document, "x") != document


def test_command_when_run_then_it_writes_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # Stand-ins for runs of minutes each: what is tested is which are made and what is written.
    found = drill_results()
    made: list[tuple[str, ...]] = []

    def run_once(*words: str) -> dict[str, Any]:
        made.append(words)
        name = next(name for name, drill in DRILLS.items() if drill == words)
        if name == "tampering":
            raise TripgateError("a run failed")
        return found[name]

    monkeypatch.setattr(reliability, "run_once", run_once)
    monkeypatch.setattr(reliability, "measure_tree", lambda report: tree_result())
    monkeypatch.setattr(reliability, "run_links", lambda: LINKS)
    monkeypatch.setattr(reliability, "run_audit", lambda: AUDIT)
    output = tmp_path / "reliability.md"
    assert main(["bench", "reliability", "--output", str(output)]) == 2
    output.write_text("no marks")
    assert main(["bench", "reliability", "--output", str(output)]) == 2
    assert made == []
    output.write_text(f"{BEGIN}\n{END}\n")
    assert main(["bench", "reliability", "--output", str(output), "--json"]) == 0
    assert made == list(DRILLS.values())
    assert "Not made: a run failed." in output.read_text()
    captured = capsys.readouterr()
    assert json.loads(captured.out)["tampering"] == {"skipped": "a run failed"}
    assert "wrote" in captured.err
