"""One run of one child: its process, and how its end is told.

What ended a child is known from three places that speak at different times: what we did to it
ourselves (``hung``, ``never ready``, ``stopped``), what it said before it went (``returned``, an
exception), and what the kernel reports of its process. The first that is definite counts. A link
that broke is no reason but a symptom: whatever the process' exit says comes before it.
"""

import signal

import trio

from actors import runtime
from actors.control import Control
from supervisors.child_spec import ChildSpec
from tripgate.clock import host_ns

REASON_CHARACTERS_MAX = 200
REASONS_MAX = 5
RETURNED = "returned"
STOPPED = "stopped"
HUNG = "hung"
LINK_LOST = frozenset({"TransportClosed", "BrokenResourceError", "ClosedResourceError"})
"""Errors that only say that the peer has gone; by name, because the runtime's own are not ours."""
_TOLD_BY_CHILD = "RemoteActorError: "


class Incarnation:
    """One run of one child: its process and how it ended."""

    def __init__(self, spec: ChildSpec, number: int) -> None:
        self.spec = spec
        self.number = number
        self.process: runtime.Process | None = None
        self.spawned = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.control: Control | None = None
        self.reason = ""
        self.symptom = ""
        self.started_ns = host_ns()

    @property
    def code(self) -> int:
        """Exit code, negative for a signal; 0 also if there never was a process."""
        code = self.process.returncode if self.process is not None else None
        return 0 if code is None else code

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than on its own with success."""
        return self.told() not in (RETURNED, exit_text(0))

    def fail(self, error: BaseException | None) -> None:
        """Note what ended its call, unless something definite is known already."""
        text, is_symptom = reason_of(error) if error is not None else ("", False)
        if is_symptom:
            self.symptom = self.symptom or text
        else:
            self.reason = self.reason or text

    def end(self, reason: str) -> None:
        """Note the first reason for the end and wake everybody who waits for it."""
        if not self.symptom:
            self.reason = self.reason or reason
        self.spawned.set()
        self.ended.set()

    def kill(self, reason: str) -> None:
        """End it at once, whatever state it is in: a stopped process dies of SIGKILL too."""
        self.reason = self.reason or reason
        if self.process is None:
            self.scope.cancel()
        elif self.process.returncode is None:
            self.process.kill()

    def told(self) -> str:
        """Return the reason for its end as it goes on record."""
        if self.reason:
            return self.reason
        if self.process is not None and self.process.returncode is not None:
            return exit_text(self.process.returncode)
        return self.symptom or STOPPED


def exit_text(code: int) -> str:
    """Return an exit code as people read it: ``signal SIGKILL`` or ``exit code 3``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


def reason_of(error: BaseException) -> tuple[str, bool]:
    """Return the last lines of what went wrong, and whether it is but a broken link.

    Being cancelled is no reason of its own: the text is empty then.
    """
    leaves = [leaf for leaf in runtime.split_errors(error) if isinstance(leaf, Exception)]
    told = []
    for leaf in leaves[:REASONS_MAX]:
        lines = str(leaf).strip().splitlines()
        text = f"{type(leaf).__name__}: {lines[-1] if lines else ''}"
        told.append(text.removeprefix(_TOLD_BY_CHILD)[:REASON_CHARACTERS_MAX])
    lost = bool(leaves) and all(type(leaf).__name__ in LINK_LOST for leaf in leaves)
    return (f"exception {'; '.join(told)}" if told else "", lost)
