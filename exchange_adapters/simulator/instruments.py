"""The contracts that the simulated venue lists: grids, fees, spread, margin brackets.

They stand in ``instruments.toml`` beside this file. Base coin S of a market-data panel is traded as
the linear perpetual ``S/USDT:USDT``. Money figures are ``Decimal`` from text, never floats: a grid
that is off by one ulp is another grid.

Invariants: S1 brackets ascend in notional and in maintenance margin rate, and their maintenance
amounts join them without a step.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from tripgate.errors import DataError, UsageError
from tripgate.units import InstrumentUnits

SCHEMA_VERSION = 1
QUOTE = "USDT"
SUFFIX = f"/{QUOTE}:{QUOTE}"
INSTRUMENTS_FILE = Path(__file__).with_name("instruments.toml")


@dataclass(frozen=True, slots=True)
class Bracket:
    """One step of the maintenance margin table.

    Attributes
    ----------
    notional_quote_max
        Largest position notional of this step, quote currency.
    maintenance_margin_rate
        Maintenance margin ÷ notional, in (0, 1).
    initial_leverage_max
        Largest leverage that a position of this size may be opened with.
    maintenance_amount_quote
        Venues call it ``cum``: maintenance margin = notional × rate − this.
    """

    notional_quote_max: Decimal
    maintenance_margin_rate: Decimal
    initial_leverage_max: int
    maintenance_amount_quote: Decimal


@dataclass(frozen=True, slots=True)
class Instrument:
    """One linear perpetual of the simulated venue.

    Attributes
    ----------
    symbol
        Unified symbol, ``BASE/USDT:USDT``.
    units
        Tick (quote currency), lot (coins) and contract size (1).
    half_spread_bps
        Half the bid-ask spread, basis points of the price.
    taker_fee_bps, maker_fee_bps
        Fees, basis points of the notional.
    brackets
        Maintenance margin steps in ascending order; beyond the last no position is allowed.
    """

    symbol: str
    units: InstrumentUnits
    half_spread_bps: Decimal
    taker_fee_bps: Decimal
    maker_fee_bps: Decimal
    brackets: tuple[Bracket, ...]


def symbol_of(base: str) -> str:
    """Return the unified symbol of a base coin: ``symbol_of("BTC") == "BTC/USDT:USDT"``."""
    return base + SUFFIX


def base_of(symbol: str) -> str:
    """Return the base coin of a unified symbol. Raises ``UsageError`` for any other text."""
    base = symbol.removesuffix(SUFFIX)
    if base == symbol or not base or "/" in base:
        raise UsageError(f"{symbol!r} is not a symbol like BTC{SUFFIX}: write it so")
    return base


def load_instruments(symbols: Iterable[str]) -> dict[str, Instrument]:
    """Return the instruments of ``symbols``, in their order.

    Raises
    ------
    UsageError
        A text that is not a unified symbol.
    DataError
        A symbol that the venue does not list; all of them are named at once.
    """
    listed = _listed()
    wanted = list(symbols)
    unknown = [symbol for symbol in wanted if symbol not in listed]
    if unknown:
        lines = [_unknown_text(base_of(symbol), listed) for symbol in unknown]
        raise DataError("\n".join(lines))
    return {symbol: listed[symbol] for symbol in wanted}


def listed_symbols() -> tuple[str, ...]:
    """Return every unified symbol that the venue lists."""
    return tuple(_listed())


def _unknown_text(base: str, listed: dict[str, Instrument]) -> str:
    bases = [base_of(symbol) for symbol in listed]
    close = get_close_matches(base.upper(), bases, n=1)
    hint = f"did you mean {symbol_of(close[0])}?" if close else f"it lists {', '.join(bases)}"
    return f"the simulated venue does not list {symbol_of(base)}: {hint}"


@cache
def _listed() -> dict[str, Instrument]:
    table = tomllib.loads(INSTRUMENTS_FILE.read_text(encoding="utf-8"))
    if table["schema"] != SCHEMA_VERSION:
        raise DataError(
            f"{INSTRUMENTS_FILE}: schema {table['schema']}, this release reads {SCHEMA_VERSION}: "
            "install the file that belongs to it"
        )
    brackets = {base: _brackets(rows) for base, rows in table["brackets"].items()}
    return {
        symbol_of(base): Instrument(
            symbol=symbol_of(base),
            units=InstrumentUnits(
                tick=Decimal(row["tick"]),
                lot=Decimal(row["lot"]),
                contract_size=Decimal(table["contract_size"]),
            ),
            half_spread_bps=Decimal(row["half_spread_bps"]),
            taker_fee_bps=Decimal(table["taker_fee_bps"]),
            maker_fee_bps=Decimal(table["maker_fee_bps"]),
            brackets=brackets[row["brackets"]],
        )
        for base, row in table["instruments"].items()
    }


def _brackets(rows: list[list[Any]]) -> tuple[Bracket, ...]:
    return tuple(
        Bracket(
            notional_quote_max=Decimal(notional),
            maintenance_margin_rate=Decimal(rate),
            initial_leverage_max=leverage,
            maintenance_amount_quote=Decimal(amount),
        )
        for notional, rate, leverage, amount in rows
    )
