"""``tripgate bench``: that what it measures is what it says. How fast it is, is nobody's test."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import loops, pair
from benchmarks.gate import Bench, measure, private_page, run_gate
from benchmarks.page import HELD_LOTS, MARK_TICKS, STOP_TICKS
from tripgate.cli import bench as command
from tripgate.cli.app import main
from tripgate.errors import InvariantBroken
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, KEY, SLOT, SUM
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

OPENING = (1, MARK_TICKS, STOP_TICKS)
SCALE = 0.001


@pytest.fixture
def page() -> Iterator[Page]:
    with private_page() as made:
        yield made


def held(page: Page) -> list[int]:
    """Return everything that a reservation moves, summed."""
    sums, claims = page.rows(SUM), page.rows(CLAIM)
    pending = page.rows(KEY)["closable"] & 0xFFFFFFFF
    fields = (sums["gross"], sums["long_worst"], sums["short_worst"], claims["lots"], pending)
    return [int(field.sum()) for field in fields]


@pytest.mark.kernels
def test_bench_when_openings_are_timed_then_each_was_granted_and_all_were_released(
    page: Page,
) -> None:
    bench = Bench(page, SCALE)
    assert bench.compiled(*OPENING) > 0
    assert int(page.rows(SLOT)["approved"].sum()) == 3 * loops.BATCH
    assert not page.rows(SLOT)["denied"].any()
    assert held(page) == [0] * 5


@pytest.mark.kernels
def test_bench_when_a_batch_stands_then_the_nodes_hold_it_until_it_is_released(
    page: Page,
) -> None:
    bench = Bench(page, SCALE)
    assert loops.time_grants(bench.context, *OPENING, 5, bench.scratch) > 0
    worth = 5 * MARK_TICKS
    assert held(page)[:2] == [5 * worth, 5 * worth]
    assert loops.release_all(bench.context) == 5
    assert held(page) == [0] * 5


@pytest.mark.kernels
def test_bench_when_the_gate_denies_then_it_does_not_time_it_as_an_approval(page: Page) -> None:
    bench = Bench(page, SCALE)
    bench.trip(Level.HARD)
    with pytest.raises(InvariantBroken, match=f"the answer {-DenyReason.LEVEL}"):
        bench.compiled(*OPENING)
    assert bench.compiled(*OPENING, denied=True) > 0
    bench.trip(Level.NORMAL)
    with pytest.raises(InvariantBroken, match="the answer -1"):
        bench.compiled(*OPENING, denied=True)


@pytest.mark.kernels
def test_bench_when_closes_are_timed_then_the_position_is_whole_afterwards(page: Page) -> None:
    bench = Bench(page, SCALE)
    bench.hold(HELD_LOTS)
    assert bench.compiled(-1, MARK_TICKS, 0) > 0
    assert int(page.rows(KEY)["closable"][0]) == HELD_LOTS << 32


@pytest.mark.kernels
def test_bench_when_everything_is_measured_then_denials_are_the_levels_alone(page: Page) -> None:
    references, figures = measure(Bench(page, SCALE))
    assert all(ns > 0 for ns in references.values())
    assert {figure.reference for figure in figures} == set(references)
    denied = page.rows(SLOT)["denied"].sum(axis=0)
    assert int(denied[DenyReason.LEVEL]) == int(denied.sum()) == 2 * 3 * loops.BATCH


@pytest.mark.kernels
def test_churn_when_it_runs_then_it_tells_how_far_it_came(page: Page) -> None:
    bench = Bench(page, SCALE)
    progress = bench.scratch + 64
    arguments = (2, bench.scratch, progress)
    assert loops.churn(bench.context, *OPENING, *arguments) > 0
    assert atomics.load(progress) == 2 * loops.BATCH
    bench.trip(Level.HARD)
    assert loops.churn(bench.context, *OPENING, *arguments) == -DenyReason.LEVEL


@pytest.mark.kernels
def test_atomic_adds_when_timed_then_every_one_was_made(page: Page) -> None:
    bench = Bench(page, SCALE)
    assert loops.time_adds(bench.scratch + 64, 100, bench.scratch) > 0
    assert atomics.load(bench.scratch + 64) == 100
    assert atomics.load(bench.scratch + 72) == sum(range(100))


@pytest.mark.jit_only
def test_bench_when_two_processes_are_measured_then_both_traded_and_nothing_is_left(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another worker's benchmark may be making a page of its own in the usual place.
    monkeypatch.setattr("benchmarks.gate.SHARED_ROOT", isolated_folders)
    result = run_gate(scale=0.02)
    two = result["two_processes"]
    assert two["alone_ns"] > 0
    assert two["chunks"] >= 3
    assert result["figures"]["two_processes_alone"]["ratio"] > 0
    assert list(isolated_folders.glob("tripgate-bench-*")) == []


@pytest.mark.jit_only
def test_bench_when_there_is_one_core_then_the_pair_is_skipped_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    result = run_gate(scale=SCALE)
    assert result["two_processes"] == {"skipped": "needs two cores"}
    command.write_gate(result)
    captured = capsys.readouterr()
    assert "check_compiled" in captured.out
    assert "skipped: needs two cores" in captured.err


def test_neighbour_when_it_dies_at_its_start_then_no_chunk_is_counted(page: Page) -> None:
    bench = Bench(page, SCALE)
    dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    dead.wait()
    pace = pair.Pace(page.folder)
    assert pair._run_beside(dead, bench.context, bench.scratch, pace, 60.0) == []


def test_neighbour_when_it_does_not_stop_then_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair, "END_WAIT_S", 0.05)  # nothing to wait for but the bound
    deaf = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    pair._end(deaf)
    assert deaf.returncode == -9


def test_bench_text_when_no_chunk_was_contended_then_it_says_that_the_machine_is_busy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = {
        "machine": {"processor": "p", "cores": 2, "python": "3", "numba": "0"},
        "load_average": 9.0, "references_ns": {"atomic_add": 2.0}, "figures": {},
        "two_processes": {"alone_ns": 9.0, "contended_ns": None},
    }  # fmt: skip
    command.write_gate(result)
    captured = capsys.readouterr()
    assert captured.out.startswith("p, 2 cores, load 9.0, Python 3, numba 0\n")
    assert "too busy" in captured.err


@pytest.mark.jit_only
def test_bench_command_when_json_is_asked_for_then_one_object_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.gate.CHUNKS", 5)  # its figures are not looked at here
    monkeypatch.setattr("benchmarks.pair.DURATION_S", 0.05)
    assert main(["bench", "gate", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1
    assert set(printed["references_ns"]) == {"atomic_add", "python_call"}
    assert printed["machine"]["cores"] >= 1


def test_bench_command_when_the_name_is_unknown_then_it_exits_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "gat"]) == 2
    assert "did you mean 'gate'?" in capsys.readouterr().err


def test_figures_when_their_folder_is_missing_then_it_exits_2_before_any_run(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("empty")
    shutil.rmtree(folder)
    assert main(["bench", "figures", "--output", str(folder / "figures.md")]) == 2
    assert "run this in a checkout" in capsys.readouterr().err
