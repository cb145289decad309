"""Books of one account on the simulated venue: positions, fees, equity; nothing lost in rounding.

A position keeps two whole numbers of tick·lots (price in ticks × lots): what its open lots cost,
and what closed lots earned. They become money only when asked for, by the instrument's exact worth
of one lot at one tick. A stored average price would have to be rounded at each fill, or grow as a
fraction without bound while a market maker never goes flat; whole costs do neither.

Invariants: B1 equity = starting equity + Σ worth × (realised + lots × mark − entry cost) − fees,
exactly; B2 a flat position has no entry cost; B3 fees only rise.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from tripgate.reasons import Side
from tripgate.units import InstrumentUnits, notional_money

BASIS_POINTS = 10_000


def basis_points(value: object) -> Fraction:
    """Return a figure in basis points as an exact ratio. Floats count by their shortest text."""
    return Fraction(str(value)) / BASIS_POINTS


@dataclass(frozen=True, slots=True)
class Terms:
    """What trading one instrument means here.

    Attributes
    ----------
    half_spread, taker_fee, maker_fee
        Ratios of the price and of the notional (0.0005 is five basis points), 0 or more.
    """

    symbol: str
    units: InstrumentUnits
    half_spread: Fraction
    taker_fee: Fraction
    maker_fee: Fraction
    value: Fraction = field(init=False)

    def __post_init__(self) -> None:
        if min(self.half_spread, self.taker_fee, self.maker_fee) < 0:
            raise ValueError(f"{self.symbol}: spread and fees cannot be negative")
        object.__setattr__(self, "value", self.units.value_fraction())

    def touch_ticks(self, side: Side, tick: int) -> int:
        """Return the price at which an order of ``side`` would trade now, in whole ticks.

        The half spread is added for a buyer and taken off for a seller, then rounded against the
        order; a seller still gets one tick at least, because a price of zero is no price.
        """
        if side is Side.BUY:
            return -((-tick * (1 + self.half_spread)) // 1)
        return max(1, (tick * (1 - self.half_spread)) // 1)


@dataclass(slots=True)
class Position:
    """Net position of one instrument.

    Attributes
    ----------
    lots
        Signed.
    entry_tick_lots
        Σ signed lots × price of what is open; its sign is that of ``lots``.
    realised_tick_lots
        Profit of what was closed, before fees.
    """

    lots: int = 0
    entry_tick_lots: int = 0
    realised_tick_lots: int = 0

    def apply(self, signed_lots: int, price_ticks: int) -> None:
        """Book a fill: close what it opposes, open with the rest."""
        closing = 0
        if self.lots * signed_lots < 0:
            closing = min(abs(signed_lots), abs(self.lots))
            sign = 1 if self.lots > 0 else -1
            # The cost leaves in whole tick·lots; what the division leaves over stays with the open
            # lots, so it moves between realised and unrealised and never out of the sum.
            removed = self.entry_tick_lots * closing // abs(self.lots)
            self.realised_tick_lots += sign * closing * price_ticks - removed
            self.entry_tick_lots -= removed
            self.lots -= sign * closing
        opening = abs(signed_lots) - closing
        signed_opening = opening if signed_lots > 0 else -opening
        self.lots += signed_opening
        self.entry_tick_lots += signed_opening * price_ticks

    def worth_tick_lots(self, mark_ticks: int) -> int:
        """Return realised and unrealised profit at ``mark_ticks``, in tick·lots."""
        return self.realised_tick_lots + self.lots * mark_ticks - self.entry_tick_lots


class Account:
    """Positions, marks, fees and cash of one account.

    Parameters
    ----------
    starting_equity_money
        Money units, above 0.
    terms
        The instruments, each symbol once.
    """

    def __init__(self, starting_equity_money: int, terms: Iterable[Terms]) -> None:
        if starting_equity_money <= 0:
            raise ValueError("the starting equity must be above zero")
        self.starting_equity_money = starting_equity_money
        self.fees_money = 0
        self.terms = {one.symbol: one for one in terms}
        self.positions = {symbol: Position() for symbol in self.terms}
        self.marks_ticks: dict[str, int] = {}

    def apply_fill(self, symbol: str, signed_lots: int, price_ticks: int, rate: Fraction) -> int:
        """Book a fill and return its fee: notional × ``rate``, money units, rounded up."""
        self.positions[symbol].apply(signed_lots, price_ticks)
        # ``notional_money`` rounds up once, at the end: the fee rate is folded into the worth.
        fee_money = notional_money(signed_lots, price_ticks, self.terms[symbol].value * rate)
        self.fees_money += fee_money
        return fee_money

    def cash(self) -> Fraction:
        """Return starting equity + realised profit − fees, money units, exactly."""
        realised = Fraction(0)
        for symbol, position in self.positions.items():
            realised += self.terms[symbol].value * position.realised_tick_lots
        return self.starting_equity_money + realised - self.fees_money

    def equity(self) -> Fraction:
        """Return cash + unrealised profit at the last ticks, money units, exactly."""
        unrealised = Fraction(0)
        for symbol, position in self.positions.items():
            if position.lots:
                # A position began with a fill, and a fill needs a tick: the mark is there.
                gain = position.lots * self.marks_ticks[symbol] - position.entry_tick_lots
                unrealised += self.terms[symbol].value * gain
        return self.cash() + unrealised

    def open_positions(self) -> dict[str, int]:
        """Return signed lots of every position that is not flat."""
        return {symbol: one.lots for symbol, one in self.positions.items() if one.lots}

    def average_prices(self) -> dict[str, str]:
        """Return the average entry price of every open position as decimal text."""
        return {
            symbol: format(
                self.terms[symbol].units.tick * Decimal(one.entry_tick_lots) / Decimal(one.lots),
                "f",
            )
            for symbol, one in self.positions.items()
            if one.lots
        }
