"""Settling: how observed fills, marks and terminal records move the page's words (keeper only).

Every move is made in the order that only ever overstates: what a fill adds is added before what it
replaces is taken away. The keeper is the only process that changes positions, so its moves need no
compare-and-swap against themselves; against the checks of clients they are atomic adds.

An exit that was taken during a freeze (UNPOSTED) stands in no node's sum until it is posted here:
its fills and its release move the closable word alone.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import InvariantBroken
from tripgate.gate.denials import post_merged
from tripgate.gate.record import FLAG_CLOSING
from tripgate.gate.recount import CLOSES
from tripgate.gate.reserve import (
    CAS_TRIES,
    add_closable,
    charge_side,
    mark_position,
    move_position_down,
    move_position_up,
    remaining_charge,
    remaining_margin,
    shrink_entry,
)
from tripgate.gate.words import (
    COMMITTED,
    FREE,
    RELEASING,
    RESERVED,
    STATE_MASK,
    UNPOSTED,
    UNSENT,
    entry_word,
    token_slot,
)
from tripgate.machines.reservation import EntryState
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import (
    CLAIM,
    CONTROL_HEADER,
    COUNTERS_HEADER,
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
THAW_WAIT_NS = 10 * NS_PER_S
"""How long a move waits for a repair that another process has under way."""
THAW_POLL_S = 0.1 * NS_PER_MS / NS_PER_S
KEPT_RECORD = -1
"""``record_sequence`` of an entry whose record stands in the log under an earlier epoch."""


@dataclass(frozen=True)
class EntryRef:
    """One entry: its row number and the key it belongs to."""

    row: int
    key: int
    lots: int
    flags: int
    remaining: int
    token: int
    unposted: bool

    @property
    def closes(self) -> bool:
        """Whether the entry reduces a position (close, exit or stop)."""
        return bool(self.flags & CLOSES)


class Settlement:
    """The keeper's hand on entries, closable words, claims and node sums of one page."""

    def __init__(self, page: Page, slot: int) -> None:
        self._page = page
        self._sums = page.address(SUM, 0)
        self._section = page.address(SLOT, slot, "section")
        self._freeze = page.address(CONTROL_HEADER, 0, "freeze")
        self._unposted = page.address(COUNTERS_HEADER, 0, "unposted")
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

    def state_of(self, entry: EntryRef) -> EntryState:
        """Return the present state of an entry."""
        return EntryState(int(self._entries["word"][entry.row]) & STATE_MASK)

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
            self._shrink(entry, left)
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
        self._enter()
        atomics.store(self._page.address(ENTRY, entry.row), entry_word(token, RELEASING))
        self._give_back(entry)
        self._leave()
        return True

    def reap(self, now_ns: int) -> list[int]:
        """Release entries that stayed RESERVED beyond their deadline; return their tokens."""
        words = self._entries["word"]
        expired = ((words & STATE_MASK) == RESERVED) & (self._entries["deadline_ns"] < now_ns)
        tokens = []
        for row in expired.nonzero()[0]:
            entry = self._ref(int(row))
            address = self._page.address(ENTRY, entry.row)
            old = entry_word(entry.token, RESERVED) | (UNPOSTED if entry.unposted else 0)
            new = entry_word(entry.token, RELEASING)
            self._enter()
            # The router may be committing it this very moment: only one of the two wins.
            if atomics.compare_exchange(address, old, new) == old:
                self._give_back(entry)
                tokens.append(entry.token)
            self._leave()
        return tokens

    def post_exits(self) -> int:
        """Add exits that were taken during a freeze to the sums; return how many.

        Does nothing while the page is frozen. Until all are posted, openings are denied, so that
        no opening is judged by a sum that lacks a close.
        """
        if not atomics.load(self._unposted) or atomics.load(self._freeze):
            return 0
        words, posted = self._entries["word"], 0
        for row in ((words & UNPOSTED) != 0).nonzero()[0]:
            if int(words[row]) & STATE_MASK in LIVE_STATES:
                self._post_exit(self._ref(int(row)))
                posted += 1
        return posted

    def _post_exit(self, entry: EntryRef) -> None:
        address = self._page.address(ENTRY, entry.row)
        charged = int(self._entries["charged"][entry.row])
        self._enter()
        charge_side(self._page.address(KEY, entry.key), self._sums, entry.lots, charged)
        for _ in range(CAS_TRIES):
            # The router may be moving the state; the bit is the keeper's alone.
            old = atomics.load(address)
            if atomics.compare_exchange(address, old, old & ~UNPOSTED) == old:
                break
        else:
            raise InvariantBroken(f"the word of entry {entry.row} is never still")
        atomics.fetch_add(self._unposted, -1)
        self._leave()

    def free_durable(self) -> None:
        """Make released entries reusable whose record is in the log; post what the dead counted."""
        self._post_denials_of_the_dead()
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

    def _post_denials_of_the_dead(self) -> None:
        """Post the merged denials of clients that died: nobody claims their slot before."""
        slots = self._page.rows(SLOT)
        for slot in (slots["merged_count"] > 0).nonzero()[0]:
            pid, start_time = int(slots["pid"][slot]), int(slots["start_time"][slot])
            if not is_alive(abs(pid), start_time):
                recover_sequence(self._page, int(slot))
                post_merged(self._page, int(slot))

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
        """Give back what an entry that is RELEASING by now still holds (inside a section)."""
        key = self._page.address(KEY, entry.key)
        left = entry.remaining
        self._shrink(entry, 0)
        if entry.flags & FLAG_CLOSING:
            add_closable(key, 0, -left)
            self._one_rests_less(entry.key)
        elif not entry.closes:
            self._move_claim(entry.key, -left if entry.lots > 0 else left)
        if entry.unposted:
            atomics.fetch_add(self._unposted, -1)
        self._to_free[entry.row] = entry.token

    def _shrink(self, entry: EntryRef, left: int) -> None:
        """Lower an entry to ``left`` lots and release that part of its charge."""
        address = self._page.address(ENTRY, entry.row)
        if not entry.unposted:
            shrink_entry(address, self._page.address(KEY, entry.key), self._sums, left)
            return
        row = self._entries[entry.row]
        row["charged"] = min(int(row["charged"]), remaining_charge(address, left))
        row["margin_charged"] = min(int(row["margin_charged"]), remaining_margin(address, left))
        row["remaining"] = left

    def _one_rests_less(self, key: int) -> None:
        address = self._page.address(KEY, key, "resting")
        for _ in range(CAS_TRIES):
            old = atomics.load(address)
            if old <= 0 or atomics.compare_exchange(address, old, old - 1) == old:
                return
        raise InvariantBroken(f"the resting count of key {key} is never still")

    def _move_claim(self, key: int, lots: int) -> None:
        if not self._page.names.sides or self._page.names.sides[key] == 0:
            instrument = self._page.names.keys[key][1]
            atomics.fetch_add(self._page.address(CLAIM, instrument, "lots"), lots)

    def _ref(self, row: int) -> EntryRef:
        entry: Any = self._entries[row]
        return EntryRef(
            row, int(entry["key"]), int(entry["lots"]), int(entry["flags"]),
            int(entry["remaining"]), int(entry["token"]), bool(int(entry["word"]) & UNPOSTED),
        )  # fmt: skip

    def _enter(self) -> None:
        """Begin a section, once no repair is under way."""
        deadline = 0
        while True:
            atomics.fetch_add(self._section, 1)
            if not atomics.load(self._freeze):
                return
            atomics.fetch_add(self._section, 1)
            deadline = deadline or host_ns() + THAW_WAIT_NS
            if host_ns() > deadline:
                raise InvariantBroken("the page stays frozen: its repairer died; repair it first")
            sleep_s(THAW_POLL_S)

    def _leave(self) -> None:
        atomics.fetch_add(self._section, 1)
