"""The configuration as frozen structs: what tripgate.toml may hold, with units in the names.

The structs hold what was written, exactly (``Decimal``); the gate's integers are made by the money
helpers at the end, which round limits down. Amounts have no default anywhere: a limit that nobody
wrote is a limit that nobody chose. ``reader`` fills the structs and reports all errors.

Invariants: C1 no amount has a default; C2 a limit is absent only where ``"none"`` was written;
C3 a converted limit is never wider than written.
"""

from decimal import Decimal
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from tripgate import units
from tripgate.config.rules import (
    AMOUNT,
    BUFFER,
    FLAG,
    LIMIT,
    PAR,
    SECRET,
    Secret,
    one_of,
    ratio,
    text,
    whole,
    words,
)
from tripgate.instance import NAME_PATTERN

SCHEMA_VERSION = 1
VENUES_MAX = 16
INSTRUMENTS_MAX = 1024
STRATEGIES_MAX = 64
"""Rows that the page's tables may be asked for: far above a desk's need, and known."""

STRESS_LOSS_MULTIPLE = 4
"""A fall of 25 % in everything costs a quarter of gross exposure: gross ≤ 4 × the stress loss."""

BPS_MAX = 10_000
RESTING_CLOSES_BOUND = 16
ATTEMPTS_BOUND = 100_000
HEADS_COPIES_MAX = 4
KEEP_MONTHS_BOUND = 1_200
EXIT_COLLAR_MULTIPLE = 2
"""An exit may go this many collars away where nothing else is written."""

SECONDS_MAX = 31_536_000
"""One year: the longest horizon or bar that makes sense here."""

RESERVED_STRATEGY = "unattributed"
"""Foreign orders and positions are booked under this name, so no strategy may take it."""

VENUE_NAME = text("a venue name like binance-main ([a-z][a-z0-9-]{0,31})", NAME_PATTERN)
STRATEGY_NAME = text("a strategy name like trend ([a-z][a-z0-9-]{0,31})", NAME_PATTERN)
ASSET_NAME = text("a base asset like BTC", r"[A-Z0-9]{1,20}")
CURRENCY_NAME = text("a currency like USDT", r"[A-Z0-9]{2,10}")
INSTRUMENT_NAME = text(
    "VENUE/BASE/QUOTE:SETTLE like binance-main/BTC/USDT:USDT",
    NAME_PATTERN + r"/[A-Z0-9]{1,20}/[A-Z0-9]{1,20}:[A-Z0-9]{1,20}",
)


class Risk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How risk is measured."""

    var_budget_reporting: Annotated[
        Decimal, AMOUNT, Meta(description="Value at risk that the whole book may carry.")
    ]
    bar_s: Annotated[
        int, whole(1, SECONDS_MAX), Meta(description="Length of the bars of the risk models, s.")
    ] = 60
    window_bars: Annotated[
        int, whole(2, 100_000), Meta(description="Bars in the models' rolling window.")
    ] = 1000
    var_confidence: Annotated[
        Decimal,
        ratio("a number above 0.5 and below 1", "0.5", "0.99999"),
        Meta(description="Confidence of value at risk."),
    ] = Decimal("0.99")
    var_horizon_s: Annotated[
        int, whole(1, SECONDS_MAX), Meta(description="Horizon of value at risk, s.")
    ] = 86_400
    soft_factor: Annotated[
        Decimal,
        ratio("a number above 0 and at most 1", "0", "1"),
        Meta(description="What SOFT multiplies limits and order sizes by."),
    ] = Decimal("0.5")

    @property
    def soft_factor_ppm(self) -> int:
        """Return ``soft_factor`` in parts per million, rounded down (tighter)."""
        return int(self.soft_factor * units.PPM)


class ScopeLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one asset, venue or strategy, in the reporting currency."""

    gross_reporting_max: Annotated[
        Decimal | None, LIMIT, Meta(description="Sum of |positions| and open orders.")
    ]
    net_reporting_max: Annotated[
        Decimal | None, LIMIT, Meta(description="|Long minus short|, open orders included.")
    ]


