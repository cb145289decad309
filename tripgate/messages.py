"""Kinds and bodies of everything that goes through rings into the log.

A body is a msgpack map; its keys are part of the log format and stand here alone. Decisions are the
exception: their body is the raw 256-byte record (``gate.record``). ``SCHEMA_VERSION`` stands in
each run's first record, so that a reader knows what it reads.
"""

from enum import IntEnum

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
    RISK_SNAPSHOT = 50
    OPERATOR = 60
    LIMITS_CHANGED = 61


class DoneState(IntEnum):
    """How an order ended. ``UNSENT`` and ``EXPIRED`` never left; ``NEVER_ARRIVED`` is proved."""

    FILLED = 1
    CANCELLED = 2
    REJECTED = 3
    UNSENT = 4
    EXPIRED = 5
    NEVER_ARRIVED = 6
