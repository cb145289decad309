"""What goes wrong when a log is written, in words that say what to do."""

import errno
import sqlite3
from pathlib import Path

from tripgate.errors import StateUnwritableError, TripgateError

_REASONS: dict[object, str] = {
    "SQLITE_FULL": "the disk is full: free some space",
    "SQLITE_READONLY": "the file is read-only: mount it writable or change its owner",
    "SQLITE_CANTOPEN": "the file cannot be opened: check the folder and its owner",
    "SQLITE_BUSY": "another program holds it locked: end that program's write transaction",
    "SQLITE_IOERR_FSYNC": "the disk did not confirm a write: check the disk",
    "SQLITE_IOERR_WRITE": "the disk failed or a file size limit is reached: check both",
    "SQLITE_CORRUPT": "the file is damaged: run `tripgate audit verify`",
    "SQLITE_NOTADB": "the file is damaged: run `tripgate audit verify`",
    errno.EIO: "the disk did not confirm a write: check the disk",
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f)",
    errno.EROFS: "the disk is read-only: mount it writable",
    errno.EACCES: "permission is denied: change the owner of the folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EEXIST: "a file stands where a folder is needed: move it away",
}


class AuditUnwritableError(StateUnwritableError):
    """The log cannot be written. Gate effect: the audit lease lapses, openings stop."""


class ProducerGapError(TripgateError):
    """A record is missing between the log and a ring. Gate effect: the audit lease lapses.

    Nothing of the call was stored. Either the ring is damaged or a bug skipped a record; rows of
    other producers can still be appended.

    Attributes
    ----------
    producer
        Slot of the ring.
    """

    def __init__(self, producer: int, message: str) -> None:
        super().__init__(message)
        self.producer = producer


def unwritable(path: Path, error: sqlite3.Error | OSError) -> AuditUnwritableError:
    """Return the error that says of a refused write what it was and what to do about it."""
    key = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorname", None)
    reason = _REASONS.get(key, f"{error}: check the disk")
    return AuditUnwritableError(f"cannot write {path}: {reason}")
