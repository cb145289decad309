"""Deaths of the root: killed, hung, killed while a child is stopped or while it starts, orphaned.

The whole tree stands and falls with its root, so each drill has a tree of its own. What is asked:
when openings are denied, when the last process is gone, and, for a root that only hung, whether
everything goes on as before.
"""

import os
import signal
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from chaos.deaths.drill import Drill, Setting, open_drill
from chaos.deaths.ground import SUPERVISOR_LEASE_NS
from chaos.deaths.run import SCHEMA, spread
from chaos.deaths.witness import Witness
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.page.layout import ROLE
from tripgate.processes import is_alive

LATE_NS = SUPERVISOR_LEASE_NS + 20 * NS_PER_MS
REST_S = 0.0002
GONE_BOUND_S = 10.0
DENIED_BOUND_S = 10.0
OPEN_BOUND_S = 60.0
STARTING_S = 0.6
"""How long after its start a starting root is killed: children are being made then."""

ROWS = {
    "hung": "root stopped, later continued",
    "killed": "SIGKILL of the root",
    "killed_child_stopped": "SIGKILL of the root while a child is stopped",
    "killed_all_stopped": "SIGKILL of the root while every child is stopped",
    "killed_starting": "SIGKILL of the root while it starts its children",
    "orphaned": "SIGKILL of the process that started the root",
}
KILLS: dict[str, tuple[int, ...]] = {
    "killed": (), "killed_child_stopped": (1,), "killed_all_stopped": (1, 2),
}  # fmt: skip
"""Victims that are stopped when the root is killed; a root that hangs is killed afterwards."""


@dataclass
class Row:
    """One kind of root death."""

    says: str
    denied_ms: list[float] = field(default_factory=list)
    gone_ms: list[float] = field(default_factory=list)
    after: str = ""
    count: int = 0


