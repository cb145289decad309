"""Doorbells: a hint that a word in the page has moved, so that nobody has to poll it fast.

The words are the truth. A bell is one datagram socket per participant under the page folder (mode
0700); ringing never blocks and a lost ring costs at most one bounded wait, because every waiter
looks at the words again after ``WAIT_MAX_S``.
"""

import contextlib
import os
import select
import socket
from pathlib import Path

from tripgate.errors import PageError

WAIT_MAX_S = 0.02
DRAIN_MAX = 64


class Doorbell:
    """One participant's own bell: a bound, non-blocking datagram socket."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"bell-{name}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)
        self.path.unlink(missing_ok=True)
        try:
            self.socket.bind(str(self.path))
        except OSError as error:
            self.socket.close()
            raise PageError(f"cannot listen at {self.path} ({error}): use a shorter path") from None
        os.chmod(self.path, 0o600)

    def drain(self) -> None:
        """Forget the rings that have come in."""
        for _ in range(DRAIN_MAX):
            try:
                self.socket.recv(64)
            except BlockingIOError:
                return

    def wait(self, timeout_s: float = WAIT_MAX_S) -> None:
        """Block this thread until the bell rings or ``timeout_s`` has passed."""
        select.select([self.socket], [], [], timeout_s)
        self.drain()

    def close(self) -> None:
        """Take the bell down."""
        self.socket.close()
        self.path.unlink(missing_ok=True)


class Ringer:
    """Rings the bells of others by name; absent or full bells are nobody's fault."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def ring(self, *names: str) -> None:
        """Ring the named bells."""
        for name in names:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", str(self._folder / f"bell-{name}"))

    def ring_all(self) -> None:
        """Ring every bell there is: a step, a level or a limit has moved."""
        with contextlib.suppress(FileNotFoundError):
            self.ring(*(path.name[5:] for path in self._folder.glob("bell-*")))

    def close(self) -> None:
        """Close the sending socket."""
        self._socket.close()
