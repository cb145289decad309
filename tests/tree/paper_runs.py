"""Paper runs as a user starts them: real processes, in folders of their own, always reaped.

A ``PaperRun`` is one instance: its launcher, its tree, its strategies and its venue. Its folders
lie in /dev/shm (a Unix socket's path is short), and every process of it carries the page folder in
its environment, so that each is found and ended whatever became of its parent.

Nothing here waits without a bound; the bounds are far above what a busy machine of two cores needs.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trio

from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.market.replay import panels_folder
from tests.conftest import SHORT_ROOT
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Body, Row, unpack_body
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import ChainBrokenError, PageError
from tripgate.gate.client import Gate
from tripgate.gate.record import DecisionRecord, unpack_record
from tripgate.instance import page_folder
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, ROLE
from tripgate.page.mapping import Page, open_page

ROOT = Path(__file__).resolve().parent.parent.parent
PANEL = "binance_spot_5m_2021-02_2021-07"
START_BOUND_S = 180.0
"""A first start compiles kernels; beside another test's run that takes a minute."""
END_BOUND_S = 60.0
STEP_BOUND_S = 60.0
RUN_BOUND_S = 240.0
POLL_S = 0.01
LAST_WORDS_MAX = 4_000

VENUE_MODULE = "exchange_adapters.simulator.process"
STRATEGY_MODULE = "tripgate.demo"
ROOT_MODULE = "supervisors.start"


def panel_or_none() -> Path | None:
    """Return the recorded panel of the crash and the outage, if this machine has it."""
    folder = panels_folder()
    panel = None if folder is None else folder / PANEL
    return panel if panel is not None and panel.is_dir() else None


def wait_until(condition: Callable[[], Any], what: str, bound_s: float = STEP_BOUND_S) -> float:
    """Wait until ``condition`` is true and return how many seconds that took.

    Raises
    ------
    AssertionError
        It was not true within the bound.
    """
    began_ns = host_ns()
    while not condition():
        waited_s = (host_ns() - began_ns) / NS_PER_S
        assert waited_s < bound_s, f"not within {bound_s:.0f} s: {what}"
        sleep_s(POLL_S)
    return (host_ns() - began_ns) / NS_PER_S


