"""Whether SQLite here can do what the audit log asks of it: tried, not looked up.

A library can be new enough and yet be compiled without what is needed, and a file system can refuse
what the library offers (a write-ahead log needs shared memory). So the trial does on a file of its
own what the log does: a strict table, triggers that refuse, a reader beside the writer, full sync.
"""

import sqlite3
import tempfile
from pathlib import Path

SYNCHRONOUS_FULL = 2
FORBIDDEN_OPTIONS = ("OMIT_WAL", "OMIT_TRIGGER", "OMIT_INTEGRITY_CHECK", "THREADSAFE=0")


def sqlite_version() -> str:
    """Return the version of the SQLite library that is in use."""
    return sqlite3.sqlite_version


def try_sqlite(place: Path) -> list[str]:
    """Return what SQLite cannot do in a folder, one line each; empty if it is fit.

    Parameters
    ----------
    place
        An existing folder; a folder made in it for the trial is removed again.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="tripgate-doctor-", dir=place) as name:
        path = Path(name) / "trial.db"
        try:
            connection = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            return [f"no file can be opened ({error})"]
        try:
            return _problems(connection, path)
        except sqlite3.Error as error:
            return [str(error)]
        finally:
            connection.close()


def _problems(connection: sqlite3.Connection, path: Path) -> list[str]:
    found = [text for (text,) in connection.execute("PRAGMA compile_options")]
    problems = [f"it is compiled with {text}" for text in found if text in FORBIDDEN_OPTIONS]
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        problems.append("it keeps no write-ahead log there: the file system has no shared memory")
    connection.execute("PRAGMA synchronous=FULL")
    (level,) = connection.execute("PRAGMA synchronous").fetchone()
    if level != SYNCHRONOUS_FULL:
        problems.append("it does not wait for the disk (synchronous=FULL is ignored)")
    connection.execute("CREATE TABLE trial (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")
    connection.execute(
        "CREATE TRIGGER no_update BEFORE UPDATE ON trial BEGIN SELECT raise(ABORT, 'no'); END"
    )
    connection.execute("INSERT INTO trial VALUES (1, x'00')")
    if not _refuses(connection, "UPDATE trial SET body = x'01'"):
        problems.append("a trigger does not stop a change")
    if not _refuses(connection, "INSERT INTO trial VALUES (2, 'text')"):
        problems.append("a strict table takes a value of another type")
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        if reader.execute("SELECT count(*) FROM trial").fetchone() != (1,):
            problems.append("a reader beside the writer does not see its rows")
    finally:
        reader.close()
    return problems


def _refuses(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        connection.execute(sql)
    except sqlite3.IntegrityError:
        return True
    return False
