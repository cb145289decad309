"""What commands print: data on stdout, messages on stderr.

A program that reads our output gets exactly one JSON object with a schema version, a person gets
plain lines. Colour is only for terminals, and never where ``NO_COLOR`` is set.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT_SCHEMA = 1
"""Version of every object that a command prints with ``--json``."""


def write_json(result: Mapping[str, object]) -> None:
    """Print one JSON object to stdout, ``"schema"`` first. NaN and infinity are refused."""
    text = json.dumps({"schema": OUTPUT_SCHEMA, **result}, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def write_line(text: str = "") -> None:
    """Print one line of data to stdout."""
    sys.stdout.write(text + "\n")


def write_message(text: str) -> None:
    """Print one message to stderr."""
    sys.stderr.write(text + "\n")


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in aligned columns to stdout."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write_line("  ".join(cells).rstrip())


def is_colored(stream: TextIO) -> bool:
    """Return whether colour may be written to ``stream``."""
    return not os.environ.get("NO_COLOR") and stream.isatty()


def console(stream: TextIO) -> "Console":
    """Return a rich console on a stream, without colour where none is wanted."""
    from rich.console import Console

    return Console(file=stream, no_color=not is_colored(stream), highlight=False)
