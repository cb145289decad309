"""Files that must survive: durable writes, private folders, locks.

A write counts when it was flushed to the disk, renamed into place and its folder flushed. Every
failure becomes ``StateUnwritableError`` with what to do; the caller closes or never opens the gate.
Locks are ``flock``: the kernel drops them with their holder.

Invariants: D1 after a crash a file holds its old or its new content, whole; D2 folders and files
made here are readable by their owner alone.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path

from tripgate import clock
from tripgate.errors import StateUnwritableError

# Not through a link: in a shared folder another user could have laid one.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

LOCK_TRIES = 25
LOCK_PAUSE_S = 0.02
"""Another command's look at a lock holds it for microseconds; a start must not fail for that."""


def unwritable(path: Path, error: OSError) -> StateUnwritableError:
    """Return the error for a file or folder that could not be written, with what to do."""
    elsewhere = "or choose another folder (TRIPGATE_STATE moves the state)"
    advice = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EFBIG: "the file size limit is reached: raise it (ulimit -f)",
        errno.EROFS: f"the disk is read-only: mount it writable, {elsewhere}",
        errno.EACCES: f"permission is denied: change its owner, {elsewhere}",
        errno.EPERM: f"it belongs to another user: change its owner, {elsewhere}",
        errno.ENOTDIR: "a file stands where a folder is needed: move it away",
        errno.EEXIST: "a file stands where a folder is needed: move it away",
    }
    reason = advice.get(error.errno or 0, f"{error.strerror}: check the disk")
    return StateUnwritableError(f"cannot write {path}: {reason}")


def lock_is_held(path: Path) -> bool:
    """Return whether a live process holds the lock of a file. A missing file is not held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_folder(folder: Path) -> None:
    """Make a folder (0700) and its parents (as the umask says), if not there, durably."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in made:
            sync_folder(place.parent)
    except OSError as error:
        raise unwritable(folder, error) from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file (0600) so that after a crash its old or its new content stands, whole.

    Parameters
    ----------
    replace
        False leaves a file that is there already, also one made at the same time by another.

    Raises
    ------
    StateUnwritableError
        The disk is full or read-only, or permission is denied.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.new-", dir=path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    temporary = Path(name)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            os.replace(temporary, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from None


class FileLock:
    """An exclusive lock on a file, which holds its owner's process id for people to read.

    Parameters
    ----------
    is_removed
        The file is removed on release (for places that nobody tidies).
    """

    def __init__(self, path: Path, *, is_removed: bool) -> None:
        self.path = path
        self.is_removed = is_removed
        self.owner = ""
        self._descriptor = -1

    def acquire(self) -> bool:
        """Return whether the lock was taken; if not, ``owner`` names who has it, if known."""
        for attempt in range(LOCK_TRIES):
            if attempt:
                clock.sleep_s(LOCK_PAUSE_S)
            try:
                descriptor = os.open(self.path, _LOCK_FLAGS, mode=0o600)
            except OSError as error:
                raise unwritable(self.path, error) from None
            if self._take(descriptor):
                self._descriptor = descriptor
                return True
            os.close(descriptor)
        return False

    def _take(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 16, 0).decode("ascii", "replace").strip()
            self.owner = text if text.isdigit() else ""
            return False
        # The former owner may have removed the file between our opening and our locking it.
        try:
            if os.stat(self.path).st_ino != os.fstat(descriptor).st_ino:
                return False
        except FileNotFoundError:
            return False
        # The process id only helps people, so a full disk must not keep the lock from being taken.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor < 0:
            return
        if self.is_removed:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1
