"""One log file, open for writing: SQLite's settings, the transaction, and proof that it is ours.

Invariants: F1 ``commit`` returns only after the fsync of its transaction; F2 it also fails if the
file is no longer the one that its name leads to (SQLite itself goes on writing into a file that was
renamed or deleted, where nobody would find the rows).
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tripgate import clock

BUSY_TIMEOUT_MS = 2_000
WAL_BYTES_MAX = 64 * 2**20
"""Size that the write-ahead log is cut back to; between two merges it can be larger."""

_INSERT = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_SETTINGS: tuple[str, ...] = (
    "synchronous=FULL",
    "recursive_triggers=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    f"journal_size_limit={WAL_BYTES_MAX}",
)


class LogFile:
    """A log file that exists already, open for writing.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    sqlite3.Error, OSError
        It cannot be opened for writing, or the file system cannot share memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / clock.MS_PER_S,
        )
        try:
            (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise OSError(errno.ENOTSUP, "the file system has no shared memory")
            for setting in _SETTINGS:
                self._connection.execute(f"PRAGMA {setting}")
            self._identity = self._identify()
        except (sqlite3.Error, OSError):
            self.close()
            raise

    def commit(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows, their values in the order of the table's columns; durable when this returns.

        Raises
        ------
        sqlite3.Error, OSError
            It is not known what reached the disk: the file must not be written again.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, rows)
        self._connection.execute("COMMIT")
        self._require_in_place()

    def probe(self) -> None:
        """Commit a small change outside the chain. Raises like ``commit``."""
        self._connection.execute(
            "INSERT INTO probe VALUES (1, ?)"
            " ON CONFLICT (id) DO UPDATE SET utc_ns = excluded.utc_ns",
            (clock.utc_ns(),),
        )
        self._require_in_place()

    def close(self) -> None:
        """Close the file; an open transaction is undone. Closing twice is allowed."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _identify(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def _require_in_place(self) -> None:
        if self._identify() != self._identity:
            raise OSError(errno.ESTALE, "another file took its place while it was written")
