"""Running actors: start, watch, restart. The root's own lease beside.

A child's exit is seen through its process (a pidfd under trio's wait) within milliseconds: its
lease is zeroed first, the generation moved, everybody woken; then it is recorded; then its group
decides. Unwinding what is left of the dead child's call takes its time in the background, while
the next incarnation starts. A child that lives but hangs is caught by its lease (the gate closes
by itself) and is then killed here; SIGKILL also ends a stopped one.

Who is started again, when, and what that closes is decided by ``supervisors.strategy``.
"""

from pathlib import Path
from typing import Any

import trio

from actors import runtime
from actors.control import Control
from supervisors.child_spec import PORTFOLIO, ChildSpec, GroupSpec
from supervisors.exposure import is_busy
from supervisors.group import GroupTask, Post, draw
from supervisors.group_types import Died, GroupRestarted, LeftDown, Ready
from supervisors.incarnation import HUNG, RETURNED, STOPPED, Incarnation
from supervisors.suspend import SuspendDetector
from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_MS, NS_PER_S, boot_ns, host_ns
from tripgate.logs import open_log
from tripgate.messages import EventKind
from tripgate.page.doorbell import Ringer
from tripgate.page.layout import LEASE, LINK, ROLE
from tripgate.page.lease import LeaseHolder, zero_lease
from tripgate.page.level import LevelWriter, bump_generation, set_level, writer_level
from tripgate.page.links import to_root
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter
from tripgate.processes import process_start_time
from tripgate.reasons import Level

TURN_S = 0.02
HANG_NS = 2 * NS_PER_S
"""How long beyond its lease a living child may stay silent before it is killed."""
SILENT_NS = 10 * NS_PER_S
"""How long a child that gave its lease up as stale may be silent on its control link."""
START_NS = 60 * NS_PER_S
"""How long a child may take from spawn to its first lease (the very first start compiles)."""
SUPERVISOR_ROLE = 0
STEADY_NS = 60 * NS_PER_S
"""How long every actor of an escalated scope must have run before the tightening is withdrawn."""


