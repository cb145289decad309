"""What a disk may hold after a power cut, from a trace of what was done to it.

A file is what was synced, plus whatever the disk chose of the writes since: none, the first few,
any of them, and of a write any of its 512-byte sectors. A folder's entries are no better: a file
that was made, renamed or removed is so for certain only once its *folder* was synced, and each
folder and file chooses for itself. Data that a sync failed on stays uncertain for ever, whatever a
later sync says (an operating system may have marked it clean). No real file system is as careless
as all this together; a writer that bears it bears them all.

Invariants: K1 what a successful sync covered is in every image; K2 an image is drawn from the
generator given and from nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum, unique
from pathlib import PurePosixPath
from random import Random

SECTOR_BYTES = 512


@unique
class Act(IntEnum):
    """What the shim tells; the numbers are its own."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    SYNC_FAILED = 6
    RENAME = 7
    UNLINK = 8
    FOLDER = 9
    UNSEEN = 10


@unique
class Choice(Enum):
    """What becomes of the writes that no sync has covered."""

    NONE = "none"
    PREFIX = "prefix"
    SUBSET = "subset"
    TORN = "torn"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a trace; paths are relative to its root, and empty where there is none."""

    act: Act
    descriptor: int
    offset: int
    path: str
    data: bytes


@dataclass(slots=True)
class _Change:
    """A write, or a truncation where ``data`` is None."""

    offset: int
    data: bytes | None
    is_durable: bool = False
    is_doubtful: bool = False

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data

    def torn(self, draw: Random) -> "list[_Change]":
        """Return some of the write's sectors."""
        if self.data is None:
            return [self] if draw.random() < 0.5 else []
        pieces, start, end = list[_Change](), self.offset, self.offset + len(self.data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if draw.random() < 0.5:
                piece = self.data[start - self.offset : stop - self.offset]
                pieces.append(_Change(start, piece))
            start = stop
        return pieces


@dataclass(slots=True, eq=False)
class _File:
    base: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    def sync(self, *, succeeds: bool) -> None:
        for change in self.changes:
            if not change.is_doubtful:
                change.is_durable = change.is_durable or succeeds
                change.is_doubtful = not change.is_durable
        while self.changes and self.changes[0].is_durable:
            self.changes.pop(0).apply(self.base)

    def image(self, choice: Choice, draw: Random) -> bytes:
        open_changes = [change for change in self.changes if not change.is_durable]
        taken = _chosen(open_changes, choice, draw)
        torn: _Change | None = None
        if choice is Choice.TORN and open_changes:
            torn = open_changes[min(len(taken), len(open_changes) - 1)]
            taken.discard(torn)
        content = bytearray(self.base)
        for change in self.changes:
            if change is torn:
                for piece in change.torn(draw):
                    piece.apply(content)
            elif change.is_durable or change in taken:
                change.apply(content)
        return bytes(content)


class _Identity(set[object]):
    """A set that compares by identity: equal changes are still two."""

    def __init__(self, members: Iterable[object]) -> None:
        super().__init__(id(member) for member in members)

    def __contains__(self, member: object) -> bool:
        return super().__contains__(id(member))

    def discard(self, member: object) -> None:
        super().discard(id(member))


def _chosen(changes: list[_Change], choice: Choice, draw: Random) -> _Identity:
    if choice is Choice.NONE:
        return _Identity(())
    if choice is Choice.ALL:
        return _Identity(changes)
    if choice is Choice.SUBSET:
        return _Identity(change for change in changes if draw.random() < 0.5)
    return _Identity(changes[: draw.randint(0, len(changes))])


@dataclass(slots=True, eq=False)
class _Folder:
    """Entries by name; a step sets some of them, or removes those that it maps to None."""

    live: dict[str, "_File | _Folder"] = field(default_factory=dict)
    durable: dict[str, "_File | _Folder"] = field(default_factory=dict)
    steps: list[dict[str, "_File | _Folder | None"]] = field(default_factory=list)

    def set(self, step: dict[str, "_File | _Folder | None"]) -> None:
        self.steps.append(step)
        _apply_step(self.live, step)

    def sync(self, *, succeeds: bool) -> None:
        if succeeds:
            self.durable = dict(self.live)
            self.steps.clear()

    def image(self, choice: Choice, draw: Random) -> dict[str, "_File | _Folder"]:
        entries = dict(self.durable)
        count = {Choice.NONE: 0, Choice.ALL: len(self.steps)}.get(choice)
        if count is None:
            count = draw.randint(0, len(self.steps))
        for number, step in enumerate(self.steps):
            taken = draw.random() < 0.5 if choice is Choice.SUBSET else number < count
            if taken:
                _apply_step(entries, step)
        return entries


def _apply_step(
    entries: dict[str, "_File | _Folder"], step: dict[str, "_File | _Folder | None"]
) -> None:
    for name, node in step.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """A folder that starts empty and is carried along a trace.

    Parameters
    ----------
    leaves_out
        Which syncs are taken for never made, by path: the way to ask what a writer without them
        would have risked.
    """

    def __init__(self, leaves_out: Callable[[str], bool] = lambda path: False) -> None:
        self._root = _Folder()
        self._open: dict[int, tuple[str, _File | _Folder]] = {}
        self._leaves_out = leaves_out

    def step(self, operation: Operation) -> None:
        """Carry out one line of the trace.

        Raises
        ------
        ValueError
            The trace does not fit: a file that it names is not there, or cannot be followed.
        """
        match operation.act:
            case Act.OPEN:
                self._open_path(operation)
            case Act.CLOSE:
                del self._open[operation.descriptor]
            case Act.WRITE | Act.TRUNCATE:
                _, file = self._open[operation.descriptor]
                if not isinstance(file, _File):
                    raise ValueError(f"a folder was written: {operation}")
                data = operation.data if operation.act is Act.WRITE else None
                file.changes.append(_Change(operation.offset, data))
            case Act.SYNC | Act.SYNC_FAILED:
                path, node = self._open[operation.descriptor]
                if not self._leaves_out(path):
                    node.sync(succeeds=operation.act is Act.SYNC)
            case Act.RENAME:
                self._rename(operation.path, operation.data.decode())
            case Act.UNLINK:
                folder, name = self._place(operation.path)
                folder.set({name: None})
            case Act.FOLDER:
                folder, name = self._place(operation.path)
                folder.set({name: _Folder()})
            case Act.UNSEEN:
                raise ValueError(f"{operation.path} is written through memory, unseen")

    def image(self, data: Choice, entries: Choice, draw: Random) -> dict[str, bytes]:
        """Draw what the disk may hold now: content by path."""
        found: dict[str, bytes] = {}
        waiting: list[tuple[str, _Folder]] = [("", self._root)]
        while waiting:
            prefix, folder = waiting.pop()
            for name, node in sorted(folder.image(entries, draw).items()):
                if isinstance(node, _Folder):
                    waiting.append((f"{prefix}{name}/", node))
                else:
                    found[prefix + name] = node.image(data, draw)
        return found

    def _place(self, path: str) -> tuple[_Folder, str]:
        folder, *parts = self._root, *PurePosixPath(path).parts
        for part in parts[:-1]:
            inner = folder.live.get(part)
            if not isinstance(inner, _Folder):
                raise ValueError(f"there is no folder for {path}")
            folder = inner
        return folder, parts[-1]

    def _open_path(self, operation: Operation) -> None:
        node: _File | _Folder | None = self._root
        if operation.path:
            folder, name = self._place(operation.path)
            node = folder.live.get(name)
            if operation.offset and node is None:
                node = _File()
                folder.set({name: node})
        if node is None:
            raise ValueError(f"{operation.path} was opened, but the trace never made it")
        self._open[operation.descriptor] = (operation.path, node)

    def _rename(self, old: str, new: str) -> None:
        folder, name = self._place(old)
        target, new_name = self._place(new)
        if folder is not target or name not in folder.live:
            raise ValueError(f"{old} cannot be followed to {new}")
        # One step: a file is never gone under both names, nor there under both.
        folder.set({new_name: folder.live[name], name: None})
