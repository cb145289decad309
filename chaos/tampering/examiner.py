"""The process that examines: verifier, reader and writer, run on whatever they are given.

It is a process of its own with a bounded memory, so that a verifier that hangs, eats memory or dies
is seen as that. It answers each line of its standard input, a JSON object, by one. Anything that
the examined parts raise beyond the errors they promise is part of the answer, never an end.
"""

import json
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from tripgate.audit.reader import LogReader
from tripgate.audit.store import LogWriter
from tripgate.audit.verify import verify
from tripgate.errors import ChainBrokenError, TripgateError

Result = TypeVar("Result")

MEMORY_BYTES = 512 * 2**20
"""Address space beyond what the process starts with: a few times what it ever needs."""


ROWS_OF_UNSOUND = 300


@dataclass(frozen=True)
class Question:
    """What is to be examined: a state folder, and of its rows the first ``rows``."""

    state: str
    heads: str
    rows: int


@dataclass(frozen=True)
class Answer:
    """What was seen.

    Attributes
    ----------
    problems
        The verifier's.
    count, digest
        Rows read, at most as many as asked for, and the hash of all that is in them; None where the
        reader says that the log is broken.
    accidents
        What was raised and should not have been.
    """

    problems: list[str]
    count: int
    digest: str | None
    accidents: list[str]


def examine(question: Question) -> Answer:
    """Verify, read, and let a writer try to begin."""
    audit, heads = Path(question.state) / "audit", Path(question.heads)
    accidents: list[str] = []
    verdict = _guarded(lambda: verify(audit, heads), accidents)
    is_sound = verdict is not None and not verdict.problems
    read = _guarded(lambda: _read(audit, question.rows, is_sound), accidents)
    if heads == audit.with_name("heads"):
        # Last, because a writer that begins adds to the log.
        _guarded(lambda: LogWriter(audit, heads).close(), accidents, TripgateError)
    count, digest = read or (0, None)
    return Answer(
        verdict.problems if verdict else ["none: see accidents"], count, digest, accidents
    )


def _read(audit: Path, rows: int, is_sound: bool) -> tuple[int, str]:
    """Read the rows: all of a log said to be sound, of another one what shows a reader falling."""
    digest, count = sha256(), 0
    reader = LogReader(audit)
    for stored in reader.rows(limit=rows if is_sound else ROWS_OF_UNSOUND):
        digest.update(repr((stored.sequence, stored.row, stored.hash)).encode())
        count += 1
    reader.newest(ROWS_OF_UNSOUND)
    reader.count_by_kind()
    return count, digest.hexdigest()


def _guarded(
    act: Callable[[], Result], accidents: list[str], promised: type[Exception] = ChainBrokenError
) -> Result | None:
    try:
        return act()
    except promised:
        return None
    except Exception:  # whatever else is raised is what this looks for
        accidents.append(traceback.format_exc()[-400:])
        return None


def main() -> None:
    """Answer until standard input ends."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(examine(Question(**json.loads(line))))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
