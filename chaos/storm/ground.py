"""The ground of a storm: one page with two venues, three instruments and two strategies.

Every pair of strategy and instrument is a closable key, so that both strategies meet at the
instrument, the asset, the venue and the portfolio. Worth per lot and tick is whole, or whole at the
prices used, so that at constant marks a limit can be compared to the last money unit: no rounding
excuses an excess.

Venue ``alpha`` enforces reduce-only, has protective stops and is flattened; ``beta`` does none of
it and sees passive closes alone, so that there only the closable word keeps a close from flipping a
position.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripgate.clock import NS_PER_S, coarse_resolution_ns, host_ns
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import (
    HOLDER,
    INSTRUMENT,
    KEY,
    LEASE,
    LIMIT,
    RATE,
    ROLE,
    ROLE_SLOTS,
    STRATEGY,
    Capacities,
)
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.processes import process_start_time
from tripgate.units import LOTS_MAX, PPM, notional_money

INSTRUMENTS = (
    InstrumentName("alpha", "BTC/USDT:USDT", "BTC", "0.1", "0.001", "1"),
    InstrumentName("alpha", "ETH/USDT:USDT", "ETH", "0.001", "0.01", "1"),
    InstrumentName("beta", "BTC/USDT:USDT", "BTC", "0.5", "0.001", "1"),
)
"""One lot at one tick is worth 1, 1/10 and 5 money units."""
MARKS = (600_000, 3_000_000, 120_000)
PRICE_STEP = 100
"""Prices are whole multiples of this many ticks: no worth and no margin has a broken part."""
STRATEGIES = ("trend", "hedge")
ROLES = (
    RoleName("supervisor", "", True),
    RoleName("position_keeper", "", True),
    RoleName("breaker", "", True),
)
KEEPER, BREAKER = 1, 2
REDUCE_ONLY_VENUES = frozenset({"alpha"})
CLIENT_SLOTS = 40
"""Slots for strategy processes: those of the dead stay taken until their orders have ended."""
PACE_MAX = 1_000_000
"""Above what a pace word can count: the storm is about limits."""
MARKET_MS = 1_700_000_000_000
EPOCH = 3

UNIT = 6_000_000
"""Ten lots of bitcoin: the measure of the limits below."""
GROSS = {"portfolio": 40, "venue:alpha": 28, "asset:BTC": 24, "strategy:trend": 22}
NET = {"portfolio": 22, "strategy:hedge": 12, "asset:ETH": 9}
ELSEWHERE = 60
MARGIN_PPM = 100_000
MARGIN = {"venue:alpha": 24}
"""Units of worth whose initial margin a venue allows: less than its gross limit."""


@dataclass(frozen=True)
class Ground:
    """What every member knows of the page beside what stands in it."""

    page: Page

    def instrument(self, key: int) -> int:
        """Return the instrument of a closable key."""
        return self.page.names.keys[key][1]

    def reduces_only(self, key: int) -> bool:
        """Whether the venue of a key enforces reduce-only."""
        return INSTRUMENTS[self.instrument(key)].venue in REDUCE_ONLY_VENUES

    def position(self, key: int) -> int:
        """Return a key's position in the page, signed lots."""
        return int(self.page.rows(KEY)["closable"][key]) >> 32

    def worth(self, key: int, lots: int) -> int:
        """Return the signed worth of a position at its constant mark, money units."""
        return position_worth(self.instrument(key), lots)


def position_worth(instrument: int, lots: int) -> int:
    """Return the signed worth of ``lots`` at the instrument's mark, money units."""
    value = INSTRUMENTS[instrument].units.value_fraction()
    amount = notional_money(lots, MARKS[instrument], value)
    return amount if lots > 0 else -amount


def tick(page: Page, elapsed_ms: int) -> None:
    """Let market time pass at standing prices: throttles and merged denials live by it."""
    market_ms = int(page.header["market_ms"]) + elapsed_ms
    for instrument, mark in enumerate(MARKS):
        write_quote(page, instrument, Quote(mark, mark, mark, mark, market_ms, 1, 0), host_ns())
    page.header["market_ms"] = market_ms


