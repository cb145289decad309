"""``tripgate audit export``: the rows of a log as JSON lines or CSV, decisions in words."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tripgate import clock
from tripgate.audit.export import FORMATS, Choice, export_lines
from tripgate.audit.numbers import NumbersTold
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.cli.audit import instance_with_log
from tripgate.cli.audit_rows import fields_of, kind_codes
from tripgate.cli.output import write_message
from tripgate.errors import StateUnwritableError, UsageError
from tripgate.instance import state_folder
from tripgate.messages import EventKind
from tripgate.spelling import did_you_mean


def export(
    instance: str | None = None,
    *,
    form: Annotated[str, Parameter(name="--format")] = "jsonl",
    begin: Annotated[str | None, Parameter(name="--from")] = None,
    end: Annotated[str | None, Parameter(name="--to")] = None,
    kind: list[str] | None = None,
    output: Path | None = None,
) -> int:
    """Print the rows of a log, oldest first, and the head that they end with.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    form
        jsonl or csv.
    begin
        Only rows from this moment on, like 2026-01-31 or 2026-01-31T08:00:00+00:00 (else UTC).
    end
        Only rows before this moment.
    kind
        Only rows of this event kind, by name or code; may be given several times.
    output
        Write to this file, which must not exist yet, instead of printing.
    """
    if form not in FORMATS:
        raise UsageError(
            f"--format is {' or '.join(FORMATS)}, was '{form}'{did_you_mean(form, FORMATS)}"
        )
    choice = Choice(_moment("--from", begin), _moment("--to", end), kind_codes(kind))
    if choice.from_ns is not None and choice.to_ns is not None and choice.to_ns <= choice.from_ns:
        raise UsageError(f"--to ({end}) is not after --from ({begin})")
    folder = state_folder(instance_with_log(instance)) / "audit"
    lines = export_lines(LogReader(folder), choice, form, _describer(folder))
    if output is None:
        sys.stdout.writelines(lines)
        return 0
    count = _write(output, lines)
    write_message(f"wrote {count} lines to {output}")
    return 0


def _describer(folder: Path) -> Callable[[StoredRow], dict[str, object]]:
    told = NumbersTold(folder)

    def describe(stored: StoredRow) -> dict[str, object]:
        fields = fields_of(stored)
        body = fields["body"]
        if stored.row.kind == EventKind.DECISION and isinstance(body, dict):
            for name, table in (("strategy", "strategies"), ("instrument", "instruments")):
                text = told.text(stored.row.epoch, table, body[name])
                body[name] = body[name] if text is None else text
        return fields

    return describe


def _moment(option: str, text: str | None) -> int | None:
    """Return a moment given as ISO 8601 in ns since 1970; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} is a moment like 2026-01-31T08:00:00+00:00, was '{text}'"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    return seconds * clock.NS_PER_S + since.microseconds * (clock.NS_PER_MS // 1000)


def _write(output: Path, lines: Iterable[str]) -> int:
    if output.exists():
        raise UsageError(f"{output} exists already: name another file, or move it away")
    temporary = output.with_name(f"{output.name}.new")
    count = 0
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, output)
    except OSError as error:
        raise StateUnwritableError(
            f"cannot write {output}: {error.strerror}: name another --output"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return count
