"""Compiling the shim, running the writing process under it, and reading the trace.

A trace is believed only if replaying all of it gives exactly the files that the process left: a
call that the shim does not know would show there.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chaos.powercut.disk import Act, Choice, Disk, Operation
from chaos.powercut.workload import ACKNOWLEDGED_NAME
from tripgate.errors import DeadlineError, MissingPartError, TripgateError

FOLDER = Path(__file__).resolve().parent
BOX = FOLDER.parents[1]
COMPILE_BOUND_S, RUN_BOUND_S = 60.0, 120.0
_HEAD = struct.Struct("=IiqII")
INDEX_SUFFIX = "-shm"


@dataclass(frozen=True)
class Moment:
    """One operation, and what had been acknowledged before it: last row by producer, heads."""

    operation: Operation
    rows: dict[int, int]
    heads: int


def compile_shim(folder: Path) -> Path:
    """Compile the shim into ``folder`` and return its path.

    Raises
    ------
    MissingPartError
        There is no C compiler, or it refuses the shim.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingPartError("there is no C compiler: run `apt-get install gcc`")
    shim = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-pthread", "-o", str(shim)]
    finished = subprocess.run(
        [*command, str(FOLDER / "shim.c"), "-ldl"],
        capture_output=True, text=True, timeout=COMPILE_BOUND_S, check=False,
    )  # fmt: skip
    if finished.returncode:
        raise MissingPartError(f"{compiler} cannot compile the shim: {finished.stderr[-300:]}")
    return shim


def record(shim: Path, folder: Path, utc_ns: int, variant: str, lives: list[int]) -> list[Moment]:
    """Run the writing process in an empty state below ``folder``; return its moments.

    Parameters
    ----------
    lives
        After how many operations it is killed, life by life; a last one goes to its end.

    Raises
    ------
    TripgateError
        The process failed, took too long, or changed files in a way that the shim cannot follow.
    """
    state, trace = folder / f"state-{variant}", folder / f"trace-{variant}"
    state.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BOX), os.environ.get("PYTHONPATH")))),
        "LD_PRELOAD": str(shim),
        "TRIPGATE_TRACE_ROOT": str(state),
        "TRIPGATE_TRACE_FILE": str(trace),
    }
    command = [sys.executable, "-m", "chaos.powercut.workload", str(state), str(utc_ns), variant]
    for life in (*lives, 0):
        _run(command, {**environment, "TRIPGATE_TRACE_LIFE": str(life)})
    moments = list(_moments(_operations(trace.read_bytes(), state)))
    _require_complete(moments, state)
    return moments


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=RUN_BOUND_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeadlineError("the writing process did not end: try a faster machine") from None
    expected = (0, -signal.SIGKILL) if environment["TRIPGATE_TRACE_LIFE"] != "0" else (0,)
    if finished.returncode not in expected:
        raise TripgateError(f"the writing process failed: {finished.stderr[-500:]}")


def _operations(trace: bytes, root: Path) -> Iterator[Operation]:
    place = 0
    while place < len(trace):
        act, descriptor, offset, text_bytes, data_bytes = _HEAD.unpack_from(trace, place)
        place += _HEAD.size
        text = trace[place : place + text_bytes].decode()
        data = trace[place + text_bytes : place + text_bytes + data_bytes]
        place += text_bytes + data_bytes
        if Act(act) is Act.RENAME:
            data = str(Path(data.decode()).relative_to(root)).encode()
        path = str(Path(text).relative_to(root)) if text else ""
        yield Operation(Act(act), descriptor, offset, "" if path == "." else path, data)


def _moments(operations: Iterator[Operation]) -> Iterator[Moment]:
    rows: dict[int, int] = {}
    heads, paths = 0, dict[int, str]()
    for operation in operations:
        if operation.act is Act.OPEN:
            paths[operation.descriptor] = operation.path
        elif operation.act is Act.WRITE and paths[operation.descriptor] == ACKNOWLEDGED_NAME:
            note = json.loads(operation.data)
            rows = {int(producer): last for producer, last in note["rows"].items()}
            heads = note["heads"]
        yield Moment(operation, rows, heads)


def _require_complete(moments: list[Moment], state: Path) -> None:
    disk = Disk()
    for moment in moments:
        disk.step(moment.operation)
    replayed = disk.image(Choice.ALL, Choice.ALL, Random(0))
    found = {
        str(path.relative_to(state)): path.read_bytes()
        for path in state.rglob("*")
        if path.is_file() and not path.name.endswith(INDEX_SUFFIX)
    }
    if replayed != found:
        differing = sorted(
            name for name in replayed.keys() | found.keys() if replayed.get(name) != found.get(name)
        )
        raise TripgateError(f"the shim missed changes of {differing}: the trace proves nothing")
