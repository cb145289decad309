"""A child of this process that somebody else forked for it: watched, signalled and reaped.

The zygote forks, the root is the parent, so neither ``subprocess`` nor trio knows the process. A
pidfd does all that is needed: it becomes readable when the process ends, a signal sent through it
cannot reach a successor of the same pid, and only its holder reaps.

Invariant: the pid belongs to this child until ``returncode`` is set, because nobody else reaps it.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Let this process become the parent of descendants whose parents end within the block.

    Only within the block: a daemon that a strategy leaves behind shall go where it always went,
    not stay with us as a zombie that nobody reaps.

    Raises
    ------
    OSError
        The kernel refused it.
    """
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Process(Protocol):
    """What a supervisor needs of a child's process."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def returncode(self) -> int | None:
        """Exit code, the negative number of the signal that ended it, or None while it runs."""

    async def wait(self) -> int:
        """Wait until the child has ended; return its exit code."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""


class ChildProcess:
    """One child, from its pid to its exit code.

    Attributes
    ----------
    pid
        Process id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._returncode: int | None = None
        # trio lets one task at a time wait for a descriptor; the others wait for that task.
        self._waiting = trio.Lock()

    @property
    def returncode(self) -> int | None:
        """Exit code, the negative number of the signal that ended it, or None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Reap the child if it has ended; return as ``returncode`` does."""
        if self._returncode is None:
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            if result is not None:
                code = result.si_status
                self._returncode = code if result.si_code == os.CLD_EXITED else -code
        return self._returncode

    async def wait(self) -> int:
        """Wait until the child has ended; return its exit code."""
        while (code := self.poll()) is None:
            async with self._waiting:
                if self.poll() is None:
                    await trio.lowlevel.wait_readable(self._descriptor)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; one to a child that has ended is forgotten."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        # Not at the reaping: another task may still wait for the descriptor.
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<child process {self.pid}: {self._returncode}>"
