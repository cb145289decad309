"""Amounts as docs/gate.md defines them, in exact integers: worth, shares, collars.

Written apart from the gate's kernels: Python's integers have no range, so nothing is guarded here
but what the rules themselves bound.
"""

from collections.abc import Mapping
from fractions import Fraction

from tripgate.units import INT_MAX, PPM

AMOUNT_MAX = INT_MAX // 4
"""One order's worth may be this much, money units."""
TICKS_MAX = 2**40
RATE_PPM_MAX = 2**42
ROUGHLY = Fraction(1, 2**45)
"""Around its bound a worth is judged in floats by the gate: so near to it, either answer is right.
"""


def share_up(amount: int, ppm: int) -> int:
    """Return amount × ppm ÷ 1e6, rounded up."""
    return -(-amount * ppm // PPM)


def share_down(amount: int, ppm: int) -> int:
    """Return amount × ppm ÷ 1e6, rounded down."""
    return amount * ppm // PPM


def part_up(amount: int, part: int, whole: int) -> int:
    """Return amount × part ÷ whole, rounded up."""
    return -(-amount * part // whole)


def worth(spec: Mapping[str, int], lots: int, price: int, mark: int, rate_ppm: int) -> int:
    """Return what an order counts: the dearer of price and mark, each rounding upwards.

    Lots are worth a fixed amount of an inverse contract's quote currency, whatever the price.
    """
    unit = 1 if spec["inverse"] else max(price, mark)
    quoted = part_up(abs(lots) * spec["value_numerator"], unit, spec["value_denominator"])
    return share_up(quoted, rate_ppm)


def overflows(spec: Mapping[str, int], lots: int, price: int, mark: int, rate_ppm: int) -> float:
    """Return by how much an order's worth is beyond counting: above 0 it is, below it is not.

    0 where it is so near to the bound that either answer is right.
    """
    unit = 1 if spec["inverse"] else max(price, mark)
    product = abs(lots) * spec["value_numerator"] * unit * max(PPM, rate_ppm)
    beyond = Fraction(product, AMOUNT_MAX * PPM) - 1
    return 0.0 if abs(beyond) < ROUGHLY else float(beyond)


def collar_price(mark: int, collar_ppm: int, lots: int) -> int:
    """Return the limit at which a market order is sent."""
    reach = share_down(mark, collar_ppm)
    return mark + reach if lots > 0 else max(1, mark - reach)
