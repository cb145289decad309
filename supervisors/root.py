"""The root of a tree: makes the page, starts the children, arms the gate, ends the run in order.

Runs in the process that ``supervisors.start`` began.
It owns the instance lock. It ends when its launcher dies, as every process here ends with its
parent: then nothing is orderly and the next start says so.

Order of a start: lock, old page closed and frozen, its rings put into the log, epoch raised, page
made closed, the old one's tables taken over, groups of children started side by side and ready,
leases live, gate armed, strategies started. Order of an end: gate closed, strategies ended, log
drained, venues' actors ended, then the core's with the audit_writer last, marker written.
An armed tree ends by its operator, with its plan (feed or duration over), or after EMERGENCY once
it was observed flat; no death and no escalation ends it.
"""

import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from actors import runtime
from actors.spawner import KERNEL_MODULES, Spawner
from exchange_adapters.local_venue import open_local_venue
from supervisors.carry_over import CarryOver, carry_over, close_old_page, note_ended
from supervisors.exposure import is_flat
from supervisors.group import GroupTask
from supervisors.kept_limits import KeptLimit, keep_tighter_limits
from supervisors.page_setup import VenueFacts, make_page
from supervisors.shadow import fix_mode, require_simulated
from supervisors.strategies import StrategyHolder, key_variables
from supervisors.supervisor import SUPERVISOR_ROLE, Supervisor
from supervisors.take_over import find_old_page, store_old_rings, supersede, take_tables
from supervisors.tree import CORE, groups_of, strategies_group
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
from tripgate.page.layout import ACCOUNT, LEASE, ROLE, SLOT, WATERMARK
from tripgate.page.level import bump_generation, node_level
from tripgate.page.mapping import Page
from tripgate.page.terms import sheet
from tripgate.reasons import Level

