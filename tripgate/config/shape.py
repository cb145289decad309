"""The shape of the configuration structs, read once from their types.

Reader, JSON schema, reference table and listing all walk the same shapes, so a field added to a
struct appears in all of them or in none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from tripgate.config.lines import Path
from tripgate.config.rules import Rule

StructType = type[msgspec.Struct]

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class Field:
    """One key of a table.

    Attributes
    ----------
    table
        Struct type, if the key holds one table or (with ``names``) tables by name.
    names
        Rule of the names of such tables, else None.
    rule
        Rule of the value, if the key holds a value.
    is_required
        There is no default.
    """

    name: str
    table: StructType | None
    names: Rule | None
    rule: Rule | None
    description: str
    is_required: bool
    default: object

    @property
    def leaf_rule(self) -> Rule:
        """Return the rule of a field that holds a value."""
        assert self.rule is not None, f"{self.name} is a table"
        return self.rule


def _metadata(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _rule(hint: Any) -> Rule | None:
    return next((item for item in _metadata(hint) if isinstance(item, Rule)), None)


def _description(hint: Any) -> str:
    metas = (item for item in _metadata(hint) if isinstance(item, msgspec.Meta))
    return next((meta.description for meta in metas if meta.description), "")


@cache
def fields(struct: StructType) -> tuple[Field, ...]:
    """Return the fields of a configuration struct in their order."""
    hints = get_type_hints(struct, include_extras=True)
    shapes = []
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        names, table = None, None
        if get_origin(hint) is dict:
            name_hint, table = get_args(hint)
            names = _rule(name_hint)
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            table = hint
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        shape = Field(
            field.name, table, names, _rule(hint), _description(hint), field.required, default
        )
        assert (shape.rule is None) == (shape.table is not None), f"{field.name} has no rule"
        shapes.append(shape)
    return tuple(shapes)


def path_text(path: Path) -> str:
    """Return a key path as TOML writes it: parts that need quotes have them."""
    return ".".join(part if part and _BARE.issuperset(part) else f'"{part}"' for part in path)


def leaves(config: msgspec.Struct, path: Path = ()) -> Iterator[tuple[Path, Field, object]]:
    """Yield every value of a configuration with its path and field, depth first."""
    for field in fields(type(config)):
        value = getattr(config, field.name)
        here = (*path, field.name)
        if field.rule is not None:
            yield here, field, value
        elif field.names is None:
            yield from leaves(value, here)
        else:
            for name, table in value.items():
                yield from leaves(table, (*here, name))


def plain(config: msgspec.Struct) -> dict[str, object]:
    """Return a configuration as JSON can hold it: amounts as text, secrets as ``***``."""
    result: dict[str, object] = {}
    for field in fields(type(config)):
        value = getattr(config, field.name)
        if field.rule is not None:
            result[field.name] = field.rule.plain(value)
        elif field.names is None:
            result[field.name] = plain(value)
        else:
            result[field.name] = {name: plain(table) for name, table in value.items()}
    return result
