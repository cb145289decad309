"""Levels rebuilt from the log: each writer's byte at each node, and what may have been seen.

A node's level is the largest of its writers' bytes. A record stands in the log a moment after the
byte it tells of was stored, and another process may look in between; so what was seen at a moment
lies between the least and the largest that held around it. In quiet times the two are the same.

Invariant: L1 a byte changes by its own writer's records alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tripgate.clock import NS_PER_S
from tripgate.page.layout import LEVEL_WRITERS
from tripgate.page.level import LevelWriter
from tripgate.page.terms import NODE_FIELDS
from tripgate.reasons import Level

AROUND_NS = 2 * NS_PER_S
"""How far a level's record may lie from the moment at which its byte was stored."""
LEVEL_AT = NODE_FIELDS.index("level")
KEEPER_CAUSES = frozenset({"fill_unplaced"})
ROOT = 0
"""Slot of the root: what it tells of levels at a run's start the sheet holds already."""

Byte = tuple[int, LevelWriter]


class Levels:
    """The level bytes of one run by (node, writer), with their latest changes."""

    def __init__(self, scopes: Iterable[str]) -> None:
        self._node = {scope: number for number, scope in enumerate(scopes)}
        self._now: dict[Byte, Level] = {}
        self._changes: list[tuple[int, Byte, Level, Level]] = []

    def take_words(self, nodes: Mapping[int, list[int]], host_ns: int) -> None:
        """Take the level words of a LIMITS_IN_FORCE row."""
        for node, words in nodes.items():
            word = int(words[LEVEL_AT]) & (2 ** (8 * LEVEL_WRITERS) - 1)
            for writer in LevelWriter:
                level = Level((word >> (8 * writer)) & 0xFF)
                self._set((int(node), writer), level, host_ns)

    def take_change(
        self, body: Mapping[Any, Any], producer: int, host_ns: int
    ) -> tuple[str, str, str] | None:
        """Take a LEVEL_CHANGED row; return a difference if it does not follow what stood there."""
        scope, cause = str(body["scope"]), str(body["cause"])
        if scope not in self._node or producer == ROOT:
            return None
        writer = LevelWriter.KEEPER if cause in KEEPER_CAUSES else LevelWriter.BREAKER
        byte, level = (self._node[scope], writer), Level[str(body["level"])]
        before, stood = Level[str(body["before"])], self._now.get(byte, Level.NORMAL)
        self._set(byte, level, host_ns)
        if before is stood:
            return None
        return (f"level of {scope} before its change", before.name, stood.name)

    def raise_byte(self, scope: str, writer: LevelWriter, level: Level, host_ns: int) -> None:
        """Hold a scope at least at a level."""
        if scope in self._node:
            byte = self._node[scope], writer
            self._set(byte, max(level, self._now.get(byte, Level.NORMAL)), host_ns)

    def withdraw(self, scope: str, writer: LevelWriter, host_ns: int) -> None:
        """Withdraw what a writer held a scope at."""
        if scope in self._node:
            self._set((self._node[scope], writer), Level.NORMAL, host_ns)

    def bounds(self, nodes: Iterable[int], host_ns: int) -> tuple[int, int]:
        """Return the least and the largest level of some nodes that can have been seen then."""
        wanted = frozenset(nodes)
        near: dict[Byte, list[Level]] = {}
        after: dict[Byte, Level] = {}
        for changed_ns, byte, before, level in reversed(self._changes):
            if byte[0] not in wanted:
                continue
            if changed_ns > host_ns + AROUND_NS:
                after[byte] = before
            elif changed_ns >= host_ns - AROUND_NS:
                near.setdefault(byte, [after.get(byte, level)]).append(before)
        least = most = 0
        for byte, now in self._now.items():
            if byte[0] in wanted:
                seen = near.get(byte, [after.get(byte, now)])
                least, most = max(least, min(seen)), max(most, max(seen))
        return least, most

    def forget(self, before_ns: int) -> None:
        """Forget changes that no moment to be judged can lie near."""
        if self._changes and self._changes[0][0] < before_ns - AROUND_NS:
            self._changes = [c for c in self._changes if c[0] >= before_ns - AROUND_NS]

    def shown(self) -> dict[str, str]:
        """Return the level of each scope that is not NORMAL."""
        names = {number: scope for scope, number in self._node.items()}
        held: dict[str, Level] = {}
        for (node, _), level in self._now.items():
            if level:
                held[names[node]] = max(level, held.get(names[node], Level.NORMAL))
        return {scope: level.name for scope, level in sorted(held.items())}

    def _set(self, byte: Byte, level: Level, host_ns: int) -> None:
        before = self._now.get(byte, Level.NORMAL)
        if level is not before:
            self._now[byte] = level
            self._changes.append((host_ns, byte, before, level))
