"""The operator's file: what people ordered, appended and fsynced before it takes effect.

Operators' commands must work when every actor is dead, so ``halt`` and ``resume`` write the page
themselves, and all leave their record here; the audit_writer takes new lines into the log, and the
breaker and the position_keeper act on them. A record's id is its line number, from 1; the file is
append-only.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tripgate.errors import StateUnwritableError

FILE_NAME = "operator.jsonl"
RECORDS_MAX = 100_000
RESOLVE_COMMAND = "orders resolve"
RESOLVE_STATES = ("FILLED", "CANCELLED", "REJECTED")
"""How an operator may say that an order ended."""


def append_record(state_folder: Path, record: dict[str, Any]) -> int:
    """Append a record durably and return its id. Raises as ``append_records`` does."""
    return append_records(state_folder, [record])[0]


def append_records(state_folder: Path, records: Sequence[dict[str, Any]]) -> list[int]:
    """Append records durably, all with one flush to the disk, and return their ids.

    Raises
    ------
    StateUnwritableError
        They could not be made durable; the command must not take effect.
    """
    path = state_folder / FILE_NAME
    try:
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            first = sum(1 for _ in file) + 1
            numbers = list(range(first, first + len(records)))
            file.writelines(
                json.dumps({"id": number, **record}, sort_keys=True).encode() + b"\n"
                for number, record in zip(numbers, records, strict=True)
            )
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StateUnwritableError(
            f"cannot write {path} ({error.strerror}): free space there and try again"
        ) from None
    return numbers


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
