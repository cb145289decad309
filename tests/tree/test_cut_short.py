"""Runs that are cut short: by Ctrl-C while they start, by the death of their launcher.

In the second one an actor and the strategy are stopped when it happens: what cannot see that its
root has gone has to be ended by the root, in its last moment.
"""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.tree.paper_runs import (
    ROOT_MODULE,
    STRATEGY_MODULE,
    PaperRun,
    paper_run,
    role_row,
    wait_until,
)
from tripgate.errors import PageError
from tripgate.instance import page_folder
from tripgate.messages import EventKind
from tripgate.page.mapping import open_page

OPTIONS = ("--feed", "generator:calm", "--strategy", "pulse", "--speed", "90")


@pytest.fixture
def run() -> Iterator[PaperRun]:
    with paper_run("cut") as one:
        yield one


def starting(run: PaperRun) -> None:
    """Start a run and wait until its first actor has a process; nothing is armed then."""

    def is_starting() -> bool:
        try:
            with run.inside():
                page = open_page(page_folder(run.instance), writable=False)
        except PageError:
            return False
        return bool(role_row(page, "router(sim)")["pid"]) and not page.header["armed"]

    run.start(*OPTIONS)
    wait_until(is_starting, "an actor's process", 180.0)


def test_paper_when_interrupted_while_it_starts_then_it_ends_in_order(run: PaperRun) -> None:
    starting(run)
    assert run.interrupt() == 0, run.last_words
    assert run.processes() == {}
    assert "Traceback" not in run.last_words
    # Whether there was already somebody to write that down is a matter of the moment.
    told = [body["reason"] for body in run.bodies(EventKind.RUN_ENDED)]
    assert told in ([], ["signal SIGTERM"])
    assert run.bodies(EventKind.ARMED) == []
    assert (run.state / "ended").read_text() == "1\n"


def test_tree_when_its_launcher_is_killed_then_nothing_of_it_is_left_not_even_what_was_stopped(
    run: PaperRun, record_property: Callable[[str, object], None]
) -> None:
    page = run.start(*OPTIONS).armed_page()
    assert run.launcher is not None
    strategy = run.strategy_pid()
    for pid in (strategy, int(role_row(page, "market_feed(sim)")["pid"])):
        os.kill(pid, signal.SIGSTOP)
    assert run.processes(ROOT_MODULE)
    assert run.processes(STRATEGY_MODULE)
    run.launcher.kill()
    run.launcher.wait()
    gone_s = wait_until(lambda: not run.tree_processes(), "the end of the tree")
    record_property("tree_gone_s", gone_s)
