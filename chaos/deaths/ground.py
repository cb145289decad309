"""The ground of the death drills: one page on which every victim alone guards one instrument.

Each victim is the critical role of a venue of its own, so that its lease, and besides it only the
supervisor's, decides about that venue's instrument: what the gate says of one instrument is what
became of one victim, and victims may die at the same time without hiding each other. Limits are
wide and marks stand still: nothing but a lease, a level or the end of the run ever denies.

The orders file beside the page holds one line of words per role: the driver writes what a victim
shall do and when, the victim writes the moment in which it did it.
"""

import mmap
import os
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from tripgate.clock import NS_PER_MS, coarse_resolution_ns, host_ns
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import (
    HOLDER,
    INSTRUMENT,
    KEY,
    LIMIT,
    RATE,
    ROLE,
    ROLE_SLOTS,
    STRATEGY,
    Capacities,
)
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.units import INT_MAX, LOTS_MAX, PPM

ACTOR = "victim"
STRATEGY_NAME = "witness"
SUPERVISOR_ROLE = 0
SUPERVISOR_LEASE_NS = 500 * NS_PER_MS
VICTIM_LEASE_NS = 250 * NS_PER_MS
"""Leases of the tree's own supervisor, breaker and keeper (docs/operations.md)."""
VICTIMS_MAX = ROLE_SLOTS - 2
WITNESS_SLOT = ROLE_SLOTS
MARK_TICKS = 10_000
STOP_TICKS = 9_900
MARKET_MS = 1_700_000_000_000
UNHURRIED = 1_000_000
"""Above what a pace word can count: no guard of the strategy's pace may speak before a lease."""
AGE_MAX_MS = 1_000_000_000
ORDERS_FILE = "orders"


class Word(IntEnum):
    """What stands where in a role's line of the orders file."""

    FATE = 0
    """Driver: the fate to meet while living, 0 none; the victim clears it."""
    NEXT_FATE = 1
    """Driver: the fate to meet at the next start, before ready; the victim clears it."""
    EVENT_NS = 2
    """Victim: host time just before it met its fate, or when its loop had ended."""
    FRAMES = 3
    """Victim: frames it has sent."""


def victim_venue(number: int) -> str:
    """Return the venue of the victim that holds a role."""
    return f"v{number}"


def make_ground(folder: Path, victims: int) -> Page:
    """Make the page under ``folder``, closed, with roles 1 to ``victims`` for the victims."""
    if not 1 <= victims <= VICTIMS_MAX:
        raise ValueError(f"1 to {VICTIMS_MAX} victims fit on a page, was {victims}")
    names = _make_names(folder, victims)
    capacities = Capacities(
        nodes=len(names.scopes), instruments=victims, strategies=1, keys=victims,
        slots=ROLE_SLOTS + 2, causes=1,
    )  # fmt: skip
    page = create_page(folder, capacities, names, epoch=1, shadow=False)
    header = page.header
    header["market_ms"] = header["starting_ms"] = MARKET_MS
    header["limits_version"] = header["step"] = 1
    header["coarse_resolution_ns"] = coarse_resolution_ns()
    _write_roles(page)
    _write_limits(page)
    for number in range(victims):
        _write_instrument(page, number)
        quote = Quote(MARK_TICKS, MARK_TICKS, MARK_TICKS, MARK_TICKS, MARKET_MS, 1, 0)
        write_quote(page, number, quote, host_ns())
    with open(folder / ORDERS_FILE, "wb") as file:
        file.write(bytes(len(names.roles) * len(Word) * 8))
    return page


def open_orders(folder: Path) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return the live orders, shape (roles, words)."""
    descriptor = os.open(folder / ORDERS_FILE, os.O_RDWR)
    try:
        mapping = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapping, dtype=np.int64).reshape(-1, len(Word))


def _make_names(folder: Path, victims: int) -> PageNames:
    venues = tuple(victim_venue(number) for number in range(1, victims + 1))
    instruments = tuple(
        InstrumentName(venue, "COIN/USDT:USDT", f"COIN{venue}", "0.1", "0.001", "1")
        for venue in venues
    )
    scopes = (
        "portfolio", *(f"venue:{venue}" for venue in venues),
        *(f"asset:{name.asset}" for name in instruments), f"strategy:{STRATEGY_NAME}",
        *(name.scope for name in instruments),
    )  # fmt: skip
    roles = (
        RoleName("supervisor", "", critical=True),
        *(RoleName(ACTOR, venue, critical=True) for venue in venues),
    )
    keys = tuple((0, number) for number in range(victims))
    return PageNames(
        "deaths", "USDT", str(folder), venues, (STRATEGY_NAME,), scopes, instruments, roles, keys,
        {},
    )  # fmt: skip


def _write_roles(page: Page) -> None:
    for number, role in enumerate(page.names.roles):
        row = page.rows(ROLE)[number]
        row["present"], row["step"] = 1, -1
        row["lease_ns"] = VICTIM_LEASE_NS if role.venue else SUPERVISOR_LEASE_NS
        row["scope_node"] = page.names.scope(f"venue:{role.venue}" if role.venue else "portfolio")
    # Only what the supervisor records is read here: nobody holds the other rings back.
    page.rows(HOLDER)["mask"][SUPERVISOR_ROLE] = 1


def _write_limits(page: Page) -> None:
    rows = page.rows(LIMIT)
    for name in ("gross_configured", "gross_max", "net_configured", "net_max", "margin_max"):
        rows[name] = INT_MAX
    rows["factor_ppm"] = PPM
    page.rows(RATE)["rate_ppm"] = page.rows(RATE)["par_ppm"] = PPM
    page.rows(RATE)["market_ms"] = -1
    strategy = page.rows(STRATEGY)[0]
    strategy["node"] = page.names.scope(f"strategy:{STRATEGY_NAME}")
    strategy["orders_per_second_max"] = strategy["attempts_per_second_max"] = UNHURRIED


def _write_instrument(page: Page, number: int) -> None:
    name, row, key = page.names.instruments[number], page.rows(INSTRUMENT)[number], page.rows(KEY)
    value = name.units.value_fraction()
    row["tradable"], row["node"], row["venue"] = 1, page.names.scope(name.scope), number
    row["asset"] = page.names.scope(f"asset:{name.asset}")
    row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
    row["order_money_max"], row["order_lots_max"] = INT_MAX, LOTS_MAX
    row["collar_ppm"], row["exit_collar_ppm"], row["stop_distance_ppm"] = PPM, PPM, PPM
    row["age_max_ms"], row["resting_max"], row["shared"] = AGE_MAX_MS, UNHURRIED, 1
    row["role_mask"] = 1 << SUPERVISOR_ROLE | 1 << (number + 1)
    key["strategy"][number], key["instrument"][number], key["venue"][number] = 0, number, number
    scopes = (
        f"strategy:{STRATEGY_NAME}", name.scope, f"asset:{name.asset}", f"venue:{name.venue}",
        "portfolio",
    )  # fmt: skip
    key["node"][number] = [page.names.scope(scope) for scope in scopes]
