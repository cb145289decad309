"""``tripgate audit replay``: decide every decision on record again, rebuild what was held.

Reads files alone, like ``audit verify``, and verifies each row it reads.
"""

from collections.abc import Iterator
from typing import Any

from tripgate import clock
from tripgate.cli.audit import instance_with_log, progress
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.errors import ReplayMismatchError, UsageError
from tripgate.instance import state_folder
from tripgate.replay.decided import REASONS, Decidable
from tripgate.replay.replayer import Replayer
from tripgate.replay.report import Report

_ADVICE = (
    "Keep the folders audit and heads as they are, and do not resume what they disagree about. "
    "`tripgate audit query` shows the rows; docs/replay.md says what each comparison means."
)


def replay(
    instance: str | None = None,
    *,
    epoch: int | None = None,
    from_row: int = 1,
    json: bool = False,
) -> int:
    """Decide a log's decisions again: exit 0 if all agree, 31 if not, 30 broken chain, 3 no log.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    epoch
        Judge this run alone; runs before it are read for what they left.
    from_row
        Judge from this row on; rows before it are read for what they left.
    json
        Print one JSON object instead of text.
    """
    if from_row < 1 or (epoch is not None and epoch < 1):
        raise UsageError("rows and epochs are counted from 1")
    name = instance_with_log(instance)
    folder = state_folder(name)
    replayer = Replayer(folder / "audit", folder / "heads", epoch=epoch, from_row=from_row)
    started_ns = clock.host_ns()
    report = replayer.replay(progress())
    seconds = (clock.host_ns() - started_ns) / clock.NS_PER_S
    rate = round(report.rows / seconds) if seconds > 0 else 0
    if json:
        write_json({"log": name, **report.to_json(), "rows_per_s": rate})
    else:
        for line in _lines(name, report, rate):
            write_line(line)
        if report.mismatch_count:
            write_message(_ADVICE)
    return ReplayMismatchError.exit_code if report.mismatch_count else 0


def _lines(name: str, report: Report, rate: int) -> Iterator[str]:
    verdict = f"{report.mismatch_count} MISMATCHES" if report.mismatch_count else "equal"
    yield f"{name}: {verdict}: {report.rows} rows, {rate} rows/s"
    if report.is_partial:
        yield "the log's beginning is not here: nothing was rebuilt, decisions alone were judged"
    yield f"replayed: {_counts(report.replayed)}"
    if report.not_replayed:
        yield f"not replayed: {_counts(report.not_replayed)}"
    yield (
        f"decisions: {report.approved} approved, {sum(report.denied.values())} denied, "
        f"{sum(report.merged.values())} merged; {report.equal} equal"
    )
    for reason, (how, lacking) in REASONS.items():
        if count := report.partly[reason.name]:
            what = lacking if how is not Decidable.NEVER else "no record is written"
            yield f"  not re-decidable: {count} {reason.name} ({what})"
    if report.unjudged:
        yield f"  not re-decidable: {report.unjudged} without limits on record"
    yield (
        f"checkpoints: {report.snapshots} snapshots, sums of {report.sums_compared}; "
        f"{report.heads} heads, sums of {report.head_sums_compared}"
    )
    yield f"positions: {_counts(report.positions)}; open orders: {report.reserved}"
    yield f"levels: {', '.join(f'{s} {v}' for s, v in report.levels.items()) or 'all NORMAL'}"
    for mismatch in report.mismatches:
        yield (
            f"row {mismatch.row}: {mismatch.what}: recorded {mismatch.recorded}, "
            f"recomputed {mismatch.recomputed}"
        )
    if report.mismatch_count > len(report.mismatches):
        yield f"... and {report.mismatch_count - len(report.mismatches)} more"


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
