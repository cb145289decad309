"""One drill's tree: its folder, its root process, what it records, and what is left of it.

The harness stands outside the tree. It reads the supervisor's ring as the audit writer would, asks
the gate as a strategy would, and finds processes by a mark in their environment, whoever their
parent has become.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.deaths.ground import SUPERVISOR_ROLE, Word, make_ground, open_orders, victim_venue
from chaos.deaths.root import SETTINGS_FILE
from tripgate.audit.record import Body, unpack_body
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError
from tripgate.messages import EventKind
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.ring import RingReader
from tripgate.processes import kill_if_same

BOX = Path(__file__).resolve().parent.parent.parent
SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - where the product's own pages lie
MARK = "TRIPGATE_DRILL"
START_BOUND_S = 120.0
END_BOUND_S = 30.0
POLL_S = 0.005
LAST_WORDS_MAX = 2_000


@dataclass(frozen=True)
class Setting:
    """How a drill's tree is made.

    Attributes
    ----------
    victims
        How many, 1 to 14.
    brittle
        Numbers of victims that die too often at death ``brittle_deaths`` within the period.
    frame_every_ms
        Each victim sends 20 kB to the root this often; 0: never.
    start_s
        How long a victim may take to become ready.
    heartbeats
        A planted bug that a drill must find: victims renew from a thread, even while they hang.
    """

    victims: int = 6
    brittle: tuple[int, ...] = ()
    brittle_deaths: int = 3
    brittle_period_s: float = 600.0
    frame_every_ms: int = 20
    start_s: float = 4.0
    heartbeats: bool = False


@dataclass(frozen=True)
class Event:
    """A record of the supervisor and when it was made."""

    kind: EventKind
    host_ns: int
    body: Body


class Drill:
    """A tree of victims. Made by ``open_drill``."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.setting = setting
        self.page = make_ground(folder / "page", setting.victims)
        self.orders = open_orders(self.page.folder)
        self._log = folder / "root.log"
        self._mark = uuid.uuid4().hex
        self._reader = RingReader(self.page, "audit")
        self.root: subprocess.Popen[bytes] | None = None
        self.roles = range(SUPERVISOR_ROLE + 1, setting.victims + 1)

    def start(self, parent: int = 0) -> None:
        """Start the root; it ends with process ``parent``, by default with this one."""
        settings = {
            "brittle": [victim_venue(number) for number in self.setting.brittle],
            "brittle_deaths": self.setting.brittle_deaths,
            "brittle_period_s": self.setting.brittle_period_s,
            "frame_every_ms": self.setting.frame_every_ms,
            "start_s": self.setting.start_s,
            "heartbeats": self.setting.heartbeats,
        }
        (self.page.folder / SETTINGS_FILE).write_text(json.dumps(settings), encoding="utf-8")
        inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(BOX), *inherited]), MARK: self._mark,
            "PYTHONWARNINGS": "ignore::FutureWarning",
        }  # fmt: skip
        command = [sys.executable, "-m", "chaos.deaths.root", str(self.page.folder)]
        with self._log.open("wb") as log:
            self.root = subprocess.Popen(
                [*command, str(parent or os.getpid())], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    def until(self, condition: Callable[[], bool], what: str, bound_s: float) -> float:
        """Wait for a condition; return the seconds it took.

        Raises
        ------
        DeadlineError
            It did not come true in time; the message holds the root's last words.
        """
        began_ns = host_ns()
        while not condition():
            if host_ns() - began_ns > bound_s * NS_PER_S:
                raise DeadlineError(f"not within {bound_s:.0f} s: {what}\n{self.last_words}")
            sleep_s(POLL_S)
        return (host_ns() - began_ns) / NS_PER_S

    def wait_armed(self) -> float:
        """Wait until the page is armed; return the seconds it took."""
        return self.until(
            lambda: bool(self.page.header["armed"]) or not self.root_lives, "the armed page",
            START_BOUND_S,
        )  # fmt: skip

    @property
    def root_lives(self) -> bool:
        """Whether the root process runs."""
        return self.root is not None and self.root.poll() is None

    @property
    def last_words(self) -> str:
        """What the root and its children wrote at last."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return text[-LAST_WORDS_MAX:]

    def events(self) -> list[Event]:
        """Return what the supervisor has recorded since the last call."""
        found = []
        for frame in self._reader.read(SUPERVISOR_ROLE):
            body = unpack_body(frame.payload)
            found.append(Event(EventKind(frame.kind), frame.host_ns, body))
            self._reader.release(SUPERVISOR_ROLE, frame.end)
        return found

    def row(self, role: int) -> Any:
        """Return a role's live row."""
        return self.page.rows(ROLE)[role]

    def deadline_ns(self, role: int) -> int:
        """Return the end of a role's lease."""
        return int(self.page.rows(LEASE)["deadline_ns"][role])

    def signal(self, role: int, number: int) -> bool:
        """Send a signal to the process that holds a role now; return whether it was sent."""
        row = self.row(role)
        return kill_if_same(int(row["pid"]), int(row["start_time"]), number)

    def order(self, role: int, word: Word, number: int) -> None:
        """Let a victim meet a fate now or at its next start."""
        line = self.orders[role]
        line[Word.EVENT_NS] = 0
        line[word] = number

    def members(self) -> list[tuple[int, int]]:
        """Return pid and start time of each process that holds a role."""
        rows = [self.row(role) for role in self.roles]
        return [(int(row["pid"]), int(row["start_time"])) for row in rows if row["pid"]]

    def processes(self) -> dict[int, str]:
        """Return pid and state of the tree's processes, found by their environment."""
        mark = f"{MARK}={self._mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if mark not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # ended while we looked, or belongs to somebody else
            if state != "Z":
                found[int(folder.name)] = state
        return found

    def end(self) -> float:
        """End the tree in order; return the seconds until its root was gone."""
        self.page.header["closed"] = self.page.header["ended"] = 1
        return self.until(lambda: not self.root_lives, "the end of the tree", END_BOUND_S)

    def reap(self) -> dict[int, str]:
        """Kill whatever is left of the tree and return what that was."""
        left = self.processes()
        for pid in left:
            # The mark in the environment makes it ours, and it was there a moment ago.
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.root is not None:
            self.root.wait()
        return left


@contextmanager
def open_drill(setting: Setting) -> Iterator[Drill]:
    """Make a drill in a folder of its own; whatever is left of it is reaped at the end."""
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-deaths-", dir=root))
    folder.chmod(0o700)
    drill = Drill(folder, setting)
    try:
        yield drill
    finally:
        drill.reap()
        shutil.rmtree(folder, ignore_errors=True)
