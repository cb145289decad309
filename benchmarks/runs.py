"""Whole runs for the figures: ``tripgate paper`` as a person would start it, in folders of its own.

Each run is a process with a fresh state and page folder; what it measured is its JSON summary.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tripgate.clock import NS_PER_S, host_ns
from tripgate.errors import DeadlineError, TripgateError

RUN_BOUND_S = 3_600.0
END_BOUND_S = 60.0
SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - where the product's own pages lie


class Place:
    """Folders of state and page for runs, and how to start one there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "page"):
            (folder / name).mkdir(mode=0o700)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of runs and of everything that looks at them."""
        box = str(Path(__file__).resolve().parent.parent)
        inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([box, *inherited]),
            "TRIPGATE_STATE": str(self.folder / "state"),
            "TRIPGATE_SHM": str(self.folder / "page"),
        }

    def page_folder(self, instance: str) -> Path:
        """Return where an instance of this place has its page."""
        return self.folder / "page" / f"tripgate-{os.getuid()}-{instance}"

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start ``tripgate`` with these words; its stdout is read by ``finish``."""
        return subprocess.Popen(
            [sys.executable, "-m", "tripgate", *words], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip


@contextmanager
def place() -> Iterator[Place]:
    """Make a place with short paths (sockets need them) and remove it afterwards."""
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-figures-", dir=root))
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish(process: "subprocess.Popen[str]", bound_s: float = END_BOUND_S) -> dict[str, Any]:
    """Wait for a run's end and return its summary, with its exit code as ``exit_code``.

    Raises
    ------
    DeadlineError
        It did not end in time; it was told to.
    TripgateError
        It printed no summary; the message holds its last words.
    """
    try:
        out, err = process.communicate(timeout=bound_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=END_BOUND_S)
        raise DeadlineError(f"a run did not end within {bound_s:.0f} s") from None
    try:
        summary = json.loads(out)
    except ValueError:
        words = err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise TripgateError(f"a run failed: {words[0]}") from None
    return {**summary, "exit_code": process.returncode}


def run_once(*words: str) -> dict[str, Any]:
    """Run ``tripgate`` to its end in a place of its own; the summary gains ``elapsed_s``."""
    with place() as here:
        began_ns = host_ns()
        summary = finish(here.start(*words), RUN_BOUND_S)
        return {**summary, "elapsed_s": round((host_ns() - began_ns) / NS_PER_S, 1)}
