"""An entry module for tests of the seam: one ``serve`` with the tasks that a test may ask of it.

Like every entry module it holds nothing else that could be called.
"""

import contextlib
import os
import signal
import threading
from typing import Any

import trio

from actors import runtime

FLOOD_FRAME = b"x" * 200_000


def links() -> dict[str, str]:
    """Return what each open descriptor is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def comm() -> str:
    """Return the name under which the kernel knows this process."""
    with open("/proc/self/comm", encoding="utf-8") as file:
        return file.read().strip()


@runtime.actor_context
async def serve(ctx: runtime.Context, task: str) -> Any:
    """Report what this process is like, then do a task."""
    await ctx.started({
        "pid": os.getpid(), "parent": os.getppid(), "links": links(), "comm": comm(),
        "threads": [thread.name for thread in threading.enumerate()],
        "interrupt": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    })  # fmt: skip
    if task == "flood":
        async with ctx.open_stream() as stream:
            while True:
                await stream.send(FLOOD_FRAME)
    if task == "return":
        return 7
    if task == "fail":
        raise ValueError("asked to fail")
    await trio.sleep_forever()


async def not_on_the_list() -> str:
    """Stand for a function that somebody put into an entry module by mistake."""
    return "called"
