"""Disks that are full or read-only: what was acknowledged stays, and the writer says what to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.audit_logs import CHILD_BOUND_S, ROOT, Folders, make_log, make_rows, run_child
from tripgate.audit.store import AuditUnwritableError

FULL_DISK = """
import resource
from pathlib import Path
from tests.unit.audit_logs import Folders, make_rows
from tripgate.audit.store import AuditUnwritableError
folders, first = Folders(Path(sys.argv[1])), 1
writer = folders.writer()
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
for first in range(1, 100_000, 100):
    try:
        writer.append(make_rows(100, first=first))
    except AuditUnwritableError as error:
        print(f"failed {error}")
        break
    print(first + 99)
for use in (lambda: writer.append([]), writer.probe, lambda: writer.checkpoint(None, 1, 1)):
    try:
        use()
    except AuditUnwritableError as error:
        print(f"refused {error}")
"""

FULL_FILE_SYSTEM = """
import subprocess
from pathlib import Path
from tests.unit.audit_logs import Folders, make_rows
from tripgate.audit.store import AuditUnwritableError
folders, acknowledged = Folders(Path(sys.argv[1]) / "state"), 0
writer = folders.writer()
first_name = writer.path.name
filler = open(Path(sys.argv[1]) / "filler", "wb", buffering=0)
for first in range(1, 100_000, 100):
    try:
        acknowledged = writer.append(make_rows(100, first=first))
    except AuditUnwritableError as error:
        print(error)
        break
try:
    while filler.write(bytes(4096)):
        pass
except OSError:
    pass
try:
    folders.writer()
except AuditUnwritableError as error:
    print(error)
print(folders.verify().problems, folders.verify().rows == acknowledged)
filler.truncate(0)
subprocess.run(["mount", "-o", "remount,size=30m", sys.argv[1]], check=True)
with folders.writer() as writer:
    print(writer.path.name == first_name.replace(".db", ".1.db"))
    writer.append(make_rows(acknowledged + 100))
print(folders.verify().problems, folders.verify().rows == acknowledged + 100)
"""

READ_ONLY = """
import os
from pathlib import Path
from tests.unit.audit_logs import Folders
from tripgate.audit.store import AuditUnwritableError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
folders = Folders(Path(sys.argv[1]))
try:
    folders.writer()
except AuditUnwritableError as error:
    print(f"refused {error}")
print(folders.verify())
print(len(folders.rows()))
"""


def test_append_when_the_disk_is_full_then_acknowledged_rows_stay_and_a_new_file_begins(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    child = run_child(FULL_DISK, folders.state)
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    acknowledged = int(lines[-5])
    assert lines[-4].startswith("failed cannot write")
    assert [line.split()[0] for line in lines[-3:]] == ["refused"] * 3
    assert folders.verify().problems == []
    assert folders.verify().rows == acknowledged
    first_file = folders.paths()[0]
    with folders.writer() as writer:
        assert writer.path.name == first_file.name.replace(".db", ".1.db")
        assert writer.last_sequences() == {(1, 0): acknowledged}
        assert writer.append(make_rows(acknowledged + 50)) == acknowledged + 50
    assert folders.verify().problems == []
    assert [row.sequence for row in folders.rows()] == list(range(1, acknowledged + 51))


def test_append_when_the_file_system_is_full_then_even_then_the_file_is_retired(
    tmp_path: Path,
) -> None:
    # A file system of three megabytes, in a mount namespace that ends with the process.
    script = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FULL_FILE_SYSTEM}"
    space = ["unshare", "--mount", "--user", "--map-root-user"]
    space = space[:2] if os.geteuid() == 0 else space
    if subprocess.run([*space, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]).returncode:
        pytest.skip("this kernel or container allows no mount namespaces")
    child = subprocess.run(
        [*space, "sh", "-c", script, "sh", str(tmp_path), sys.executable, code],
        capture_output=True,
        text=True,
        timeout=CHILD_BOUND_S,
    )
    assert child.returncode == 0, child.stderr
    failed, refused, *rest = child.stdout.splitlines()
    assert "the disk is full" in failed
    assert "the disk is full" in refused
    assert rest == ["[] True", "True", "[] True"]


def test_checkpoint_when_the_disk_of_the_heads_is_full_then_the_writer_ends(tmp_path: Path) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    kept = folders.heads_file.read_bytes()
    writer = folders.writer()
    assert writer._heads is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._heads._descriptor)
    os.close(full)
    with pytest.raises(AuditUnwritableError, match="the disk is full"):
        writer.checkpoint(None, 1, 1)
    with pytest.raises(AuditUnwritableError, match="construct a new LogWriter"):
        writer.append([])
    with folders.writer() as successor:
        assert successor.append(make_rows(2, epoch=2)) == 22
    assert folders.heads_file.read_bytes().startswith(kept)
    assert folders.verify().problems == []


def test_writer_when_the_disk_of_the_heads_is_full_at_the_start_then_it_does_not_begin(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    folders.heads.mkdir(parents=True)
    folders.heads_file.symlink_to("/dev/full")
    with pytest.raises(AuditUnwritableError, match="the disk is full"):
        folders.writer()
    folders.heads_file.unlink()
    with folders.writer() as writer:
        writer.append(make_rows(3))
    assert folders.verify().verified


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="tripgate-audit-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_log_when_its_folder_is_read_only_then_it_is_verified_but_not_written(
    open_folder: Path,
) -> None:
    folders = make_log(open_folder / "state", rows=40, batch=10)
    for path in [folders.state, *folders.state.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    child = run_child(READ_ONLY, folders.state)
    assert child.returncode == 0, child.stderr
    refused, verdict, count = child.stdout.splitlines()
    assert refused.startswith("refused cannot write")
    assert "verified=True" in verdict
    assert count == "40"
    assert list(folders.audit.glob("*.retired")) == []
