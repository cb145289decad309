"""Actors and strategies that die or hang in the middle of a run, told as one story.

One run suffers everything in turn and is then ended with Ctrl-C; each test asks one question of
what was seen. The gate is watched from outside, by a process of the same user that has attached to
it: what it is told is what any strategy would have been told.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.spawner import ZYGOTE_MODULE
from tests.tree.paper_runs import (
    ROOT,
    STEP_BOUND_S,
    STRATEGY_MODULE,
    PaperRun,
    paper_run,
    role_row,
    wait_until,
)
from tripgate.errors import VenueError
from tripgate.gate.client import Gate
from tripgate.gate.decision import Decision
from tripgate.gate.status import decision_counts
from tripgate.messages import DoneState, EventKind
from tripgate.page.layout import STRATEGY
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason

ACTORS = ("breaker", "position_keeper", "audit_writer", "router(sim)", "market_feed(sim)")
HUNG_ACTOR = "breaker"
OPTIONS = ("--feed", "generator:calm", "--strategy", "pulse", "--speed", "90")
"""Six steps a second of a week that is longer than any test."""


@dataclass
class Wound:
    """What was seen of one actor's death."""

    denial: Decision
    denied_s: float
    back_s: float
    incarnations: tuple[int, int]
    steps: tuple[int, int]


@dataclass
class Story:
    """Everything that was seen."""

    run: PaperRun
    page: Page
    gate: Gate
    killed: dict[str, Wound] = field(default_factory=dict)
    hung: Wound | None = None
    strategy_pids: tuple[int, ...] = ()
    second_start: "subprocess.CompletedProcess[str] | None" = None
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    fills: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)
    dropped_s: float = 0.0
    steps_after_drop: int = 0
    resting: tuple[int, str] = (0, "")
    exit_code: int = -1
    left: dict[int, str] = field(default_factory=dict)
    page_is_left: bool = True


def ask(story: Story) -> Decision:
    """Ask for an opening that lacks its stop: no healthy gate reserves anything for it."""
    handle = story.gate.instrument(*story.gate.instruments[0])
    return handle.check(handle.units.lot)


def is_open(story: Story) -> bool:
    """Whether the gate's answer is about the order and no more about the tree."""
    return ask(story).reason is DenyReason.STOP_MISSING


def trades_on(story: Story) -> None:
    """Wait until the strategy gets approvals again, several steps further on."""
    approved, _ = decision_counts(story.page)
    step = int(story.page.header["step"])
    wait_until(
        lambda: decision_counts(story.page)[0] > approved and story.page.header["step"] > step + 2,
        "approvals after the restart",
    )


@contextmanager
def no_successors(run: PaperRun) -> Iterator[None]:
    """Keep the process that forks actors from doing so within the block."""
    commands = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in run.processes(ZYGOTE_MODULE)}
    (zygote,) = [pid for pid, command in commands.items() if command == "zygote\n"]
    os.kill(zygote, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # A starved root may have replaced it meanwhile.
            os.kill(zygote, signal.SIGCONT)


def wound(story: Story, actor: str, signal_number: int) -> Wound:
    """Send a signal to an actor and watch the gate until trading goes on."""
    row = role_row(story.page, actor)
    before, step = int(row["incarnation"]), int(story.page.header["step"])
    told: list[Decision] = []

    def is_denied() -> bool:
        told.append(ask(story))
        return told[-1].reason is DenyReason.LEASE_LAPSED and actor in told[-1].scope

    # A successor is there within a tenth of a second; asked at the wrong moment, one would miss it.
    with no_successors(story.run):
        os.kill(int(row["pid"]), signal_number)
        denied_s = wait_until(is_denied, f"a denial for the lease of {actor}")
    back_s = wait_until(
        lambda: int(row["incarnation"]) > before and is_open(story), f"{actor} and an open gate"
    )
    trades_on(story)
    return Wound(
        told[-1], denied_s, denied_s + back_s, (before, int(row["incarnation"])),
        (step, int(story.page.header["step"])),
    )  # fmt: skip


def restart_strategy(story: Story) -> None:
    before = story.run.strategy_pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: before not in story.run.processes(), "the strategy's death")
    story.strategy_pids += (before, story.run.strategy_pid())
    trades_on(story)


