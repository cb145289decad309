"""``tripgate bench tree``: how a real tree comes up, dies in parts and whole, and what it needs.

A paper run as a person would start it, watched from outside: the page says which process holds
which role, a witness asks the gate as a strategy would, signals do the rest. Each actor is killed
and stopped a few times, in turns, so that no one of them dies too often for its supervisor.

References of the same run stand beside the figures: a bare interpreter's start, and how long this
machine takes to tell a parent that its child was killed.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from benchmarks.runs import Place, finish, place
from benchmarks.tree_memory import memory_of, tree_pids
from benchmarks.tree_verdicts import judge_goals
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, PageError
from tripgate.gate.client import Gate
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.layout import LEASE, ROLE, STRATEGY
from tripgate.page.mapping import Page, open_page
from tripgate.processes import is_alive, kill_if_same
from tripgate.reasons import DenyReason

INSTANCE = "figures"
FEED = "generator:calm"
STRATEGY_NAME = "pulse"
COMMAND = ("paper", "--feed", FEED, "--strategy", STRATEGY_NAME, "--speed", "60",
           "--instance", INSTANCE, "--json")  # fmt: skip
SCHEMA = 1
REPEATS = 3
QUIET_S = 60.0
WAIT_S = 180.0
POLL_S = 0.0002
SETTLE_S = 2.0
UNHURRIED = 1_000_000
"""Above what a pace word can count: the strategy's own pace must not answer before a lease does."""
PERCENTILES = {"p50": 50.0, "p99": 99.0, "max": 100.0}
INTERPRETER_STARTS, BARE_DEATHS = 5, 20


class Witness:
    """Asks a run's gate from outside: whether an opening would be judged on its merits.

    It asks for an opening that lacks its stop. The answer is always a denial, so nothing is ever
    reserved; where it is STOP_MISSING, no lease, no level and no closed page stood before it.
    """

    def __init__(self, page: Page) -> None:
        strategy = page.names.strategy(STRATEGY_NAME)
        page.rows(STRATEGY)["attempts_per_second_max"][strategy] = UNHURRIED
        self._gate = Gate(page, claim_strategy_slot(page, strategy), strategy)
        self._check = self._gate.instrument(*self._gate.instruments[0]).check_raw
        self.denials: dict[str, int] = {}

    def is_open(self) -> bool:
        """Ask once."""
        return self._check(1, 0, 0) == -DenyReason.STOP_MISSING

    def reason(self) -> str:
        """Ask once; return the name of what was answered."""
        return DenyReason(-self._check(1, 0, 0)).name

    def close(self) -> None:
        """Give the slot back."""
        self._gate.close()


