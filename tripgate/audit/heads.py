"""Heads of the chain, written to a second file: they show a tail that was cut off.

A hash chain shows any change before its last row, but a log without its last hundred rows is a
valid chain too. So the writer notes the last row, its hash and the sums of the nodes in
``heads.jsonl``, in another folder (put it on another disk, or send its lines to another host).
A checkpoint is written after its rows are durable, never before: a head always has its row.

Invariants: H1 a line is complete once ``append`` has returned; H2 sequences never decrease.
"""

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


def read_checkpoints(folder: Path) -> Iterator[tuple[int, Checkpoint | None]]:
    """Yield (line number from 1, checkpoint or None where a line is none), oldest first.

    Reads what the file holds at the first ``next``, so that a running writer cannot make it
    endless. An incomplete last line is what a crash leaves; it was never acknowledged.

    Raises
    ------
    OSError
        The file cannot be read; ``FileNotFoundError`` where there is none.
    """
    with open(folder / HEADS_NAME, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        number = 0
        while left > 0:
            line = file.readline(min(left, LINE_BYTES_MAX))
            left -= len(line)
            number += 1
            if not line or (not line.endswith(b"\n") and left <= 0):
                return
            yield number, parse_line(line)


class HeadsFile:
    """The file of heads, open for appending."""

    def __init__(self, folder: Path) -> None:
        """Open or create it and cut off a line that a crash left incomplete.

        Raises
        ------
        OSError
            It cannot be written.
        """
        path = folder / HEADS_NAME
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.last = self._repair_tail()
            if is_new:
                sync_folder(folder)
        except OSError:
            os.close(self._descriptor)
            raise

    def _repair_tail(self) -> Checkpoint | None:
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(self._descriptor, size - start, start)
        complete = tail.rfind(b"\n") + 1
        if complete < len(tail):
            os.ftruncate(self._descriptor, start + complete)
            os.fsync(self._descriptor)
        lines = tail[:complete].splitlines()
        return parse_line(lines[-1]) if lines else None

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

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
