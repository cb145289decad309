"""Make and open the two files of the page, and give typed views into them.

A page is opened only if it is ours (owner, mode), whole (size) and of our layout (magic, version,
hash of layout, instruments and units); anything else is a ``PageError`` of its own kind, never a
guess. Clients map ``control`` read-only, so a stray store of theirs is a fault instead of a widened
limit.

A tree never reuses the file of an earlier run: it makes a new one under the next epoch, takes the
tables over, and marks the old one closed, so that a client which still holds the old mapping is
denied, not deceived. Until all is taken over the new page is not *complete*: were its maker killed
now, the next one must take nothing from it.
"""

import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from tripgate.errors import (
    PageDamagedError,
    PageError,
    PageForeignError,
    PageMissingError,
    PageReplacedError,
    PageTruncatedError,
    PageVersionError,
    StateUnwritableError,
)
from tripgate.page.layout import (
    CONTROL_HEADER,
    COUNTERS_HEADER,
    ENTRIES_PER_SLOT,
    LAYOUT_VERSION,
    MAGIC,
    NAMES_BYTES,
    Capacities,
    Layout,
    Table,
    layout_of,
)
from tripgate.page.names import PageNames

CONTROL_FILE = "control"
COUNTERS_FILE = "counters"
_CAPACITY_FIELDS = (
    "nodes", "instruments", "strategies", "keys", "slots", "roles", "causes", "quotes", "links",
)  # fmt: skip
_COMPLETE_AT = 32
"""Place in the header's directory of the word that says that the page is complete."""


class Page:
    """Both files of one instance, mapped.

    Attributes
    ----------
    control, counters
        Addresses of the first byte of each mapping.
    names
        Names of everything that has a number.
    """

    def __init__(
        self, control: mmap.mmap, counters: mmap.mmap, layout: Layout, *, folder: Path
    ) -> None:
        self.layout = layout
        self.folder = folder
        self._maps = {"control": control, "counters": counters}
        self._arrays = {
            name: np.frombuffer(mapping, dtype=np.uint8) for name, mapping in self._maps.items()
        }
        self.control = int(self._arrays["control"].ctypes.data)
        self.counters = int(self._arrays["counters"].ctypes.data)
        self._views: dict[str, np.ndarray[Any, Any]] = {}
        header = self.header
        start, length = int(header["names_offset"]), int(header["names_bytes"])
        self.names = PageNames.unpack(bytes(control[start : start + length]))

    @property
    def header(self) -> Any:
        """The control header as one numpy record (live)."""
        return self._view("control", 0, CONTROL_HEADER, 1)[0]

    @property
    def epoch(self) -> int:
        """Epoch of the tree's run that made this page."""
        return int(self.header["epoch"])

    @property
    def is_complete(self) -> bool:
        """Whether all that an earlier run left has been taken over: the page stands on its own."""
        return bool(self.header["directory"][_COMPLETE_AT])

    def set_complete(self) -> None:
        """Note that the page stands on its own (root only)."""
        self.header["directory"][_COMPLETE_AT] = 1

    def rows(self, table: Table) -> "np.ndarray[Any, Any]":
        """Return a live structured view of a table, shape (rows,)."""
        view = self._views.get(table.name)
        if view is None:
            count = self.layout.capacities.rows(table)
            view = self._view(table.file, self.layout.offsets[table.name], table, count)
            self._views[table.name] = view
        return view

    def bytes_of(self, table: Table, row: int) -> memoryview:
        """Return the bytes of one row, writable if the file is mapped writable."""
        start = self.layout.offsets[table.name] + row * table.row_bytes
        return memoryview(self._maps[table.file])[start : start + table.row_bytes]

    def address(self, table: Table, row: int, field: str = "") -> int:
        """Return the address of a row, or of a field in it.

        Raises
        ------
        IndexError
            The table has no such row: an address outside its table must never be formed.
        """
        if table.name.endswith("_header"):
            base, count = (self.control if table.file == "control" else self.counters), 1
        else:
            base = self.control if table.file == "control" else self.counters
            base += self.layout.offsets[table.name]
            count = self.layout.capacities.rows(table)
        if not 0 <= row < count:
            raise IndexError(f"{table.name} has {count} rows, was {row}")
        return base + row * table.row_bytes + (table.offset(field) if field else 0)

    def slot_entries(self, slot: int) -> int:
        """Return the index of a slot's first entry."""
        return slot * ENTRIES_PER_SLOT

    def _view(self, file: str, start: int, table: Table, count: int) -> "np.ndarray[Any, Any]":
        return np.frombuffer(self._maps[file], dtype=table.dtype, count=count, offset=start)


