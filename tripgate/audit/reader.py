"""Rows of a log, read while it may still be written.

Each batch is a read transaction of its own: one long transaction would keep the writer's
write-ahead log from being reused, and it would grow for as long as somebody reads.

Of files that were archived and removed, the rows that their markers keep are read (``pruned``).

Invariant: rows come in the order of the chain, each once, without the unacknowledged tails of
retired files.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.pruned import kept_rows
from tripgate.audit.record import Row
from tripgate.audit.segments import UNREADABLE, Segment, last_rows, list_segments, open_read_only
from tripgate.errors import ChainBrokenError, UsageError

BATCH_ROWS = 5_000
KINDS_MAX = 256
SEQUENCE_MAX = 2**63 - 1

_COLUMNS = "seq, epoch, producer, producer_seq, utc_ns, host_ns, market_ms, kind, token, body, hash"


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row with its place in the log and its hash."""

    sequence: int
    row: Row
    hash: bytes


def _stored_row(name: str, values: tuple[object, ...]) -> StoredRow:
    *numbers, token, body, digest = values
    is_whole = all(type(number) is int for number in numbers)
    if not is_whole or not isinstance(body, bytes) or not isinstance(digest, bytes):
        raise _broken(name, f"row {values[0]} holds values of wrong types")
    if token is not None and not isinstance(token, int):
        raise _broken(name, f"row {values[0]} holds a token that is no integer")
    sequence, epoch, producer, producer_sequence, utc_ns, host_ns, market_ms, kind = (
        number for number in numbers if isinstance(number, int)
    )
    row = Row(epoch, producer, producer_sequence, utc_ns, host_ns, market_ms, kind, token, body)
    return StoredRow(sequence, row, digest)


def _broken(name: str, reason: object) -> ChainBrokenError:
    return ChainBrokenError(
        f"{name} cannot be read: {reason}: run `tripgate audit verify` to see what is damaged"
    )


