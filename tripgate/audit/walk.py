"""The verifier's walk along the rows, with the checkpoints walked beside them.

Whatever a row holds is compared, never trusted: a value of a wrong type is a problem like a wrong
hash. After a mismatch the walk goes on from the hash as stored, so that one changed row is one
problem and not all rows after it.

Invariant: the walk advances with every row read and holds no more than one batch.
"""

import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tripgate.audit.chain import GENESIS, HASH_BYTES, next_hash
from tripgate.audit.heads import Checkpoint, Note
from tripgate.audit.record import canonical_fields
from tripgate.audit.recovery import PRODUCERS_MAX

PROBLEMS_MAX = 100
BATCH_ROWS = 10_000
NO_HEAD = 2**63 - 1
"""Sequence of the next checkpoint when there is none: no row reaches it."""

_SELECT = """SELECT seq, epoch, producer, producer_seq, utc_ns, host_ns, market_ms, kind, token,
body, hash FROM log WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""

StoredValues = tuple[object, ...]


class TooManyProblemsError(Exception):
    """Ends a walk that has nothing new to say; the verdict stands."""


@dataclass(slots=True)
class Walk:
    """State of one verification.

    Attributes
    ----------
    sequence, digest
        The row walked last and the hash to go on from.
    checkpoints
        Heads to compare with, in the order of their rows.
    is_partial
        The log's beginning is not at hand: a producer may begin at any number.
    """

    checkpoints: Iterator[Note]
    is_partial: bool = False
    sequence: int = 0
    digest: bytes = GENESIS
    rows: int = 0
    heads_compared: int = 0
    problems: list[str] = field(default_factory=list)
    broken_sequence: int | None = None
    _producers: dict[object, int] = field(default_factory=dict)
    _head: Checkpoint | None = None
    _head_place: str = ""
    _head_sequence: int = NO_HEAD

    def report(self, problem: str, sequence: int | None = None) -> None:
        """Note a problem and the first row that it puts in question.

        Raises
        ------
        TooManyProblemsError
            This was the last one that the verdict has room for.
        """
        self.problems.append(problem)
        if sequence is not None:
            known = self.broken_sequence
            self.broken_sequence = sequence if known is None else min(known, sequence)
        if len(self.problems) >= PROBLEMS_MAX:
            raise TooManyProblemsError

    def check_batch(self, connection: sqlite3.Connection, last: int) -> bool:
        """Check the next rows up to ``last`` and return whether there may be more.

        Raises
        ------
        sqlite3.Error
            A page cannot be read; rows before it have been checked.
        """
        read = 0
        producers = self._producers
        for stored in connection.execute(_SELECT, (self.sequence, last, BATCH_ROWS)):
            sequence, digest = stored[0], stored[10]
            try:
                computed = next_hash(self.digest, canonical_fields(*stored[:10]))
            except (TypeError, struct.error):
                computed = b""
            if computed != digest or sequence != self.sequence + 1:
                if type(sequence) is not int:
                    self.report(f"a row after row {self.sequence} has no number", self.sequence + 1)
                    return False
                digest = self._report_row(sequence, computed, digest)
            pair = stored[1:3]
            if stored[3] == producers.get(pair, 0) + 1:
                producers[pair] = stored[3]
            else:
                self._report_producer(sequence, stored)
            self.sequence, self.digest = sequence, digest
            read += 1
            self.rows += 1
            if sequence >= self._head_sequence:
                self.compare_heads()
        if len(producers) > PRODUCERS_MAX:
            self.report(f"there are more than {PRODUCERS_MAX} producers", self.sequence)
            return False
        return read == BATCH_ROWS

    def _report_row(self, sequence: int, computed: bytes, digest: object) -> bytes:
        expected = self.sequence + 1
        if sequence > expected:
            gap = f"row {expected} is" if sequence == expected + 1 else f"rows {expected} to "
            gap = gap if sequence == expected + 1 else f"{gap}{sequence - 1} are"
            self.report(f"{gap} missing", expected)
        elif sequence < expected:
            self.report(f"row {sequence} comes twice or out of order", sequence)
        elif not computed:
            self.report(f"row {sequence} holds values of wrong types", sequence)
        else:
            self.report(f"row {sequence} does not match its hash", sequence)
        # The stored hash is what the next row was chained to.
        is_hash = isinstance(digest, bytes) and len(digest) == HASH_BYTES
        return digest if is_hash and isinstance(digest, bytes) else computed

    def _report_producer(self, sequence: int, stored: StoredValues) -> None:
        epoch, producer, found = stored[1:4]
        pair = (epoch, producer)
        is_first = pair not in self._producers
        if not (is_first and self.is_partial):
            expected = self._producers.get(pair, 0) + 1
            self.report(
                f"row {sequence}: epoch {epoch!r}, producer {producer!r} is at record {found!r}, "
                f"expected {expected}",
                sequence,
            )
        if isinstance(found, int):
            self._producers[pair] = found

    def begin_after(self, sequence: int, digest: bytes, producers: Mapping[object, int]) -> None:
        """Go on after rows that are not at hand: where they ended is believed."""
        self.sequence, self.digest = sequence, digest
        self._producers.update(producers)
        while self._head is not None and self._head_sequence < sequence:
            self.next_head()
        self.compare_heads()

    def next_head(self) -> None:
        """Go to the next readable checkpoint."""
        self._head, self._head_sequence = None, NO_HEAD
        for place, found in self.checkpoints:
            if isinstance(found, Checkpoint):
                self._head_place, self._head = place, found
                self._head_sequence = found.sequence
                return
            self.report(found)

    def compare_heads(self) -> None:
        """Compare the checkpoints up to the row walked last with it."""
        lost: tuple[str, int] | None = None
        while (head := self._head) is not None and self._head_sequence <= self.sequence:
            if head.sequence < self.sequence:
                lost = lost or (self._head_place, head.sequence)
            elif head.head != self.digest or head.count != self.sequence:
                self.report(
                    f"row {head.sequence} is not the row that {self._head_place} "
                    "names: it or a row before it was replaced",
                    head.sequence,
                )
            self.heads_compared += 1
            self.next_head()
        if lost is not None:
            place, sequence = lost
            self.report(f"row {sequence} of {place} was not found in its place", sequence)

    def finish_heads(self) -> None:
        """Report checkpoints of rows past the end: they were durable once."""
        beyond, place = 0, ""
        while self._head is not None:
            if self._head_sequence > beyond:
                beyond, place = self._head_sequence, self._head_place
            self.heads_compared += 1
            self.next_head()
        if beyond:
            self.report(
                f"the log ends at row {self.sequence}, but {place} names row {beyond}: the "
                "tail is missing",
                self.sequence + 1,
            )
