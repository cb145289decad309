"""``tripgate resume``: what it says first, what it does on the code, and when it refuses the code.

Where a breaker is needed, a thread carries out the real breaker step on the real page: an actor
needs a whole tree around it, and what is tested here is the command's side of the hand-over.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from supervisors.paper_config import render_paper_config
from tests.unit.audit_logs import Folders, make_rows
from tests.unit.cli_pages import BREAKER, hold, make_instance, mode_of
from tripgate.audit.record import pack_body
from tripgate.cli import halt as halt_module
from tripgate.cli import resume as resume_module
from tripgate.cli.app import main
from tripgate.clock import boot_ns, host_ns, sleep_s
from tripgate.durable import FileLock
from tripgate.gate.cause_rows import load_causes, store_causes
from tripgate.instance import state_folder
from tripgate.machines import breaker as machine
from tripgate.machines.breaker_types import (
    DRAWDOWN_THRESHOLDS,
    BreakerSpec,
    Cause,
    CauseKey,
    CauseState,
    Resume,
    SetLevel,
    Verdict,
)
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.doorbell import Doorbell
from tripgate.page.layout import ACCOUNT, ROLE
from tripgate.page.level import LevelWriter, node_level, set_level, writer_level
from tripgate.page.limits import count_change
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM, money

NAME = "paper-1"
BOUND_NS = 10_000_000_000
LATCHED = CauseState(Level.HARD, 40_000, latched=True, verdict=Verdict.FRESH)
BEYOND = CauseState(Level.HARD, 200_000, latched=True, verdict=Verdict.FRESH)
DRAWDOWN = CauseKey(Cause.DRAWDOWN, 0)


def run(*words: str) -> int:
    return main([words[0], "--instance", NAME, *words[1:]])


def records() -> list[dict[str, Any]]:
    return list(read_records(state_folder(NAME), 0))


def offered(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Take the first step of a resume and return its code."""
    capsys.readouterr()
    assert run("resume", *words, "--json") == 0
    code = json.loads(capsys.readouterr().out)["code"]
    assert isinstance(code, str)
    return code


@contextmanager
def breaker_thread(page: Page) -> Iterator[None]:
    """Carry out operator records with the breaker's step, as the actor does."""
    stop = threading.Event()

    def act() -> None:
        role, header = page.rows(ROLE)[BREAKER], page.header
        while not stop.wait(0.005):
            if int(header["operator_sequence"]) <= int(role["operator_read"]):
                continue
            for record in read_records(state_folder(NAME), int(role["operator_read"])):
                spec = BreakerSpec({DRAWDOWN: DRAWDOWN_THRESHOLDS}, PPM)
                state = machine.Breaker(spec, load_causes(page), locked=False)
                scope = page.names.scope(record["scope"])
                message = Resume(scope, record["rebase"], record["operator"], record["id"])
                state, effects = machine.step(state, message, 0)
                store_causes(page, state.causes)
                for effect in effects:
                    if isinstance(effect, SetLevel):
                        set_level(page, effect.scope, LevelWriter.BREAKER, effect.level)
                page.rows(ACCOUNT)["rebase_sequence"][scope] = record["id"]
                role["operator_read"] = record["id"]

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_resume_when_asked_first_then_it_says_what_would_happen_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    hold(page, {DRAWDOWN: BEYOND, CauseKey(Cause.RECOVERED, 0): LATCHED})
    set_level(page, 0, LevelWriter.OPERATOR, Level.EMERGENCY)
    set_level(page, 0, LevelWriter.SUPERVISOR, Level.MEDIUM)
    set_level(page, 3, LevelWriter.KEEPER, Level.SOFT)
    assert run("resume", "--scope", "portfolio", "--reason", "r") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "portfolio: level EMERGENCY"
    assert "held by: operator: EMERGENCY" in lines
    assert "held by: breaker: drawdown HARD, latched" in lines
    assert "will be released: operator: EMERGENCY to NORMAL" in lines
    assert "will be released: breaker: recovered HARD to NORMAL" in lines
    assert "will stay: supervisor: MEDIUM (only the supervisor lowers it)" in lines
    assert (
        "will stay: breaker: drawdown: its value is still beyond the threshold that latches"
        in lines
    )
    assert "not touched: strategy:trend at SOFT" in lines
    assert "level after: HARD" in lines
    assert records() == []
    assert node_level(page, 0) is Level.EMERGENCY
    assert mode_of(state_folder(NAME) / resume_module.PENDING_NAME) == 0o600


