"""Logs for the tests of the audit log: made by its own writer, then damaged from outside."""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tripgate import clock
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import Row, pack_body
from tripgate.audit.schema import TRIGGERS
from tripgate.audit.segments import list_segments, month_end_ns, segment_of
from tripgate.audit.store import LogWriter
from tripgate.audit.verify import Verdict, verify

ROOT = Path(__file__).resolve().parents[2]
HOUR_NS = 3600 * clock.NS_PER_S
CHILD_BOUND_S = 60


def start_ns() -> int:
    """Return a moment of this month, so that rows go into the file that a writer opens first."""
    return clock.utc_ns()


def next_month_ns(utc_ns: int) -> int:
    """Return the first moment of the month after ``utc_ns``."""
    return month_end_ns(segment_of(utc_ns))


def make_rows(
    count: int, *, first: int = 1, producer: int = 0, epoch: int = 1, utc_ns: int | None = None
) -> list[Row]:
    """Return rows ``first``… of one producer, every third with a token."""
    base = start_ns() if utc_ns is None else utc_ns
    return [
        Row(
            epoch=epoch,
            producer=producer,
            producer_sequence=sequence,
            utc_ns=base + sequence,
            host_ns=10**12 + sequence,
            market_ms=1_700_000_000_000 + sequence,
            kind=sequence % 5,
            token=sequence * 7 if sequence % 3 == 0 else None,
            body=pack_body({"sequence": sequence, "text": "ab" * (sequence % 9)}),
        )
        for sequence in range(first, first + count)
    ]


@dataclass(frozen=True)
class Folders:
    """A state folder's two folders of the log."""

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
        return self.heads / "heads.jsonl"

    def writer(self) -> LogWriter:
        """Return a new writer."""
        return LogWriter(self.audit, self.heads)

    def verify(self) -> Verdict:
        """Return the verifier's verdict."""
        return verify(self.audit, self.heads)

    def rows(self) -> list[StoredRow]:
        """Return all rows."""
        return list(LogReader(self.audit).rows())

    def paths(self) -> list[Path]:
        """Return the log's files in order."""
        return [self.audit / segment.name for segment in list_segments(self.audit)]

    def copy_to(self, state: Path) -> "Folders":
        """Return a copy in another place."""
        shutil.copytree(self.state, state)
        return Folders(state)


def make_log(state: Path, *, rows: int = 300, batch: int = 50) -> Folders:
    """Return a log of ``rows`` rows of two producers, a checkpoint per batch, closed cleanly."""
    folders = Folders(state)
    with folders.writer() as writer:
        for first in range(1, rows // 2 + 1, batch // 2):
            for producer in range(2):
                writer.append(make_rows(batch // 2, first=first, producer=producer))
            writer.checkpoint({"portfolio": first}, clock.host_ns(), clock.utc_ns())
    return folders


@contextlib.contextmanager
def unguarded(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a log file as an attacker does: without triggers, which stand again afterwards."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        for (name,) in found.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for sql in TRIGGERS:
            connection.execute(sql)
    finally:
        connection.close()


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with the checkout on its path."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=CHILD_BOUND_S,
        check=False,
    )


def first_number(text: str) -> int:
    """Return the first number in a text."""
    found = re.search(r"\d+", text)
    assert found is not None
    return int(found[0])


def with_body(row: Row, body: bytes) -> Row:
    """Return the row with another body."""
    return replace(row, body=body)
