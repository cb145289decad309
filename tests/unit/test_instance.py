"""Instance: names, folders, who runs, and that the disk takes what is written."""

import errno
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tripgate import instance
from tripgate.errors import (
    AlreadyRunningError,
    ConfigError,
    NotRunningError,
    StateUnwritableError,
    UsageError,
)

ROOT = Path(__file__).parents[2]

HOLDER = """
import sys
from tripgate.instance import InstanceLock
with InstanceLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns an instance until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def start(name: str) -> None:
    """Make the folders of an instance, its page included."""
    instance.prepare_state(name)
    instance.page_folder(name).mkdir(parents=True)


@pytest.mark.parametrize("name", ["a", "paper-1", "x" * 32])
def test_name_when_it_follows_the_rule_then_it_is_taken(name: str) -> None:
    assert instance.check_instance_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a_b", "a/b", "..", "x" * 33, "a\n", "é"])
def test_name_when_it_breaks_the_rule_then_every_entry_point_refuses(name: str) -> None:
    for entry in (
        instance.check_instance_name,
        instance.state_folder,
        instance.page_folder,
        instance.socket_path,
        instance.prepare_state,
        instance.InstanceLock,
    ):
        with pytest.raises(UsageError, match="cannot name an instance"):
            entry(name)


def test_state_root_when_variables_are_set_then_the_documented_order_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setenv("TRIPGATE_STATE", "/own")
    assert instance.state_root() == Path("/own")
    assert instance.state_folder("a") == Path("/own/a")
    monkeypatch.setenv("TRIPGATE_STATE", "")
    assert instance.state_root() == Path("/xdg/tripgate")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert instance.state_root() == tmp_path / ".local/state/tripgate"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert instance.state_root() == tmp_path / ".local/state/tripgate"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPGATE_STATE", "here")
    assert instance.state_root() == tmp_path / "here"


def test_page_folder_when_its_root_is_not_moved_then_it_is_in_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRIPGATE_SHM")
    assert instance.page_folder("a") == Path(f"/dev/shm/tripgate-{os.getuid()}-a")


def test_socket_when_the_runtime_folder_is_there_then_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run")
    assert instance.socket_path("a") == instance.state_folder("a") / "a.sock"
    monkeypatch.delenv("TRIPGATE_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert instance.socket_path("a") == Path("/run/tripgate/a.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert instance.socket_path("a") == Path("/xdg/tripgate/a/a.sock")


def test_socket_when_paths_are_too_long_then_it_falls_back_and_then_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIPGATE_STATE", "/" + "s" * 120)
    monkeypatch.setenv("TRIPGATE_SHM", "/shm")
    assert instance.socket_path("a") == instance.page_folder("a") / "a.sock"
    monkeypatch.setenv("TRIPGATE_SHM", "/" + "é" * 60)
    with pytest.raises(ConfigError, match="longer than 107 bytes: set TRIPGATE_STATE"):
        instance.socket_path("a")


def test_socket_when_the_path_has_exactly_the_bound_then_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIPGATE_STATE", "/" + "s" * (107 - len("//a/a.sock")))
    path = instance.socket_path("a")
    assert path == instance.state_folder("a") / "a.sock"
    assert len(os.fsencode(path)) == instance.SOCKET_PATH_BYTES_MAX


def test_running_when_a_live_process_holds_the_lock_then_it_is_listed_and_picked() -> None:
    start("one")
    start("two")
    (instance.state_root() / "installation").touch()
    assert instance.known_instances() == ["one", "two"]
    assert instance.running_instances() == []
    with holder("one"):
        assert instance.running_instances() == ["one"]
        assert instance.pick_instance(None) == "one"
        assert instance.pick_instance("two") == "two"
        with holder("two"), pytest.raises(NotRunningError, match=r"several .* \(one, two\)"):
            instance.pick_instance(None)
    assert instance.running_instances() == []


def test_running_when_the_page_is_not_there_then_it_does_not_count() -> None:
    instance.prepare_state("one")
    with instance.InstanceLock("one"):
        assert not instance.is_running("one")
        instance.page_folder("one").mkdir(parents=True)
        assert instance.is_running("one")


def test_pick_when_nothing_runs_then_the_stopped_ones_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotRunningError, match=r"`tripgate paper`$") as caught:
        instance.pick_instance(None)
    assert caught.value.exit_code == 3
    start("old")
    with pytest.raises(NotRunningError, match="stopped: old"):
        instance.pick_instance(None)
    with pytest.raises(NotRunningError, match=r"no instance 'new' \(known: old\)"):
        instance.pick_instance("new")
    monkeypatch.setenv("TRIPGATE_INSTANCE", "old")
    assert instance.pick_instance(None) == "old"
    monkeypatch.setenv("TRIPGATE_INSTANCE", "Old")
    with pytest.raises(UsageError):
        instance.pick_instance(None)


def test_pick_when_only_the_page_is_left_then_the_name_still_works() -> None:
    instance.page_folder("orphan").mkdir(parents=True)
    assert instance.pick_instance("orphan") == "orphan"


def test_fresh_name_when_names_are_taken_then_the_first_free_one_is_reserved() -> None:
    assert instance.fresh_instance_name() == "paper-1"
    assert instance.fresh_instance_name() == "paper-2"
    instance.page_folder("paper-3").mkdir(parents=True)
    assert instance.fresh_instance_name() == "paper-4"
    assert stat.S_IMODE(instance.state_folder("paper-4").stat().st_mode) == 0o700


def test_fresh_name_when_many_ask_at_once_then_each_gets_its_own() -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.append(instance.fresh_instance_name()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"paper-{number}" for number in range(1, 9)]


def test_fresh_name_when_all_are_taken_then_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "FRESH_NAMES_MAX", 1)
    instance.fresh_instance_name()
    with pytest.raises(StateUnwritableError, match="remove old ones"):
        instance.fresh_instance_name()


def test_state_when_prepared_then_its_folders_are_private_and_nothing_is_left_over() -> None:
    folder = instance.state_folder("a")
    folder.mkdir(parents=True, mode=0o755)
    assert instance.prepare_state("a") == folder
    assert sorted(path.name for path in folder.iterdir()) == ["audit", "heads", "logs"]
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert instance.prepare_state("a") == folder


def test_state_when_a_file_stands_in_the_way_then_it_says_so() -> None:
    instance.state_root().rmdir()
    instance.state_root().touch()
    for attempt in (instance.prepare_state, lambda name: instance.fresh_instance_name()):
        with pytest.raises(StateUnwritableError, match="a file stands where a folder") as caught:
            attempt("a")
        assert caught.value.exit_code == 7


def test_state_when_the_disk_takes_no_more_bytes_then_the_probe_finds_it() -> None:
    # A file size limit is the one full disk that needs no privilege; a child has it, not we.
    program = """
