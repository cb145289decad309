"""The checks of ``tripgate doctor`` on the installation: Python, packages, SQLite, kernel cache."""

import importlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import tripgate
from tripgate.cli.doctor_check import Check, fail, ok, warn
from tripgate.cli.engine import ENGINE
from tripgate.instance import state_root

PYTHON_MIN, PYTHON_MAX = (3, 11), (3, 12)
PACKAGES = (
    "ccxt", "cyclopts", "msgpack", "msgspec", "numba", "numpy", "onnxruntime", "rich",
    "sqlite-utils", "trio",
)  # fmt: skip
"""Looked for where tripgate itself is not installed (a checkout on the path) and names no pins."""

WAL_RESET_FIXED = (3, 51, 3)
WAL_RESET_BACKPORTS: dict[tuple[int, ...], int] = {(3, 44): 6, (3, 50): 7}
"""SQLite before 3.51.3 can corrupt a write-ahead log that two connections write or checkpoint;
these older lines carry the correction from the patch release named here."""

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)$")


def check_python() -> Check:
    """Check the interpreter's version and that its asserts run."""
    found = ".".join(map(str, sys.version_info[:3]))
    if not PYTHON_MIN <= sys.version_info[:2] <= PYTHON_MAX:
        return fail("Python", found, "run it with Python 3.11 or 3.12")
    if sys.flags.optimize:
        return fail("Python", f"{found} -O", "run it without -O: it strips the checks")
    return ok("Python", found)


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def wanted_packages() -> dict[str, str | None]:
    """Return the distributions tripgate needs, each with its pinned version if that is known."""
    try:
        requirements = importlib.metadata.requires("tripgate") or []
    except importlib.metadata.PackageNotFoundError:
        return dict.fromkeys(PACKAGES)
    pins = (_PIN.match(text) for text in requirements)
    return {pin[1]: pin[2] for pin in pins if pin}


def check_packages() -> Check:
    """Check that each package is there, in the version that this release was tested with."""
    return judge_packages(
        {name: (pin, installed_version(name)) for name, pin in wanted_packages().items()}
    )


def judge_packages(packages: Mapping[str, tuple[str | None, str | None]]) -> Check:
    """Judge packages, given as name → (pinned version or None, installed version or None)."""
    missing = [name for name, (_, found) in packages.items() if found is None]
    if missing:
        wanted = " ".join(f"{name}=={pin}" if (pin := packages[name][0]) else name
                          for name in missing)  # fmt: skip
        return fail(
            "packages", f"missing: {', '.join(missing)}",
            f"run: {sys.executable} -m pip install {wanted}",
        )  # fmt: skip
    other = [f"{name} {found} (tested: {pin})" for name, (pin, found) in packages.items()
             if pin is not None and found != pin]  # fmt: skip
    if other:
        return warn(
            "packages", "; ".join(other), "install the versions of requirements.lock"
        )  # fmt: skip
    versions = ", ".join(f"{name} {found}" for name, (_, found) in packages.items())
    return ok("packages", versions)


def check_tractor() -> Check:
    """Check that the engine is there: it cannot be a plain dependency."""
    found = installed_version("tractor")
    command = f"run: {sys.executable} -m pip install --no-deps {ENGINE}"
    if found is None:
        return fail("engine", "tractor is missing", command)
    if f"tractor=={found}" != ENGINE:
        return warn("engine", f"tractor {found}", command)
    return ok("engine", f"tractor {found}")


def check_sqlite() -> Check:
    """Check that SQLite can do where the log lies what the log asks of it."""
    try:
        # By name: a Python can be built without it, which is one of the things to find out.
        fitness = importlib.import_module("tripgate.audit.fitness")
    except ImportError:
        return fail("SQLite", "this Python has none", "use a Python built with sqlite3")
    root = state_root()
    place = next(path for path in (root, *root.parents) if path.exists())
    try:
        problems = fitness.try_sqlite(place)
    except OSError as error:
        problems = [f"no trial can be made in {place} ({error.strerror})"]
    return judge_sqlite(fitness.sqlite_version(), problems)


def judge_sqlite(text: str, problems: Sequence[str] = ()) -> Check:
    """Judge a version of SQLite and what a trial of it found.

    A version in which two writers could corrupt a write-ahead log is worth a warning.
    """
    if problems:
        return fail(
            "SQLite", f"{text}: {'; '.join(problems)}",
            "use a Python whose SQLite is 3.37 or newer, and a local disk (TRIPGATE_STATE)",
        )  # fmt: skip
    numbers = tuple(int(part) for part in text.split(".")[:3])
    patch_min = WAL_RESET_BACKPORTS.get(numbers[:2])
    is_backport = patch_min is not None and numbers[2] >= patch_min
    if numbers >= WAL_RESET_FIXED or is_backport:
        return ok("SQLite", f"{text}, tried: strict tables, triggers, write-ahead log, full sync")
    return warn(
        "SQLite", f"{text} (two writers of one file could corrupt it)",
        "tripgate is safe with it, because a log has one writer and readers only read; never open "
        "a running log with a program that writes; SQLite 3.51.3 mends it",
    )  # fmt: skip


def kernel_cache_folder() -> Path:
    """Return where compiled kernels are kept: beside the code unless NUMBA_CACHE_DIR says else."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    return Path(named) if named else Path(tripgate.__file__).resolve().parent / "page"


def check_kernel_cache() -> Check:
    """Check that compiled kernels can be kept, so that a start does not compile them again."""
    folder = kernel_cache_folder()
    place = folder if folder.exists() else folder.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return ok("kernel cache", str(folder))
    except OSError as error:
        return warn(
            "kernel cache", f"{folder}: {error.strerror}",
            "every process compiles the kernels anew (seconds each): set NUMBA_CACHE_DIR to a "
            "folder that can be written",
        )  # fmt: skip
