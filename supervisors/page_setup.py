"""Making the page of a run from its config and the venue's markets (root only, before arming).

Numbers are given in the order of the config; node 0 is the portfolio. Limits are written both as
configured and as effective; only the breaker changes the effective ones later, and only tighter.
"""

import os
from dataclasses import dataclass

from exchange_adapters.venue_port import VenueMarket
from supervisors.tree import TREE, roles_of
from tripgate.clock import NS_PER_MS, coarse_resolution_ns
from tripgate.config.structs import Config, effective_gross, instrument_key, limit_money
from tripgate.errors import ConfigError
from tripgate.instance import page_folder, socket_path, state_folder
from tripgate.page.layout import (
    ACCOUNT,
    CURSOR,
    HOLDER,
    INSTRUMENT,
    KEY,
    LIMIT,
    ROLE,
    STRATEGY,
    Capacities,
)
from tripgate.page.level import LevelWriter
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames
from tripgate.processes import process_start_time
from tripgate.reasons import Level
from tripgate.units import INT_MAX, PPM

PPM_PER_BPS = 100
VALUE_NUMERATOR_MAX = 2**24
"""Bound of a lot's worth per tick (money units): lots × this then fits in 62 bits."""
AGE_MAX_MS = 2_000
HOLD_AUDIT, HOLD_KEEPER = 1, 2


@dataclass(frozen=True)
class VenueFacts:
    """What a venue said of itself at the start."""

    markets: dict[str, VenueMarket]
    starting_money: int
    step_ms: int
    market_ms: int


def make_names(config: Config, instance: str, facts: dict[str, VenueFacts]) -> PageNames:
    """Return the names and numbers of a run. Raises ``ConfigError`` for unknown symbols."""
    problems = []
    instruments = []
    for text in config.instruments:
        key = instrument_key(text)
        market = facts[key.venue].markets.get(key.symbol)
        if market is None:
            known = ", ".join(facts[key.venue].markets)
            problems.append(f"instruments.{text}: {key.venue} has no such market; it has {known}")
            continue
        instruments.append(
            InstrumentName(
                key.venue, key.symbol, key.base, market.tick, market.lot, market.contract_size
            )
        )
    if problems:
        raise ConfigError(*problems)
    strategies = tuple(config.strategies)
    scopes = (
        "portfolio",
        *(f"venue:{name}" for name in config.venues),
        *(f"asset:{asset}" for asset in dict.fromkeys(name.asset for name in instruments)),
        *(f"strategy:{name}" for name in strategies),
        *(name.scope for name in instruments),
    )
    places = {f"{name.venue}/{name.symbol}": number for number, name in enumerate(instruments)}
    keys = tuple(
        (number, places[text])
        for number, name in enumerate(strategies)
        for text in config.strategies[name].instruments
    )
    sockets = {venue: str(socket_path(instance)) for venue in config.venues}
    return PageNames(
        instance, config.reporting_currency, str(state_folder(instance)), tuple(config.venues),
        strategies, scopes, tuple(instruments), roles_of(config), keys, sockets,
    )  # fmt: skip


def make_page(
    config: Config, instance: str, epoch: int, facts: dict[str, VenueFacts],
    carried: dict[str, Level],
) -> Page:  # fmt: skip
    """Make the page, closed, with everything that the config and the venue say.

    Parameters
    ----------
    carried
        Levels by scope name that an earlier run left and nothing may withdraw by a restart.
    """
    names = make_names(config, instance, facts)
    capacities = Capacities(
        nodes=len(names.scopes), instruments=len(names.instruments),
        strategies=len(names.strategies), keys=len(names.keys),
    )  # fmt: skip
    page = create_page(page_folder(instance), capacities, names, epoch=epoch, shadow=False)
    _write_header(page, facts)
    _write_roles(page)
    _write_limits(page, config)
    _write_instruments(page, config)
    _write_strategies(page, config)
    _write_accounts(page, facts)
    for scope, level in carried.items():
        if scope in names.scopes:
            row = page.bytes_of(LIMIT, names.scope(scope))
            row[LIMIT.offset("level") + LevelWriter.BREAKER] = int(level)
    return page


def _write_header(page: Page, facts: dict[str, VenueFacts]) -> None:
    header = page.header
    header["owner_pid"], header["owner_start"] = os.getpid(), process_start_time(os.getpid())
    # The coarse clock lags by up to a step, and by part of another when the tick comes late.
    header["coarse_resolution_ns"] = 2 * coarse_resolution_ns()
    header["limits_version"] = 1
    header["step"] = -1
    venue = next(iter(facts.values()))
    header["step_ms"], header["replay"] = venue.step_ms, 1
    header["age_floor_ms"] = 2 * venue.step_ms
    header["market_ms"] = header["starting_ms"] = venue.market_ms


