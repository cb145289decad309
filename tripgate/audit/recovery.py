"""Where the chain stands when a writer starts: the last acknowledged row and each producer's last.

What a producer's ring still holds is drained again after a crash; what is found here says which of
it is already stored. Nothing is repaired and nothing is written.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tripgate.audit.chain import GENESIS, HASH_BYTES
from tripgate.audit.heads import Checkpoint
from tripgate.audit.pruned import list_pruned, read_pruned
from tripgate.audit.reader import SEQUENCE_MAX, LogReader
from tripgate.audit.schema import schema_problems
from tripgate.audit.segments import (
    RETIRED_SUFFIX,
    UNREADABLE,
    Segment,
    last_rows,
    list_segments,
    open_read_only,
    read_retirement,
)
from tripgate.errors import ChainBrokenError

PRODUCERS_MAX = 32_767 * 256
"""Pairs of a 15-bit epoch and an 8-bit slot."""

ADVICE = (
    "run `tripgate audit verify`; then restore the folders audit and heads from a copy, or move "
    "both aside to begin a new log"
)

# SQLite would walk every row of an epoch to group by producer; these go from pair to pair through
# the unique index, one step each.
_NEXT_PRODUCER = """SELECT epoch, producer FROM log WHERE epoch = ? AND producer > ?
ORDER BY producer LIMIT 1"""
_NEXT_EPOCH = "SELECT epoch, producer FROM log WHERE epoch > ? ORDER BY epoch, producer LIMIT 1"
_LAST_OF_PAIR = """SELECT producer_seq FROM log WHERE epoch = ? AND producer = ? AND seq <= ?
ORDER BY producer_seq DESC LIMIT 1"""

_NOT_DAMAGE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_NOMEM")

LastSequences = dict[tuple[int, int], int]


class Head(NamedTuple):
    """The end of the chain: last row, its hash, number of rows (0 and ``GENESIS`` if none)."""

    sequence: int
    hash: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the chain stands, and the newest file.

    Attributes
    ----------
    newest
        The newest file, which may be gone if ``is_retired``; None for a log not begun yet.
    is_retired
        A commit failed on it: it is never written again.
    """

    head: Head
    newest: Segment | None
    is_retired: bool
    last_sequences: LastSequences


def find_place(folder: Path) -> Place:
    """Return where the chain in an audit folder stands.

    Raises
    ------
    ChainBrokenError
        A file is damaged, or is not as this version writes it.
    sqlite3.OperationalError
        A file cannot be opened here and now.
    """
    # Markers count like files: a file that was moved away leaves its marker, and its name must not
    # be given to another file.
    segments = list_segments(folder)
    markers = {s: read_retirement(folder, s) for s in list_segments(folder, RETIRED_SUFFIX)}
    bounds = dict(zip(segments, last_rows(folder, segments), strict=True))
    head, last_sequences = Head(0, GENESIS, 0), LastSequences()
    for gone in list_pruned(folder):
        pruned, _ = read_pruned(folder, gone)
        head = Head(pruned.sequence, pruned.head, pruned.sequence)
        last_sequences.update(pruned.last_sequences)
    for segment in sorted(bounds.keys() | markers.keys()):
        bound = bounds.get(segment)
        if marker := markers.get(segment):
            last_sequences.update(marker.last_sequences)
            head, bound = Head(marker.sequence, marker.head, marker.sequence), marker.sequence
        if segment in bounds:
            tail, found = _read_segment(folder, segment, SEQUENCE_MAX if bound is None else bound)
            last_sequences.update(found)
            head = head if marker else tail
    newest = max(bounds.keys() | markers.keys(), default=None)
    return Place(head, newest, newest in markers, last_sequences)


def _read_segment(folder: Path, segment: Segment, last: int) -> tuple[Head, LastSequences]:
    try:
        connection = open_read_only(folder / segment.name)
        try:
            if problems := schema_problems(connection):
                raise ChainBrokenError(f"{segment.name}: {problems[0]}: {ADVICE}")
            head = _tail(connection, segment, last)
            sequences = _last_sequences(connection, last)
        finally:
            connection.close()
    except UNREADABLE as error:
        # What the disk or the rights refuse says nothing about the chain.
        if str(getattr(error, "sqlite_errorname", "")).startswith(_NOT_DAMAGE):
            raise
        raise ChainBrokenError(f"{segment.name} cannot be read ({error}): {ADVICE}") from None
    if not all(
        type(number) is int for pair, value in sequences.items() for number in (*pair, value)
    ):
        raise ChainBrokenError(f"{segment.name} holds values of wrong types: {ADVICE}")
    return head, sequences


def _last_sequences(connection: sqlite3.Connection, last: int) -> LastSequences:
    sequences = LastSequences()
    pair = connection.execute(_NEXT_EPOCH, (-1,)).fetchone()
    while pair is not None and len(sequences) < PRODUCERS_MAX:
        found = connection.execute(_LAST_OF_PAIR, (*pair, last)).fetchone()
        if found is not None:
            sequences[pair] = found[0]
        following = connection.execute(_NEXT_PRODUCER, pair).fetchone()
        pair = following or connection.execute(_NEXT_EPOCH, pair[:1]).fetchone()
    return sequences


def _tail(connection: sqlite3.Connection, segment: Segment, last: int) -> Head:
    found = connection.execute(
        "SELECT seq, hash FROM log WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (last,)
    ).fetchone()
    if found is None:
        found = connection.execute("SELECT previous_seq, previous_hash FROM meta").fetchone()
    sequence, digest = found or (None, None)
    if not isinstance(sequence, int) or not isinstance(digest, bytes) or len(digest) != HASH_BYTES:
        raise ChainBrokenError(f"{segment.name} is damaged at its end: {ADVICE}")
    return Head(sequence, digest, sequence)


def check_heads(folder: Path, head: Head, last: Checkpoint | None) -> None:
    """Refuse to go on with a log that its own last checkpoint contradicts.

    Raises
    ------
    ChainBrokenError
        Rows that were durable once are gone, or are other rows now.
    """
    if last is None or last.sequence == 0:
        return
    if last.sequence > head.sequence:
        raise ChainBrokenError(
            f"the log ends at row {head.sequence}, but row {last.sequence} was durable once: "
            f"{ADVICE}"
        )
    digest = head.hash
    if last.sequence < head.sequence:
        rows = list(LogReader(folder).rows(after=last.sequence - 1, limit=1))
        if not rows and _is_away(folder, last.sequence):
            return
        digest = rows[0].hash if rows and rows[0].sequence == last.sequence else b""
    if digest != last.head:
        raise ChainBrokenError(
            f"row {last.sequence} is not the row that was durable once: {ADVICE}"
        )


def _is_away(folder: Path, sequence: int) -> bool:
    """Whether the file that held a row was moved away after it was retired.

    Its marker says where the chain stood, and the verifier reports the file as missing; a writer
    that refused as well would keep openings closed for what no new row can mend.
    """
    here = set(list_segments(folder))
    for segment in list_segments(folder, RETIRED_SUFFIX):
        marker = read_retirement(folder, segment)
        if segment not in here and marker is not None and sequence <= marker.sequence:
            return True
    return False
