"""The launcher's own judgements: who runs already, how a run ended, what a log's last word is."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from supervisors import launcher
from supervisors.launcher import PaperPlan, PaperRun, TreeDiedError, _tail, venue_socket
from tests.tree_fixtures import INSTANCE, paper_page, paper_text
from tripgate.audit.record import Row, pack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import utc_ns
from tripgate.errors import AlreadyRunningError, DeadlineError, TripgateError, VenueError
from tripgate.instance import InstanceLock, page_folder, state_folder
from tripgate.messages import EventKind
from tripgate.processes import ORPHAN_EXIT_CODE

PLAN = PaperPlan(
    INSTANCE, "sim", "generator:crash", None, None, 0, Decimal(100_000), paper_text(), "paper",
    "0" * 64, 0.0, 0.0,
)  # fmt: skip


@pytest.fixture
def run() -> PaperRun:
    return PaperRun(PLAN)


def write_log(run: PaperRun, name: str, text: str) -> Path:
    path = run.state / "logs" / name
    path.write_text(text)
    return path


def test_paper_run_when_the_instance_runs_already_then_exit_6_and_what_to_do() -> None:
    paper_page()
    with InstanceLock(INSTANCE), pytest.raises(AlreadyRunningError) as caught:
        PaperRun(PLAN)
    assert caught.value.exit_code == 6
    assert f"tripgate status --instance {INSTANCE}" in str(caught.value)


def test_paper_run_when_made_then_its_state_is_prepared_and_nothing_is_started(
    run: PaperRun,
) -> None:
    assert run.state == state_folder(INSTANCE)
    assert (run.state / "logs").is_dir()
    assert (run.found_venue, run.socket) == (False, venue_socket(INSTANCE, "sim"))
    assert run.socket.parent == page_folder(INSTANCE)
    assert not run.socket.parent.exists()
    run.stop()
    with pytest.raises(AssertionError):
        run.poll()


@pytest.mark.parametrize(
    ("code", "words"),
    [(-signal.SIGKILL, "signal SIGKILL"), (ORPHAN_EXIT_CODE, "exit code 70"),
     (-signal.SIGSEGV, "signal SIGSEGV")],
)  # fmt: skip
def test_finish_when_the_root_died_then_it_says_that_the_venue_still_stands(
    run: PaperRun, code: int, words: str
) -> None:
    assert run.died(code)
    with pytest.raises(TreeDiedError, match="the venue still stands") as caught:
        run.finish(code)
    assert words in str(caught.value)
    assert f"tripgate paper --instance {INSTANCE}" in str(caught.value)


@pytest.mark.parametrize("code", [0, 14])
def test_finish_when_the_run_ended_in_order_then_there_is_nothing_to_say(
    run: PaperRun, code: int
) -> None:
    assert not run.died(code)
    run.finish(code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tripgate: first\nnoise\ntripgate: no space left\nmore noise\n", "no space left"),
        ("a traceback\n", "ended without a word: see "),
        ("", "ended without a word: see "),
    ],
)
def test_finish_when_the_root_failed_then_its_code_and_last_words_are_passed_on(
    run: PaperRun, text: str, words: str
) -> None:
    write_log(run, "root.log", text)
    with pytest.raises(TripgateError) as caught:
        run.finish(7)
    assert caught.value.exit_code == 7
    assert str(caught.value).startswith(words)


def test_tail_when_the_log_holds_bytes_that_are_no_text_then_it_is_still_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\ntripgate: caf\xc3\xa9\n")
    assert _tail(path, "tripgate: ") == "café"


@pytest.fixture
def started() -> Iterator[list[Any]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def child(started: list[Any], code: str) -> "subprocess.Popen[bytes]":
    started.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
    process: subprocess.Popen[bytes] = started[0]
    return process


def test_await_ready_when_the_venue_says_so_then_it_goes_on(
    run: PaperRun, started: list[Any]
) -> None:
    code = "import threading; print('ready', flush=True); threading.Event().wait()"
    run._await_ready(child(started, code))


def test_await_ready_when_the_venue_ends_then_its_code_and_words_are_passed_on(
    run: PaperRun, started: list[Any]
) -> None:
    write_log(run, "venue.log", "venue: the book is damaged\n")
    with pytest.raises(TripgateError, match=r"^the book is damaged$") as caught:
        run._await_ready(child(started, "raise SystemExit(4)"))
    assert caught.value.exit_code == 4


def test_await_ready_when_the_venue_says_nothing_then_it_is_ended(
    run: PaperRun, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "VENUE_START_WAIT_S", 0.2)
    process = child(started, "import threading; threading.Event().wait()")
    with pytest.raises(DeadlineError, match="was not ready"):
        run._await_ready(process)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("known", "accepted"), [(6, False), (7, True), (8, True)])
def test_venue_when_its_account_ends_before_our_log_then_it_is_refused(
    run: PaperRun, monkeypatch: pytest.MonkeyPatch, known: int, accepted: bool
) -> None:
    with LogWriter(run.state / "audit", run.state / "heads") as log:
        body = pack_body({"trade": 7})
        log.append([Row(1, 5, 1, utc_ns(), 1, 1, int(EventKind.FILL), None, body)])

    async def last_trade(path: Path) -> int:
        return known

    # Whole venues that lost their trades are started in tests/tree; here the bound itself counts.
    monkeypatch.setattr(launcher, "_last_trade", last_trade)
    if accepted:
        run._require_known_trades()
        return
    with pytest.raises(VenueError, match="knows trades up to 7, its venue up to 6"):
        run._require_known_trades()


@pytest.mark.parametrize(
    ("code", "found", "keeps"),
    [(0, True, False), (14, True, False), (7, False, False), (7, True, True), (-9, False, True)],
)
def test_keeps_venue_when_a_takeover_failed_then_what_it_found_stays(
    run: PaperRun, code: int, found: bool, keeps: bool
) -> None:
    run.found_venue = found
    assert run.keeps_venue(code) is keeps
