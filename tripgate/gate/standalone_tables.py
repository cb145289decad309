"""The tables of a standalone page: limits, instruments and strategies as plain values.

A tree makes its page from a config file and from what venues say of themselves; a standalone gate
has neither, so everything is said by the caller. Every mistake is found before anything is made,
and all of them are told at once. There is no default for money: each scope names both its limits,
and ``"none"`` has to be written out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tripgate.errors import ConfigError
from tripgate.page.layout import (
    ACCOUNT,
    HOLDER,
    INSTRUMENT,
    KEY,
    LIMIT,
    RATE,
    ROLE,
    STRATEGY,
    Capacities,
)
from tripgate.page.mapping import Page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.units import INT_MAX, LOTS_MAX, PPM, limit_money

PPM_PER_BPS = 100
NONE = "none"
OWNER_ROLE = 0
VALUE_NUMERATOR_MAX = 2**24
"""Bound of a lot's worth per tick (money units): lots × this then fits in 62 bits."""
BPS_MAX = 10_000
RESTING_CLOSES_MAX = 4
ATTEMPTS_PER_SECOND_MAX = 1_000
RATE_PER_SECOND_MAX = 2**16 - 1
HOLD_AUDIT = 1


@dataclass(frozen=True, kw_only=True)
class StandaloneInstrument:
    """One linear instrument whose quote currency is the reporting currency.

    Attributes
    ----------
    asset
        Base asset, whose limits span venues.
    tick, lot, contract_size
        Price and quantity step and coins per contract, as decimal texts.
    order_reporting_max
        Largest worth of one opening, reporting currency.
    collar_bps_max, stop_distance_bps_max
        Farthest an order's price may be from the mark, and its stop from the price; basis points.
    mark_age_max_ms
        Older marks deny.
    """

    asset: str
    tick: str
    lot: str
    order_reporting_max: str
    collar_bps_max: int
    stop_distance_bps_max: int
    contract_size: str = "1"
    mark_age_max_ms: int = 2_000


def make_names(
    instance: str,
    state: Path,
    reporting_currency: str,
    instruments: Mapping[str, StandaloneInstrument],
    strategies: Mapping[str, int],
) -> PageNames:
    """Return the names of a standalone page: every strategy may trade every instrument.

    Raises
    ------
    ConfigError
        A name is no ``VENUE/SYMBOL``, a number is out of range, or something is missing.
    """
    problems = [*_instrument_problems(instruments), *_strategy_problems(strategies)]
    if problems:
        raise ConfigError(*problems)
    named = tuple(_named(text, given) for text, given in instruments.items())
    venues = tuple(dict.fromkeys(name.venue for name in named))
    scopes = (
        "portfolio",
        *(f"venue:{venue}" for venue in venues),
        *(f"asset:{asset}" for asset in dict.fromkeys(name.asset for name in named)),
        *(f"strategy:{strategy}" for strategy in strategies),
        *(name.scope for name in named),
    )
    keys = tuple((s, i) for s in range(len(strategies)) for i in range(len(named)))
    return PageNames(
        instance, reporting_currency, str(state), venues, tuple(strategies), scopes, named,
        (RoleName("owner", "", critical=True),), keys, {},
    )  # fmt: skip


def capacities_of(names: PageNames) -> Capacities:
    """Return how large the page's tables must be."""
    return Capacities(
        nodes=len(names.scopes), instruments=len(names.instruments),
        strategies=len(names.strategies), keys=len(names.keys), roles=1, causes=1,
    )  # fmt: skip


def read_limits(
    names: PageNames, limits: Mapping[str, tuple[object, object]]
) -> dict[str, tuple[int, int]]:
    """Return (gross, net) in money units by scope.

    Raises
    ------
    ConfigError
        A scope has no limits, a limit has no scope, or an amount is none.
    """
    problems = [f"limits: {scope} is missing" for scope in names.scopes if scope not in limits]
    problems += [f"limits: there is no scope {scope!r}" for scope in limits
                 if scope not in names.scopes]  # fmt: skip
    found = {}
    for scope, pair in limits.items():
        try:
            gross, net = pair
            found[scope] = _amount(gross), _amount(net)
        except (ValueError, TypeError, ArithmeticError) as error:
            problems.append(f"limits.{scope}: expected (gross, net), amounts or 'none': {error}")
    if problems:
        raise ConfigError(*problems)
    return found


