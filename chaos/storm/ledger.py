"""The storm's truth: a journal of what the venue did, and every sum added up anew from tables.

The journal is a file that the desk appends to *before* it moves the page, so that a desk that is
killed leaves the truth for its successor. The sums here are plain Python integers and share no
code with the gate or its repair: they are what both are judged by.

Invariants: J1 a record is one write of a fixed size, so that a killed writer leaves no half of one;
J2 a fill stands in the journal before any word of the page knows of it.
"""

import os
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from enum import IntEnum, unique
from pathlib import Path

import numpy as np

from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.gate.words import FREE, RELEASING, RESERVING, STATE_MASK, UNPOSTED
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, COUNTERS_HEADER, ENTRY, KEY, SUM
from tripgate.page.mapping import Page

JOURNAL_FILE = "journal"
_RECORD = struct.Struct("<4q")
_CLOSES = FLAG_CLOSING | FLAG_EXIT | FLAG_STOP


@unique
class Note(IntEnum):
    """What a journal record says."""

    OPENED = 1
    CLOSED = 2
    STOPPED = 3
    ENDED = 4
    REPAIR_BEGUN = 5
    REPAIRED = 6


FILLS = frozenset({Note.OPENED, Note.CLOSED, Note.STOPPED})


class Journal:
    """The writing side: one desk at a time."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._descriptor = os.open(folder / JOURNAL_FILE, flags, 0o600)

    def append(self, note: Note, token: int = 0, key: int = 0, signed_lots: int = 0) -> None:
        """Write one record in one piece."""
        os.write(self._descriptor, _RECORD.pack(int(note), token, key, signed_lots))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@dataclass(frozen=True)
class Known:
    """What a desk must know of the past to repair the page: ``filled`` and ``ended`` by token."""

    positions: dict[int, int]
    filled: dict[int, int]
    ended: frozenset[int]


def read_known(path: Path, page: Page) -> Known:
    """Return the journal's sums for the positions and for the orders that stand in the page.

    Thousands of records are added up in a moment: a desk has only tens of milliseconds to live.
    """
    whole = path.stat().st_size // _RECORD.size * _RECORD.size
    records = np.fromfile(path, dtype="<i8", count=whole // 8).reshape(-1, 4)
    notes, tokens, keys, lots = records.T
    is_fill = np.isin(notes, [int(note) for note in FILLS])
    positions = np.zeros(len(page.rows(KEY)), dtype=np.int64)
    np.add.at(positions, keys[is_fill], lots[is_fill])
    entries = page.rows(ENTRY)
    live = np.isin(tokens, entries["token"][entries["word"] & STATE_MASK != FREE]) & (tokens > 0)
    filled: dict[int, int] = defaultdict(int)
    for token, signed in zip(*(column[live & is_fill] for column in (tokens, lots)), strict=True):
        filled[int(token)] += abs(int(signed))
    ended = frozenset(int(token) for token in tokens[live & (notes == Note.ENDED)])
    return Known({key: int(total) for key, total in enumerate(positions)}, filled, ended)


@dataclass
class Ledger:
    """What the journal says so far; ``read_on`` takes what was appended since.

    Attributes
    ----------
    positions
        Signed lots by closable key.
    last
        Key of the newest fill and its position before, which the page may not know of yet.
    filled
        Lots by token.
    flips
        One text per fill that moved a position through zero or against its order's purpose.
    """

    path: Path
    positions: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    last: tuple[int, int] = (-1, 0)
    filled: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    ended: set[int] = field(default_factory=set)
    counts: dict[Note, int] = field(default_factory=lambda: defaultdict(int))
    flips: list[str] = field(default_factory=list)
    offset: int = 0

    def read_on(self) -> None:
        """Take every whole record that was appended since the last call."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = len(data) // _RECORD.size * _RECORD.size
        self.offset += whole
        for number, token, key, signed in _RECORD.iter_unpack(data[:whole]):
            self._take(Note(number), token, key, signed)

    def _take(self, note: Note, token: int, key: int, signed: int) -> None:
        self.counts[note] += 1
        if note is Note.ENDED:
            self.ended.add(token)
        if note not in FILLS:
            return
        before = self.positions[key]
        after = before + signed
        wrong = before * signed < 0 if note is Note.OPENED else before * signed >= 0
        if wrong or before * after < 0:
            self.flips.append(f"{note.name} of {signed} lots took key {key} {before} -> {after}")
        self.last = key, before
        self.positions[key] = after
        self.filled[token] += abs(signed) if token else 0