class LogReader:
    """Reads a log folder; opens each file only while it is read, and never writes.

    Parameters
    ----------
    folder
        The ``audit`` folder. A folder that is missing or empty is a log without rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(
        self,
        *,
        kinds: Collection[int] | None = None,
        epoch: int | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> Iterator[StoredRow]:
        """Yield rows, oldest first.

        Parameters
        ----------
        kinds, epoch
            Only rows of these kinds, of this epoch; None takes all.
        after
            Only rows past this sequence.
        limit
            At most this many rows; None takes all that are there when a file's turn comes.

        Raises
        ------
        ChainBrokenError
            A file cannot be read or a row holds values of wrong types.
        """
        where, values = _filter(kinds, epoch)
        left = SEQUENCE_MAX if limit is None else limit
        for kept in self._kept(kinds, epoch):
            batch = [stored for stored in kept if stored.sequence > after][:left]
            yield from batch
            left -= len(batch)
        if left <= 0:
            return
        for segment, last in self._extents():
            if last is not None and last <= after:
                continue
            for batch in self._batches(segment, last, after, where, values):
                yield from batch[:left]
                left -= len(batch)
                if left <= 0:
                    return

    def newest(
        self, limit: int, *, kinds: Collection[int] | None = None, epoch: int | None = None
    ) -> list[StoredRow]:
        """Return the last ``limit`` rows that match, oldest first. Raises ``ChainBrokenError``."""
        where, values = _filter(kinds, epoch)
        found: list[StoredRow] = []
        for segment, last in reversed(self._extents()):
            sql = (
                f"SELECT {_COLUMNS} FROM log WHERE seq <= ? AND {where} "  # noqa: S608
                "ORDER BY seq DESC LIMIT ?"
            )
            bound = SEQUENCE_MAX if last is None else last
            parameters = (bound, *values, limit - len(found))
            found.extend(
                _stored_row(segment.name, row) for row in self._all(segment, sql, parameters)
            )
            if len(found) >= limit:
                return found[::-1]
        for kept in reversed(list(self._kept(kinds, epoch))):
            found.extend(kept[::-1][: limit - len(found)])
        return found[::-1]

    def last_of(self, segment: Segment, last: int | None) -> tuple[int, bytes] | None:
        """Return the last row of a file up to row ``last`` and its hash; None if it has none.

        Raises
        ------
        ChainBrokenError
            The file cannot be read.
        """
        sql = "SELECT seq, hash FROM log WHERE seq <= ? ORDER BY seq DESC LIMIT 1"
        for sequence, digest in self._all(segment, sql, (SEQUENCE_MAX if last is None else last,)):
            if not isinstance(sequence, int) or not isinstance(digest, bytes):
                raise _broken(segment.name, "its last row holds values of wrong types")
            return sequence, digest
        return None

    def count_by_kind(self) -> dict[int, int]:
        """Return how many rows of each kind can be read. Raises ``ChainBrokenError``."""
        counts: dict[int, int] = {}
        for kept in self._kept(None, None):
            for stored in kept:
                counts[stored.row.kind] = counts.get(stored.row.kind, 0) + 1
        sql = "SELECT kind, count(*) FROM log WHERE seq <= ? GROUP BY kind"
        for segment, last in self._extents():
            for kind, count in self._all(segment, sql, (SEQUENCE_MAX if last is None else last,)):
                if not isinstance(kind, int) or not isinstance(count, int):
                    raise _broken(segment.name, "a row holds a kind that is no integer")
                counts[kind] = counts.get(kind, 0) + count
        return dict(sorted(counts.items()))

    def _kept(self, kinds: Collection[int] | None, epoch: int | None) -> Iterator[list[StoredRow]]:
        for rows in kept_rows(self._folder):
            yield [
                StoredRow(*kept)
                for kept in rows
                if (kinds is None or kept[1].kind in kinds)
                and (epoch is None or kept[1].epoch == epoch)
            ]

    def _extents(self) -> list[tuple[Segment, int | None]]:
        segments = list_segments(self._folder)
        return list(zip(segments, last_rows(self._folder, segments), strict=True))

    def _batches(
        self, segment: Segment, last: int | None, after: int, where: str, values: tuple[int, ...]
    ) -> Iterator[list[StoredRow]]:
        sql = (
            f"SELECT {_COLUMNS} FROM log WHERE seq > ? AND seq <= ? AND {where} "  # noqa: S608
            "ORDER BY seq LIMIT ?"
        )
        # The end is fixed at the start: a writer faster than the reader must not make it endless.
        newest = self._all(segment, "SELECT max(seq) FROM log", ())[0][0]
        end = newest if isinstance(newest, int) else 0
        end = end if last is None else min(end, last)
        while after < end:
            found = self._all(segment, sql, (after, end, *values, BATCH_ROWS))
            batch = [_stored_row(segment.name, row) for row in found]
            if batch:
                yield batch
            if len(batch) < BATCH_ROWS:
                return
            after = batch[-1].sequence

    def _all(
        self, segment: Segment, sql: str, parameters: tuple[int, ...]
    ) -> list[tuple[object, ...]]:
        try:
            connection = open_read_only(self._folder / segment.name)
            try:
                return connection.execute(sql, parameters).fetchall()
            finally:
                connection.close()
        except UNREADABLE as error:
            raise _broken(segment.name, error) from None


def _filter(kinds: Collection[int] | None, epoch: int | None) -> tuple[str, tuple[int, ...]]:
    if kinds is not None and len(kinds) > KINDS_MAX:
        raise UsageError(f"at most {KINDS_MAX} kinds can be asked for at once")
    terms, values = ["1"], list[int]()
    if kinds is not None:
        terms.append(f"kind IN ({','.join('?' * len(kinds))})")
        values.extend(kinds)
    if epoch is not None:
        terms.append("epoch = ?")
        values.append(epoch)
    return " AND ".join(terms), tuple(values)
