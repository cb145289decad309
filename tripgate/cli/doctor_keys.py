"""The checks of ``tripgate doctor`` on what must stay private: key files and the state folder."""

import os
import shlex
import shutil
import stat
from pathlib import Path

from tripgate.cli.doctor_check import Check, fail, ok, warn
from tripgate.config.reader import load_config
from tripgate.errors import ConfigError
from tripgate.instance import known_instances, state_folder, state_root

DEFAULT_FILE = Path("tripgate.toml")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
SHOWN_MAX = 5


def check_keys(file: Path | None = None) -> Check:
    """Check that every key which a configuration names is there and is its owner's alone.

    Parameters
    ----------
    file
        The configuration; None for ``tripgate.toml`` here, if there is one.
    """
    chosen = file if file is not None else DEFAULT_FILE
    if file is None and not chosen.exists():
        return ok("keys", f"no {chosen} here names any")
    try:
        venues = load_config(chosen).config.venues
    except ConfigError as error:
        return fail("keys", error.problems[0], f"run: tripgate config check {chosen}")
    references = {
        f"venues.{name}.api_key": venue.api_key.reveal_reference()
        for name, venue in venues.items()
        if venue.api_key is not None
    }
    return judge_keys(references)


def judge_keys(references: dict[str, str]) -> Check:
    """Judge references to secrets, given as place in the configuration → reference.

    Neither a secret nor where it lies is printed: the place in the configuration names it.
    """
    problems = [
        f"{place}: {problem}"
        for place, reference in references.items()
        if (problem := _problem(reference))
    ]
    if problems:
        return fail(
            "keys", "; ".join(problems[:SHOWN_MAX]),
            "a key file belongs to you, mode 0600 (chmod 600 FILE); a variable must be set where "
            "tripgate runs; a command must be on the path",
        )  # fmt: skip
    return ok("keys", f"{len(references)} references to keys, each there and private")


def _problem(reference: str) -> str | None:
    """Return what is wrong with a reference to a secret; the secret itself is not read."""
    kind, _, rest = reference.partition(":")
    if kind == "env":
        return None if os.environ.get(rest) else "its variable is not set"
    if kind == "cmd":
        words = shlex.split(rest)
        return None if words and shutil.which(words[0]) else "there is no such command"
    path = Path(rest).expanduser()
    try:
        status = path.stat()
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"
    if status.st_uid != os.getuid():
        return "its file belongs to another user"
    if status.st_mode & OTHERS:
        return f"others can open its file (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def check_private() -> Check:
    """Check that nobody else can open the state of any instance: logs tell positions."""
    open_to_others = [path for path in _private_places() if _is_open(path)]
    if open_to_others:
        shown = ", ".join(str(path) for path in open_to_others[:SHOWN_MAX])
        return warn(
            "private state", f"others may open {shown}", f"run: chmod -R go-rwx {state_root()}"
        )
    return ok("private state", f"{state_root()} is its owner's alone")


def _private_places() -> list[Path]:
    places = [state_root()]
    for name in known_instances():
        folder = state_folder(name)
        places += [folder, *(path for path in folder.iterdir() if not path.is_symlink())]
    return places


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False
