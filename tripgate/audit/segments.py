"""The files of a log: their names, their order, how they follow each other, how they are read.

A log is a chain cut into monthly files, ``audit-YYYY-MM.db``. A file that a commit failed on is
never written again: a marker beside it (``….db.retired``) says how far it had been acknowledged,
and the next file, ``audit-YYYY-MM.N.db``, follows that row. What the retired file may hold beyond
it was never acknowledged, is still in the producers' rings, and is stored again in the new file; so
every reader stops at the row that the next file follows.

Invariants: G1 names sort in the order of the chain; G2 a reader's connection cannot write; G3 only
the writer's own connection ever checkpoints a file (a bug of older SQLite versions can corrupt a
file that two connections checkpoint).
"""

import json
import os
import re
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from tripgate import clock
from tripgate.audit.chain import HASH_BYTES
from tripgate.audit.record import BODY_BYTES_MAX
from tripgate.audit.schema import Meta, read_meta, sync_folder
from tripgate.errors import ChainBrokenError, StateUnwritableError

SEGMENTS_PER_MONTH_MAX = 999
YEAR_MIN, YEAR_MAX = 1970, 2262
"""Years that a stamp in ns since 1970 can mean; a name with another one is no log file's."""

RETIRED_SUFFIX = ".retired"
RESERVE_NAME = "retired.reserve"
RESERVE_BYTES = 2**18
RETIRED_PAIRS_MAX = 7_000
"""Producers a marker names; at 37 bytes each they fit the space set aside."""

VALUE_BYTES_MAX = 2 * BODY_BYTES_MAX
"""Longest value SQLite may hand over: a damaged length must not make a reader take gigabytes."""

UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises. SQLite's message may quote damaged text, and then the message
itself cannot be decoded."""

_NAME = re.compile(r"audit-(\d{4})-(0[1-9]|1[0-2])(?:\.([1-9]\d{0,2}))?\.db", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of a log: its month and, after failures within the month, its number (from 0)."""

    year: int
    month: int
    number: int = 0

    @property
    def name(self) -> str:
        """File name of the segment."""
        number = f".{self.number}" if self.number else ""
        return f"audit-{self.year:04}-{self.month:02}{number}.db"

    def next_in_month(self) -> "Segment":
        """Return the segment that follows in the same month.

        Raises
        ------
        StateUnwritableError
            The month has as many files as it may have.
        """
        if self.number >= SEGMENTS_PER_MONTH_MAX:
            raise StateUnwritableError(
                f"{self.name}: writing failed {SEGMENTS_PER_MONTH_MAX} times this month: "
                "replace the disk, or move the folders audit and heads aside to begin a new log"
            )
        return Segment(self.year, self.month, self.number + 1)


