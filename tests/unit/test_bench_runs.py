"""The runs behind docs/figures.md, in pieces: whole ones take minutes and are made by hand.

What kills and waits is tested on real processes; what renders is tested on results of the shape
that the summaries have.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, restarts, runs
from tests.unit.cli_pages import BREAKER, make_instance
from tripgate.cli.app import main
from tripgate.clock import NS_PER_S, host_ns
from tripgate.errors import DataError, DeadlineError, TripgateError
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.mapping import Page
from tripgate.processes import is_alive, process_start_time

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


def gate_result(two: dict[str, Any]) -> dict[str, Any]:
    row = {"ns": 40.0, "ratio": 20.0, "reference": "atomic_add", "says": "an opening"}
    return {
        "references_ns": {"atomic_add": 2.0}, "figures": {"check_compiled": row},
        "two_processes": two, "load_average": 0.5,
    }  # fmt: skip


RESTARTS = {
    "armed_s": 2.0, "actors_ms": {"breaker": 850.0}, "tree_gone_ms": 20.0, "armed_again_s": 2.5,
    "verified": True,
}  # fmt: skip


def spawn_sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])


def put_role(page: Page, number: int, pid: int) -> None:
    row = page.rows(ROLE)[number]
    row["pid"], row["start_time"] = pid, process_start_time(pid)


def test_figures_when_rendered_then_every_run_stands_under_its_command() -> None:
    results = {
        "gate": gate_result({"chunks": 10, "chunks_contended": 4}), "restarts": RESTARTS,
        "crash": [summary(), summary()], "outage": summary(),
    }  # fmt: skip
    text = figures.render(results)
    assert "$ tripgate bench gate --json" in text
    assert "| check_compiled | 40.0 | 20.0 | atomic_add | an opening |" in text
    assert "4 of 10 chunks were contended" in text
    assert "| kill -9 of breaker, to its successor's live lease | 850 ms |" in text
    assert f"$ tripgate {' '.join(figures.CRASH)}" in text
    assert "| 2021-05-19 03:00:00 | portfolio | SOFT | drawdown |" in text
    assert "| denied | MARK_STALE 3, LEVEL 2 |" in text
    assert "| decisions equal in a second run | True |" in text
    assert text.count("\n## ") == 4


def test_figures_when_two_runs_differ_then_the_document_says_so() -> None:
    results = {
        "gate": gate_result({"skipped": "needs two cores"}), "restarts": RESTARTS,
        "crash": [summary("a"), summary("b")], "outage": summary(),
    }  # fmt: skip
    text = figures.render(results)
    assert "| decisions equal in a second run | False |" in text
    assert "Two processes: needs two cores." in text


@pytest.mark.parametrize("has_panels", [True, False])
def test_figures_when_made_then_replays_are_run_twice_or_said_to_be_missing(
    has_panels: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    # Stand-ins for runs of minutes each: what is tested is which are made and what is written.
    made: list[tuple[str, ...]] = []

    def run_once(*words: str) -> dict[str, Any]:
        made.append(words)
        return summary()

    def find_panel(name: str) -> Path:
        if not has_panels:
            raise DataError("there is no folder of panels")
        return tmp_path

    monkeypatch.setattr(figures, "run_once", run_once)
    monkeypatch.setattr(figures, "find_panel", find_panel)
    monkeypatch.setattr(figures, "measure_restarts", lambda: RESTARTS)
    monkeypatch.setattr(figures, "run_gate", lambda: gate_result({"skipped": "x"}))
    output = tmp_path / "figures.md"
    assert main(["bench", "figures", "--output", str(output), "--json"]) == 0
    assert made == ([figures.CRASH, figures.CRASH, figures.OUTAGE] if has_panels else [])
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


def test_replacement_when_a_successor_renews_then_the_time_to_it_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "SETTLE_S", 0.0)  # nothing has to settle here
    page = make_instance()
    sleeper = spawn_sleeper()
    put_role(page, BREAKER, sleeper.pid)
    page.rows(LEASE)["deadline_ns"][BREAKER] = 0

    def succeed() -> None:
        sleeper.wait()
        page.rows(ROLE)["incarnation"][BREAKER] += 1
        page.rows(LEASE)["deadline_ns"][BREAKER] = host_ns() + 3600 * NS_PER_S

    successor = threading.Thread(target=succeed)
    successor.start()
    assert restarts._replace(page, BREAKER) > 0
    successor.join()
    assert sleeper.returncode == -9


def test_tree_when_its_root_is_killed_then_the_wait_ends_with_its_last_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "SETTLE_S", 0.0)
    page = make_instance()
    root, member = spawn_sleeper(), spawn_sleeper()
    header = page.header
    header["owner_pid"], header["owner_start"] = root.pid, process_start_time(root.pid)
    put_role(page, BREAKER, member.pid)

    def follow() -> None:
        root.wait()
        member.kill()
        member.wait()

    follower = threading.Thread(target=follow)
    follower.start()
    assert restarts._kill_root(page) > 0
    row = page.rows(ROLE)[BREAKER]
    assert not is_alive(int(row["pid"]), int(row["start_time"]))
    follower.join()


def test_wait_when_nothing_happens_then_it_ends_with_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "WAIT_S", 0.02)  # nothing to wait for but the bound
    with pytest.raises(DeadlineError, match="the armed gate did not happen"):
        restarts._until(lambda: False, "the armed gate")
