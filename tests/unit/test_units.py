"""Scaled integers: exact conversions, the grid, the range, rounding against the caller."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.units import (
    INT_MAX,
    LOTS_MAX,
    InstrumentUnits,
    charge_money,
    limit_money,
    money,
    money_text,
    notional_money,
    to_decimal,
)

UNITS = InstrumentUnits(Decimal("0.1"), Decimal("0.001"), Decimal(1))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Decimal("1.5"), "1.5"),
        ("1.5", "1.5"),
        (1.5, "1.5"),
        (3, "3"),
        (np.float64(0.25), "0.25"),
        (np.int64(7), "7"),
    ],
)
def test_to_decimal_when_given_a_number_then_it_is_exact(value: object, number: str) -> None:
    assert to_decimal(value) == Decimal(number)


@pytest.mark.parametrize(
    "value", [True, None, "a lot", float("nan"), float("inf"), "NaN", [1], b"1", 1j]
)
def test_P8_to_decimal_when_given_no_finite_number_then_it_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="was"):
        to_decimal(value)


def test_units_when_a_value_is_off_the_grid_or_out_of_range_then_it_is_refused() -> None:
    assert UNITS.price_ticks("100.3") == 1003
    assert UNITS.quantity_lots(-0.25) == -250
    assert UNITS.price_text(1003) == "100.3"
    assert UNITS.quantity_text(250) == "0.250"
    with pytest.raises(ValueError, match="multiple"):
        UNITS.price_ticks("100.35")
    with pytest.raises(ValueError, match="range"):
        UNITS.quantity_lots((LOTS_MAX + 1) * Decimal("0.001"))
    with pytest.raises(ValueError, match="range"):
        UNITS.price_ticks(INT_MAX)


def test_money_when_rounded_then_limits_go_down_and_charges_up() -> None:
    assert limit_money("1.00019") == 10_001
    assert charge_money("1.00011") == 10_002
    assert money_text(12_345) == "1.23"
    with pytest.raises(ValueError, match="range"):
        money(INT_MAX)


@given(st.integers(-LOTS_MAX, LOTS_MAX), st.integers(0, 2**40), st.fractions("1/1000", 1000))
def test_notional_when_computed_then_it_is_never_below_the_exact_worth(
    lots: int, ticks: int, value: Fraction
) -> None:
    exact = abs(lots) * ticks * value
    assert exact <= notional_money(lots, ticks, value) < exact + 1


def test_nearest_ticks_when_a_price_is_off_the_grid_then_the_nearest_is_taken() -> None:
    price = float(np.float32(57_123.46))
    assert abs(UNITS.nearest_ticks(price) * 0.1 - price) <= 0.05
