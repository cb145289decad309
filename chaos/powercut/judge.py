"""Judging what a power cut left: the real recovery runs on it, and the log must be whole again.

Invariants judged, by name:
``starts`` a new writer begins, it never refuses; ``rows`` every acknowledged row is there, as it
was given, and nothing that was never given; ``heads`` every acknowledged checkpoint is there;
``once`` after the rings are drained again each row is stored exactly once; ``chain`` the verifier
finds nothing afterwards; ``believed`` nor does it before, once something had been acknowledged:
an auditor who comes first must not cry wolf.
"""

from pathlib import Path

from chaos.powercut.record import Moment
from chaos.powercut.workload import AUDIT_NAME, EPOCH, HEADS_FOLDER
from tripgate.audit.heads import HEADS_NAME, read_checkpoints
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Row
from tripgate.audit.store import LogWriter
from tripgate.audit.verify import verify
from tripgate.errors import TripgateError

INVARIANTS = ("starts", "rows", "heads", "once", "chain", "believed")


def lay_out(image: dict[str, bytes], state: Path) -> None:
    """Write an image of the two folders of the log below ``state``."""
    for name, content in image.items():
        if name.startswith((f"{AUDIT_NAME}/", f"{HEADS_FOLDER}/")):
            path = state / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def judge(state: Path, moment: Moment, given: list[Row]) -> list[tuple[str, str]]:
    """Return (invariant, what was seen) for each one that does not hold; empty if all do.

    Parameters
    ----------
    given
        All rows of the run, in the order in which they were given to the writer.
    """
    audit, heads = state / AUDIT_NAME, state / HEADS_FOLDER
    broken: list[tuple[str, str]] = []
    if moment.heads:
        kept = _count_heads(heads)
        if kept < moment.heads:
            broken.append(("heads", f"{kept} of {moment.heads} acknowledged checkpoints are left"))
        verdict = verify(audit, heads)
        if not verdict.verified:
            broken.append(("believed", verdict.problems[0]))
    expected = {(row.epoch, row.producer, row.producer_sequence): row for row in given}
    try:
        with LogWriter(audit, heads) as writer:
            broken += _judge_rows(audit, moment, expected)
            writer.append(given)
    except TripgateError as error:
        return [*broken, ("starts", str(error))]
    stored = [_key(row) for row in _rows(audit)]
    if sorted(stored) != sorted(expected):
        broken.append(("once", f"{len(stored)} rows of {len(expected)} after draining again"))
    verdict = verify(audit, heads)
    if not verdict.verified:
        broken.append(("chain", verdict.problems[0]))
    return broken


def _judge_rows(
    audit: Path, moment: Moment, expected: dict[tuple[int, int, int], Row]
) -> list[tuple[str, str]]:
    found = {_key(row): row for row in _rows(audit)}
    foreign = [key for key, row in found.items() if expected.get(key) != row]
    lost = [
        (EPOCH, producer, sequence)
        for producer, last in moment.rows.items()
        for sequence in range(1, last + 1)
        if (EPOCH, producer, sequence) not in found
    ]
    told = [(lost, "acknowledged rows are gone"), (foreign, "rows differ from what was given")]
    return [("rows", f"{len(keys)} {what}") for keys, what in told if keys]


def _rows(audit: Path) -> list[Row]:
    return [stored.row for stored in LogReader(audit).rows()]


def _key(row: Row) -> tuple[int, int, int]:
    return row.epoch, row.producer, row.producer_sequence


def _count_heads(heads: Path) -> int:
    if not (heads / HEADS_NAME).exists():
        return 0
    return sum(checkpoint is not None for _, checkpoint in read_checkpoints(heads / HEADS_NAME))
