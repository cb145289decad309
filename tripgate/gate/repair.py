"""Repair: make every word of the page equal to what the log and the entries say.

The keeper runs it at its start, after a client's death inside a section and when its periodic check
finds a wrong word: freeze, wait until every living process is outside, undo what the dead left half
done, store the sums that ``recount`` finds, thaw.

It is idempotent and can be begun again at each step: the freeze word stays set and the counters of
the dead stay odd until the last store, so whoever follows a repairer that died knows that there is
work left. Exits do not wait for it: they take their lots and an entry marked UNPOSTED meanwhile, so
closable words, resting counts and the unposted count are the only words that move during a freeze;
they are set by compare-and-swap from a copy in which no exit was under way.

Invariants: W1 nobody is waited for longer than ``INSIDE_NS``: who stays inside is killed, and then
counts as dead; W2 this process is never killed; W3 no hold taken during the freeze is lost.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import InvariantBroken
from tripgate.gate.recount import (
    Tables,
    Truth,
    Words,
    expected_words,
    read_tables,
    truth_of_page,
)
from tripgate.gate.words import FREE, RESERVING, STATE_MASK, UNPOSTED
from tripgate.page import atomics
from tripgate.page.layout import (
    CLAIM,
    CONTROL_HEADER,
    COUNTERS_HEADER,
    ENTRIES_PER_SLOT,
    ENTRY,
    KEY,
    SLOT,
    SUM,
)
from tripgate.page.mapping import Page
from tripgate.processes import is_alive, kill_and_wait
from tripgate.units import INT_MAX

__all__ = [
    "Truth", "died_inside", "expected_words", "freeze", "rebuild", "thaw", "truth_of_page",
]  # fmt: skip

INSIDE_NS = NS_PER_S
"""How long a living process may stay inside one section; each lasts under a microsecond."""
END_WAIT_S = 5.0
"""How long a killed process may take to end."""
STILL_TRIES = 100_000
"""Bound of the tries to see closable words while no exit is under way."""
POLL_S = NS_PER_MS / NS_PER_S

SECTIONS = ("section", "exit_section")


def died_inside(page: Page) -> bool:
    """Whether a process died inside a section: what it had half changed must be put right."""
    return any(not _lives(page, slot) for name in SECTIONS for slot in _odd_slots(page, name))


def freeze(page: Page, own_slot: int) -> tuple[int, ...]:
    """Stop changes by checks and wait until every living process has been outside its section.

    Parameters
    ----------
    own_slot
        Slot of the repairer, which is not waited for.

    Returns
    -------
    tuple of int
        Pids that were killed because they stayed inside for ``INSIDE_NS``.

    Raises
    ------
    InvariantBroken
        This very process is inside, or a killed one does not end: the keeper must not guess, so it
        crashes and the gate stays closed by its lapsed lease.
    """
    atomics.exchange(page.address(CONTROL_HEADER, 0, "freeze"), 1)
    inside = _Inside(page)
    waited = {(slot, name) for name in SECTIONS for slot in _living_inside(page, name, own_slot)}
    # One that was outside once after the freeze was set will see it before it changes anything.
    while waited := inside.still(waited):
        sleep_s(POLL_S)
    return tuple(inside.killed)


def thaw(page: Page) -> None:
    """Let checks go on."""
    atomics.exchange(page.address(CONTROL_HEADER, 0, "freeze"), 0)


def rebuild(page: Page, truth: Truth) -> tuple[int, ...]:
    """Store what every counted word must be (frozen page only).

    Returns
    -------
    tuple of int
        Pids that were killed because they stayed inside an exit for ``INSIDE_NS``.
    """
    inside = _Inside(page)
    words, ended = _settle_exits(page, truth, inside)
    entries = page.rows(ENTRY)
    for row, kept in words.entries.items():
        for name, value in kept._asdict().items():
            entries[name][row] = _bounded(value)
    for name in ("charged", "margin_charged"):
        _store(page.rows(KEY)[name], words.keys[name])
    _store(page.rows(CLAIM)["lots"], words.claims)
    for name, values in words.sums.items():
        _store(page.rows(SUM)[name], values)
    # Last of all, so that a repairer that dies before leaves the mark for the next one.
    for (slot, name), value in ended.items():
        atomics.compare_exchange(page.address(SLOT, slot, name), value, value + 1)
    return tuple(inside.killed)


class _Inside:
    """Who is inside a section and since when; who stays is killed."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._since: dict[tuple[int, str], tuple[int, int]] = {}
        self.killed: list[int] = []

    def still(self, places: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
        """Return those of (slot, counter) that have not moved since they were first asked about."""
        slots, now_ns, left = self._page.rows(SLOT), host_ns(), set()
        for place in places:
            slot, name = place
            value = int(slots[name][slot])
            first, since_ns = self._since.setdefault(place, (value, now_ns))
            if not value & 1 or value != first or not _lives(self._page, slot):
                del self._since[place]
            elif now_ns - since_ns > INSIDE_NS:
                self._end(slot)
                del self._since[place]
            else:
                left.add(place)
        return left

    def _end(self, slot: int) -> None:
        row = self._page.rows(SLOT)[slot]
        pid, start_time = int(row["pid"]), int(row["start_time"])
        if pid == os.getpid():
            raise InvariantBroken(f"slot {slot} of this process does not leave its section")
        if not kill_and_wait(pid, start_time, END_WAIT_S):
            raise InvariantBroken(f"process {pid} of slot {slot} does not end")
        self.killed.append(pid)


def _undo_dead(page: Page) -> None:
    """Free the entries that a dead process was about to fill: it granted nothing by them."""
    words = page.rows(ENTRY)["word"]
    own = words[: page.layout.capacities.slots * ENTRIES_PER_SLOT]
    for row in ((own & STATE_MASK) == RESERVING).nonzero()[0]:
        if not _lives(page, int(row) // ENTRIES_PER_SLOT):
            words[row] = (int(words[row]) & ~(STATE_MASK | UNPOSTED)) | FREE


def _settle_exits(
    page: Page, truth: Truth, inside: _Inside
) -> tuple[Words, dict[tuple[int, str], int]]:
    """Set what exits may move during the freeze.

    Returns
    -------
    words, ended
        The words of the copy that was used, and by (slot, counter) the odd values that processes
        left which were dead before the copy was made. Who dies later is left to the next repair:
        what it took after the copy is not in it.
    """
    for _ in range(STILL_TRIES):
        ended = _sections_of_the_dead(page)
        _undo_dead(page)
        tables = still_tables(page)
        if tables is not None:
            words = expected_words(page, truth, tables)
            if _swap_exits(page, tables, words):
                return words, ended
        inside.still((slot, "exit_section") for slot in _living_inside(page, "exit_section", -1))
    raise InvariantBroken("exits never rest: closable words cannot be repaired")


def _sections_of_the_dead(page: Page) -> dict[tuple[int, str], int]:
    found = {}
    for name in SECTIONS:
        for slot in _odd_slots(page, name):
            value = int(page.rows(SLOT)[name][slot])
            if value & 1 and not _lives(page, slot):
                found[slot, name] = value
    return found


def still_tables(page: Page, names: tuple[str, ...] = ("exit_section",)) -> Tables | None:
    """Return a copy of the tables in which no living process was inside, or None.

    Parameters
    ----------
    names
        The counters to look at: on a frozen page that of exits, else both. A process that died
        inside counts as still.
    """
    before = [_counters(page, name) for name in names]
    if any(_living_inside(page, name, -1) for name in names):
        return None
    tables = read_tables(page)
    after = [_counters(page, name) for name in names]
    same = all(bool((first == last).all()) for first, last in zip(before, after, strict=True))
    return tables if same else None


def _counters(page: Page, name: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    # The atomic add orders the copies of the counters and of the tables among each other.
    atomics.fetch_add(page.address(COUNTERS_HEADER, 0, "unposted"), 0)
    counters = page.rows(SLOT)[name].copy()
    atomics.fetch_add(page.address(COUNTERS_HEADER, 0, "unposted"), 0)
    return counters


def _swap_exits(page: Page, tables: Tables, words: Words) -> bool:
    """Swap closable words and resting counts from what the copy says to what they must be."""
    for name in ("closable", "resting"):
        for key, value in enumerate(words.keys[name]):
            found = int(tables.keys[name][key])
            address = page.address(KEY, key, name)
            if atomics.compare_exchange(address, found, value) != found:
                return False
    # An exit counts itself only inside its own section: the add keeps what came after the copy.
    counter = page.address(COUNTERS_HEADER, 0, "unposted")
    atomics.fetch_add(counter, words.unposted - tables.unposted)
    return True


def _odd_slots(page: Page, name: str) -> list[int]:
    return [int(slot) for slot in (page.rows(SLOT)[name] & 1).nonzero()[0]]


def _living_inside(page: Page, name: str, own_slot: int) -> list[int]:
    return [slot for slot in _odd_slots(page, name) if slot != own_slot and _lives(page, slot)]


def _lives(page: Page, slot: int) -> bool:
    row = page.rows(SLOT)[slot]
    return is_alive(int(row["pid"]), int(row["start_time"]))


def _store(words: "np.ndarray[Any, Any]", values: list[int]) -> None:
    for row, value in enumerate(values):
        words[row] = _bounded(value)


def _bounded(value: int) -> int:
    # Only a wild store can make a sum this large; at the bound it leaves no room for any opening.
    return max(-INT_MAX, min(INT_MAX, value))
