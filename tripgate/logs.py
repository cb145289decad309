"""Operational logs: what people read to find out why. Nobody's money depends on a line of them.

Each process writes JSON lines into a file of its own, ``STATE/INSTANCE/logs/NAME.jsonl``; they are
apart from the audit log, which holds what must be provable. A line that cannot be written (full
disk, folder gone) is counted and dropped: a process that guards money must not die of its diary.

Secrets never get in: a field with a secret's name is masked, and so is every text in which a value
occurs that was ``hide``-n. Whoever reads a secret hides it first.

Invariants: O1 no hidden value reaches a file; O2 writing a line never raises and never waits for
the disk's confirmation; O3 one process's files never hold more than ``FILES_KEPT + 1`` ×
``FILE_BYTES_MAX`` bytes.
"""

import contextlib
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from tripgate import clock
from tripgate.errors import ConfigError

FILE_BYTES_MAX = 8 << 20
FILES_KEPT = 3
LINE_CHARACTERS_MAX = 8_000
"""Longest text of one field: a traceback fits, a dump of a table does not."""
DEPTH_MAX = 4
ITEMS_MAX = 100
INTEGER_MAX = 2**63 - 1
"""Larger integers are written as text, which every reader of JSON can read."""
LEVEL_VARIABLE = "TRIPGATE_LOG_LEVEL"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MASK = "***"
SECRET_CHARACTERS_MIN = 6
"""Shorter values are not looked for in texts: they would mask half of every line."""

SECRET_NAMES = frozenset(
    {"api_key", "apikey", "api_secret", "secret", "password", "passphrase", "private_key",
     "authorization", "signature"}
)  # fmt: skip
"""Names of fields whose value is masked whatever it is. An order's ``token`` is no secret."""

Log = Any
"""A structlog logger: ``log.info("what happened", key=value)``; ``Any``, as its own type is."""

_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Mask a value in every line that this process will write.

    Raises
    ------
    ConfigError
        The value is too short to be a secret.
    """
    if len(secret) < SECRET_CHARACTERS_MIN:
        raise ConfigError(f"a secret has at least {SECRET_CHARACTERS_MIN} characters: make it anew")
    _hidden.add(secret)


class LineFile:
    """A file of lines with a bounded size; older ones are ``NAME.1`` (newest) and so on.

    Attributes
    ----------
    lost
        Lines that could not be written.
    """

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        self.path = path
        self.lost = 0
        self._bytes_max = bytes_max
        self._descriptor = -1
        self._size = 0

    def msg(self, line: str) -> None:
        """Append one line; never raises."""
        try:
            data = (line + "\n").encode("utf-8", "backslashreplace")
            if self._descriptor < 0:
                self._open()
            elif self._size + len(data) > self._bytes_max:
                self._turn_over()
            # One write with O_APPEND: a reader never sees two lines mixed.
            self._size += os.write(self._descriptor, data)
        except OSError:
            self.lost += 1

    debug = info = warning = error = critical = msg

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _turn_over(self) -> None:
        self.close()
        for number in range(FILES_KEPT, 0, -1):
            newer = self.path if number == 1 else self._older(number - 1)
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, self._older(number))
        self._open()

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def level_of(environment: Mapping[str, str]) -> int:
    """Return the least level that is written. Raises ``ConfigError`` for a name there is not."""
    name = environment.get(LEVEL_VARIABLE, "") or "info"
    if name not in LEVELS:
        raise ConfigError(f"{LEVEL_VARIABLE}: expected one of {', '.join(LEVELS)}, was {name!r}")
    return LEVELS[name]


def open_log(folder: Path, name: str, **bound: object) -> Log:
    """Return the log of a process, which writes to ``folder/NAME.jsonl``.

    Parameters
    ----------
    folder
        The instance's ``logs`` folder; it need not exist yet.
    name
        The process: ``root``, ``router-sim`` …; becomes the file's name.
    bound
        Fields of every line.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = structlog.wrap_logger(
        LineFile(folder / f"{name}.jsonl"),
        processors=[_stamp, structlog.processors.add_log_level,
                    structlog.processors.format_exc_info, _without_secrets, _to_json],
        wrapper_class=structlog.make_filtering_bound_logger(level_of(os.environ)),
    )  # fmt: skip
    return log.bind(process=name, pid=os.getpid(), **bound)


def _stamp(_logger: object, _method: str, line: MutableMapping[str, Any]) -> Any:
    line["utc_ns"], line["host_ns"] = clock.utc_ns(), clock.host_ns()
    return line


def _without_secrets(_logger: object, _method: str, line: MutableMapping[str, Any]) -> Any:
    return _masked(line, DEPTH_MAX)


def _masked(value: object, depth: int) -> object:
    """Return a plain, bounded copy of a value in which no secret stands."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int) and abs(value) <= INTEGER_MAX:
        return value
    if isinstance(value, Mapping) and depth:
        return {
            _text(key): MASK if str(key).lower() in SECRET_NAMES else _masked(inner, depth - 1)
            for key, inner in list(value.items())[:ITEMS_MAX]
        }
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_masked(inner, depth - 1) for inner in list(value)[:ITEMS_MAX]]
    return _text(value)


def _text(value: object) -> str:
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:  # Whatever a foreign object's text raises, the line is written.
        text = f"<a {type(value).__name__} whose text raises {type(error).__name__}>"
    for secret in _hidden:
        text = text.replace(secret, MASK)
    # Cut last: half a secret at the end of a text would not be found in it any more.
    # Half a surrogate pair, as undecodable file names have them, cannot be written as UTF-8.
    return text[:LINE_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode()


def _to_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(line).decode()
