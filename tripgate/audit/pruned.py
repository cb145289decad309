"""What stays of a monthly file that was archived and removed: a marker, ``….db.pruned``.

A log must go on meaning the same without its old files. So the marker keeps where the file began
and ended in the chain, each producer's last sequence, and those rows that a later start reads: who
traded what, levels, limits, operators' orders. Left out are only the kinds of ``BULK``, which
nothing but a replay needs: they are in the archive.

The marker is text, one JSON value per line: what it is, then the rows kept, then the digest of
everything before it. It says nothing that the archive does not say too (``archive``).

Invariants: U1 a marker is there before its file is gone; U2 where both are there, the file counts;
U3 a kind that this version does not know is kept.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tripgate.audit.chain import HASH_BYTES
from tripgate.audit.record import Row
from tripgate.audit.schema import sync_folder
from tripgate.audit.segments import Segment, list_segments
from tripgate.errors import ChainBrokenError
from tripgate.messages import EventKind

PRUNED_SUFFIX = ".pruned"
BULK = frozenset(
    {EventKind.DECISION, EventKind.DENIALS_MERGED, EventKind.RISK_SNAPSHOT, EventKind.ATTACHED}
)
"""Kinds that only a replay reads; an approved order whose fate is open forbids the pruning."""

KeptRow = tuple[int, Row, bytes]
"""Sequence, row, hash as stored."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The marker of a removed file.

    Attributes
    ----------
    previous_sequence, previous_hash
        The row that the file followed.
    sequence, head
        Its own last row and hash.
    archive
        Name of the archive that holds its rows.
    last_sequences
        Last producer sequence per (epoch, producer) in the file.
    """

    segment: Segment
    previous_sequence: int
    previous_hash: bytes
    sequence: int
    head: bytes
    archive: str
    last_sequences: dict[tuple[int, int], int]


def list_pruned(folder: Path) -> list[Segment]:
    """Return the segments of which only a marker is left, in the order of the chain."""
    here = set(list_segments(folder))
    return [segment for segment in list_segments(folder, PRUNED_SUFFIX) if segment not in here]


def write_pruned(folder: Path, pruned: Pruned, kept: Iterable[KeptRow]) -> None:
    """Write a marker durably: after a crash it is there whole or not at all.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path = folder / (pruned.segment.name + PRUNED_SUFFIX)
    temporary = path.with_name(f"{path.name}.new")
    digest = sha256()
    with open(temporary, "wb", opener=_private) as file:
        for value in (_head_line(pruned), *(_row_line(*row) for row in kept)):
            line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            file.write(line)
        file.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(folder)


def read_pruned(folder: Path, segment: Segment) -> tuple[Pruned, list[KeptRow]]:
    """Return the marker of a removed file and the rows it keeps.

    Raises
    ------
    ChainBrokenError
        It cannot be read, or is not as it was written.
    """
    path = folder / (segment.name + PRUNED_SUFFIX)
    try:
        text = path.read_bytes()
        body = text[: text.rstrip(b"\n").rfind(b"\n") + 1]
        if json.loads(text[len(body) :])["sha256"] != sha256(body).hexdigest():
            raise ValueError("its digest is another one")
        head, *rows = (json.loads(line) for line in body.splitlines())
        pruned = Pruned(
            segment, int(head["previous_sequence"]), bytes.fromhex(head["previous_hash"]),
            int(head["sequence"]), bytes.fromhex(head["head"]), str(head["archive"]),
            {(int(e), int(p)): int(last) for e, p, last in head["last_sequences"]},
        )  # fmt: skip
        if {len(pruned.head), len(pruned.previous_hash)} != {HASH_BYTES}:
            raise ValueError("out of range")
        return pruned, [_row_of(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ChainBrokenError(
            f"{path} cannot be read ({error}): restore it from a copy, or put the file that the "
            "archive was made of back in its place"
        ) from None


def kept_rows(folder: Path) -> Iterator[list[KeptRow]]:
    """Yield the rows kept of each removed file, oldest first. Raises ``ChainBrokenError``."""
    for segment in list_pruned(folder):
        yield read_pruned(folder, segment)[1]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _head_line(pruned: Pruned) -> dict[str, object]:
    return {
        "version": 1,
        "previous_sequence": pruned.previous_sequence,
        "previous_hash": pruned.previous_hash.hex(),
        "sequence": pruned.sequence,
        "head": pruned.head.hex(),
        "archive": pruned.archive,
        "last_sequences": [[*pair, n] for pair, n in sorted(pruned.last_sequences.items())],
    }


def _row_line(sequence: int, row: Row, digest: bytes) -> list[object]:
    return [
        sequence, row.epoch, row.producer, row.producer_sequence, row.utc_ns, row.host_ns,
        row.market_ms, row.kind, row.token, row.body.hex(), digest.hex(),
    ]  # fmt: skip


def _row_of(line: list[object]) -> KeptRow:
    sequence, *numbers, token, body, digest = line
    epoch, producer, producer_sequence, utc_ns, host_ns, market_ms, kind = (
        int(str(number)) for number in numbers
    )
    row = Row(
        epoch, producer, producer_sequence, utc_ns, host_ns, market_ms, kind,
        None if token is None else int(str(token)), bytes.fromhex(str(body)),
    )  # fmt: skip
    return int(str(sequence)), row, bytes.fromhex(str(digest))