def _write_roles(page: Page) -> None:
    roles, cursors, holders = page.rows(ROLE), page.rows(CURSOR), page.rows(HOLDER)
    for number, name in enumerate(page.names.roles):
        row = roles[number]
        row["present"], row["lease_ns"] = 1, TREE[name.actor].lease_ms * NS_PER_MS
        row["scope_node"] = page.names.scope(f"venue:{name.venue}") if name.venue else 0
        row["step"] = row["events_step"] = -1
    for slot in range(len(holders)):
        holders["mask"][slot] = HOLD_AUDIT
        cursors["audit"][slot] = 0
    for number, name in enumerate(page.names.roles):
        if name.actor == "router":
            holders["mask"][number] = HOLD_AUDIT | HOLD_KEEPER


def _limits_of(config: Config, scope: str) -> tuple[int, int]:
    kind, _, name = scope.partition(":")
    limits = config.limits
    if kind == "portfolio":
        return effective_gross(limits.portfolio), limit_money(limits.portfolio.net_reporting_max)
    tables = {"venue": limits.venues, "asset": limits.assets, "strategy": limits.strategies}
    table = config.instruments[name] if kind == "instrument" else tables[kind][name]
    return limit_money(table.gross_reporting_max), limit_money(table.net_reporting_max)


def _write_limits(page: Page, config: Config) -> None:
    rows = page.rows(LIMIT)
    for node, scope in enumerate(page.names.scopes):
        gross, net = _limits_of(config, scope)
        rows["gross_configured"][node] = rows["gross_max"][node] = gross
        rows["net_configured"][node] = rows["net_max"][node] = net
        rows["factor_ppm"][node] = PPM


def _write_instruments(page: Page, config: Config) -> None:
    rows = page.rows(INSTRUMENT)
    for number, name in enumerate(page.names.instruments):
        limits = config.instruments[f"{name.venue}/{name.symbol}"]
        value = name.units.value_fraction()
        if value.numerator > VALUE_NUMERATOR_MAX or value.denominator > INT_MAX:
            raise ConfigError(f"{name.scope}: one lot is worth more than this release can count")
        row = rows[number]
        row["tradable"], row["node"] = 1, page.names.scope(name.scope)
        row["venue"] = page.names.venues.index(name.venue)
        row["asset"] = page.names.scope(f"asset:{name.asset}")
        row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
        row["order_money_max"] = limit_money(limits.order_reporting_max)
        row["collar_ppm"] = limits.collar_bps_max * PPM_PER_BPS
        row["stop_distance_ppm"] = limits.stop_distance_bps_max * PPM_PER_BPS
        row["age_max_ms"] = AGE_MAX_MS
        mask = 0
        for role, what in enumerate(page.names.roles):
            if what.critical and what.venue in ("", name.venue):
                mask |= 1 << role
        row["role_mask"] = mask


def _write_strategies(page: Page, config: Config) -> None:
    strategies, keys = page.rows(STRATEGY), page.rows(KEY)
    for number, name in enumerate(page.names.strategies):
        row = strategies[number]
        row["node"], row["order"] = page.names.scope(f"strategy:{name}"), number
        row["orders_per_second_max"] = config.strategies[name].orders_per_second_max
    for number, (strategy, instrument) in enumerate(page.names.keys):
        traded, row = page.names.instruments[instrument], keys[number]
        row["strategy"], row["instrument"] = strategy, instrument
        row["venue"] = page.names.venues.index(traded.venue)
        scopes = (
            f"strategy:{page.names.strategies[strategy]}", traded.scope, f"asset:{traded.asset}",
            f"venue:{traded.venue}", "portfolio",
        )  # fmt: skip
        for index, scope in enumerate(scopes):
            row["node"][index] = page.names.scope(scope)


def _write_accounts(page: Page, facts: dict[str, VenueFacts]) -> None:
    rows, names = page.rows(ACCOUNT), page.names
    total = sum(fact.starting_money for fact in facts.values())
    starting = {0: total}
    starting |= {names.scope(f"venue:{venue}"): facts[venue].starting_money for venue in facts}
    for name in names.strategies:
        # Until the allocator gives shares of capital, a strategy's loss is measured against all.
        starting[names.scope(f"strategy:{name}")] = total
    for node, amount in starting.items():
        rows["starting"][node] = rows["high_water_mark"][node] = amount