class PortfolioLimits(ScopeLimits, frozen=True, forbid_unknown_fields=True):
    """Limits of everything together, in the reporting currency."""

    stress_loss_reporting_max: Annotated[
        Decimal | None,
        LIMIT,
        Meta(description="Loss with every asset 25 % down at once, enforced as a gross limit."),
    ]
    loss_reporting_max: Annotated[
        Decimal | None, LIMIT, Meta(description="Total loss since the start, never re-based.")
    ]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every limit above the instruments."""

    portfolio: PortfolioLimits
    assets: dict[Annotated[str, ASSET_NAME], ScopeLimits] = {}
    venues: dict[Annotated[str, VENUE_NAME], ScopeLimits] = {}
    strategies: dict[Annotated[str, STRATEGY_NAME], ScopeLimits] = {}


class Venue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One account at one exchange."""

    exchange: Annotated[
        str,
        text("a ccxt exchange id like binanceusdm", r"[a-z0-9]{1,32}"),
        Meta(description="Exchange, by its ccxt id."),
    ]
    kind: Annotated[
        str,
        one_of("simulated", "live"),
        Meta(description="Whether orders go to the simulator or to the exchange."),
    ]
    position_mode: Annotated[
        str,
        one_of("one-way", "hedge"),
        Meta(description="How the account nets positions; the simulated venue is one-way."),
    ]
    margin_buffer_reporting: Annotated[
        Decimal, BUFFER, Meta(description="Margin that openings must leave untouched.")
    ]
    api_key: Annotated[
        Secret | None, SECRET, Meta(description="Where the API key is found; only live needs one.")
    ] = None
    margin_haircut: Annotated[
        Decimal,
        ratio("a number from 0.0001 to 1", "0.000099999999", "1"),
        Meta(description="Share of the account's equity that counts as margin, to 4 decimals."),
    ] = Decimal("0.95")
    starting_equity_reporting: Annotated[
        Decimal | None,
        AMOUNT,
        Meta(description="Money of a simulated account at its start; mandatory there."),
    ] = None


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one instrument at one venue."""

    gross_reporting_max: Annotated[
        Decimal | None, LIMIT, Meta(description="Sum of |positions| and open orders.")
    ]
    net_reporting_max: Annotated[
        Decimal | None, LIMIT, Meta(description="|Long minus short|, open orders included.")
    ]
    order_reporting_max: Annotated[
        Decimal, AMOUNT, Meta(description="Largest single opening order.")
    ]
    collar_bps_max: Annotated[
        int,
        whole(1, BPS_MAX),
        Meta(description="Farthest an order's price may be from the mark, basis points."),
    ]
    stop_distance_bps_max: Annotated[
        int,
        whole(1, BPS_MAX),
        Meta(description="Farthest a protective stop may be from the price, basis points."),
    ]
    exit_collar_bps_max: Annotated[
        int | None,
        whole(1, BPS_MAX),
        Meta(description="Farthest an exit's price is let go; absent: twice collar_bps_max."),
    ] = None
    order_lots_max: Annotated[
        int | None,
        whole(1, units.LOTS_MAX),
        Meta(description="Largest single opening order in lots; absent: no bound in lots."),
    ] = None
    resting_closes_max: Annotated[
        int,
        whole(1, RESTING_CLOSES_BOUND),
        Meta(description="Closes of one position that may rest at the venue at once."),
    ] = 4
    initial_margin_rate: Annotated[
        Decimal | None,
        ratio("a number above 0 and at most 1", "0", "1"),
        Meta(
            description="Initial margin ÷ notional; absent (simulated venue only): that of the "
            "venue's bracket which holds the gross limit."
        ),
    ] = None
    shared_instruments: Annotated[
        bool, FLAG, Meta(description="Several strategies may hold it, all on the same side.")
    ] = False


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One strategy process."""

    command: Annotated[
        tuple[str, ...],
        words("a list of program and arguments", length_min=1),
        Meta(description="Program and arguments that start the strategy."),
    ]
    instruments: Annotated[
        tuple[str, ...],
        words("a list of instrument names", length_min=1),
        Meta(description="Instruments that it may trade."),
    ]
    orders_per_second_max: Annotated[
        int, whole(1, 1000), Meta(description="Opening orders per second; exits are not counted.")
    ]
    attempts_per_second_max: Annotated[
        int,
        whole(1, ATTEMPTS_BOUND),
        Meta(description="Opening orders asked for per second, denied ones included."),
    ] = 1000
    duplicate_window_ms: Annotated[
        int,
        whole(0, 60_000),
        Meta(description="An opening equal to the last one within this time is denied; 0: off."),
    ] = 0
    repeated_orders_max: Annotated[
        int,
        whole(0, 100_000),
        Meta(description="Equal openings in a row within repeated_window_s; 0: no bound."),
    ] = 0
    repeated_window_s: Annotated[
        int,
        whole(1, 86_400),
        Meta(description="Time over which equal openings in a row are counted, s."),
    ] = 60
    on_exit: Annotated[
        str,
        one_of("cancel_entries"),
        Meta(description="What happens to its resting entries when the process ends."),
    ] = "cancel_entries"