def test_resume_when_nothing_holds_the_scope_then_there_is_no_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_instance()
    assert run("resume", "--scope", "venue:sim", "--reason", "r", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["code"] is None
    assert (printed["held_by"], printed["level_after"]) == ([], "NORMAL")
    assert not (state_folder(NAME) / resume_module.PENDING_NAME).exists()


def test_resume_when_confirmed_with_a_live_breaker_then_the_level_goes_and_the_code_is_spent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    hold(page, {DRAWDOWN: LATCHED})
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "checked")
    code = offered(capsys, *words)
    with breaker_thread(page):
        assert run("resume", *words, "--confirm", code.lower(), "--operator", "bob") == 0
    assert "portfolio: level MEDIUM (before: HARD), record 1" in capsys.readouterr().out
    assert writer_level(page, 0, LevelWriter.OPERATOR) is Level.NORMAL
    (record,) = records()
    assert record["operator"] == "bob"
    assert (record["command"], record["scope"], record["rebase"]) == ("resume", "portfolio", False)
    assert run("resume", *words, "--confirm", code) == 2
    assert "no code is pending" in capsys.readouterr().err
    assert len(records()) == 1


def test_resume_when_the_drawdown_is_rebased_then_the_breaker_releases_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    hold(page, {DRAWDOWN: BEYOND})
    words = ("--scope", "portfolio", "--reason", "r", "--rebase-drawdown")
    assert run("resume", *words) == 0
    assert "high-water mark: 1000.00 to 800.00" in capsys.readouterr().out
    code = offered(capsys, *words)
    with breaker_thread(page):
        assert run("resume", *words, "--confirm", code, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["level_before"], printed["level"]) == ("HARD", "NORMAL")
    assert printed["acted"] is True
    assert records()[0]["rebase"] is True


def test_resume_when_the_breaker_refuses_then_it_exits_1_and_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance()
    hold(page, {DRAWDOWN: BEYOND})
    # The breaker's record as it stands in the log; what writes it there is the audit_writer.
    body = {"scope": "portfolio", "cause": "drawdown", "refused": "too deep", "record": 1}
    row = replace(make_rows(1)[0], kind=int(EventKind.RESUMED), body=pack_body(body))
    with Folders(state_folder(NAME)).writer() as writer:
        writer.append([row])
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    with breaker_thread(page):
        assert run("resume", *words, "--confirm", code) == 1
    captured = capsys.readouterr()
    assert "not released: drawdown: too deep" in captured.out
    assert "still held" in captured.err
    assert node_level(page, 0) is Level.HARD


def test_resume_when_the_tree_is_dead_then_it_is_recorded_for_the_next_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    hold(page, {DRAWDOWN: LATCHED})
    set_level(page, 0, LevelWriter.OPERATOR, Level.EMERGENCY)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    assert run("resume", *words, "--confirm", code) == 0
    captured = capsys.readouterr()
    assert "portfolio: level HARD (before: EMERGENCY), record 1" in captured.out
    assert "at the next start" in captured.err
    assert int(page.header["operator_sequence"]) == 1


