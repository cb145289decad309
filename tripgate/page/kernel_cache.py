"""Where compiled kernels are kept: a folder named after exactly the sources they are made of.

numba's own cache looks only at the file that holds a function, so a changed offset in ``layout``
would leave old code that writes money into the wrong word. Hashing every source into the folder's
name makes that impossible. Nothing here imports numba, so that a command can ask cheaply whether
the first start still has to compile.
"""

import hashlib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
KERNEL_SOURCES = ("page", "gate", "machines/reservation.py", "reasons.py", "units.py")
"""What compiled code is made of: offsets and codes are constants in it."""


def kernel_cache() -> Path:
    """Return the folder for compiled kernels of exactly these sources (it may not exist yet)."""
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        place = PACKAGE / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else (place,):
            digest.update(path.read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / f"tripgate-kernels-{digest.hexdigest()[:16]}"


def mark_compiled() -> None:
    """Note that every kernel has been compiled into the cache."""
    (kernel_cache() / "complete").touch()


def is_compiled() -> bool:
    """Return whether every kernel has been compiled into the cache before."""
    return (kernel_cache() / "complete").exists()
