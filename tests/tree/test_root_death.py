"""The root dies by kill -9; its tree goes with it, the venue stands, and a restart finds it.

Told as one story, as in test_deaths: stop the root for a moment, kill it, start the same instance
again, resume it in two steps, halt it by hand, end it with Ctrl-C. One order rests at the venue
when the root dies, and one that was approved is not sent yet; an actor and the strategy are stopped
then, so that they cannot see it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.tree.paper_runs import END_BOUND_S, PaperRun, paper_run, role_row, wait_until
from tripgate.gate.client import Gate
from tripgate.gate.decision import Decision
from tripgate.gate.status import GateStatus, read_status
from tripgate.gate.words import token_slot
from tripgate.messages import EventKind
from tripgate.page.layout import BOARD, SLOT, WATERMARK
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

OPTIONS = ("--feed", "generator:calm", "--strategy", "hold", "--gross", "0.5", "--speed", "90")
TREE_GONE_BOUND_S = 5.0
FEW_STEPS = 5


@dataclass
class Story:
    """Everything that was seen."""

    run: PaperRun
    held: dict[str, int] = field(default_factory=dict)
    hung_denial: Decision | None = None
    hung_denied_s: float = 0.0
    hung_back_s: float = 0.0
    tree_gone_s: float = 0.0
    left: dict[int, str] = field(default_factory=dict)
    first_code: int = 0
    first_errors: str = ""
    venue_positions: dict[str, int] = field(default_factory=dict)
    dead_status_code: int = 0
    found: GateStatus | None = None
    found_positions: dict[str, int] = field(default_factory=dict)
    denial: Decision | None = None
    offer: Any = None
    level_resumed: Level | None = None
    approval: Decision | None = None
    halt_code: int = -1
    halted_positions: dict[str, int] = field(default_factory=dict)
    halted_denial: Decision | None = None
    halted_status_code: int = 0
    resting: int = 0
    unsent: int = 0
    listed: dict[str, Any] = field(default_factory=dict)
    listed_dead: tuple[int, list[int]] = (0, [])
    resolve_codes: tuple[int, int, int] = (-1, -1, -1)
    venue_fills: list[tuple[int, str, int]] = field(default_factory=list)
    last_code: int = -1


def ask(gate: Gate) -> Decision:
    """Ask for one lot of what is held, with a stop 10 % away; never submitted, so it expires."""
    handle = gate.instrument(*gate.instruments[0])
    quote = handle.quote
    assert quote is not None
    return handle.check(handle.units.lot, stop=handle.units.tick * (quote.mark * 9 // 10))


def hold_positions(story: Story, page: Page) -> None:
    """Wait until all is bought and told alike, a few steps into the market."""
    run, number = story.run, len(page.names.instruments)
    wait_until(lambda: len(run.page_positions(page)) == number, "a position in each instrument")
    wait_until(lambda: page.rows(BOARD)["ticks"].min() > FEW_STEPS, "a few steps")
    wait_until(lambda: run.venue_positions() == run.page_positions(page), "venue and page alike")
    story.held = run.page_positions(page)


def orders(story: Story, *words: str) -> "subprocess.CompletedProcess[str]":
    return story.run.command("orders", words[0], "--instance", story.run.instance, *words[1:])


def rest_order(story: Story) -> Gate:
    """Leave an order resting below the market, and let an operator try to end it by hand."""
    run, gate = story.run, story.run.attach("hold")
    handle = gate.instrument(*gate.instruments[0])
    quote = handle.quote
    assert quote is not None
    price, stop = (handle.units.tick * (quote.mark * n // 1_000) for n in (985, 960))
    story.resting = gate.submit(handle.check(handle.units.lot, price=price, stop=stop)).token
    acknowledged = EventKind.ORDER_ACKNOWLEDGED
    wait_until(
        lambda: story.resting in [body["token"] for body in run.bodies(acknowledged)],
        "the resting order's acknowledgement",
    )
    told = json.loads(orders(story, "list", "--json").stdout)["orders"]
    story.listed = next(order for order in told if order["token"] == story.resting)
    return gate


def resolve_resting(story: Story) -> None:
    """Say of the resting order, with nobody alive to contradict, that it never existed."""
    dead = orders(story, "list", "--json")
    tokens = [order["token"] for order in json.loads(dead.stdout)["orders"]]
    story.listed_dead = (dead.returncode, tokens)
    words = ("resolve", str(story.resting), "--as", "rejected", "--reason", "a drill", "--json")
    offer = orders(story, *words)
    confirmed = orders(story, *words, "--confirm", str(json.loads(offer.stdout)["code"]))
    story.resolve_codes = (*story.resolve_codes[:1], offer.returncode, confirmed.returncode)


def hang_root(story: Story, page: Page, gate: Gate) -> None:
    """Stop the root until its lease has closed the gate, then let it go on."""
    root = int(page.header["owner_pid"])

    def is_denied() -> bool:
        story.hung_denial = ask(gate)
        return story.hung_denial.reason is DenyReason.LEASE_LAPSED

    os.kill(root, signal.SIGSTOP)
    story.hung_denied_s = wait_until(is_denied, "a denial for the root's lease")
    os.kill(root, signal.SIGCONT)
    story.hung_back_s = wait_until(lambda: ask(gate).approved, "an approval after the root is back")


def kill_root(story: Story, page: Page) -> None:
    """Kill it while an actor and the strategy are stopped and cannot see that it is gone."""
    run = story.run
    for pid in (int(role_row(page, "market_feed(sim)")["pid"]), run.strategy_pid()):
        os.kill(pid, signal.SIGSTOP)
    os.kill(int(page.header["owner_pid"]), signal.SIGKILL)
    story.tree_gone_s = wait_until(
        lambda: not run.tree_processes(), "the end of the tree", TREE_GONE_BOUND_S
    )
    story.left = run.tree_processes()
    story.first_code = run.wait(END_BOUND_S)
    story.first_errors = run.errors
    story.venue_positions = run.venue_positions()
    story.dead_status_code = run.command("status", "--instance", run.instance).returncode


def restart(story: Story) -> tuple[Page, Gate]:
    run = story.run
    page = run.start(*OPTIONS).armed_page(epoch=2)
    gate = run.attach("hold")
    step = int(page.header["step"])
    wait_until(lambda: page.header["step"] > step + FEW_STEPS, "steps after the restart")
    story.found, story.found_positions = read_status(page), run.page_positions(page)
    story.denial = ask(gate)
    return page, gate


def resume(story: Story, page: Page, gate: Gate) -> None:
    words = ("resume", "--scope", "portfolio", "--reason", "the book was compared by hand")
    named = ("--instance", story.run.instance, "--json")
    story.offer = json.loads(story.run.command(*words, *named).stdout)
    confirmed = story.run.command(*words, *named, "--confirm", str(story.offer["code"]))
    assert confirmed.returncode == 0, confirmed.stderr
    wait_until(lambda: read_status(page).level is Level.NORMAL, "the level being withdrawn")
    story.level_resumed = read_status(page).level
    wait_until(lambda: ask(gate).approved, "an approval after the resume")
    story.approval = ask(gate)


def halt(story: Story, page: Page, gate: Gate) -> None:
    run = story.run
    words = ("halt", "--scope", "portfolio", "--level", "HARD", "--reason", "a drill")
    story.halt_code = run.command(*words, "--instance", run.instance).returncode
    wait_until(lambda: not run.page_positions(page), "a flat page")
    wait_until(lambda: run.bodies(EventKind.FLAT), "flat on record")
    story.halted_positions = run.venue_positions()
    story.halted_denial = ask(gate)
    status = run.command("status", "--exit-level", "--instance", run.instance)
    story.halted_status_code = status.returncode


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with paper_run("kept") as run:
        told = Story(run)
        first = run.start(*OPTIONS).armed_page()
        hold_positions(told, first)
        gate = rest_order(told)
        hang_root(told, first, gate)
        told.resolve_codes = (
            orders(
                told, "resolve", str(told.resting), "--as", "rejected", "--reason", "a drill"
            ).returncode, -1, -1,
        )  # fmt: skip
        told.unsent = ask(gate).token
        slot, sequences = token_slot(told.unsent), first.rows(WATERMARK)["sequence"]
        number = int(first.rows(SLOT)["record_sequence"][slot])
        wait_until(lambda: int(sequences[slot]) >= number, "the approval being durable")
        kill_root(told, first)
        gate.close()
        resolve_resting(told)
        page, gate = restart(told)
        resume(told, page, gate)
        halt(told, page, gate)
        told.venue_fills = run.venue_fills()
        told.last_code = run.interrupt()
        yield told


def test_P3_root_when_it_hangs_then_openings_are_denied_and_it_comes_back(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    record_property("denied_s", story.hung_denied_s)
    record_property("open_again_s", story.hung_back_s)
    assert story.hung_denial is not None
    assert story.hung_denial.scope == "lease:supervisor"
    down = story.run.bodies(EventKind.ACTOR_DOWN, epoch=1)
    assert down == [], "nobody was taken for hung because the root was"


def test_tree_when_its_root_is_killed_then_no_process_of_it_is_left(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    record_property("tree_gone_s", story.tree_gone_s)
    assert story.left == {}


def test_paper_when_its_root_is_killed_then_it_says_what_stands_and_fails(story: Story) -> None:
    assert story.first_code == 1
    assert "SIGKILL" in story.first_errors
    assert "--instance kept" in story.first_errors
    assert "Traceback" not in story.first_errors
    assert story.dead_status_code == 3


def test_venue_when_the_root_is_killed_then_it_stands_with_its_positions(story: Story) -> None:
    assert story.held
    assert story.venue_positions == story.held


def test_restart_when_the_root_was_killed_then_it_finds_the_book(story: Story) -> None:
    assert "found the venue" in story.run.errors
    assert story.found_positions == story.held


def test_P5_restart_when_the_root_was_killed_then_it_is_at_medium_until_resumed(
    story: Story,
) -> None:
    assert story.found is not None
    causes = [(cause.cause, cause.scope, cause.level) for cause in story.found.causes]
    assert ("recovered", "portfolio", Level.MEDIUM) in causes
    assert story.found.level is Level.MEDIUM
    assert story.denial is not None
    assert story.denial.reason is DenyReason.LEVEL


def test_orders_when_listed_then_the_page_tells_of_them_with_and_without_a_tree(
    story: Story,
) -> None:
    told = {name: story.listed[name] for name in ("kind", "state", "fate", "durable", "lots")}
    assert told == {
        "kind": "entry", "state": "COMMITTED", "fate": "at the venue", "durable": True, "lots": 1,
    }  # fmt: skip
    code, tokens = story.listed_dead
    assert code == 3
    assert {story.resting, story.unsent} <= set(tokens)


def test_orders_when_an_operator_ends_what_the_venue_knows_then_the_venues_word_stands(
    story: Story,
) -> None:
    assert story.resolve_codes == (2, 0, 0), "refused while it is known, kept while nobody lives"
    (resolved,) = story.run.bodies(EventKind.ORDER_RESOLVED)
    assert resolved["token"] == story.resting
    assert resolved["refused"]
    ends = {body["token"]: body["state"] for body in story.run.bodies(EventKind.ORDER_DONE)}
    assert ends[story.resting] == "CANCELLED"


def test_P7_restart_when_an_approval_has_no_end_then_it_gets_one_on_record(story: Story) -> None:
    ends = {body["token"]: body["state"] for body in story.run.bodies(EventKind.ORDER_DONE)}
    expired = [body["token"] for body in story.run.bodies(EventKind.RESERVATION_EXPIRED)]
    assert ends.get(story.unsent) == "NEVER_ARRIVED" or story.unsent in expired


def test_resume_when_confirmed_then_openings_are_approved_again(story: Story) -> None:
    assert story.offer["code"]
    assert story.level_resumed is Level.NORMAL
    assert story.approval is not None
    assert story.approval.approved
    resumed = story.run.bodies(EventKind.RESUMED)
    assert [(body["scope"], body["cause"]) for body in resumed] == [("portfolio", "recovered")]


def test_halt_when_hard_then_positions_are_closed_and_it_latches(story: Story) -> None:
    assert story.halt_code == 0
    assert story.halted_positions == {}
    assert story.halted_denial is not None
    assert story.halted_denial.reason is DenyReason.LEVEL
    assert story.halted_status_code == 13
    commands = [body["command"] for body in story.run.bodies(EventKind.OPERATOR)]
    assert commands == ["orders resolve", "resume", "halt"]


def test_log_when_two_runs_wrote_it_then_no_fill_is_lost_or_doubled(story: Story) -> None:
    assert story.run.log_fills() == story.venue_fills
    assert len(story.venue_fills) == 2 * len(story.held)


def test_log_when_two_runs_wrote_it_then_it_is_verified(story: Story) -> None:
    assert story.last_code == 0, story.run.last_words
    assert story.run.summary["audit"]["verified"]
    assert story.run.command("audit", "verify", "--instance", "kept").returncode == 0
    started = story.run.bodies(EventKind.RUN_STARTED)
    told = [(body["epoch"], body["orderly"], body["page_kept"]) for body in started]
    assert told == [(1, True, False), (2, False, True)]
    assert len(story.run.bodies(EventKind.RUN_ENDED)) == 1


def test_paper_when_ended_in_order_then_no_process_and_no_page_is_left(story: Story) -> None:
    assert story.run.processes() == {}
    assert not story.run.page_is_left


def test_P6_log_when_two_runs_wrote_it_then_replayed_it_explains_itself(story: Story) -> None:
    told = story.run.replayed()
    assert told["mismatches"] == []
    assert told["checkpoints"]["snapshot_sums"] > 0
    assert told["decisions"]["equal"] >= len(story.venue_fills)
