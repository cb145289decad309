"""Settling: how observed fills, marks and terminal records move the page's words (keeper only).

Every move is made in the order that only ever overstates: what a fill adds is added before what it
replaces is taken away. The keeper is the only process that changes positions, so its moves need no
compare-and-swap against themselves; against the checks of clients they are atomic adds.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.gate.reserve import (
    add_closable,
    mark_position,
    move_position_down,
    move_position_up,
    shrink_entry,
)
from tripgate.gate.words import (
    COMMITTED,
    FREE,
    RELEASING,
    RESERVED,
    STATE_MASK,
    UNSENT,
    entry_word,
    token_slot,
)
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import (
    CLAIM,
    ENTRIES_PER_SLOT,
    ENTRY,
    EXIT_SLOT,
    KEY,
    SLOT,
    STOP_SLOT,
    SUM,
    WATERMARK,
)
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter, recover_sequence
from tripgate.processes import is_alive

LIVE_STATES = (RESERVED, COMMITTED, UNSENT, RELEASING)


@dataclass(frozen=True)
class EntryRef:
    """One entry: its row number and the key it belongs to."""

    row: int
    key: int
    lots: int
    flags: int
    remaining: int
    token: int

    @property
    def closes(self) -> bool:
        """Whether the entry reduces a position (close, exit or stop)."""
        return bool(self.flags & (FLAG_CLOSING | FLAG_EXIT | FLAG_STOP))


class Settlement:
    """The keeper's hand on entries, closable words, claims and node sums of one page."""

    def __init__(self, page: Page, slot: int) -> None:
        self._page = page
        self._sums = page.address(SUM, 0)
        self._section = page.address(SLOT, slot, "section")
        self._entries = page.rows(ENTRY)
        self._to_free: dict[int, int] = {}

    def find(self, token: int) -> EntryRef | None:
        """Return the live entry of a token, or None if it has been released already."""
        entries = self._entries
        slot = token_slot(token)
        if slot in (EXIT_SLOT, STOP_SLOT):
            rows = (entries["token"] == token).nonzero()[0]
        else:
            first = self._page.slot_entries(slot)
            own = entries["token"][first : first + ENTRIES_PER_SLOT]
            rows = first + (own == token).nonzero()[0]
        for row in rows:
            if int(entries["word"][row]) & STATE_MASK in LIVE_STATES:
                return self._ref(int(row))
        return None

    def fill(self, key: int, entry: EntryRef | None, signed_lots: int, charged_after: int) -> None:
        """Move one fill: position, pending close or claim, entry, and the nodes' sums.

        Parameters
        ----------
        signed_lots
            What was filled.
        charged_after
            Worth of the whole position after the fill, signed money units.
        """
        address = self._page.address(KEY, key)
        reduces = entry is None or entry.closes
        holds = entry is not None and bool(entry.flags & FLAG_CLOSING)
        self._enter()
        move_position_up(address, self._sums, charged_after)
        pending = -abs(signed_lots) if holds else 0
        if not add_closable(address, signed_lots, pending):
            raise InvariantBroken(f"closable word of key {key} is never still")
        if reduces:
            self._move_claim(key, signed_lots)
        if entry is not None:
            left = max(0, entry.remaining - abs(signed_lots))
            shrink_entry(self._page.address(ENTRY, entry.row), address, self._sums, left)
        move_position_down(address, self._sums, charged_after)
        self._leave()

    def mark(self, key: int, charged_after: int) -> None:
        """Re-mark a position: its worth in the nodes becomes ``charged_after``."""
        self._enter()
        mark_position(self._page.address(KEY, key), self._sums, charged_after)
        self._leave()

    def release(self, token: int) -> bool:
        """Release what is left of an order whose terminal record was observed.

        The entry becomes free once its decision record is durable. Returns whether there was a
        live entry.
        """
        entry = self.find(token)
        if entry is None:
            return False
        word = self._page.address(ENTRY, entry.row)
        atomics.store(word, entry_word(token, RELEASING))
        self._give_back(entry)
        return True

    def reap(self, now_ns: int) -> list[int]:
        """Release entries that stayed RESERVED beyond their deadline; return their tokens."""
        words = self._entries["word"]
        expired = ((words & STATE_MASK) == RESERVED) & (self._entries["deadline_ns"] < now_ns)
        tokens = []
        for row in expired.nonzero()[0]:
            entry = self._ref(int(row))
            address = self._page.address(ENTRY, entry.row)
            old = entry_word(entry.token, RESERVED)
            new = entry_word(entry.token, RELEASING)
            # The router may be committing it this very moment: only one of the two wins.
            if atomics.compare_exchange(address, old, new) == old:
                self._give_back(entry)
                tokens.append(entry.token)
        return tokens

    def free_durable(self) -> None:
        """Make released entries reusable whose record is in the log."""
        durable = self._page.rows(WATERMARK)["sequence"]
        for row, token in list(self._to_free.items()):
            slot = token_slot(token)
            sequence = int(self._entries["record_sequence"][row])
            own = slot not in (EXIT_SLOT, STOP_SLOT)
            if own and not sequence:
                self._post_for_the_dead(row, slot)
                continue
            if own and sequence > int(durable[slot]):
                continue
            # The router may meanwhile have issued the key's next exit in this very place: only the
            # order that was released is freed.
            old, new = entry_word(token, RELEASING), entry_word(token, FREE)
            atomics.compare_exchange(self._page.address(ENTRY, row), old, new)
            del self._to_free[row]

    def _post_for_the_dead(self, row: int, slot: int) -> None:
        """Post the record that a client was killed before posting: every approval is on record."""
        owner = self._page.rows(SLOT)[slot]
        if is_alive(abs(int(owner["pid"])), int(owner["start_time"])):
            return
        recover_sequence(self._page, slot)
        entry = self._entries[row]
        record = entry["record"].tobytes()
        posted = RingWriter(self._page, slot).append(
            int(EventKind.DECISION), record, host_ns(), int(entry["t_signed_ms"])
        )
        entry["record_sequence"] = posted or 0

    def adopt_releasing(self) -> None:
        """Take over entries that a predecessor left RELEASING."""
        words = self._entries["word"]
        for row in ((words & STATE_MASK) == RELEASING).nonzero()[0]:
            self._to_free[int(row)] = int(self._entries["token"][row])

    def _give_back(self, entry: EntryRef) -> None:
        key = self._page.address(KEY, entry.key)
        self._enter()
        left = entry.remaining
        shrink_entry(self._page.address(ENTRY, entry.row), key, self._sums, 0)
        if entry.flags & FLAG_CLOSING:
            add_closable(key, 0, -left)
        elif not entry.closes:
            self._move_claim(entry.key, -left if entry.lots > 0 else left)
        self._leave()
        self._to_free[entry.row] = entry.token

    def _move_claim(self, key: int, lots: int) -> None:
        instrument = self._page.names.keys[key][1]
        atomics.fetch_add(self._page.address(CLAIM, instrument, "lots"), lots)

    def _ref(self, row: int) -> EntryRef:
        entry: Any = self._entries[row]
        return EntryRef(
            row, int(entry["key"]), int(entry["lots"]), int(entry["flags"]),
            int(entry["remaining"]), int(entry["token"]),
        )  # fmt: skip

    def _enter(self) -> None:
        atomics.fetch_add(self._section, 1)

    def _leave(self) -> None:
        atomics.fetch_add(self._section, 1)
