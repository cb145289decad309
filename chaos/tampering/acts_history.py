"""Changes of history: files exchanged, chains forged, copies put back; and what is no tampering."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

from chaos.tampering.acts_tables import acknowledged_row, extent, unguarded
from chaos.tampering.ground import Log, make_rows, wal_of
from chaos.tampering.kinds import Demand, Kind, Scene
from tripgate.audit.chain import next_hash
from tripgate.audit.record import canonical_fields
from tripgate.errors import AlreadyRunningError, InvariantBroken


def _replace_file(log: Log, other: Log, name: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        (log.audit / f"{name}{suffix}").unlink(missing_ok=True)
        if (kept := other.audit / f"{name}{suffix}").exists():
            shutil.copy(kept, log.audit / kept.name)


def _older_file(scene: Scene) -> None:
    _replace_file(scene.log, scene.originals.older, scene.log.files[-1].name)


def _older_everything(scene: Scene) -> None:
    shutil.rmtree(scene.log.state)
    shutil.copytree(scene.originals.older.state, scene.log.state)


def _missing_file(scene: Scene) -> None:
    path = scene.draw.choice(scene.log.files)
    path.unlink()
    wal_of(path).unlink(missing_ok=True)


def _exchanged_files(scene: Scene) -> None:
    one, other = scene.draw.sample(scene.log.files, 2)
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _renamed_file(scene: Scene) -> None:
    path = scene.draw.choice(scene.log.files)
    path.rename(path.with_name("audit-1999-01.db"))


def _doubled_file(scene: Scene) -> None:
    newest = scene.log.files[-1]
    shutil.copy(newest, newest.with_name("audit-2262-12.db"))


def _foreign_file(scene: Scene) -> None:
    """Lay a file beside the log whose name means no month that there can be."""
    newest = scene.log.files[-1]
    name = scene.draw.choice(("audit-9999-12.db", "audit-0000-01.db", "audit-2026-13.db"))
    shutil.copy(newest, newest.with_name(name))


def _moved_row(scene: Scene) -> None:
    """Take a row out of the file before the newest and put it behind the newest's last."""
    *_, old, new = scene.log.files
    with unguarded(old) as connection:
        row = acknowledged_row(scene, old, connection)
        sql = "SELECT * FROM log WHERE seq = :row"
        values = connection.execute(sql, {"row": row}).fetchone()
        connection.execute("DELETE FROM log WHERE seq = :row", {"row": row})
    with unguarded(new) as connection:
        _, last = extent(connection)
        _insert(connection, (last + 1, *values[1:]))


def _insert(connection: sqlite3.Connection, values: tuple[object, ...]) -> None:
    connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def _forge(scene: Scene) -> tuple[Path, dict[int, bytes]]:
    """Change a row of the newest file and chain all after it anew; return the new hashes."""
    path = scene.log.files[-1]
    with unguarded(path) as connection:
        row = acknowledged_row(scene, path, connection)
        connection.execute("UPDATE log SET kind = kind + 1 WHERE seq = :row", {"row": row})
        sql = "SELECT hash FROM log WHERE seq = :row"
        (digest,) = connection.execute(sql, {"row": row - 1}).fetchone()
        hashes: dict[int, bytes] = {}
        sql = "SELECT * FROM log WHERE seq >= :row ORDER BY seq"
        for values in connection.execute(sql, {"row": row}).fetchall():
            digest = next_hash(digest, canonical_fields(*values[:-1]))
            hashes[values[0]] = digest
        connection.executemany(
            "UPDATE log SET hash = :hash WHERE seq = :row",
            [{"row": number, "hash": digest} for number, digest in hashes.items()],
        )
    return path, hashes


def _forged_chain(scene: Scene) -> None:
    _forge(scene)


def _forged_chain_and_heads(scene: Scene) -> None:
    _, hashes = _forge(scene)
    lines = []
    for line in scene.log.heads_file.read_bytes().splitlines():
        content = json.loads(line)
        if content["sequence"] in hashes:
            content["head"] = hashes[content["sequence"]].hex()
        lines.append(json.dumps(content, separators=(",", ":")).encode() + b"\n")
    scene.log.heads_file.write_bytes(b"".join(lines))


def _forged_end(scene: Scene) -> None:
    """Cut off the tail together with the heads that name it."""
    path = scene.log.files[-1]
    with unguarded(path) as connection:
        row = acknowledged_row(scene, path, connection)
        connection.execute("DELETE FROM log WHERE seq >= :row", {"row": row})
    kept = [
        line
        for line in scene.log.heads_file.read_bytes().splitlines(keepends=True)
        if json.loads(line)["sequence"] < row
    ]
    scene.log.heads_file.write_bytes(b"".join(kept))


def _hot_copy_without_wal(scene: Scene) -> None:
    for path in scene.log.files:
        wal_of(path).unlink(missing_ok=True)


def _foreign_marker(scene: Scene) -> None:
    """Retire a file that never was: a marker far ahead of its rows."""
    content = json.loads(scene.log.marker.read_bytes())
    content["sequence"] += scene.draw.choice((-1, 1))
    scene.log.marker.write_text(json.dumps(content))


def _marker_without_reason(scene: Scene) -> None:
    newest = scene.log.files[-1]
    shutil.copy(scene.log.marker, newest.with_name(f"{newest.name}.retired"))


def _clock_set_back(scene: Scene) -> None:
    """Let the writer store rows whose stamps run backwards: strange, and true."""
    rows = make_rows(30, first=1, epoch=9, producer=0, utc_ns=10**18)
    stamps = [row.utc_ns for row in reversed(rows)]
    with scene.log.writer() as writer:
        writer.append([replace(row, utc_ns=stamp) for row, stamp in zip(rows, stamps, strict=True)])


def _two_writers(scene: Scene) -> None:
    """Start a second writer beside the first: it must be refused."""
    with scene.log.writer():
        try:
            scene.log.writer()
        except AlreadyRunningError:
            return
    raise InvariantBroken("two writers have written one log at the same time")


KINDS = (
    Kind("file replaced by an older copy", Demand.FOUND, _older_file),
    Kind("all put back to an older copy", Demand.OUTSIDE, _older_everything),
    Kind("file missing", Demand.FOUND, _missing_file),
    Kind("files exchanged", Demand.FOUND, _exchanged_files),
    Kind("file under another month", Demand.FOUND, _renamed_file),
    Kind("file doubled as a later month", Demand.FOUND, _doubled_file),
    Kind("file of an impossible month", Demand.HARMLESS, _foreign_file),
    Kind("row moved to another file", Demand.FOUND, _moved_row),
    Kind("chain forged from a row on", Demand.FOUND, _forged_chain),
    Kind("chain and heads forged", Demand.OUTSIDE, _forged_chain_and_heads),
    Kind("tail cut off with its heads", Demand.OUTSIDE, _forged_end),
    Kind("hot copy without -wal", Demand.FOUND, _hot_copy_without_wal, True),
    Kind("marker changed", Demand.FOUND, _foreign_marker),
    Kind("marker on a sound file", Demand.FOUND, _marker_without_reason),
    Kind("clock set back inside rows", Demand.HARMLESS, _clock_set_back),
    Kind("two writers", Demand.HARMLESS, _two_writers),
)
