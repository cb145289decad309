"""Archives: the rows of one file of the log as Parquet with zstd, verifiable by themselves.

Hashes cannot be compressed and can be computed again, so an archive does not hold one per row: its
metadata names the row and hash that it follows, its last row and hash, and the number of rows.
Whoever recomputes the chain from the first to the last finds any change in between, and whether
the archive fits the log on either side. That is a third of the size of the file it is made of.

pyarrow is an optional part (``tripgate[archive]``) and imported only here, when it is used.

Invariants: I1 an archive appears under its name complete; I2 ``verify_archive`` is total; I3 the
rows that ``archive_rows`` yields carry hashes that were computed, never read.
"""

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tripgate.audit.chain import HASH_BYTES, next_hash
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import Row, canonical, canonical_fields
from tripgate.audit.schema import sync_folder
from tripgate.audit.segments import Segment, last_rows, list_segments, meta_of, parse_name
from tripgate.errors import ChainBrokenError, MissingPartError, UsageError

SUFFIX = ".parquet"
GROUP_ROWS = 50_000
"""Rows that are held in memory at once."""
METADATA_KEY = b"tripgate.audit.archive"
COLUMNS = (
    "seq", "epoch", "producer", "producer_seq", "utc_ns", "host_ns", "market_ms", "kind", "token",
    "body",
)  # fmt: skip

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Extent:
    """What an archive holds of the chain."""

    file: str
    previous_sequence: int
    previous_hash: bytes
    sequence: int
    head: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class ArchiveVerdict:
    """What the verifier found; ``problems`` is empty if the archive holds."""

    rows: int
    head: str
    problems: list[str]
    extent: Extent | None


def archive_name(segment: Segment) -> str:
    """Return the name of the archive of a file."""
    return segment.name.removesuffix(".db") + SUFFIX


def extent_of(folder: Path, segment: Segment) -> Extent:
    """Return where a file of a log begins and ends now, its unacknowledged tail left out.

    Raises
    ------
    ChainBrokenError
        The file cannot be read.
    """
    segments = list_segments(folder)
    bound = dict(zip(segments, last_rows(folder, segments), strict=True))[segment]
    meta = meta_of(folder, segment)
    if meta is None:
        raise ChainBrokenError(f"{segment.name} cannot be read: run `tripgate audit verify`")
    tail = LogReader(folder).last_of(segment, bound)
    sequence, head = tail or (meta.previous_sequence, meta.previous_hash)
    rows = sequence - meta.previous_sequence
    return Extent(
        segment.name, meta.previous_sequence, meta.previous_hash, sequence, head, rows
    )  # fmt: skip


def segment_rows(folder: Path, extent: Extent) -> Iterator[StoredRow]:
    """Yield the rows of a file in order. Raises ``ChainBrokenError``."""
    if extent.rows:
        reader = LogReader(folder)
        yield from reader.rows(after=extent.previous_sequence, limit=extent.rows)


def write_archive(folder: Path, segment: Segment, output: Path, progress: Progress) -> Extent:
    """Write the archive of one file into the folder ``output``, durably.

    Raises
    ------
    MissingPartError
        pyarrow is not installed.
    UsageError
        There is an archive of that name already.
    ChainBrokenError
        The file does not verify.
    OSError
        The archive cannot be written.
    """
    arrow, parquet = _arrow()
    path = output / archive_name(segment)
    if path.exists():
        raise UsageError(f"{path} exists already: name another --output, or move it away")
    extent = extent_of(folder, segment)
    schema = arrow.schema(
        [(name, arrow.binary() if name == "body" else arrow.int64()) for name in COLUMNS],
        metadata={METADATA_KEY: _metadata(extent)},
    )
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    written, digest = 0, extent.previous_hash
    try:
        with os.fdopen(descriptor, "wb") as file:
            with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                rows = segment_rows(folder, extent)
                while group := list(islice(rows, GROUP_ROWS)):
                    digest = _chained(segment.name, group, digest)
                    writer.write_table(_table(arrow, schema, group))
                    written += len(group)
                    progress(written)
            file.flush()
            os.fsync(file.fileno())
        if (written, digest) != (extent.rows, extent.head):
            raise ChainBrokenError(f"{segment.name} lacks rows: run `tripgate audit verify`")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(output)
    return extent


def read_extent(path: Path) -> Extent:
    """Return what an archive says of itself.

    Raises
    ------
    ChainBrokenError
        It is no archive of a log, or is damaged.
    MissingPartError
        pyarrow is not installed.
    """
    return _extent_of(path, _open(path))


