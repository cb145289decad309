"""Heads of the chain, written to a second file: they show a tail that was cut off.

A hash chain shows any change before its last row, but a log without its last hundred rows is a
valid chain too. So the writer notes the last row, its hash and the sums of the nodes in
``heads.jsonl``, in another folder (put it on another disk, or send its lines to another host).
A checkpoint is written after its rows are durable, never before: a head always has its row.

A power cut while a line is written leaves some of its sectors: no line end, or zeros in the middle.
Such a last line was never acknowledged; readers pass over it, and the next writer cuts it off.

Copies of its lines may go to further files on other disks (``HeadsCopy``): whoever rolls back the
log and its own heads together cannot roll those back too.

Invariants: H1 a line is complete once ``append`` has returned; H2 sequences never decrease.
"""

import heapq
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tripgate.audit.chain import HASH_BYTES
from tripgate.audit.schema import sync_folder

HEADS_NAME = "heads.jsonl"
LINE_BYTES_MAX = 2**20
_TAIL_BYTES = 2 * LINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One head of the chain.

    Attributes
    ----------
    sequence, head, count
        Last durable row, its hash, and how many rows the log holds up to it.
    utc_ns, host_ns
        Wall clock and host time of the checkpoint, ns.
    node_sums
        Amounts per node at that moment, in units of their own, or None where there is no book.
    """

    sequence: int
    head: bytes
    count: int
    utc_ns: int
    host_ns: int
    node_sums: Mapping[str, int] | None

    @property
    def clock_offset_ns(self) -> int:
        """UTC − host time at that moment, ns: what turns the rows' host times into wall clock."""
        return self.utc_ns - self.host_ns

    def line(self) -> bytes:
        """Return the checkpoint as one line of JSON.

        Raises
        ------
        ValueError
            The line would be longer than ``LINE_BYTES_MAX``.
        """
        content = {
            "version": 1,
            "sequence": self.sequence,
            "head": self.head.hex(),
            "count": self.count,
            "utc_ns": self.utc_ns,
            "host_ns": self.host_ns,
            "clock_offset_ns": self.clock_offset_ns,
            "node_sums": None if self.node_sums is None else dict(self.node_sums),
        }
        line = json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"a checkpoint has at most {LINE_BYTES_MAX} bytes: fewer node sums")
        return line


def parse_line(line: bytes) -> Checkpoint | None:
    """Return the checkpoint in a line, or None if the line is none. Total."""
    try:
        content = json.loads(line)
        numbers = [content[key] for key in ("sequence", "count", "utc_ns", "host_ns")]
        head = bytes.fromhex(content["head"])
        sums = content["node_sums"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(type(number) is int for number in numbers) or len(head) != HASH_BYTES:
        return None
    if sums is not None and not isinstance(sums, dict):
        return None
    sequence, count, utc_ns, host_ns = numbers
    return Checkpoint(sequence, head, count, utc_ns, host_ns, sums)


def is_torn(line: bytes) -> bool:
    """Whether a last line is what a power cut leaves: JSON never holds a zero byte."""
    return not line.endswith(b"\n") or b"\0" in line


def read_checkpoints(path: Path) -> Iterator[tuple[int, Checkpoint | None]]:
    """Yield (line number from 1, checkpoint or None where a line is none), oldest first.

    Reads what the file holds at the first ``next``, so that a running writer cannot make it
    endless. A torn last line is passed over.

    Raises
    ------
    OSError
        The file cannot be read; ``FileNotFoundError`` where there is none.
    """
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        number = 0
        while left > 0:
            line = file.readline(min(left, LINE_BYTES_MAX))
            left -= len(line)
            number += 1
            if not line or (left <= 0 and is_torn(line)):
                return
            yield number, parse_line(line)


def _last_line(tail: bytes) -> int:
    """Return where the last line begins, complete or not."""
    return tail.rfind(b"\n", 0, -1) + 1


Note = tuple[str, "Checkpoint | str"]
"""Where a head stands (file and line), and the head, or what is wrong there."""


def notes_of(path: Path, name: str) -> Iterator[Note]:
    """Yield every head of a file, called ``name``, and its problems as texts. Total."""
    number = 0
    try:
        for number, checkpoint in read_checkpoints(path):
            yield f"{name} line {number}", checkpoint or f"{name} line {number} is no checkpoint"
    except FileNotFoundError:
        yield name, f"{name} is missing: rows cut off at the end cannot be noticed"
    except OSError as error:
        yield name, f"{name} cannot be read ({error.strerror})"


def merge_notes(*sources: Iterator[Note]) -> Iterator[Note]:
    """Yield the heads of several files in the order of their rows; problems where they occur."""
    ordered = (_with_reach(source) for source in sources)
    for _, note in heapq.merge(*ordered, key=lambda item: item[0]):
        yield note


def _with_reach(source: Iterator[Note]) -> Iterator[tuple[int, Note]]:
    reach = 0
    for note in source:
        if isinstance(note[1], Checkpoint):
            reach = max(reach, note[1].sequence)
        yield reach, note


class HeadsFile:
    """A file of heads, open for appending.

    Opening creates it, or cuts off a torn last line.

    Raises
    ------
    OSError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.last = self._repair_tail()
            # Also for a file that is there: a killed writer may have made it a moment ago.
            sync_folder(path.parent)
        except OSError:
            os.close(self._descriptor)
            raise

    def _repair_tail(self) -> Checkpoint | None:
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(self._descriptor, size - start, start)
        begin = _last_line(tail)
        if tail and is_torn(tail[begin:]):
            os.ftruncate(self._descriptor, start + begin)
            os.fsync(self._descriptor)
            tail = tail[:begin]
            begin = _last_line(tail)
        return parse_line(tail[begin:]) if tail else None

    def append(self, checkpoint: Checkpoint) -> None:
        """Write one checkpoint; on disk when this returns.

        Raises
        ------
        OSError
            It could not be written; the file must be opened anew before the next attempt.
        ValueError
            The checkpoint is too long.
        """
        rest = memoryview(checkpoint.line())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        os.fsync(self._descriptor)
        self.last = checkpoint

    def is_in_place(self, path: Path) -> bool:
        """Whether ``path`` still leads to the open file, not to nothing or to another one."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class HeadsCopy:
    """A further file of heads on another disk, which may fail without harm to the log.

    A copy that failed is opened anew at the next checkpoint; those it missed are missing in it,
    and the later ones still tell of everything before them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: HeadsFile | None = None

    def append(self, checkpoint: Checkpoint) -> str | None:
        """Write a checkpoint durably and return None, or say why it could not be written."""
        try:
            if self._file is not None and not self._file.is_in_place(self.path):
                self.close()
            if self._file is None:
                self._file = HeadsFile(self.path)
            self._file.append(checkpoint)
        except OSError as error:
            self.close()
            return str(error)
        return None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
