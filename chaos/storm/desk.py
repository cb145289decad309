"""The storm's desk: router, venue and position keeper in one process that may die at any moment.

It commits, takes back, fills in pieces, cancels, reaps, stops out, flattens and re-marks through
the product's own functions, and repairs the page as the keeper does: at its start, and whenever a
process has died inside a section. What a venue would know (fills and ends) it writes to the
journal before it moves the page, so that its successor finds the truth.
"""

from random import Random

from chaos.storm.ground import CLIENT_SLOTS, KEEPER, Ground
from chaos.storm.ledger import JOURNAL_FILE, Journal, Known, Note, differences, read_known
from chaos.storm.watch import Reporter
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.gate.commit import commit, find_reserved, live_rows, take_back
from tripgate.gate.exits import drop_exit, issue_exit, lower_wish
from tripgate.gate.record import FLAG_EXIT
from tripgate.gate.recount import CLOSES
from tripgate.gate.repair import Truth, died_inside, freeze, rebuild, thaw
from tripgate.gate.settle import EntryRef, Settlement
from tripgate.gate.slots import take_role_slot
from tripgate.gate.words import COMMITTED, FREE, RESERVED, STATE_MASK, UNSENT, token_slot
from tripgate.page.layout import (
    CURSOR,
    ENTRY,
    KEY,
    ROLE,
    ROLE_SLOTS,
    SLOT,
    WATERMARK,
    exit_entry,
)
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader, RingWriter

ORDERS_PER_TURN = 16
TAKE_BACK, FILL_WHOLE, FILL_PART, CANCEL = 0.08, 0.25, 0.75, 0.9
"""Bounds of one uniform draw: what becomes of an order, in this order; above the last: nothing."""
STOP_OUT, MARK, REAP_EARLY = 0.05, 0.2, 0.03
TURN_REST_S = 0.0002
EARLY_NS = 10 * NS_PER_S


