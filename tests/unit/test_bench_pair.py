"""Two processes at the benchmark's page, and the counted atomics: real processes, exact counts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loops, pair
from benchmarks.atomics_count import Tally, count_atomics, count_here, counting
from benchmarks.bench import Bench, private_page
from benchmarks.exactness import LIMIT, Exactness, measure_exactness
from benchmarks.measure import Effort
from benchmarks.page import LIMIT_MONEY, MARK_TICKS, STOP_TICKS, set_limits
from benchmarks.pair import DISJOINT, SHARED, measure_meeting
from benchmarks.verdicts import judge_goals
from tripgate.errors import InvariantBroken
from tripgate.page import atomics
from tripgate.page.layout import LIMIT as LIMIT_TABLE
from tripgate.page.layout import SUM
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

LITTLE = Effort().scaled(0.0)
SHORT = Effort(chunks=3, singles=3, budget_s=0.2)


@pytest.fixture
def page() -> Iterator[Page]:
    with private_page() as made:
        yield made


@pytest.fixture
def cores() -> list[int]:
    found = pair.two_cores()
    if found is None:
        pytest.skip("needs two cores")
    return found


@pytest.mark.jit_only
@pytest.mark.parametrize("where", [DISJOINT, SHARED])
def test_two_processes_when_they_meet_then_both_trade_and_the_limits_are_exact(
    page: Page, cores: list[int], where: str
) -> None:
    bench = Bench(page, LITTLE)
    met = measure_meeting(page, bench.context, bench.scratch, where, cores, SHORT)
    assert met.chunks >= 3
    assert 0 <= met.chunks_contended <= met.chunks
    if met.spread is not None:
        assert met.spread.minimum_ns > 0
    counted = measure_exactness(page, bench.context, where, cores, 0.5)
    assert counted is not None
    assert counted.exact, counted
    assert counted.granted > 0
    assert int(page.rows(LIMIT_TABLE)["gross_max"][0]) == LIMIT_MONEY


@pytest.mark.kernels
def test_fill_when_the_limit_binds_then_grants_and_refusals_are_told_apart(page: Page) -> None:
    bench = Bench(page, LITTLE)
    set_limits(page, 0, 10 * MARK_TICKS)
    tally = np.zeros(loops.TALLY_WORDS, dtype=np.int64)
    tally[loops.OVERSHOOT // 8] = -(1 << 62)
    arguments = (1, MARK_TICKS, STOP_TICKS, page.address(LIMIT_TABLE, 0), int(tally.ctypes.data))
    assert loops.fill(bench.context, *arguments) == 0
    # Sizes alternate, 1 and 2 lots: seven orders make the ten lots, the others do not fit.
    assert [int(word) for word in tally] == [7, loops.BATCH - 7, 10 * MARK_TICKS, 0]
    assert int(page.rows(SUM)["gross"][0]) == 10 * MARK_TICKS
    bench.trip(Level.HARD)
    assert loops.fill(bench.context, *arguments) == -DenyReason.LEVEL


def test_exactness_when_a_word_differs_then_it_is_not_exact() -> None:
    good = Exactness(10, 2, LIMIT, LIMIT, 0, 0, 0)
    assert good.exact
    for wrong in (
        Exactness(10, 0, LIMIT, LIMIT, 0, 0, 0),
        Exactness(10, 2, LIMIT + 1, LIMIT, 0, 0, 0),
        Exactness(10, 2, LIMIT, LIMIT, 1, 0, 0),
        Exactness(10, 2, LIMIT, LIMIT, 0, 1, 0),
        Exactness(10, 2, LIMIT, LIMIT, 0, 0, 1),
    ):
        assert not wrong.exact
        assert wrong.as_dict()["exact"] is False


@pytest.mark.jit_only
def test_neighbour_when_it_dies_at_its_start_then_nothing_is_measured(
    page: Page, cores: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_dying(*words: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(pair, "_start", start_dying)
    bench = Bench(page, LITTLE)
    met = measure_meeting(page, bench.context, bench.scratch, DISJOINT, cores, SHORT)
    assert (met.spread, met.chunks) == (None, 0)
    assert measure_exactness(page, bench.context, DISJOINT, cores, 0.1) is None
    assert sorted(os.sched_getaffinity(0)) == cores


@pytest.mark.jit_only
def test_two_processes_when_the_gate_denies_then_it_is_an_error(page: Page) -> None:
    bench = Bench(page, LITTLE)
    bench.trip(Level.HARD)
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    pace = pair.Pace(page.folder)
    pace.words[pair.THEIRS] = 1
    tally = np.zeros(loops.TALLY_WORDS, dtype=np.int64)
    try:
        with pytest.raises(InvariantBroken, match=f"got the answer {-DenyReason.LEVEL}"):
            pair._run_beside(living, bench.context, bench.scratch, 0, pace, 60.0)
        with pytest.raises(InvariantBroken, match="against a full limit got the answer"):
            pair.fill_until(page, bench.context, 1, pace, int(tally.ctypes.data), pair.MINE, 0.0)
    finally:
        living.kill()
        living.wait()


def test_neighbour_when_it_does_not_stop_then_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair, "END_WAIT_S", 0.05)  # nothing to wait for but the bound
    deaf = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    pair._end(deaf)
    assert deaf.returncode == -9


@pytest.mark.parametrize(
    ("share", "contended"), [(0.0, False), (0.5, False), (1.0, True), (1.7, False)]
)
def test_chunk_when_the_neighbour_keeps_pace_then_it_counts_as_contended(
    share: float, contended: bool
) -> None:
    assert pair.is_contended(int(share * pair.CHUNK_ORDERS)) is contended


def test_cores_when_there_is_one_then_there_is_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert pair.two_cores() is None


def test_atomics_when_counted_then_an_opening_moves_two_words_at_each_of_five_nodes() -> None:
    counts = count_atomics()
    opening = counts["opening"]
    assert opening["words"]["sum.gross"] == opening["words"]["sum.long_worst"] == 5
    for answer in counts.values():
        parts = (answer["fetch_add"], answer["compare_exchange"], answer["exchange"])
        assert answer["total"] == sum(parts) == sum(answer["words"].values())
        assert answer["load"] > 0
    assert counts["close"]["words"]["key.closable"] == 1
    assert not any(word.startswith("sum.") for word in counts["denied"]["words"])


def test_atomics_when_the_counting_process_fails_then_its_last_words_are_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InvariantBroken, match="could not be counted: exit code 1"):
        count_atomics()


@pytest.mark.jit_only
def test_atomics_when_kernels_are_compiled_then_they_are_not_counted_as_none(page: Page) -> None:
    with pytest.raises(InvariantBroken, match="NUMBA_DISABLE_JIT"), counting(Tally(page)):
        pass


@pytest.mark.kernels
def test_atomics_when_counted_in_an_interpreted_process_then_the_primitives_are_put_back() -> None:
    if not atomics.INTERPRETED:
        with pytest.raises(InvariantBroken, match="compiled kernels"):
            count_here()
        return
    before = atomics.fetch_add
    assert count_here()["opening"]["total"] > 10
    assert atomics.fetch_add is before


def figure(ns: float, ratio: float) -> dict[str, object]:
    return {"minimum_ns": ns, "median_ns": ns, "ratio": ratio, "ratio_median": ratio}


@pytest.mark.parametrize(
    ("compiled", "python", "two", "exact", "reached"),
    [
        ((90, 50), (120, 9), 150, True, [True, True, True, True]),
        ((150, 20), (200, 7), 250, False, [True, True, False, False]),
        ((150, 50), (200, 9), 200, True, [False, False, True, True]),
    ],
)
def test_goals_when_judged_then_nanoseconds_or_ratio_is_enough(
    compiled: tuple[float, float], python: tuple[float, float], two: float, exact: bool,
    reached: list[bool],
) -> None:  # fmt: skip
    limits = {"exact": exact, "granted": 5, "refused": 2, "difference": 0}
    result = {
        "figures": {
            "check_compiled": figure(*compiled), "check_handle_raw": figure(*python),
            "two_processes_disjoint": figure(two, 1.0),
        },
        "two_processes": {where: {"limits": limits} for where in (DISJOINT, SHARED)},
    }  # fmt: skip
    assert [goal["reached"] for goal in judge_goals(result)] == reached


def test_pace_when_two_map_it_then_they_see_the_same_words(tmp_path: Path) -> None:
    one, other = pair.Pace(tmp_path), pair.Pace(tmp_path)
    one.words[pair.STOP] = 1
    assert atomics.load(other.at(pair.STOP)) == 1
