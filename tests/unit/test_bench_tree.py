"""``tripgate bench tree`` in pieces: what it kills, waits for and counts, on real processes.

A whole run takes minutes and is made by hand; that it runs, the figures of the documents show.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import tree, tree_text
from benchmarks.runs import place
from benchmarks.tree_memory import memory_of, pss_kb, tree_pids
from benchmarks.tree_verdicts import judge_goals
from tests.tree_fixtures import MARKET_MS, mark, paper_page
from tests.unit.tree_results import tree_result
from tripgate.cli import bench as command
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError
from tripgate.page.layout import LEASE, ROLE, SLOT
from tripgate.page.lease import zero_lease
from tripgate.page.mapping import Page
from tripgate.processes import process_start_time
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.jit_only
PATIENCE_S = 60.0


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(tree, "SETTLE_S", 0.0)  # nothing has to settle here
    page = paper_page(strategies=(tree.STRATEGY_NAME,))
    page.header["market_ms"] = MARKET_MS
    mark(page, 0, 500_000, step=1, market_ms=MARKET_MS)
    return page


@pytest.fixture
def witness(page: Page) -> Iterator[tree.Witness]:
    witness = tree.Witness(page)
    yield witness
    witness.close()


@contextmanager
def sleeper() -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def put_role(page: Page, number: int, pid: int) -> None:
    row = page.rows(ROLE)[number]
    row["pid"], row["start_time"] = pid, process_start_time(pid)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def wait_denied(page: Page) -> None:
    """Wait until the witness has been told of a lapsed lease."""
    give_up_ns = host_ns() + int(PATIENCE_S * NS_PER_S)
    while not page.rows(SLOT)["denied"][:, DenyReason.LEASE_LAPSED].any():
        assert host_ns() < give_up_ns
        sleep_s(0.001)


def test_witness_when_a_lease_is_live_or_lapsed_then_it_tells_open_from_closed(
    page: Page, witness: tree.Witness
) -> None:
    assert all(witness.is_open() for _ in range(500)), "its own pace must never answer"
    zero_lease(page, page.names.role("breaker"))
    assert not witness.is_open()
    assert witness.reason() == DenyReason.LEASE_LAPSED.name


def test_wound_when_an_actor_is_killed_then_denial_and_successor_are_timed(
    page: Page, witness: tree.Witness
) -> None:
    role = page.names.role("breaker")
    with sleeper() as process:
        put_role(page, role, process.pid)

        def succeed() -> None:
            process.wait()
            zero_lease(page, role)
            wait_denied(page)
            page.rows(ROLE)["incarnation"][role] += 1
            page.rows(LEASE)["deadline_ns"][role] = host_ns() + 3_600 * NS_PER_S

        with meanwhile(succeed):
            seen = tree.wound(page, witness, role, signal.SIGKILL)
        assert process.returncode == -9
    assert 0 < seen["denied_ms"] <= seen["back_ms"]


def test_root_when_killed_then_the_wait_ends_with_its_last_member(
    page: Page, witness: tree.Witness
) -> None:
    role = page.names.role("breaker")
    asked: list[int] = []

    def survivors() -> list[int]:
        # A strategy that takes a moment longer than the actors.
        asked.append(1)
        return [] if len(asked) > 2 else [4711]

    with sleeper() as root, sleeper() as member:
        page.header["owner_pid"] = root.pid
        page.header["owner_start"] = process_start_time(root.pid)
        put_role(page, role, member.pid)

        def follow() -> None:
            root.wait()
            zero_lease(page, role)
            member.kill()
            member.wait()

        with meanwhile(follow):
            seen = tree._kill_root(page, witness, survivors)
        assert (root.returncode, member.returncode) == (-9, -9)
    assert 0 < seen["killed_denied_ms"] <= seen["gone_ms"]
    assert len(asked) == 3


def test_quiet_when_a_lease_lapses_then_the_false_denials_are_counted(
    page: Page, witness: tree.Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree._watch_quiet(page, witness, 0.02)["denied"] == {}
    # The watch begins at an open gate: the lease lapses the moment after.
    role = page.names.role("breaker")
    monkeypatch.setattr(tree, "_until_settled", lambda *_: zero_lease(page, role))
    seen = tree._watch_quiet(page, witness, 0.02)
    assert seen["denied"] == {DenyReason.LEASE_LAPSED.name: seen["asked"]}


def test_wait_when_nothing_happens_then_it_ends_with_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "WAIT_S", 0.02)  # nothing to wait for but the bound
    with pytest.raises(DeadlineError, match="the armed gate did not happen"):
        tree.until(lambda: False, "the armed gate")


def test_references_when_measured_then_each_has_its_spread() -> None:
    references = tree.measure_references()
    assert references["interpreter_start_ms"]["p50"] > 1
    assert 0 < references["death_told_ms"]["p50"] <= references["death_told_ms"]["max"]


def test_memory_when_measured_then_only_processes_of_the_place_count(page: Page) -> None:
    assert pss_kb(os.getpid()) > 1_000
    with place() as here:
        mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                                env=here.environment)  # fmt: skip
        try:
            put_role(page, page.names.role("breaker"), mine.pid)
            tree.until(lambda: pss_kb(mine.pid) > 1_000, "a started interpreter")
            seen = memory_of(here, page)
            assert tree_pids(here) == [mine.pid]
        finally:
            mine.communicate()
    assert list(seen["members_mb"]) == ["breaker"]
    assert seen["tree_mb"] >= 1
    assert seen["venue_mb"] == seen["strategies_mb"] == seen["launcher_mb"] == 0


def test_goals_when_figures_are_worse_then_they_are_not_reached() -> None:
    result = tree_result()
    assert {goal["reached"] for goal in judge_goals(result)} == {True}
    worse = {
        **result, "armed_s": 16.0, "quiet": {"seconds": 60.0, "asked": 9, "denied": {"LEVEL": 1}},
        "root": {**result["root"], "gone_ms": 1_001.0, "hung_denied_ms": 521.0},
        "memory": {**result["memory"], "tree_mb": 1_601.0},
        "actors": {"breaker": {
            "lease_ms": 250,
            "killed": {"denied_ms": {"p99": 21.0}, "back_ms": {"p99": 2_501.0}},
            "stopped": {"denied_ms": {"p99": 271.0}},
        }},
    }  # fmt: skip
    assert {goal["reached"] for goal in judge_goals(worse)} == {False}


def test_tree_command_when_measured_then_text_and_tables_hold_every_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tree, "measure_tree", lambda report: tree_result())
    assert command.bench("tree") == 0
    out = capsys.readouterr().out
    for part in ("4.0 / 9.0 / 9.0", "9.0 s", "163 MB", "reached: false denials"):
        assert part in out
    assert command.bench("tree", json=True) == 0
    assert '"armed_s": 8.0' in capsys.readouterr().out
    text = "\n".join(tree_text.markdown(tree_result()))
    assert text.count("\n| --- |") == 3, "three tables"
    assert tree_text.spread_text({}) == "-"
