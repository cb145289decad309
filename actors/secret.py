"""The key by which links know their own: derived from the tree's secret, in memory alone.

The root makes the secret and hands it to the zygote, its children have it by fork (``spawner``);
nothing prints it, logs it or puts it into an argument list or the environment. Links use a key
derived from it, so that no frame of a link can ever be taken for a proof of membership.
"""

import hashlib
import hmac

from tripgate.errors import InvariantBroken
from tripgate.machines.link import SECRET_BYTES_MIN

LABEL = b"tripgate-link-1"
_held: list[bytes] = []


def hold(tree_secret: bytes) -> None:
    """Derive and hold the key of this process' links."""
    if len(tree_secret) < SECRET_BYTES_MIN:
        raise InvariantBroken(f"a tree's secret has at least {SECRET_BYTES_MIN} bytes")
    _held[:] = [hmac.new(tree_secret, LABEL, hashlib.sha256).digest()]


def forget() -> None:
    """Forget the key: this process belongs to no tree any more."""
    _held.clear()


def is_known() -> bool:
    """Whether this process belongs to a tree."""
    return bool(_held)


def get_key() -> bytes:
    """Return the key. Raises ``InvariantBroken`` if this process belongs to no tree."""
    if not _held:
        raise InvariantBroken("the key of links was asked for outside a tree")
    return _held[0]
