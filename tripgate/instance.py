"""An instance: its name, its folders, its lock, its epoch.

One instance is one tree with its own books and log. Its state lives on disk and outlives it; its
page lives in shared memory; its socket where the system keeps sockets. Who runs is told by a file
lock, not by a pid file: the kernel drops a lock with its holder, whatever killed it.

Invariants: N1 one live owner per state folder *and* per page folder (two state roots could
otherwise share a page); N2 an epoch is never handed out twice, and is on disk before it is used;
N3 folders of state are readable by their owner alone.
"""

import os
import re
import secrets
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tripgate.durable import (
    FileLock,
    lock_is_held,
    make_folder,
    unwritable,
    write_durably,
)
from tripgate.errors import (
    AlreadyRunningError,
    ConfigError,
    NotRunningError,
    StateUnwritableError,
    UsageError,
)

NAME_PATTERN = r"[a-z][a-z0-9-]{0,31}"
EPOCH_MAX = 32_767
"""Fifteen bits of a token. At one restart a minute this lasts three weeks, at one a day ninety
years."""

FRESH_NAMES_MAX = 9_999
SOCKET_PATH_BYTES_MAX = 107
"""``sun_path`` of Linux holds 108 bytes, the last of which is zero."""

STATE_SUBFOLDERS = ("audit", "heads", "logs")
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
INSTALLATION_ID_LENGTH = 12
_PROBE_BYTES = 4096


def check_instance_name(name: str) -> str:
    """Return ``name`` if it may name an instance. Raises ``UsageError`` otherwise."""
    if not re.fullmatch(NAME_PATTERN, name, re.ASCII):
        raise UsageError(
            f"'{name}' cannot name an instance: use a lower-case letter, then up to 31 lower-case "
            "letters, digits or hyphens"
        )
    return name


def _environment_folder(variable: str) -> Path | None:
    value = os.environ.get(variable, "")
    return Path(value) if value else None


def state_root() -> Path:
    """Return the folder of all instances' state; it need not exist yet.

    ``$TRIPGATE_STATE``, else ``$XDG_STATE_HOME/tripgate``, else ``~/.local/state/tripgate``.
    """
    if own := _environment_folder("TRIPGATE_STATE"):
        return own.absolute()
    base = _environment_folder("XDG_STATE_HOME")
    # The XDG rules say that a relative path is to be ignored.
    if base is not None and base.is_absolute():
        return base / "tripgate"
    try:
        return Path.home() / ".local" / "state" / "tripgate"
    except RuntimeError:
        raise ConfigError("there is no home folder: set TRIPGATE_STATE to a folder") from None


def state_folder(instance: str) -> Path:
    """Return the state folder of an instance; it need not exist yet."""
    return state_root() / check_instance_name(instance)


def _page_root() -> Path:
    return (_environment_folder("TRIPGATE_SHM") or Path("/dev/shm")).absolute()  # noqa: S108


def page_folder(instance: str) -> Path:
    """Return the folder of an instance's shared page (``$TRIPGATE_SHM`` moves its root)."""
    return _page_root() / f"tripgate-{os.getuid()}-{check_instance_name(instance)}"


def socket_path(instance: str) -> Path:
    """Return where the instance's router listens.

    The runtime folder first, then the state folder, then the page folder: the first whose path is
    short enough for a Unix socket. With a state root of its own (``$TRIPGATE_STATE``) the runtime
    folder is left out, since instances of two roots may have the same name.

    Raises
    ------
    ConfigError
        Every candidate is too long.
    """
    name = f"{check_instance_name(instance)}.sock"
    candidates = [state_folder(instance) / name, page_folder(instance) / name]
    runtime = _environment_folder("XDG_RUNTIME_DIR")
    own_root = _environment_folder("TRIPGATE_STATE") is not None
    if runtime is not None and runtime.is_absolute() and runtime.is_dir() and not own_root:
        candidates.insert(0, runtime / "tripgate" / name)
    for path in candidates:
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
    raise ConfigError(
        f"the socket path {candidates[0]} is longer than {SOCKET_PATH_BYTES_MAX} bytes: "
        "set TRIPGATE_STATE to a shorter folder"
    )


def is_running(instance: str) -> bool:
    """Return whether a live process owns the instance and its page is there."""
    return page_folder(instance).is_dir() and lock_is_held(state_folder(instance) / "lock")


def known_instances() -> list[str]:
    """Return the names of all instances that have a state folder, sorted."""
    try:
        children = list(state_root().iterdir())
    except OSError:
        return []
    return sorted(
        child.name
        for child in children
        if re.fullmatch(NAME_PATTERN, child.name, re.ASCII) and child.is_dir()
    )


def running_instances() -> list[str]:
    """Return the names of the instances that are running now, sorted."""
    return [name for name in known_instances() if is_running(name)]