def create_page(
    folder: Path, capacities: Capacities, names: PageNames, *, epoch: int, shadow: bool
) -> Page:
    """Make a new page under ``folder``, closed, and return it mapped writable.

    Raises
    ------
    StateUnwritableError
        The shared-memory folder is full or read-only.
    """
    layout = layout_of(capacities)
    packed = names.pack()
    if len(packed) > NAMES_BYTES:
        raise PageError("too many instruments for one page: split the instance")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(folder)
        fresh = [
            _make_file(folder / f"{CONTROL_FILE}.new", layout.control_bytes),
            _make_file(folder / f"{COUNTERS_FILE}.new", layout.counters_bytes),
        ]
    except OSError as error:
        raise StateUnwritableError(
            f"cannot make the shared page in {folder}: {error.strerror}; free space there"
        ) from None
    control, counters = fresh
    header = np.frombuffer(control, dtype=CONTROL_HEADER.dtype, count=1)[0]
    for name in _CAPACITY_FIELDS:
        header["directory"][_CAPACITY_FIELDS.index(name)] = getattr(capacities, name)
    header["names_offset"], header["names_bytes"] = layout.names_offset, len(packed)
    control[layout.names_offset : layout.names_offset + len(packed)] = packed
    other = np.frombuffer(counters, dtype=COUNTERS_HEADER.dtype, count=1)[0]
    for row in (header, other):
        row["layout_version"], row["epoch"] = LAYOUT_VERSION, epoch
        row["layout_hash"] = layout.hash ^ names.units_hash
        row["magic"] = MAGIC
    header["closed"], header["shadow"] = 1, int(shadow)
    for name in (COUNTERS_FILE, CONTROL_FILE):
        os.replace(folder / f"{name}.new", folder / name)
    return Page(control, counters, layout, folder=folder)


def open_page(folder: Path, *, control_writable: bool = False, writable: bool = True) -> Page:
    """Open an existing page.

    Parameters
    ----------
    folder
        The instance's page folder.
    control_writable
        True for the tree and the operator's commands, never for clients.
    writable
        False maps both files read-only (``status``).

    Raises
    ------
    PageMissingError, PageForeignError, PageTruncatedError
        A file is not there, not ours alone, or cut off.
    PageVersionError
        The files are of another version, or their tables, instruments or units are not those that
        the other file was made for.
    PageDamagedError, PageReplacedError
        What stands there cannot be true, or is of two runs.
    """
    if folder.exists():
        _check_folder(folder)
    control = _open_file(folder / CONTROL_FILE, CONTROL_HEADER, control_writable)
    counters = _open_file(folder / COUNTERS_FILE, COUNTERS_HEADER, writable)
    header = np.frombuffer(control, dtype=CONTROL_HEADER.dtype, count=1)[0]
    other = np.frombuffer(counters, dtype=COUNTERS_HEADER.dtype, count=1)[0]
    numbers = [int(value) for value in header["directory"][: len(_CAPACITY_FIELDS)]]
    if not all(0 < number < 1 << 16 for number in numbers):
        raise PageDamagedError(f"the page in {folder} is damaged: restart the tree")
    layout = layout_of(Capacities(**dict(zip(_CAPACITY_FIELDS, numbers, strict=True))))
    if len(control) < layout.control_bytes or len(counters) < layout.counters_bytes:
        raise PageTruncatedError(f"the page in {folder} is cut off: restart the tree")
    if int(other["epoch"]) != int(header["epoch"]):
        raise PageReplacedError(f"the page in {folder} is being replaced: try again")
    page = Page(control, counters, layout, folder=folder)
    expected = layout.hash ^ page.names.units_hash
    fits = len(control) == layout.control_bytes and len(counters) == layout.counters_bytes
    if not fits or not int(header["layout_hash"]) == int(other["layout_hash"]) == expected:
        raise PageVersionError(
            f"the page in {folder} has another layout or other instruments: use the tripgate "
            "version that started it"
        )
    return page


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which somebody else could put other files in the place of ours."""
    status = folder.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o022:
        raise PageForeignError(
            f"{folder} belongs to another user or is open to others: refused; remove it"
        )


def _make_file(path: Path, size: int) -> mmap.mmap:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _open_file(path: Path, header: Table, writable: bool) -> mmap.mmap:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise PageMissingError(
            f"no page at {path} ({error.strerror}): is the instance running? see 'tripgate status'"
        ) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PageForeignError(f"{path} belongs to another user or is open to others: refused")
        if not stat.S_ISREG(status.st_mode):
            raise PageDamagedError(f"{path} is no file: remove it and restart the tree")
        if status.st_size < header.row_bytes:
            raise PageTruncatedError(f"{path} is cut off: restart the tree")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        mapping = mmap.mmap(descriptor, status.st_size, access=access)
    finally:
        os.close(descriptor)
    record = np.frombuffer(mapping, dtype=header.dtype, count=1)[0]
    if int(record["magic"]) != MAGIC or int(record["layout_version"]) != LAYOUT_VERSION:
        raise PageVersionError(
            f"{path} is not a page of this version: use the tripgate version that started it"
        )
    return mapping
