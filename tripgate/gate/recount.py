"""Recounting: what every word that sums others must be, by plain whole numbers.

Entries and positions are the truth, nodes are sums of them. The functions here read the tables and
say what each sum, closable word and claim must be. Repair stores that, the keeper's periodic check
compares with it, and tests do both; so there is one definition and no compiled code in it.

Invariants: C1 nothing here changes a word; C2 amounts are Python integers, which cannot overflow;
C3 nodes of a key come from the page's names (control file), never from a table that clients write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tripgate.gate.context import order_nodes
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.gate.words import FREE, RELEASING, RESERVING, STATE_MASK, UNPOSTED, entry_checksum
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, COUNTERS_HEADER, ENTRY, KEY, SUM
from tripgate.page.mapping import Page
from tripgate.units import PPM

CLOSES = FLAG_CLOSING | FLAG_EXIT | FLAG_STOP
VENUE = 3
"""Place of the venue among an order's five nodes: the one that carries margin."""

SUM_FIELDS = ("gross", "long_worst", "short_worst", "margin")
_ENTRY_FIELDS = (
    "word", "token", "instrument", "key", "flags", "lots", "reserved", "margin_reserved",
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What the fills say.

    Attributes
    ----------
    positions
        Signed lots by closable key.
    charged
        Signed worth of each position at its last mark, money units.
    filled
        Lots filled so far by token, for orders that may still be live.
    """

    positions: Mapping[int, int]
    charged: Mapping[int, int]
    filled: Mapping[int, int]


@dataclass(frozen=True)
class Tables:
    """A copy of what is counted.

    Attributes
    ----------
    rows
        Row numbers of the entries that are not FREE, rising.
    entries
        Those entries, whole, in the order of ``rows``.
    keys, sums, claims
        The tables of the same names, shape (rows,).
    unposted
        The count of exits that no sum holds yet, as it stands in the header.
    """

    rows: tuple[int, ...]
    entries: "np.ndarray[Any, Any]"
    keys: "np.ndarray[Any, Any]"
    sums: "np.ndarray[Any, Any]"
    claims: "np.ndarray[Any, Any]"
    unposted: int


class EntryWords(NamedTuple):
    """What a live entry still holds: lots, money units, money units."""

    remaining: int
    charged: int
    margin_charged: int


@dataclass
class Words:
    """What the words of a page must be.

    Attributes
    ----------
    sums
        By field of SUM: one value per node, money units.
    claims
        One value per instrument, lots.
    keys
        By field of KEY: one value per closable key.
    entries
        By row, for every entry that granted something.
    undone
        Rows of entries that were never granted (RESERVING).
    unposted
        How many granted entries no sum holds yet.
    """

    sums: dict[str, list[int]]
    claims: list[int]
    keys: dict[str, list[int]]
    entries: dict[int, EntryWords]
    undone: list[int]
    unposted: int


class Difference(NamedTuple):
    """One word that is not what it must be."""

    table: str
    row: int
    field: str
    found: int
    expected: int

    @property
    def text(self) -> str:
        """The difference as people read it."""
        return f"{self.table}[{self.row}].{self.field} is {self.found}, must be {self.expected}"

    @property
    def identity(self) -> tuple[str, int, str, int]:
        """What stays the same while traffic moves a word that is off by a constant."""
        return self.table, self.row, self.field, self.found - self.expected


def read_tables(page: Page) -> Tables:
    """Copy what is counted. The caller sees to it that nothing moves meanwhile."""
    entries = page.rows(ENTRY)
    rows = ((entries["word"] & STATE_MASK) != FREE).nonzero()[0]
    return Tables(
        tuple(int(row) for row in rows),
        entries[rows],
        page.rows(KEY).copy(),
        page.rows(SUM).copy(),
        page.rows(CLAIM).copy(),
        atomics.load(page.address(COUNTERS_HEADER, 0, "unposted")),
    )


def truth_of_page(page: Page, tables: Tables | None = None) -> Truth:
    """Return the fills as the page itself tells them, for a repairer that trusts its positions.

    Right after a client's death, when the keeper is whole; a keeper that died itself may have moved
    half of a fill, and takes the truth from the log instead.
    """
    seen = tables or read_tables(page)
    entries = seen.entries
    filled = {
        token: abs(lots) - left
        for token, lots, left in zip(
            entries["token"].tolist(), entries["lots"].tolist(), entries["remaining"].tolist(),
            strict=True,
        )
    }  # fmt: skip
    keys = range(len(page.names.keys))
    return Truth(
        {key: int(seen.keys["closable"][key]) >> 32 for key in keys},
        {key: int(seen.keys["charged"][key]) for key in keys},
        filled,
    )


def share(amount: int, left: int, lots: int) -> int:
    """Return ceil(amount × left / lots): what an order filled down to ``left`` lots keeps."""
    return -(-amount * left // lots) if lots else 0


def margin_money(amount: int, margin_ppm: int) -> int:
    """Return the initial margin of a worth: ceil(amount × ppm / 1e6), money units."""
    return -(-amount * margin_ppm // PPM)


def expected_words(page: Page, truth: Truth, tables: Tables | None = None) -> Words:
    """Return what every counted word must be, given the tables and what the fills say.

    Parameters
    ----------
    tables
        A copy in which nothing was moving; by default one taken now.
    """
    count = _Count(page, truth, tables or read_tables(page))
    return count.words()


class _Count:
    """One recount under way."""

    def __init__(self, page: Page, truth: Truth, tables: Tables) -> None:
        self._truth, self._tables = truth, tables
        self._pairs = page.names.keys
        self._nodes = [order_nodes(page, *pair) for pair in self._pairs]
        # In hedge mode each side is a key of its own: nothing can oppose, so nothing is claimed.
        self._one_way = [side == 0 for side in page.names.sides or (0,) * len(self._pairs)]
        self._sums = {name: [0] * len(tables.sums) for name in SUM_FIELDS}
        self._claims = [0] * len(tables.claims)
        self._pending, self._resting = [0] * len(self._pairs), [0] * len(self._pairs)
        self._entries: dict[int, EntryWords] = {}
        self._undone: list[int] = []
        self._unposted = 0

    def words(self) -> Words:
        """Count positions, then entries."""
        keys: dict[str, list[int]] = {"charged": [], "margin_charged": []}
        for key, (_, instrument) in enumerate(self._pairs):
            worth = self._truth.charged.get(key, 0)
            margin = margin_money(abs(worth), int(self._tables.keys["margin_ppm"][key]))
            self._claims[instrument] += self._truth.positions.get(key, 0) * self._one_way[key]
            self._add(key, abs(worth), worth, -worth, margin)
            keys["charged"].append(worth)
            keys["margin_charged"].append(margin)
        columns = [self._tables.entries[name].tolist() for name in _ENTRY_FIELDS]
        for row, *fields in zip(self._tables.rows, *columns, strict=True):
            self._count_entry(row, *fields)
        keys["resting"] = self._resting
        keys["closable"] = [
            (self._truth.positions.get(key, 0) << 32) | held
            for key, held in enumerate(self._pending)
        ]
        return Words(self._sums, self._claims, keys, self._entries, self._undone, self._unposted)

    def _count_entry(
        self, row: int, word: int, token: int, instrument: int, key: int, flags: int, lots: int,
        reserved: int, margin_reserved: int,
    ) -> None:  # fmt: skip
        state = word & STATE_MASK
        if state == RESERVING:
            self._undone.append(row)
            return
        whole = abs(lots)
        left = 0 if state == RELEASING else max(0, whole - self._truth.filled.get(token, 0))
        kept = EntryWords(left, share(reserved, left, whole), share(margin_reserved, left, whole))
        self._entries[row] = kept
        # A wild store may have hit the entry itself: its checksum tells, and it counts nowhere.
        if not (0 <= key < len(self._pairs) and 0 <= instrument < len(self._claims)):
            return
        opens = not flags & CLOSES
        if flags & FLAG_CLOSING and state != RELEASING:
            self._pending[key] += left
            self._resting[key] += 1
        elif opens and self._one_way[key]:
            self._claims[instrument] += left if lots > 0 else -left
        if word & UNPOSTED:
            self._unposted += 1
            return
        long = kept.charged if lots > 0 else 0
        margin = kept.margin_charged if opens else 0
        self._add(key, kept.charged if opens else 0, long, kept.charged - long, margin)

    def _add(self, key: int, gross: int, long: int, short: int, margin: int) -> None:
        for node in self._nodes[key]:
            self._sums["gross"][node] += gross
            self._sums["long_worst"][node] += long
            self._sums["short_worst"][node] += short
        self._sums["margin"][self._nodes[key][VENUE]] += margin


def differences(tables: Tables, words: Words) -> list[Difference]:
    """Return every word of a copy that is not what it must be, checksums of entries included."""
    found = []
    for name, values in words.sums.items():
        found += _unequal("sum", name, tables.sums[name], values)
    found += _unequal("claim", "lots", tables.claims["lots"], words.claims)
    for name, values in words.keys.items():
        found += _unequal("key", name, tables.keys[name], values)
    base = int(tables.entries.ctypes.data)
    for place, row in enumerate(tables.rows):
        entry = tables.entries[place]
        if row not in words.entries or int(entry["word"]) & STATE_MASK == RELEASING:
            continue
        for name, value in words.entries[row]._asdict().items():
            if int(entry[name]) != value:
                found.append(Difference("entry", row, name, int(entry[name]), value))
        checksum = entry_checksum(base + place * ENTRY.row_bytes)
        if int(entry["checksum"]) != checksum:
            found.append(Difference("entry", row, "checksum", int(entry["checksum"]), checksum))
    if tables.unposted != words.unposted:
        found.append(Difference("counters_header", 0, "unposted", tables.unposted, words.unposted))
    return found


def _unequal(
    table: str, name: str, found: "np.ndarray[Any, Any]", expected: list[int]
) -> list[Difference]:
    return [
        Difference(table, row, name, there, value)
        for row, (there, value) in enumerate(zip(found.tolist(), expected, strict=False))
        if there != value
    ]