import sys
from tripgate.instance import prepare_state
try:
    prepare_state("a")
except Exception as error:
    print(type(error).__name__, error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert result.stdout.startswith("StateUnwritableError cannot write ")
    assert "file size limit" in result.stdout
    assert sorted(path.name for path in instance.state_folder("a").iterdir()) == [
        "audit",
        "heads",
        "logs",
    ]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EROFS, "the disk is read-only: mount it writable"),
        (errno.EACCES, "permission is denied: change its owner"),
        (errno.EIO, "Input/output error: check the disk"),
    ],
)
def test_state_when_the_flush_fails_then_the_reason_and_the_way_out_are_told(
    monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    # A mock, because a disk that is full, read-only or broken needs privileges to make.
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateUnwritableError, match=re.escape(advice)):
        instance.prepare_state("a")
    assert not list(instance.state_folder("a").glob("probe*"))
    with pytest.raises(StateUnwritableError, match=re.escape(advice)):
        instance.next_epoch(instance.state_folder("a"))
    assert not (instance.state_folder("a") / "epoch").exists()


def test_state_root_when_there_is_no_home_then_a_variable_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A mock, because this account has a home in the system's user table.
    def fail() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.delenv("TRIPGATE_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(ConfigError, match="set TRIPGATE_STATE"):
        instance.state_root()


def test_known_instances_when_the_state_root_is_not_there_then_there_are_none() -> None:
    instance.state_root().rmdir()
    assert instance.known_instances() == []


def test_fresh_name_when_the_folder_cannot_be_made_then_the_disk_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A mock, because a read-only disk needs privileges to make.
    def fail(path: Path, mode: int = 0, parents: bool = False, exist_ok: bool = False) -> None:
        if not exist_ok:
            raise OSError(errno.EROFS, "")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StateUnwritableError, match="read-only"):
        instance.fresh_instance_name()


@pytest.mark.parametrize("method", ["chmod", "unlink"])
def test_state_when_a_step_is_not_permitted_then_the_owner_is_to_be_changed(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # A mock, because another user's folder needs privileges to make.
    def fail(*arguments: object) -> None:
        raise OSError(errno.EPERM, "")

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, fail)
        with pytest.raises(StateUnwritableError, match="belongs to another user"):
            instance.prepare_state("a")


def test_lock_when_another_process_holds_it_then_its_process_is_named() -> None:
    with (
        holder("a") as process,
        pytest.raises(AlreadyRunningError, match=rf"'a' .*\(process {process.pid}\)") as caught,
    ):
        instance.InstanceLock("a").__enter__()
    assert caught.value.exit_code == 6


def test_lock_when_its_holder_is_killed_then_it_is_free_at_once() -> None:
    with holder("a") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with instance.InstanceLock("a"):
            assert (instance.state_folder("a") / "lock").read_text() == f"{os.getpid()}\n"