class Supervisor:
    """Keeps the actors of one tree alive and the gate closed where they are not."""

    def __init__(self, page: Page, settings: dict[str, Any], nursery: trio.Nursery) -> None:
        self._page = page
        self._settings = settings
        self._nursery = nursery
        self._ring = RingWriter(page, SUPERVISOR_ROLE)
        self._lease = LeaseHolder(page, SUPERVISOR_ROLE)
        self._ringer = Ringer(page.folder)
        self.log = open_log(Path(page.names.state_folder) / "logs", "root", epoch=page.epoch)
        self._running: dict[int, Incarnation] = {}
        self._tightened_ns: dict[int, int] = {}
        self._suspend = SuspendDetector(host_ns(), boot_ns())
        self._roles = page.rows(ROLE)
        self._awake_ns = host_ns()
        self.groups: dict[str, GroupTask] = {}
        self.stopping = False

    def emit(self, kind: EventKind, body: dict[str, Any]) -> int | None:
        """Record an event of the supervisor; a full ring loses it rather than stop the watch."""
        self.log.info(kind.name, body=body)
        return self._ring.append(
            int(kind), pack_body(body), host_ns(), int(self._page.header["market_ms"])
        )

    def ring_all(self) -> None:
        """Wake everybody who waits for a word of the page."""
        self._ringer.ring_all()

    def close(self) -> None:
        """Give the sending socket back."""
        self._ringer.close()

    def add(self, spec: GroupSpec) -> GroupTask:
        """Start a group of actors and return its task."""
        last = {child.name: int(self._roles["incarnation"][self._role(child)])
                for child in spec.children}  # fmt: skip
        task = self.groups[spec.name] = GroupTask(spec, self, last)
        self._nursery.start_soon(task.run)
        return task

    async def keep(self, spec: ChildSpec, first_ready: trio.Event) -> None:
        """Keep one child as a group of its own until that is stopped."""
        task = self.add(GroupSpec(spec.name, (spec,)))
        await task.ready.wait()
        first_ready.set()
        await task.down.wait()

    def _role(self, spec: ChildSpec) -> int:
        return self._page.names.role(spec.actor, spec.venue)

    def start(self, spec: ChildSpec, incarnation: int, post: Post) -> None:
        """Begin an incarnation, unless the tree is going down."""
        if self.stopping:
            return
        role = self._role(spec)
        child = self._running[role] = Incarnation(spec, incarnation)
        self._nursery.start_soon(self._hold, child, role, post)
        self._nursery.start_soon(self._follow, child, role, post)

    def stop(self, spec: ChildSpec) -> None:
        """Ask a child to end its loop in order; one that is not ready yet is cancelled."""
        child = self._running[self._role(spec)]
        child.reason = child.reason or STOPPED
        if child.control is not None:
            child.control.stop(spec.grace_s)
        else:
            child.scope.cancel()

    def kill(self, spec: ChildSpec, reason: str) -> None:
        """End a child at once."""
        self._running[self._role(spec)].kill(reason)

    def left_down(self, spec: ChildSpec, effect: LeftDown) -> None:
        """Record that a child will not be started again; its lease stays zeroed."""
        self.emit(EventKind.CHILD_LEFT_DOWN, {
            "child": spec.name, "reason": effect.reason, "code": effect.code,
            "gave_up": effect.gave_up,
        })  # fmt: skip

    def group_restarted(self, group: str, effect: GroupRestarted) -> None:
        """Record that members of a group are restarted because of another."""
        self.emit(EventKind.GROUP_RESTARTED, {
            "group": group, "because": effect.because, "members": list(effect.members),
        })  # fmt: skip

    def close_scope(self, scope: str, reason: str) -> None:
        """Hold a scope at MEDIUM in the supervisor's own name, and record why."""
        node = self._page.names.scope(scope)
        set_level(self._page, node, LevelWriter.SUPERVISOR, Level.MEDIUM)
        self._tightened_ns[node] = host_ns()
        self.emit(EventKind.ESCALATED, {"scope": scope, "reason": reason})

    async def _follow(self, child: Incarnation, role: int, post: Post) -> None:
        """See a child's exit: close what depends on it, then record it, then tell its group."""
        await child.spawned.wait()
        if child.process is not None:
            await child.process.wait()
        self._mourn(child, role)
        child.scope.cancel()
        post(Died(
            child.spec.name, child.number, child.told(), child.code, child.failed, draw(),
        ))  # fmt: skip

    async def _hold(self, child: Incarnation, role: int, post: Post) -> None:
        """Keep a child's context open until it ends, however it ends."""
        spec = child.spec
        arguments = {
            "actor": spec.actor, "venue": spec.venue, "folder": str(self._page.folder),
            "incarnation": child.number, "settings": self._settings,
        }  # fmt: skip

        def spawned(process: runtime.Process) -> None:
            child.process = process
            row = self._roles[role]
            row["renewals"], row["stale"] = 0, 0
            row["pid"], row["start_time"] = process.pid, process_start_time(process.pid)
            row["incarnation"] = child.number
            child.spawned.set()

        def ended(error: BaseException | None) -> None:
            child.fail(error)
            # The call is over, so nobody renews any more: what is left of the lease is not waited
            # for. Unwinding may come late; then the lease may be a successor's, and is not ours.
            if self._running[role] is child and child.process and child.process.returncode is None:
                zero_lease(self._page, role)
                bump_generation(self._page)

        with child.scope:
            try:
                # Told of a failure before the process ends: ``_follow`` records the reason the
                # moment it sees that end.
                async with runtime.open_child(
                    f"{spec.name}#{child.number}", arguments, spawned, ended, entry=spec.entry
                ) as running:
                    self._announce(child, role)
                    post(Ready(spec.name, child.number))
                    child.control = Control(self._page, role, child.number, self.emit)
                    await child.control.attend(running.context)
                    child.reason = child.reason or RETURNED
            except* Exception as error:  # Whatever ended it, the child is restarted.
                child.fail(error)
        # An actor that failed in its context leaves a living process behind: end it.
        if child.process is not None and child.process.returncode is None:
            child.process.kill()
        child.end(STOPPED)

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
        self.emit(EventKind.ACTOR_DOWN, {
            "actor": child.spec.name, "incarnation": child.number, "reason": child.told(),
            "code": child.code,
        })  # fmt: skip

    async def watch(self) -> None:
        """Renew the root's lease each turn, note lapses, kill what hangs. Runs for ever."""
        calm_ns = turned_ns = self._awake_ns = host_ns()
        while True:
            now_ns = host_ns()
            if now_ns - turned_ns > NS_PER_S:
                # We were stopped ourselves: who was not heard meanwhile may well have spoken.
                self._awake_ns = now_ns
            turned_ns = now_ns
            self._lease.renew(now_ns)
            if now_ns - calm_ns > NS_PER_S:
                calm_ns = now_ns
                self.look_for_suspend(now_ns)
                self.calm_down(now_ns)
                self._tell_exposure()
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
        if child is None or child.process is None or child.ended.is_set():
            return
        if row["stale"]:
            # It gave its lease up by name, so the lease says nothing of a hang that follows; a
            # router that hung then would never send an exit again. Its control link still tells.
            heard_ns = int(self._page.rows(LINK)[to_root(role)]["heard_ns"])
            since_ns = max(heard_ns, child.started_ns, self._awake_ns)
            if heard_ns and now_ns - since_ns > SILENT_NS:
                child.kill(HUNG)
            return
        lapsed_ns = now_ns - int(row["lapsed_since_ns"]) if row["lapsed_since_ns"] else 0
        bound_ns = HANG_NS if int(row["renewals"]) else START_NS
        if lapsed_ns > bound_ns and now_ns - child.started_ns > bound_ns:
            child.kill(HUNG)

    def _tell_exposure(self) -> None:
        """Tell each group that has a part in the exit path whether anything is open."""
        for task in self.groups.values():
            venues = {child.venue for child in task.spec.children if child.exit_path}
            if venues:
                whole = "" in venues
                task.tell_busy(any(is_busy(self._page, "" if whole else one) for one in venues))

    def look_for_suspend(self, now_ns: int) -> None:
        """Close the portfolio if the host has slept since the last look."""
        slept_ns = self._suspend.slept_ns(now_ns, boot_ns())
        if slept_ns:
            self.close_scope(PORTFOLIO, f"the host slept for {slept_ns // NS_PER_S} s")

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
                self._withdraw(node)

    def _withdraw(self, node: int) -> None:
        before = writer_level(self._page, node, LevelWriter.SUPERVISOR)
        set_level(self._page, node, LevelWriter.SUPERVISOR, Level.NORMAL)
        if before:
            self.emit(EventKind.LEVEL_WITHDRAWN, {
                "scope": self._page.names.scopes[node], "writer": LevelWriter.SUPERVISOR.name,
                "before": before.name,
            })  # fmt: skip
