"""Scaled integers: prices are ticks, quantities lots, money 1e-4 of the reporting currency.

The gate's paths never see a float: a float cannot be compared with a limit exactly, and two
processes that add floats in another order disagree. Conversions happen once, at the edge, are
checked for range and grid, and round *against* the caller wherever rounding is needed.

Invariants: U1 no value leaves ``INT_MAX``; U2 ``notional_money`` never rounds down.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation
from fractions import Fraction
from numbers import Integral

MONEY_SCALE = 10_000
"""Money units in one unit of the reporting currency."""

PPM = 1_000_000
"""Parts per million: the unit of every ratio in the page (factors, collars, drawdown)."""

INT_MAX = 2**62
"""Bound of every scaled amount. Half of int64's range, so that one addition cannot overflow."""

LOTS_MAX = 2**31 - 1
"""Bound of a quantity: two quantities share one 64-bit word in the closable table."""


def to_decimal(value: object) -> Decimal:
    """Return ``value`` as a finite Decimal.

    Parameters
    ----------
    value
        ``Decimal``, ``int``, ``str`` or finite ``float`` (taken by its shortest decimal form).
        ``bool`` is refused: it is an accident where a quantity is expected.

    Raises
    ------
    ValueError
        Not a finite number.
    """
    if isinstance(value, bool):
        raise ValueError("expected a number, was bool")
    if isinstance(value, float):
        # numpy's float64 is a float with a repr of its own.
        value = repr(float(value))
    elif isinstance(value, Integral):
        value = int(value)
    if not isinstance(value, Decimal | int | str):
        raise ValueError(f"expected a number, was {type(value).__name__}")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"expected a number, was {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"expected a finite number, was {value!r}")
    return number


def on_grid(value: object, step: Decimal) -> int:
    """Return how many ``step`` make ``value`` exactly.

    Raises
    ------
    ValueError
        ``value`` is not a finite number, not a whole multiple of ``step``, or out of range.
    """
    steps, rest = divmod(abs(number := to_decimal(value)), step)
    if rest:
        raise ValueError(f"{value} is not a multiple of {step}")
    if steps > INT_MAX:
        raise ValueError(f"{value} is out of range")
    return int(steps) if number >= 0 else -int(steps)


def money(amount: object, *, rounding: str = ROUND_HALF_EVEN) -> int:
    """Return ``amount`` of the reporting currency in money units (1e-4).

    ``rounding`` is a ``decimal`` constant: limits use ROUND_FLOOR, charges ROUND_CEILING.
    """
    scaled = (to_decimal(amount) * MONEY_SCALE).to_integral_value(rounding=rounding)
    if abs(scaled) > INT_MAX:
        raise ValueError(f"{amount} is out of range")
    return int(scaled)


def limit_money(amount: object) -> int:
    """Return a limit in money units, rounded down: a limit is never wider than written."""
    return money(amount, rounding=ROUND_FLOOR)


def charge_money(amount: object) -> int:
    """Return a charge in money units, rounded up: a cost is never smaller than it is."""
    return money(amount, rounding=ROUND_CEILING)


def money_text(amount_money: int) -> str:
    """Return money units as a plain decimal text of the reporting currency."""
    return f"{Decimal(amount_money) / MONEY_SCALE:.2f}"


@dataclass(frozen=True)
class InstrumentUnits:
    """Grid of one linear instrument and the exact worth of one lot at one tick.

    Attributes
    ----------
    tick, lot
        Price and quantity step, in quote currency and in contracts (or coins).
    contract_size
        Coins per contract; 1 where quantities are coins.
    """

    tick: Decimal
    lot: Decimal
    contract_size: Decimal

    def value_fraction(self) -> Fraction:
        """Return money units that one lot is worth per price tick, exactly."""
        return Fraction(self.tick) * Fraction(self.lot) * Fraction(self.contract_size) * MONEY_SCALE

    def price_ticks(self, price: object) -> int:
        """Return a price in ticks. Raises ``ValueError`` off the grid or out of range."""
        return on_grid(price, self.tick)

    def quantity_lots(self, quantity: object) -> int:
        """Return a signed quantity in lots. Raises ``ValueError`` off the grid or out of range."""
        lots = on_grid(quantity, self.lot)
        if abs(lots) > LOTS_MAX:
            raise ValueError(f"{quantity} is out of range")
        return lots

    def price_text(self, ticks: int) -> str:
        """Return ticks as a plain decimal price."""
        return format(self.tick * ticks, "f")

    def quantity_text(self, lots: int) -> str:
        """Return lots as a plain decimal quantity."""
        return format(self.lot * lots, "f")

    def nearest_ticks(self, price: float) -> int:
        """Return the tick nearest to a recorded float price (float32 panels are off the grid)."""
        return round(Fraction(price) / Fraction(self.tick))


def notional_money(lots: int, ticks: int, value: Fraction) -> int:
    """Return |lots| × ticks × value in money units, rounded up.

    Parameters
    ----------
    lots, ticks
        Signed lots and a non-negative price in ticks.
    value
        ``InstrumentUnits.value_fraction()``.
    """
    return -(-(abs(lots) * ticks * value.numerator) // value.denominator)
