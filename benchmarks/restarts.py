"""How long a tree takes to come up, to replace a killed actor, and to be gone after its root.

Measured from outside on a real run: the page says which process holds which role, a SIGKILL ends
it, and the clock runs until the role's lease is live again under a new incarnation.
"""

import signal
from collections.abc import Callable
from typing import Any

from benchmarks.runs import Place, finish, place
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, PageError
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.mapping import Page, open_page
from tripgate.processes import is_alive, kill_if_same

INSTANCE = "figures"
FEED = "generator:crash"
COMMAND = ("paper", "--feed", FEED, "--speed", "10", "--instance", INSTANCE, "--json")
WAIT_S = 180.0
POLL_S = 0.001
SETTLE_S = 2.0


def measure_restarts() -> dict[str, Any]:
    """Return seconds to the armed gate, ms to replace each actor, ms until a killed tree is gone.

    The tree is then started again on the venue that survived, and ended in order.
    """
    with place() as here:
        tree = here.start(*COMMAND)
        began_ns = host_ns()
        page = _armed_page(here)
        result: dict[str, Any] = {"armed_s": round((host_ns() - began_ns) / NS_PER_S, 2)}
        result["actors_ms"] = {
            role.text: _replace(page, number)
            for number, role in enumerate(page.names.roles)
            if int(page.rows(ROLE)["pid"][number])
        }
        result["tree_gone_ms"] = _kill_root(page)
        tree.communicate(timeout=WAIT_S)
        again = finish(here.start(*COMMAND, "--duration", "5"), WAIT_S)
        result["armed_again_s"] = again["armed_s"]
        result["verified"] = again["audit"]["verified"]
        return result


def _until(condition: Callable[[], bool], what: str) -> float:
    """Wait for a condition; return the ms it took. Raises ``DeadlineError``."""
    began_ns = host_ns()
    while not condition():
        if host_ns() - began_ns > WAIT_S * NS_PER_S:
            raise DeadlineError(f"{what} did not happen within {WAIT_S:.0f} s")
        sleep_s(POLL_S)
    return round((host_ns() - began_ns) / NS_PER_MS, 1)


def _armed_page(here: Place) -> Page:
    found: list[Page] = []

    def is_armed() -> bool:
        try:
            page = open_page(here.page_folder(INSTANCE), writable=False)
        except PageError:
            return False
        found[:] = [page]
        return bool(page.header["armed"])

    _until(is_armed, "the armed gate")
    return found[0]


def _replace(page: Page, number: int) -> float:
    """Kill a role's process; return ms until its successor's lease is live."""
    sleep_s(SETTLE_S)
    row = page.rows(ROLE)[number]
    incarnation = int(row["incarnation"])
    kill_if_same(int(row["pid"]), int(row["start_time"]), signal.SIGKILL)

    def is_replaced() -> bool:
        deadline_ns = int(page.rows(LEASE)["deadline_ns"][number])
        return int(row["incarnation"]) != incarnation and deadline_ns > host_ns()

    return _until(is_replaced, f"a successor of {page.names.roles[number].text}")


def _kill_root(page: Page) -> float:
    """Kill the root; return ms until no process of the tree is left."""
    sleep_s(SETTLE_S)
    header, roles = page.header, page.rows(ROLE)
    members = [(int(row["pid"]), int(row["start_time"])) for row in roles if row["pid"]]
    kill_if_same(int(header["owner_pid"]), int(header["owner_start"]), signal.SIGKILL)
    return _until(lambda: not any(is_alive(*member) for member in members), "the tree's end")
