"""The driver: lets members die, starts successors, and compares the log with what was recorded.

Each life is given a place where it ends, in turns, so that none is left to luck; lives that may end
anywhere are ended by the driver. Afterwards the rings are drained by one more writer, and then
every record that was ever published must be a row, once, in order, with the payload that its number
demands; and the watermark must never have promised more.
"""

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.auditkills.ground import EPOCH, PRODUCERS, WRITER, make_ground, record_of
from chaos.auditkills.members import (
    ACKNOWLEDGEMENT,
    ANYWHERE,
    NONE,
    PRODUCER_PLACES,
    WRITER_PLACES,
    Writer,
)
from tripgate.audit.reader import LogReader
from tripgate.audit.verify import verify
from tripgate.clock import NS_PER_S, host_ns
from tripgate.errors import DeadlineError, TripgateError
from tripgate.page.layout import SLOT
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader, recover_sequence

BOX = Path(__file__).resolve().parent.parent.parent
SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - a killed process loses no write, whatever the disk
START_BOUND_S, QUIET_BOUND_NS = 120.0, 60 * NS_PER_S
PAUSE_MS = (2, 60)
VIOLATIONS_MAX = 20
DRAIN_TURNS_MAX = 100_000


@dataclass(frozen=True)
class Verdict:
    """What was reached and what broke.

    Attributes
    ----------
    killed
        Deaths by role and place.
    recorded, acknowledged
        Records published, and how many of them the watermark had passed when their producer looked.
    """

    seed: int
    killed: dict[str, int]
    recorded: int
    acknowledged: int
    files: int
    elapsed_s: float
    violations: list[str]

    @property
    def is_exercised(self) -> bool:
        """Whether somebody died at every place and something had been acknowledged."""
        places = {f"producer {place}" for place in PRODUCER_PLACES}
        places |= {f"writer {place}" for place in WRITER_PLACES}
        return places <= self.killed.keys() and self.acknowledged > 0


@dataclass
class _Being:
    role: int
    place: str
    pid: int
    descriptor: int


@dataclass
class _Driver:
    page: Page
    state: Path
    seed: int
    mutant: str
    nursery: "subprocess.Popen[str]"
    beings: list[_Being] = field(default_factory=list)
    killed: dict[str, int] = field(default_factory=dict)
    incarnation: int = 0

    def __post_init__(self) -> None:
        self.draw = Random(self.seed)
        self._places: dict[bool, Iterator[str]] = {
            True: itertools.cycle(WRITER_PLACES), False: itertools.cycle(PRODUCER_PLACES)
        }  # fmt: skip

    def start(self, role: int) -> None:
        place = next(self._places[role == WRITER])
        self.incarnation += 1
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        seed = self.draw.getrandbits(32)
        self.nursery.stdin.write(f"{role} {self.incarnation} {place} {seed} {self.mutant}\n")
        self.nursery.stdin.flush()
        ready, _, _ = select.select([self.nursery.stdout], [], [], START_BOUND_S)
        answer = self.nursery.stdout.readline() if ready else ""
        if not answer:
            raise TripgateError("the nursery has ended or hangs: see its standard error")
        pid = int(answer)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            # It died before we could look; its successor takes its turn.
            self._count(role, place)
            self.start(role)
            return
        self.beings.append(_Being(role, place, pid, descriptor))

    def step(self) -> None:
        """Wait a moment for deaths; if nobody died, kill one of those that may die anywhere."""
        dead = self._wait(self.draw.randint(*PAUSE_MS))
        if not dead:
            mortal = [being for being in self.beings if being.place == ANYWHERE]
            if not mortal:
                return
            victim = self.draw.choice(mortal)
            signal.pidfd_send_signal(victim.descriptor, signal.SIGKILL)
            dead = self._await_end(victim)
        for being in dead:
            os.close(being.descriptor)
            self.beings.remove(being)
            self._count(being.role, being.place)
            self.start(being.role)

    def _count(self, role: int, place: str) -> None:
        name = f"{'writer' if role == WRITER else 'producer'} {place}"
        self.killed[name] = self.killed.get(name, 0) + 1

    def _wait(self, timeout_ms: int) -> list[_Being]:
        poller = select.poll()
        for being in self.beings:
            poller.register(being.descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poller.poll(timeout_ms)}
        return [being for being in self.beings if being.descriptor in ended]

    def _await_end(self, victim: _Being) -> list[_Being]:
        give_up_ns = host_ns() + QUIET_BOUND_NS
        while victim not in (dead := self._wait(1_000)):
            if host_ns() > give_up_ns:
                raise DeadlineError(f"process {victim.pid} does not die")
        return dead

    def accidents(self) -> list[str]:
        """Return what members said that ended without being killed."""
        return [path.read_text() for path in self.state.glob("ended-*")]

    def end(self) -> None:
        """Kill whatever lives."""
        for being in self.beings:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(being.descriptor, signal.SIGKILL)
        # Its input ends: it kills whom we no longer know of and goes.
        self.nursery.communicate(timeout=START_BOUND_S)
        for being in list(self.beings):
            self._await_end(being)
            os.close(being.descriptor)
            self.beings.remove(being)


