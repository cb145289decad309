"""The root's first moment: guard and zygote first, everything heavy after that.

``python -m supervisors.start SETTINGS.json LAUNCHER_PID`` (by the ``paper`` launcher, never by
hand). Importing what the root needs takes two seconds, and so does importing what its children
need; on two cores both take two, if the zygote is started before the root imports anything. Only at
the very first start must it wait: the kernels are compiled once, by the root.

Invariant: whatever happens here, the launcher's death ends this process.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from actors.spawner import Spawner
from tripgate.instance import page_folder
from tripgate.page.kernel_cache import is_compiled
from tripgate.processes import exit_with


def kill_stopped(instance: str) -> None:
    """Kill what is left of our tree and cannot end itself (called in the last moment)."""
    # Not imported above: it is there long before there is anything to be killed.
    leftovers = importlib.import_module("supervisors.leftovers")
    leftovers.kill_tree(page_folder(instance), os.getpid())


def main() -> int:
    """Entry point of the root process."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # Who dies with the launcher takes along what cannot end itself, if the page is its own.
    exit_with(int(sys.argv[2]), lambda: kill_stopped(settings["instance"]))
    spawner = Spawner()
    if is_compiled():
        spawner.start()
    root = importlib.import_module("supervisors.root")
    code: int = root.run(settings, spawner)
    return code


if __name__ == "__main__":
    sys.exit(main())
