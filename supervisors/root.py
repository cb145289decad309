"""The root of a tree: makes the page, starts the children, arms the gate, ends the run in order.

``python -m supervisors.root SETTINGS.json`` (started by the ``paper`` launcher, never by hand).
It owns the instance lock. It ends when its launcher dies, as every process here ends with its
parent: then nothing is orderly and the next start says so.

Order of a start: lock, old page closed and frozen, its rings put into the log, epoch raised, page
made closed, the old one's tables taken over, children ready, leases live, gate armed, strategies
started. Order of an end: gate closed, strategies ended, log drained,
children ended, marker written.
"""

import importlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from actors import runtime
from exchange_adapters.local_venue import open_local_venue
from supervisors.carry_over import CarryOver, carry_over, close_old_page, note_ended
from supervisors.kept_limits import KeptLimit, keep_tighter_limits
from supervisors.page_setup import VenueFacts, make_page
from supervisors.shadow import fix_mode, require_simulated
from supervisors.strategies import keep_strategy
from supervisors.supervisor import SUPERVISOR_ROLE, Supervisor
from supervisors.take_over import find_old_page, store_old_rings, supersede, take_tables
from supervisors.tree import children_of
from supervisors.unfinished import restore_orders
from tripgate.audit.numbers import number_rows
from tripgate.clock import host_ns
from tripgate.config.reader import load_text
from tripgate.config.structs import Config
from tripgate.errors import DeadlineError, TripgateError
from tripgate.gate.slots import take_role_slot
from tripgate.instance import InstanceLock, next_epoch, state_folder
from tripgate.messages import SCHEMA_VERSION, EventKind
from tripgate.operator_file import read_records
from tripgate.page.kernel_cache import is_compiled, mark_compiled
from tripgate.page.layout import ACCOUNT, KEY, LEASE, ROLE, SLOT, WATERMARK
from tripgate.page.level import bump_generation, node_level
from tripgate.page.mapping import Page
from tripgate.processes import exit_with
from tripgate.reasons import Level

START_WAIT_S = 120.0
DRAIN_WAIT_S = 10.0
STRATEGIES_END_WAIT_S = 3.0
POLL_S = 0.02
EMERGENCY_EXIT_CODE = 14
KERNEL_MODULES = ("tripgate.gate.check", "tripgate.gate.settle", "tripgate.page.board")


async def read_facts(config: Config, sockets: dict[str, str]) -> dict[str, VenueFacts]:
    """Ask each venue for its markets and its clock."""
    facts = {}
    for name in config.venues:
        async with open_local_venue(Path(sockets[name])) as venue:
            hello = await venue.hello()
            facts[name] = VenueFacts(
                await venue.markets(), hello.starting_equity_money, hello.step_ms, hello.market_ms
            )
    return facts