def test_resume_when_a_live_breaker_does_not_act_then_it_exits_5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = make_instance()
    hold(page, {DRAWDOWN: LATCHED})
    monkeypatch.setattr(resume_module, "BREAKER_WAIT_S", 0.1)  # nothing to wait for but the bound
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    assert run("resume", *words, "--confirm", code) == 5
    assert "has not acted" in capsys.readouterr().err
    assert len(records()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda page: count_change(page), "limits_version: ", id="limits"),
        pytest.param(
            lambda page: set_level(page, 1, LevelWriter.BREAKER, Level.SOFT),
            "level of venue:sim: NORMAL then, SOFT by breaker now", id="level-elsewhere",
        ),
        pytest.param(
            lambda page: set_level(page, 0, LevelWriter.OPERATOR, Level.NORMAL),
            "level of portfolio: HARD by operator then, NORMAL now", id="loosened",
        ),
        # Both files name the epoch: a page with two of them would not even open.
        pytest.param(lambda page: make_instance(epoch=9), "epoch: 1 then, 9 now", id="run"),
    ],
)  # fmt: skip
def test_resume_when_the_state_has_changed_then_the_code_is_refused_with_what_changed(
    change: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    change(page)
    assert run("resume", *words, "--confirm", code) == 2
    assert says in capsys.readouterr().err
    assert records() == []
    assert run("resume", *words, "--confirm", code) == 2
    assert "no code is pending" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("--scope", "venue:sim", "--reason", "r"), "scope: 'portfolio' then, 'venue:sim' now"),
        (("--scope", "portfolio", "--reason", "s"), "reason: 'r' then, 's' now"),
        (
            ("--scope", "portfolio", "--reason", "r", "--rebase-drawdown"),
            "rebase: False then, True now",
        ),
    ],
)
def test_resume_when_confirmed_for_something_else_then_it_is_refused(
    other: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    code = offered(capsys, "--scope", "portfolio", "--reason", "r")
    assert run("resume", *other, "--confirm", code) == 2
    assert says in capsys.readouterr().err
    assert records() == []
    assert node_level(page, 0) is Level.HARD


def test_resume_when_the_code_is_mistyped_then_the_right_one_still_acts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    assert run("resume", *words, "--confirm", "nope") == 2
    assert "not the code" in capsys.readouterr().err
    assert run("resume", *words, "--confirm", code) == 0
    assert node_level(page, 0) is Level.NORMAL


@pytest.mark.parametrize("age_s", [61, -5])
def test_resume_when_the_code_is_too_old_or_from_another_boot_then_it_is_refused(
    age_s: int, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    path = state_folder(NAME) / resume_module.PENDING_NAME
    pending = json.loads(path.read_text())
    pending["made_boot_ns"] = boot_ns() - age_s * 10**9
    path.write_text(json.dumps(pending))
    assert run("resume", *words, "--confirm", code) == 2
    assert "expired" in capsys.readouterr().err
    assert records() == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"code": "ABC"}', b"\xff"])
def test_resume_when_the_pending_code_is_damaged_then_it_counts_as_none(
    content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    make_instance()
    (state_folder(NAME) / resume_module.PENDING_NAME).write_bytes(content)
    words = ("--scope", "portfolio", "--reason", "r", "--confirm", "ABC")
    assert run("resume", *words) == 2
    assert "no code is pending" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scope", "field", "says"),
    [("venue:sim", "", "no equity of its own"), ("portfolio", "stale", "is not known now")],
)
def test_rebase_when_there_is_no_equity_to_begin_from_then_it_is_refused(
    scope: str, field: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    if field:
        page.rows(ACCOUNT)[field][0] = 1
    assert run("resume", "--scope", scope, "--reason", "r", "--rebase-drawdown") == 2
    assert says in capsys.readouterr().err


def test_resume_when_another_command_holds_the_lock_then_it_exits_5_and_keeps_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    lock = FileLock(state_folder(NAME) / halt_module.LOCK_NAME, is_removed=False)
    assert lock.acquire()
    assert run("resume", *words, "--confirm", code) == 5
    lock.release()
    assert run("resume", *words, "--confirm", code) == 0


@pytest.mark.parametrize(
    ("has_config", "says"),
    [(True, "will be released: breaker: total_loss"), (False, "will stay: breaker: total_loss")],
)
def test_resume_when_the_total_loss_is_latched_then_the_config_of_the_run_decides(
    has_config: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_instance()
    if has_config:  # its floor is far above a loss of 200
        text = render_paper_config(["BTC/USDT:USDT"], ("hold",), Decimal(1))
        (state_folder(NAME) / "config.toml").write_text(text)
    loss = CauseState(Level.EMERGENCY, money(200), latched=True, verdict=Verdict.FRESH)
    hold(page, {CauseKey(Cause.TOTAL_LOSS, 0): loss})
    assert run("resume", "--scope", "portfolio", "--reason", "r") == 0
    assert says in capsys.readouterr().out


def test_resume_when_an_earlier_run_left_a_level_then_it_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    set_level(page, 0, LevelWriter.BREAKER, Level.HARD)
    assert run("resume", "--scope", "portfolio", "--reason", "r") == 0
    out = capsys.readouterr().out
    assert "held by: breaker: HARD (taken over from an earlier run)" in out
    assert "level after: HARD" in out


def test_bell_when_the_breaker_waits_then_it_hears_the_confirmed_resume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = make_instance(alive=False)
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    words = ("--scope", "portfolio", "--reason", "r")
    code = offered(capsys, *words)
    bell = Doorbell(Path(page.folder), "role1")
    assert run("resume", *words, "--confirm", code) == 0
    give_up_ns = host_ns() + BOUND_NS
    heard = b""
    while not heard and host_ns() < give_up_ns:
        try:
            heard = bell.socket.recv(64)
        except BlockingIOError:
            sleep_s(0.01)
    bell.close()
    assert heard == b"!"