class Desk:
    """One desk process.

    Parameters
    ----------
    repairs
        False is a planted bug: the page of the dead is taken as it is.
    """

    def __init__(
        self, ground: Ground, reporter: Reporter, *, incarnation: int, seed: int,
        repairs: bool = True,
    ) -> None:  # fmt: skip
        self._ground, self._page, self._report = ground, ground.page, reporter
        self._repairs = repairs
        self._draw = Random(seed)
        self._journal = Journal(ground.page.folder)
        self._slot = take_role_slot(ground.page, KEEPER, incarnation)
        self._settlement = Settlement(ground.page, self._slot)
        self._reader = RingReader(ground.page, "audit")
        self._ring = RingWriter(ground.page, self._slot)
        self._repair(begins=True)
        # The observer believes the page from here on.
        self._page.rows(ROLE)["incarnation"][KEEPER] = incarnation

    def turn(self) -> None:
        """Do a little of everything that a tree does with the orders of its clients."""
        if died_inside(self._page):
            self._repair(begins=False)
        self._settlement.post_exits()
        self._drain()
        for row in self._some(live_rows(self._page, (RESERVED,))):
            self._send(int(self._page.rows(ENTRY)["token"][row]))
        rows = live_rows(self._page, (COMMITTED, UNSENT))
        # Exits go first, as a router has them: a key under way answers nothing else.
        first_exit = exit_entry(self._page.layout.capacities, 0)
        for row in [*(row for row in rows if row >= first_exit), *self._some(rows)]:
            entry = self._settlement.find(int(self._page.rows(ENTRY)["token"][row]))
            if entry is not None:
                self._advance(entry)
        self._work_exits()
        key = self._draw.randrange(len(self._page.names.keys))
        if self._draw.random() < STOP_OUT and self._ground.reduces_only(key):
            self._stop_out(key)
        if self._draw.random() < MARK:
            self._settlement.mark(key, self._ground.worth(key, self._ground.position(key)))
        early = EARLY_NS if self._draw.random() < REAP_EARLY else 0
        self._settlement.reap(host_ns() + early)
        self._settlement.free_durable()
        sleep_s(TURN_REST_S)

    def _some(self, rows: list[int]) -> list[int]:
        return self._draw.sample(rows, min(ORDERS_PER_TURN, len(rows)))

    def _send(self, token: int) -> None:
        order = find_reserved(self._page, token, token_slot(token))
        if order is None or not commit(self._page, order):
            return
        late = not order.opens and not self._fits(order.key)
        if late or self._draw.random() < TAKE_BACK:
            take_back(self._page, order)

    def _fits(self, key: int) -> bool:
        """Whether everything that closes a key at the venue fits its position.

        Where reduce-only is enforced the venue sees to it. Elsewhere the gate's holds do, until an
        exit takes lots that a close was granted before: from then on a router must look itself.
        """
        if self._ground.reduces_only(key) or not self._has_exited(key):
            return True
        return self._closing_lots(key) <= abs(self._ground.position(key))

    def _has_exited(self, key: int) -> bool:
        return bool(self._page.rows(ENTRY)["token"][self._exit_row(key)])

    def _exit_row(self, key: int) -> int:
        return exit_entry(self._page.layout.capacities, key)

    def _closing_lots(self, key: int) -> int:
        """Return how many lots of a key are being closed at the venue."""
        entries = self._page.rows(ENTRY)
        rows = live_rows(self._page, (COMMITTED,))
        return sum(
            int(entries["remaining"][row])
            for row in rows
            if int(entries["key"][row]) == key and int(entries["flags"][row]) & CLOSES
        )

    def _advance(self, entry: EntryRef) -> None:
        """Let the venue do something with a live order."""
        state = int(self._page.rows(ENTRY)["word"][entry.row]) & STATE_MASK
        most = entry.remaining
        if entry.closes and self._ground.reduces_only(entry.key):
            # The venue fills no reduce-only order beyond the position, and ends one without any.
            position = self._ground.position(entry.key)
            most = min(most, abs(position)) if position * entry.lots < 0 else 0
        chance = self._draw.random()
        if state == UNSENT or most == 0:
            self._end(entry)
        elif chance < FILL_WHOLE:
            self._fill(entry, most)
        elif chance < FILL_PART:
            self._fill(entry, self._draw.randint(1, most))
        elif chance < CANCEL:
            self._end(entry)

    def _fill(self, entry: EntryRef, lots: int) -> None:
        signed = lots if entry.lots > 0 else -lots
        note = Note.CLOSED if entry.closes else Note.OPENED
        self._journal.append(note, entry.token, entry.key, signed)
        if entry.flags & FLAG_EXIT:
            lower_wish(self._page, entry.key, lots)
        after = self._ground.worth(entry.key, self._ground.position(entry.key) + signed)
        self._settlement.fill(entry.key, entry, signed, after)
        if lots == entry.remaining:
            self._end(entry)

    def _end(self, entry: EntryRef) -> None:
        self._journal.append(Note.ENDED, entry.token, entry.key)
        self._settlement.release(entry.token)

    def _stop_out(self, key: int) -> None:
        """Let a protective stop, a liquidation or a hand take a part of a position."""
        position = self._ground.position(key)
        if position == 0:
            return
        lots = self._draw.randint(1, abs(position))
        signed = -lots if position > 0 else lots
        self._journal.append(Note.STOPPED, 0, key, signed)
        self._settlement.fill(key, None, signed, self._ground.worth(key, position + signed))

    def _work_exits(self) -> None:
        """Carry out the wishes that claim a key, one live exit per key."""
        keys, entries = self._page.rows(KEY), self._page.rows(ENTRY)
        market_ms = int(self._page.header["market_ms"])
        for key in map(int, keys["exit_claim"].copy().nonzero()[0]):
            if int(entries["word"][self._exit_row(key)]) & STATE_MASK != FREE:
                continue
            if not self._ground.reduces_only(key) and self._closing_lots(key):
                self._cancel_closes(key)
                continue
            wish = int(keys["exit_lots"][key])
            if not issue_exit(self._page, self._ring, key, market_ms, lots_max=wish):
                drop_exit(self._page, key, wish)

    def _cancel_closes(self, key: int) -> None:
        """Take a key's closes off a venue that would not reduce them by itself."""
        for row in live_rows(self._page, (COMMITTED,)):
            entry = self._settlement.find(int(self._page.rows(ENTRY)["token"][row]))
            if entry is not None and entry.key == key and entry.closes:
                self._end(entry)

    def _drain(self) -> None:
        """Do what audit_writer does: mark records durable, give ring space back."""
        slots, cursors = self._page.rows(SLOT), self._page.rows(CURSOR)["audit"]
        for slot in (slots["ring_head"] != cursors).nonzero()[0]:
            self._page.rows(WATERMARK)["sequence"][slot] = slots["record_sequence"][slot]
            self._reader.skip_to_head(int(slot))

    def _repair(self, *, begins: bool) -> None:
        """Make the page agree with journal and tables, as the keeper does; judge the result."""
        self._journal.append(Note.REPAIR_BEGUN)
        freeze(self._page, self._slot)
        known = read_known(self._page.folder / JOURNAL_FILE, self._page)
        if self._repairs:
            rebuild(self._page, self._truth(known))
            self._report.add("after a repair", self._judge_repair())
        else:
            _end_sections(self._page)
        thaw(self._page)
        if begins:
            self._settlement.adopt_releasing()
            for row in live_rows(self._page, (COMMITTED, UNSENT)):
                token = int(self._page.rows(ENTRY)["token"][row])
                if token in known.ended:
                    self._settlement.release(token)
        self._journal.append(Note.REPAIRED)

    def _judge_repair(self) -> list[str]:
        """Return what is wrong right after a repair; exits may be under way meanwhile."""
        sections = self._page.rows(SLOT)["exit_section"]
        before = sections.copy()
        found = differences(self._page)
        if ((sections != before) | (before & 1)).any():
            return differences(self._page, exits=False)
        return found

    def _truth(self, known: Known) -> Truth:
        charged = {key: self._ground.worth(key, lots) for key, lots in known.positions.items()}
        return Truth(known.positions, charged, known.filled)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _end_sections(page: Page) -> None:
    slots = page.rows(SLOT)
    for slot in range(ROLE_SLOTS + CLIENT_SLOTS):
        for name in ("section", "exit_section"):
            slots[name][slot] += slots[name][slot] & 1
