"""Removing months that are archived: never by itself, and only what nobody needs.

A month may go if it is not the newest and older than the config says to keep, if its archives hold
every row of it (compared row by row), if nobody writes the log, if the run that wrote last ended in
order or began later, and if no order that was approved in it still lacks its end. What later starts
read of it stays in a marker (``pruned``), and the chain goes on from that marker's head.

Only the oldest months that are still there can go: the log may lack its beginning, never a middle.
"""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tripgate.audit.archive import (
    Progress,
    archive_name,
    archive_rows,
    extent_of,
    read_extent,
    segment_rows,
)
from tripgate.audit.pruned import BULK, Pruned, write_pruned
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import unpack_body
from tripgate.audit.schema import sync_folder
from tripgate.audit.segments import RETIRED_SUFFIX, Segment, list_segments
from tripgate.audit.store import lock_writer
from tripgate.errors import ChainBrokenError, UsageError
from tripgate.messages import EventKind

_OUTCOME, _REASON_MASK, _SHADOW = slice(8, 16), 0xFFFF, 1 << 20
"""Where a decision record holds its outcome, and in it the reason and the mark of a shadow page
(``gate.record``, which this layer does not know)."""
_ENDS = (EventKind.ORDER_DONE, EventKind.ORDER_RESOLVED, EventKind.RESERVATION_EXPIRED)


@dataclass(frozen=True, slots=True)
class Removed:
    """A file that was removed, how many rows it had and how many its marker keeps."""

    file: str
    rows: int
    kept: int


def segments_of_month(folder: Path, year: int, month: int) -> list[Segment]:
    """Return a month's files. Raises ``UsageError`` if there are none."""
    segments = [s for s in list_segments(folder) if (s.year, s.month) == (year, month)]
    if not segments:
        months = sorted({f"{s.year:04}-{s.month:02}" for s in list_segments(folder)})
        raise UsageError(
            f"there is no file of {year:04}-{month:02} in {folder} (there are: {', '.join(months)})"
        )
    return segments


def prune_month(
    folder: Path, archives: Path, month: tuple[int, int], keep_months: int, progress: Progress
) -> list[Removed]:
    """Remove the files of a month whose archives are in ``archives``; return what was removed.

    Parameters
    ----------
    month
        (year, month).
    keep_months
        How many newest months of the log must stay.

    Raises
    ------
    UsageError
        The month may not go; the message says why. Nothing was changed.
    ChainBrokenError
        An archive is damaged or holds other rows than the file. Nothing was changed.
    AlreadyRunningError
        A process writes the log.
    OSError
        The folder cannot be written; a file whose marker was written may be there or not.
    """
    with lock_writer(folder):
        segments = segments_of_month(folder, *month)
        _require_old(folder, segments, keep_months)
        _require_ended(folder, segments)
        _require_no_open_order(folder, segments)
        pairs = [(segment, archives / archive_name(segment)) for segment in segments]
        for segment, archive in pairs:
            _compare(folder, segment, archive, progress)
        return [_remove(folder, segment, archive) for segment, archive in pairs]


def _require_old(folder: Path, segments: list[Segment], keep_months: int) -> None:
    everything = list_segments(folder)
    months = sorted({(segment.year, segment.month) for segment in everything})
    month = segments[0].year, segments[0].month
    if month == months[-1]:
        raise UsageError("the newest month stays: the log goes on in it")
    if month != months[0]:
        raise UsageError(
            f"only the oldest month can go, which is {months[0][0]:04}-{months[0][1]:02}: a log "
            "may lack its beginning, never a middle"
        )
    newest = months[-1]
    age = (newest[0] - month[0]) * 12 + newest[1] - month[1]
    if age < keep_months:
        raise UsageError(
            f"audit.keep_months is {keep_months}: {month[0]:04}-{month[1]:02} is only {age} months "
            "older than the newest one"
        )