def measure_tree(
    repeats: int = REPEATS, quiet_s: float = QUIET_S, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure a tree of this release on this machine; minutes.

    Parameters
    ----------
    repeats
        How often each actor is killed, and how often stopped.
    quiet_s
        How long a fault-free run is watched for false denials.
    report
        Told what is under way.

    Returns
    -------
    dict
        JSON-ready; docs are rendered from it by ``tree_text``.
    """
    result: dict[str, Any] = {
        "schema": SCHEMA, "command": list(COMMAND), "cores": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2), "repeats": repeats,
        "references": measure_references(),
    }  # fmt: skip
    with place() as here:
        report("starting a tree")
        # The first start of a place compiles nothing, but reads every module from a cold cache.
        tree = here.start(*COMMAND)
        began_ns = host_ns()
        page = _armed_page(here, tree)
        result["armed_s"] = round((host_ns() - began_ns) / NS_PER_S, 2)
        witness = Witness(page)
        until(witness.is_open, "an open gate")
        report(f"watching it for {quiet_s:g} s")
        result["quiet"] = _watch_quiet(page, witness, quiet_s)
        result["memory"] = memory_of(here, page)
        report("killing and stopping each actor")
        result["actors"] = measure_actors(page, witness, repeats)
        report("stopping and killing the root")
        result["root"] = {
            **_hang_root(page, witness),
            **_kill_root(page, witness, lambda: tree_pids(here)),
        }
        tree.communicate(timeout=WAIT_S)
        report("starting it again")
        again = finish(here.start(*COMMAND, "--duration", "5"), WAIT_S)
        result["armed_again_s"], result["verified"] = again["armed_s"], again["audit"]["verified"]
    result["goals"] = judge_goals(result)
    return result


def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for a condition; return the ms it took. Raises ``DeadlineError``."""
    began_ns = host_ns()
    while not condition():
        if host_ns() - began_ns > WAIT_S * NS_PER_S:
            raise DeadlineError(f"{what} did not happen within {WAIT_S:.0f} s")
        sleep_s(POLL_S)
    return round((host_ns() - began_ns) / NS_PER_MS, 2)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return middle, 99 % and largest; empty if there are none."""
    if not values:
        return {}
    found = np.percentile(values, list(PERCENTILES.values()), method="higher")
    return {name: round(float(value), 2) for name, value in zip(PERCENTILES, found, strict=True)}


def measure_references() -> dict[str, Any]:
    """Return ms of a bare interpreter's start and of hearing of a killed child through a pidfd."""
    starts = []
    for _ in range(INTERPRETER_STARTS):
        began_ns = host_ns()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        starts.append((host_ns() - began_ns) / NS_PER_MS)
    deaths = []
    for _ in range(BARE_DEATHS):
        child = subprocess.Popen(["sleep", "600"])
        descriptor = os.pidfd_open(child.pid)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        began_ns = host_ns()
        child.kill()
        poller.poll()
        deaths.append((host_ns() - began_ns) / NS_PER_MS)
        os.close(descriptor)
        child.wait()
    return {"interpreter_start_ms": spread(starts), "death_told_ms": spread(deaths)}


def measure_actors(page: Page, witness: Witness, repeats: int) -> dict[str, dict[str, Any]]:
    """Kill and stop each actor ``repeats`` times, in turns; return the figures of each."""
    roles = [
        number
        for number, role in enumerate(page.names.roles)
        if role.critical and int(page.rows(ROLE)["pid"][number])
    ]
    seen: dict[int, dict[str, list[dict[str, float]]]] = {
        number: {"killed": [], "stopped": []} for number in roles
    }
    for _ in range(repeats):
        for name, number_of in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
            for number in roles:
                seen[number][name].append(wound(page, witness, number, number_of))
    return {
        page.names.roles[number].text: {
            "lease_ms": int(page.rows(ROLE)["lease_ns"][number]) // NS_PER_MS,
            **{
                name: {
                    "n": len(wounds),
                    **{key: spread([one[key] for one in wounds]) for key in wounds[0]},
                }
                for name, wounds in of_role.items()
            },
        }
        for number, of_role in seen.items()
    }  # fmt: skip


def wound(page: Page, witness: Witness, number: int, signal_number: int) -> dict[str, float]:
    """Send a signal to a role's process; return ms to the first denial and to a live successor."""
    _until_settled(page, witness)
    row = page.rows(ROLE)[number]
    incarnation = int(row["incarnation"])
    began_ns = host_ns()
    kill_if_same(int(row["pid"]), int(row["start_time"]), signal_number)
    text = page.names.roles[number].text
    denied_ms = until(lambda: not witness.is_open(), f"a denial after the death of {text}")

    def is_replaced() -> bool:
        deadline_ns = int(page.rows(LEASE)["deadline_ns"][number])
        return int(row["incarnation"]) != incarnation and deadline_ns > host_ns()

    until(is_replaced, f"a successor of {text}")
    return {"denied_ms": denied_ms, "back_ms": round((host_ns() - began_ns) / NS_PER_MS, 1)}


def _until_settled(page: Page, witness: Witness) -> None:
    """Wait until the gate has been open for a while, so that one death is not another's."""
    opened_ns = host_ns()
    deadline_ns = opened_ns + int(WAIT_S * NS_PER_S)
    while host_ns() - opened_ns < SETTLE_S * NS_PER_S:
        if not witness.is_open():
            opened_ns = host_ns()
        if opened_ns > deadline_ns:
            raise DeadlineError(
                f"the gate of {page.names.instance} stays closed: {witness.reason()}"
            )
        sleep_s(POLL_S)


def _armed_page(here: Place, tree: "subprocess.Popen[str]") -> Page:
    found: list[Page] = []

    def is_armed() -> bool:
        if tree.poll() is not None:
            finish(tree)
        try:
            page = open_page(here.page_folder(INSTANCE), control_writable=True)
        except PageError:
            return False
        found[:] = [page]
        return bool(page.header["armed"])

    until(is_armed, "the armed gate")
    return found[0]


def _watch_quiet(page: Page, witness: Witness, quiet_s: float) -> dict[str, Any]:
    _until_settled(page, witness)
    began_ns, asked = host_ns(), 0
    denied: dict[str, int] = {}
    while host_ns() - began_ns < quiet_s * NS_PER_S:
        asked += 1
        if not witness.is_open():
            name = witness.reason()
            denied[name] = denied.get(name, 0) + 1
        sleep_s(5 * POLL_S)
    return {"seconds": round(quiet_s, 1), "asked": asked, "denied": denied}


def _root_of(page: Page) -> tuple[int, int]:
    return int(page.header["owner_pid"]), int(page.header["owner_start"])


def _hang_root(page: Page, witness: Witness) -> dict[str, Any]:
    """Stop the root until the gate denies, continue it until the gate is open again."""
    _until_settled(page, witness)
    kill_if_same(*_root_of(page), signal.SIGSTOP)
    denied_ms = until(lambda: not witness.is_open(), "a denial while the root hangs")
    kill_if_same(*_root_of(page), signal.SIGCONT)
    return {
        "lease_ms": int(page.rows(ROLE)["lease_ns"][0]) // NS_PER_MS,
        "hung_denied_ms": denied_ms,
        "hung_open_again_ms": until(witness.is_open, "an open gate after the root hung"),
    }


def _kill_root(
    page: Page, witness: Witness, survivors: Callable[[], Collection[int]]
) -> dict[str, Any]:
    """Kill the root; return ms to the first denial and until no process of the tree is left.

    Parameters
    ----------
    survivors
        Returns the pids of all that may not outlive the root; asked once the actors are gone.
    """
    _until_settled(page, witness)
    rows = page.rows(ROLE)
    members = [(int(row["pid"]), int(row["start_time"])) for row in rows if row["pid"]]
    began_ns = host_ns()
    seen: dict[str, Any] = {}

    def note(name: str, *, is_so: bool) -> None:
        if is_so and name not in seen:
            seen[name] = round((host_ns() - began_ns) / NS_PER_MS, 1)

    def is_over() -> bool:
        note("killed_denied_ms", is_so=not witness.is_open())
        if "gone_ms" not in seen and not any(is_alive(*member) for member in members):
            note("gone_ms", is_so=not survivors())
        return len(seen) == 2

    kill_if_same(*_root_of(page), signal.SIGKILL)
    until(is_over, "the tree's end")
    return seen