def hang_strategy(story: Story) -> None:
    """Stop the strategy, and once nobody trades compare what the three books say."""
    run, page = story.run, story.page
    os.kill(run.strategy_pid(), signal.SIGSTOP)

    def told_alike() -> bool:
        story.positions = {
            "page": run.page_positions(page), "venue": run.venue_positions(),
            "log": run.log_positions(),
        }  # fmt: skip
        story.fills = {"venue": run.venue_fills(), "log": run.log_fills()}
        alike = story.positions["page"] == story.positions["venue"] == story.positions["log"]
        return alike and story.fills["venue"] == story.fills["log"]

    number = page.names.strategy("pulse")
    dropped = page.rows(STRATEGY)["dropped"]
    story.dropped_s = wait_until(lambda: dropped[number], "the hung strategy being dropped")
    wait_until(lambda: not run.processes(STRATEGY_MODULE), "its process being killed")
    wait_until(told_alike, "page, venue and log telling the same")
    step = int(page.header["step"])
    wait_until(lambda: page.header["step"] > step + 3, "steps after the drop")
    story.steps_after_drop = int(page.header["step"]) - step


def orphan_entry(story: Story) -> None:
    """Let a strategy process die with an entry resting at the venue."""
    run = story.run
    command = [sys.executable, "-m", "tests.tree.resting_strategy", "pulse"]
    environment = run.environment | {"TRIPGATE_INSTANCE": run.instance}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], STEP_BOUND_S)
        token = int(child.stdout.readline()) if ready else 0
        assert token, "the gate granted no resting entry"
        wait_until(lambda: client_id_of(run, token), "the resting order on record")
        client_id = client_id_of(run, token)
        wait_until(lambda: client_id in run.venue_open_orders(), "the order resting at the venue")
        story.resting = (token, client_id)
    finally:
        child.kill()
        child.wait(timeout=STEP_BOUND_S)
        if child.stdout is not None:
            child.stdout.close()
    wait_until(lambda: client_id not in run.venue_open_orders(), "its cancel at the venue")
    wait_until(lambda: token in done_tokens(run), "its end on record")


def client_id_of(run: PaperRun, token: int) -> str:
    sent = run.bodies(EventKind.ORDER_SENT)
    return next((str(body["client_id"]) for body in sent if body["token"] == token), "")


def done_tokens(run: PaperRun) -> dict[Any, Any]:
    return {body["token"]: body["state"] for body in run.bodies(EventKind.ORDER_DONE)}


def chapters() -> tuple[Callable[[Story], None], ...]:
    """Return the story's parts in order; a hung strategy is out, so that part comes late."""

    def kill_each(story: Story) -> None:
        story.strategy_pids += (story.run.strategy_pid(),)
        for actor in ACTORS:
            story.killed[actor] = wound(story, actor, signal.SIGKILL)

    def hang_one(story: Story) -> None:
        story.hung = wound(story, HUNG_ACTOR, signal.SIGSTOP)

    def start_twice(story: Story) -> None:
        words = ("paper", "--feed", "generator:calm", "--instance", story.run.instance)
        story.second_start = story.run.command(*words)

    def interrupt(story: Story) -> None:
        story.exit_code = story.run.interrupt()
        story.left, story.page_is_left = story.run.processes(), story.run.page_is_left

    return (kill_each, hang_one, restart_strategy, start_twice, hang_strategy, orphan_entry,
            interrupt)  # fmt: skip


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with paper_run() as run:
        page = run.start(*OPTIONS).armed_page()
        told = Story(run, page, run.attach("pulse"))
        trades_on(told)
        for chapter in chapters():
            try:
                chapter(told)
            except VenueError as error:
                raise AssertionError(f"{chapter.__name__}: {error}") from error
        yield told


@pytest.mark.parametrize("actor", ACTORS)
def test_P3_actor_when_killed_then_openings_are_denied_for_its_lease(
    story: Story, actor: str, record_property: Callable[[str, object], None]
) -> None:
    seen = story.killed[actor]
    record_property("denied_s", seen.denied_s)
    record_property("open_again_s", seen.back_s)
    assert seen.denial.reason is DenyReason.LEASE_LAPSED
    assert seen.denial.scope == f"lease:{actor}"


@pytest.mark.parametrize("actor", ACTORS)
def test_actor_when_killed_then_it_is_back_and_trading_goes_on(story: Story, actor: str) -> None:
    seen = story.killed[actor]
    assert seen.incarnations[1] == seen.incarnations[0] + 1
    assert seen.steps[1] > seen.steps[0]
    down = [body for body in story.run.bodies(EventKind.ACTOR_DOWN) if body["actor"] == actor]
    assert (down[0]["code"], down[0]["reason"]) == (-signal.SIGKILL, "signal SIGKILL")


