"""What the log must know of a page so that its decisions can be decided again: the terms in force.

A decision record holds what the check read of the moment (clock, mark, sums); what stands still
between two changes (limits, factors, grids, guards) is told once, when a run begins, and again for
every row that changes. A body names its rows whole, never single words, so that a reader replaces
what it knew. Level words come along: after a breaker's death nobody else tells what its byte was.

Invariant: T1 a page's sheet and the changes after it give the page's own values, row by row.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tripgate.page.layout import ACCOUNT, INSTRUMENT, KEY, LIMIT, STRATEGY, Table
from tripgate.page.limits import LIMIT_KEYS
from tripgate.page.mapping import Page

NODE_FIELDS = ("gross_max", "net_max", "factor_ppm", "level")
INSTRUMENT_FIELDS = (
    "tradable", "value_numerator", "value_denominator", "order_money_max", "order_lots_max",
    "collar_ppm", "exit_collar_ppm", "stop_distance_ppm", "age_max_ms", "role_mask", "inverse",
    "quote", "margin_ppm", "shared", "resting_max",
)  # fmt: skip
STRATEGY_FIELDS = (
    "orders_per_second_max", "attempts_per_second_max", "duplicate_window_ms", "repeats_max",
    "repeat_window_ms",
)  # fmt: skip
TABLES: Mapping[str, tuple[Table, tuple[str, ...]]] = {
    "nodes": (LIMIT, NODE_FIELDS),
    "instruments": (INSTRUMENT, INSTRUMENT_FIELDS),
    "strategies": (STRATEGY, STRATEGY_FIELDS),
}
"""Tables of a body: which rows of the page it tells, and which of their words, in this order."""

ROWS_PER_BODY = 100
"""Rows that one body tells: it must fit into a ring beside others."""
KEYS_PER_BODY = 1_000


def sheet(page: Page) -> Iterator[dict[str, Any]]:
    """Yield the bodies that tell everything of a page; the last of them has ``last``: 1."""
    names, bodies = page.names, list[dict[str, Any]]()
    starting = page.rows(ACCOUNT)["starting"]
    general = {
        "age_floor_ms": int(page.header["age_floor_ms"]),
        "starting": {n: int(money) for n, money in enumerate(starting) if money},
        "roles": [role.text for role in names.roles],
    }  # fmt: skip
    bodies.append(_body(page, {"general": general}))
    texts: dict[str, list[Any]] = {
        "scopes": list(names.scopes),
        "assets": [[name.venue, name.asset] for name in names.instruments],
        "keys": [[*key, _side(page, n)] for n, key in enumerate(names.keys)],
    }  # fmt: skip
    for table, rows in texts.items():
        for first in range(0, len(rows), KEYS_PER_BODY):
            part = rows[first : first + KEYS_PER_BODY]
            bodies.append(_body(page, {table: part, "first": first}))
    counts = {
        "nodes": len(names.scopes), "instruments": len(names.instruments),
        "strategies": len(names.strategies),
    }  # fmt: skip
    for table, count in counts.items():
        for first in range(0, count, ROWS_PER_BODY):
            numbers = range(first, min(count, first + ROWS_PER_BODY))
            bodies.append(_body(page, {table: _rows(page, table, numbers)}))
    bodies[-1]["last"] = 1
    yield from bodies


def changed_rows(page: Page, since_ns: int, rows: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Return the body that tells some rows anew.

    Parameters
    ----------
    since_ns
        Host time before the first of their words changed, ns.
    rows
        Row numbers by table (``TABLES``).
    """
    told = {table: _rows(page, table, numbers) for table, numbers in rows.items()}
    return _body(page, {**told, "since_ns": since_ns})


def rows_of_scope(page: Page, scope: str) -> dict[str, list[int]]:
    """Return the rows that the limits of a scope stand in."""
    names, (kind, _, name) = page.names, scope.partition(":")
    rows = {"nodes": [names.scope(scope)]}
    if kind == "strategy":
        rows["strategies"] = [names.strategy(name)]
    elif kind == "instrument":
        rows["instruments"] = [n for n, one in enumerate(names.instruments) if one.scope == scope]
    return rows


def _side(page: Page, key: int) -> int:
    return int(page.rows(KEY)["side"][key])


def _rows(page: Page, table: str, numbers: Iterable[int]) -> dict[int, list[int]]:
    words, fields = page.rows(TABLES[table][0]), TABLES[table][1]
    return {number: [int(words[name][number]) for name in fields] for number in numbers}


def _body(page: Page, told: dict[str, Any]) -> dict[str, Any]:
    header = page.header
    return {
        "version": int(header["limits_version"]),
        "generation": int(header["generation"][0]), **told,
    }  # fmt: skip


def _check_tables() -> None:
    told = {field for _, fields in TABLES.values() for field in fields}
    lacking = {
        rule.field for rule in LIMIT_KEYS.values()
        if rule.field not in told
        and not rule.field.endswith("_configured")
        and rule.field != "margin_terms"
    }  # fmt: skip
    if lacking:
        raise AssertionError(f"limits that no record tells: {sorted(lacking)}")


_check_tables()
