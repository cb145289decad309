"""``tripgate bench``: that what it measures is what it says. How fast it is, is nobody's test."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gate, loops, peer_redis, peer_rows
from benchmarks.bench import APPROVED, DENIED_BY_LEVEL, Bench, private_page
from benchmarks.gate import compiled_rows, python_rows, reference_rows, render_rows
from benchmarks.measure import Effort
from benchmarks.page import HELD_LOTS, MARK_TICKS, OWN_KEY, STOP_TICKS
from benchmarks.peer_redis import server_path
from benchmarks.peers import DictPeer, Terms
from tripgate.cli.app import main
from tripgate.errors import InvariantBroken
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, KEY, SLOT, SUM
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

OPENING = (1, MARK_TICKS, STOP_TICKS)
LITTLE = Effort().scaled(0.0)
SPREAD = ("minimum_ns", "median_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns")
ONE_PROCESS = {
    "atomic_add", "builtin_call", "dispatcher_call", "timer_compiled", "timer_python",
    "check_compiled", "close_compiled", "denied_compiled", "denied_merged_compiled",
    "check_fastcall", "check_handle_raw", "check_dispatcher", "check_batch", "check_handle",
    "denied_handle_raw",
}  # fmt: skip
PAIRS = {"two_processes_disjoint", "two_processes_shared"}
PEERS = {
    "peer_dicts", "peer_shared_array", "peer_sqlite_normal", "peer_sqlite_full", "peer_redis_lua",
}  # fmt: skip


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
    spread = Bench(page, LITTLE).compiled(*OPENING)
    assert 0 < spread.minimum_ns <= spread.median_ns
    assert 0 <= spread.p50_ns <= spread.p99_ns <= spread.p999_ns <= spread.max_ns
    # Three batches timed whole, three by the order.
    assert int(page.rows(SLOT)["approved"].sum()) == 6 * loops.BATCH
    assert spread.singles == 3 * loops.BATCH
    assert not page.rows(SLOT)["denied"].any()
    assert held(page) == [0] * 5


@pytest.mark.kernels
def test_bench_when_a_batch_stands_then_the_nodes_hold_it_until_it_is_released(
    page: Page,
) -> None:
    bench = Bench(page, LITTLE)
    context = bench.context
    assert loops.time_orders(context, context, *OPENING, APPROVED, bench.scratch, 0) > 0
    worth = loops.BATCH // 2 * (1 + 2) * MARK_TICKS
    assert held(page)[:2] == [5 * worth, 5 * worth]
    assert loops.release_all(context) == loops.BATCH
    assert held(page) == [0] * 5


@pytest.mark.kernels
def test_bench_when_the_gate_denies_then_it_does_not_time_it_as_an_approval(page: Page) -> None:
    bench = Bench(page, LITTLE)
    bench.trip(Level.HARD)
    with pytest.raises(InvariantBroken, match=f"the answer {-DenyReason.LEVEL}"):
        bench.compiled(*OPENING)
    assert bench.compiled(*OPENING, wanted=DENIED_BY_LEVEL).minimum_ns > 0
    with pytest.raises(InvariantBroken, match=f"the answer {-DenyReason.LEVEL}"):
        bench.compiled(*OPENING, wanted=-int(DenyReason.GROSS_LIMIT))
    bench.trip(Level.NORMAL)
    with pytest.raises(InvariantBroken, match="the answer -"):
        bench.compiled(*OPENING, wanted=DENIED_BY_LEVEL)


@pytest.mark.kernels
def test_bench_when_calls_reserve_nothing_then_they_are_not_timed_as_approvals(page: Page) -> None:
    bench = Bench(page, LITTLE)
    with pytest.raises(InvariantBroken, match="left 0 reservations"):
        bench.from_python(loops.empty_call, OPENING, OPENING)


@pytest.mark.kernels
def test_bench_when_closes_are_timed_then_the_position_is_whole_afterwards(page: Page) -> None:
    bench = Bench(page, LITTLE)
    bench.hold(HELD_LOTS)
    assert bench.compiled(-1, MARK_TICKS, 0).minimum_ns > 0
    assert int(page.rows(KEY)["closable"][OWN_KEY]) == HELD_LOTS << 32
    assert int(page.rows(KEY)["resting"][OWN_KEY]) == 0


@pytest.mark.kernels
def test_bench_when_denials_take_turns_then_each_wrote_its_own_record(page: Page) -> None:
    bench = Bench(page, LITTLE)
    bench.trip(Level.HARD)
    by_turns = bench.records_per_denial(
        lambda: bench.compiled(*OPENING, wanted=DENIED_BY_LEVEL, by_turns=True)
    )
    assert by_turns == 1
    repeated = bench.records_per_denial(lambda: bench.compiled(*OPENING, wanted=DENIED_BY_LEVEL))
    # Equal denials merge: the first of a batch has a record, and one tells how many followed.
    assert 0 < repeated <= 2 / loops.BATCH


@pytest.mark.kernels
def test_bench_when_one_process_is_measured_then_every_row_has_its_ratio(page: Page) -> None:
    bench = Bench(page, LITTLE)
    rows = [*reference_rows(bench), *compiled_rows(bench), *python_rows(bench)]
    figures = render_rows(rows)
    assert set(figures) == ONE_PROCESS
    # Interpreted kernels have no address that a builtin could be made of.
    assert ("skipped" in figures["check_fastcall"]) is atomics.INTERPRETED
    figures.pop("check_fastcall")
    assert all(figure[column] > 0 for figure in figures.values() for column in SPREAD[:2])
    assert all(figure["ratio"] > 0 for figure in figures.values())
    assert {figure["reference"] for figure in figures.values()} == {
        "", "atomic_add", "builtin_call"
    }  # fmt: skip
    denied = page.rows(SLOT)["denied"].sum(axis=0)
    assert int(denied[DenyReason.LEVEL]) == int(denied.sum()) > 0
    assert held(page) == [0] * 5


@pytest.mark.kernels
def test_bench_when_the_level_does_not_deny_then_the_row_of_denials_is_refused(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(page, LITTLE)
    monkeypatch.setattr(Bench, "trip", lambda self, level: None)
    with pytest.raises(InvariantBroken, match="got the answer"):
        list(python_rows(bench))


@pytest.mark.kernels
def test_churn_when_it_runs_then_it_tells_how_far_it_came(page: Page) -> None:
    bench = Bench(page, LITTLE)
    progress = bench.scratch + 64
    arguments = (2, bench.scratch, 0, progress)
    assert loops.churn(bench.context, *OPENING, *arguments) > 0
    assert atomics.load(progress) == 2 * loops.BATCH
    bench.trip(Level.HARD)
    assert loops.churn(bench.context, *OPENING, *arguments) == -DenyReason.LEVEL


@pytest.mark.kernels
def test_atomic_adds_when_timed_then_every_one_was_made(page: Page) -> None:
    bench = Bench(page, LITTLE)
    word = bench.scratch + 64
    assert loops.time_adds(word, 100, bench.scratch) > 0
    assert atomics.load(word) == 100
    assert atomics.load(word + 8) == sum(range(100))
    assert loops.sample_adds(word, 5, bench.scratch, bench.scratch + 72) == sum(range(100, 105))
    assert atomics.load(word) == 105
    assert loops.sample_adds(0, 5, bench.scratch, bench.scratch + 72) == 0


def test_empty_builtin_when_called_then_it_takes_three_integers_and_nothing_else() -> None:
    call = gate.empty_builtin()
    assert call(*OPENING) == 1
    with pytest.raises(TypeError):
        call(1, 2.0, 3)


@pytest.mark.jit_only
def test_bench_command_when_it_has_measured_then_all_rows_are_there_and_skips_say_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two processes have tests of their own; how fast it was is not looked at here.
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("benchmarks.gate.Effort", lambda: LITTLE)
    assert main(["bench", "gate", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    figures = result["figures"]
    assert set(figures) == ONE_PROCESS | PAIRS | PEERS
    skipped = {name: row["skipped"] for name, row in figures.items() if "skipped" in row}
    expected = dict.fromkeys(PAIRS, "needs two cores")
    if server_path() is None:
        expected["peer_redis_lua"] = "redis-server is not installed"
    assert skipped == expected
    measured = [row for row in figures.values() if "skipped" not in row]
    assert all(row["ratio"] > 0 and row["ratio_median"] > 0 for row in measured)
    assert all(figures[name]["reference"] == "check_handle_raw" for name in PEERS)
    reached = [goal["reached"] for goal in result["goals"]]
    assert set(reached[:2]) <= {True, False}
    assert reached[2:] == [None, None]
    monkeypatch.setattr(gate, "run_gate", lambda: result)
    assert main(["bench", "gate"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in figures)
    assert "skipped: needs two cores" in printed
    assert "not measured: two processes saturating one limit" in printed


def test_redis_row_when_no_server_is_installed_then_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peer_redis, "SERVER", "no-such-server")
    row = peer_rows._redis_row(tmp_path, LITTLE)
    assert (row.spread, row.skipped) == (None, "redis-server is not installed")
    figure = render_rows([row])["peer_redis_lua"]
    assert figure["skipped"] == row.skipped
    assert "minimum_ns" not in figure


def test_peer_rows_when_a_peer_does_not_do_the_work_then_it_is_not_timed() -> None:
    with pytest.raises(InvariantBroken, match="peer_dicts reserved"):
        peer_rows.measure_peer(DictPeer(Terms(level=Level.HARD)), LITTLE)


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
