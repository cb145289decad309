"""Taking over the page of a run that did not end in order: its tables go on under a new epoch.

The files do not: a client of the old run may still have them mapped, and what it writes must not
reach the new tables. So the old page is closed and frozen, what its rings still hold is put into
the log under its own epoch, and its tables are copied into the new page before that opens. The
keeper's repair then makes sums and holds agree with the fills.

Reservations whose owner is gone expire; committed orders stay, and their router asks about them. A
page of another layout, of other instruments or units, or one that was not completed itself, is not
taken over: then the log alone tells what was, as after a reboot.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.audit_writer import row_of
from tripgate.audit.store import LogWriter, ProducerGapError
from tripgate.clock import host_ns, utc_ns
from tripgate.errors import InvariantBroken, PageError
from tripgate.gate.repair import freeze
from tripgate.gate.settle import KEPT_RECORD
from tripgate.gate.words import FREE, RESERVING, STATE_MASK, UNPOSTED
from tripgate.instance import page_folder
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import (
    ACCOUNT,
    BAR,
    BOARD,
    CAUSE,
    CLAIM,
    CONTROL_HEADER,
    COUNTERS_HEADER,
    ENTRIES_PER_SLOT,
    ENTRY,
    KEY,
    LIMIT,
    ROLE_SLOTS,
    SLOT,
    SUM,
    THROTTLE,
    Table,
)
from tripgate.page.level import LevelWriter
from tripgate.page.mapping import Page, open_page
from tripgate.page.ring import RingReader, RingWriter, recover_sequence
from tripgate.processes import is_alive

NOBODY = -1
"""The root owns no slot of the old page: it waits for all of them."""

KEPT_WHOLE: tuple[Table, ...] = (SUM, CLAIM, THROTTLE, ENTRY, CAUSE, BAR)
KEPT_FIELDS: dict[Table, tuple[str, ...]] = {
    KEY: (
        "closable", "charged", "exit_claim", "exit_lots", "exit_ms", "exit_cause", "stop_ticks",
        "cash_lot_ticks", "fees", "basis_lot_ticks", "margin_charged", "last_order", "repeats",
        "resting", "exit_count", "exit_first_ms",
    ),
    SLOT: ("token_sequence",),
    BOARD: ("bars",),
    ACCOUNT: ("rebase_sequence",),
}  # fmt: skip
"""What the new run may not lose; all else is written anew from config, venue and log."""
KEPT_COUNTERS = ("exit_sequence", "stop_sequence", "unposted")
KEPT_LEVELS = (LevelWriter.KEEPER, LevelWriter.OPERATOR)


@dataclass(frozen=True)
class StoredRings:
    """What was put into the log: how many records, and the slots of which some are lost."""

    records: int
    damaged: tuple[int, ...]


def find_old_page(instance: str) -> Page | None:
    """Return the page an earlier run left, frozen for good, or None if there is none to trust.

    The caller has closed it and ended the tree that made it.
    """
    try:
        page = open_page(page_folder(instance), control_writable=True)
    except PageError:
        return None
    freeze(page, NOBODY)
    return page


def store_old_rings(old: Page, state: Path) -> StoredRings:
    """Put what the rings of a frozen page still hold into the log, under that page's epoch."""
    now_ns, reader = host_ns(), RingReader(old, "audit")
    offset_ns = utc_ns() - now_ns
    count, damaged = 0, []
    _post_missing(old)
    with LogWriter(state / "audit", state / "heads") as log:
        for slot in range(old.layout.capacities.slots):
            try:
                while frames := list(reader.read(slot)):
                    log.append([row_of(frame, old.epoch, offset_ns, now_ns) for frame in frames])
                    reader.release(slot, frames[-1].end)
                    count += len(frames)
            except (InvariantBroken, ProducerGapError):
                # A ring that a wild store has hit: the entries still tell what was approved.
                damaged.append(slot)
    return StoredRings(count, tuple(damaged))


def _post_missing(old: Page) -> None:
    """Post the records of approvals whose client was killed before it could."""
    entries = old.rows(ENTRY)
    own = entries["word"][: old.layout.capacities.slots * ENTRIES_PER_SLOT] & STATE_MASK
    for row in ((own != FREE) & (own != RESERVING)).nonzero()[0]:
        entry, slot = entries[row], int(row) // ENTRIES_PER_SLOT
        owner = old.rows(SLOT)[slot]
        lives = is_alive(int(owner["pid"]), int(owner["start_time"]))
        if int(entry["record_sequence"]) == 0 and not lives:
            recover_sequence(old, slot)
            posted = RingWriter(old, slot).append(
                int(EventKind.DECISION), entry["record"].tobytes(), host_ns(),
                int(entry["t_signed_ms"]),
            )  # fmt: skip
            entry["record_sequence"] = posted or 0


def take_tables(old: Page, page: Page) -> bool:
    """Copy the tables of a frozen page into a new one that is still closed.

    Returns
    -------
    bool
        False if the old page cannot be taken over: nothing was copied.
    """
    if not _is_alike(old, page):
        return False
    for table in KEPT_WHOLE:
        page.rows(table)[:] = old.rows(table)
    for table, fields in KEPT_FIELDS.items():
        for name in fields:
            page.rows(table)[name] = old.rows(table)[name]
    for name in KEPT_COUNTERS:
        value = atomics.load(old.address(COUNTERS_HEADER, 0, name))
        atomics.store(page.address(COUNTERS_HEADER, 0, name), value)
    marks = page.rows(ACCOUNT)["high_water_mark"]
    np.maximum(marks, old.rows(ACCOUNT)["high_water_mark"], out=marks)
    for node in range(len(page.names.scopes)):
        for writer in KEPT_LEVELS:
            place = LIMIT.offset("level") + writer
            page.bytes_of(LIMIT, node)[place] = old.bytes_of(LIMIT, node)[place]
    _adopt_entries(page, old)
    return True


def _is_alike(old: Page, page: Page) -> bool:
    same_tables = old.layout.hash == page.layout.hash
    same_units = old.names.units_hash == page.names.units_hash
    same_mode = int(old.header["shadow"]) == int(page.header["shadow"])
    return old.is_complete and same_tables and same_units and same_mode


def _adopt_entries(page: Page, old: Page) -> None:
    """Free what granted nothing, and keep the slots of what did from being claimed."""
    entries, slots = page.rows(ENTRY), page.rows(SLOT)
    words = entries["word"]
    for row in ((words & STATE_MASK) == RESERVING).nonzero()[0]:
        words[row] = (int(words[row]) & ~(STATE_MASK | UNPOSTED)) | FREE
    live: Any = ((words & STATE_MASK) != FREE).nonzero()[0]
    entries["record_sequence"][live] = KEPT_RECORD
    for slot in {int(row) // ENTRIES_PER_SLOT for row in live}:
        if ROLE_SLOTS <= slot < page.layout.capacities.slots:
            # A pid without a start time: the slot of somebody who is gone.
            slots["pid"][slot], slots["start_time"][slot] = old.rows(SLOT)["pid"][slot], 0


def supersede(old: Page, epoch: int) -> None:
    """Tell clients that still have the old page mapped that another run goes on in its place."""
    atomics.store(old.address(CONTROL_HEADER, 0, "epoch"), epoch)
    atomics.store(old.address(COUNTERS_HEADER, 0, "epoch"), epoch)