def write_tables(
    page: Page,
    limits: Mapping[str, tuple[int, int]],
    instruments: Mapping[str, StandaloneInstrument],
    strategies: Mapping[str, int],
    lease_ns: int,
) -> None:
    """Write everything that stays as it is (owner only, before the page opens)."""
    role = page.rows(ROLE)[OWNER_ROLE]
    role["present"], role["lease_ns"], role["step"] = 1, lease_ns, -1
    page.rows(HOLDER)["mask"][:] = HOLD_AUDIT
    rows = page.rows(LIMIT)
    for node, scope in enumerate(page.names.scopes):
        gross, net = limits[scope]
        rows["gross_configured"][node] = rows["gross_max"][node] = gross
        rows["net_configured"][node] = rows["net_max"][node] = net
        rows["factor_ppm"][node] = PPM
        rows["margin_max"][node] = INT_MAX
    rate = page.rows(RATE)[0]
    rate["rate_ppm"] = rate["par_ppm"] = PPM
    rate["market_ms"] = -1
    for number, given in enumerate(instruments.values()):
        _write_instrument(page, number, given)
    for number, (name, rate_max) in enumerate(strategies.items()):
        plan = page.rows(STRATEGY)[number]
        plan["node"], plan["order"] = page.names.scope(f"strategy:{name}"), number
        plan["orders_per_second_max"] = rate_max
        plan["attempts_per_second_max"] = ATTEMPTS_PER_SECOND_MAX
    _write_keys(page)
    page.rows(ACCOUNT)["known"] = 0


def _write_instrument(page: Page, number: int, given: StandaloneInstrument) -> None:
    name, row = page.names.instruments[number], page.rows(INSTRUMENT)[number]
    value = name.units.value_fraction()
    row["tradable"], row["node"] = 1, page.names.scope(name.scope)
    row["venue"] = page.names.venues.index(name.venue)
    row["asset"] = page.names.scope(f"asset:{name.asset}")
    row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
    row["order_money_max"], row["order_lots_max"] = _amount(given.order_reporting_max), LOTS_MAX
    row["collar_ppm"] = given.collar_bps_max * PPM_PER_BPS
    row["exit_collar_ppm"] = 2 * row["collar_ppm"]
    row["stop_distance_ppm"] = given.stop_distance_bps_max * PPM_PER_BPS
    row["age_max_ms"], row["role_mask"] = given.mark_age_max_ms, 1 << OWNER_ROLE
    row["resting_max"] = RESTING_CLOSES_MAX


def _write_keys(page: Page) -> None:
    names = page.names
    for number, (strategy, instrument) in enumerate(names.keys):
        traded, row = names.instruments[instrument], page.rows(KEY)[number]
        row["strategy"], row["instrument"] = strategy, instrument
        row["venue"] = names.venues.index(traded.venue)
        scopes = (
            f"strategy:{names.strategies[strategy]}", traded.scope, f"asset:{traded.asset}",
            f"venue:{traded.venue}", "portfolio",
        )  # fmt: skip
        row["node"] = [names.scope(scope) for scope in scopes]


def _named(text: str, given: StandaloneInstrument) -> InstrumentName:
    venue, _, symbol = text.partition("/")
    return InstrumentName(
        venue, symbol, given.asset, given.tick, given.lot, given.contract_size
    )  # fmt: skip


def _amount(value: object) -> int:
    if value == NONE:
        return INT_MAX
    amount = limit_money(value)
    if amount < 0:
        raise ValueError(f"{value} is negative")
    return amount


def _instrument_problems(instruments: Mapping[str, StandaloneInstrument]) -> list[str]:
    problems = [] if instruments else ["instruments: name at least one"]
    for text, given in instruments.items():
        venue, slash, symbol = text.partition("/")
        if not (venue and slash and symbol):
            problems.append(f"instruments: {text!r} is not VENUE/SYMBOL")
        problems += [
            f"instruments.{text}.{field}: a positive decimal, was {getattr(given, field)!r}"
            for field in ("tick", "lot", "contract_size")
            if not _is_positive(getattr(given, field))
        ]
        problems += [
            f"instruments.{text}.{field}: from 1 to {most}, was {getattr(given, field)!r}"
            for field, most in (("collar_bps_max", BPS_MAX), ("stop_distance_bps_max", BPS_MAX),
                                ("mark_age_max_ms", INT_MAX))
            if not 1 <= getattr(given, field) <= most
        ]  # fmt: skip
        try:
            _amount(given.order_reporting_max)
        except (ValueError, ArithmeticError) as error:
            problems.append(f"instruments.{text}.order_reporting_max: {error}")
        if not problems and not _is_countable(_named(text, given)):
            problems.append(f"instruments.{text}: one lot is worth more than can be counted")
    return problems


def _strategy_problems(strategies: Mapping[str, int]) -> list[str]:
    problems = [] if strategies else ["strategies: name at least one"]
    return problems + [
        f"strategies.{name}: openings per second, 1 to {RATE_PER_SECOND_MAX}, was {rate!r}"
        for name, rate in strategies.items()
        if not 1 <= rate <= RATE_PER_SECOND_MAX
    ]


def _is_positive(text: str) -> bool:
    try:
        number = Decimal(text)
    except ArithmeticError:
        return False
    return number.is_finite() and number > 0


def _is_countable(name: InstrumentName) -> bool:
    value = name.units.value_fraction()
    return value.numerator <= VALUE_NUMERATOR_MAX and value.denominator <= INT_MAX
