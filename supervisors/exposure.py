"""Whether anything is open: what the end of a run and the exit path depend on.

Not knowing is not flat (P7): an account that has not been read twice counts as open.
"""

from typing import Any

from tripgate.gate.words import FREE, STATE_MASK
from tripgate.page.layout import ENTRY, INSTRUMENT, KEY, ROLE
from tripgate.page.mapping import Page

FLAT_READS_MIN = 2


def is_flat(page: Page, venue: str = "") -> bool:
    """Return whether no position is held, by the book and by the account as it was read twice.

    Parameters
    ----------
    venue
        Look at this venue alone; empty: at all of them.
    """
    words: Any = page.rows(KEY)["closable"][: len(page.names.keys)]
    if venue:
        words = words[page.rows(KEY)["venue"][: len(words)] == page.names.venues.index(venue)]
    if ((words >> 32) != 0).any():
        return False
    routers = [
        number
        for number, role in enumerate(page.names.roles)
        if role.actor == "router" and venue in ("", role.venue)
    ]
    rows = page.rows(ROLE)
    read_twice = rows["account_reads"][routers] >= FLAT_READS_MIN
    return bool(rows["account_flat"][routers].all()) and bool(read_twice.all())


def is_busy(page: Page, venue: str = "") -> bool:
    """Return whether a position, an order or a reservation is open, or might be."""
    if not is_flat(page, venue):
        return True
    entries: Any = page.rows(ENTRY)
    live = (entries["word"] & STATE_MASK) != FREE
    if venue:
        venues = page.rows(INSTRUMENT)["venue"]
        live &= venues[entries["instrument"]] == page.names.venues.index(venue)
    return bool(live.any())
