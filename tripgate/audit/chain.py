"""The hash chain: each row's hash covers the hash before it.

SHA-256, because processors have instructions for it and any tool can check it. Whoever knows one
hash can tell whether anything before it was changed; what comes after the last hash known elsewhere
can be cut off unseen, which is why heads go to a second file (``heads``).
"""

from hashlib import sha256

HASH_BYTES = 32
GENESIS = sha256(b"tripgate.audit.genesis.1\n").digest()
"""What stands before the first row of a log."""


def next_hash(previous: bytes, canonical: bytes) -> bytes:
    """Return SHA-256(previous ‖ canonical), 32 bytes."""
    return sha256(previous + canonical).digest()