def _require_ended(folder: Path, segments: list[Segment]) -> None:
    reader = LogReader(folder)
    newest = reader.newest(1)
    if not newest:
        return
    epoch = newest[0].row.epoch
    end = extent_of(folder, segments[-1]).sequence
    first = next(reader.rows(epoch=epoch, limit=1))
    ended = any(reader.rows(epoch=epoch, kinds=(int(EventKind.RUN_ENDED),), limit=1))
    if first.sequence <= end and not ended:
        raise UsageError(
            f"run {epoch} has rows in it and has not ended in order: its next start may need them"
        )


def _require_no_open_order(folder: Path, segments: list[Segment]) -> None:
    end = extent_of(folder, segments[-1]).sequence
    begun: dict[int, int] = {}
    ended: set[int] = set()
    kinds = [int(kind) for kind in (EventKind.DECISION, *_ENDS)]
    for stored in LogReader(folder).rows(kinds=kinds):
        token = _token_begun(stored)
        if token is not None and stored.sequence <= end:
            begun[token] = stored.sequence
        elif stored.row.kind in _ENDS:
            body = unpack_body(stored.row.body)
            if "refused" not in body:
                ended.add(int(str(body["token"])))
    if open_orders := sorted(begun[token] for token in begun.keys() - ended):
        raise UsageError(
            f"{len(open_orders)} orders that were approved in it have no end on record, the first "
            f"in row {open_orders[0]}: see `tripgate orders list`"
        )


def _token_begun(stored: StoredRow) -> int | None:
    """Return the token of an approval, or None for anything else.

    What a shadow page approves is never sent and never ends.
    """
    if stored.row.kind != EventKind.DECISION or not stored.row.token:
        return None
    outcome = int.from_bytes(stored.row.body[_OUTCOME], "little")
    return None if outcome & (_REASON_MASK | _SHADOW) else stored.row.token


def _compare(folder: Path, segment: Segment, archive: Path, progress: Progress) -> None:
    """Compare a file with its archive row by row, hashes included."""
    if not archive.is_file():
        raise UsageError(f"there is no archive {archive}: run `tripgate audit archive` first")
    extent = extent_of(folder, segment)
    if read_extent(archive) != extent:
        raise ChainBrokenError(f"{archive} was not made of the present {segment.name}")
    pairs = zip_longest(segment_rows(folder, extent), archive_rows(archive))
    for number, (stored, archived) in enumerate(pairs, 1):
        if stored != archived:
            raise ChainBrokenError(f"{archive} differs from {segment.name} in its row {number}")
        if number % 10_000 == 0:
            progress(number)


def _remove(folder: Path, segment: Segment, archive: Path) -> Removed:
    extent = extent_of(folder, segment)
    last_sequences: dict[tuple[int, int], int] = {}
    kept: list[StoredRow] = []
    snapshot: StoredRow | None = None
    for stored in segment_rows(folder, extent):
        row = stored.row
        last_sequences[row.epoch, row.producer] = row.producer_sequence
        if row.kind == EventKind.RISK_SNAPSHOT:
            snapshot = stored
        elif row.kind not in BULK:
            kept.append(stored)
    if snapshot is not None:
        # The newest one holds the high-water marks that a start goes on from.
        kept.append(snapshot)
    pruned = Pruned(
        segment, extent.previous_sequence, extent.previous_hash, extent.sequence, extent.head,
        archive.name, last_sequences,
    )  # fmt: skip
    in_order = sorted(kept, key=lambda stored: stored.sequence)
    rows = [(stored.sequence, stored.row, stored.hash) for stored in in_order]
    write_pruned(folder, pruned, rows)
    for suffix in ("-wal", "-shm", RETIRED_SUFFIX, ""):
        (folder / (segment.name + suffix)).unlink(missing_ok=True)
    sync_folder(folder)
    return Removed(segment.name, extent.rows, len(kept))
