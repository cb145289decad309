"""Real small processes in the place of actors: what the supervisor promises, it promises of any.

Only tractor is left out: ``Nursery.open_child`` stands for ``runtime.open_child`` and starts
``sleep``. Whole trees are started in ``tests/tree``.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from actors import runtime
from supervisors.child_spec import ChildSpec
from supervisors.supervisor import Supervisor
from tests.tree_fixtures import until
from tripgate.page.mapping import Page

BREAKER = ChildSpec("breaker", "breaker", back_off_s=0.01)
FEED = ChildSpec("market_feed(sim)", "market_feed", "sim", intensity_max=1, back_off_s=0.01)


class Context:
    """The call that an actor's life is; it ends when the test says so."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.error: Exception | None = None

    async def result(self) -> None:
        await self.over.wait()
        if self.error is not None:
            raise self.error


@dataclass
class Nursery:
    """Hands out processes as tractor would, and remembers what it was asked for."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    children: list[runtime.Child] = field(default_factory=list)
    fails: bool = False
    stays_silent: bool = False
    is_stuck: bool = False

    @asynccontextmanager
    async def open_child(
        self,
        name: str,
        arguments: dict[str, Any],
        on_spawn: Callable[[runtime.Process], None],
        on_end: Callable[[BaseException | None], None],
        entry: str,
    ) -> AsyncIterator[runtime.Child]:
        self.asked.append((name, arguments))
        assert entry == "actors.entry"
        if self.fails:
            raise runtime.ChildStartError("no process to be had")
        process = await trio.lowlevel.open_process(["sleep", "600"])
        try:
            on_spawn(process)
            if self.stays_silent:
                await trio.sleep_forever()
            child = runtime.Child(process.pid, process, Context(), {})
            self.children.append(child)
            yield child
        finally:
            on_end(sys.exception())
            with trio.CancelScope(shield=True):
                if process.returncode is None and not self.is_stuck:
                    process.kill()
                await process.wait()

    async def child(self, number: int) -> runtime.Child:
        """Return the n-th child once it has started."""
        await until(lambda: len(self.children) > number)
        return self.children[number]


@asynccontextmanager
async def keeping(page: Page, *specs: ChildSpec, watch: bool = False) -> AsyncIterator[Supervisor]:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {"speed": 1.0}, nursery)
        for spec in specs:
            nursery.start_soon(supervisor.keep, spec, trio.Event())
        if watch:
            nursery.start_soon(supervisor.watch)
        yield supervisor
        supervisor.stopping = True
        nursery.cancel_scope.cancel()
    supervisor.close()


def kept(page: Page, spec: ChildSpec = BREAKER) -> AbstractAsyncContextManager[Supervisor]:
    return keeping(page, spec)
