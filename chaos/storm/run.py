"""The driver: kills, stops, starts successors, observes, and returns a verdict.

It never acts on the page itself; what it does is seeded, what follows from it is not, because the
machine's scheduler has its say. A verdict therefore counts what was reached: a storm in which
nobody died inside a section, or no quiet moment was judged, has not passed.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.storm.ground import KEEPER, Ground, make_ground, tick
from chaos.storm.ledger import FILLS, JOURNAL_FILE, Ledger, Note
from chaos.storm.nursery import NONE
from chaos.storm.watch import Reporter, Watch
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, TripgateError
from tripgate.page import atomics
from tripgate.page.layout import CONTROL_HEADER, ROLE, SLOT
from tripgate.page.mapping import Page
from tripgate.processes import is_alive, process_start_time
from tripgate.reasons import DenyReason

BOX = Path(__file__).resolve().parent.parent.parent
SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - where the product's own pages lie
CLIENTS = (0, 1, 0)
"""Strategy of each client: two processes share one, so that they meet at every node and key."""
START_BOUND_S = 120.0
DEATH_BOUND_NS = 30 * NS_PER_S
PAUSE_S = (0.004, 0.024)
STOP_S = (0.002, 0.04)
STOPS_PER_KILL = 0.5
HUNTS_PER_KILL, HUNT_TRIES = 0.6, 60
"""A hunted victim is stopped again and again until it is caught inside a section or a repair."""
HUNT_S = (0.0, 0.001)
KILLS_PER_OVERSTAY = 80
OVERSTAY_BOUND_NS = 10 * NS_PER_S
REPAIR_HUNTS = 0.4
"""Share of the hunts for a desk that are content with a repair: most want it in the middle of work.
"""
OBSERVATIONS_PER_PAUSE = 4
TICK_MS = 1_000
VICTIMS = ("client", "client", "client", "client", "desk", "desk", "breaker")


@dataclass(frozen=True)
class Verdict:
    """What a storm reached and what it broke.

    Attributes
    ----------
    killed
        Kills by role; ``killed_inside`` counts those that struck inside a section,
        ``killed_repairing`` desks that were repairing the page.
    overstayed
        Members that a repair killed, because they were stopped inside a section for too long.
    stops
        SIGSTOPs of single members, each followed by SIGCONT or a kill.
    glances, exact
        Observations of the running page, and of the stopped page with every section even.
    used_ppm_max
        The fullest a node was seen, of its configured gross limit.
    violations
        One text per breach.
    """

    seed: int
    killed: dict[str, int]
    killed_inside: int
    killed_repairing: int
    overstayed: int
    stops: int
    grants: int
    denials: dict[str, int]
    fills: int
    repairs_begun: int
    repairs: int
    glances: int
    exact: int
    used_ppm_max: int
    elapsed_s: float
    violations: list[str]

    @property
    def is_exercised(self) -> bool:
        """Whether everything that the storm is about has happened at least once."""
        limits = {DenyReason.GROSS_LIMIT.name, DenyReason.NET_LIMIT.name}
        reached = (
            self.killed_inside,
            self.killed_repairing,
            self.grants,
            self.fills,
            self.repairs,
            self.exact,
        )
        return all(reached) and limits <= self.denials.keys() and len(self.killed) > 2


@dataclass
class Being:
    """One living member as the driver knows it."""

    role: str
    number: int
    pid: int
    start: int
    descriptor: int

    def send(self, number: int) -> None:
        """Send a signal to this very process."""
        signal.pidfd_send_signal(self.descriptor, number)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        return bool(poller.poll(0)) or not is_alive(self.pid, self.start)


@dataclass
class Driver:
    """Everything of one storm."""

    page: Page
    seed: int
    mutant: str
    nursery: "subprocess.Popen[str]"
    draw: Random = field(init=False)
    beings: list[Being] = field(default_factory=list)
    desks: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    killed_inside: int = 0
    killed_repairing: int = 0
    overstayed: int = 0
    stops: int = 0

    def __post_init__(self) -> None:
        self.draw = Random(self.seed)
        self.reporter = Reporter(self.page.folder)
        ledger = Ledger(self.page.folder / JOURNAL_FILE)
        self.watch = Watch(Ground(self.page), self.reporter, ledger)

    def start(self, role: str, number: int = 0) -> None:
        """Let the nursery fork a member."""
        if role == "desk":
            self.desks += 1
            number = self.desks
            self.page.rows(ROLE)["incarnation"][KEEPER] = 0
        seed = self.draw.getrandbits(32)
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(f"{role} {number} {seed} {self.mutant}\n")
        self.nursery.stdin.flush()
        if not select.select([self.nursery.stdout], [], [], START_BOUND_S)[0]:
            raise DeadlineError("the storm's nursery does not answer: see its standard error")
        answer = self.nursery.stdout.readline()
        if not answer:
            raise TripgateError("the storm's nursery has ended: see its standard error")
        pid = int(answer)
        start = process_start_time(pid)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        self.beings.append(Being(role, number, pid, start, descriptor))

    def step(self) -> None:
        """Pause, observing; then strike one member."""
        pause_s = self.draw.uniform(*PAUSE_S) / OBSERVATIONS_PER_PAUSE
        for _ in range(OBSERVATIONS_PER_PAUSE):
            sleep_s(pause_s)
            tick(self.page, TICK_MS)
            self.watch.glance()
        if self.draw.random() < STOPS_PER_KILL:
            self._stop_one()
        self._stop_all()
        self._notice_the_dead()
        if self.overstayed < self.killed.total() // KILLS_PER_OVERSTAY:
            self._overstay()
        self._kill_one()

    def _overstay(self) -> None:
        """Stop a client inside a section and keep it there, and let another die inside.

        The desk must repair, and must not wait for ever: it kills who stays inside for a second.
        """
        clients = [being for being in self.beings if being.role == "client"]
        sleeper, victim = self.draw.sample(clients, 2)
        if not (self._hunt(sleeper) and self._hunt(victim)):
            sleeper.send(signal.SIGCONT)
            victim.send(signal.SIGCONT)
            return
        self._kill(victim)
        give_up_ns = host_ns() + OVERSTAY_BOUND_NS
        while not sleeper.has_ended():
            if host_ns() > give_up_ns:
                self.reporter.add("overstaying", [f"process {sleeper.pid} was not killed"])
                sleeper.send(signal.SIGCONT)
                return
            self.watch.glance()
            sleep_s(0.01)
        self.overstayed += 1
        self._forget(sleeper)
        self.start("client", sleeper.number)

    def _kill_one(self) -> None:
        role = self.draw.choice(VICTIMS)
        victim = self.draw.choice([being for being in self.beings if being.role == role])
        if role != "breaker" and self.draw.random() < HUNTS_PER_KILL:
            self._hunt(victim)
        self._kill(victim)

    def _kill(self, victim: Being) -> None:
        """Kill a member, wait for its end and start its successor."""
        frozen = self._is_frozen()
        victim.send(signal.SIGKILL)
        give_up_ns = host_ns() + DEATH_BOUND_NS
        while not victim.has_ended():
            if host_ns() > give_up_ns:
                raise DeadlineError(f"process {victim.pid} does not die")
            sleep_s(0.0005)
        self.killed_inside += self._is_inside(victim)
        self.killed_repairing += victim.role == "desk" and frozen
        self.killed[victim.role] += 1
        self._forget(victim)
        self.start(victim.role, victim.number)

    def _is_inside(self, being: Being) -> bool:
        slots = self.page.rows(SLOT)
        own = (slots["pid"] == being.pid) & (slots["start_time"] == being.start)
        return bool(((slots["section"] | slots["exit_section"])[own] & 1).any())

    def _is_frozen(self) -> bool:
        return bool(atomics.load(self.page.address(CONTROL_HEADER, 0, "freeze")))

    def _hunt(self, victim: Being) -> bool:
        """Stop a member until it stands where a death hurts, and leave it stopped.

        Returns whether it was caught there.
        """
        repairing = victim.role == "desk" and self.draw.random() < REPAIR_HUNTS
        for _ in range(HUNT_TRIES):
            victim.send(signal.SIGSTOP)
            _wait_until_stopped([victim])
            if self._is_frozen() if repairing else self._is_inside(victim):
                return True
            victim.send(signal.SIGCONT)
            sleep_s(self.draw.uniform(*HUNT_S))
        return False

    def _forget(self, being: Being) -> None:
        os.close(being.descriptor)
        self.beings.remove(being)

    def _stop_one(self) -> None:
        being = self.draw.choice(self.beings)
        being.send(signal.SIGSTOP)
        self.stops += 1
        sleep_s(self.draw.uniform(*STOP_S))
        if self.draw.random() < 0.8:
            being.send(signal.SIGCONT)

    def _stop_all(self) -> None:
        """Stop the world, look at all of it, let it go on."""
        for being in self.beings:
            being.send(signal.SIGSTOP)
        _wait_until_stopped(self.beings)
        self.watch.inspect()
        for being in self.beings:
            being.send(signal.SIGCONT)

    def _notice_the_dead(self) -> None:
        """A member that ended without being killed is a breach by itself; it is replaced."""
        for being in [being for being in self.beings if being.has_ended()]:
            self.reporter.add("a member ended", [f"{being.role} {being.number} of itself"])
            self._forget(being)
            self.start(being.role, being.number)

    def end(self) -> None:
        """Kill whatever lives."""
        for being in self.beings:
            being.send(signal.SIGKILL)
        # Its input ends: it kills whom we no longer know of and goes.
        self.nursery.communicate(timeout=START_BOUND_S)
        give_up_ns = host_ns() + DEATH_BOUND_NS
        while not all(being.has_ended() for being in self.beings) and host_ns() < give_up_ns:
            sleep_s(0.001)
        for being in list(self.beings):
            self._forget(being)


def run_storm(*, kills: int, seed: int, mutant: str = NONE) -> Verdict:
    """Run a storm until ``kills`` members have been killed; return the verdict.

    Raises
    ------
    DeadlineError, TripgateError
        The storm itself could not go on: its nursery ended, or a process would not die.
    """
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-storm-", dir=root))
    began_ns = host_ns()
    try:
        driver = Driver(make_ground(folder), seed, mutant, _start_nursery(folder))
        try:
            driver.start("desk")
            driver.start("breaker")
            for strategy in CLIENTS:
                driver.start("client", strategy)
            while driver.killed.total() < kills:
                driver.step()
        finally:
            driver.end()
        return _verdict(driver, (host_ns() - began_ns) / NS_PER_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_nursery(folder: Path) -> "subprocess.Popen[str]":
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BOX), *inherited]),
        # A thread pool would not survive the forks.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "chaos.storm.nursery", str(folder)], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _wait_until_stopped(beings: list[Being]) -> None:
    give_up_ns = host_ns() + DEATH_BOUND_NS
    while not all(_is_stopped(being.pid) for being in beings):
        if host_ns() > give_up_ns:
            raise DeadlineError("a member of the storm does not stop")
        sleep_s(0.0002)


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped, or gone, so that it changes nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "TtZX"


def _verdict(driver: Driver, elapsed_s: float) -> Verdict:
    watch, slots = driver.watch, driver.page.rows(SLOT)
    watch.ledger.read_on()
    denied = slots["denied"].sum(axis=0)
    counts = watch.ledger.counts
    return Verdict(
        seed=driver.seed,
        killed=dict(driver.killed),
        killed_inside=driver.killed_inside,
        killed_repairing=driver.killed_repairing,
        overstayed=driver.overstayed,
        stops=driver.stops,
        grants=int(slots["approved"].sum()),
        denials={reason.name: int(denied[reason]) for reason in DenyReason if denied[reason]},
        fills=sum(counts[note] for note in FILLS),
        repairs_begun=counts[Note.REPAIR_BEGUN],
        repairs=counts[Note.REPAIRED],
        glances=watch.glances,
        exact=watch.exact,
        used_ppm_max=watch.used_ppm_max,
        elapsed_s=round(elapsed_s, 1),
        violations=[*driver.reporter.lines(), *watch.ledger.flips],
    )
