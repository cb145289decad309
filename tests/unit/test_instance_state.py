"""Ownership of an instance (locks), epochs and the installation's id."""

import os
import re
import stat
import threading
from pathlib import Path

import pytest

from tripgate import durable, instance
from tripgate.errors import AlreadyRunningError, StateUnwritableError


def test_lock_when_released_then_it_can_be_taken_again_and_shared_memory_is_clean() -> None:
    for _ in range(3):
        with instance.InstanceLock("a"), pytest.raises(AlreadyRunningError):
            instance.InstanceLock("a").__enter__()
    assert list(instance.page_folder("a").parent.iterdir()) == []


def test_lock_when_two_state_roots_have_the_name_then_one_page_has_one_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with instance.InstanceLock("a"):
        monkeypatch.setenv("TRIPGATE_STATE", str(tmp_path / "other"))
        with pytest.raises(AlreadyRunningError):
            instance.InstanceLock("a").__enter__()
        # The refused attempt must not keep the other root's lock.
        assert not durable.lock_is_held(instance.state_folder("a") / "lock")
    with instance.InstanceLock("a"):
        pass


def test_lock_when_others_look_at_it_all_the_time_then_a_start_still_succeeds() -> None:
    path = instance.prepare_state("a") / "lock"
    path.touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            durable.lock_is_held(path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with instance.InstanceLock("a"):
                pass
    finally:
        stop.set()
        thread.join()


def test_lock_when_its_file_was_removed_by_the_former_owner_then_the_stale_one_is_not_taken(
    tmp_path: Path,
) -> None:
    lock = durable.FileLock(tmp_path / "lock", is_removed=True)
    stale = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    (tmp_path / "lock").unlink()
    assert not lock._take(stale)
    (tmp_path / "lock").touch()
    assert not lock._take(stale)
    os.close(stale)
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not (tmp_path / "lock").exists()


def test_lock_when_a_link_was_laid_in_its_place_then_it_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(StateUnwritableError):
        durable.FileLock(tmp_path / "lock", is_removed=False).acquire()
    assert (tmp_path / "target").read_text() == "precious"


def test_epoch_when_raised_then_it_rises_by_one_and_is_on_disk() -> None:
    folder = instance.prepare_state("a")
    assert [instance.next_epoch(folder) for _ in range(3)] == [1, 2, 3]
    assert (folder / "epoch").read_text() == "3\n"
    assert not list(folder.glob("*.new-*"))


def test_epoch_when_the_state_folder_is_gone_then_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritableError, match="No such file or directory"):
        instance.next_epoch(tmp_path / "gone")


def test_epoch_when_the_last_one_is_used_then_there_is_none_more() -> None:
    folder = instance.prepare_state("a")
    (folder / "epoch").write_text(f"{instance.EPOCH_MAX - 1}\n")
    assert instance.next_epoch(folder) == instance.EPOCH_MAX
    with pytest.raises(StateUnwritableError, match="are used up"):
        instance.next_epoch(folder)


@pytest.mark.parametrize("content", [b"", b"-1", b"3.0", b"\xff", b"999999", b"1 2", b"\xd9\xa3"])
def test_epoch_when_its_file_is_damaged_then_none_is_handed_out(content: bytes) -> None:
    folder = instance.prepare_state("a")
    (folder / "epoch").write_bytes(content)
    with pytest.raises(StateUnwritableError, match="new instance"):
        instance.next_epoch(folder)
    assert (folder / "epoch").read_bytes() == content


def test_epoch_when_its_file_is_lost_but_a_log_exists_then_none_is_handed_out() -> None:
    folder = instance.prepare_state("a")
    (folder / "audit" / "audit-2025-01.db").touch()
    with pytest.raises(StateUnwritableError, match="is lost although a log exists"):
        instance.next_epoch(folder)


def test_installation_when_asked_twice_then_the_id_stays() -> None:
    first = instance.installation_id()
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{12}", first)
    assert instance.installation_id() == first
    path = instance.state_root() / "installation"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    assert instance.installation_id() != first


def test_installation_when_many_start_at_once_then_all_get_one_id() -> None:
    found: set[str] = set()
    threads = [
        threading.Thread(target=lambda: found.add(instance.installation_id())) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert [path.name for path in instance.state_root().iterdir()] == ["installation"]


@pytest.mark.parametrize("content", [b"", b"0123456789AB0", b"0123456789al", b"\xff" * 12])
def test_installation_when_its_file_is_damaged_then_it_is_not_replaced(content: bytes) -> None:
    instance.state_root().mkdir(parents=True, exist_ok=True)
    path = instance.state_root() / "installation"
    path.write_bytes(content)
    with pytest.raises(StateUnwritableError, match="is damaged"):
        instance.installation_id()
    assert path.read_bytes() == content
