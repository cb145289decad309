"""Making the page of a run from its config and the venue's markets (root only, before arming).

Numbers are given in the order of the config; node 0 is the portfolio. Limits are written both as
configured and as effective; only the breaker changes the effective ones later, and only tighter.
"""

import os
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from exchange_adapters.venue_port import VenueMarket
from supervisors.tree import TREE, roles_of
from tripgate.clock import NS_PER_MS, coarse_resolution_ns
from tripgate.config.structs import Config, instrument_key
from tripgate.errors import ConfigError
from tripgate.instance import page_folder, socket_path, state_folder
from tripgate.page.layout import (
    ACCOUNT,
    CURSOR,
    HOLDER,
    INSTRUMENT,
    KEY,
    LIMIT,
    RATE,
    ROLE,
    STRATEGY,
    Capacities,
)
from tripgate.page.level import LevelWriter
from tripgate.page.limits import configured_values, write_limits
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames
from tripgate.processes import process_start_time
from tripgate.reasons import Level
from tripgate.units import INT_MAX, PPM

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
        if (market.quote or key.quote, market.inverse) != (key.quote, key.is_inverse):
            kind = "inverse" if market.inverse else "linear"
            problems.append(f"instruments.{text}: {key.venue} trades it {kind} in {market.quote}")
            continue
        quote = market.quote or key.quote
        name = InstrumentName(
            key.venue, key.symbol, key.base, market.tick, market.lot, market.contract_size, quote,
            market.inverse,
        )  # fmt: skip
        instruments.append(name)
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
    quotes = (config.reporting_currency, *config.quotes) if config.quotes else ()
    return PageNames(
        instance, config.reporting_currency, str(state_folder(instance)), tuple(config.venues),
        strategies, scopes, tuple(instruments), roles_of(config), keys, sockets, quotes=quotes,
    )  # fmt: skip


def make_page(
    config: Config, instance: str, epoch: int, facts: dict[str, VenueFacts],
    carried: dict[str, Level], *, shadow: bool = False,
) -> Page:  # fmt: skip
    """Make the page, closed, with everything that the config and the venue say.

    Parameters
    ----------
    carried
        Levels by scope name that an earlier run left and nothing may withdraw by a restart.
    shadow
        The page grants what it would deny, and says so in every record; it can never enforce.
    """
    names = make_names(config, instance, facts)
    capacities = Capacities(
        nodes=len(names.scopes), instruments=len(names.instruments),
        strategies=len(names.strategies), keys=len(names.keys), quotes=max(1, len(names.quotes)),
    )  # fmt: skip
    page = create_page(page_folder(instance), capacities, names, epoch=epoch, shadow=shadow)
    _write_header(page, facts)
    _write_roles(page)
    _write_limits(page, config, facts)
    _write_rates(page, config)
    _write_instruments(page, config)
    _write_strategies(page)
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


def _write_limits(page: Page, config: Config, facts: dict[str, VenueFacts]) -> None:
    rows, names = page.rows(LIMIT), page.names
    values = configured_values(config, names)
    for name in names.instruments:
        # Constant for the run: a rate that moved with the position would not add up exactly.
        rate = initial_margin_ppm(facts[name.venue].markets[name.symbol], config, name)
        values.setdefault((name.scope, "initial_margin_rate"), rate)
    write_limits(page, values)
    rows["margin_max"] = INT_MAX
    for venue in names.venues:
        # Nothing is known of the account yet; the keeper writes what it can bear at each mark.
        rows["margin_max"][names.scope(f"venue:{venue}")] = 0


def initial_margin_ppm(market: VenueMarket, config: Config, name: InstrumentName) -> int:
    """Return the initial margin rate that holds for any position within the gross limit, ppm.

    The rate of the first tier that reaches the gross limit; of the last one beyond it; the whole
    notional where the venue tells no tiers.
    """
    gross = config.instruments[f"{name.venue}/{name.symbol}"].gross_reporting_max
    rate = PPM
    for tier in market.margin_tiers:
        rate = -(-PPM // tier.initial_leverage_max)
        if gross is not None and gross <= Decimal(tier.notional_quote_max):
            break
    return rate


def _write_rates(page: Page, config: Config) -> None:
    # Row 0 is the reporting currency itself: always at par, and never stale. The others begin
    # without a rate: openings are denied until the keeper has seen one.
    rows = page.rows(RATE)
    rows["rate_ppm"][0] = rows["par_ppm"][0] = PPM
    rows["market_ms"][0] = -1
    for number, currency in enumerate(page.names.quotes):
        if number:
            rows["par_ppm"][number] = int(config.quotes[currency].par * PPM)


def _write_instruments(page: Page, config: Config) -> None:
    rows = page.rows(INSTRUMENT)
    for number, name in enumerate(page.names.instruments):
        text = f"{name.venue}/{name.symbol}"
        value = name.units.value_fraction()
        if name.inverse:
            # A lot of an inverse contract is worth a fixed amount of its quote currency.
            value /= Fraction(name.units.tick)
        if value.numerator > VALUE_NUMERATOR_MAX or value.denominator > INT_MAX:
            raise ConfigError(f"{name.scope}: one lot is worth more than this release can count")
        row = rows[number]
        row["tradable"], row["node"] = 1, page.names.scope(name.scope)
        row["venue"] = page.names.venues.index(name.venue)
        row["asset"] = page.names.scope(f"asset:{name.asset}")
        row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
        row["inverse"] = int(name.inverse)
        row["quote"] = page.names.quotes.index(name.quote) if page.names.quotes else 0
        row["shared"] = int(config.instruments[text].shared_instruments)
        row["age_max_ms"] = AGE_MAX_MS
        mask = 0
        for role, what in enumerate(page.names.roles):
            if what.critical and what.venue in ("", name.venue):
                mask |= 1 << role
        row["role_mask"] = mask


def _write_strategies(page: Page) -> None:
    strategies, keys = page.rows(STRATEGY), page.rows(KEY)
    for number, name in enumerate(page.names.strategies):
        row = strategies[number]
        row["node"], row["order"] = page.names.scope(f"strategy:{name}"), number
    for number, (strategy, instrument) in enumerate(page.names.keys):
        traded, row = page.names.instruments[instrument], keys[number]
        row["strategy"], row["instrument"] = strategy, instrument
        row["margin_ppm"] = page.rows(INSTRUMENT)["margin_ppm"][instrument]
        row["venue"] = page.names.venues.index(traded.venue)
        scopes = (
            f"strategy:{page.names.strategies[strategy]}", traded.scope, f"asset:{traded.asset}",
            f"venue:{traded.venue}", "portfolio",
        )  # fmt: skip
        for index, scope in enumerate(scopes):
            row["node"][index] = page.names.scope(scope)
    holders = Counter(instrument for _, instrument in page.names.keys)
    for instrument, count in holders.items():
        page.rows(INSTRUMENT)["shared"][instrument] = int(count > 1)


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
