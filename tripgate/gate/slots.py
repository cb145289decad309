"""Slots: each attached process owns one, with its ring, its entries and its section counter.

A slot belongs to a (pid, start time) pair, so that a new process under a recycled pid is never
taken for the old one. A free slot is claimed by compare-and-swap on its pid word; a slot whose
owner is dead is taken over only when nothing of the dead is pending in it: its ring drained, its
entries free, its merged denials posted. Until then the slot stays the dead owner's.

While a claimant has not yet written its start time, the pid word holds its pid negated: without
that, a second claimant would take the pair of new pid and old start time for a dead owner. A slot
that its living owner has given back keeps the pid and loses the start time: to everybody the pair
names a process that is gone, and what is pending there is settled as after a death.
"""

import os

from tripgate.errors import PageError
from tripgate.page import atomics
from tripgate.page.layout import CURSOR, ENTRIES_PER_SLOT, ENTRY, NO_GRANT, ROLE_SLOTS, SLOT
from tripgate.page.mapping import Page
from tripgate.page.ring import recover_sequence
from tripgate.processes import is_alive, process_start_time

SLOT_AT = SLOT.at
ENTRY_AT = ENTRY.at


def take_role_slot(page: Page, slot: int, incarnation: int) -> int:
    """Make a tree process the owner of its fixed slot (its predecessor's exit was seen).

    Slot r is role r's; role 0 is the supervisor. Returns the slot. Raises ``PageError`` while the
    slot's owner lives: a role's words (its lease, a venue's board) have one writer.
    """
    if not 0 <= slot < ROLE_SLOTS:
        raise PageError(f"slot {slot} is not a role's")
    owner = page.rows(SLOT)[slot]
    pid = abs(int(owner["pid"]))
    if pid != os.getpid() and is_alive(pid, int(owner["start_time"])):
        raise PageError(f"slot {slot} is still process {pid}'s: end it before its successor starts")
    _own(page, slot, strategy=-1)
    page.rows(SLOT)["incarnation"][slot] = incarnation
    return slot


def claim_strategy_slot(page: Page, strategy: int) -> int:
    """Claim a free slot for this process. Raises ``PageError`` if all are taken."""
    pid = os.getpid()
    for slot in range(ROLE_SLOTS, page.layout.capacities.slots):
        row = page.address(SLOT, slot)
        owner = atomics.load(row + SLOT_AT.pid)
        if owner and not _is_spent(page, slot, owner):
            continue
        if atomics.compare_exchange(row + SLOT_AT.pid, owner, -pid) == owner:
            _own(page, slot, strategy=strategy)
            return slot
    raise PageError("every slot of the page is taken: stop a strategy process first")


def owns_slot(page: Page, pid: int, slot: int) -> bool:
    """Whether a living process is the owner of a slot."""
    if pid <= 0 or not 0 <= slot < page.layout.capacities.slots:
        return False
    row = page.address(SLOT, slot)
    is_owner = atomics.load(row + SLOT_AT.pid) == pid
    return is_owner and is_alive(pid, atomics.load(row + SLOT_AT.start_time))


def release_slot(page: Page, slot: int) -> bool:
    """Give a slot of this process back; return whether it was ours to give.

    The caller makes no record and asks for no order through it any more. Somebody may claim the
    slot once its ring is drained and its entries are free: until then orders and reservations made
    through it stay and are treated as those of an owner that died.
    """
    row, pid = page.address(SLOT, slot), os.getpid()
    mine = atomics.load(row + SLOT_AT.pid) == pid
    if not mine or atomics.load(row + SLOT_AT.start_time) != process_start_time(pid):
        return False
    if (atomics.load(row + SLOT_AT.section) | atomics.load(row + SLOT_AT.exit_section)) & 1:
        # A check was cut short in the middle: only repair after our end can put that right.
        return False
    atomics.store(row + SLOT_AT.participating, 0)
    atomics.store(row + SLOT_AT.start_time, 0)
    return True


def is_claimable(page: Page, slot: int) -> bool:
    """Whether a strategy slot is free, or nothing of an owner that is gone is pending in it."""
    owner = atomics.load(page.address(SLOT, slot) + SLOT_AT.pid)
    return owner == 0 or _is_spent(page, slot, owner)


def is_attached(page: Page, strategy: int) -> bool:
    """Whether a living process holds a slot for a strategy."""
    slots = page.rows(SLOT)[ROLE_SLOTS:]
    return any(
        is_alive(abs(int(row["pid"])), int(row["start_time"]))
        for row in slots[(slots["strategy"] == strategy) & (slots["pid"] != 0)]
    )


def _is_spent(page: Page, slot: int, owner: int) -> bool:
    row = page.address(SLOT, slot)
    if owner < 0 and process_start_time(-owner):
        return False
    if is_alive(owner, atomics.load(row + SLOT_AT.start_time)):
        return False
    if (atomics.load(row + SLOT_AT.section) | atomics.load(row + SLOT_AT.exit_section)) & 1:
        return False
    if atomics.load(row + SLOT_AT.merged_count):
        return False
    drained = atomics.load(page.address(CURSOR, slot)) == atomics.load(row + SLOT_AT.ring_head)
    first = page.slot_entries(slot)
    words = page.rows(ENTRY)["word"][first : first + ENTRIES_PER_SLOT]
    return drained and not (words & 0xFF).any()


def _own(page: Page, slot: int, *, strategy: int) -> None:
    row = page.address(SLOT, slot)
    pid = os.getpid()
    atomics.store(row + SLOT_AT.participating, 0)
    atomics.store(row + SLOT_AT.step, -1)
    atomics.store(row + SLOT_AT.strategy, strategy)
    atomics.store(row + SLOT_AT.start_time, process_start_time(pid))
    atomics.store(row + SLOT_AT.pid, pid)
    if atomics.load(row + SLOT_AT.approved) == 0:
        # Only then: what an earlier owner was granted stays part of the run's summary.
        atomics.store(row + SLOT_AT.overshoot_max, NO_GRANT)
    # Only a role's slot can be odd here: the keeper's, whose first act is a repair.
    for counter in (SLOT_AT.section, SLOT_AT.exit_section):
        if atomics.load(row + counter) & 1:
            atomics.fetch_add(row + counter, 1)
    recover_sequence(page, slot)