class PaperRun:
    """One instance in folders of its own; ``start`` may be called again after its end."""

    def __init__(self, instance: str = "run", **environment: str) -> None:
        root = SHORT_ROOT if os.access(SHORT_ROOT, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="tripgate-tree-", dir=root))
        self.instance = instance
        places = {"TRIPGATE_STATE": "state", "TRIPGATE_SHM": "page", "XDG_RUNTIME_DIR": "run"}
        for name in places.values():
            (self.folder / name).mkdir(mode=0o700)
        own = {variable: str(self.folder / name) for variable, name in places.items()}
        self.environment = {**os.environ, **own, **environment}
        self.environment.pop("TRIPGATE_INSTANCE", None)
        self.launcher: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "PaperRun":
        """Start ``tripgate paper --json`` with these options."""
        command = [sys.executable, "-m", "tripgate", "paper", "--json"]
        command += ["--instance", self.instance, *options]
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as error:
            self.launcher = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=error,
            )  # fmt: skip
        return self

    def wait(self, bound_s: float = RUN_BOUND_S) -> int:
        """Wait for the launcher's end and return its exit code."""
        assert self.launcher is not None
        return self.launcher.wait(timeout=bound_s)

    def interrupt(self) -> int:
        """Send Ctrl-C to the launcher and return its exit code."""
        assert self.launcher is not None
        self.launcher.send_signal(signal.SIGINT)
        return self.wait(END_BOUND_S)

    def armed_page(self, epoch: int = 1) -> Page:
        """Wait for an armed page of that epoch and return it, mapped read-only."""
        found: list[Page] = []

        def is_armed() -> bool:
            assert self.launcher is not None
            assert self.launcher.poll() is None, f"ended before it was armed: {self.last_words}"
            try:
                with self.inside():
                    page = open_page(page_folder(self.instance), writable=False)
            except PageError:
                return False
            found[:] = [page]
            return page.epoch == epoch and bool(page.header["armed"])

        wait_until(is_armed, "an armed page", START_BOUND_S)
        return found[0]

    def close(self) -> None:
        """End whatever is left of the run, in order if that is still possible."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.launcher is not None and self.launcher.poll() is None:
                self.interrupt()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.launcher is not None:
            self.launcher.wait(timeout=END_BOUND_S)
        wait_until(lambda: not self.processes(), "the end of every process of the run")
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Look at this run's folders in the block, whatever the environment says."""
        names = ("TRIPGATE_STATE", "TRIPGATE_SHM", "XDG_RUNTIME_DIR")
        before = {name: os.environ[name] for name in names if name in os.environ}
        os.environ.update({name: self.environment[name] for name in names})
        try:
            yield
        finally:
            for name in names:
                os.environ.pop(name)
            os.environ.update(before)

    @property
    def summary(self) -> Any:
        """The object the run ended with."""
        return json.loads((self.folder / "out").read_text())

    @property
    def errors(self) -> str:
        """What the launcher wrote to stderr."""
        return (self.folder / "err").read_text()

    @property
    def last_words(self) -> str:
        """What the launcher and the root wrote at last: why a run failed that should not have."""
        log = self.state / "logs" / "root.log"
        return self.errors + (log.read_text()[-LAST_WORDS_MAX:] if log.exists() else "")

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run another tripgate command in this run's folders."""
        return subprocess.run(
            [sys.executable, "-m", "tripgate", *words], cwd=ROOT, env=self.environment,
            capture_output=True, text=True, timeout=STEP_BOUND_S,
        )  # fmt: skip

    def replayed(self) -> Any:
        """Return what ``audit replay`` says of the run's log."""
        done = self.command("audit", "replay", self.instance, "--json")
        assert done.returncode in (0, 31), done.stderr
        return json.loads(done.stdout)

    @property
    def state(self) -> Path:
        """The instance's state folder."""
        return self.folder / "state" / self.instance

    @property
    def page_is_left(self) -> bool:
        """Whether any page folder is left."""
        return any(path.is_dir() for path in (self.folder / "page").iterdir())

    def rows(self, *kinds: EventKind, epoch: int | None = None) -> list[Row]:
        """Return the log's rows of these kinds."""
        reader = LogReader(self.state / "audit")
        numbers = [int(kind) for kind in kinds] or None
        return [stored.row for stored in reader.rows(kinds=numbers, epoch=epoch)]

    def bodies(self, kind: EventKind, epoch: int | None = None) -> list[Body]:
        """Return the bodies of the log's rows of a kind; none while the log is being made."""
        try:
            return [unpack_body(row.body) for row in self.rows(kind, epoch=epoch)]
        except ChainBrokenError:
            return []

    def decisions(self) -> list[tuple[int, DecisionRecord]]:
        """Return market time (ms) and record of each decision in the log."""
        return [(row.market_ms, unpack_record(row.body)) for row in self.rows(EventKind.DECISION)]

    def attach(self, strategy: str) -> Gate:
        """Attach this process to the run's gate."""
        with self.inside():
            return Gate.attach(strategy=strategy, instance=self.instance)

    def processes(self, text: str = "") -> dict[int, str]:
        """Return pid and command line of the run's living processes whose command has ``text``."""
        mark = f"TRIPGATE_SHM={self.environment['TRIPGATE_SHM']}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                if mark not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, ValueError):
                continue  # ended while we looked, or belongs to somebody else
            if state != "Z" and text in command:
                found[int(folder.name)] = command
        return found

    def tree_processes(self) -> dict[int, str]:
        """Return the processes that may not outlive the root: all but launcher and venue."""
        assert self.launcher is not None
        return {
            pid: command
            for pid, command in self.processes().items()
            if pid != self.launcher.pid and VENUE_MODULE not in command
        }

    def strategy_pid(self) -> int:
        """Wait for the one strategy process and return its pid."""
        wait_until(lambda: len(self.processes(STRATEGY_MODULE)) == 1, "one strategy process")
        return next(iter(self.processes(STRATEGY_MODULE)))

    def page_positions(self, page: Page) -> dict[str, int]:
        """Return the positions in the page that are not zero, signed lots by symbol."""
        words = page.rows(KEY)["closable"]
        found: dict[str, int] = {}
        for number, (_, instrument) in enumerate(page.names.keys):
            lots, symbol = int(words[number]) >> 32, page.names.instruments[instrument].symbol
            found[symbol] = found.get(symbol, 0) + lots
        return {symbol: lots for symbol, lots in found.items() if lots}

    def log_fills(self) -> list[tuple[int, str, int]]:
        """Return trade id, symbol and signed lots of each fill in the log, in its order."""
        return [
            (int(str(body["trade"])), str(body["symbol"]), int(str(body["lots"])))
            for body in self.bodies(EventKind.FILL)
        ]

    def log_positions(self) -> dict[str, int]:
        """Return the positions that the log's fills add up to."""
        found: dict[str, int] = {}
        for _, symbol, lots in self.log_fills():
            found[symbol] = found.get(symbol, 0) + lots
        return {symbol: lots for symbol, lots in found.items() if lots}

    def venue_positions(self) -> dict[str, int]:
        """Ask the venue for the account's positions that are not zero."""

        async def ask(venue: LocalVenue) -> dict[str, int]:
            return dict((await venue.account()).positions)

        return {symbol: lots for symbol, lots in self._venue(ask).items() if lots}

    def venue_fills(self) -> list[tuple[int, str, int]]:
        """Ask the venue for all trades of the account: trade id, symbol, signed lots."""

        async def ask(venue: LocalVenue) -> list[tuple[int, str, int]]:
            found: list[tuple[int, str, int]] = []
            while True:
                page = await venue.trades(found[-1][0] if found else 0)
                found += [(f.trade_id, f.symbol, f.lots * int(f.side)) for f in page.fills]
                if not page.more or not page.fills:
                    return found

        fills: list[tuple[int, str, int]] = self._venue(ask)
        return fills

    def venue_open_orders(self) -> set[str]:
        """Ask the venue for the client ids of the orders that rest there."""

        async def ask(venue: LocalVenue) -> set[str]:
            return {status.order.client_id for status in (await venue.account()).open_orders}

        orders: set[str] = self._venue(ask)
        return orders

    def _venue(self, ask: Callable[[LocalVenue], Any]) -> Any:
        with self.inside():
            path = page_folder(self.instance) / "venue-sim.sock"

        async def run() -> Any:
            async with open_local_venue(path, request_deadline_s=STEP_BOUND_S) as venue:
                return await ask(venue)

        return trio.run(run)


def role_row(page: Page, role: str) -> Any:
    """Return the live row of a role, named as people read it: ``breaker`` or ``router(sim)``."""
    return page.rows(ROLE)[[name.text for name in page.names.roles].index(role)]


@contextlib.contextmanager
def paper_run(instance: str = "run", **environment: str) -> Iterator[PaperRun]:
    """Yield a run that is reaped at the end of the block, whatever happened in it."""
    run = PaperRun(instance, **environment)
    try:
        yield run
    finally:
        run.close()
