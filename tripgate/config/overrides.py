"""Single values of the configuration from environment variables.

``TRIPGATE_LIMITS__PORTFOLIO__GROSS_REPORTING_MAX=40000`` stands for the key
``limits.portfolio.gross_reporting_max``: parts are joined by two underscores, upper case, and every
character that a variable cannot hold is an underscore. A table with a name of its own (a venue, an
instrument) must stand in the file; an override never makes one up.

Invariant: O2 a variable that looks like an override and matches nothing is an error, never ignored.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from tripgate.config.lines import Path
from tripgate.config.shape import StructType, fields, path_text
from tripgate.config.structs import Config
from tripgate.spelling import did_you_mean

PREFIX = "TRIPGATE_"
SEPARATOR = "__"


def variable_part(name: str) -> str:
    """Return a key or name as it appears in a variable's name."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _match(part: str, names: Iterable[str], where: str) -> str:
    by_part: dict[str, list[str]] = {}
    for name in names:
        by_part.setdefault(variable_part(name), []).append(name)
    matches = by_part.get(part, [])
    if len(matches) > 1:
        raise ValueError(f"'{part}' in {where} may mean {' or '.join(sorted(matches))}")
    if not matches:
        raise ValueError(f"there is no '{part}' in {where}{did_you_mean(part, by_part)}")
    return matches[0]


def _step_into(table: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict):
        raise ValueError(f"{path_text(path)} is not a table in the file")
    return inner


def _place(parts: list[str], raw: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    # Returns the path meant and the raw table that holds its last key.
    struct: StructType = Config
    table, path = raw, Path()
    remaining = list(parts)
    while remaining:
        shapes = {field.name: field for field in fields(struct)}
        where = path_text(path) or "the configuration"
        name = _match(remaining.pop(0), shapes, where)
        field, path = shapes[name], (*path, name)
        if field.table is None:
            if remaining:
                raise ValueError(f"{path_text(path)} is a value, not a table")
            return path, table
        table = _step_into(table, name, path)
        if field.names is not None and remaining:
            name = _match(remaining.pop(0), table, path_text(path))
            path = (*path, name)
            table = _step_into(table, name, path)
        struct = field.table
    raise ValueError(f"{path_text(path)} is a table: name one of its values")


def _value(text: str) -> object:
    # Read as TOML where it is TOML (numbers, lists, true), else as plain text.
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def apply_overrides(
    raw: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[Path, str], list[str]]:
    """Put the environment's overrides into raw tables, in place.

    Returns
    -------
    overrides
        Path of each overridden value to the variable that did it.
    problems
        One line per variable that matches nothing.
    """
    overrides: dict[Path, str] = {}
    problems: list[str] = []
    for variable in sorted(environment):
        rest = variable.removeprefix(PREFIX)
        if rest == variable or SEPARATOR not in rest:
            continue
        try:
            path, table = _place(rest.split(SEPARATOR), raw)
        except ValueError as error:
            problems.append(f"{variable}: {error}")
            continue
        table[path[-1]] = _value(environment[variable])
        overrides[path] = variable
    return overrides, problems
