"""Which process is meant, and dying with the one we depend on: with real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tripgate.clock import NS_PER_S, host_ns
from tripgate.processes import (
    ORPHAN_EXIT_CODE,
    is_alive,
    kill_and_wait,
    kill_if_same,
    process_start_time,
)

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
GUARDED = (
    "import sys, threading; from tripgate.processes import exit_with\n"
    "exit_with(int(sys.argv[1])); print('guarded', flush=True); threading.Event().wait()"
)
HEADLESS = (
    "import ctypes, threading\n"
    "threading.Thread(target=lambda: (print('on', flush=True), input())).start()\n"
    "ctypes.CDLL(None).pthread_exit(None)"
)
"""Its main thread ends while another goes on."""


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def gone_pid() -> int:
    """Return the pid of a process that has ended and was waited for."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_is_alive_when_the_process_runs_then_only_pid_and_start_time_name_it(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    start = process_start_time(sleeper.pid)
    assert start > 0
    assert is_alive(sleeper.pid, start)
    assert not is_alive(sleeper.pid, start + 1)
    assert not is_alive(sleeper.pid, 0)
    assert not is_alive(0, start)


def test_process_start_time_when_it_is_a_zombie_then_it_counts_as_ended(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    start = process_start_time(sleeper.pid)
    descriptor = os.pidfd_open(sleeper.pid)
    sleeper.kill()
    # Waits for the end without reaping, so that the zombie is there for certain.
    os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    os.close(descriptor)
    assert process_start_time(sleeper.pid) == 0
    assert not is_alive(sleeper.pid, start)


def test_process_start_time_when_there_is_no_process_then_it_is_zero() -> None:
    assert process_start_time(gone_pid()) == 0


def test_kill_if_same_when_the_start_time_is_anothers_then_nobody_is_killed(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    start = process_start_time(sleeper.pid)
    assert not kill_if_same(sleeper.pid, start + 1, signal.SIGKILL)
    assert sleeper.poll() is None
    assert kill_if_same(sleeper.pid, start, signal.SIGKILL)
    assert sleeper.wait(PATIENCE_S) == -signal.SIGKILL


@pytest.mark.parametrize("pid", [0, -1])
def test_kill_if_same_when_the_row_was_never_written_then_nobody_is_killed(pid: int) -> None:
    assert not kill_if_same(pid, 0, signal.SIGKILL)


def test_kill_if_same_when_the_process_is_gone_then_it_says_so() -> None:
    assert not kill_if_same(gone_pid(), 1, signal.SIGKILL)


def test_process_start_time_when_only_the_main_thread_ended_then_it_is_alive() -> None:
    command = [sys.executable, "-c", HEADLESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        give_up_ns = host_ns() + int(PATIENCE_S * NS_PER_S)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert host_ns() < give_up_ns
        start = process_start_time(process.pid)
        assert start > 0
        assert kill_and_wait(process.pid, start, PATIENCE_S)
        assert process_start_time(process.pid) == 0


def test_kill_and_wait_when_the_process_is_stopped_then_it_has_ended_afterwards(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    start = process_start_time(sleeper.pid)
    assert kill_and_wait(sleeper.pid, start + 1, PATIENCE_S), "that one is gone already"
    assert is_alive(sleeper.pid, start)
    assert kill_and_wait(sleeper.pid, start, PATIENCE_S)
    assert not is_alive(sleeper.pid, start)
    assert kill_and_wait(gone_pid(), start, PATIENCE_S)


def test_exit_with_when_the_guarded_one_dies_then_the_guard_ends_at_once(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    command = [sys.executable, "-c", GUARDED, str(sleeper.pid)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as guard:
        assert guard.stdout is not None
        assert guard.stdout.readline() == b"guarded\n"
        assert guard.poll() is None
        sleeper.kill()
        assert guard.wait(PATIENCE_S) == ORPHAN_EXIT_CODE


def test_exit_with_when_the_guarded_one_is_gone_already_then_it_never_goes_on() -> None:
    command = [sys.executable, "-c", GUARDED, str(gone_pid())]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout) == (ORPHAN_EXIT_CODE, b"")


def test_exit_with_when_the_guarded_one_lives_then_the_guard_ends_as_it_likes(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    code = GUARDED.replace("threading.Event().wait()", "sys.exit(3)")
    command = [sys.executable, "-c", code, str(sleeper.pid)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"guarded\n")
