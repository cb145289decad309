"""Merged denials: posting what a slot has counted, by whoever may write its ring.

The owner does it before its next record, at the end of each lock-step step and when it leaves; for
an owner that died the keeper does. Until then the number stands in the slot, where it survives.
"""

import struct
from typing import Any

from tripgate.clock import host_ns
from tripgate.gate.decide import FRAME_ROOM, MERGED_WORDS, flush_merged
from tripgate.page.layout import CURSOR, HOLDER, RING, SLOT
from tripgate.page.mapping import Page
from tripgate.page.ring import free_bytes
from tripgate.reasons import DenyReason


def post_merged(page: Page, slot: int) -> int:
    """Post a slot's merged denials if there are any and its ring has room; return how many."""
    row = page.rows(SLOT)[slot]
    if not int(row["merged_count"]):
        return 0
    mask = int(page.rows(HOLDER)["mask"][slot])
    if free_bytes(int(row["ring_head"]), page.address(CURSOR, slot), mask) < FRAME_ROOM:
        return 0
    return flush_merged(page.address(SLOT, slot), page.address(RING, slot), host_ns())


def merged_body(payload: bytes) -> dict[str, Any]:
    """Return a DENIALS_MERGED record's words as the body that goes into the log."""
    first, more, first_ms, last_ms, reason = struct.unpack(f"<{MERGED_WORDS}q", payload)
    return {
        "of": first, "more": more, "first_ms": first_ms, "last_ms": last_ms,
        "reason": DenyReason(reason).name,
    }  # fmt: skip
