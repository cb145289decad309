"""Reads tripgate.toml into ``Config`` and reports every problem at once, each with its line.

msgspec's own conversion stops at the first error and hides the names of tables, so this walker
visits the structs' fields itself. Environment variables may override single values; each value's
origin is kept, because "where does this limit come from" is a question asked in a hurry.

Invariant: O1 a ``Config`` exists only if nothing at all was wrong.
"""

import hashlib
import json
import os
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from tripgate.config.checks import cross_checks
from tripgate.config.lines import Path, line_numbers
from tripgate.config.overrides import apply_overrides
from tripgate.config.rules import shown
from tripgate.config.shape import Field, StructType, fields, leaves, path_text
from tripgate.config.structs import Config
from tripgate.errors import ConfigError
from tripgate.spelling import did_you_mean

FILE_BYTES_MAX = 1 << 20
PROBLEMS_MAX = 100
"""Problems listed at once; a file with more is mended from the top anyway."""


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and where it came from.

    Attributes
    ----------
    name
        The file's name, as errors show it.
    text, text_sha256
        The file as read, and the hash of its UTF-8 bytes (hex).
    config_sha256
        Hash of the values in effect, overrides and defaults included (hex). Secret references
        count too, so that a changed key is a changed configuration.
    origins
        Path of each value to ``file``, ``env`` or ``default``.
    """

    config: Config
    name: str
    text: str
    text_sha256: str
    config_sha256: str
    origins: Mapping[str, str]


class _Reading:
    """Collects values, origins and problems of one file."""

    def __init__(self, name: str, lines: Mapping[Path, int], overrides: Mapping[Path, str]) -> None:
        self.name = name
        self.lines = lines
        self.overrides = overrides
        self.origins: dict[str, str] = {}
        self.problems: list[tuple[int, str]] = []

    def problem(self, path: Path, message: str, at: Path | None = None) -> None:
        """Note a problem of ``path``, placed at the nearest line of ``at`` (default: path)."""
        place = path if at is None else at
        if place in self.overrides:
            self.problems.append((0, f"{self.overrides[place]}: {path_text(path)}: {message}"))
            return
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place, 1)
        self.problems.append((line, f"{self.name}:{line}: {path_text(path)}: {message}"))

    def table(self, struct: StructType, raw: object, path: Path) -> object:
        """Return a struct, or None if anything in it was wrong."""
        if not isinstance(raw, dict):
            self.problem(path, f"expected a table, was {shown(raw)}")
            return None
        count = len(self.problems)
        shapes = {field.name: field for field in fields(struct)}
        for key in raw:
            if key not in shapes:
                self.problem((*path, key), f"unknown key{did_you_mean(key, shapes)}")
        values = {name: self.field(field, raw, (*path, name)) for name, field in shapes.items()}
        return struct(**values) if len(self.problems) == count else None

    def field(self, field: Field, raw: dict[str, Any], path: Path) -> object:
        """Return what one key of a table holds; the result counts only if no problem arose."""
        if field.table is None:
            return self.leaf(field, raw, path)
        inner = raw.get(field.name, {})
        if field.name not in raw and field.is_required:
            if field.names is not None:
                wanted = f"at least one table [{path_text(path)}.NAME]"
            else:
                keys = [key.name for key in fields(field.table) if key.is_required]
                wanted = f"a table with {', '.join(keys)}"
            self.problem(path, f"missing, expected {wanted}")
            return None
        if field.names is None:
            return self.table(field.table, inner, path)
        return self.tables(field, inner, path)

    def tables(self, field: Field, raw: object, path: Path) -> dict[str, object]:
        """Return the named tables below one key."""
        assert field.names is not None, f"{field.name} has no names"
        assert field.table is not None, f"{field.name} holds no tables"
        if not isinstance(raw, dict):
            self.problem(path, f"expected tables by name, was {shown(raw)}")
            return {}
        result = {}
        for name, table in raw.items():
            try:
                field.names.read(name)
            except ValueError:
                self.problem((*path, name), f"expected {field.names.expected}, was {shown(name)}")
            result[name] = self.table(field.table, table, (*path, name))
        return result

    def leaf(self, field: Field, raw: dict[str, Any], path: Path) -> object:
        """Return one value as the struct keeps it."""
        rule = field.leaf_rule
        if field.name not in raw:
            if field.is_required:
                self.problem(path, f"missing, expected {rule.expected}")
            self.origins[path_text(path)] = "default"
            return field.default
        self.origins[path_text(path)] = "env" if path in self.overrides else "file"
        try:
            return rule.read(raw[field.name])
        except ValueError as error:
            expected = str(error) or rule.expected
            self.problem(path, f"expected {expected}, was {rule.was(raw[field.name])}")
            return None


def _tables_and_lines(text: str, name: str) -> tuple[dict[str, Any], dict[Path, int]]:
    try:
        return tomllib.loads(text, parse_float=Decimal), line_numbers(text)
    except RecursionError:
        raise ConfigError(f"{name}: values are nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at line ")
        last = text.rstrip("\n").count("\n") + 1
        line = place.partition(",")[0] or str(last)
        raise ConfigError(f"{name}:{line}: not valid TOML: {message}") from None
    except (ValueError, ArithmeticError):
        # Numbers with thousands of digits or an absurd exponent are refused without a place.
        raise ConfigError(f"{name}: not valid TOML: a number in it is too large") from None


def _config_sha256(config: Config) -> str:
    values = {
        path_text(path): value.reveal_reference()
        if field.leaf_rule.is_secret and value is not None
        else field.leaf_rule.plain(value)
        for path, field, value in cast(Any, leaves(config))
    }
    encoded = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(encoded).hexdigest()


def load_text(text: str, name: str, environment: Mapping[str, str]) -> LoadedConfig:
    """Read a configuration from text, with overrides from ``environment``.

    Raises
    ------
    ConfigError
        Anything was wrong; holds one line per problem, ``file:line: key: expected …, was …``.
    """
    raw, lines = _tables_and_lines(text, name)
    overrides, problems = apply_overrides(raw, environment)
    reading = _Reading(name, lines, overrides)
    config = reading.table(Config, raw, ())
    for found in cross_checks(raw):
        reading.problem(found.path, found.message, found.at)
    problems += [message for _, message in sorted(reading.problems, key=lambda item: item[0])]
    if problems:
        hidden = len(problems) - PROBLEMS_MAX
        more = [f"{name}: and {hidden} more problems"] if hidden > 0 else []
        raise ConfigError(*problems[:PROBLEMS_MAX], *more)
    assert isinstance(config, Config), "a configuration without problems has a struct"
    return LoadedConfig(
        config=config,
        name=name,
        text=text,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        config_sha256=_config_sha256(config),
        origins=reading.origins,
    )


def _file_text(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: does not exist; `tripgate init` writes one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: is larger than {FILE_BYTES_MAX} bytes; is it the right file?")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from None


def load_config(
    path: pathlib.Path | str, environment: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Read a configuration file, with overrides from ``environment`` (default: the process's).

    Raises
    ------
    ConfigError
        The file is missing, unreadable or wrong.
    """
    path = pathlib.Path(path)
    return load_text(
        _file_text(path), str(path), os.environ if environment is None else environment
    )


def read_config(path: pathlib.Path | str) -> Config:
    """Return the configuration in a file, overrides of the environment included."""
    return load_config(path).config


def parse_config(text: str, name: str) -> Config:
    """Return the configuration in a text; the environment is not looked at."""
    return load_text(text, name, {}).config