def segment_of(utc_ns: int) -> Segment:
    """Return the first segment of the month in which ``utc_ns`` (ns since 1970) lies, in UTC."""
    moment = datetime.fromtimestamp(utc_ns // clock.NS_PER_S, UTC)
    return Segment(moment.year, moment.month)


def month_end_ns(segment: Segment) -> int:
    """Return the first moment after the segment's month, ns since 1970."""
    year, month = divmod(segment.year * 12 + segment.month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) * clock.NS_PER_S


def parse_name(name: str) -> Segment | None:
    """Return the segment that a file name means, or None if it is no log file."""
    found = _NAME.fullmatch(name)
    if found is None or not YEAR_MIN <= int(found[1]) <= YEAR_MAX:
        return None
    return Segment(int(found[1]), int(found[2]), int(found[3] or 0))


def list_segments(folder: Path, suffix: str = "") -> list[Segment]:
    """Return the segments in a folder in the order of the chain; none if there is no folder.

    ``suffix`` lists what lies beside them instead (``RETIRED_SUFFIX``: the markers).
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (parse_name(name.removesuffix(suffix)) for name in names if name.endswith(suffix))
    return sorted(segment for segment in found if segment is not None)


@dataclass(frozen=True, slots=True)
class Retirement:
    """How far a file had been acknowledged when a commit failed on it.

    Attributes
    ----------
    sequence, head
        Last acknowledged row and its hash.
    last_sequences
        Last acknowledged producer sequence per (epoch, producer), should the file be gone.
    """

    sequence: int
    head: bytes
    last_sequences: dict[tuple[int, int], int]


def reserve_retirement(folder: Path) -> None:
    """Set aside the disk space that a marker takes, because it is needed when there is none left.

    Raises
    ------
    OSError
        The disk has no room for it.
    """
    path = folder / RESERVE_NAME
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size != RESERVE_BYTES:
            rest = memoryview(bytes(RESERVE_BYTES))
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.ftruncate(descriptor, RESERVE_BYTES)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(folder)


def write_retirement(folder: Path, segment: Segment, retirement: Retirement) -> None:
    """Write the marker durably, into the space set aside for it if there is any.

    Raises
    ------
    OSError
        It could not be written.
    """
    # Only young epochs are ever drained again; the bound keeps the text within the space.
    newest = sorted(retirement.last_sequences.items())[-RETIRED_PAIRS_MAX:]
    content = {
        "version": 1,
        "sequence": retirement.sequence,
        "head": retirement.head.hex(),
        "last_sequences": [[*pair, last] for pair, last in newest],
    }
    reserve = folder / RESERVE_NAME
    descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        text = json.dumps(content, separators=(",", ":")).encode()
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.ftruncate(descriptor, len(text))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(reserve, folder / (segment.name + RETIRED_SUFFIX))
    sync_folder(folder)


def read_retirement(folder: Path, segment: Segment) -> Retirement | None:
    """Return the marker of a segment, or None if it has none.

    Raises
    ------
    ChainBrokenError
        The marker cannot be read: how far the file had been acknowledged is not known.
    """
    path = folder / (segment.name + RETIRED_SUFFIX)
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(RESERVE_BYTES))
        retirement = Retirement(
            int(content["sequence"]),
            bytes.fromhex(content["head"]),
            {(int(e), int(p)): int(last) for e, p, last in content["last_sequences"]},
        )
        if retirement.sequence < 0 or len(retirement.head) != HASH_BYTES:
            raise ValueError("out of range")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ChainBrokenError(
            f"{path} cannot be read ({error}): restore it from a copy, or move the folders audit "
            "and heads aside together to begin a new log"
        ) from None
    return retirement


def open_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write and does not hand over absurdly long values.

    Raises
    ------
    sqlite3.Error, UnicodeDecodeError
        The file is no database, or lies in a read-only folder with a write-ahead log that has not
        been merged into it.
    """
    connection = _connect(path, "mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # SQLite needs a place for its index of the write-ahead log. Where it may not make one, a
        # file without such a log can still be read as it lies.
        if _has_content(path.with_name(f"{path.name}-wal")) or os.access(path.parent, os.W_OK):
            raise
        return _connect(path, "mode=ro&immutable=1")
    except UNREADABLE:
        connection.close()
        raise
    return connection


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    return connection


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def meta_of(folder: Path, segment: Segment) -> Meta | None:
    """Return where a segment joins the chain, or None if its file does not say."""
    try:
        connection = open_read_only(folder / segment.name)
    except UNREADABLE:
        return None
    try:
        return read_meta(connection)
    except UNREADABLE:
        return None
    finally:
        connection.close()


def last_rows(folder: Path, segments: list[Segment]) -> list[int | None]:
    """Return the last row of each segment that belongs to the log; None where nothing bounds it.

    That is the row which the next file follows, or which a retired newest file ends with.

    Raises
    ------
    ChainBrokenError
        The marker of the newest file cannot be read.
    """
    if not segments:
        return []
    metas = [meta_of(folder, segment) for segment in segments[1:]]
    marker = read_retirement(folder, segments[-1])
    bounds = [meta.previous_sequence if meta else None for meta in metas]
    return [*bounds, marker.sequence if marker else None]