def make_ground(folder: Path) -> Page:
    """Make the page under ``folder``, armed, with leases that outlast the storm."""
    names = _make_names(folder)
    capacities = Capacities(
        nodes=len(names.scopes), instruments=len(INSTRUMENTS), strategies=len(STRATEGIES),
        keys=len(names.keys), slots=ROLE_SLOTS + CLIENT_SLOTS, roles=len(ROLES), causes=1,
    )  # fmt: skip
    page = create_page(folder, capacities, names, epoch=EPOCH, shadow=False)
    header = page.header
    header["owner_pid"], header["owner_start"] = os.getpid(), process_start_time(os.getpid())
    header["market_ms"] = header["starting_ms"] = MARKET_MS
    header["limits_version"] = header["step"] = 1
    header["coarse_resolution_ns"] = coarse_resolution_ns()
    _write_roles(page)
    _write_limits(page)
    _write_instruments(page)
    _write_keys(page)
    tick(page, 0)
    header["closed"], header["armed"] = 0, 1
    return page


def _make_names(folder: Path) -> PageNames:
    scopes = (
        "portfolio", "venue:alpha", "venue:beta", "asset:BTC", "asset:ETH",
        *(f"strategy:{name}" for name in STRATEGIES), *(name.scope for name in INSTRUMENTS),
    )  # fmt: skip
    keys = tuple((s, i) for s in range(len(STRATEGIES)) for i in range(len(INSTRUMENTS)))
    return PageNames(
        "storm", "USDT", str(folder), ("alpha", "beta"), STRATEGIES, scopes, INSTRUMENTS, ROLES,
        keys, {},
    )  # fmt: skip


def _write_roles(page: Page) -> None:
    for number in range(len(ROLES)):
        row = page.rows(ROLE)[number]
        row["present"], row["lease_ns"], row["step"] = 1, NS_PER_S, -1
        page.rows(LEASE)["deadline_ns"][number] = host_ns() + 86_400 * NS_PER_S
    page.rows(HOLDER)["mask"][:] = 1


def _write_limits(page: Page) -> None:
    rows = page.rows(LIMIT)
    for node, scope in enumerate(page.names.scopes):
        gross, net = GROSS.get(scope, ELSEWHERE) * UNIT, NET.get(scope, ELSEWHERE) * UNIT
        rows["gross_configured"][node] = rows["gross_max"][node] = gross
        rows["net_configured"][node] = rows["net_max"][node] = net
        rows["factor_ppm"][node] = PPM
        rows["margin_max"][node] = MARGIN.get(scope, ELSEWHERE) * UNIT * MARGIN_PPM // PPM
    page.rows(RATE)["rate_ppm"] = page.rows(RATE)["par_ppm"] = PPM
    page.rows(RATE)["market_ms"] = -1


def _write_instruments(page: Page) -> None:
    for number, name in enumerate(INSTRUMENTS):
        row: Any = page.rows(INSTRUMENT)[number]
        value = name.units.value_fraction()
        row["tradable"], row["node"] = 1, page.names.scope(name.scope)
        row["venue"] = page.names.venues.index(name.venue)
        row["asset"] = page.names.scope(f"asset:{name.asset}")
        row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
        row["order_money_max"], row["order_lots_max"] = 5 * UNIT, LOTS_MAX
        row["collar_ppm"], row["exit_collar_ppm"] = 10_000, 20_000
        row["stop_distance_ppm"], row["age_max_ms"] = 100_000, 2_000
        row["resting_max"], row["shared"], row["margin_ppm"] = 4, 1, MARGIN_PPM
        row["role_mask"] = 2 ** len(ROLES) - 1


def _write_keys(page: Page) -> None:
    for strategy, name in enumerate(STRATEGIES):
        row = page.rows(STRATEGY)[strategy]
        row["node"], row["order"] = page.names.scope(f"strategy:{name}"), strategy
        row["orders_per_second_max"] = row["attempts_per_second_max"] = PACE_MAX
    for number, (strategy, instrument) in enumerate(page.names.keys):
        row, traded = page.rows(KEY)[number], INSTRUMENTS[instrument]
        row["strategy"], row["instrument"] = strategy, instrument
        row["venue"], row["margin_ppm"] = page.names.venues.index(traded.venue), MARGIN_PPM
        scopes = (
            f"strategy:{STRATEGIES[strategy]}", traded.scope, f"asset:{traded.asset}",
            f"venue:{traded.venue}", "portfolio",
        )  # fmt: skip
        row["node"] = [page.names.scope(scope) for scope in scopes]
