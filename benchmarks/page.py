"""A real page for measurements: two strategies, two instruments, every limit far away.

It is made by the product's own ``create_page`` and opened to all checks: leases that hold for an
hour, a fresh mark, no level, wide limits. No actor runs. No consumer holds the rings back, so that
records are written as always and simply overwrite what nobody will read.
"""

import os
from pathlib import Path
from typing import Any

from tripgate.clock import NS_PER_S, coarse_resolution_ns, host_ns, utc_ms
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import (
    ENTRIES_PER_SLOT,
    HOLDER,
    INSTRUMENT,
    KEY,
    LEASE,
    LIMIT,
    RATE,
    ROLE,
    STRATEGY,
    Capacities,
)
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.processes import process_start_time
from tripgate.units import INT_MAX, LOTS_MAX, PPM

VENUE = "sim"
STRATEGIES = ("first", "second")
SYMBOLS = (("BTC/USDT:USDT", "BTC"), ("ETH/USDT:USDT", "ETH"))
KEYS = ((0, 0), (1, 1), (0, 1))
"""(strategy, instrument) of each closable key: the first strategy may trade both instruments."""

OWN_KEY, OTHER_KEY, SECOND_KEY = range(3)
"""The first strategy's key, that of the other strategy, and the first strategy's second one."""

ROLES = ("supervisor", "audit_writer", "position_keeper", "breaker")
VENUE_ROLES = ("market_feed", "router")
EPOCH = 1
LEASE_S = 3_600
MARK_TICKS = 600_000
STOP_TICKS = 590_000
HELD_LOTS = 1_000_000
"""Position of the first strategy, long: enough for every close a measurement makes at once."""

LIMIT_MONEY = INT_MAX // 4
ORDERS_PER_SECOND = 65_000
MARGIN_PPM = 100_000
"""Ten per cent initial margin: leverage 10."""
GUARD_MS = 1_000
REPEATS_MAX = 100
"""The guard against repeated orders is on; measurements alternate their orders."""

AGE_FLOOR_MS = 2**40
"""Measurements turn the market's clock on, for the throttle; the mark must not become old by it."""


def make_names(folder: Path) -> PageNames:
    """Return the names of the page: the same on every run, so that figures compare."""
    instruments = tuple(
        InstrumentName(VENUE, symbol, asset, "0.1", "0.001", "1") for symbol, asset in SYMBOLS
    )
    scopes = (
        "portfolio",
        f"venue:{VENUE}",
        *(f"asset:{asset}" for _, asset in SYMBOLS),
        *(f"strategy:{name}" for name in STRATEGIES),
        *(name.scope for name in instruments),
    )
    roles = (
        *(RoleName(actor, "", critical=True) for actor in ROLES),
        *(RoleName(actor, VENUE, critical=True) for actor in VENUE_ROLES),
    )
    return PageNames(
        "bench", "USDT", str(folder), (VENUE,), STRATEGIES, scopes, instruments, roles, KEYS, {}
    )


def make_page(folder: Path) -> Page:
    """Make the page under ``folder`` with everything open, and return it mapped writable."""
    names = make_names(folder)
    capacities = Capacities(
        nodes=len(names.scopes), instruments=len(names.instruments),
        strategies=len(names.strategies), keys=len(names.keys),
    )  # fmt: skip
    page = create_page(folder, capacities, names, epoch=EPOCH, shadow=False)
    _open_header(page)
    _open_roles(page)
    limits = page.rows(LIMIT)
    for field in ("gross_max", "net_max", "gross_configured", "net_configured"):
        limits[field] = LIMIT_MONEY
    limits["factor_ppm"], limits["margin_max"] = PPM, LIMIT_MONEY
    page.rows(RATE)["rate_ppm"] = page.rows(RATE)["par_ppm"] = PPM
    page.rows(RATE)["market_ms"] = -1
    _open_instruments(page)
    strategies = page.rows(STRATEGY)
    for number, name in enumerate(names.strategies):
        strategies["node"][number] = names.scope(f"strategy:{name}")
        strategies["orders_per_second_max"][number] = ORDERS_PER_SECOND
        strategies["attempts_per_second_max"][number] = ORDERS_PER_SECOND
    strategies["duplicate_window_ms"] = strategies["repeat_window_ms"] = GUARD_MS
    strategies["repeats_max"] = REPEATS_MAX
    _open_keys(page)
    page.rows(HOLDER)["mask"] = 0
    return page


def _open_header(page: Page) -> None:
    header = page.header
    header["owner_pid"], header["owner_start"] = os.getpid(), process_start_time(os.getpid())
    header["coarse_resolution_ns"] = coarse_resolution_ns()
    header["market_ms"] = header["starting_ms"] = utc_ms()
    header["age_floor_ms"], header["step_ms"] = AGE_FLOOR_MS, 1_000
    header["limits_version"] = header["armed"] = 1
    header["closed"] = 0


def _open_roles(page: Page) -> None:
    roles = page.rows(ROLE)
    for number in range(len(page.names.roles)):
        roles["present"][number], roles["lease_ns"][number] = 1, LEASE_S * NS_PER_S
    page.rows(LEASE)["deadline_ns"] = host_ns() + LEASE_S * NS_PER_S


def _open_instruments(page: Page) -> None:
    rows = page.rows(INSTRUMENT)
    for number, name in enumerate(page.names.instruments):
        row: Any = rows[number]
        value = name.units.value_fraction()
        row["tradable"], row["node"] = 1, page.names.scope(name.scope)
        row["venue"], row["asset"] = 0, page.names.scope(f"asset:{name.asset}")
        row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
        row["order_money_max"], row["order_lots_max"] = LIMIT_MONEY, LOTS_MAX
        row["exit_collar_ppm"], row["margin_ppm"] = 20_000, MARGIN_PPM
        row["resting_max"] = ENTRIES_PER_SLOT
        row["collar_ppm"], row["stop_distance_ppm"] = 20_000, 100_000
        row["age_max_ms"] = 2_000
        row["role_mask"] = 2 ** len(page.names.roles) - 1
        quote = Quote(
            MARK_TICKS, MARK_TICKS, MARK_TICKS - 1, MARK_TICKS + 1, int(page.header["market_ms"]),
            0, 0,
        )  # fmt: skip
        write_quote(page, number, quote, host_ns())


def _open_keys(page: Page) -> None:
    keys, names = page.rows(KEY), page.names
    for number, (strategy, instrument) in enumerate(names.keys):
        traded = names.instruments[instrument]
        keys["margin_ppm"][number] = MARGIN_PPM
        keys["strategy"][number], keys["instrument"][number] = strategy, instrument
        scopes = (
            f"strategy:{names.strategies[strategy]}", traded.scope, f"asset:{traded.asset}",
            f"venue:{traded.venue}", "portfolio",
        )  # fmt: skip
        for index, scope in enumerate(scopes):
            keys["node"][number][index] = names.scope(scope)


def set_limits(page: Page, node: int, money: int) -> None:
    """Set a node's gross and net limit, money units."""
    row: Any = page.rows(LIMIT)[node]
    for name in ("gross_max", "net_max", "gross_configured", "net_configured"):
        row[name] = money


def set_position(page: Page, key: int, lots: int) -> None:
    """Give a key a position, signed lots, nothing pending (its worth is not charged to nodes)."""
    page.rows(KEY)["closable"][key] = lots << 32
