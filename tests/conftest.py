"""What every test gets: its own state and page folders, and a check that no process is left.

The folders lie in /dev/shm under a short name, because a Unix socket's path may hold 107 bytes
and because no test is about the disk's speed (those that are about a disk make their own).
"""

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tripgate.clock import host_ns, sleep_s

# A first call compiles kernels, so no example has a deadline; in continuous integration the
# examples are the same on each run, at home they keep exploring.
settings.register_profile("tripgate", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tripgate")

RUN_MARK = "TRIPGATE_TEST_RUN"
LEAVE_BOUND_NS = 5_000_000_000
POLL_S = 0.02
SHORT_ROOT = Path("/dev/shm")


def pytest_configure(config: pytest.Config) -> None:
    """Mark the environment of this worker, so that its processes are found wherever they hang."""
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", default=None):
        os.environ[RUN_MARK] = uuid.uuid4().hex
    # tractor's children import names that trio calls deprecated: on stderr that is only noise.
    os.environ["PYTHONWARNINGS"] = "ignore:trio.MultiError is deprecated:FutureWarning"


def left_processes() -> dict[int, str]:
    """Return pid and command of each live process that carries our mark or is our child."""
    mark = f"{RUN_MARK}={os.environ[RUN_MARK]}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except (OSError, ValueError):
            continue  # ended while we looked, or belongs to somebody else
        # multiprocessing's own helper lives as long as the process that started it.
        if "multiprocessing.resource_tracker" in command or state == "Z":
            continue
        if marked or int(parent) == os.getpid():
            found[int(folder.name)] = command.strip()
    return found


@pytest.fixture(scope="module", autouse=True)
def _no_process_left() -> Iterator[None]:
    """Fail the module that leaves a process behind, and end that process."""
    before = left_processes()
    yield
    give_up_ns = host_ns() + LEAVE_BOUND_NS
    while (left := left_processes().keys() - before.keys()) and host_ns() < give_up_ns:
        sleep_s(POLL_S)
    commands = left_processes()
    for pid in left:
        if pid in commands:
            os.kill(pid, signal.SIGKILL)
    if left:
        pytest.fail(f"processes left behind: {[commands.get(pid, pid) for pid in sorted(left)]}")


@pytest.fixture(autouse=True)
def isolated_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test its own state, page and socket folders; yield the folder that holds them."""
    root = SHORT_ROOT if os.access(SHORT_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-test-", dir=root))
    for variable, name in (
        ("TRIPGATE_STATE", "state"),
        ("TRIPGATE_SHM", "page"),
        ("XDG_RUNTIME_DIR", "run"),
    ):
        (folder / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(folder / name))
    monkeypatch.delenv("TRIPGATE_INSTANCE", raising=False)
    yield folder
    # A test may have taken the right to write away from its own folder.
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        place.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
