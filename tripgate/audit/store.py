"""The one writer of the log.

``append`` returns when its rows are durable and not before: whoever publishes a watermark after it
may let the producers forget them. A commit is one transaction of a prepared statement, in SQLite's
write-ahead mode with ``synchronous=FULL`` (one fsync per commit).

After a failed commit nobody can know what reached the disk (a second fsync may report success for
pages that the first one lost), so a writer that failed is finished: it marks its file as retired at
the last acknowledged row and refuses everything. A new ``LogWriter`` begins a new file there.

Invariants: W1 a row acknowledged once is in the log once; W2 producer sequences have no gap;
W3 there is one writer per folder (a file lock); W4 a checkpoint never precedes its rows; W5 a file
that a commit failed on is never written again, and one without rows is made anew.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tripgate import clock
from tripgate.audit.chain import next_hash
from tripgate.audit.failures import AuditUnwritableError, ProducerGapError, unwritable
from tripgate.audit.heads import HEADS_NAME, Checkpoint, HeadsFile
from tripgate.audit.log_file import LogFile
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import INT64_MAX, RecordError, Row, canonical
from tripgate.audit.recovery import Head, Place, check_heads, find_place
from tripgate.audit.schema import Meta, create_file, sync_folder
from tripgate.audit.segments import (
    Retirement,
    Segment,
    meta_of,
    month_end_ns,
    reserve_retirement,
    segment_of,
    write_retirement,
)
from tripgate.errors import AlreadyRunningError, MissingPartError, TripgateError

__all__ = [
    "AuditUnwritableError",
    "Head",
    "LogReader",
    "LogWriter",
    "ProducerGapError",
    "StoredRow",
]

TRANSACTION_ROWS_MAX = 10_000
LOCK_NAME = "writer.lock"


class LogWriter:
    """Appends rows to the log of one instance.

    Calls may come from any thread, one at a time. Errors named ``AuditUnwritableError`` end the
    writer: construct a new one to begin a new file.

    Parameters
    ----------
    audit_folder, heads_folder
        Made if missing, readable by their owner alone.

    Raises
    ------
    AlreadyRunningError
        Another process writes this log.
    AuditUnwritableError
        The folders or the disk refuse a small durable write.
    ChainBrokenError
        The log is damaged, or lacks rows that it held once.
    """

    def __init__(self, audit_folder: Path, heads_folder: Path) -> None:
        self._folder = audit_folder
        self._ended: str | None = None
        self._owed: Retirement | None = None
        self._file: LogFile | None = None
        self._heads: HeadsFile | None = None
        self._lock = -1
        try:
            for folder in (audit_folder, heads_folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Also for a folder that is there: a killed writer may have made it a moment ago.
                sync_folder(folder.parent)
            self._lock = _take_lock(audit_folder / LOCK_NAME)
            reserve_retirement(audit_folder)
            place = find_place(audit_folder)
            self._heads = HeadsFile(heads_folder / HEADS_NAME)
            check_heads(audit_folder, place.head, self._heads.last)
            self._head = place.head
            self._last_sequences = place.last_sequences
            self._segment, self._file = self._first_file(place)
            self._month_end_ns = month_end_ns(self._segment)
            # The first commit also syncs what a killed writer had committed and not yet synced:
            # only after it may the rows found here be called durable.
            self._file.probe()
            self._write_checkpoint(None, clock.host_ns(), clock.utc_ns())
        except (sqlite3.Error, OSError) as error:
            self._release()
            raise unwritable(audit_folder, error) from error
        except TripgateError:
            self._release()
            raise

    @property
    def head(self) -> Head:
        """The last durable row: (sequence, hash, number of rows)."""
        return self._head

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._folder / self._segment.name

    def last_sequences(self) -> dict[tuple[int, int], int]:
        """Return the last durable producer sequence of each (epoch, producer)."""
        return dict(self._last_sequences)

    def append(self, rows: Sequence[Row]) -> int:
        """Store rows in the order given; they are durable when this returns.

        Rows that are stored already are skipped, so that draining a ring again after a crash
        stores each record once.

        Returns
        -------
        int
            Sequence of the last row of the log.

        Raises
        ------
        ProducerGapError
            A producer's row does not follow its last one; nothing was stored.
        RecordError
            A row is malformed; rows of the call before it may have been stored.
        AuditUnwritableError
            The disk failed; of this call, rows up to ``head`` were stored.
        """
        self._require_usable()
        fresh = self._without_stored(rows)
        start = 0
        while start < len(fresh):
            if fresh[start].utc_ns >= self._month_end_ns:
                self._begin_month(segment_of(fresh[start].utc_ns))
            stop = start + 1
            limit = min(len(fresh), start + TRANSACTION_ROWS_MAX)
            while stop < limit and fresh[stop].utc_ns < self._month_end_ns:
                stop += 1
            self._commit(fresh[start:stop])
            start = stop
        return self._head.sequence

    def checkpoint(
        self, node_sums: Mapping[str, int] | None, host_ns: int, utc_ns: int
    ) -> Checkpoint:
        """Note the head and the sums of the nodes in the file of heads, durably; return the note.

        Raises
        ------
        RecordError
            There are too many node sums for one line.
        AuditUnwritableError
            The file could not be written.
        """
        self._require_usable()
        try:
            return self._write_checkpoint(node_sums, host_ns, utc_ns)
        except OSError as error:
            self._fail(error)
        except ValueError as error:
            raise RecordError(str(error)) from None

    def probe(self) -> None:
        """Prove the log writable by a small durable commit outside the chain.

        Raises
        ------
        AuditUnwritableError
            It is not.
        """
        self._require_usable()
        assert self._file is not None
        try:
            self._file.probe()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def close(self) -> Checkpoint | None:
        """Note the head, close, return the note. Again, or after a failure: do nothing."""
        if self._ended is not None:
            return None
        last = self.checkpoint(None, clock.host_ns(), clock.utc_ns())
        self._ended = "it was closed"
        self._release()
        return last

    def retire(self) -> None:
        """Write the marker that the disk refused when this writer failed, if it still lacks.

        Whoever constructs another writer in the same process calls this first: without the marker
        that writer would go on in the very file whose last commit failed.

        Raises
        ------
        AuditUnwritableError
            The disk refuses it still.
        """
        if self._owed is None:
            return
        try:
            write_retirement(self._folder, self._segment, self._owed)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._owed = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _require_usable(self) -> None:
        if self._ended is not None:
            raise AuditUnwritableError(
                f"this writer cannot go on ({self._ended}): construct a new LogWriter"
            )

    def _first_file(self, place: Place) -> tuple[Segment, LogFile]:
        newest, this_month = place.newest, segment_of(clock.utc_ns())
        if newest is not None and not place.is_retired:
            meta = meta_of(self._folder, newest)
            if meta is not None and meta.previous_sequence == place.head.sequence:
                # Without rows it may be one whose very first commit failed. Made anew, it takes no
                # further name while a disk stays broken, and nothing of the failed one stays.
                create_file(self._folder / newest.name, meta)
            return newest, LogFile(self._folder / newest.name)
        segment = this_month
        # A month that has begun stays the month, even if the wall clock was set back.
        if newest is not None and (newest.year, newest.month) >= (
            this_month.year,
            this_month.month,
        ):
            segment = newest.next_in_month()
        return segment, self._begin_file(segment, newest)

    def _begin_file(self, segment: Segment, previous: Segment | None) -> LogFile:
        meta = Meta(self._head.sequence, self._head.hash, previous.name if previous else None)
        create_file(self._folder / segment.name, meta)
        return LogFile(self._folder / segment.name)

    def _begin_month(self, segment: Segment) -> None:
        assert self._file is not None
        try:
            self._write_checkpoint(None, clock.host_ns(), clock.utc_ns())
            self._file.close()
            self._file = self._begin_file(segment, self._segment)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        except MissingPartError as error:
            self._ended = str(error)
            self._release()
            raise
        self._segment = segment
        self._month_end_ns = month_end_ns(segment)

    def _without_stored(self, rows: Sequence[Row]) -> list[Row]:
        fresh, ahead = list[Row](), dict[tuple[int, int], int]()
        for row in rows:
            if not 0 <= row.utc_ns <= INT64_MAX:
                raise RecordError(f"a row's UTC stamp is out of range: {row.utc_ns}")
            pair = (row.epoch, row.producer)
            last = ahead.get(pair)
            if last is None:
                last = self._last_sequences.get(pair, 0)
            if row.producer_sequence == last + 1:
                fresh.append(row)
                ahead[pair] = last + 1
            elif row.producer_sequence > last:
                raise ProducerGapError(
                    row.producer,
                    f"epoch {row.epoch}, producer {row.producer}: record {last + 1} is missing, "
                    f"the next one is {row.producer_sequence}: the ring is damaged; halt and keep "
                    "the page for examination",
                )
        return fresh

    def _commit(self, rows: Sequence[Row]) -> None:
        assert self._file is not None
        sequence, digest, stored = self._head
        prepared: list[tuple[object, ...]] = []
        for row in rows:
            sequence += 1
            digest = next_hash(digest, canonical(row, sequence))
            prepared.append(
                (
                    sequence,
                    row.epoch,
                    row.producer,
                    row.producer_sequence,
                    row.utc_ns,
                    row.host_ns,
                    row.market_ms,
                    row.kind,
                    row.token,
                    row.body,
                    digest,
                )
            )
        try:
            self._file.commit(prepared)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        self._head = Head(sequence, digest, stored + len(rows))
        for row in rows:
            self._last_sequences[row.epoch, row.producer] = row.producer_sequence

    def _write_checkpoint(
        self, node_sums: Mapping[str, int] | None, host_ns: int, utc_ns: int
    ) -> Checkpoint:
        assert self._heads is not None
        checkpoint = Checkpoint(*self._head, utc_ns, host_ns, node_sums)
        self._heads.append(checkpoint)
        return checkpoint

    def _fail(self, error: sqlite3.Error | OSError) -> NoReturn:
        failure = unwritable(self.path, error)
        self._ended = str(failure)
        if self._file is not None:
            self._file.close()
        # The marker's space was set aside; a disk that refuses even that is asked again later.
        retirement = Retirement(self._head.sequence, self._head.hash, self._last_sequences)
        try:
            write_retirement(self._folder, self._segment, retirement)
        except OSError:
            self._owed = retirement
        self._release()
        raise failure from error

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._heads is not None:
            self._heads.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"another process writes {path.parent}: an audit log has one writer; end the other one"
        ) from None
    return descriptor


@contextlib.contextmanager
def lock_writer(folder: Path) -> Iterator[None]:
    """Hold the writer's lock in the block, so that nobody writes the log.

    Raises
    ------
    AlreadyRunningError
        A process writes it.
    """
    descriptor = _take_lock(folder / LOCK_NAME)
    try:
        yield
    finally:
        os.close(descriptor)