def run_kills(*, kills: int, seed: int, mutant: str = NONE) -> Verdict:
    """Let ``kills`` members die, then judge the log; ends at once if a member ends of itself.

    Raises
    ------
    DeadlineError, TripgateError
        The drill itself could not go on.
    """
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-auditkills-", dir=root))
    began_ns = host_ns()
    try:
        state = folder / "state"
        state.mkdir()
        page = make_ground(folder / "page", state)
        driver = _Driver(page, state, seed, mutant, _start_nursery(folder / "page"))
        quiet_ns, last = host_ns(), 0
        try:
            for role in (WRITER, *PRODUCERS):
                driver.start(role)
            while last < kills and not driver.accidents():
                driver.step()
                if (total := sum(driver.killed.values())) > last:
                    quiet_ns, last = host_ns(), total
                if host_ns() - quiet_ns > QUIET_BOUND_NS:
                    raise DeadlineError("nobody dies any more: the members are stuck")
        finally:
            driver.end()
        elapsed_s = round((host_ns() - began_ns) / NS_PER_S, 1)
        return _judge(driver, elapsed_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_nursery(folder: Path) -> "subprocess.Popen[str]":
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BOX), inherited))),
        # A thread pool would not survive the forks.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "chaos.auditkills.members", str(folder)], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _judge(driver: _Driver, elapsed_s: float) -> Verdict:
    page, audit = driver.page, driver.state / "audit"
    violations = driver.accidents()
    if not violations:
        violations += _drain_rest(page, driver.incarnation + 1)
    verdict = verify(audit, driver.state / "heads")
    violations += verdict.problems
    last: dict[int, int] = {}
    for stored in LogReader(audit).rows():
        row = stored.row
        expected = last.get(row.producer, 0) + 1
        if (row.epoch, row.producer_sequence) != (EPOCH, expected):
            violations.append(
                f"slot {row.producer}: record {row.producer_sequence} instead of {expected}"
            )
        if (row.kind, row.body) != record_of(row.producer, row.producer_sequence):
            violations.append(f"slot {row.producer}: record {row.producer_sequence} is garbled")
        last[row.producer] = row.producer_sequence
    acknowledged = 0
    for slot in PRODUCERS:
        recover_sequence(page, slot)
        published = int(page.rows(SLOT)["record_sequence"][slot])
        promised = _promised(driver.state, slot)
        acknowledged += promised
        if last.get(slot, 0) != published:
            violations.append(f"slot {slot}: {published} published, {last.get(slot, 0)} stored")
        if promised > last.get(slot, 0):
            violations.append(f"slot {slot}: {promised} acknowledged, {last.get(slot, 0)} stored")
    return Verdict(
        seed=driver.seed, killed=dict(sorted(driver.killed.items())), recorded=sum(last.values()),
        acknowledged=acknowledged, files=verdict.files, elapsed_s=elapsed_s,
        violations=violations[:VIOLATIONS_MAX],
    )  # fmt: skip


def _drain_rest(page: Page, incarnation: int) -> list[str]:
    """Store what the rings still hold, with one more writer that nobody kills."""
    reader = RingReader(page, "audit")
    try:
        writer = Writer(page, incarnation, ANYWHERE, Random(0), NONE)
        for _ in range(DRAIN_TURNS_MAX):
            if not _undrained(reader):
                break
            writer.turn()
        writer.close()
    except TripgateError as error:
        return [f"the last writer: {error}"]
    return [f"slot {slot} was never drained" for slot in _undrained(reader)]


def _undrained(reader: RingReader) -> list[int]:
    """Return the rings that hold a record. The pad before one that never came is none."""
    return [slot for slot in PRODUCERS if next(reader.read(slot, 1), None) is not None]


def _promised(state: Path, slot: int) -> int:
    path = state / f"acknowledged-{slot}"
    content = path.read_bytes() if path.exists() else b""
    whole = len(content) // ACKNOWLEDGEMENT.size * ACKNOWLEDGEMENT.size
    return max((number for (number,) in ACKNOWLEDGEMENT.iter_unpack(content[:whole])), default=0)
