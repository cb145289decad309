"""What the writing process does: the real writer, through everything that its files can go through.

It commits batches of two producers, lets SQLite merge its write-ahead log many times, writes
checkpoints, is closed and opened again, crosses into the next month, has a sync refused, begins the
file after a retired one, and goes on there. After each call that returned it writes down what it
was told, in a file that the trace holds too: so that every moment knows what had been acknowledged.
"""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tripgate.audit import log_file
from tripgate.audit.heads import HEADS_NAME
from tripgate.audit.record import Row, pack_body
from tripgate.audit.segments import month_end_ns, segment_of
from tripgate.audit.store import AuditUnwritableError, LogWriter
from tripgate.errors import TripgateError

ACKNOWLEDGED_NAME = "acknowledged"
AUDIT_NAME, HEADS_FOLDER = "audit", "heads"
BATCHES = 44
BATCHES_PER_RESTART, NEW_MONTH_BATCH, FAILING_BATCH = 12, 20, 30
BATCHES_PER_CHECKPOINT = 3
BATCH_ROWS_MAX = 14
BODY_BYTES = (0, 900)
MERGE_PAGES = 24
"""SQLite merges its write-ahead log after this many pages instead of 1000, to do it often."""
NODES = 12
EPOCH = 7

SYNCHRONOUS_OFF = "synchronous-off"
FAITHFUL = "faithful"


@dataclass(frozen=True)
class Batch:
    """Rows of one call, and what happens around it."""

    number: int
    rows: list[Row]


def batches(utc_ns: int) -> Iterator[Batch]:
    """Yield what is appended, call by call; the same for the same first moment."""
    draw, last = Random(7), [0, 0]
    later_ns = month_end_ns(segment_of(utc_ns))
    for number in range(BATCHES):
        rows = []
        for _ in range(draw.randint(1, BATCH_ROWS_MAX)):
            producer = draw.randrange(2)
            last[producer] += 1
            body = {"n": last[producer], "filling": draw.randbytes(draw.randint(*BODY_BYTES))}
            rows.append(
                Row(
                    epoch=EPOCH, producer=producer, producer_sequence=last[producer],
                    utc_ns=(later_ns if number >= NEW_MONTH_BATCH else utc_ns) + number,
                    host_ns=number, market_ms=number, kind=number % 5, token=None,
                    body=pack_body(body),
                )
            )  # fmt: skip
        yield Batch(number, rows)


class Scribe:
    """Writes down what the writer has acknowledged, each time in one write."""

    def __init__(self, state: Path) -> None:
        self._heads = state / HEADS_FOLDER / HEADS_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(state / ACKNOWLEDGED_NAME, flags, 0o600)
        notes = (state / ACKNOWLEDGED_NAME).read_bytes().splitlines()
        told = json.loads(notes[-1])["rows"] if notes else {}
        self._rows = {int(producer): int(last) for producer, last in told.items()}

    def note(self, rows: list[Row]) -> None:
        """Note rows whose call returned, and the checkpoints that are in the file by now."""
        for row in rows:
            known = self._rows.get(row.producer, 0)
            self._rows[row.producer] = max(known, row.producer_sequence)
        heads = self._heads.read_bytes().count(b"\n")
        note = {"rows": {str(key): last for key, last in self._rows.items()}, "heads": heads}
        os.write(self._descriptor, json.dumps(note).encode() + b"\n")


def relax(name: str, value: str) -> None:
    """Change one of the settings that the product's log file makes.

    Raises
    ------
    TripgateError
        There is no such setting any more: what was to be shown would not be shown.
    """
    settings = log_file._SETTINGS
    if not any(setting.startswith(f"{name}=") for setting in settings):
        raise TripgateError(f"the log file has no setting {name} any more: this drill is stale")
    log_file._SETTINGS = tuple(
        f"{name}={value}" if setting.startswith(f"{name}=") else setting for setting in settings
    )


def fail_next_sync(suffix: str) -> None:
    """Let the next sync of a file whose name ends so fail; only under the shim."""
    ctypes.CDLL(os.environ["LD_PRELOAD"]).tripgate_fail_next_sync(suffix.encode())


def run(state: Path, utc_ns: int, variant: str) -> None:
    """Write the log from its first row to its last."""
    log_file._SETTINGS = (*log_file._SETTINGS, f"wal_autocheckpoint={MERGE_PAGES}")
    if variant == SYNCHRONOUS_OFF:
        relax("synchronous", "OFF")
    folders = state / AUDIT_NAME, state / HEADS_FOLDER
    sums = {f"instrument:venue/PAIR-{number}": 10**12 + number for number in range(NODES)}
    scribe, writer = Scribe(state), LogWriter(*folders)
    scribe.note([])
    for batch in batches(utc_ns):
        if batch.number % BATCHES_PER_RESTART == BATCHES_PER_RESTART - 1:
            writer.close()
            writer = LogWriter(*folders)
            scribe.note([])
        if batch.number == FAILING_BATCH:
            fail_next_sync("-wal")
        try:
            writer.append(batch.rows)
        except AuditUnwritableError:
            writer = LogWriter(*folders)
            scribe.note([])
            writer.append(batch.rows)
        scribe.note(batch.rows)
        if batch.number % BATCHES_PER_CHECKPOINT == 0:
            writer.checkpoint(sums, batch.number, utc_ns)
            scribe.note([])
    writer.close()
    scribe.note([])


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
