"""The nursery: a warm process that forks members, so that a successor lives within milliseconds.

Loading compiled kernels takes a second, more than a storm gives its members to live. The nursery
loads them once and forks; it answers each line ``ROLE NUMBER SEED MUTANT`` on its standard input
with the child's pid. It has a single thread and reaps nobody: the kernel does (SIGCHLD ignored).
When its input ends, because the driver has died or is done, it kills what is left.
"""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Protocol

from chaos.storm.client import Client
from chaos.storm.desk import Desk
from chaos.storm.ground import Ground
from chaos.storm.guard import Guard
from chaos.storm.watch import Reporter
from tripgate.gate.fastcall import route
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with, kill_if_same, process_start_time

REPAIR_LEFT_OUT = "repair-left-out"
CLIENT_UNDERSTATES = "client-understates"
MUTANTS = (REPAIR_LEFT_OUT, CLIENT_UNDERSTATES)
"""Planted bugs, each of which a storm must find."""
NONE = "none"


class Member(Protocol):
    """Anything that acts on the page in turns."""

    def turn(self) -> None:
        """Do a little."""


def make_member(page: Page, role: str, number: int, seed: int, mutant: str) -> Member:
    """Return a member.

    Parameters
    ----------
    role
        ``desk``, ``breaker`` or ``client``.
    number
        A client's strategy; a desk's incarnation.
    """
    ground = Ground(page)
    if role == "desk":
        return Desk(
            ground, Reporter(page.folder), incarnation=number, seed=seed,
            repairs=mutant != REPAIR_LEFT_OUT,
        )  # fmt: skip
    if role == "breaker":
        return Guard(ground, seed)
    return Client(page, number, seed, understates=mutant == CLIENT_UNDERSTATES)


def live(page: Page, role: str, number: int, seed: int, mutant: str) -> None:
    """Act until the page says that the storm has ended."""
    member = make_member(page, role, number, seed, mutant)
    while not page.header["ended"]:
        member.turn()


def _fork(page: Page, line: str) -> int:
    role, number, seed, mutant = line.split()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        exit_with(parent)
        live(page, role, int(number), int(seed), mutant)
    except Exception:  # whatever ends a member is part of the verdict
        Reporter(page.folder).add(f"{role} ended itself", [traceback.format_exc()[-300:]])
        code = 1
    os._exit(code)


def main(folder: str) -> None:
    """Fork members of the page in ``folder`` until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    page = open_page(Path(folder), control_writable=True)
    # Compiled code that a child needs is loaded here, once.
    route()
    children = {}
    for line in sys.stdin:
        child = _fork(page, line)
        children[child] = process_start_time(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child, start in children.items():
        kill_if_same(child, start, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
