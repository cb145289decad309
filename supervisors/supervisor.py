"""Running children: start, watch, restart. One trio task per child; the root's own lease beside.

A child's exit is seen through its process (a pidfd under trio's wait) within milliseconds: its
lease is zeroed first, everything else comes after. Unwinding the dead child's tractor nursery takes
half a second, so it runs in the background while the next incarnation starts. A child that lives
but hangs is caught by its lease (the gate closes by itself) and is then killed here.
"""

from typing import Any

import trio

from actors import runtime
from supervisors.child_spec import ChildSpec
from supervisors.strategy import LeaveDown, decide
from supervisors.suspend import SuspendDetector
from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_MS, NS_PER_S, boot_ns, host_ns
from tripgate.messages import EventKind
from tripgate.page.doorbell import Ringer
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.lease import LeaseHolder, zero_lease
from tripgate.page.level import LevelWriter, bump_generation, set_level
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter
from tripgate.processes import process_start_time
from tripgate.reasons import Level

TURN_S = 0.02
HANG_NS = 2 * NS_PER_S
"""How long beyond its lease a living child may stay silent before it is killed."""
START_NS = 60 * NS_PER_S
"""How long a child may take from spawn to its first lease (the very first start compiles)."""
SUPERVISOR_ROLE = 0
PORTFOLIO = 0
REASON_CHARACTERS_MAX = 200
REASONS_MAX = 5
STEADY_NS = 60 * NS_PER_S
"""How long every actor of an escalated scope must have run before the tightening is withdrawn."""


class Incarnation:
    """One run of one child: its process and how it ended."""

    def __init__(self, spec: ChildSpec, number: int) -> None:
        self.spec = spec
        self.number = number
        self.process: trio.Process | None = None
        self.spawned = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.reason = ""
        self.started_ns = host_ns()

    def end(self, reason: str) -> None:
        """Note the first reason for the end and wake everybody who waits for it."""
        self.reason = self.reason or reason
        self.spawned.set()
        self.ended.set()


