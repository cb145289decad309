"""Changes through SQLite: what somebody with a database tool does, triggers or not."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos.tampering.kinds import Act, Demand, Kind, Scene
from tripgate.audit.schema import TRIGGERS

Change = Callable[[sqlite3.Connection, int], object]
"""Gets a connection and the number of a row in that file."""


@contextlib.contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file as any tool does, with SQLite's usual settings."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA recursive_triggers=OFF")
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def unguarded(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file without triggers; they stand again afterwards, word by word."""
    with connected(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        for (name,) in found.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for sql in TRIGGERS:
            connection.execute(sql)


def extent(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the first and last row of a file."""
    first, last = connection.execute("SELECT min(seq), max(seq) FROM log").fetchone()
    return int(first), int(last)


def acknowledged_row(scene: Scene, path: Path, connection: sqlite3.Connection) -> int:
    """Draw a row of a file that belongs to the log (a retired file has others behind)."""
    first, last = extent(connection)
    later = [other for other in scene.log.files if other > path or ".1." in other.name]
    for other in later:
        if other == path:
            continue
        with connected(other) as beside:
            (joint,) = beside.execute("SELECT previous_seq FROM meta").fetchone()
        if first <= joint < last:
            last = int(joint)
    return scene.draw.randint(first + 1, last - 1)


def _change(change: Change) -> Act:
    def act(scene: Scene) -> None:
        path = scene.draw.choice(scene.log.files)
        with unguarded(path) as connection:
            change(connection, acknowledged_row(scene, path, connection))

    return act


def _statement(sql: str) -> Act:
    return _change(lambda connection, row: connection.execute(sql, {"row": row}))


def _refused(sql: str) -> Act:
    """Return the act of running a statement with triggers in force: they must refuse it."""

    def act(scene: Scene) -> None:
        path = scene.draw.choice(scene.log.files)
        with connected(path) as connection, contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(sql, {"row": acknowledged_row(scene, path, connection)})

    return act


def _script(sql: str) -> Act:
    def act(scene: Scene) -> None:
        with connected(scene.draw.choice(scene.log.files)) as connection:
            connection.executescript(sql)

    return act


def _loosen(old: str, new: str, sql: str) -> Act:
    """Return the act of a change that the schema forbids, under another one for a moment."""

    def act(scene: Scene) -> None:
        path = scene.draw.choice(scene.log.files)
        with unguarded(path) as connection:
            row = acknowledged_row(scene, path, connection)
            kept = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'log'").fetchone()
            _rewrite(connection, kept[0].replace(old, new))
        with connected(path) as connection:
            connection.executescript(
                "".join(f"DROP TRIGGER {name};" for name in _names(connection))
            )
            connection.execute(sql, {"row": row})
            _rewrite(connection, kept[0])
        with connected(path) as connection:
            for trigger in TRIGGERS:
                connection.execute(trigger)

    return act


def _default(scene: Scene) -> None:
    with connected(scene.draw.choice(scene.log.files)) as connection:
        sql = "SELECT sql FROM sqlite_schema WHERE name = 'log'"
        (kept,) = connection.execute(sql).fetchone()
        changed = kept.replace("INTEGER NOT NULL", "INTEGER NOT NULL DEFAULT 1", 1)
        _rewrite(connection, changed)


def _names(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
    return [str(name) for (name,) in found]


def _rewrite(connection: sqlite3.Connection, sql: str) -> None:
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = :sql WHERE name = 'log'", {"sql": sql})
    connection.execute("PRAGMA writable_schema=OFF")


def _double(connection: sqlite3.Connection, row: int) -> None:
    _, last = extent(connection)
    connection.execute(
        "INSERT INTO log SELECT :next, epoch, producer, 1000000 + producer_seq, utc_ns, host_ns, "
        "market_ms, kind, token, body, hash FROM log WHERE seq = :row",
        {"next": last + 1, "row": row},
    )


def _swap(connection: sqlite3.Connection, row: int) -> None:
    for old, new in ((row, -1), (row + 1, row), (-1, row + 1)):
        connection.execute("UPDATE log SET seq = :new WHERE seq = :old", {"new": new, "old": old})


def _close_gap(connection: sqlite3.Connection, row: int) -> None:
    """Remove a row and number those after it anew."""
    connection.execute("DELETE FROM log WHERE seq = :row", {"row": row})
    connection.execute("UPDATE log SET seq = -seq WHERE seq > :row", {"row": row})
    connection.execute("UPDATE log SET seq = -seq - 1 WHERE seq < 0")


def _drop_tail(connection: sqlite3.Connection, row: int) -> None:
    connection.execute("DELETE FROM log WHERE seq >= :row", {"row": row})


def _vacuum(scene: Scene) -> None:
    with connected(scene.draw.choice(scene.log.files)) as connection:
        connection.execute("VACUUM")


_WHERE = "WHERE seq = :row"
_REPLACE = (
    "INSERT OR REPLACE INTO log SELECT seq, epoch, producer, producer_seq, utc_ns, host_ns, "
    f"market_ms, kind + 1, token, body, hash FROM log {_WHERE}"
)
_UPDATES = {
    "kind": "kind + 1", "utc_ns": "utc_ns - 1", "host_ns": "0", "market_ms": "market_ms + 1",
    "epoch": "epoch + 1", "producer": "producer + 9", "producer_seq": "producer_seq + 100000",
    "token": "coalesce(token, 0) + 1", "body": "x'80'", "hash": "zeroblob(32)",
}  # fmt: skip

KINDS = (
    *(
        Kind(f"UPDATE of {name}", Demand.FOUND, _statement(f"UPDATE log SET {name}={new} {_WHERE}"))
        for name, new in _UPDATES.items()
    ),
    Kind("DELETE", Demand.FOUND, _statement(f"DELETE FROM log {_WHERE}")),
    Kind("DELETE of the tail", Demand.FOUND, _change(_drop_tail)),
    Kind("row removed, gap closed", Demand.FOUND, _change(_close_gap)),
    Kind("INSERT OR REPLACE", Demand.FOUND, _statement(_REPLACE)),
    Kind("rows swapped", Demand.FOUND, _change(_swap)),
    Kind("row doubled under a new number", Demand.FOUND_OR_HARMLESS, _change(_double)),
    Kind("number far away", Demand.FOUND, _statement(f"UPDATE log SET seq=1<<62 {_WHERE}")),
    Kind("joint changed", Demand.FOUND, _statement("UPDATE meta SET previous_seq=previous_seq+1")),
    Kind("joint's hash changed", Demand.FOUND,
         _statement("UPDATE meta SET previous_hash=zeroblob(32)")),
    Kind("format version changed", Demand.FOUND, _statement("UPDATE meta SET schema_version=2")),
    Kind("joint's file no text", Demand.FOUND_OR_HARMLESS,
         _statement("UPDATE meta SET previous_file=CAST(x'ff00fe' AS TEXT)")),
    Kind("NULL where none may be", Demand.FOUND,
         _loosen(" NOT NULL", "", f"UPDATE log SET epoch=NULL, body=NULL {_WHERE}")),
    Kind("text where a blob must be", Demand.FOUND,
         _loosen("STRICT", "", f"UPDATE log SET body=CAST(x'c3ff' AS TEXT) {_WHERE}")),
    Kind("number where a blob must be", Demand.FOUND,
         _loosen("STRICT", "", f"UPDATE log SET hash=1.5 {_WHERE}")),
    Kind("body of 200 kB", Demand.FOUND,
         _statement(f"UPDATE log SET body=zeroblob(200000) {_WHERE}")),
    Kind("DELETE, triggers in force", Demand.HARMLESS, _refused(f"DELETE FROM log {_WHERE}")),
    Kind("REPLACE, triggers in force", Demand.HARMLESS, _refused(_REPLACE)),
    Kind("UPDATE, triggers in force", Demand.HARMLESS, _refused(f"UPDATE log SET kind=1 {_WHERE}")),
    Kind("VACUUM", Demand.HARMLESS, _vacuum),
    Kind("column default", Demand.FOUND, _default),
    Kind("new column", Demand.FOUND, _script("ALTER TABLE log ADD COLUMN note TEXT")),
    Kind("new trigger", Demand.FOUND, _script(
        "CREATE TRIGGER quiet BEFORE INSERT ON log WHEN NEW.kind = 3 BEGIN "
        "SELECT raise(IGNORE); END")),
    Kind("trigger dropped", Demand.FOUND, _script("DROP TRIGGER log_no_delete")),
    Kind("trigger weakened", Demand.FOUND, _script(
        "DROP TRIGGER log_no_update; CREATE TRIGGER log_no_update BEFORE UPDATE ON log "
        "WHEN NEW.seq > 10 BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END")),
    Kind("index dropped", Demand.FOUND, _script("DROP INDEX log_producer")),
    Kind("view instead of the table", Demand.FOUND, _script(
        "ALTER TABLE log RENAME TO kept; CREATE VIEW log AS SELECT * FROM kept")),
    Kind("table dropped", Demand.FOUND, _script("DROP TABLE log")),
    Kind("table emptied and filled again", Demand.FOUND, _script(
        "CREATE TABLE kept AS SELECT * FROM log; DROP TABLE log; CREATE TABLE log AS "
        "SELECT * FROM kept; DROP TABLE kept")),
)  # fmt: skip
