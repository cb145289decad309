"""The log as text for other programs and other people: JSON lines or CSV, the same every time.

One line per row, in the order of the chain; the last line says how many there were and with which
row and hash they end, so that whoever has a copy of the heads can tell which log it was and how far
the text goes. Nothing in it depends on the clock, the machine or the time of the export.

Invariant: E1 equal rows and equal choices give equal bytes.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from tripgate.audit.chain import GENESIS
from tripgate.audit.reader import LogReader, StoredRow

FORMATS = ("jsonl", "csv")

Describe = Callable[[StoredRow], Mapping[str, object]]
"""Returns a row's fields as JSON can hold them, always the same ones in the same order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are taken: UTC from ``from_ns`` up to but not with ``to_ns``, of some kinds."""

    from_ns: int | None = None
    to_ns: int | None = None
    kinds: Collection[int] | None = None

    def takes(self, utc_ns: int) -> bool:
        """Whether a row of that moment (ns since 1970) is taken, its kind apart."""
        after = self.from_ns is None or utc_ns >= self.from_ns
        return after and (self.to_ns is None or utc_ns < self.to_ns)


def export_lines(reader: LogReader, choice: Choice, form: str, describe: Describe) -> Iterator[str]:
    """Yield the lines of an export, each with its line end.

    Parameters
    ----------
    form
        One of ``FORMATS``.

    Raises
    ------
    ChainBrokenError
        The log cannot be read.
    """
    count, sequence, head = 0, 0, GENESIS
    for stored in reader.rows(kinds=choice.kinds):
        # The wall clock may have been set back in between: every row is looked at.
        if not choice.takes(stored.row.utc_ns):
            continue
        fields = describe(stored)
        if form == "csv":
            if not count:
                yield _csv_line(list(fields))
            yield _csv_line([_cell(value) for value in fields.values()])
        else:
            yield _json(fields) + "\n"
        count, sequence, head = count + 1, stored.sequence, stored.hash
    end = {"rows": count, "sequence": sequence, "head": head.hex()}
    yield ("# " if form == "csv" else "") + _json({"end": end}) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _cell(value: object) -> object:
    if value is None or isinstance(value, int | str):
        return value
    return _json(value)


def _csv_line(cells: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
