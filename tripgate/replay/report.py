"""What a replay found: counts, what is held at the end, and every place where the log disagrees."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tripgate.messages import EventKind

MISMATCHES_TOLD_MAX = 100


class Mismatch(NamedTuple):
    """One place where what is on record is not what follows from the records.

    Attributes
    ----------
    row
        Row of the log.
    what
        What was compared.
    recorded, recomputed
        Both sides, as text.
    """

    row: int
    what: str
    recorded: str
    recomputed: str


@dataclass
class Report:
    """Everything that a replay has to say.

    Attributes
    ----------
    rows
        Rows read, state and judgement together.
    replayed, not_replayed
        Rows by kind that a handler took, and that none knows (``kind 99``).
    approved, denied, merged
        Decisions on record; denials by reason, and those counted by DENIALS_MERGED.
    equal, partly, unjudged
        Decisions that came out the same; by reason, those of which one word is in no record; those
        for which the log tells no terms.
    snapshots, heads
        Compared; ``*_not_still`` were taken while the gate was too busy to be compared.
    """

    rows: int = 0
    replayed: Counter[str] = field(default_factory=Counter)
    not_replayed: Counter[str] = field(default_factory=Counter)
    approved: int = 0
    denied: Counter[str] = field(default_factory=Counter)
    merged: Counter[str] = field(default_factory=Counter)
    equal: int = 0
    partly: Counter[str] = field(default_factory=Counter)
    unjudged: int = 0
    snapshots: int = 0
    sums_compared: int = 0
    heads: int = 0
    head_sums_compared: int = 0
    head_sums_not_comparable: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    mismatch_count: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    reserved: int = 0
    levels: dict[str, str] = field(default_factory=dict)
    is_partial: bool = False

    def differ(self, row: int, what: str, recorded: object, recomputed: object) -> None:
        """Note a mismatch; the first ones are told in full."""
        self.mismatch_count += 1
        if len(self.mismatches) < MISMATCHES_TOLD_MAX:
            self.mismatches.append(Mismatch(row, what, str(recorded), str(recomputed)))

    def to_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "equal": self.mismatch_count == 0,
            "rows": self.rows,
            "replayed": dict(sorted(self.replayed.items())),
            "not_replayed": dict(sorted(self.not_replayed.items())),
            "decisions": {
                "approved": self.approved,
                "denied": dict(sorted(self.denied.items())),
                "merged": dict(sorted(self.merged.items())),
                "equal": self.equal,
                "not_redecidable": dict(sorted(self.partly.items())),
                "without_terms": self.unjudged,
            },
            "checkpoints": {
                "snapshots": self.snapshots, "snapshot_sums": self.sums_compared,
                "heads": self.heads, "head_sums": self.head_sums_compared,
                "head_sums_not_comparable": self.head_sums_not_comparable,
            },
            "positions": self.positions,
            "reserved": self.reserved,
            "levels": self.levels,
            "begins_late": self.is_partial,
            "mismatch_count": self.mismatch_count,
            "mismatches": [mismatch._asdict() for mismatch in self.mismatches],
        }  # fmt: skip


_NAMES = {int(kind): kind.name for kind in EventKind}


def kind_name(kind: int) -> str:
    """Return the name of an event kind, or its number if this version knows none."""
    return _NAMES.get(kind) or f"kind {kind}"
