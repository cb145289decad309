"""What operators have tightened in earlier runs, kept through a restart.

A restart reads the configuration file again, and that alone would quietly undo every tightening
that an operator ordered since. So each limit begins at the tighter of the file and of what the
operator's file and the log say last held: a tightening from the moment its record stood, a
loosening only if the log says that the breaker carried it out.

Invariant: N3 no limit of a new page is looser than the last one that held in an earlier run, unless
the file writes it so and no operator ever tightened it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.gate.limit_orders import COMMAND, LOOSEN, Change, ordered
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.limits import Values, is_tighter, read_limit, write_limits
from tripgate.page.mapping import Page


@dataclass(frozen=True)
class KeptLimit:
    """A limit that begins tighter than the file: ``change`` is from the file's value to ours."""

    change: Change
    record: int

    def to_body(self) -> dict[str, Any]:
        """Return it as a LIMITS_CHANGED body."""
        change = self.change
        return {
            "scope": change.scope, "direction": "kept", "record": self.record,
            "changes": {change.key: [change.old, change.new]}, "refused": {},
        }  # fmt: skip


def keep_tighter_limits(page: Page, state: Path) -> list[KeptLimit]:
    """Tighten a new page's limits to what operators left; return what was tightened."""
    kept = []
    for (scope, key), (value, record) in operator_limits(page, state).items():
        written = read_limit(page, scope, key)
        if is_tighter(key, value, written):
            kept.append(KeptLimit(Change(scope, key, written, value), record))
    values: Values = {(item.change.scope, item.change.key): item.change.new for item in kept}
    write_limits(page, values)
    return kept


def operator_limits(page: Page, state: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (value, record id) of each limit that an operator's orders left in force."""
    done = _carried_out(state)
    held: dict[tuple[str, str], tuple[int, int]] = {}
    for record in read_records(state, 0):
        if record.get("command") != COMMAND:
            continue
        number = int(record["id"])
        for change in ordered(record, page):
            place = change.scope, change.key
            if record["direction"] == LOOSEN:
                if (number, change.key) in done:
                    held[place] = change.new, number
            elif place not in held or not is_tighter(change.key, held[place][0], change.new):
                held[place] = change.new, number
    return held


def _carried_out(state: Path) -> set[tuple[int, str]]:
    """Return record id and key of every loosening that the breaker says it carried out."""
    done = set()
    for stored in LogReader(state / "audit").rows(kinds=(int(EventKind.LIMITS_CHANGED),)):
        body: Any = unpack_body(stored.row.body)
        if body["direction"] == LOOSEN:
            keys = set(body["changes"]) - set(body["refused"])
            done |= {(int(body["record"]), key) for key in keys}
    return done