def test_P3_actor_when_stopped_then_its_lease_closes_the_gate_and_it_is_replaced(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    assert story.hung is not None
    record_property("denied_s", story.hung.denied_s)
    assert story.hung.denial.scope == f"lease:{HUNG_ACTOR}"
    assert story.hung.incarnations[1] > story.hung.incarnations[0]
    assert "hung" in [body["reason"] for body in story.run.bodies(EventKind.ACTOR_DOWN)]


def test_books_when_every_actor_has_died_once_then_page_venue_and_log_tell_the_same(
    story: Story,
) -> None:
    assert story.positions["page"] == story.positions["venue"] == story.positions["log"]
    assert story.fills["venue"] == story.fills["log"]
    trades = [trade for trade, _, _ in story.fills["log"]]
    assert trades == list(range(1, len(trades) + 1))
    assert len(trades) > len(ACTORS)


def test_strategy_when_actors_die_then_it_lives_on(story: Story) -> None:
    first, before_its_own_death, _ = story.strategy_pids
    assert first == before_its_own_death


def test_strategy_when_killed_then_it_is_started_again(story: Story) -> None:
    _, before, after = story.strategy_pids
    assert before != after


def test_strategy_when_it_hangs_then_it_is_dropped_on_record_and_the_market_goes_on(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    record_property("dropped_s", story.dropped_s)
    dropped = story.run.bodies(EventKind.STRATEGY_DROPPED)
    assert [body["strategy"] for body in dropped] == ["pulse"]
    assert story.steps_after_drop > 3


def test_strategy_when_it_dies_or_hangs_then_what_ended_it_is_on_record(story: Story) -> None:
    downs = story.run.bodies(EventKind.STRATEGY_DOWN)
    told = [(body["incarnation"], body["reason"], body["code"]) for body in downs]
    killed = -signal.SIGKILL
    assert told == [(1, "signal SIGKILL", killed), (2, "hung", killed)]
    (left,) = story.run.bodies(EventKind.CHILD_LEFT_DOWN)
    assert (left["child"], left["reason"]) == ("pulse", "hung")
    assert story.run.bodies(EventKind.ESCALATED) == []


def test_entry_when_its_strategy_is_dead_then_it_is_cancelled(story: Story) -> None:
    token, client_id = story.resting
    assert client_id
    assert token in [body["token"] for body in story.run.bodies(EventKind.CANCEL_SENT)]
    assert done_tokens(story.run)[token] == DoneState.CANCELLED.name


def test_paper_when_the_instance_runs_already_then_exit_6_and_the_run_goes_on(
    story: Story,
) -> None:
    assert story.second_start is not None
    assert story.second_start.returncode == 6
    assert "is running already" in story.second_start.stderr
    assert "Traceback" not in story.second_start.stderr
    assert story.steps_after_drop > 0


def test_paper_when_interrupted_then_it_ends_in_order(story: Story) -> None:
    assert story.exit_code == 0, story.run.last_words
    assert story.left == {}
    assert not story.page_is_left
    assert "Traceback" not in story.run.errors
    ended = story.run.bodies(EventKind.RUN_ENDED)
    assert [body["reason"] for body in ended] == ["signal SIGTERM"]
    assert (story.run.state / "ended").read_text() == "1\n"


def test_log_when_every_actor_has_died_once_then_it_is_verified(story: Story) -> None:
    assert story.run.summary["audit"]["verified"]
    assert story.run.summary["overshoot_at_grant_max"] <= 0
    # Nobody died but those who were killed.
    down = [(body["actor"], body["code"]) for body in story.run.bodies(EventKind.ACTOR_DOWN)]
    assert down == [(actor, -signal.SIGKILL) for actor in (*ACTORS, HUNG_ACTOR)]
    assert story.run.summary["restarts"] == len(down)
    assert story.run.command("audit", "verify", "--instance", "run").returncode == 0


def test_P6_log_when_every_actor_has_died_once_then_replayed_it_explains_itself(
    story: Story,
) -> None:
    told = story.run.replayed()
    assert told["mismatches"] == []
    assert told["checkpoints"]["snapshot_sums"] > 0
    assert told["decisions"]["without_terms"] == 0
