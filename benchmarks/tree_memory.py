"""What a tree needs of memory: proportional set sizes, so that shared pages count once.

A run's processes carry its page folder in their environment, whoever their parent has become.
"""

from pathlib import Path
from typing import Any

from benchmarks.runs import Place
from tripgate.page.layout import ROLE
from tripgate.page.mapping import Page

MEGABYTE_KB = 1_000
VENUE_MODULE = b"exchange_adapters.simulator.process"
ZYGOTE_MODULE = b"actors.zygote"
STRATEGY_MODULE = b"tripgate.demo"
LAUNCHER_WORD = b"tripgate\0paper"


def pss_kb(pid: int) -> int:
    """Return the proportional set size of a process, kB; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def memory_of(here: Place, page: Page) -> dict[str, Any]:
    """Return MB by part: the tree (root, actors, their makers), venue, strategies, launcher."""
    names = {
        int(pid): role.text
        for role, pid in zip(page.names.roles, page.rows(ROLE)["pid"], strict=False)
        if pid
    }
    names[int(page.header["owner_pid"])] = "root"
    parts = {"tree": 0, "venue": 0, "strategies": 0, "launcher": 0}
    members: dict[str, float] = {}
    for pid, command in _processes(here).items():
        size_kb = pss_kb(pid)
        part = _part(command)
        parts[part] += size_kb
        if part == "tree":
            name = names.get(pid, "zygote" if ZYGOTE_MODULE in command else "helper")
            members[name] = round(members.get(name, 0) + size_kb / MEGABYTE_KB, 1)
    return {
        "members_mb": members,
        **{f"{part}_mb": round(size_kb / MEGABYTE_KB, 1) for part, size_kb in parts.items()},
    }


def tree_pids(here: Place) -> list[int]:
    """Return the pids of a run that may not outlive its root: the tree's and its strategies'."""
    return [
        pid
        for pid, command in _processes(here).items()
        if command and _part(command) in ("tree", "strategies")
    ]


def _part(command: bytes) -> str:
    if VENUE_MODULE in command:
        return "venue"
    if STRATEGY_MODULE in command:
        return "strategies"
    return "launcher" if LAUNCHER_WORD in command else "tree"


def _processes(here: Place) -> dict[int, bytes]:
    mark = f"TRIPGATE_SHM={here.environment['TRIPGATE_SHM']}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # ended while we looked, or belongs to somebody else
    return found
