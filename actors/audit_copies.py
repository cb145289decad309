"""The audit writer's copies of the heads: files on other disks, which must never hold it up.

Each copy has a task and a thread of its own. What a copy cannot take at once is not queued: the
newest head tells of everything before it. A copy that fails is recorded once, tried again at every
checkpoint, and recorded once more when it works again; the log goes on meanwhile.
"""

from pathlib import Path
from typing import Any

import trio

from actors.service import Service
from tripgate.audit.heads import Checkpoint, HeadsCopy
from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_MS, host_ns
from tripgate.config.reader import parse_config
from tripgate.logs import Log
from tripgate.messages import EventKind

FINISH_S = 1.0
"""How long an orderly end waits for the last head to reach the copies."""


class Copies:
    """The copies that the config names.

    Raises
    ------
    ConfigError
        A copy would be the original, or lie beside it.
    """

    def __init__(self, service: Service, diary: Log) -> None:
        self._service = service
        self._diary = diary
        text = service.settings.get("config_text")
        # A tree that is given no config names no copies.
        paths = (
            parse_config(text, service.settings["config_name"]).audit.heads_copies if text else ()
        )
        self._copies = [HeadsCopy(Path(path)) for path in paths]
        self._newest: Checkpoint | None = None
        self._offered = trio.Event()
        self._failed_ns: dict[Path, int] = {}
        self._busy: set[Path] = set()

    def offer(self, checkpoint: Checkpoint) -> None:
        """Let every copy take a checkpoint when it can; an older one not taken yet is dropped."""
        self._newest = checkpoint
        self._offered.set()
        self._offered = trio.Event()

    async def serve(self) -> None:
        """Write what is offered, for ever."""
        async with trio.open_nursery() as nursery:
            for copy in self._copies:
                nursery.start_soon(self._keep, copy)

    async def finish(self, last: Checkpoint | None) -> None:
        """Give the copies the last head, within a bound: the tree's end waits for us."""
        if last is None or not self._copies:
            return
        with trio.move_on_after(FINISH_S) as scope:
            scope.shield = True
            # A thread that still waits for a disk has its file to itself.
            for copy in (copy for copy in self._copies if copy.path not in self._busy):
                await _append(copy, last)
                copy.close()

    async def _keep(self, copy: HeadsCopy) -> None:
        written: Checkpoint | None = None
        while True:
            offered = self._offered
            if self._newest is None or self._newest is written:
                await offered.wait()
                continue
            written = self._newest
            self._busy.add(copy.path)
            problem = await _append(copy, written)
            self._busy.discard(copy.path)
            self._note(copy.path, problem)

    def _note(self, path: Path, problem: str | None) -> None:
        was_ns = self._failed_ns.get(path)
        place = {"part": "heads copy", "file": str(path)}
        if problem is not None and was_ns is None:
            self._failed_ns[path] = host_ns()
            self._diary.error("a copy of the heads cannot be written", **place, reason=problem)
            self._emit(EventKind.AUDIT_FAILED, {**place, "reason": problem})
        elif problem is None and was_ns is not None:
            del self._failed_ns[path]
            outage_ms = (host_ns() - was_ns) // NS_PER_MS
            self._diary.info("a copy of the heads is written again", **place, outage_ms=outage_ms)
            self._emit(EventKind.AUDIT_RECOVERED, {**place, "outage_ms": outage_ms})

    def _emit(self, kind: EventKind, body: dict[str, object]) -> None:
        # Where the ring is full, the diary has it.
        self._service.ring.append(int(kind), pack_body(body), host_ns(), self._service.market_ms)


async def _append(copy: HeadsCopy, checkpoint: Checkpoint) -> str | None:
    """Write in a thread that a cancellation leaves to itself: a dead mount must not hold the end.

    The separate stubs for this release of trio do not know its parameter's name.
    """
    run: Any = trio.to_thread.run_sync
    problem: str | None = await run(copy.append, checkpoint, abandon_on_cancel=True)
    return problem
