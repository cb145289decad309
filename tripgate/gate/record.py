"""The decision record: 256 bytes that hold what a decision read, so that it can be decided again.

It is embedded in the order's entry before the entry becomes RESERVED, and copied to the ring. Its
field order is part of the log format. The check builds it in its handle's context and copies it
whole, so the context's words stand in exactly this order.

Of an approved opening ``limit`` is the margin limit that it was granted under, where it needed
margin; of a tree's own exit ``notional`` is what it counts at its side.

``outcome`` packs reason (16 bits), flags (16), level (8), least lease's role (8) and the scope that
spoke (16, signed: a node, or −1 − role).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tripgate.page.layout import NODES_PER_ORDER, RECORD_WORDS, WORD_BYTES, offsets_tuple
from tripgate.reasons import DenyReason

FIELDS = (
    "token", "outcome", "scope_ids", "lots", "price", "stop", "t_signed_ms", "host_ns",
    "generation", "limits", "lease_left_ns", "mark", "mark_sequence", "mark_ms", "limit", "used",
    "requested", "throttle", "notional", "position", "margin", "rate_ppm",
)  # fmt: skip
GROSS_AT = len(FIELDS)
SIDE_AT = GROSS_AT + NODES_PER_ORDER
RECORD_BYTES = RECORD_WORDS * WORD_BYTES
FLAGS_SHIFT, LEVEL_SHIFT, LEASE_ROLE_SHIFT, SCOPE_SHIFT = 16, 32, 40, 48
if SIDE_AT + NODES_PER_ORDER != RECORD_WORDS:
    raise AssertionError("the decision record does not fill its words")

WORD: Any = offsets_tuple({name: 8 * index for index, name in enumerate(FIELDS)})
"""Byte offset of each field in a record, as plain ints for the kernels."""

FLAG_CLOSING = 1
FLAG_MARKET = 2
FLAG_EXIT = 4
FLAG_STOP = 8
FLAG_SHADOW = 16
FLAG_HEDGE = 32
"""The order belongs to one side of an account in hedge mode; which one follows from its key."""

HOST_DEPENDENT = frozenset({"host_ns", "generation", "lease_left_ns", "lease_role"})
"""Fields that differ between two runs of one replay although the decisions are equal."""


@dataclass(frozen=True)
class DecisionRecord:
    """A decision record unpacked; amounts in lots, ticks and money units."""

    token: int
    reason: DenyReason | None
    flags: int
    level: int
    strategy: int
    instrument: int
    epoch: int
    limits_version: int
    values: dict[str, int]
    gross_before: tuple[int, ...]
    side_before: tuple[int, ...]

    @property
    def approved(self) -> bool:
        """Whether the order got a token (on a shadow page also one that names a reason)."""
        return self.token > 0

    @property
    def would_deny(self) -> bool:
        """Whether an enforcing page would have denied what this shadow page approved."""
        return self.token > 0 and self.reason is not None

    def replayed(self) -> tuple[object, ...]:
        """Return what two runs of one replay must agree on."""
        steady = tuple(v for k, v in self.values.items() if k not in HOST_DEPENDENT)
        return (self.reason, self.flags, self.level, self.strategy, self.instrument, steady,
                self.gross_before, self.side_before)  # fmt: skip


def unpack_record(data: bytes) -> DecisionRecord:
    """Return a record from its 256 bytes. Raises ``ValueError`` if they are not a record."""
    if len(data) != RECORD_BYTES:
        raise ValueError(f"a decision record has {RECORD_BYTES} bytes, was {len(data)}")
    words = [int(word) for word in np.frombuffer(data, dtype="<i8")]
    values = dict(zip(FIELDS, words, strict=False))
    outcome, ids, limits = values.pop("outcome"), values.pop("scope_ids"), values.pop("limits")
    token, code = values.pop("token"), outcome & 0xFFFF
    values["lease_role"] = (outcome >> LEASE_ROLE_SHIFT) & 0xFF
    values["scope"] = outcome >> SCOPE_SHIFT
    return DecisionRecord(
        token=token,
        reason=DenyReason(code) if code else None,
        flags=(outcome >> FLAGS_SHIFT) & 0xFFFF,
        level=(outcome >> LEVEL_SHIFT) & 0xFF,
        strategy=ids & 0xFFFF_FFFF,
        instrument=ids >> 32,
        epoch=limits >> 32,
        limits_version=limits & 0xFFFF_FFFF,
        values=values,
        gross_before=tuple(words[GROSS_AT:SIDE_AT]),
        side_before=tuple(words[SIDE_AT:RECORD_WORDS]),
    )


def pack_record(
    *, token: int, flags: int, strategy: int, instrument: int, lots: int, stop: int,
    t_signed_ms: int, host_ns: int, epoch: int, position: int, price: int = 0, notional: int = 0,
) -> bytes:  # fmt: skip
    """Return the record of an order the tree itself decided on: an exit or a protective stop.

    Such an order passes no limit, so the words of the check stay zero; ``notional`` is what an open
    exit counts at its side.
    """
    words = np.zeros(RECORD_WORDS, dtype="<i8")
    values = {
        "token": token, "outcome": flags << FLAGS_SHIFT, "scope_ids": strategy | (instrument << 32),
        "lots": lots, "stop": stop, "t_signed_ms": t_signed_ms, "host_ns": host_ns,
        "limits": epoch << 32, "position": position, "price": price, "notional": notional,
    }  # fmt: skip
    for name, value in values.items():
        words[FIELDS.index(name)] = value
    return words.tobytes()