class Supervisor:
    """Keeps the children of one tree alive and the gate closed where they are not."""

    def __init__(self, page: Page, settings: dict[str, Any], nursery: trio.Nursery) -> None:
        self._page = page
        self._settings = settings
        self._nursery = nursery
        self._ring = RingWriter(page, SUPERVISOR_ROLE)
        self._lease = LeaseHolder(page, SUPERVISOR_ROLE)
        self._ringer = Ringer(page.folder)
        self._running: dict[int, Incarnation] = {}
        self._tightened_ns: dict[int, int] = {}
        self._suspend = SuspendDetector(host_ns(), boot_ns())
        self._roles = page.rows(ROLE)
        self.stopping = False

    def emit(self, kind: EventKind, body: dict[str, Any]) -> int | None:
        """Record an event of the supervisor; a full ring loses it rather than stop the watch."""
        return self._ring.append(
            int(kind), pack_body(body), host_ns(), int(self._page.header["market_ms"])
        )

    def ring_all(self) -> None:
        """Wake everybody who waits for a word of the page."""
        self._ringer.ring_all()

    def close(self) -> None:
        """Give the sending socket back."""
        self._ringer.close()

    async def watch(self) -> None:
        """Renew the root's lease each turn, note lapses, kill what hangs. Runs for ever."""
        calm_ns = host_ns()
        while True:
            now_ns = host_ns()
            self._lease.renew(now_ns)
            if now_ns - calm_ns > NS_PER_S:
                calm_ns = now_ns
                self.look_for_suspend(now_ns)
                self.calm_down(now_ns)
            deadlines = self._page.rows(LEASE)["deadline_ns"]
            for number in range(len(self._page.names.roles)):
                row = self._roles[number]
                if int(deadlines[number]) >= now_ns:
                    row["lapsed_since_ns"] = 0
                elif not row["lapsed_since_ns"]:
                    row["lapsed_since_ns"] = now_ns
                self._kill_if_hung(number, now_ns)
            await trio.sleep(TURN_S)

    def _kill_if_hung(self, role: int, now_ns: int) -> None:
        child, row = self._running.get(role), self._roles[role]
        if child is None or child.process is None or child.ended.is_set() or row["stale"]:
            return
        lapsed_ns = now_ns - int(row["lapsed_since_ns"]) if row["lapsed_since_ns"] else 0
        bound_ns = HANG_NS if int(row["renewals"]) else START_NS
        if lapsed_ns > bound_ns and now_ns - child.started_ns > bound_ns:
            child.reason = "hung"
            child.process.kill()

    async def keep(self, spec: ChildSpec, first_ready: trio.Event) -> None:
        """Start a child, and again after each death, as its spec says."""
        role = self._page.names.role(spec.actor, spec.venue)
        deaths_s: list[float] = []
        while True:
            child = Incarnation(spec, int(self._roles["incarnation"][role]) + 1)
            self._running[role] = child
            self._nursery.start_soon(self._hold, child, role, first_ready)
            await child.spawned.wait()
            if child.process is not None:
                await child.process.wait()
            self._mourn(child, role)
            child.scope.cancel()
            deaths_s.append(host_ns() / NS_PER_S)
            decision = decide(spec, deaths_s, deaths_s[-1], failed=True)
            if self.stopping or isinstance(decision, LeaveDown):
                return
            if decision.escalate:
                self._escalate(role)
            await trio.sleep(decision.delay_s)

    async def _hold(self, child: Incarnation, role: int, first_ready: trio.Event) -> None:
        """Keep a child's context open until it ends, however it ends."""
        spec = child.spec
        arguments = {
            "actor": spec.actor, "venue": spec.venue, "folder": str(self._page.folder),
            "incarnation": child.number, "settings": self._settings,
        }  # fmt: skip

        def spawned(process: trio.Process) -> None:
            child.process = process
            row = self._roles[role]
            row["renewals"], row["stale"] = 0, 0
            row["pid"], row["start_time"] = process.pid, process_start_time(process.pid)
            row["incarnation"] = child.number
            child.spawned.set()

        def ended(error: BaseException | None) -> None:
            # Before the process ends: ``keep`` records the reason the moment it sees that end.
            child.reason = child.reason or ("" if error is None else _reason(error))

        with child.scope:
            try:
                name = f"{spec.name}#{child.number}"
                async with runtime.open_child(name, arguments, spawned, ended) as running:
                    self._announce(child, role)
                    first_ready.set()
                    await running.context.result()
                child.end("returned")
            except* Exception as error:  # Whatever ended it, the child is restarted.
                child.end(_reason(error))
        # An actor that failed in its context leaves a living process behind: end it.
        if child.process is not None and child.process.returncode is None:
            child.process.kill()
        child.end("stopped")

    def _announce(self, child: Incarnation, role: int) -> None:
        self.emit(EventKind.ACTOR_STARTED, {
            "actor": child.spec.name, "incarnation": child.number,
            "pid": int(self._roles["pid"][role]),
            "start_ms": (host_ns() - child.started_ns) // NS_PER_MS,
        })  # fmt: skip

    def _mourn(self, child: Incarnation, role: int) -> None:
        """Close what depends on the dead: its lease first, then the generation, then the record."""
        zero_lease(self._page, role)
        bump_generation(self._page)
        now_ns = host_ns()
        if not self._roles["lapsed_since_ns"][role]:
            self._roles["lapsed_since_ns"][role] = now_ns
        self._ringer.ring_all()
        if self.stopping:
            return
        self._roles["restarts"][role] += 1
        code = child.process.returncode if child.process is not None else None
        self.emit(EventKind.ACTOR_DOWN, {
            "actor": child.spec.name, "incarnation": child.number, "reason": child.reason,
            "code": code if code is not None else 0,
        })  # fmt: skip

    def _escalate(self, role: int) -> None:
        """Close the scope of an actor that dies too often."""
        node = int(self._roles["scope_node"][role])
        self._tighten(node, f"{self._page.names.roles[role].text} dies too often")

    def _tighten(self, node: int, reason: str) -> None:
        set_level(self._page, node, LevelWriter.SUPERVISOR, Level.MEDIUM)
        self._tightened_ns[node] = host_ns()
        scope = self._page.names.scopes[node]
        self.emit(EventKind.ESCALATED, {"scope": scope, "reason": reason})

    def look_for_suspend(self, now_ns: int) -> None:
        """Close the portfolio if the host has slept since the last look."""
        slept_ns = self._suspend.slept_ns(now_ns, boot_ns())
        if slept_ns:
            self._tighten(PORTFOLIO, f"the host slept for {slept_ns // NS_PER_S} s")

    def calm_down(self, now_ns: int) -> None:
        """Withdraw the supervisor's own tightening of scopes whose actors all hold leases again."""
        for node in set(int(n) for n in self._roles["scope_node"]):
            members = [r for r, row in enumerate(self._roles)
                       if row["present"] and int(row["scope_node"]) == node]  # fmt: skip
            rested = now_ns - self._tightened_ns.get(node, 0) > STEADY_NS
            steady = rested and all(
                not self._roles["lapsed_since_ns"][role]
                and now_ns - self._running[role].started_ns > STEADY_NS
                for role in members
                if role in self._running
            )
            if steady:
                set_level(self._page, node, LevelWriter.SUPERVISOR, Level.NORMAL)


def _reason(error: BaseException) -> str:
    """Return the last lines of what went wrong; being cancelled is no reason of its own."""
    told = []
    for leaf in runtime.split_errors(error):
        if isinstance(leaf, Exception):
            text = str(leaf).strip().splitlines()
            told.append(
                f"{type(leaf).__name__}: {text[-1] if text else ''}"[:REASON_CHARACTERS_MAX]
            )
    return "; ".join(told[:REASONS_MAX])
