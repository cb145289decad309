"""The root of a death drill: the product's own supervisor over victims instead of actors.

``python -m chaos.deaths.root FOLDER PARENT_PID`` (started by the harness). It arms the page once
every victim's lease lives, and ends when the page says so or its parent dies.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import trio

from actors import runtime
from actors.spawner import Spawner
from chaos.deaths.ground import ACTOR, SUPERVISOR_ROLE
from supervisors.child_spec import ChildSpec
from supervisors.supervisor import Supervisor
from tripgate.clock import host_ns
from tripgate.gate.slots import take_role_slot
from tripgate.page.layout import LEASE
from tripgate.page.mapping import Page, open_page
from tripgate.processes import exit_with, process_start_time

SETTINGS_FILE = "settings.json"
POLL_S = 0.02
PERIOD_S = 5.0
ENTRY = "chaos.deaths.victim"
BRITTLE_START_S = 60.0
"""It must die of nothing but its own deaths."""
INTENSITY_MAX = 500
"""A drill goes on: only the brittle victim dies too often."""


def specs_of(page: Page, settings: dict[str, Any]) -> list[ChildSpec]:
    """Return the victims' specs; those named ``brittle`` escalate at their second death."""
    specs = []
    for role in page.names.roles[SUPERVISOR_ROLE + 1 :]:
        is_brittle = role.venue in settings["brittle"]
        intensity_max = int(settings["brittle_deaths"]) - 1 if is_brittle else INTENSITY_MAX
        period_s = float(settings["brittle_period_s"]) if is_brittle else PERIOD_S
        specs.append(
            ChildSpec(
                role.text, ACTOR, role.venue, intensity_max=intensity_max, period_s=period_s,
                back_off_s=0.001, back_off_max_s=0.01, entry=ENTRY,
                start_s=BRITTLE_START_S if is_brittle else float(settings["start_s"]),
            )
        )  # fmt: skip
    return specs


async def run(page: Page, settings: dict[str, Any]) -> None:
    """Supervise the victims until the page says that the drill has ended."""
    spawner = Spawner(preload=(ENTRY,))
    async with runtime.open_tree("deaths", spawner), trio.open_nursery() as nursery:
        # The mould's imports are nobody's start: victims are given little time for theirs.
        await spawner.ready()
        supervisor = Supervisor(page, settings, nursery)
        nursery.start_soon(supervisor.watch)
        for spec in specs_of(page, settings):
            nursery.start_soon(supervisor.keep, spec, trio.Event())
        deadlines = page.rows(LEASE)["deadline_ns"][: len(page.names.roles)]
        while not page.header["ended"]:
            if not page.header["armed"] and all(int(d) > host_ns() for d in deadlines):
                page.header["closed"], page.header["armed"] = 0, 1
            await trio.sleep(POLL_S)
        supervisor.stopping = True
        nursery.cancel_scope.cancel()
    supervisor.close()


def main() -> None:
    """Entry point of the root process."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    exit_with(parent)
    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    page = open_page(folder, control_writable=True)
    page.header["owner_pid"] = os.getpid()
    page.header["owner_start"] = process_start_time(os.getpid())
    take_role_slot(page, SUPERVISOR_ROLE, 1)
    trio.run(run, page, settings)


if __name__ == "__main__":
    main()
