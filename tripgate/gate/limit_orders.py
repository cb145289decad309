"""Orders to change limits: what they are made of, and what stands against one.

A record in the operator's file names a scope, a direction and, per configuration key, the value
that the operator was shown and the one ordered. A tightening holds from the moment its record is
durable, whoever dies; a loosening is carried out by the breaker alone, once, in the run it was
ordered in, from exactly the value shown, and only while nothing near its scope is latched.

Invariants: N1 nothing here makes a limit looser but ``carry_out_loosening``; N2 a refused loosening
changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tripgate.gate.cause_rows import load_causes
from tripgate.page.level import bump_generation, node_level
from tripgate.page.limits import (
    LIMIT_KEYS,
    Values,
    count_change,
    is_tighter,
    keys_of,
    read_limit,
    related_nodes,
    replace,
    tighten,
)
from tripgate.page.mapping import Page
from tripgate.reasons import Level

COMMAND = "limits"
TIGHTEN, LOOSEN = "tighten", "loosen"


@dataclass(frozen=True)
class Change:
    """One limit that is to change, in the page's integers."""

    scope: str
    key: str
    old: int
    new: int

    @property
    def tightens(self) -> bool:
        """Whether the new value denies at least what the old one does."""
        return not is_tighter(self.key, self.old, self.new)

    def text(self) -> str:
        """Return the change as people read it."""
        rule = LIMIT_KEYS[self.key]
        return f"{self.scope} {self.key}: {rule.text(self.old)} -> {rule.text(self.new)}"


def changes_to(page: Page, wanted: Values) -> list[Change]:
    """Return what differs between the page and the wanted values."""
    found = ((place, read_limit(page, *place), new) for place, new in wanted.items())
    return [Change(*place, old, new) for place, old, new in found if old != new]


def records_of(
    changes: Iterable[Change], direction: str, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one record per scope, in the order in which the scopes appear."""
    by_scope: dict[str, dict[str, list[int]]] = {}
    for change in changes:
        by_scope.setdefault(change.scope, {})[change.key] = [change.old, change.new]
    return [
        {"command": COMMAND, "scope": scope, "direction": direction, "changes": values, **common}
        for scope, values in by_scope.items()
    ]


def ordered(record: Mapping[str, Any], page: Page) -> list[Change]:
    """Return the changes of a record that this page has a place for."""
    scope = str(record["scope"])
    if scope not in page.names.scopes:
        return []
    known = keys_of(scope)
    return [
        Change(scope, key, int(old), int(new))
        for key, (old, new) in record["changes"].items()
        if key in known
    ]


def latches_near(page: Page, scope: str) -> tuple[str, ...]:
    """Return what is latched in a scope or in one that shares an order's way with it."""
    near = related_nodes(page.names, page.names.scope(scope))
    causes = {
        key.scope: key.cause.name.lower()
        for key, state in load_causes(page).items()
        if state.latched and state.contribution > Level.NORMAL
    }
    found = []
    for node in sorted(near):
        level = node_level(page, node)
        if node in causes or level >= Level.HARD:
            cause = f" by {causes[node]}" if node in causes else ""
            found.append(f"{page.names.scopes[node]} is held at {level.name}{cause}")
    return tuple(found)


def carry_out_tightening(page: Page, changes: Iterable[Change]) -> bool:
    """Make each limit at least as tight as ordered and trip; return whether any word moved."""
    moved = False
    for change in changes:
        before, after = tighten(page, change.scope, change.key, change.new)
        moved = moved or before != after
    if moved:
        count_change(page)
        bump_generation(page)
    return moved


def carry_out_loosening(
    page: Page, record: Mapping[str, Any], changes: Iterable[Change]
) -> dict[str, str]:
    """Loosen what may be loosened (the breaker only); return the refusals by key."""
    changes = list(changes)
    refusal = ""
    if int(record.get("epoch", 0)) != page.epoch:
        refusal = "it was ordered in another run"
    elif changes and (latches := latches_near(page, changes[0].scope)):
        refusal = latches[0]
    if refusal:
        return {change.key: refusal for change in changes}
    refused = {
        change.key: "it is no longer what the operator was shown"
        for change in changes
        if not replace(page, change.scope, change.key, change.old, change.new)
    }
    if len(refused) < len(changes):
        count_change(page)
    return refused
