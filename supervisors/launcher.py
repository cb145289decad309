"""Starting a paper run: the venue's process, the tree's root, and waiting for both.

The venue is a process outside the tree, as an exchange would be: it survives the tree's death with
its books, and a later start of the same instance finds it. The root runs in a session of its own,
so that Ctrl-C reaches only the launcher, which asks the root to end in order.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import trio

from exchange_adapters.local_venue import open_local_venue
from exchange_adapters.market.feed import open_feed
from supervisors.leftovers import kill_tree
from supervisors.shadow import require_mode
from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.durable import write_durably
from tripgate.errors import (
    AlreadyRunningError,
    DeadlineError,
    StateUnwritableError,
    TripgateError,
    VenueError,
)
from tripgate.instance import (
    installation_id,
    is_running,
    page_folder,
    prepare_state,
    state_folder,
)
from tripgate.messages import EventKind
from tripgate.processes import ORPHAN_EXIT_CODE

VENUE_START_WAIT_S = 30.0
END_WAIT_S = 30.0
VENUE_BOOK = "venue-book.json"
ORDERLY_CODES = (0, 14)
"""Exit codes of a root that ended in order; 14 after EMERGENCY."""


class TreeDiedError(TripgateError):
    """The root ended without order. Gate effect: every lease lapses, so the gate is closed."""


@dataclass(frozen=True)
class PaperPlan:
    """What to run: everything the command line decided."""

    instance: str
    venue: str
    feed: str
    start: str | None
    stop: str | None
    seed: int
    equity: Decimal
    config_text: str
    config_name: str
    config_sha256: str
    speed: float
    duration_s: float
    shadow: bool = False


def feed_symbols(feed: str, seed: int, start: str | None, stop: str | None) -> tuple[str, ...]:
    """Return a feed's symbols; raises what is wrong with its data before anything is started."""
    return open_feed(feed, seed=seed, start=start, stop=stop, symbols=None).symbols


def venue_socket(instance: str, venue: str) -> Path:
    """Return the path of a simulated venue's socket."""
    return page_folder(instance) / f"venue-{venue}.sock"


