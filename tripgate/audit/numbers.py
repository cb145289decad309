"""What the numbers in old records mean: each run assigns them by rows of its own.

Records hold numbers of strategies and instruments, because the check has no time for names. The
numbers follow the order of the config, which may be another in the next run. So each run puts on
record what its numbers stand for, and whoever reads a record of an earlier run asks by its epoch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.messages import EventKind
from tripgate.page.names import PageNames

NAMES_PER_ROW = 100
"""Names that one row tells: a row must fit into a ring beside others."""


def instrument_texts(names: PageNames) -> tuple[str, ...]:
    """Return VENUE/SYMBOL by instrument number."""
    return tuple(f"{name.venue}/{name.symbol}" for name in names.instruments)


def number_rows(names: PageNames) -> Iterator[dict[str, Any]]:
    """Yield the bodies of the rows that tell what the numbers of a run stand for."""
    tables = {"strategies": names.strategies, "instruments": instrument_texts(names)}
    for table, texts in tables.items():
        for first in range(0, len(texts), NAMES_PER_ROW):
            told = list(texts[first : first + NAMES_PER_ROW])
            yield {"table": table, "first": first, "names": told}


class NumbersTold:
    """What each run said that its numbers stand for."""

    def __init__(self, audit_folder: Path) -> None:
        self._told: dict[tuple[int, str, int], str] = {}
        self.epochs: set[int] = set()
        kinds = (int(EventKind.NUMBERS_ASSIGNED),)
        for stored in LogReader(audit_folder).rows(kinds=kinds):
            body = unpack_body(stored.row.body)
            table, first, told = body["table"], int(str(body["first"])), body["names"]
            self.epochs.add(stored.row.epoch)
            if isinstance(told, list):
                for place, text in enumerate(told):
                    self._told[stored.row.epoch, str(table), first + place] = str(text)

    def text(self, epoch: int, table: str, number: int) -> str | None:
        """Return what a number of a run stands for in a table, or None if it did not say."""
        return self._told.get((epoch, table, number))


class Numbers:
    """What the numbers of earlier runs mean in the present one."""

    def __init__(self, audit_folder: Path, names: PageNames) -> None:
        self._told = NumbersTold(audit_folder)
        self._strategies = {text: number for number, text in enumerate(names.strategies)}
        texts = instrument_texts(names)
        self._instruments = {text: number for number, text in enumerate(texts)}
        self._keys = frozenset(names.keys)

    def pair(self, epoch: int, strategy: int, instrument: int) -> tuple[int, int] | None:
        """Return an earlier run's (strategy, instrument) as numbered now, or None if it is no key.

        A run that told no numbers at all is taken to have had the present ones.
        """
        pair: tuple[int, int] | None = (strategy, instrument)
        if epoch in self._told.epochs:
            trader = self._told.text(epoch, "strategies", strategy) or ""
            traded = self._told.text(epoch, "instruments", instrument) or ""
            known = trader in self._strategies and traded in self._instruments
            pair = (self._strategies[trader], self._instruments[traded]) if known else None
        return pair if pair in self._keys else None
