"""The tables of a log file, made with sqlite-utils and known by heart.

A file holds ``log`` (the rows), ``meta`` (one row: format version and where the file before it
ended) and ``probe`` (one row that is rewritten to prove the disk writable). Triggers refuse to
change or delete rows and to insert any but the next one. They stop accidents and careless tools,
not an attacker, who can drop them: so the text of the whole schema is compared with what stands
here, by every writer that opens a file and by the verifier.

Invariants: M1 a file appears under its name complete (made beside it, then renamed); M2 what
``create_file`` makes is exactly ``EXPECTED_SCHEMA``, whatever version of sqlite-utils made it.
"""

import os
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.chain import HASH_BYTES
from tripgate.errors import MissingPartError

SCHEMA_VERSION = 1

LOG_COLUMNS = (
    "seq", "epoch", "producer", "producer_seq", "utc_ns", "host_ns", "market_ms", "kind", "token",
    "body", "hash",
)  # fmt: skip

_NO_CHANGE = """CREATE TRIGGER {table}_no_{name} BEFORE {verb} ON {table} BEGIN
SELECT raise(ABORT, 'the audit log is append-only'); END"""

# coalesce is outside max: the first row of a file follows the last row of the file before it.
_NEXT_ONLY = """CREATE TRIGGER log_next_only BEFORE INSERT ON log
WHEN NEW.seq IS NOT
coalesce((SELECT max(seq) FROM log), (SELECT previous_seq FROM meta)) + 1 BEGIN
SELECT raise(ABORT, 'only the next row can be inserted'); END"""

# INSERT OR REPLACE would delete the older of two rows with the same producer sequence, without
# firing a delete trigger on connections that keep SQLite's default of recursive_triggers off.
_NO_DOUBLE = """CREATE TRIGGER log_no_double BEFORE INSERT ON log
WHEN EXISTS (SELECT 1 FROM log WHERE epoch = NEW.epoch AND producer = NEW.producer
AND producer_seq = NEW.producer_seq) BEGIN
SELECT raise(ABORT, 'this record is already in the log'); END"""

_ONE_META = """CREATE TRIGGER meta_one_row BEFORE INSERT ON meta
WHEN EXISTS (SELECT 1 FROM meta) BEGIN
SELECT raise(ABORT, 'the audit log is append-only'); END"""

TRIGGERS = (
    _NO_CHANGE.format(table="log", name="update", verb="UPDATE"),
    _NO_CHANGE.format(table="log", name="delete", verb="DELETE"),
    _NEXT_ONLY,
    _NO_DOUBLE,
    _NO_CHANGE.format(table="meta", name="update", verb="UPDATE"),
    _NO_CHANGE.format(table="meta", name="delete", verb="DELETE"),
    _ONE_META,
)

