"""Ending what a dead tree leaves: processes that were stopped cannot end themselves.

Every process of a tree watches the root and ends when it dies, within milliseconds, unless it is
stopped (SIGSTOP) or stuck in the kernel. So whoever outlives the root kills the rest: the launcher
when it sees the root gone, the root when it sees the launcher gone, and the next start in any case.
Only processes that the tree started itself are meant: actors by the page's role table, strategies
by a file beside the page. What a strategy has started is its own affair, and so is a process of the
user that attached to the page by itself.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from tripgate.errors import PageError
from tripgate.page.layout import ROLE
from tripgate.page.mapping import Page, open_page
from tripgate.processes import kill_if_same

STRATEGIES_FILE = "strategies"


def note_strategies(folder: Path, processes: Mapping[int, int]) -> None:
    """Write pid and start time of the running strategies beside the page."""
    text = "".join(f"{pid} {start_time}\n" for pid, start_time in processes.items())
    # A reader sees the old file or the new one; lost by a reboot, as the processes are.
    fresh = folder / f"{STRATEGIES_FILE}.new"
    fresh.write_text(text, encoding="ascii")
    fresh.replace(folder / STRATEGIES_FILE)


def strategies_of(folder: Path) -> dict[int, int]:
    """Return pid and start time of the strategies that the page's tree started."""
    try:
        lines = (folder / STRATEGIES_FILE).read_text(encoding="ascii").splitlines()
        return {int(pid): int(start_time) for pid, start_time in map(str.split, lines)}
    except (OSError, ValueError):
        return {}


def tree_processes(page: Page) -> dict[int, int]:
    """Return pid and start time of every process that the page's tree started itself."""
    rows = page.rows(ROLE)
    actors = {
        int(rows["pid"][number]): int(rows["start_time"][number])
        for number in range(len(page.names.roles))
        if int(rows["pid"][number]) not in (0, os.getpid())
    }
    return actors | strategies_of(page.folder)


def kill_tree(folder: Path, root_pid: int) -> int:
    """SIGKILL what is left of the tree of that root; return how many processes were.

    Nothing is touched if the page belongs to another root: there a tree may be alive.
    """
    try:
        page = open_page(folder, writable=False)
    except PageError:
        return 0
    if int(page.header["owner_pid"]) != root_pid:
        return 0
    processes = tree_processes(page).items()
    return sum(kill_if_same(pid, start_time, signal.SIGKILL) for pid, start_time in processes)
