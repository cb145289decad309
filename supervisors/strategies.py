"""Strategy processes: plain programs that the tree starts, watches and ends.

They hold no key and no lease. One that fails is restarted within bounds and then given up: its
scope is closed, it is out of the lock-step, and both are on record. One that ends well has left
the lock-step. One that hangs (the feed has dropped it, because the market waited for it in vain,
and it has not moved since) is killed, so that the router sees its owner gone and cancels its
entries; it comes back where there is no lock-step that it could have fallen out of. One that was
merely slow goes on outside of the lock-step. They watch the root through the client package and
end when it dies.
"""

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from supervisors.child_spec import ChildSpec
from supervisors.group import Post, draw
from supervisors.group_types import Died, GroupRestarted, LeftDown, Ready
from supervisors.incarnation import HUNG, exit_text
from supervisors.leftovers import note_strategies
from supervisors.supervisor import Supervisor
from supervisors.tree import STRATEGY_END_WAIT_S
from tripgate.clock import NS_PER_S, host_ns
from tripgate.config.structs import Config, Strategy
from tripgate.messages import EventKind
from tripgate.page.layout import ROLE, ROLE_SLOTS, SLOT, STRATEGY
from tripgate.page.mapping import Page
from tripgate.processes import process_start_time

LOOK_S = 0.1
SILENT_NS = 10 * NS_PER_S
"""How long a strategy that was dropped may neither end a step nor ask the gate for anything."""
SOCKET = "TRIPGATE_SOCKET"


def key_variables(config: Config) -> frozenset[str]:
    """Return the environment variables that hold the venues' API keys, by their names."""
    references = (venue.api_key for venue in config.venues.values() if venue.api_key is not None)
    return frozenset(
        one.reveal_reference().partition(":")[2] for one in references if one.scheme == "env"
    )


