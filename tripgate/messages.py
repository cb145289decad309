"""Kinds and bodies of everything that goes through rings into the log or over links.

A body is a msgpack map; its keys are part of the log format and stand here alone. Decisions are the
exception: their body is the raw 256-byte record (``gate.record``). ``SCHEMA_VERSION`` stands in
each run's first record, so that a reader knows what it reads.

What goes over links is small, typed and never needed for safety: ``LinkMessage`` lists all of it.
"""

from enum import IntEnum
from typing import Annotated, TypeAlias

import msgspec

SCHEMA_VERSION = 1


class EventKind(IntEnum):
    """Kind of a record. Numbers are never reused; ``DECISION`` is also ``decide.DECISION_KIND``."""

    RUN_STARTED = 1
    RUN_ENDED = 2
    DECISION = 3
    ATTACHED = 4
    ARMED = 5
    DENIALS_MERGED = 6
    NUMBERS_ASSIGNED = 7
    AUDIT_FAILED = 8
    AUDIT_RECOVERED = 9
    ORDER_SENT = 10
    ORDER_ACKNOWLEDGED = 11
    ORDER_DONE = 12
    ORDER_UNKNOWN = 13
    CANCEL_SENT = 14
    ORDER_RESOLVED = 15
    RESERVATION_EXPIRED = 16
    FILL = 20
    STOP_PLACED = 21
    PROTECTED = 22
    FILL_UNPLACED = 23
    LEVEL_CHANGED = 30
    EXIT_WISHED = 31
    FLAT = 32
    RESUMED = 33
    COUNTERS_BROKEN = 34
    REPAIRED = 35
    EXIT_ENDED = 36
    STOP_MOVED = 37
    ACTOR_STARTED = 40
    ACTOR_DOWN = 41
    ESCALATED = 42
    STRATEGY_DROPPED = 43
    CHILD_LEFT_DOWN = 44
    GROUP_RESTARTED = 45
    STRATEGY_STARTED = 46
    STRATEGY_DOWN = 47
    RISK_SNAPSHOT = 50
    OPERATOR = 60
    LIMITS_CHANGED = 61
    LIMITS_IN_FORCE = 62
    LEVEL_WITHDRAWN = 63
    GUEST_ATTACHED = 70
    GUEST_ENDED = 71
    LINK_SILENT = 80
    LINK_HEARD = 81
    LINK_FAULT = 82
    LINK_GAP = 83
    RING_CROWDED = 84
    RING_ROOMY = 85
    RING_DAMAGED = 86


class DoneState(IntEnum):
    """How an order ended. ``UNSENT`` and ``EXPIRED`` never left; ``NEVER_ARRIVED`` is proved."""

    FILLED = 1
    CANCELLED = 2
    REJECTED = 3
    UNSENT = 4
    EXPIRED = 5
    NEVER_ARRIVED = 6


GRACE_S_MAX = 600.0
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="heartbeat"):
    """A sender lives: turns of its work loop, lag of its event loop (µs), resident memory (KiB)."""

    turns: Count
    lag_us: Count
    rss_kib: Count


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """The receiver is to end its loop in order; after ``grace_s`` seconds it is cancelled."""

    grace_s: Annotated[float, msgspec.Meta(ge=0.0, le=GRACE_S_MAX)]


LinkMessage: TypeAlias = Heartbeat | Stop
"""Everything that may be said over a link; any other kind is rejected."""
LINK_KINDS = ("heartbeat", "stop")


class LinkVerdict(IntEnum):
    """What a receiver makes of a frame; only FRESH ones reach anybody."""

    FRESH = 0
    STALE = 1
    REPLAYED = 2
    REORDERED = 3
    FOREIGN = 4
    FORGED = 5
    UNREADABLE = 6
    WRONG_SCHEMA = 7
    UNKNOWN_KIND = 8
    GAP = 9


class LinkFault(IntEnum):
    """What a direction of a link does to frames, for chaos, and the meaning of its argument.

    ``DROP``, ``DUPLICATE``, ``CORRUPT``: every n-th frame (0 and 1: each). ``DELAY``: ms.
    ``REORDER``: frames turned round together, at least 2. ``PARTITION``: all are lost. ``HOLD``:
    all are kept, and come in one burst when the fault is lifted, as TCP has it.
    """

    NONE = 0
    DROP = 1
    DELAY = 2
    DUPLICATE = 3
    REORDER = 4
    CORRUPT = 5
    PARTITION = 6
    HOLD = 7
