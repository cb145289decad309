"""Fault ``sigkill``: a process ends at once, without a word, between any two instructions.

For a real process the kill goes through a pidfd, so that the process id cannot be reused by another
between looking and killing. For a simulated process it may strike in the middle of carrying out
effects: ``after_effects`` says how many are still done.
"""

import os
import signal
from typing import Protocol

from tripgate.errors import UsageError

NAME = "sigkill"
DESCRIPTION = "end a process at once (SIGKILL); it is restarted without its memory"
AFTER_EFFECTS = "after_effects"
"""Argument of a plan: effects the process still carries out before it dies (default 0)."""


class Mortal(Protocol):
    """A simulated process."""

    def die(self, after_effects: int) -> None:
        """Lose all memory once ``after_effects`` more effects have been carried out."""


def apply(pid: int) -> None:
    """Kill a real process.

    Parameters
    ----------
    pid
        Process id, above 1 and not our own: a fault must never take its own harness or init.

    Raises
    ------
    UsageError
        The pid is refused, does not exist, or belongs to somebody else.
    """
    if pid <= 1 or pid == os.getpid():
        raise UsageError(f"{NAME} needs the pid of another ordinary process, was {pid}")
    try:
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
    except (ProcessLookupError, PermissionError) as error:
        # It ended before the fault, or belongs to another user.
        raise UsageError(f"{NAME}: process {pid}: {error.strerror}") from None


def apply_simulated(process: Mortal, after_effects: int) -> None:
    """Kill a simulated process after it has carried out ``after_effects`` more effects."""
    process.die(after_effects)