def archive_rows(path: Path) -> Iterator[StoredRow]:
    """Yield the rows of an archive with their hashes computed. Raises like ``read_extent``."""
    file = _open(path)
    extent = _extent_of(path, file)
    sequence, digest = extent.previous_sequence, extent.previous_hash
    for values in _values(path, file):
        sequence += 1
        try:
            digest = next_hash(digest, canonical_fields(*values))
        except (TypeError, struct.error):
            raise ChainBrokenError(f"{path}: row {sequence} holds values of wrong types") from None
        if values[0] != sequence:
            raise ChainBrokenError(f"{path}: row {sequence} is missing or out of order")
        yield StoredRow(sequence, Row(*values[1:]), digest)
    if (sequence, digest, sequence - extent.previous_sequence) != (
        extent.sequence, extent.head, extent.rows,
    ):  # fmt: skip
        raise ChainBrokenError(
            f"{path}: its rows end at row {sequence} in another hash than it says: it was changed"
        )


def verify_archive(path: Path, progress: Progress) -> ArchiveVerdict:
    """Recompute the chain of an archive. Total but for a missing pyarrow (``MissingPartError``)."""
    rows, head, extent = 0, "", None
    try:
        extent = read_extent(path)
        head = extent.previous_hash.hex()
        for stored in archive_rows(path):
            rows, head = rows + 1, stored.hash.hex()
            if rows % GROUP_ROWS == 0:
                progress(rows)
    except ChainBrokenError as error:
        return ArchiveVerdict(rows, head, [str(error)], extent)
    return ArchiveVerdict(rows, head, [], extent)


def _chained(name: str, group: list[StoredRow], digest: bytes) -> bytes:
    """Return the hash after some rows; raise if one of them is not what its hash says."""
    for stored in group:
        digest = next_hash(digest, canonical(stored.row, stored.sequence))
        if stored.hash != digest:
            raise ChainBrokenError(
                f"{name}: row {stored.sequence} does not match its hash: run "
                "`tripgate audit verify`"
            )
    return digest


def _metadata(extent: Extent) -> bytes:
    content = {
        "version": 1,
        "file": extent.file,
        "previous_sequence": extent.previous_sequence,
        "previous_hash": extent.previous_hash.hex(),
        "sequence": extent.sequence,
        "head": extent.head.hex(),
        "rows": extent.rows,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _table(arrow: Any, schema: Any, group: list[StoredRow]) -> Any:
    columns = zip(
        *(
            (
                stored.sequence, row.epoch, row.producer, row.producer_sequence, row.utc_ns,
                row.host_ns, row.market_ms, row.kind, row.token, row.body,
            )
            for stored in group
            for row in (stored.row,)
        ),
        strict=True,
    )  # fmt: skip
    arrays = [
        arrow.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)
    ]
    return arrow.Table.from_arrays(arrays, schema=schema)


def _open(path: Path) -> Any:
    arrow, parquet = _arrow()
    try:
        return parquet.ParquetFile(path)
    except (OSError, arrow.ArrowException) as error:
        raise ChainBrokenError(f"{path} is no archive that can be read: {error}") from None


def _values(path: Path, file: Any) -> Iterator[tuple[Any, ...]]:
    arrow, _ = _arrow()
    try:
        for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=list(COLUMNS)):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (OSError, KeyError, ValueError, arrow.ArrowException) as error:
        raise ChainBrokenError(f"{path} is damaged: {error}") from None


def _extent_of(path: Path, file: Any) -> Extent:
    try:
        content = json.loads((file.schema_arrow.metadata or {})[METADATA_KEY])
        numbers = [content[key] for key in ("previous_sequence", "sequence", "rows")]
        previous, head = (bytes.fromhex(content[key]) for key in ("previous_hash", "head"))
        if parse_name(content["file"]) is None or content["version"] != 1:
            raise ValueError("another version")
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("no numbers")
        if {len(previous), len(head)} != {HASH_BYTES}:
            raise ValueError("no hashes")
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ChainBrokenError(f"{path} does not say what it holds: it is no archive") from None
    return Extent(content["file"], numbers[0], previous, numbers[1], head, numbers[2])


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPartError(
            "archives need pyarrow: run `python -m pip install 'tripgate[archive]'`"
        ) from None
    return pyarrow, pyarrow.parquet
