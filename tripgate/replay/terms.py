"""The terms in force as the log tells them: limits, factors, grids and guards, run by run.

A sheet tells everything at a run's start; each later record replaces rows. What a check read cannot
always be told to the nanosecond: a decision made while rows were being stored may have seen the old
or the new ones. So a decision has *candidates*: every state that it can have seen. In quiet times
there is exactly one.

Invariant: T1 a state that ended before a decision began, or began after the longest time that a
check may take, is no candidate of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tripgate.clock import NS_PER_MS, NS_PER_S
from tripgate.page.layout import NODES_PER_ORDER
from tripgate.page.terms import INSTRUMENT_FIELDS, NODE_FIELDS, STRATEGY_FIELDS

CHECK_NS_MAX = 2 * NS_PER_S
"""Longest check that is still believed: what takes longer has outlived its own reservation."""
STAMP_NS = 20 * NS_PER_MS
"""How far a decision's host time may lie beyond its beginning: the coarse clock and its margin."""
STATES_MAX = 1_000
"""States remembered at once; decisions older than the oldest of them find only later ones."""

_GROSS, _NET, _FACTOR = (NODE_FIELDS.index(n) for n in ("gross_max", "net_max", "factor_ppm"))
FIELDS: Mapping[str, tuple[str, ...]] = {
    "nodes": NODE_FIELDS, "instruments": INSTRUMENT_FIELDS, "strategies": STRATEGY_FIELDS,
}  # fmt: skip
Rows = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class PairTerms:
    """What is in force for the orders of one strategy on one instrument.

    Attributes
    ----------
    nodes, gross_max, net_max
        The five nodes of an order, narrow to wide, and their effective limits, money units.
    factor_ppm
        The least factor of the five.
    instrument, strategy
        Words of the two rows by name (``page.terms``).
    age_max_ms
        Oldest a mark may be.
    sides
        Position sides of the pair's keys: (0,) in one-way mode.
    """

    nodes: tuple[int, ...]
    gross_max: tuple[int, ...]
    net_max: tuple[int, ...]
    factor_ppm: int
    instrument: Mapping[str, int]
    strategy: Mapping[str, int]
    age_max_ms: int
    sides: tuple[int, ...]


@dataclass(frozen=True)
class Names:
    """What the numbers of one run stand for."""

    scopes: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    assets: tuple[tuple[str, str], ...] = ()
    keys: tuple[tuple[int, int, int], ...] = ()

    @cached_property
    def number(self) -> dict[str, int]:
        """Node number by scope name."""
        return {scope: number for number, scope in enumerate(self.scopes)}

    def nodes_of(self, strategy: int, instrument: int) -> tuple[int, ...]:
        """Return the five nodes of an order, narrow to wide. Raises ``LookupError``."""
        venue, asset = self.assets[instrument]
        scopes = (
            f"strategy:{self.strategies[strategy]}", f"instrument:{self.instruments[instrument]}",
            f"asset:{asset}", f"venue:{venue}", "portfolio",
        )  # fmt: skip
        return tuple(self.number[scope] for scope in scopes)


@dataclass(frozen=True)
class Terms:
    """One state of a run's terms, in force from some moment between ``since_ns`` and ``until_ns``.

    ``until_ns`` is when it surely was in force, host time.
    """

    names: Names
    age_floor_ms: int
    version: int
    since_ns: int
    until_ns: int
    nodes: Rows
    instruments: Rows
    strategies: Rows
    _pairs: dict[tuple[int, int], PairTerms | None] = field(default_factory=dict, compare=False)

    def pair(self, strategy: int, instrument: int) -> PairTerms | None:
        """Return the terms of a pair, or None if this run has no such key."""
        pair = strategy, instrument
        if pair not in self._pairs:
            self._pairs[pair] = self._make_pair(*pair)
        return self._pairs[pair]

    def _make_pair(self, strategy: int, instrument: int) -> PairTerms | None:
        sides = tuple(key[2] for key in self.names.keys if key[:2] == (strategy, instrument))
        if not sides:
            return None
        numbers = self.names.nodes_of(strategy, instrument)
        rows = [self.nodes[number] for number in numbers]
        assert len(rows) == NODES_PER_ORDER
        spec = dict(zip(INSTRUMENT_FIELDS, self.instruments[instrument], strict=True))
        return PairTerms(
            numbers, tuple(row[_GROSS] for row in rows), tuple(row[_NET] for row in rows),
            min(row[_FACTOR] for row in rows), spec,
            dict(zip(STRATEGY_FIELDS, self.strategies[strategy], strict=True)),
            max(spec["age_max_ms"], self.age_floor_ms), sides,
        )  # fmt: skip


class RunTerms:
    """The terms of one run as they are told; ``starting`` and ``roles`` belong to the sheet."""

    def __init__(self) -> None:
        self.names = Names()
        self.starting: dict[int, int] = {}
        self.roles: tuple[str, ...] = ()
        self.is_whole = False
        self.states: list[Terms] = []
        self._age_floor_ms = 0
        self._rows: dict[str, Rows] = {table: {} for table in FIELDS}

    def number(self, table: str, first: int, names: list[Any]) -> None:
        """Take rows of a table of names (``Names``), from row ``first`` on."""
        self.names = replace(self.names, **{table: (*getattr(self.names, table)[:first], *names)})

    def take(self, body: Mapping[Any, Any], host_ns: int) -> bool:
        """Take a LIMITS_IN_FORCE row; return whether the run's sheet became whole by it.

        Raises
        ------
        LookupError, TypeError, ValueError
            The body is none.
        """
        if general := body.get("general"):
            self.starting = {int(n): int(money) for n, money in general["starting"].items()}
            self.roles = tuple(str(role) for role in general["roles"])
            self._age_floor_ms = int(general["age_floor_ms"])
        for table in ("scopes", "assets", "keys"):
            if table in body:
                told = [tuple(row) if isinstance(row, list) else row for row in body[table]]
                self.number(table, int(body["first"]), told)
        rows = {table: dict(known) for table, known in self._rows.items()}
        for table, fields in FIELDS.items():
            for number, words in body.get(table, {}).items():
                if len(words) != len(fields):
                    raise ValueError(f"row {number} of {table} has {len(words)} words")
                rows[table][int(number)] = tuple(int(word) for word in words)
        self._rows = rows
        became_whole = bool(body.get("last")) and not self.is_whole
        self.is_whole = self.is_whole or became_whole
        if self.is_whole:
            since_ns = 0 if became_whole else int(body.get("since_ns", host_ns))
            self.states.append(Terms(
                self.names, self._age_floor_ms, int(body["version"]), since_ns, host_ns,
                rows["nodes"], rows["instruments"], rows["strategies"],
            ))  # fmt: skip
            del self.states[:-STATES_MAX]
        return became_whole

    def candidates(self, host_ns: int, version: int) -> list[Terms]:
        """Return every state that a decision of this host time and limits version can have seen."""
        found: list[Terms] = []
        for place, state in enumerate(self.states):
            following = self.states[place + 1] if place + 1 < len(self.states) else None
            is_over = following is not None and (
                following.until_ns < host_ns - STAMP_NS
                or (following.version > state.version and version >= following.version)
            )
            begins_later = place > 0 and state.since_ns > host_ns + CHECK_NS_MAX
            if not is_over and not begins_later:
                found.append(state)
        return found

    @property
    def latest(self) -> Terms | None:
        """The state told last."""
        return self.states[-1] if self.states else None