def pick_instance(name: str | None) -> str:
    """Return the instance that a command means.

    The argument, else ``$TRIPGATE_INSTANCE``, else the only one running. A name given need not be
    running (its log can be read, its page may outlive its tree), but it must exist.

    Raises
    ------
    UsageError
        The name is malformed.
    NotRunningError
        No such instance, or none or several are running and none was named.
    """
    wanted = name or os.environ.get("TRIPGATE_INSTANCE") or None
    running = running_instances()
    if wanted is not None:
        if state_folder(wanted).is_dir() or page_folder(wanted).is_dir():
            return wanted
        known = ", ".join(known_instances()) or "none"
        raise NotRunningError(f"there is no instance '{wanted}' (known: {known})")
    if len(running) == 1:
        return running[0]
    if running:
        raise NotRunningError(
            f"several instances are running ({', '.join(running)}): name one with --instance"
        )
    known = ", ".join(known_instances())
    stopped = f"; stopped: {known} (name one with --instance)" if known else ""
    raise NotRunningError(f"no instance is running: start one with `tripgate paper`{stopped}")


def fresh_instance_name(prefix: str = "paper") -> str:
    """Reserve and return the first unused name of ``PREFIX-1``, ``PREFIX-2`` and so on.

    The state folder is made here, in one atomic step, so that two starts at the same time get two
    names.

    Raises
    ------
    StateUnwritableError
        The state root cannot be written, or every name is taken.
    """
    root = state_root()
    make_folder(root)
    for number in range(1, FRESH_NAMES_MAX + 1):
        name = check_instance_name(f"{prefix}-{number}")
        if page_folder(name).exists():
            continue
        try:
            (root / name).mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(root / name, error) from None
        return name
    raise StateUnwritableError(f"{root} holds {FRESH_NAMES_MAX} instances: remove old ones")


def prepare_state(instance: str) -> Path:
    """Make the instance's state folders (0700), prove them writable and return the folder.

    Raises
    ------
    StateUnwritableError
        A folder cannot be made, is another user's, or the disk is full or read-only.
    """
    folder = state_folder(instance)
    for path in (folder, *(folder / name for name in STATE_SUBFOLDERS)):
        make_folder(path)
        try:
            path.chmod(0o700)
        except OSError as error:
            raise unwritable(path, error) from None
    probe = folder / "probe"
    write_durably(probe, b"\0" * _PROBE_BYTES)
    try:
        probe.unlink()
    except OSError as error:
        raise unwritable(probe, error) from None
    return folder


class InstanceLock:
    """Ownership of an instance while the context is open.

    Two locks: one in the state folder and one beside the page folder, because two state roots may
    hold an instance of the same name and would then share one page.

    Raises
    ------
    AlreadyRunningError
        Another live process owns the instance.
    StateUnwritableError
        A lock file cannot be made.
    """

    def __init__(self, instance: str) -> None:
        self.instance = check_instance_name(instance)
        self._stack = ExitStack()

    def __enter__(self) -> "InstanceLock":
        folder, page = state_folder(self.instance), page_folder(self.instance)
        make_folder(folder)
        make_folder(page.parent)
        locks = [
            FileLock(folder / "lock", is_removed=False),
            FileLock(page.with_name(f"{page.name}.lock"), is_removed=True),
        ]
        with ExitStack() as stack:
            for lock in locks:
                if not lock.acquire():
                    owner = f" (process {lock.owner})" if lock.owner else ""
                    raise AlreadyRunningError(
                        f"instance '{self.instance}' is running already{owner}: stop it, or start "
                        "another with --instance NAME"
                    )
                stack.callback(lock.release)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def next_epoch(folder: Path) -> int:
    """Raise the epoch in a state folder by one and return it, once it is on disk.

    The caller holds the instance's lock. A crash after this call costs an epoch, never repeats one.

    Returns
    -------
    int
        1 … ``EPOCH_MAX``.

    Raises
    ------
    StateUnwritableError
        The epoch file cannot be written, is damaged, is lost although a log exists, or all epochs
        are used up.
    """
    path = folder / "epoch"
    advice = "move the state folder aside and start a new instance"
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        audit = folder / "audit"
        if audit.is_dir() and any(audit.iterdir()):
            raise StateUnwritableError(
                f"{path} is lost although a log exists; epochs must not repeat: {advice}"
            ) from None
        text = "0"
    except (OSError, UnicodeDecodeError):
        raise StateUnwritableError(f"{path} cannot be read: {advice}") from None
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII):
        raise StateUnwritableError(f"{path} is damaged: {advice}")
    epoch = int(text) + 1
    if epoch > EPOCH_MAX:
        raise StateUnwritableError(f"{path}: all {EPOCH_MAX} epochs are used up: {advice}")
    write_durably(path, f"{epoch}\n".encode("ascii"))
    return epoch


def installation_id() -> str:
    """Return this installation's random id, made once and kept in the state root.

    Returns
    -------
    str
        Twelve characters of Crockford's base32 (60 random bits); they begin each client order id.
    """
    root = state_root()
    path = root / "installation"
    make_folder(root)
    if not path.exists():
        fresh = "".join(secrets.choice(CROCKFORD) for _ in range(INSTALLATION_ID_LENGTH))
        write_durably(path, f"{fresh}\n".encode("ascii"), replace=False)
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if len(text) != INSTALLATION_ID_LENGTH or not set(text) <= set(CROCKFORD):
        raise StateUnwritableError(
            f"{path} is damaged: restore it from a backup; with no order open at any venue it may "
            "be removed, and a new one is made"
        )
    return text
