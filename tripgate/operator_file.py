"""The operator's file: what people ordered, appended and fsynced before it takes effect.

``halt`` and ``resume`` must work when every actor is dead, so they write the page themselves and
leave their record here; the audit_writer takes new lines into the log, and the breaker and the
position_keeper act on them. A record's id is its line number, from 1; the file is append-only.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tripgate.errors import StateUnwritableError

FILE_NAME = "operator.jsonl"
RECORDS_MAX = 100_000


def append_record(state_folder: Path, record: dict[str, Any]) -> int:
    """Append a record durably and return its id.

    Raises
    ------
    StateUnwritableError
        The record could not be made durable; the command must not take effect.
    """
    path = state_folder / FILE_NAME
    try:
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            number = sum(1 for _ in file) + 1
            file.write(json.dumps({"id": number, **record}, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StateUnwritableError(
            f"cannot write {path} ({error.strerror}): free space there and try again"
        ) from None
    return number


def read_records(state_folder: Path, after: int) -> Iterator[dict[str, Any]]:
    """Yield records with an id above ``after``, in order; a torn last line is left for later."""
    path = state_folder / FILE_NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number <= after or not line.endswith(b"\n"):
                continue
            if number > RECORDS_MAX:
                return
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("id") == number:
                yield record
