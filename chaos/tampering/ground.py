"""The log that is tampered with: made by its own writer, with everything a log can have.

Two months, a file retired after a commit that failed (with a tail that was never acknowledged),
two runs, three producers, checkpoints, more than five thousand rows; closed cleanly. From it come a
*hot* copy, taken while a writer had rows in the write-ahead log, some of them younger than the last
checkpoint; an *older* copy of everything; and the file of heads as an outside witness has it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.heads import HEADS_NAME
from tripgate.audit.record import Row, pack_body
from tripgate.audit.segments import list_segments, month_end_ns, segment_of
from tripgate.audit.store import AuditUnwritableError, LogWriter
from tripgate.errors import InvariantBroken

ROWS_PER_CALL, CALLS_PER_CHECKPOINT = 100, 2
CALLS_BEFORE_FAILURE, CALLS_IN_SECOND_FILE, CALLS_IN_NEXT_MONTH = 15, 14, 24
CALL_OF_OLDER_COPY = 12
HOT_ROWS, YOUNG_ROWS = 150, 20
EPOCH, LATER_EPOCH, HOT_EPOCH = 1, 2, 3


@dataclass(frozen=True)
class Log:
    """A state folder with the two folders of a log."""

    state: Path

    @property
    def audit(self) -> Path:
        """Where the files are."""
        return self.state / "audit"

    @property
    def heads(self) -> Path:
        """Where the heads are."""
        return self.state / "heads"

    @property
    def heads_file(self) -> Path:
        """The file of heads."""
        return self.heads / HEADS_NAME

    @property
    def files(self) -> list[Path]:
        """The log's files, oldest first."""
        return [self.audit / segment.name for segment in list_segments(self.audit)]

    @property
    def marker(self) -> Path:
        """The one retirement marker."""
        (found,) = self.audit.glob("*.retired")
        return found

    def writer(self) -> LogWriter:
        """Return a writer."""
        return LogWriter(self.audit, self.heads)

    def copy_to(self, state: Path) -> "Log":
        """Return a copy elsewhere, without SQLite's index of the write-ahead log."""
        shutil.copytree(self.state, state, ignore=shutil.ignore_patterns("*-shm"))
        return Log(state)


def wal_of(path: Path) -> Path:
    """Return the path of a file's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


@dataclass(frozen=True)
class Originals:
    """What trials start from.

    Attributes
    ----------
    closed, hot, older
        The log at rest, a copy of it while it was written, and an earlier copy of it.
    outside
        A folder with the file of heads as somebody else has it: with one head more than ``hot``.
    young_wal_bytes
        How long the hot copy's write-ahead log was up to its last checkpoint.
    """

    closed: Log
    hot: Log
    older: Log
    outside: Path
    young_wal_bytes: int


def make_rows(count: int, *, first: int, epoch: int, producer: int, utc_ns: int) -> list[Row]:
    """Return rows ``first``… of one producer; every third is about an order."""
    return [
        Row(
            epoch=epoch, producer=producer, producer_sequence=sequence, utc_ns=utc_ns + sequence,
            host_ns=10**12 + sequence, market_ms=1_700_000_000_000 + sequence, kind=sequence % 9,
            token=sequence * 7 if sequence % 3 == 0 else None,
            body=pack_body({"sequence": sequence, "text": f"{sequence}" * (sequence % 9)}),
        )
        for sequence in range(first, first + count)
    ]  # fmt: skip


class _Author:
    """Appends calls of rows of three producers in turns."""

    def __init__(self, log: Log, utc_ns: int) -> None:
        self.log, self.utc_ns, self.calls = log, utc_ns, 0
        self.writer = log.writer()
        self._next: dict[tuple[int, int], int] = {}

    def rows(self, epoch: int) -> list[Row]:
        pair = (epoch, self.calls % 3)
        first = self._next.get(pair, 1)
        self._next[pair] = first + ROWS_PER_CALL
        self.calls += 1
        return make_rows(
            ROWS_PER_CALL, first=first, epoch=epoch, producer=pair[1], utc_ns=self.utc_ns
        )

    def append(self, rows: list[Row]) -> None:
        self.writer.append(rows)
        if self.calls % CALLS_PER_CHECKPOINT == 0:
            self.writer.checkpoint({"portfolio": self.calls}, self.calls, self.utc_ns)

    def fail(self, rows: list[Row]) -> None:
        """Let a commit fail: the file is not where it was. A new writer takes the rows."""
        path = self.writer.path
        aside = path.with_name("aside")
        path.rename(aside)
        try:
            self.writer.append(rows)
        except AuditUnwritableError:
            aside.rename(path)
        else:
            raise InvariantBroken("a writer did not notice that its file was gone")
        self.writer = self.log.writer()
        self.append(rows)


def make_originals(folder: Path, utc_ns: int) -> Originals:
    """Make all originals below ``folder``; ``utc_ns`` is a moment of this month."""
    closed = Log(folder / "closed")
    author = _Author(closed, utc_ns)
    for _ in range(CALLS_BEFORE_FAILURE):
        author.append(author.rows(EPOCH))
    author.fail(author.rows(EPOCH))
    for _ in range(CALLS_IN_SECOND_FILE):
        author.append(author.rows(EPOCH))
    author.utc_ns = month_end_ns(segment_of(utc_ns))
    older = closed
    for call in range(CALLS_IN_NEXT_MONTH):
        author.append(author.rows(LATER_EPOCH))
        if call == CALL_OF_OLDER_COPY:
            author.writer.checkpoint(None, call, utc_ns)
            older = closed.copy_to(folder / "older")
    author.writer.close()
    return _heat(closed, older, folder, author.utc_ns)


def _heat(closed: Log, older: Log, folder: Path, utc_ns: int) -> Originals:
    live = closed.copy_to(folder / "live")
    with live.writer() as writer:
        rows = make_rows(HOT_ROWS + YOUNG_ROWS, first=1, epoch=HOT_EPOCH, producer=0, utc_ns=utc_ns)
        for first in range(0, HOT_ROWS, 10):
            writer.append(rows[first : first + 10])
        writer.checkpoint(None, 1, utc_ns)
        young_wal_bytes = wal_of(live.files[-1]).stat().st_size
        writer.append(rows[HOT_ROWS:])
        hot = live.copy_to(folder / "hot")
        writer.checkpoint(None, 2, utc_ns)
        outside = folder / "outside"
        shutil.copytree(live.heads, outside)
    return Originals(closed, hot, older, outside, young_wal_bytes)