_TABLES = (
    """CREATE TABLE log (seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
    producer INTEGER NOT NULL, producer_seq INTEGER NOT NULL, utc_ns INTEGER NOT NULL,
    host_ns INTEGER NOT NULL, market_ms INTEGER NOT NULL, kind INTEGER NOT NULL, token INTEGER,
    body BLOB NOT NULL, hash BLOB NOT NULL) STRICT""",
    """CREATE UNIQUE INDEX log_producer ON log (epoch, producer, producer_seq)""",
    """CREATE TABLE meta (id INTEGER PRIMARY KEY, schema_version INTEGER NOT NULL,
    previous_seq INTEGER NOT NULL, previous_hash BLOB NOT NULL, previous_file TEXT) STRICT""",
    """CREATE TABLE probe (id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL) STRICT""",
)


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a file joins the chain.

    Attributes
    ----------
    previous_sequence, previous_hash
        Last row before this file and its hash; 0 and ``GENESIS`` for the first file.
    previous_file
        Name of the file that holds that row, or None.
    """

    previous_sequence: int
    previous_hash: bytes
    previous_file: str | None


def normalised(sql: str) -> str:
    """Return a statement without quoting marks and with single spaces, for comparison."""
    bare = re.sub(r'["\[\]]', "", sql)
    return re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", bare)).strip()


EXPECTED_SCHEMA = frozenset(normalised(sql) for sql in (*_TABLES, *TRIGGERS))


def schema_problems(connection: sqlite3.Connection) -> list[str]:
    """Return one line per difference between a file's schema and the one expected.

    Raises
    ------
    sqlite3.Error
        The schema cannot be read at all.
    """
    found = {
        normalised(str(sql)): f"{kind} {name}"
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema")
    }
    missing = sorted(EXPECTED_SCHEMA - found.keys())
    foreign = sorted(found.keys() - EXPECTED_SCHEMA)
    return [f"the schema lacks: {sql[:70]}" for sql in missing] + [
        f"the schema has something foreign or changed: {found[sql]}" for sql in foreign
    ]


def read_meta(connection: sqlite3.Connection) -> Meta | None:
    """Return a file's ``meta`` row, or None if it is not as this version writes it.

    Raises
    ------
    sqlite3.Error
        The table cannot be read at all.
    """
    found = connection.execute(
        "SELECT schema_version, previous_seq, previous_hash, previous_file FROM meta LIMIT 2"
    ).fetchall()
    if len(found) != 1:
        return None
    version, sequence, digest, name = found[0]
    if version != SCHEMA_VERSION or not isinstance(sequence, int) or sequence < 0:
        return None
    if not isinstance(digest, bytes) or len(digest) != HASH_BYTES:
        return None
    if name is not None and not isinstance(name, str):
        return None
    return Meta(sequence, digest, name)


def create_file(path: Path, meta: Meta) -> None:
    """Make an empty log file at ``path``, durably: after a crash it is there whole or not at all.

    Raises
    ------
    sqlite3.Error, OSError
        The folder cannot be written.
    MissingPartError
        The installed sqlite-utils makes other tables than this version expects.
    """
    temporary = path.with_name(f"{path.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    # SQLite would make the file readable by whoever the umask lets; the log is its owner's alone.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        _create_tables(connection)
        _create_triggers(connection, meta)
        problems = schema_problems(connection)
        # Under its own name the file must never need a rollback: after a power cut readers, which
        # cannot write, could not open it, and the writer asks them first where the chain stands.
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
    if problems:
        raise MissingPartError(
            "the installed sqlite-utils makes other tables than this version of tripgate needs "
            f"({problems[0]}): install the version that tripgate names"
        )
    # What lies beside a file of that name belongs to its predecessor without rows, if to any.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(temporary, path)
    sync_folder(path.parent)


def _create_tables(connection: sqlite3.Connection) -> None:
    # Imported here alone: it is slow to import and only needed once a month.
    import sqlite_utils

    database = sqlite_utils.Database(connection)
    log_types = {name: bytes if name in {"body", "hash"} else int for name in LOG_COLUMNS}
    database.table("log").create(
        log_types, pk="seq", not_null=_all_but(LOG_COLUMNS, {"seq", "token"}), strict=True
    )
    database.table("log").create_index(
        ["epoch", "producer", "producer_seq"], index_name="log_producer", unique=True
    )
    meta_types = {
        "id": int,
        "schema_version": int,
        "previous_seq": int,
        "previous_hash": bytes,
        "previous_file": str,
    }
    database.table("meta").create(
        meta_types, pk="id", not_null=_all_but(meta_types, {"id", "previous_file"}), strict=True
    )
    database.table("probe").create(
        {"id": int, "utc_ns": int}, pk="id", not_null={"utc_ns"}, strict=True
    )


def _all_but(names: Iterable[str], nullable: set[str]) -> set[str]:
    return set(names) - nullable


def _create_triggers(connection: sqlite3.Connection, meta: Meta) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO meta VALUES (1, ?, ?, ?, ?)",
        (SCHEMA_VERSION, meta.previous_sequence, meta.previous_hash, meta.previous_file),
    )
    for sql in TRIGGERS:
        connection.execute(sql)
    connection.execute("COMMIT")


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