START_WAIT_S = 120.0
DRAIN_WAIT_S = 10.0
STRATEGIES_END_WAIT_S = 10.0
"""More than a strategy's own grace: it ends of itself, or by SIGTERM, or is killed."""
CHILDREN_END_WAIT_S = 30.0
POLL_S = 0.02
EMERGENCY_EXIT_CODE = 14


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
        self,
        page: Page,
        config: Config,
        settings: dict[str, Any],
        kept: Sequence[KeptLimit] = (),
        spawner: Spawner | None = None,
    ) -> None:
        self._page = page
        self._config = config
        self._settings = settings
        self._kept = kept
        self._spawner = spawner
        self._state = Path(page.names.state_folder)
        self._stop = trio.Event()
        self.reason = ""
        take_role_slot(page, SUPERVISOR_ROLE, page.epoch)

    async def run(self) -> int:
        """Run the tree until it is over and return the exit code."""
        async with runtime.open_tree("root", self._spawner), trio.open_nursery() as nursery:
            supervisor = Supervisor(self._page, self._settings, nursery)
            supervisor.log.info("root runs", state=str(self._state))
            self._record_start(supervisor)
            nursery.start_soon(self._await_signals)
            nursery.start_soon(supervisor.watch)
            async with trio.open_nursery() as strategies:
                group = None
                if await self._start_children(supervisor):
                    await self._arm(supervisor)
                    group = self._start_strategies(supervisor, strategies)
                    await self._await_end()
                code = await self._close(supervisor, group)
                strategies.cancel_scope.cancel()
            await self._end_children(supervisor)
            nursery.cancel_scope.cancel()
        supervisor.log.info("root ends", reason=self.reason, code=code)
        supervisor.close()
        return code

    def _start_strategies(self, supervisor: Supervisor, nursery: trio.Nursery) -> GroupTask:
        logs = self._state / "logs"
        holder = StrategyHolder(
            self._page, self._config.strategies, logs, supervisor, nursery,
            key_variables(self._config),
        )  # fmt: skip
        group = GroupTask(strategies_group(self._page.names), holder)
        nursery.start_soon(holder.watch)
        nursery.start_soon(group.run)
        return group

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
        for body in sheet(self._page):
            supervisor.emit(EventKind.LIMITS_IN_FORCE, body)
        # What was taken over goes on record: a later start must find it in the log.
        for node, scope in enumerate(self._page.names.scopes):
            if level := node_level(self._page, node):
                supervisor.emit(EventKind.LEVEL_CHANGED, {
                    "scope": scope, "level": level.name, "before": Level.NORMAL.name,
                    "cause": "recovered",
                })  # fmt: skip
        for limit in self._kept:
            supervisor.emit(EventKind.LIMITS_CHANGED, limit.to_body())

    async def _start_children(self, supervisor: Supervisor) -> bool:
        """Start the groups side by side; return whether all are ready, False if asked to end."""
        for spec in groups_of(self._page.names.roles):
            supervisor.add(spec)

        def is_settled() -> bool:
            ready = all(task.ready.is_set() for task in supervisor.groups.values())
            return self._stop.is_set() or (ready and self._all_leases_live())

        try:
            with trio.fail_after(START_WAIT_S):
                await self._until(is_settled)
        except trio.TooSlowError:
            raise DeadlineError(
                f"the tree was not ready within {START_WAIT_S:.0f} s: "
                f"{self._what_lacks(supervisor)}; see {self._state / 'logs'}"
            ) from None
        return not self._stop.is_set()

    def _what_lacks(self, supervisor: Supervisor) -> str:
        """Say which actor is not ready and what ended it last, or whose lease is not live."""
        lacking = {
            name: reason
            for task in supervisor.groups.values()
            for name, reason in task.unready().items()
        }
        deadlines = self._page.rows(LEASE)["deadline_ns"]
        for number, role in enumerate(self._page.names.roles):
            if role.critical and int(deadlines[number]) <= host_ns():
                lacking.setdefault(role.text, "its lease is not live")
        return ", ".join(f"{name} ({reason})" for name, reason in lacking.items())

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
        if acts and node_level(self._page, 0) is Level.EMERGENCY and is_flat(self._page):
            self.reason = "emergency, flat"
            return True
        return False

    async def _close(self, supervisor: Supervisor, strategies: GroupTask | None) -> int:
        header = self._page.header
        header["closed"] = 1
        bump_generation(self._page)
        header["ended"] = 1
        supervisor.ring_all()
        if strategies is not None:
            strategies.stop()
            with trio.move_on_after(STRATEGIES_END_WAIT_S):
                await strategies.down.wait()
        level = max(node_level(self._page, n) for n in range(len(self._page.names.scopes)))
        supervisor.emit(EventKind.RUN_ENDED, {"reason": self.reason, "level": level.name})
        return EMERGENCY_EXIT_CODE if level is Level.EMERGENCY else 0

    async def _end_children(self, supervisor: Supervisor) -> None:
        """End the actors: venues first, since the core writes down what they still have to say."""
        with trio.move_on_after(DRAIN_WAIT_S):
            await self._until(self._is_drained)
        self._page.header["armed"] = 0
        supervisor.stopping = True
        core = supervisor.groups.pop(CORE)
        with trio.move_on_after(CHILDREN_END_WAIT_S):
            for task in supervisor.groups.values():
                task.stop()
            for task in supervisor.groups.values():
                await task.down.wait()
            core.stop()
            await core.down.wait()

    def _is_drained(self) -> bool:
        sequences = self._page.rows(SLOT)["record_sequence"]
        return bool((self._page.rows(WATERMARK)["sequence"] >= sequences).all())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - words that other processes write give no event
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


def run_instance(settings: dict[str, Any], spawner: Spawner) -> int:
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
        # At the very first start it had to wait for the kernels; else it runs already.
        spawner.start()
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
        code = trio.run(Run(page, config, settings, kept, spawner).run)
        note_ended(state, epoch)
    return code


def run(settings: dict[str, Any], spawner: Spawner) -> int:
    """Run one instance's tree and return the exit code; what is wrong is said on stderr."""
    try:
        return run_instance(settings, spawner)
    except TripgateError as error:
        print(f"tripgate: {error}", file=sys.stderr)
        return error.exit_code
