"""The simulated account's books: whole costs, exact profit, no negative cost of trading."""

from decimal import Decimal
from fractions import Fraction

import pytest

from exchange_adapters.simulator.account import Account, Position, Terms
from tripgate.units import InstrumentUnits

BTC = "BTC/USDT:USDT"


def test_position_when_partly_closed_at_an_uneven_cost_then_the_rest_keeps_what_is_left() -> None:
    position = Position()
    position.apply(2, 100)
    position.apply(1, 101)
    position.apply(-1, 110)
    # A third of 301 is 100 and a rest of 1, which stays with the open lots.
    assert position == Position(lots=2, entry_tick_lots=201, realised_tick_lots=10)
    position.apply(-2, 110)
    assert position == Position(lots=0, entry_tick_lots=0, realised_tick_lots=3 * 110 - 301)


def test_short_position_when_partly_closed_then_earns_what_the_price_fell() -> None:
    position = Position()
    position.apply(-4, 100)
    assert position.worth_tick_lots(90) == 40
    position.apply(3, 90)
    assert position == Position(lots=-1, entry_tick_lots=-100, realised_tick_lots=30)
    assert position.worth_tick_lots(90) == 40
    position.apply(2, 110)
    assert position == Position(lots=1, entry_tick_lots=110, realised_tick_lots=20)


@pytest.mark.parametrize("field", ["half_spread", "taker_fee", "maker_fee"])
def test_terms_when_a_cost_is_negative_then_are_refused(field: str) -> None:
    costs = dict.fromkeys(("half_spread", "taker_fee", "maker_fee"), Fraction(0))
    costs[field] = Fraction(-1, 10_000)
    units = InstrumentUnits(Decimal(1), Decimal(1), Decimal(1))
    with pytest.raises(ValueError, match="negative"):
        Terms(symbol=BTC, units=units, **costs)


def test_account_when_it_starts_without_money_then_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Account(0, [])
