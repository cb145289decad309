"""``tripgate doctor``: whether this machine and this installation are fit to run tripgate.

Each check answers ok, warn or fail with what it found and, where it is not ok, what to do. Nothing
heavy is imported: a broken or slow package is among the things it is asked about. Exit 0 if nothing
fails, else 4.
"""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from tripgate.cli import doctor_kernel, doctor_keys, doctor_machine, doctor_packages
from tripgate.cli.doctor_check import Check, Verdict
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import ConfigError

CHECKS: tuple[Callable[[], Check], ...] = (
    doctor_packages.check_python,
    doctor_packages.check_packages,
    doctor_packages.check_tractor,
    doctor_packages.check_sqlite,
    doctor_packages.check_kernel_cache,
    doctor_kernel.check_kernel,
    doctor_kernel.check_limits,
    doctor_kernel.check_wall_clock,
    doctor_machine.check_shared_memory,
    doctor_machine.check_coarse_clock,
    doctor_machine.check_clocks,
    doctor_machine.check_descriptors,
    doctor_machine.check_loopback,
    doctor_machine.check_disk,
    doctor_machine.check_state,
    doctor_keys.check_private,
    doctor_machine.check_leftovers,
    doctor_machine.check_panels,
)


def doctor(*, config: Path | None = None, json: bool = False) -> int:
    """Check this machine and installation: exit 0 if nothing fails, 4 if something does.

    Parameters
    ----------
    config
        Configuration whose keys are looked at; else tripgate.toml here, if there is one.
    json
        Print one JSON object instead of a table.
    """
    checks = [*(check() for check in CHECKS), doctor_keys.check_keys(config)]
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if json:
        write_json(
            {
                "passed": not failed,
                "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
                "executable": sys.executable,
                "cores": os.cpu_count(),
                "checks": [check.to_json() for check in checks],
            }
        )
    else:
        _write_text(checks)
    if failed:
        write_message(f"tripgate: {len(failed)} of {len(checks)} checks failed")
        return ConfigError.exit_code
    return 0


def _write_text(checks: list[Check]) -> None:
    write_table(
        ("check", "", "found"), [(check.name, check.verdict.value, check.found) for check in checks]
    )
    advice = [check for check in checks if check.advice]
    if advice:
        write_line()
    for check in advice:
        write_line(f"{check.name}: {check.advice}")