class Run:
    """One run of one tree, from the made page to its end."""

    def __init__(
        self, page: Page, config: Config, settings: dict[str, Any], kept: Sequence[KeptLimit] = ()
    ) -> None:
        self._page = page
        self._config = config
        self._settings = settings
        self._kept = kept
        self._state = Path(page.names.state_folder)
        self._stop = trio.Event()
        self.reason = ""
        take_role_slot(page, SUPERVISOR_ROLE, page.epoch)

    async def run(self) -> int:
        """Run the tree until it is over and return the exit code."""
        async with runtime.open_tree("root"), trio.open_nursery() as nursery:
            supervisor = Supervisor(self._page, self._settings, nursery)
            self._record_start(supervisor)
            nursery.start_soon(self._await_signals)
            await self._start_children(supervisor, nursery)
            await self._arm(supervisor)
            async with trio.open_nursery() as strategies:
                logs = self._state / "logs"
                for name, strategy in self._config.strategies.items():
                    strategies.start_soon(keep_strategy, self._page, name, strategy, logs)
                await self._await_end()
                code = await self._close(supervisor, strategies)
            supervisor.stopping = True
            await self._end_children(supervisor, nursery)
        supervisor.close()
        return code

    def _record_start(self, supervisor: Supervisor) -> None:
        supervisor.emit(EventKind.RUN_STARTED, {
            "schema": SCHEMA_VERSION, "epoch": self._page.epoch,
            "instance": self._page.names.instance, "config_sha256": self._settings["config_sha256"],
            "feed": self._settings["feed"], "seed": self._settings["seed"],
            "orderly": self._settings["orderly"], "page_kept": self._settings["page_kept"],
            "shadow": bool(self._page.header["shadow"]),
        })  # fmt: skip
        for body in number_rows(self._page.names):
            supervisor.emit(EventKind.NUMBERS_ASSIGNED, body)
        # What was taken over goes on record: a later start must find it in the log.
        for node, scope in enumerate(self._page.names.scopes):
            if level := node_level(self._page, node):
                supervisor.emit(EventKind.LEVEL_CHANGED, {
                    "scope": scope, "level": level.name, "before": Level.NORMAL.name,
                    "cause": "recovered",
                })  # fmt: skip
        for limit in self._kept:
            supervisor.emit(EventKind.LIMITS_CHANGED, limit.to_body())

    async def _start_children(self, supervisor: Supervisor, nursery: trio.Nursery) -> None:
        nursery.start_soon(supervisor.watch)
        readies = []
        for spec in children_of(self._page.names.roles):
            ready = trio.Event()
            readies.append(ready)
            nursery.start_soon(supervisor.keep, spec, ready)
        try:
            with trio.fail_after(START_WAIT_S):
                for ready in readies:
                    await ready.wait()
                await self._until(self._all_leases_live)
        except trio.TooSlowError:
            raise DeadlineError(
                f"the tree was not ready within {START_WAIT_S:.0f} s: see {self._state / 'logs'}"
            ) from None

    def _all_leases_live(self) -> bool:
        deadlines = self._page.rows(LEASE)["deadline_ns"]
        roles = self._page.names.roles
        return all(int(deadlines[n]) > host_ns() for n, role in enumerate(roles) if role.critical)

    async def _arm(self, supervisor: Supervisor) -> None:
        header = self._page.header
        header["closed"], header["armed"] = 0, 1
        supervisor.ring_all()
        supervisor.emit(EventKind.ARMED, {"epoch": self._page.epoch})

    async def _await_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.reason = self.reason or f"signal {signal.Signals(number).name}"
                self._stop.set()

    async def _await_end(self) -> None:
        duration_s = float(self._settings["duration_s"]) or float("inf")
        with trio.move_on_after(duration_s):
            await self._until(self._is_over)
        self.reason = self.reason or "duration"

    def _is_over(self) -> bool:
        if self._stop.is_set():
            return True
        if self._page.header["feed_finished"]:
            self.reason = "feed finished"
            return True
        # On a shadow page nothing is closed, and nothing ends, but what the feed ends.
        acts = not self._page.header["shadow"]
        if acts and node_level(self._page, 0) is Level.EMERGENCY and self._is_flat():
            self.reason = "emergency, flat"
            return True
        return False

    def _is_flat(self) -> bool:
        held = any(int(word) >> 32 for word in self._page.rows(KEY)["closable"])
        routers = [n for n, role in enumerate(self._page.names.roles) if role.actor == "router"]
        reads = self._page.rows(ROLE)["account_reads"][routers]
        flat = self._page.rows(ROLE)["account_flat"][routers]
        return not held and bool(flat.all()) and bool((reads >= 2).all())

    async def _close(self, supervisor: Supervisor, strategies: trio.Nursery) -> int:
        header = self._page.header
        header["closed"] = 1
        bump_generation(self._page)
        header["ended"] = 1
        supervisor.ring_all()
        with trio.move_on_after(STRATEGIES_END_WAIT_S):
            await self._until(lambda: not strategies.child_tasks)
        strategies.cancel_scope.cancel()
        level = max(node_level(self._page, n) for n in range(len(self._page.names.scopes)))
        supervisor.emit(EventKind.RUN_ENDED, {"reason": self.reason, "level": level.name})
        return EMERGENCY_EXIT_CODE if level is Level.EMERGENCY else 0

    async def _end_children(self, supervisor: Supervisor, nursery: trio.Nursery) -> None:
        with trio.move_on_after(DRAIN_WAIT_S):
            await self._until(self._is_drained)
        self._page.header["armed"] = 0
        nursery.cancel_scope.cancel()

    def _is_drained(self) -> bool:
        sequences = self._page.rows(SLOT)["record_sequence"]
        return bool((self._page.rows(WATERMARK)["sequence"] >= sequences).all())

    async def _until(self, condition: Callable[[], bool]) -> None:
        # Conditions are words that other processes write: there is no event to wait on.
        async for _ in _polls():
            if condition():
                return


async def _polls() -> AsyncIterator[None]:
    while True:
        yield
        await trio.sleep(POLL_S)


def restore_past(page: Page, past: CarryOver, state: Path) -> None:
    """Write into a new page the high-water marks and which operators' records were acted on."""
    read = newest = past.operator_read
    for record in read_records(state, read):
        newest = int(record["id"])
    page.rows(ROLE)["operator_read"] = read
    page.header["operator_sequence"] = newest
    rows = page.rows(ACCOUNT)
    for scope, mark in past.high_water_marks.items():
        if scope in page.names.scopes:
            node = page.names.scope(scope)
            rows["high_water_mark"][node] = max(int(rows["high_water_mark"][node]), mark)


def compile_kernels() -> None:
    """Compile every kernel once, here, before five children would all compile the same ones."""
    if not is_compiled():
        for module in KERNEL_MODULES:
            importlib.import_module(module)
        mark_compiled()


def run_instance(settings: dict[str, Any]) -> int:
    """Run one instance's tree in this process; return the exit code."""
    instance = settings["instance"]
    config = load_text(settings["config_text"], settings["config_name"], {}).config
    shadow = bool(settings["shadow"])
    if shadow:
        require_simulated(config)
    with InstanceLock(instance):
        state = state_folder(instance)
        fix_mode(state, shadow=shadow)
        compile_kernels()
        levels = close_old_page(instance)
        old = find_old_page(instance)
        if old is not None:
            stored = store_old_rings(old, state)
            for slot in stored.damaged:
                print(f"tripgate: records of slot {slot} of the last run are lost", file=sys.stderr)
        epoch = next_epoch(state)
        past = carry_over(state, epoch - 1, levels)
        settings["orderly"] = past.orderly
        facts = trio.run(read_facts, config, settings["venue_sockets"])
        page = make_page(config, instance, epoch, facts, past.levels, shadow=shadow)
        restore_past(page, past, state)
        settings["page_kept"] = old is not None and not past.orderly and take_tables(old, page)
        if not past.orderly and not settings["page_kept"]:
            restore_orders(page, state / "audit")
        kept = keep_tighter_limits(page, state)
        page.set_complete()
        if old is not None:
            supersede(old, epoch)
        code = trio.run(Run(page, config, settings, kept).run)
        note_ended(state, epoch)
    return code


def main() -> int:
    """Entry point of the root process."""
    launcher = int(sys.argv[2])
    exit_with(launcher)
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        return run_instance(settings)
    except TripgateError as error:
        print(f"tripgate: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
