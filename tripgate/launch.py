"""The front door: refuse what cannot be safe, enter the box, hand over to the command line.

The parts of tripgate with generic names (``actors``, ``models`` ...) lie flat in the repository
and boxed in ``tripgate/_app`` in the wheel, so that no other distribution can overwrite them. A
foreign folder of the same name in the working directory must not be imported in their place
either: a child that runs somebody else's ``actors`` is an unsupervised child. So the box goes
first on the path, of this process and of its children, and each name must resolve inside it.

Invariants: L1 only the standard library is imported before the refusals; L2 a refusal is one line
that says what to run, exit code 4; L3 after ``enter`` each boxed name is ours.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tripgate.errors import ConfigError

BOXED = ("actors", "supervisors", "exchange_adapters", "models", "chaos", "benchmarks")
NEEDED = (
    "cyclopts", "msgpack", "msgspec", "numba", "numpy", "rich", "sqlite_utils", "structlog", "trio",
)  # fmt: skip
"""Import names without which no command works; ``cli.engine`` asks for tractor where needed."""

CHILD_DEFAULTS = {
    # A dozen actors on a few cores slow each other down with more than one thread each.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # tractor uses names that trio calls deprecated: on a terminal that is only noise.
    "PYTHONWARNINGS": "ignore:trio.MultiError:FutureWarning,ignore:MultiError:FutureWarning",
}


def find_refusal(
    version: tuple[int, int],
    asserts_run: bool,
    environment: Mapping[str, str],
    is_installed: Callable[[str], bool],
) -> str | None:
    """Return the line that refuses this start, or None where nothing speaks against it.

    ``asserts_run`` is ``__debug__``: False under ``python -O``, which strips the checks of
    invariants. ``is_installed`` tells whether a top-level module can be imported.
    """
    if not (3, 11) <= version <= (3, 12):
        found = ".".join(map(str, version))
        return f"needs Python 3.11 or 3.12, this is {found}: run it with python3.11 or python3.12"
    if not asserts_run:
        return "refuses python -O, which strips its checks: unset PYTHONOPTIMIZE, run without -O"
    if environment.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "refuses interpreted kernels, which are not atomic: run: unset NUMBA_DISABLE_JIT"
    missing = [name for name in NEEDED if not is_installed(name)]
    if missing:
        packages = " ".join(missing).replace("_", "-")
        remedy = f"make paper (in a clone), or {sys.executable} -m pip install tripgate"
        return f"not installed: {packages}; run: {remedy}"
    return None


def is_installed(name: str) -> bool:
    """Return whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(name) is not None


def find_box() -> Path:
    """Return the folder that holds the boxed names: ``_app`` in a wheel, else the checkout."""
    package = Path(__file__).resolve().parent
    box = package / "_app"
    return box if box.is_dir() else package.parent


def enter() -> Path:
    """Put the box first on the path, here and for children, and check every boxed name.

    Children are started as ``python -m`` in the caller's working directory: the safe path keeps
    that directory out of theirs. Raises ``ConfigError`` where a name is missing or not ours.
    """
    box = find_box()
    sys.path.insert(0, str(box))
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(box), *inherited])
    os.environ["PYTHONSAFEPATH"] = "1"
    for variable, value in CHILD_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    for name in BOXED:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ConfigError(f"its part {name!r} is missing from {box}: install tripgate again")
        places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
        strangers = [place for place in places if place.resolve().parent != box]
        if strangers:
            raise ConfigError(f"{name!r} is not ours but {strangers[0]}: remove it from the path")
    return box


def main() -> None:
    """Run the ``tripgate`` command and end the process with its exit code."""
    try:
        refusal = find_refusal(sys.version_info[:2], __debug__, os.environ, is_installed)
        if refusal is not None:
            raise ConfigError(refusal)
        enter()
    except ConfigError as error:
        sys.stderr.write(f"tripgate: {error}\n")
        sys.exit(error.exit_code)
    from tripgate.cli.app import main as run_command

    sys.exit(run_command())