def environment_of(page: Page, name: str, hidden: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the environment a strategy process gets.

    ``hidden`` is left out: strategies hold no key, which is what makes the gate their only way.

    Where to attach, whom to outlive not, and the socket of its venue's router for a strategy that
    speaks the protocol itself: ``TRIPGATE_SOCKET``, or ``TRIPGATE_SOCKET_VENUE`` for each of
    several venues (in upper case, everything but letters and digits as an underscore).
    """
    names = page.names
    inherited = {
        key: value for key, value in os.environ.items()
        if key not in hidden and not key.startswith(SOCKET)
    }  # fmt: skip
    number = names.strategies.index(name) if name in names.strategies else -1
    traded = {names.instruments[i].venue for strategy, i in names.keys if strategy == number}
    venues = [venue for venue in names.venues if venue in traded]
    many = len(venues) > 1
    variables = {venue: f"{SOCKET}_{_upper(venue)}" if many else SOCKET for venue in venues}
    return inherited | {
        "TRIPGATE_INSTANCE": names.instance,
        "TRIPGATE_STRATEGY": name,
        "TRIPGATE_TREE_PID": str(os.getpid()),
        **{variable: names.sockets[venue] for venue, variable in variables.items()},
    }


def _upper(venue: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", venue.upper())


@dataclass
class Running:
    """One run of one strategy's process."""

    spec: ChildSpec
    number: int
    process: trio.Process | None = None
    reason: str = ""
    seen: tuple[int, int] = (-1, 0)
    seen_ns: int = 0
    ended: trio.Event = field(default_factory=trio.Event)


class StrategyHolder:
    """Holds the strategies' processes for their group.

    Parameters
    ----------
    supervisor
        Whose name records and closed scopes go by.
    nursery
        Ends with the run; a process that is left in it then is ended too.
    hidden
        Environment variables that no strategy is to see.
    """

    def __init__(
        self, page: Page, strategies: dict[str, Strategy], logs: Path, supervisor: Supervisor,
        nursery: trio.Nursery, hidden: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._page = page
        self._hidden = hidden
        self._strategies = strategies
        self._logs = logs
        self._supervisor = supervisor
        self._nursery = nursery
        self._running: dict[str, Running] = {}
        self._dropped = page.rows(STRATEGY)["dropped"]
        self._breaker = page.names.role("breaker")

    def start(self, spec: ChildSpec, incarnation: int, post: Post) -> None:
        """Start a process; it is ready as soon as there is one: its lock-step waits by itself."""
        running = self._running[spec.name] = Running(spec, incarnation)
        self._nursery.start_soon(self._hold, running, post)

    def stop(self, spec: ChildSpec) -> None:
        """Let it end of itself for a while, since the page says that the run is over; then ask."""
        self._nursery.start_soon(self._ask, self._running[spec.name])

    def kill(self, spec: ChildSpec, reason: str) -> None:
        """End it at once."""
        running = self._running[spec.name]
        running.reason = running.reason or reason
        if running.process is not None and running.process.returncode is None:
            running.process.kill()

    def left_down(self, spec: ChildSpec, effect: LeftDown) -> None:
        """Take it out of the lock-step: nobody shall wait for it; a drop goes on record as one."""
        number = self._page.names.strategy(spec.name)
        self._dropped[number] = 1
        self._supervisor.left_down(spec, effect)
        if effect.gave_up:
            self._supervisor.emit(EventKind.STRATEGY_DROPPED, {
                "strategy": spec.name, "step": int(self._page.header["step"]),
                "reason": effect.reason,
            })  # fmt: skip
        self._supervisor.ring_all()

    def group_restarted(self, group: str, effect: GroupRestarted) -> None:
        """Record it as the supervisor does."""
        self._supervisor.group_restarted(group, effect)

    def close_scope(self, scope: str, reason: str) -> None:
        """Close a strategy's scope."""
        self._supervisor.close_scope(scope, reason)

    async def watch(self) -> None:
        """Kill strategies that hang. Runs for ever."""
        while True:
            for running in self._running.values():
                self._kill_if_hung(running, host_ns())
            await trio.sleep(LOOK_S)

    def _kill_if_hung(self, running: Running, now_ns: int) -> None:
        number = self._page.names.strategy(running.spec.name)
        slots: Any = self._page.rows(SLOT)[ROLE_SLOTS:]
        mine = slots[(slots["strategy"] == number) & (slots["participating"] != 0)]
        step = int(mine["step"].max(initial=-1))
        # Within a long step it is seen to live by what it asks of the gate.
        asked = mine["token_sequence"].sum() + mine["record_sequence"].sum() + mine["denied"].sum()
        seen = (step, int(asked))
        # A step is a strategy's own only once the breaker has judged it: until then it waits.
        judged = int(self._page.rows(ROLE)["step"][self._breaker])
        behind = self._dropped[number] and step < judged
        if not behind or running.seen_ns == 0 or seen != running.seen:
            running.seen, running.seen_ns = seen, now_ns
            return
        is_over = running.ended.is_set() or bool(running.reason)
        if not is_over and now_ns - running.seen_ns >= SILENT_NS:
            self.kill(running.spec, HUNG)
            if not self._is_lock_step:
                self._dropped[number] = 0

    @property
    def _is_lock_step(self) -> bool:
        return bool(self._page.header["replay"])

    async def _hold(self, running: Running, post: Post) -> None:
        name, number = running.spec.name, running.number
        command = self._strategies[name].command
        words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
        code, reason = 0, ""
        with (self._logs / f"strategy-{name}.log").open("ab") as log:
            try:
                process = running.process = await trio.lowlevel.open_process(
                    words,
                    stdin=-3,
                    stdout=log,
                    stderr=log,
                    env=environment_of(self._page, name, self._hidden),
                )
            except OSError as error:
                reason = f"cannot start {words[0]}: {error}"
                log.write(f"strategy {name!r}: {reason}\n".encode())
            else:
                self._note_started(running, process.pid)
                post(Ready(name, number))
                try:
                    code = await process.wait()
                finally:
                    await _end(process)
        running.ended.set()
        reason = running.reason or reason or exit_text(code)
        if not self._supervisor.stopping:
            self._supervisor.emit(EventKind.STRATEGY_DOWN, {
                "strategy": name, "incarnation": number, "reason": reason, "code": code,
            })  # fmt: skip
        # Who has fallen out of a lock-step has no way back into it: then its end is its last.
        is_out = running.reason == HUNG and self._is_lock_step
        failed = running.process is None or (code != 0 and not is_out)
        post(Died(name, number, reason, code, failed, draw()))

    def _note_started(self, running: Running, pid: int) -> None:
        self._supervisor.emit(EventKind.STRATEGY_STARTED, {
            "strategy": running.spec.name, "incarnation": running.number, "pid": pid,
        })  # fmt: skip
        pids = [one.process.pid for one in self._running.values() if one.process is not None]
        note_strategies(self._page.folder, {pid: process_start_time(pid) for pid in pids})

    async def _ask(self, running: Running) -> None:
        with trio.move_on_after(STRATEGY_END_WAIT_S):
            await running.ended.wait()
        if running.process is not None and running.process.returncode is None:
            running.process.terminate()


async def _end(process: trio.Process) -> None:
    """End what a cancelled run leaves: ask, wait, kill."""
    if process.returncode is not None:
        return
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(STRATEGY_END_WAIT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(STRATEGY_END_WAIT_S):
                await process.wait()