class RootDrills:
    """Carries the drills out and keeps what was seen."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.left: dict[int, str] = {}
        self.rows = {name: Row(says) for name, says in ROWS.items()}

    def play(self, names: Collection[str]) -> None:
        """Carry out the named drills once."""
        kills = [(name, stopped) for name, stopped in KILLS.items() if name in names]
        for index, (name, stopped) in enumerate(kills):
            with open_drill(Setting(victims=2)) as drill:
                drill.start()
                drill.wait_armed()
                witness = Witness(drill.page)
                if "hung" in names and not index:
                    self._hang(drill, witness)
                self._kill(name, drill, witness, stopped)
        if "killed_starting" in names:
            with open_drill(Setting(victims=2)) as drill:
                drill.start()
                sleep_s(STARTING_S)
                self._kill("killed_starting", drill, None)
        if "orphaned" in names:
            self._orphan()

    def _hang(self, drill: Drill, witness: Witness) -> None:
        row, root = self.rows["hung"], _root_pid(drill)
        before = _lives(drill)
        dealt_ns = host_ns()
        os.kill(root, signal.SIGSTOP)
        approved_ns = dealt_ns
        while host_ns() - dealt_ns < DENIED_BOUND_S * NS_PER_S:
            before_ns = host_ns()
            if witness.ask(1):
                row.denied_ms.append((host_ns() - dealt_ns) / NS_PER_MS)
                break
            approved_ns = before_ns
            sleep_s(REST_S)
        os.kill(root, signal.SIGCONT)
        if approved_ns - dealt_ns > LATE_NS:
            late_ms = (approved_ns - dealt_ns) / NS_PER_MS
            self.violations.append(f"hung: approved {late_ms:.1f} ms after it")
        opened_s = drill.until(lambda: not witness.ask(1), "an open gate", OPEN_BOUND_S)
        row.count += 1
        row.after = f"approved again {opened_s * 1_000:.0f} ms after SIGCONT, same children"
        if _lives(drill) != before:
            self.violations.append("hung: the children of a root that only hung were replaced")
            row.after = "children were replaced"

    def _kill(
        self, name: str, drill: Drill, witness: Witness | None, stopped: tuple[int, ...] = ()
    ) -> None:
        row, root = self.rows[name], _root_pid(drill)
        _stop(drill, stopped)
        dealt_ns = host_ns()
        os.kill(root, signal.SIGKILL)
        self._watch_end(name, row, drill, witness, dealt_ns)

    def _watch_end(
        self, name: str, row: Row, drill: Drill, witness: Witness | None, dealt_ns: int
    ) -> None:
        members = drill.members()
        approved_ns = denied_ns = gone_ns = 0
        while not (gone_ns and (denied_ns or witness is None)):
            before_ns = host_ns()
            if before_ns - dealt_ns > GONE_BOUND_S * NS_PER_S:
                break
            if witness is not None and not denied_ns:
                if witness.ask(1):
                    denied_ns = host_ns()
                else:
                    approved_ns = before_ns
            if not gone_ns and not any(is_alive(*member) for member in members):
                # Who was being made at that moment stands in no row yet.
                gone_ns = 0 if drill.processes() else host_ns()
            sleep_s(REST_S)
        left = drill.processes()
        if denied_ns:
            row.denied_ms.append((denied_ns - dealt_ns) / NS_PER_MS)
        if approved_ns - dealt_ns > LATE_NS:
            late_ms = (approved_ns - dealt_ns) / NS_PER_MS
            self.violations.append(f"{name}: approved {late_ms:.1f} ms after it")
        row.count += 1
        if gone_ns:
            row.gone_ms.append((gone_ns - dealt_ns) / NS_PER_MS)
        row.after = f"{len(left)} processes left"
        self.left.update(left)
        self.violations += [f"{name}: process {pid} ({state}) lived on"
                            for pid, state in left.items()]  # fmt: skip

    def _orphan(self) -> None:
        with open_drill(Setting(victims=2)) as drill:
            starter = subprocess.Popen(["sleep", "600"])
            try:
                drill.start(starter.pid)
                drill.wait_armed()
                witness = Witness(drill.page)
                dealt_ns = host_ns()
                starter.kill()
                self._watch_end("orphaned", self.rows["orphaned"], drill, witness, dealt_ns)
            finally:
                starter.kill()
                starter.wait()


def run_roots(rounds: int = 1, names: Collection[str] = ROWS) -> dict[str, Any]:
    """Carry the drills out ``rounds`` times; return what was seen as plain values."""
    began_ns, drills = host_ns(), RootDrills()
    for _ in range(rounds):
        drills.play(names)
    return {
        "schema": SCHEMA, "kind": "roots", "lease_ms": SUPERVISOR_LEASE_NS // NS_PER_MS,
        "rows": {
            name: {
                "says": row.says, "n": row.count, "denied_ms": spread(row.denied_ms),
                "gone_ms": spread(row.gone_ms), "after": row.after,
            }
            for name, row in drills.rows.items()
            if row.count
        },
        "violations": drills.violations,
        "left": {str(pid): state for pid, state in drills.left.items()},
        "load_average": round(os.getloadavg()[0], 1),
        "elapsed_s": round((host_ns() - began_ns) / NS_PER_S, 1),
    }  # fmt: skip


def _root_pid(drill: Drill) -> int:
    if drill.root is None:
        raise AssertionError("the drill was not started")
    return drill.root.pid


def _lives(drill: Drill) -> list[tuple[int, int]]:
    rows = drill.page.rows(ROLE)
    return [(int(rows["pid"][role]), int(rows["incarnation"][role])) for role in drill.roles]


def _stop(drill: Drill, roles: tuple[int, ...]) -> None:
    """Stop some victims and wait until the kernel says that they stand."""
    pids = [int(drill.row(role)["pid"]) for role in roles]
    for role in roles:
        drill.signal(role, signal.SIGSTOP)
    drill.until(
        lambda: all(drill.processes().get(pid) == "T" for pid in pids), "stopped", DENIED_BOUND_S
    )
