"""What the audit log is measured beside: the disk alone, and SQLite without chain and triggers.

The same rows, the same batches, the same folder, in the same run: what the log costs beyond these
is the price of the chain, of the triggers and of Python around them.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import sqlite_utils

from benchmarks.measure import no_collection
from tripgate.audit.schema import LOG_COLUMNS
from tripgate.clock import NS_PER_S, host_ns

BLOCK_BYTES = 4_096

Values = tuple[object, ...]


def append_and_sync(folder: Path, count: int) -> list[int]:
    """Return ns of each of ``count`` appended blocks with its fdatasync."""
    path, block, took = folder / "block", b"x" * BLOCK_BYTES, []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(count):
            began = host_ns()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            took.append(host_ns() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return took


def plain_rows_per_s(folder: Path, batches: Sequence[list[Values]]) -> float:
    """Return rows per second of bare prepared inserts, write-ahead mode, synchronous=FULL."""
    path = folder / "plain.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"CREATE TABLE log ({', '.join(LOG_COLUMNS)})")
        marks = ", ".join("?" * len(LOG_COLUMNS))
        with no_collection():
            began = host_ns()
            for batch in batches:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(f"INSERT INTO log VALUES ({marks})", batch)  # noqa: S608
                connection.execute("COMMIT")
            took = host_ns() - began
    finally:
        connection.close()
        _remove(path)
    return sum(map(len, batches)) * NS_PER_S / took


def sqlite_utils_rows_per_s(folder: Path, batches: Sequence[list[Values]]) -> float:
    """Return rows per second of sqlite-utils' ``insert_all``, write-ahead mode, FULL."""
    path = folder / "utils.db"
    database = sqlite_utils.Database(path)
    try:
        database.enable_wal()
        database.execute("PRAGMA synchronous=FULL")
        names = dict.fromkeys(LOG_COLUMNS, int) | {"body": bytes, "hash": bytes}
        database.table("log").create(names, pk="seq")
        began = host_ns()
        for batch in batches:
            rows = (dict(zip(LOG_COLUMNS, values, strict=True)) for values in batch)
            database.table("log").insert_all(rows, batch_size=len(batch))
        took = host_ns() - began
    finally:
        database.close()
        _remove(path)
    return sum(map(len, batches)) * NS_PER_S / took


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