class QuoteCurrency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quote currency other than the reporting currency."""

    par: Annotated[
        Decimal,
        PAR,
        Meta(
            description="What one unit should be worth in the reporting currency: exposure counts "
            "at the dearer of market and par, collateral at the cheaper."
        ),
    ]


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told."""

    on_level_command: Annotated[
        tuple[str, ...],
        words("a list of program and arguments", length_min=0),
        Meta(description="Run at MEDIUM and above; {scope}, {level} and {cause} are filled in."),
    ] = ()


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where heads of the audit log go besides, and how long its months are kept."""

    heads_copies: Annotated[
        tuple[str, ...],
        words("a list of absolute paths of files", length_min=0),
        Meta(description="Files on other disks that get a copy of every head of the chain."),
    ] = ()
    keep_months: Annotated[
        int,
        whole(1, KEEP_MONTHS_BOUND),
        Meta(description="`audit archive --prune` leaves this many newest months as they are."),
    ] = 84


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of tripgate.toml."""

    schema: Annotated[
        int,
        whole(SCHEMA_VERSION, SCHEMA_VERSION),
        Meta(description="Version of this format."),
    ]
    reporting_currency: Annotated[
        str,
        CURRENCY_NAME,
        Meta(description="Currency of every amount whose name says reporting."),
    ]
    risk: Risk
    limits: Limits
    venues: dict[Annotated[str, VENUE_NAME], Venue]
    instruments: dict[Annotated[str, INSTRUMENT_NAME], Instrument]
    strategies: dict[Annotated[str, STRATEGY_NAME], Strategy]
    quotes: dict[Annotated[str, CURRENCY_NAME], QuoteCurrency] = {}
    alerts: Alerts = Alerts()
    audit: Audit = Audit()


class InstrumentKey(NamedTuple):
    """The parts of an instrument's name, ``VENUE/BASE/QUOTE:SETTLE``."""

    venue: str
    base: str
    quote: str
    settle: str

    @property
    def symbol(self) -> str:
        """Return the unified symbol, ``BASE/QUOTE:SETTLE``."""
        return f"{self.base}/{self.quote}:{self.settle}"

    @property
    def is_inverse(self) -> bool:
        """Whether the contract settles in its base coin, so that a lot has a fixed quote value."""
        return self.settle == self.base


def instrument_key(name: str) -> InstrumentKey:
    """Return the parts of an instrument's name. Raises ``ValueError`` if it is none."""
    INSTRUMENT_NAME.read(name)
    venue, base, rest = name.split("/")
    quote, _, settle = rest.partition(":")
    return InstrumentKey(venue, base, quote, settle)


def limit_money(limit: Decimal | None) -> int:
    """Return a limit in money units, rounded down; ``None`` (written ``"none"``) as ``INT_MAX``."""
    return units.INT_MAX if limit is None else units.limit_money(limit)


def effective_gross(portfolio: PortfolioLimits) -> int:
    """Return the portfolio's gross limit in money units, the stress limit included.

    A fall of every asset by 25 % costs gross × 25 %, so the stress loss bounds gross exposure,
    whatever value at risk says.
    """
    return min(limit_money(portfolio.gross_reporting_max), stress_gross(portfolio))


def stress_gross(portfolio: PortfolioLimits) -> int:
    """Return the gross limit that the stress loss alone sets, money units."""
    if portfolio.stress_loss_reporting_max is None:
        return units.INT_MAX
    loss = limit_money(portfolio.stress_loss_reporting_max)
    return min(units.INT_MAX, STRESS_LOSS_MULTIPLE * loss)
