"""The verifier: recomputes every hash of a log and compares it with what lies beside it.

It believes nothing in a file: malformed pages, missing tables, values of wrong types and changed
triggers are problems to report, never errors to stop at. It finds every change of a stored row,
every missing, doubled or reordered row, a changed schema, missing files, and a tail cut off before
the last checkpoint. It cannot find the loss of rows younger than the last checkpoint, nor a log
that was forged or rolled back as a whole together with its heads: so heads that were kept elsewhere
can be given too. Months that were archived and removed are believed to be what their markers say;
their archives are verified by themselves (``archive``).

Invariants: V1 a ``Verdict`` comes back, whatever the folders hold; V2 ``verified`` is true only if
there is no problem; V3 nothing in the log is changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.heads import HEADS_NAME, merge_notes, notes_of
from tripgate.audit.pruned import list_pruned, read_pruned
from tripgate.audit.schema import Meta, read_meta, schema_problems
from tripgate.audit.segments import (
    RETIRED_SUFFIX,
    UNREADABLE,
    Retirement,
    Segment,
    list_segments,
    meta_of,
    open_read_only,
    read_retirement,
)
from tripgate.audit.walk import TooManyProblemsError, Walk
from tripgate.errors import ChainBrokenError

Progress = Callable[[int], None]
"""Is called with the number of rows checked so far, after each batch."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier found.

    Attributes
    ----------
    rows, head
        Rows read, and the hash stored with the last of them (hex).
    verified
        Whether there was no problem.
    problems
        One line each, at most ``PROBLEMS_MAX``.
    broken_sequence
        First row that cannot be believed; None if no row is in question.
    files, checkpoints
        Files read, and checkpoints compared.
    begins_after, archive
        The row before the first one that is here, and the archive that holds it; 0 and "" for a log
        that is here from its beginning.
    """

    rows: int
    head: str
    verified: bool
    problems: list[str]
    broken_sequence: int | None
    files: int
    checkpoints: int
    begins_after: int = 0
    archive: str = ""


def _verdict(walk: Walk, files: int, begins_after: int = 0, archive: str = "") -> Verdict:
    return Verdict(
        rows=walk.rows,
        head=walk.digest.hex(),
        verified=not walk.problems,
        problems=walk.problems,
        broken_sequence=walk.broken_sequence,
        files=files,
        checkpoints=walk.heads_compared,
        begins_after=begins_after,
        archive=archive,
    )


def _no_progress(rows: int) -> None:
    del rows


def verify(
    audit_folder: Path,
    heads_folder: Path,
    *,
    outside: Sequence[Path] = (),
    progress: Progress = _no_progress,
) -> Verdict:
    """Verify a whole log. It may be running: what is there when a file's turn comes is checked.

    Parameters
    ----------
    outside
        Copies of the heads that were kept elsewhere: they are compared as well.
    """
    own = notes_of(heads_folder / HEADS_NAME, HEADS_NAME)
    walk = Walk(merge_notes(own, *(notes_of(path, str(path)) for path in outside)))
    segments = list_segments(audit_folder)
    begins_after, archive = 0, ""
    try:
        # The heads are read before the rows: each names a row that was durable by then.
        walk.next_head()
        walk.compare_heads()
        if not segments:
            walk.report(f"there is no log in {audit_folder}")
        begins_after, archive = _pass_pruned(walk, audit_folder)
        metas = [meta_of(audit_folder, segment) for segment in segments]
        for index, segment in enumerate(segments):
            following = metas[index + 1] if index + 1 < len(segments) else None
            marker = _read_marker(walk, audit_folder, segment)
            _check_joint(walk, segment, metas[index])
            _check_file(
                walk,
                audit_folder / segment.name,
                _last_row(walk, segment, following, marker),
                progress,
            )
            if marker and (walk.sequence, walk.digest) != (marker.sequence, marker.head):
                walk.report(
                    f"{segment.name} had been acknowledged up to row {marker.sequence}, but ends "
                    f"at row {walk.sequence} or in another hash",
                    min(walk.sequence + 1, marker.sequence),
                )
        walk.finish_heads()
        if not walk.heads_compared and (heads_folder / HEADS_NAME).exists():
            # A writer notes a head before its first row.
            walk.report("heads.jsonl names no row: rows cut off at the end cannot be noticed")
    except TooManyProblemsError:
        pass
    return _verdict(walk, len(segments), begins_after, archive)


def _pass_pruned(walk: Walk, folder: Path) -> tuple[int, str]:
    """Walk past the markers of removed files; return the last row they stand for and its place."""
    archive = ""
    for segment in list_pruned(folder):
        try:
            pruned, kept = read_pruned(folder, segment)
        except ChainBrokenError as error:
            walk.report(str(error), walk.sequence + 1)
            continue
        meta = Meta(pruned.previous_sequence, pruned.previous_hash, None)
        _check_joint(walk, segment, meta)
        if any(not pruned.previous_sequence < row[0] <= pruned.sequence for row in kept):
            walk.report(f"the marker of {segment.name} keeps rows that the file cannot have held")
        walk.begin_after(pruned.sequence, pruned.head, dict(pruned.last_sequences))
        archive = pruned.archive
    return walk.sequence, archive


def verify_file(path: Path, *, progress: Progress = _no_progress) -> Verdict:
    """Verify one file by itself: where it joins the chain is believed, heads are not compared."""
    walk = Walk(iter(()))
    try:
        if meta := _meta_of_file(path):
            walk.sequence, walk.digest = meta.previous_sequence, meta.previous_hash
            walk.is_partial = meta.previous_sequence > 0
        else:
            walk.report(f"{path.name} does not say where it joins the chain")
        _check_file(walk, path, None, progress)
    except TooManyProblemsError:
        pass
    return _verdict(walk, 1)


def _meta_of_file(path: Path) -> Meta | None:
    try:
        connection = open_read_only(path)
        try:
            return read_meta(connection)
        finally:
            connection.close()
    except UNREADABLE:
        return None


def _read_marker(walk: Walk, folder: Path, segment: Segment) -> Retirement | None:
    try:
        return read_retirement(folder, segment)
    except ChainBrokenError as error:
        walk.report(str(error))
        return None


def _check_joint(walk: Walk, segment: Segment, meta: Meta | None) -> None:
    if meta is None:
        walk.report(f"{segment.name} does not say where it joins the chain", walk.sequence + 1)
        return
    if meta.previous_sequence != walk.sequence:
        before = f" ({meta.previous_file})" if meta.previous_file else ""
        walk.report(
            f"{segment.name} follows row {meta.previous_sequence}{before}, but the rows before it "
            f"end at row {walk.sequence}: a file or rows are missing",
            min(walk.sequence, meta.previous_sequence) + 1,
        )
    elif meta.previous_hash != walk.digest:
        walk.report(
            f"{segment.name} follows another row {walk.sequence} than the one before it",
            max(walk.sequence, 1),
        )
    walk.sequence, walk.digest = meta.previous_sequence, meta.previous_hash


def _last_row(
    walk: Walk, segment: Segment, following: Meta | None, marker: Retirement | None
) -> int | None:
    if following is None:
        return marker.sequence if marker else None
    if marker and following.previous_sequence != marker.sequence:
        walk.report(
            f"{segment.name}{RETIRED_SUFFIX} says row {marker.sequence}, but the next file follows "
            f"row {following.previous_sequence}",
            min(marker.sequence, following.previous_sequence) + 1,
        )
    # Without a marker nothing may lie beyond the row that the next file follows.
    return marker.sequence if marker else None


def _check_file(walk: Walk, path: Path, last: int | None, progress: Progress) -> None:
    try:
        connection = open_read_only(path)
    except UNREADABLE as error:
        walk.report(f"{path.name} cannot be opened: {error}", walk.sequence + 1)
        return
    try:
        for problem in schema_problems(connection):
            walk.report(f"{path.name}: {problem}")
        kind = connection.execute("SELECT type FROM sqlite_schema WHERE name = 'log'").fetchone()
        if kind != ("table",):
            walk.report(f"{path.name} has no table of rows", walk.sequence + 1)
            return
        # The end is fixed now: a writer faster than this walk must not make it endless.
        (end,) = connection.execute("SELECT max(seq) FROM log").fetchone()
        if end is not None and not isinstance(end, int):
            walk.report(f"{path.name} holds a row whose number is no integer", walk.sequence + 1)
        if not isinstance(end, int):
            end = walk.sequence
        end = end if last is None else min(end, last)
        while walk.check_batch(connection, end):
            progress(walk.rows)
        progress(walk.rows)
        for (answer,) in connection.execute("PRAGMA integrity_check(1)"):
            if answer != "ok":
                walk.report(f"{path.name} is damaged: {answer}")
    except UNREADABLE as error:
        walk.report(
            f"{path.name} cannot be read after row {walk.sequence}: {error}", walk.sequence + 1
        )
    finally:
        connection.close()