@dataclass(frozen=True)
class Words:
    """Every word that is a sum, by row."""

    gross: list[int]
    long_worst: list[int]
    short_worst: list[int]
    margin: list[int]
    claims: list[int]
    pending: list[int]
    resting: list[int]
    unposted: int


EXIT_WORDS = frozenset({"pending", "resting", "unposted"})
"""Those of them that exits move even while the page is frozen."""


def words_in(page: Page) -> Words:
    """Return the sums that stand in the page."""
    sums, closable = page.rows(SUM), page.rows(KEY)["closable"]
    gross, long_worst, short_worst, margin = (
        [int(word) for word in sums[name]]
        for name in ("gross", "long_worst", "short_worst", "margin")
    )
    return Words(
        gross,
        long_worst,
        short_worst,
        margin,
        [int(word) for word in page.rows(CLAIM)["lots"]],
        [int(word) & 0xFFFF_FFFF for word in closable],
        [int(word) for word in page.rows(KEY)["resting"]],
        atomics.load(page.address(COUNTERS_HEADER, 0, "unposted")),
    )


def words_of_tables(page: Page) -> Words:
    """Return the sums over positions and entries, added up one by one."""
    nodes, keys = len(page.rows(SUM)), page.rows(KEY)
    sums = [[0, 0, 0, 0] for _ in range(nodes)]
    claims, unposted = [0] * len(page.rows(CLAIM)), 0
    pending, resting = [0] * len(keys), [0] * len(keys)
    for row in keys:
        worth, lots = int(row["charged"]), int(row["closable"]) >> 32
        claims[int(row["instrument"])] += lots
        for node in map(int, row["node"]):
            _add(sums[node], abs(worth), worth, -worth)
        sums[int(row["node"][3])][3] += int(row["margin_charged"])
    entries = page.rows(ENTRY)
    for place in (entries["word"] != 0).nonzero()[0]:
        entry = entries[place]
        word, left = int(entry["word"]), int(entry["remaining"])
        if word & STATE_MASK in (FREE, RESERVING):
            continue
        key, buys, charge = int(entry["key"]), int(entry["lots"]) > 0, int(entry["charged"])
        opens = not int(entry["flags"]) & _CLOSES
        if int(entry["flags"]) & FLAG_CLOSING:
            pending[key] += left
            resting[key] += word & STATE_MASK != RELEASING
        if word & UNPOSTED:
            unposted += 1
            continue
        if opens:
            claims[int(entry["instrument"])] += left if buys else -left
            sums[int(keys["node"][key][3])][3] += int(entry["margin_charged"])
        for node in map(int, keys["node"][key]):
            _add(sums[node], charge * opens, charge * buys, charge * (not buys))
    columns = [[total[index] for total in sums] for index in range(4)]
    return Words(columns[0], columns[1], columns[2], columns[3], claims, pending, resting, unposted)


def _add(total: list[int], gross: int, long_side: int, short_side: int) -> None:
    total[0] += gross
    total[1] += long_side
    total[2] += short_side


def differences(page: Page, *, exits: bool = True) -> list[str]:
    """Return one text per word that is not the sum of its tables.

    Parameters
    ----------
    exits
        Whether the words are looked at that exits move during a freeze.
    """
    found, expected = words_in(page), words_of_tables(page)
    texts = []
    for name in Words.__dataclass_fields__.keys() - (() if exits else EXIT_WORDS):
        stands, should = getattr(found, name), getattr(expected, name)
        if stands != should:
            texts.append(f"{name}: {stands} stands in the page, the tables add up to {should}")
    return texts


def entry_faults(page: Page) -> list[str]:
    """Return one text per entry whose quantities are impossible."""
    entries, texts = page.rows(ENTRY), []
    for place in ((entries["word"] & STATE_MASK) > RESERVING).nonzero()[0]:
        entry = entries[place]
        lots, left = abs(int(entry["lots"])), int(entry["remaining"])
        charge, most = int(entry["charged"]), int(entry["reserved"])
        if not 0 <= left <= lots or not 0 <= charge <= most:
            texts.append(f"entry {place}: {left} of {lots} lots left, {charge} of {most} charged")
            continue
        margin = int(entry["margin_charged"]), int(entry["margin_reserved"])
        for kept, whole in ((charge, most), margin):
            if kept != -(-whole * left // lots):
                texts.append(f"entry {place}: {kept} kept of {whole} for {left} of {lots} lots")
    return texts
