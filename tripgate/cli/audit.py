"""``tripgate audit``: verify the chain of a log, print its rows.

Both read files alone: they work for an instance that runs and for one that has long stopped.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tripgate import clock
from tripgate.audit.heads import HEADS_NAME
from tripgate.audit.reader import LogReader
from tripgate.audit.segments import list_segments
from tripgate.audit.verify import Verdict, verify_file
from tripgate.audit.verify import verify as verify_log
from tripgate.cli.audit_rows import fields_of, kind_codes
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.errors import ChainBrokenError, NotRunningError, UsageError
from tripgate.instance import known_instances, pick_instance, running_instances, state_folder

QUERY_ROWS_MAX = 100_000
_PROGRESS_NS = clock.NS_PER_S

_ADVICE = (
    "Do not write to the log and keep the folders audit and heads as they are: copy both. Then "
    "compare with a copy or with a head that was kept elsewhere."
)


def verify(
    instance: str | None = None,
    *,
    file: Path | None = None,
    archive: Path | None = None,
    heads: list[Path] | None = None,
    json: bool = False,
) -> int:
    """Recompute the hash chain of a log: exit 0 if it holds, 30 if it is broken, 3 if none.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    file
        Verify this one file by itself instead; its place in the chain is believed.
    archive
        Verify this one archive by itself instead; its place in the chain is believed.
    heads
        Compare also with this file of heads, kept elsewhere; may be given several times.
    json
        Print one JSON object instead of text.
    """
    if len([given for given in (instance, file, archive) if given is not None]) > 1:
        raise UsageError("name an instance, a --file or an --archive, not several of them")
    if heads and (file is not None or archive is not None):
        raise UsageError("--heads is compared with a whole log: leave --file and --archive out")
    for path in (file, archive, *(heads or ())):
        if path is not None and not path.is_file():
            raise NotRunningError(f"there is no file {path}")
    if archive is not None:
        name, verdict = str(archive), _verify_archive(archive)
    elif file is not None:
        name, verdict = str(file), verify_file(file, progress=progress())
    else:
        name = instance_with_log(instance)
        state = state_folder(name)
        verdict = verify_log(
            state / "audit", state / "heads", outside=heads or (), progress=progress()
        )
    if json:
        write_json({"log": name, **dataclasses.asdict(verdict)})
    else:
        _write_verdict(name, verdict)
    return 0 if verdict.verified else ChainBrokenError.exit_code


def _verify_archive(path: Path) -> Verdict:
    # Only archives need pyarrow, and it is slow to import.
    from tripgate.audit.archive import verify_archive

    found = verify_archive(path, progress())
    return Verdict(
        found.rows, found.head, not found.problems, found.problems, None, files=1, checkpoints=0,
        begins_after=found.extent.previous_sequence if found.extent else 0,
    )  # fmt: skip


def query(
    instance: str | None = None,
    *,
    kind: list[str] | None = None,
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
        Only rows of this event kind, by name or code; may be given several times.
    epoch
        Only rows of this epoch.
    limit
        How many rows, at most.
    json
        Print one JSON object instead of text.
    """
    if not 1 <= limit <= QUERY_ROWS_MAX:
        raise UsageError(f"--limit is 1 to {QUERY_ROWS_MAX}, was {limit}")
    name = instance_with_log(instance)
    reader = LogReader(state_folder(name) / "audit")
    rows = [fields_of(row) for row in reader.newest(limit, kinds=kind_codes(kind), epoch=epoch)]
    if json:
        write_json({"log": name, "rows": rows})
        return 0
    for row in rows:
        write_line("  ".join(f"{key}={value}" for key, value in row.items() if key != "hash"))
    return 0


def _write_verdict(name: str, verdict: Verdict) -> None:
    extent = f"{verdict.rows} rows, {verdict.files} files, {verdict.checkpoints} checkpoints"
    if verdict.begins_after:
        after = f", after archive {verdict.archive}" if verdict.archive else ""
        extent += f", begins at row {verdict.begins_after + 1}{after}"
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


def instance_with_log(name: str | None) -> str:
    """Return whose log is meant: the one named or running, else the one written last.

    Raises
    ------
    NotRunningError
        There is no log.
    """
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


def progress() -> Callable[[int], None]:
    """Return what tells people at a terminal once a second how many rows are done."""
    started = reported = clock.host_ns()

    def report(rows: int) -> None:
        nonlocal reported
        now = clock.host_ns()
        if sys.stderr.isatty() and now - reported >= _PROGRESS_NS:
            reported = now
            write_message(f"{rows} rows in {(now - started) // clock.NS_PER_S} s")

    return report
