"""The router's side of an entry: read it, commit it, look again, send or take it back.

``Approved`` can only be made here, from an entry the gate wrote and whose checksum holds; the
router's send takes nothing else, so an unchecked order does not type-check (P1). After the swap
RESERVED → COMMITTED an opening is judged once more against levels and leases: what tightened since
the check stops it before it leaves.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_MARKET, FLAG_STOP
from tripgate.gate.words import (
    COMMITTED,
    RESERVED,
    STATE_MASK,
    UNPOSTED,
    UNSENT,
    entry_checksum,
    entry_word,
    token_epoch,
    token_slot,
)
from tripgate.page import atomics
from tripgate.page.layout import ENTRIES_PER_SLOT, ENTRY, INSTRUMENT, KEY, LEASE, WATERMARK
from tripgate.page.level import node_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level

VENUE_WINDOW_MS = 1_000
"""How long after ``t_signed`` the venue may still take an opening (OPERATIONS section 4)."""
SEND_WINDOW_MS = VENUE_WINDOW_MS // 2
"""An opening leaves only while at least half of the venue's window remains."""
MOVE_TRIES = 16
"""Bound of a state's swap: a try fails only when the keeper posts the entry in between, once."""


@dataclass(frozen=True)
class Approved:
    """An order the gate has approved, exactly as its entry holds it."""

    token: int
    row: int
    key: int
    instrument: int
    flags: int
    lots: int
    price_ticks: int
    stop_ticks: int
    t_signed_ms: int

    @property
    def opens(self) -> bool:
        """Whether the order adds risk."""
        return not self.flags & (FLAG_CLOSING | FLAG_EXIT | FLAG_STOP)

    @property
    def is_market(self) -> bool:
        """Whether it was checked as a market order."""
        return bool(self.flags & FLAG_MARKET)

    @property
    def is_stop(self) -> bool:
        """Whether it is a protective stop."""
        return bool(self.flags & FLAG_STOP)

    @property
    def is_exit(self) -> bool:
        """Whether it is the merged exit of its key."""
        return bool(self.flags & FLAG_EXIT)


def read_entry(page: Page, row: int, token: int, *, any_epoch: bool = False) -> Approved | None:
    """Return the order in an entry if it holds this token in this epoch and its checksum.

    Parameters
    ----------
    any_epoch
        Also an order of an earlier run, whose fate is asked about. It is never sent.
    """
    entry: Any = page.rows(ENTRY)[row]
    if int(entry["token"]) != token or not (any_epoch or token_epoch(token) == page.epoch):
        return None
    if int(entry["checksum"]) != entry_checksum(page.address(ENTRY, row)):
        return None
    return Approved(
        token, row, int(entry["key"]), int(entry["instrument"]), int(entry["flags"]),
        int(entry["lots"]), int(entry["price"]), int(entry["stop"]), int(entry["t_signed_ms"]),
    )  # fmt: skip


def find_reserved(page: Page, token: int, slot: int) -> Approved | None:
    """Return the RESERVED order of a token that the owner of ``slot`` was given, or None."""
    if token_slot(token) != slot:
        return None
    first = page.slot_entries(slot)
    words = page.rows(ENTRY)["word"][first : first + ENTRIES_PER_SLOT] & ~UNPOSTED
    for place in (words == entry_word(token, RESERVED)).nonzero()[0]:
        return read_entry(page, first + int(place), token)
    return None


def live_rows(page: Page, states: tuple[int, ...] = (COMMITTED, UNSENT)) -> list[int]:
    """Return the rows of all entries in the given states."""
    words = page.rows(ENTRY)["word"] & STATE_MASK
    rows: list[int] = []
    for state in states:
        rows.extend(int(row) for row in (words == state).nonzero()[0])
    return sorted(rows)


def is_durable(page: Page, order: Approved) -> bool:
    """Whether the order's decision record is in the log."""
    sequence = int(page.rows(ENTRY)["record_sequence"][order.row])
    slot = token_slot(order.token)
    return 0 < sequence <= int(page.rows(WATERMARK)["sequence"][slot])


def commit(page: Page, order: Approved) -> bool:
    """Swap RESERVED → COMMITTED; False if the reaper was first or the entry is not what it was."""
    if not _move(page, order, RESERVED, COMMITTED):
        return False
    return read_entry(page, order.row, order.token) == order


def take_back(page: Page, order: Approved) -> None:
    """Mark a committed order that never left: COMMITTED → UNSENT; the keeper releases it."""
    _move(page, order, COMMITTED, UNSENT)


def _move(page: Page, order: Approved, before: int, after: int) -> bool:
    """Swap the state of an order's entry, if it is still ``before``.

    An exit taken during a repair carries a bit beside its state, which stays as it is; only the
    keeper takes it away, and it may do so this very moment.
    """
    address = page.address(ENTRY, order.row)
    for _ in range(MOVE_TRIES):
        word = atomics.load(address)
        if word & ~UNPOSTED != entry_word(order.token, before):
            return False
        new = entry_word(order.token, after) | (word & UNPOSTED)
        if atomics.compare_exchange(address, word, new) == word:
            return True
    return False


def is_committed(page: Page, order: Approved) -> bool:
    """Whether an order's entry is COMMITTED still: nobody has released it."""
    word = atomics.load(page.address(ENTRY, order.row))
    return word & ~UNPOSTED == entry_word(order.token, COMMITTED)


def why_not_send(page: Page, order: Approved, market_ms: int, now_ns: int) -> str | None:
    """Return why a committed opening must not leave now, or None. Exits are never held back."""
    if not order.opens:
        return None
    if market_ms - order.t_signed_ms > SEND_WINDOW_MS:
        return "expired before the send"
    if page.header["shadow"]:
        # What tightened since the check would have stopped it: a shadow page only looks on.
        return "the instance is closed" if page.header["closed"] else None
    nodes = page.rows(KEY)["node"][order.key]
    level = max(node_level(page, int(node)) for node in nodes)
    if level >= Level.MEDIUM:
        return f"level {level.name}"
    mask = int(page.rows(INSTRUMENT)["role_mask"][order.instrument])
    deadlines = page.rows(LEASE)["deadline_ns"]
    for role in range(len(page.names.roles)):
        if mask >> role & 1 and int(deadlines[role]) <= now_ns:
            return f"lease of {page.names.roles[role].text} lapsed"
    return "the instance is closed" if page.header["closed"] else None
