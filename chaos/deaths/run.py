"""Whole drills: the matrix of every fate, and the soak of random ones; what they come to.

The matrix deals each fate a number of times, several victims at once. The soak deals random fates
to random victims that stream frames to the root all the while, and lets one brittle victim die too
often. Both end the tree in order and look for what is left of it.
"""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import numpy as np

from chaos.deaths.case import Case
from chaos.deaths.drill import Drill, Setting, open_drill
from chaos.deaths.drive import Driver
from chaos.deaths.fates import BY_NAME, FATES, Fate
from chaos.deaths.ground import VICTIM_LEASE_NS, Word
from chaos.deaths.witness import Witness
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter, writer_level
from tripgate.reasons import Level

SCHEMA = 1
PERCENTILES = {"p50": 50.0, "p99": 99.0, "max": 100.0}
FIGURES = ("denied_ms", "zeroed_ms", "recorded_ms", "back_ms")
SOAK_WEIGHTS = {
    "sigkill": 40, "sigterm": 15, "os_exit": 10, "cut_frame": 15, "segfault": 10, "exception": 5,
    "sigstop": 5,
}  # fmt: skip
SOAK_PAUSE_S = (0.02, 0.4)
BRITTLE_DEATHS = 3


@dataclass
class Verdict:
    """What a drill came to.

    Attributes
    ----------
    fates
        By name of the fate: how often, by what it was noticed, ms to each thing seen, what was on
        record of the first one.
    dealt, recorded
        Deaths that were dealt, and those of them that are on record.
    left
        Processes of the tree that lived on after its end, by pid.
    """

    kind: str
    seed: int
    fates: dict[str, dict[str, Any]]
    dealt: int
    recorded: int
    violations: list[str]
    left: dict[int, str]
    false_denials: int
    slow_starts: int
    asked: int
    approvals: int
    turn_ms: dict[str, float]
    armed_s: float
    ended_s: float
    elapsed_s: float
    load_average: float
    lease_ms: int = VICTIM_LEASE_NS // NS_PER_MS
    frames: int = 0
    escalation: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def as_object(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return {**asdict(self), "left": {str(pid): state for pid, state in self.left.items()}}


def run_matrix(
    rounds: int = 1, *, together: int = 2, fates: Iterable[Fate] = FATES, heartbeats: bool = False
) -> Verdict:
    """Deal each fate ``rounds`` times, ``together`` victims at once.

    Parameters
    ----------
    together
        More is faster; deaths at the same time share the machine's processors, which shows in the
        times until a successor lives.
    heartbeats
        Plants a bug that must be found (see ``Setting``).
    """
    began_ns = host_ns()
    waiting = [fate for fate in sorted(fates, key=_slowest_first) for _ in range(rounds)]
    number = len(waiting)
    with open_drill(Setting(victims=together + 1, heartbeats=heartbeats)) as drill:
        drill.start()
        armed_s = drill.wait_armed()
        driver = Driver(drill, Witness(drill.page))

        def deal(idle: Sequence[int]) -> list[tuple[int, Fate]]:
            room = max(0, together - len(driver.active))
            return [(role, waiting.pop(0)) for role in idle[:room] if waiting]

        driver.run(deal, lambda: not waiting)
        return _finish(drill, driver, "matrix", 0, number, armed_s, began_ns)


def run_soak(duration_s: float, *, seed: int, victims: int = 6) -> Verdict:
    """Deal random deaths to streaming victims for ``duration_s``; one brittle one escalates."""
    began_ns, draw = host_ns(), Random(seed)
    brittle = victims + 1
    setting = Setting(victims=brittle, brittle=(brittle,), brittle_deaths=BRITTLE_DEATHS)
    names, weights = list(SOAK_WEIGHTS), list(SOAK_WEIGHTS.values())
    with open_drill(setting) as drill:
        drill.start()
        armed_s = drill.wait_armed()
        driver = Driver(drill, Witness(drill.page), excused={brittle})
        escalation = Escalation(drill, driver, brittle)
        soak_ns = host_ns()
        next_ns, dealt = soak_ns, 0

        def deal(idle: Sequence[int]) -> list[tuple[int, Fate]]:
            nonlocal next_ns, dealt
            now_ns = host_ns()
            escalation.step(now_ns)
            if now_ns < next_ns or not idle:
                return []
            next_ns = now_ns + int(draw.uniform(*SOAK_PAUSE_S) * NS_PER_S)
            dealt += 1
            return [(draw.choice(idle), BY_NAME[draw.choices(names, weights)[0]])]

        driver.run(deal, lambda: host_ns() - soak_ns > duration_s * NS_PER_S)
        driver.violations += escalation.faults()
        verdict = _finish(drill, driver, "soak", seed, dealt, armed_s, began_ns)
        verdict.escalation = escalation.as_object()
        return verdict


class Escalation:
    """Kills the brittle victim until its scope is closed, and watches that it stays closed."""

    def __init__(self, drill: Drill, driver: Driver, role: int) -> None:
        self._drill, self._driver, self._role = drill, driver, role
        self._node = drill.page.names.scope(f"venue:{drill.page.names.roles[role].venue}")
        self.killed_ns: list[int] = []
        self.closed_ns = 0
        self.approved = 0
        self.retried_ns = 0
        self._last = 0

    def step(self, now_ns: int) -> None:
        """Look once; kill the next incarnation as soon as it lives."""
        incarnation = int(self._drill.row(self._role)["incarnation"])
        level = writer_level(self._drill.page, self._node, LevelWriter.SUPERVISOR)
        if self.closed_ns:
            self.approved += not self._driver.witness.ask(self._role)
            if incarnation > self._last and not self.retried_ns:
                self.retried_ns = now_ns
        elif level >= Level.MEDIUM:
            self.closed_ns = now_ns
        elif incarnation > self._last and self._drill.deadline_ns(self._role) > now_ns:
            if self._drill.signal(self._role, signal.SIGKILL):
                self._last = incarnation
                self.killed_ns.append(now_ns)

    def faults(self) -> list[str]:
        """Return what was wrong."""
        found = []
        if self.closed_ns and len(self.killed_ns) != BRITTLE_DEATHS:
            found.append(f"escalated after {len(self.killed_ns)} deaths, not {BRITTLE_DEATHS}")
        if self.approved:
            found.append(f"{self.approved} approvals in a scope that was closed for good")
        if bool(self.closed_ns) != bool(self._driver.escalated):
            found.append("the level and the record of the escalation do not agree")
        return found

    def as_object(self) -> dict[str, Any]:
        """Return what was seen, plain values; None for what the soak was too short to see."""
        last_ns = self.killed_ns[-1] if self.killed_ns else 0
        closed_ms = (self.closed_ns - last_ns) / NS_PER_MS if self.closed_ns else None
        retried_s = (self.retried_ns - self.closed_ns) / NS_PER_S if self.retried_ns else None
        return {
            "deaths": len(self.killed_ns),
            "closed_ms": None if closed_ms is None else round(closed_ms, 1),
            "retried_s": None if retried_s is None else round(retried_s, 1),
            "recorded": sum(e.kind is EventKind.ESCALATED for e in self._driver.escalated),
        }


def _slowest_first(fate: Fate) -> int:
    """Sort key: what is noticed by silence takes seconds and goes first."""
    order = {"silence": 1, "call": 2, "start": 3, "exit": 4}
    return 0 if fate.name == "hang_before_ready" else order[fate.noticed.value]


def _finish(
    drill: Drill, driver: Driver, kind: str, seed: int, dealt: int, armed_s: float, began_ns: int
) -> Verdict:
    frames = int(drill.orders[:, Word.FRAMES].sum())
    # A drill that got stuck has shown what it had to show: its tree may not be able to end.
    is_orderly = drill.root_lives and not driver.active
    ended_s = drill.end() if is_orderly else 0.0
    reaped = drill.reap()
    left = reaped if is_orderly else {}
    recorded = sum(bool(case.recorded_ns) for case in (*driver.over, *driver.active.values()))
    violations = list(dict.fromkeys(driver.violations))
    if recorded != dealt:
        violations.append(f"{dealt} deaths were dealt, {recorded} are on record")
    violations += [f"process {pid} ({state}) lived on after the end" for pid, state in left.items()]
    return Verdict(
        kind=kind, seed=seed, fates=summarize(driver.over), dealt=dealt, recorded=recorded,
        violations=violations, left=left, false_denials=driver.false_denials,
        slow_starts=driver.slow_starts, asked=driver.asked,
        approvals=driver.witness.approvals,
        turn_ms=spread([gap / NS_PER_MS for gap in driver.gaps_ns]),
        armed_s=round(armed_s, 2), ended_s=round(ended_s, 2),
        elapsed_s=round((host_ns() - began_ns) / NS_PER_S, 1),
        load_average=round(os.getloadavg()[0], 1), frames=frames,
    )  # fmt: skip


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return middle, 99 % and largest of some figures; empty if there are none."""
    if not values:
        return {}
    found = np.percentile(values, list(PERCENTILES.values()), method="higher")
    return {name: round(float(value), 2) for name, value in zip(PERCENTILES, found, strict=True)}


def summarize(cases: Iterable[Case]) -> dict[str, dict[str, Any]]:
    """Return the table of some cases, in the order of ``FATES``."""
    by_fate: Mapping[str, list[Case]] = {fate.name: [] for fate in FATES}
    for case in cases:
        by_fate[case.fate.name].append(case)
    return {name: _row(found) for name, found in by_fate.items() if found}


def _row(cases: Sequence[Case]) -> dict[str, Any]:
    fate, figures = cases[0].fate, [case.figures() for case in cases]
    return {
        "n": len(cases), "says": fate.says, "noticed": fate.noticed.value,
        "code": cases[0].down["code"], "reason": cases[0].down["reason"],
        "denials": sorted({case.denial_name for case in cases if case.denial}),
        **{
            name: spread([row[name] for row in figures if name in row]) for name in FIGURES
        },
    }  # fmt: skip
