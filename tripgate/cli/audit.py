"""``tripgate audit``: verify the chain of a log, print its rows.

Both read files alone: they work for an instance that runs and for one that has long stopped.
"""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tripgate import clock
from tripgate.audit.heads import HEADS_NAME
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import RecordError, unpack_body
from tripgate.audit.segments import list_segments
from tripgate.audit.verify import Verdict, verify_file
from tripgate.audit.verify import verify as verify_log
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.errors import ChainBrokenError, NotRunningError, UsageError
from tripgate.gate.record import FLAG_SHADOW, unpack_record
from tripgate.instance import known_instances, pick_instance, running_instances, state_folder
from tripgate.messages import EventKind
from tripgate.reasons import Level

QUERY_ROWS_MAX = 100_000
_PROGRESS_NS = clock.NS_PER_S

_ADVICE = (
    "Do not write to the log and keep the folders audit and heads as they are: copy both. Then "
    "compare with a copy or with a head that was kept elsewhere."
)


def verify(instance: str | None = None, *, file: Path | None = None, json: bool = False) -> int:
    """Recompute the hash chain of a log: exit 0 if it holds, 30 if it is broken, 3 if none.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    file
        Verify this one file by itself instead; its place in the chain is believed.
    json
        Print one JSON object instead of text.
    """
    if file is not None:
        if instance is not None:
            raise UsageError("name an instance or a --file, not both")
        if not file.is_file():
            raise NotRunningError(f"there is no log file {file}")
        name, verdict = str(file), verify_file(file, progress=_progress())
    else:
        name = _instance_with_log(instance)
        folder = state_folder(name)
        verdict = verify_log(folder / "audit", folder / "heads", progress=_progress())
    if json:
        write_json(
            {
                "log": name,
                "verified": verdict.verified,
                "rows": verdict.rows,
                "head": verdict.head,
                "broken_sequence": verdict.broken_sequence,
                "problems": verdict.problems,
                "files": verdict.files,
                "checkpoints": verdict.checkpoints,
            }
        )
    else:
        _write_verdict(name, verdict)
    return 0 if verdict.verified else ChainBrokenError.exit_code


def query(
    instance: str | None = None,
    *,
    kind: list[int] | None = None,
    epoch: int | None = None,
    limit: int = 20,
    json: bool = False,
) -> int:
    """Print the newest rows of a log, oldest first.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    kind
        Only rows of this event kind code; may be given several times.
    epoch
        Only rows of this epoch.
    limit
        How many rows, at most.
    json
        Print one JSON object instead of text.
    """
    if not 1 <= limit <= QUERY_ROWS_MAX:
        raise UsageError(f"--limit is 1 to {QUERY_ROWS_MAX}, was {limit}")
    name = _instance_with_log(instance)
    reader = LogReader(state_folder(name) / "audit")
    rows = [_fields(row) for row in reader.newest(limit, kinds=kind, epoch=epoch)]
    if json:
        write_json({"log": name, "rows": rows})
        return 0
    for row in rows:
        write_line("  ".join(f"{key}={value}" for key, value in row.items() if key != "hash"))
    return 0


def _write_verdict(name: str, verdict: Verdict) -> None:
    extent = f"{verdict.rows} rows, {verdict.files} files, {verdict.checkpoints} checkpoints"
    if verdict.verified:
        write_line(f"{name}: verified: {extent}, head {verdict.head}")
        return
    where = ""
    if verdict.broken_sequence is not None:
        where = f" from row {verdict.broken_sequence} on"
    write_line(f"{name}: BROKEN{where}: {extent}")
    for problem in verdict.problems:
        write_line(f"  {problem}")
    write_message(_ADVICE)


def _instance_with_log(name: str | None) -> str:
    wanted = name or os.environ.get("TRIPGATE_INSTANCE") or None
    if wanted is not None or running_instances():
        picked = pick_instance(wanted)
        if _written_ns(picked) is None:
            raise NotRunningError(f"instance '{picked}' has no audit log yet")
        return picked
    written = [(when, known) for known in known_instances() if (when := _written_ns(known))]
    if not written:
        raise NotRunningError("there is no audit log yet: start an instance with `tripgate paper`")
    return max(written)[1]


def _written_ns(instance: str) -> int | None:
    """Return when an instance's log or heads were written last, ns since 1970; None if neither."""
    folder = state_folder(instance)
    names = [segment.name for segment in list_segments(folder / "audit")]
    paths = [folder / "audit" / name for name in (*names, *(f"{name}-wal" for name in names))]
    paths.append(folder / "heads" / HEADS_NAME)
    times = [path.stat().st_mtime_ns for path in paths if path.exists()]
    return max(times, default=None)


def _progress() -> Callable[[int], None]:
    started = reported = clock.host_ns()

    def report(rows: int) -> None:
        nonlocal reported
        now = clock.host_ns()
        if sys.stderr.isatty() and now - reported >= _PROGRESS_NS:
            reported = now
            write_message(f"{rows} rows in {(now - started) // clock.NS_PER_S} s")

    return report


def _fields(stored: StoredRow) -> dict[str, object]:
    row = stored.row
    return {
        "sequence": stored.sequence,
        "utc": _utc_text(row.utc_ns),
        "epoch": row.epoch,
        "producer": row.producer,
        "producer_sequence": row.producer_sequence,
        "host_ns": row.host_ns,
        "market_ms": row.market_ms,
        "kind": row.kind,
        "token": row.token,
        "body": _decision(row.body) if row.kind == EventKind.DECISION else _body(row.body),
        "hash": stored.hash.hex(),
    }


def _utc_text(utc_ns: int) -> str:
    seconds, rest_ns = divmod(utc_ns, clock.NS_PER_S)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return str(utc_ns)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z"


def _decision(body: bytes) -> object:
    """Return a decision in words; on a shadow page also what an enforcing gate would have said."""
    try:
        record = unpack_record(body)
        level = Level(record.level)
    except ValueError:
        return body.hex()  # Not a record: shown as it lies there, for whoever looks for the damage.
    reason = None if record.reason is None else record.reason.name
    return {
        "approved": record.approved,
        "reason": None if record.approved else reason,
        "shadow": bool(record.flags & FLAG_SHADOW),
        "would_deny": reason if record.would_deny else None,
        "flags": record.flags,
        "level": level.name,
        "strategy": record.strategy,
        "instrument": record.instrument,
        "limits_version": record.limits_version,
        **record.values,
        "gross_before": list(record.gross_before),
        "side_before": list(record.side_before),
    }


def _body(body: bytes) -> object:
    try:
        return _plain(unpack_body(body))
    except RecordError:
        return body.hex()


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value
