"""What the commands that start a tree need beyond the commands that only look."""

import importlib.util
import sys

from tripgate.errors import MissingPartError

ENGINE = "tractor==0.1.0a5"


def require_engine() -> None:
    """Raise ``MissingPartError`` with the command that installs tractor, if it is missing."""
    if importlib.util.find_spec("tractor") is None:
        command = f"{sys.executable} -m pip install --no-deps {ENGINE}"
        raise MissingPartError(f"the engine is not installed; run: {command}")
