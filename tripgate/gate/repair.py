"""Repair: make every word of the page equal to what the log and the entries say.

The keeper runs it at its start, with the freeze word set and every living slot outside its
section, so that nobody moves a word meanwhile. It is idempotent: a repairer that dies half way is
followed by one that begins again.

What is true: fills (from the log and the rings) give positions and filled lots; entries give what
is reserved. Everything else (closable words, claims, node sums) is a sum of those.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import InvariantBroken
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_STOP
from tripgate.gate.reserve import remaining_charge
from tripgate.gate.words import FREE, RELEASING, RESERVING, STATE_MASK
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, CONTROL_HEADER, ENTRY, KEY, NODES_PER_ORDER, SLOT, SUM
from tripgate.page.mapping import Page
from tripgate.processes import is_alive

QUIET_WAIT_NS = 2 * NS_PER_S
"""How long to wait for living slots to leave their sections; each lasts under a microsecond."""


@dataclass(frozen=True)
class Truth:
    """What the fills say.

    Attributes
    ----------
    positions
        Signed lots by closable key.
    charged
        Signed worth of each position at its last mark, money units.
    filled
        Lots filled so far by token, for orders that may still be live.
    """

    positions: Mapping[int, int]
    charged: Mapping[int, int]
    filled: Mapping[int, int]


def died_inside(page: Page) -> bool:
    """Whether a process died inside a section: what it had half changed must be put right."""
    slots = page.rows(SLOT)
    return any(
        not is_alive(int(slots["pid"][slot]), int(slots["start_time"][slot]))
        for slot in (slots["section"] & 1).nonzero()[0]
    )


def freeze(page: Page, own_slot: int) -> None:
    """Stop changes by checks and wait until every living slot is outside its section.

    Raises
    ------
    InvariantBroken
        A living process stays inside: the keeper must not guess, so it crashes and the gate
        stays closed by its lapsed lease.
    """
    atomics.exchange(page.address(CONTROL_HEADER, 0, "freeze"), 1)
    deadline = host_ns() + QUIET_WAIT_NS
    slots = page.rows(SLOT)
    while True:
        busy = [
            slot
            for slot in (slots["section"] & 1).nonzero()[0]
            if slot != own_slot
            and is_alive(int(slots["pid"][slot]), int(slots["start_time"][slot]))
        ]
        if not busy:
            return
        if host_ns() > deadline:
            raise InvariantBroken(f"slots {busy} do not leave their sections")
        sleep_s(NS_PER_MS / NS_PER_S)


def thaw(page: Page) -> None:
    """Let checks go on."""
    atomics.exchange(page.address(CONTROL_HEADER, 0, "freeze"), 0)


def rebuild(page: Page, truth: Truth) -> None:
    """Recompute entries' remainders, closable words, claims and node sums (frozen page only)."""
    keys, sums, claims = page.rows(KEY), page.rows(SUM), page.rows(CLAIM)
    pending = dict.fromkeys(range(len(page.names.keys)), 0)
    gross = [0] * len(sums)
    long_side, short_side = [0] * len(sums), [0] * len(sums)
    claimed = [0] * len(claims)

    for key, (_, instrument) in enumerate(page.names.keys):
        lots, worth = truth.positions.get(key, 0), truth.charged.get(key, 0)
        claimed[instrument] += lots
        keys["charged"][key] = worth
        for index in range(NODES_PER_ORDER):
            node = int(keys["node"][key][index])
            gross[node] += abs(worth)
            long_side[node] += worth
            short_side[node] -= worth

    for row in _counted_entries(page, truth):
        entry = page.rows(ENTRY)[row]
        key, lots, left = int(entry["key"]), int(entry["lots"]), int(entry["remaining"])
        closes = int(entry["flags"]) & (FLAG_CLOSING | FLAG_EXIT | FLAG_STOP)
        if int(entry["flags"]) & FLAG_CLOSING:
            pending[key] += left
        elif not closes:
            claimed[int(entry["instrument"])] += left if lots > 0 else -left
        for index in range(NODES_PER_ORDER):
            node, charge = int(keys["node"][key][index]), int(entry["charged"])
            side = long_side if lots > 0 else short_side
            side[node] += charge
            gross[node] += 0 if closes else charge

    for key in range(len(page.names.keys)):
        keys["closable"][key] = (truth.positions.get(key, 0) << 32) | pending[key]
    for instrument, lots in enumerate(claimed):
        claims["lots"][instrument] = lots
    for node in range(len(sums)):
        sums["gross"][node] = gross[node]
        sums["long_worst"][node], sums["short_worst"][node] = long_side[node], short_side[node]
    _end_sections_of_the_dead(page)


def _end_sections_of_the_dead(page: Page) -> None:
    """Make the section counter of each process that died inside even: its work is undone now.

    Last of all, so that a repairer that dies before leaves the mark for the next one.
    """
    slots = page.rows(SLOT)
    for slot in (slots["section"] & 1).nonzero()[0]:
        if not is_alive(int(slots["pid"][slot]), int(slots["start_time"][slot])):
            slots["section"][slot] += 1


def _counted_entries(page: Page, truth: Truth) -> list[int]:
    """Bring every live entry's remainder in line with its fills; return the rows that count.

    A RESERVING entry of a dead process granted nothing and becomes free.
    """
    entries, slots = page.rows(ENTRY), page.rows(SLOT)
    rows = []
    for row in ((entries["word"] & STATE_MASK) != FREE).nonzero()[0]:
        entry = entries[row]
        if int(entry["word"]) & STATE_MASK == RESERVING:
            slot = int(row) // (page.slot_entries(1))
            if not is_alive(int(slots["pid"][slot]), int(slots["start_time"][slot])):
                entry["word"] = int(entry["word"]) & ~STATE_MASK
            continue
        filled = truth.filled.get(int(entry["token"]), 0)
        left = max(0, abs(int(entry["lots"])) - filled)
        if int(entry["word"]) & STATE_MASK == RELEASING:
            left = 0
        entry["remaining"] = left
        entry["charged"] = min(
            int(entry["reserved"]), remaining_charge(page.address(ENTRY, int(row)), left)
        )
        rows.append(int(row))
    return rows
