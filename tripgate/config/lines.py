"""On which line of a TOML text each key and table stands.

The standard library's reader gives values but no places, and an error without a line is half an
error. This scanner walks a text that the reader has already accepted, so it need not validate
anything; it only has to step over values without mistaking their content for keys.

Invariants: L1 every key and table of the text has a line; L2 the scanner never loops without
consuming text.
"""

import re
import tomllib
from bisect import bisect_right

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[Path, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.position)
        if match is None:
            raise ValueError(f"not valid TOML at offset {self.position}")
        self.position = match.end()
        return match.group()

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def record(self, path: Path) -> None:
        # A parent that is only implied by its children stands where it is first mentioned.
        line = bisect_right(self.starts, self.position)
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def key(self) -> Path:
        parts: list[str] = []
        while True:
            self.skip(_SPACE)
            if self.peek() in "\"'":
                parts.append(str(tomllib.loads("key = " + self.skip(_STRING))["key"]))
            else:
                parts.append(self.skip(_BARE))
            self.skip(_SPACE)
            if self.peek() != ".":
                return tuple(parts)
            self.position += 1

    def value(self, path: Path) -> None:
        self.skip(_SPACE)
        opening = self.peek()
        if opening in ("[", "{"):
            self.position += 1
            self.members(path, is_table=opening == "{")
        elif opening in ('"', "'"):
            self.skip(_STRING)
        else:
            self.skip(_SCALAR)

    def members(self, path: Path, *, is_table: bool) -> None:
        closing = "}" if is_table else "]"
        while True:
            self.skip(_BLANK)
            if self.peek() == closing:
                self.position += 1
                return
            if is_table:
                self.pair(path)
            else:
                self.value(path)
            self.skip(_BLANK)
            if self.peek() == ",":
                self.position += 1

    def pair(self, table: Path) -> None:
        start = self.position
        path = table + self.key()
        after, self.position = self.position, start
        self.record(path)
        self.position = after + 1
        self.value(path)

    def header(self) -> Path:
        start = self.position
        brackets = self.skip(re.compile(r"\[\[?"))
        path = self.key()
        after, self.position = self.position, start
        self.record(path)
        # The header itself is a better place than a child table that came before it.
        self.lines[path] = bisect_right(self.starts, start)
        self.position = after + len(brackets)
        return path

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if not self.peek():
                return self.lines
            if self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)


def line_numbers(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every key and table of a TOML text.

    Parameters
    ----------
    text
        A text that ``tomllib`` accepts. Elements of arrays have no path of their own: keys inside
        an array's tables are found under the array's path.

    Raises
    ------
    ValueError
        The text is not valid TOML (found only where the scanner cannot go on).
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()
