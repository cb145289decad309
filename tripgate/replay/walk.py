"""The walk along the log: verifies each row it reads, hands it to its kind's handler, judges late.

A decision is judged only once a later checkpoint has been reached: by then the records that explain
what it read, whoever wrote them, are there. Heads are walked beside the rows, as the verifier does.

Invariants: W1 memory holds what waits for the next checkpoint and what is held, never the log;
W2 a row whose hash does not follow is never judged.
"""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tripgate.audit.chain import GENESIS, next_hash
from tripgate.audit.heads import HEADS_NAME, Checkpoint, read_checkpoints
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import canonical
from tripgate.clock import NS_PER_S
from tripgate.errors import ChainBrokenError

SETTLE_NS = 3 * NS_PER_S
"""Host time after which whatever explains a record stands in the log: more than the longest check
and the widest span around a level's change together with a drain."""
WAITING_MAX = 200_000
"""Judgements that wait at once; beyond them the oldest half is judged early."""

Judge = Callable[[], None]
Progress = Callable[[int], None]


class Waiting(NamedTuple):
    """A judgement to be made once host time ``host_ns`` lies long enough behind."""

    host_ns: int
    judge: Judge


class Chain:
    """The rows of a log in their order, each verified before it is handed out.

    Parameters
    ----------
    audit_folder, heads_folder
        Where rows and heads lie.
    at_head
        Called with each head once the row it names has been handed out.
    """

    def __init__(
        self, audit_folder: Path, heads_folder: Path, at_head: Callable[[Checkpoint], None]
    ) -> None:
        self._reader = LogReader(audit_folder)
        self._heads_folder = heads_folder
        self._at_head = at_head
        self._digest = GENESIS
        self._sequence = 0
        self._producers: dict[tuple[int, int], int] = {}
        self.begins_late = False

    def rows(self) -> Iterator[StoredRow]:
        """Yield the rows.

        Raises
        ------
        ChainBrokenError
            A row does not follow the one before it, or a head names another row or none.
        """
        heads = self._heads()
        # The heads are read first: each names a row that was durable by then.
        head = next(heads, None)
        for stored in self._reader.rows():
            self._verify(stored)
            yield stored
            while head is not None and head.sequence <= stored.sequence:
                self._compare(head, stored)
                head = next(heads, None)
        if head is not None:
            raise ChainBrokenError(
                f"the log ends at row {self._sequence}, but a head names row {head.sequence}: "
                "run `tripgate audit verify`"
            )

    def _heads(self) -> Iterator[Checkpoint]:
        try:
            for line, checkpoint in read_checkpoints(self._heads_folder / HEADS_NAME):
                if checkpoint is None:
                    raise ChainBrokenError(f"heads.jsonl line {line} is no checkpoint")
                yield checkpoint
        except OSError as error:
            raise ChainBrokenError(f"heads.jsonl cannot be read ({error.strerror})") from None

    def _verify(self, stored: StoredRow) -> None:
        row, sequence = stored.row, stored.sequence
        if not self._sequence and sequence > 1:
            # What came before is in an archive: where the log begins is believed.
            self.begins_late = True
        elif next_hash(self._digest, canonical(row, sequence)) != stored.hash or (
            sequence != self._sequence + 1
        ):
            raise ChainBrokenError(
                f"row {sequence} does not follow row {self._sequence}: run `tripgate audit verify`"
            )
        pair = row.epoch, row.producer
        before = self._producers.get(pair, 0)
        is_first = pair not in self._producers and self.begins_late
        if row.producer_sequence != before + 1 and not is_first:
            raise ChainBrokenError(
                f"row {sequence}: record {before + 1} of producer {row.producer} is missing: "
                "run `tripgate audit verify`"
            )
        self._producers[pair] = row.producer_sequence
        self._sequence, self._digest = sequence, stored.hash

    def _compare(self, head: Checkpoint, stored: StoredRow) -> None:
        if head.sequence != stored.sequence:
            return  # of the part that is archived, or before the first row
        if head.head != stored.hash:
            raise ChainBrokenError(
                f"row {head.sequence} is not the row that a head names: run `tripgate audit verify`"
            )
        self._at_head(head)


class Judgements:
    """What waits to be judged, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()

    @property
    def oldest_ns(self) -> int | None:
        """Host time of the oldest one."""
        return min((one.host_ns for one in self._waiting), default=None)

    def add(self, host_ns: int, judge: Judge) -> None:
        """Let something wait."""
        self._waiting.append(Waiting(host_ns, judge))
        if len(self._waiting) > WAITING_MAX:
            for _ in range(WAITING_MAX // 2):
                self._waiting.popleft().judge()

    def settle(self, now_ns: int) -> None:
        """Judge whatever lies long enough behind."""
        kept: deque[Waiting] = deque()
        for one in self._waiting:
            if one.host_ns <= now_ns - SETTLE_NS:
                one.judge()
            else:
                kept.append(one)
        self._waiting = kept

    def settle_all(self) -> None:
        """Judge everything: the run is over."""
        while self._waiting:
            self._waiting.popleft().judge()
