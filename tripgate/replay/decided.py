"""A decision as the log holds it, and what can be said of each reason from its record alone.

``fully``: the record and the terms in force hold everything that the rule reads; the decision is
made again, and reason, scope, limit, used and requested must all come out the same. ``partly``: one
word that the rule read is in no record (a flag of the freeze, the exit claim, the guard's word, a
second reading); everything else is decided again, the numbers must be possible, and the decision is
counted as not re-decidable, never as equal. ``never``: the gate writes no record of it.
"""

import struct
from enum import Enum
from typing import NamedTuple

from tripgate.gate.record import (
    FIELDS,
    FLAG_SHADOW,
    FLAGS_SHIFT,
    GROSS_AT,
    LEASE_ROLE_SHIFT,
    LEVEL_SHIFT,
    RECORD_BYTES,
    SCOPE_SHIFT,
    SIDE_AT,
)
from tripgate.reasons import DenyReason

_WORDS = struct.Struct(f"<{RECORD_BYTES // 8}q")
_VALUES = tuple(FIELDS.index(name) for name in (
    "lots", "price", "stop", "t_signed_ms", "host_ns", "generation", "lease_left_ns", "mark",
    "mark_sequence", "mark_ms", "limit", "used", "requested", "throttle", "notional", "position",
    "margin", "rate_ppm",
))  # fmt: skip
_TOKEN, _OUTCOME, _IDS, _LIMITS = (
    FIELDS.index(name) for name in ("token", "outcome", "scope_ids", "limits")
)


class Decidable(Enum):
    """How far a record's reason can be decided again."""

    FULLY = "fully"
    PARTLY = "partly"
    NEVER = "never"


REASONS: dict[DenyReason, tuple[Decidable, str]] = {
    DenyReason.PAGE_CLOSED: (Decidable.PARTLY, "the page's closed word"),
    DenyReason.EPOCH_CHANGED: (Decidable.PARTLY, "the two files' epochs"),
    DenyReason.BAD_QUANTITY: (Decidable.FULLY, ""),
    DenyReason.BAD_PRICE: (Decidable.FULLY, ""),
    DenyReason.NOT_TRADABLE: (Decidable.FULLY, ""),
    DenyReason.LEVEL: (Decidable.FULLY, ""),
    DenyReason.LEASE_LAPSED: (Decidable.FULLY, ""),
    DenyReason.INPUT_STALE: (Decidable.PARTLY, "the role's stale word"),
    DenyReason.MARK_STALE: (Decidable.FULLY, ""),
    DenyReason.PRICE_COLLAR: (Decidable.FULLY, ""),
    DenyReason.STOP_MISSING: (Decidable.FULLY, ""),
    DenyReason.STOP_WRONG_SIDE: (Decidable.FULLY, ""),
    DenyReason.STOP_TOO_FAR: (Decidable.FULLY, ""),
    DenyReason.ORDER_NOTIONAL: (Decidable.FULLY, ""),
    DenyReason.ORDER_RATE: (Decidable.FULLY, "the rate word at the charge, if it moved"),
    DenyReason.OPPOSED_POSITION: (Decidable.FULLY, ""),
    DenyReason.EXIT_PENDING: (Decidable.PARTLY, "resting closes, or that only an opening is asked"),
    DenyReason.EXIT_IN_PROGRESS: (Decidable.PARTLY, "the exit claim"),
    DenyReason.MIXED: (Decidable.FULLY, "the closable word at the hold, if it moved"),
    DenyReason.GROSS_LIMIT: (Decidable.FULLY, ""),
    DenyReason.NET_LIMIT: (Decidable.FULLY, ""),
    DenyReason.AMOUNT_OVERFLOW: (Decidable.FULLY, ""),
    DenyReason.ENTRIES_FULL: (Decidable.PARTLY, "the states of the slot's entries"),
    DenyReason.RING_FULL: (Decidable.PARTLY, "the ring's cursors; seldom has it room for a record"),
    DenyReason.TRIPPED: (Decidable.PARTLY, "the generation's second reading"),
    DenyReason.FROZEN: (Decidable.PARTLY, "the freeze word, or a word that never stood still"),
    DenyReason.MARGIN: (Decidable.FULLY, ""),
    DenyReason.ORDER_LOTS: (Decidable.FULLY, ""),
    DenyReason.DUPLICATE_ORDER: (Decidable.PARTLY, "the key's last order"),
    DenyReason.REPEATED_ORDER: (Decidable.PARTLY, "the key's run of equal orders"),
    DenyReason.ATTEMPT_RATE: (Decidable.PARTLY, "the strategy's attempt word"),
    DenyReason.STALE_HANDLE: (Decidable.NEVER, "the handle has no ring to write to"),
    DenyReason.NO_POSITION: (Decidable.FULLY, ""),
    DenyReason.QUOTE_STALE: (Decidable.PARTLY, "the time of the quote currency's rate"),
}
"""Of each reason: how far it can be decided again, and which word is in no record."""


class BadRecordError(Exception):
    """The bytes are no decision record."""


class Decided(NamedTuple):
    """A decision record, and whose ring it stood in.

    Amounts in lots, ticks and money units; times as the record has them.
    """

    token: int
    reason: DenyReason | None
    flags: int
    level: int
    lease_role: int
    scope: int
    strategy: int
    instrument: int
    epoch: int
    version: int
    lots: int
    price: int
    stop: int
    t_signed_ms: int
    host_ns: int
    generation: int
    lease_left_ns: int
    mark: int
    mark_sequence: int
    mark_ms: int
    limit: int
    used: int
    requested: int
    throttle: int
    notional: int
    position: int
    margin: int
    rate_ppm: int
    gross: tuple[int, ...]
    side: tuple[int, ...]

    @property
    def held(self) -> int:
        """The strategy's own position as it was read, signed lots."""
        return self.position >> 32

    @property
    def pending(self) -> int:
        """Lots that closes on their way had promised to take from it."""
        return self.position & 0xFFFF_FFFF

    @property
    def is_shadow(self) -> bool:
        """Whether a shadow page granted it."""
        return bool(self.flags & FLAG_SHADOW)


def read_decision(body: bytes) -> Decided:
    """Return the record in a row's body. Raises ``BadRecordError``."""
    if len(body) != RECORD_BYTES:
        raise BadRecordError(f"a decision record has {RECORD_BYTES} bytes, was {len(body)}")
    words = _WORDS.unpack(body)
    outcome, ids, limits = words[_OUTCOME], words[_IDS], words[_LIMITS]
    code = outcome & 0xFFFF
    try:
        reason = DenyReason(code) if code else None
    except ValueError:
        raise BadRecordError(f"there is no reason {code}") from None
    return Decided._make((
        words[_TOKEN], reason, (outcome >> FLAGS_SHIFT) & 0xFFFF, (outcome >> LEVEL_SHIFT) & 0xFF,
        (outcome >> LEASE_ROLE_SHIFT) & 0xFF, outcome >> SCOPE_SHIFT, ids & 0xFFFF_FFFF, ids >> 32,
        limits >> 32, limits & 0xFFFF_FFFF, *(words[place] for place in _VALUES),
        words[GROSS_AT:SIDE_AT], words[SIDE_AT:],
    ))  # fmt: skip
