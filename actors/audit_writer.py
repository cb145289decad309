"""audit_writer: drains every ring into the hash-chained log and publishes what is durable.

Reads: all rings, the operator's file.
Sends: rings the routers' bells after each commit.
Sole writer of: the audit cursors and watermarks; the log, its heads and their copies.
Lease: 1 s; while it is lapsed, openings are denied everywhere.
State after restart: from the log itself; what was drained twice is stored once.

A disk that fails does not end the actor: it gives its lease up, leaves the records in the rings and
tries again, later each time; a file that a commit failed on is never written again. A disk that
hangs is waited for in a thread, while the task beside it lets the lease go.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from actors.audit_copies import Copies
from actors.audit_rings import Drain, is_awaited, row_of
from actors.service import Service
from tripgate.audit.drain import BATCH_ROWS_MAX
from tripgate.audit.record import pack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns
from tripgate.errors import ChainBrokenError, StateUnwritableError
from tripgate.logs import Log
from tripgate.machines.log_health import LogHealth, failed, needs_proof, proved, why_not_vouch
from tripgate.messages import EventKind
from tripgate.page.layout import ROLE

__all__ = ["AuditWriter", "Drain", "row_of", "run"]

GROUP_NS = 5 * NS_PER_MS
"""Rows that nobody waits for are committed together, at most this often."""
CHECKPOINT_NS = NS_PER_S
WATCH_S = 0.02
REFUSALS = (StateUnwritableError, ChainBrokenError)
"""What a failing disk, or a folder that somebody moved, makes of the opening of a log."""

Result = TypeVar("Result")


class AuditWriter:
    """Keeps the log written and the lease true; one write at a time, each in a thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._state = Path(service.names.state_folder)
        self._role: Any = service.page.rows(ROLE)[service.role]
        self._drain: Drain | None = None
        self._failed: LogWriter | None = None
        self._health = LogHealth()
        self._committed_ns = self._checkpoint_ns = self._checkpointed = 0
        self._diary: Log = service.log
        self.copies = Copies(service, self._diary)

    async def open(self) -> None:
        """Open the log. Raises what ``LogWriter`` raises."""
        began_ns = self._service.now_ns()
        folders = self._state / "audit", self._state / "heads"
        log = await trio.to_thread.run_sync(LogWriter, *folders)
        self._drain, self._failed = Drain(self._service, log), None
        self._checkpointed = log.head.sequence
        self._health = proved(self._health, began_ns, self._service.now_ns())

    async def work(self) -> None:
        """Store what is there, prove the disk when there is nothing; until the orderly end.

        Asked to stop, it goes on until nothing is left, or the disk refuses it.
        """
        while True:
            now_ns, drain = self._service.now_ns(), self._drain
            if drain is None and self._service.stopping.is_set():
                return
            if drain is None:
                await trio.sleep(max(0, self._health.retry_ns - now_ns) / NS_PER_S)
                await self._reopen()
                continue
            if now_ns - self._checkpoint_ns >= CHECKPOINT_NS:
                self._checkpoint_ns = now_ns
                await self._checkpoint(drain)
                continue
            drain.take_operator_records()
            frames = drain.gather()
            left_ns = self._committed_ns + GROUP_NS - now_ns
            if frames and (left_ns <= 0 or len(frames) >= BATCH_ROWS_MAX or is_awaited(frames)):
                self._committed_ns = now_ns
                if await self._write(drain, partial(drain.store, frames)):
                    drain.publish(frames)
                    self._tell_damage(drain)
            elif needs_proof(self._health, now_ns):
                await self._write(drain, drain.log.probe)
            elif frames:
                await self._service.turn(left_ns / NS_PER_S)
            elif self._service.stopping.is_set():
                return
            else:
                await self._service.turn()

    async def watch(self) -> None:
        """Renew or give up the lease by what is known, for ever; waits for no disk."""
        while True:
            self._vouch()
            await trio.sleep(WATCH_S)

    async def close(self) -> None:
        """Note the head and close, if the disk lets us."""
        if self._drain is None:
            return
        try:
            last = self._drain.log.close()
        except StateUnwritableError as error:
            self._diary.error("the last checkpoint was refused", reason=str(error))
        else:
            await self.copies.finish(last)

    def _vouch(self) -> None:
        now_ns, lease = self._service.now_ns(), self._service.lease
        oldest_ns = None if self._drain is None else self._drain.oldest_tree_ns()
        why_not = why_not_vouch(self._health, oldest_ns, lease.lease_ns, now_ns)
        if why_not is None:
            lease.renew(self._health.proved_ns)
            return
        if not self._role["stale"]:
            self._diary.warning("openings stop", reason=why_not)
        lease.give_up_stale()

    async def _checkpoint(self, drain: Drain) -> None:
        head = drain.log.head.sequence
        if head != self._checkpointed:
            wrote: list[Any] = []
            if await self._write(drain, lambda: wrote.append(drain.checkpoint())):
                self._checkpointed = head
                self.copies.offer(wrote[0])

    async def _write(self, drain: Drain, act: Callable[[], object]) -> bool:
        """Do one write; return whether it succeeded. If not, the log is to be opened anew."""
        began_ns = self._service.now_ns()
        try:
            await trio.to_thread.run_sync(act)
        except StateUnwritableError as error:
            self._failed, self._drain = drain.log, None
            self._fail(error)
            return False
        self._health = proved(self._health, began_ns, self._service.now_ns())
        self._vouch()
        return True

    async def _reopen(self) -> None:
        before = self._health
        try:
            if self._failed is not None:
                await trio.to_thread.run_sync(self._failed.retire)
            await self.open()
        except REFUSALS as error:
            self._fail(error)
            return
        self._vouch()
        if before.failed_ns is None or self._drain is None:
            return
        outage_ms = (self._service.now_ns() - before.failed_ns) // NS_PER_MS
        self._diary.info("the log is written again", outage_ms=outage_ms)
        # Not before now: a record of the outage could not have been stored while it lasted.
        place = {"part": "log", "file": self._drain.log.path.name}
        self._emit(EventKind.AUDIT_FAILED, {**place, "reason": before.reason})
        told = {**place, "outage_ms": outage_ms, "attempts": before.attempts}
        self._emit(EventKind.AUDIT_RECOVERED, told)

    def _tell_damage(self, drain: Drain) -> None:
        for slot, reason in drain.rings.newly_damaged():
            self._diary.error("a ring is read no more", slot=slot, reason=reason)
            self._emit(EventKind.RING_DAMAGED, {"slot": slot, "reason": reason})

    def _fail(self, error: Exception) -> None:
        self._health = failed(self._health, str(error), self._service.now_ns())
        self._vouch()
        attempts = self._health.attempts
        self._diary.error("the log cannot be written", reason=str(error), attempts=attempts)

    def _emit(self, kind: EventKind, body: dict[str, Any]) -> None:
        """Record an event of the writer's own; where its ring is full, the diary has it."""
        self._service.ring.append(int(kind), pack_body(body), host_ns(), self._service.market_ms)


async def run(service: Service) -> None:
    """Store what is there for as long as the tree runs."""
    writer = AuditWriter(service)
    try:
        # A log that cannot be begun at all is the launcher's to report, with its exit code.
        if service.incarnation == 1:
            await writer.open()
        await service.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.watch)
            nursery.start_soon(writer.copies.serve)
            await writer.work()
            nursery.cancel_scope.cancel()
    finally:
        await writer.close()