class PaperRun:
    """One run's two processes."""

    def __init__(self, plan: PaperPlan) -> None:
        if is_running(plan.instance):
            raise AlreadyRunningError(
                f"instance {plan.instance!r} is running already: watch it with "
                f"'tripgate status --instance {plan.instance}' or choose another --instance"
            )
        self.plan = plan
        require_mode(state_folder(plan.instance), shadow=plan.shadow)
        self.state = prepare_state(plan.instance)
        self.socket = venue_socket(plan.instance, plan.venue)
        self.found_venue = self._venue_answers()
        self._root: subprocess.Popen[bytes] | None = None
        self._venue: subprocess.Popen[bytes] | None = None
        self._stop_asked = False

    def start(self) -> None:
        """Start the venue unless an earlier run's still stands, then the root."""
        # Written first: a full disk must be found before there is a venue to be left behind.
        write_durably(self.state / "config.toml", self.plan.config_text.encode())
        settings = self.state / "run.json"
        write_durably(settings, json.dumps(self._settings()).encode())
        if not self.found_venue:
            self._start_venue()
        self._require_known_trades()
        with (self.state / "logs" / "root.log").open("ab") as log:
            self._root = subprocess.Popen(
                [sys.executable, "-m", "supervisors.start", str(settings), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if self._stop_asked:
            self.stop()

    @property
    def root_pid(self) -> int:
        """Process id of the tree's root."""
        return self._require_root().pid

    def poll(self) -> int | None:
        """Return the root's exit code once it has ended."""
        code = self._require_root().poll()
        # A root that was asked to end before it listened for that had not begun anything.
        return 0 if self._stop_asked and code == -signal.SIGTERM else code

    def stop(self) -> None:
        """Ask the root to end in order, as soon as there is one."""
        self._stop_asked = True
        if self._root is not None and self.poll() is None:
            self._root.send_signal(signal.SIGTERM)

    @staticmethod
    def died(code: int) -> bool:
        """Whether the root ended without order: killed, or because its launcher seemed gone."""
        return code < 0 or code == ORPHAN_EXIT_CODE

    def keeps_venue(self, code: int) -> bool:
        """Whether venue and page must stay for a later start: a death, or a take-over that failed.

        A root that failed on taking over has not taken over: what it found must be found again.
        """
        return self.died(code) or (self.found_venue and code not in ORDERLY_CODES)

    def finish(self, code: int) -> None:
        """After the root's end: end the venue if all went in order, else say what stands.

        Raises
        ------
        TripgateError
            With the root's own exit code and last words, if it ended with a failure.
        """
        if self.died(code):
            # What was stopped when its root died cannot end itself.
            kill_tree(page_folder(self.plan.instance), 0 if self._root is None else self._root.pid)
            raise TreeDiedError(
                f"the tree died ({_death(code)}); the gate is closed and the venue still stands "
                f"for ten minutes: 'tripgate paper --instance {self.plan.instance}' takes it over"
            )
        if not self.keeps_venue(code):
            self.end_venue()
        if code not in ORDERLY_CODES:
            error = TripgateError(self._last_words())
            error.exit_code = code
            raise error

    def end_venue(self) -> None:
        """End the venue in order and wait until its book is written.

        Raises
        ------
        StateUnwritableError
            The book could not be written: the next start of this instance would not find it.
        """
        try:
            trio.run(_shutdown, self.socket)
        except VenueError:
            return
        deadline = host_ns() + int(END_WAIT_S * NS_PER_S)
        while self.socket.exists() and host_ns() < deadline:
            sleep_s(0.01)
        if self._venue is not None and self._venue.wait(END_WAIT_S) != 0:
            raise StateUnwritableError(_tail(self.state / "logs" / "venue.log", "venue: "))

    def _require_known_trades(self) -> None:
        """Refuse a venue whose account ends before our log does: its trades were lost.

        Its trade ids would be given again, and the keeper would take the new fills for old ones.
        """
        known = trio.run(_last_trade, self.socket)
        for stored in LogReader(self.state / "audit").newest(1, kinds=(int(EventKind.FILL),)):
            logged = int(str(unpack_body(stored.row.body)["trade"]))
            if logged > known:
                self.end_venue()
                raise VenueError(
                    f"the log of {self.plan.instance!r} knows trades up to {logged}, its venue "
                    f"up to {known}: it was killed and lost the others; use a fresh --instance"
                )

    def _settings(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "instance": plan.instance, "config_text": plan.config_text,
            "config_name": plan.config_name, "config_sha256": plan.config_sha256,
            "venue_sockets": {plan.venue: str(self.socket)}, "installation": installation_id(),
            "speed": plan.speed, "duration_s": plan.duration_s, "feed": plan.feed,
            "seed": plan.seed, "shadow": plan.shadow,
        }  # fmt: skip

    def _start_venue(self) -> None:
        plan = self.plan
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "exchange_adapters.simulator.process", "--socket",
            str(self.socket), "--feed", plan.feed, "--seed", str(plan.seed), "--equity",
            f"{plan.equity:f}",
        ]  # fmt: skip
        command += ["--from", plan.start] if plan.start else []
        command += ["--to", plan.stop] if plan.stop else []
        command += ["--book", str(self.state / VENUE_BOOK)]
        with (self.state / "logs" / "venue.log").open("ab") as log:
            process = self._venue = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._await_ready(process)

    def _await_ready(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            raise AssertionError("the venue was started without a pipe")
        deadline = host_ns() + int(VENUE_START_WAIT_S * NS_PER_S)
        while host_ns() < deadline:
            ready, _, _ = select.select([process.stdout], [], [], 0.1)
            if ready and b"ready" in process.stdout.readline():
                return
            if process.poll() is not None:
                error = TripgateError(_tail(self.state / "logs" / "venue.log", "venue: "))
                error.exit_code = process.returncode
                raise error
        process.kill()
        raise DeadlineError(f"the simulated venue was not ready in {VENUE_START_WAIT_S:.0f} s")

    def _venue_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _last_words(self) -> str:
        return _tail(self.state / "logs" / "root.log", "tripgate: ")

    def _require_root(self) -> "subprocess.Popen[bytes]":
        if self._root is None:
            raise AssertionError("the root was not started")
        return self._root


async def _last_trade(path: Path) -> int:
    async with open_local_venue(path) as venue:
        return (await venue.account()).last_trade_id


async def _shutdown(path: Path) -> None:
    async with open_local_venue(path) as venue:
        await venue.shutdown()


def _death(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(path: Path, prefix: str) -> str:
    """Return a log's last line that begins with ``prefix``, or where to look for more."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    own = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return own[-1] if own else f"ended without a word: see {path}"
