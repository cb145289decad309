"""Strategy processes: plain programs that the tree starts, watches and ends.

They hold no key and no lease. One that fails is restarted within bounds; one that ends well has
dropped out of the lock-step. They watch the root through the client package and end when it dies.
"""

import os
import sys
from pathlib import Path

import trio

from supervisors.child_spec import ChildSpec, RestartRule
from supervisors.strategy import LeaveDown, decide
from tripgate.clock import NS_PER_S, host_ns
from tripgate.config.structs import Strategy
from tripgate.page.layout import STRATEGY
from tripgate.page.mapping import Page

END_WAIT_S = 3.0


def environment_of(page: Page, name: str) -> dict[str, str]:
    """Return the environment a strategy process gets: where to attach, and whom to outlive not."""
    return os.environ | {
        "TRIPGATE_INSTANCE": page.names.instance,
        "TRIPGATE_STRATEGY": name,
        "TRIPGATE_TREE_PID": str(os.getpid()),
    }


async def keep_strategy(page: Page, name: str, strategy: Strategy, logs: Path) -> None:
    """Run one strategy until it ends well or is cancelled."""
    spec = ChildSpec(name, "strategy", restart=RestartRule.TRANSIENT)
    number = page.names.strategies.index(name)
    command = [sys.executable if part == "python" else part for part in strategy.command[:1]]
    command += strategy.command[1:]
    deaths_s: list[float] = []
    with (logs / f"strategy-{name}.log").open("ab") as log:
        while True:
            try:
                process = await trio.lowlevel.open_process(
                    command, stdin=-3, stdout=log, stderr=log, env=environment_of(page, name)
                )
            except OSError as error:
                log.write(f"cannot start strategy {name!r}: {command[0]}: {error}\n".encode())
                page.rows(STRATEGY)["dropped"][number] = 1
                return
            try:
                code = await process.wait()
            finally:
                await _end(process)
            deaths_s.append(host_ns() / NS_PER_S)
            decision = decide(spec, deaths_s, deaths_s[-1], failed=code != 0)
            if isinstance(decision, LeaveDown) or decision.escalate:
                # Not in the lock-step any more: nobody shall wait for it.
                page.rows(STRATEGY)["dropped"][number] = 1
                return
            await trio.sleep(decision.delay_s)


async def _end(process: trio.Process) -> None:
    if process.returncode is not None:
        return
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(END_WAIT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(END_WAIT_S):
                await process.wait()
