"""Whose a fill is: parts sum to it, nobody is turned while another could give, remainders fair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.errors import InvariantBroken
from tripgate.machines.attribution import Part, attribute, shares

STRATEGIES = st.integers(0, 5)
ONE_SIDED = st.tuples(
    st.sampled_from([1, -1]), st.dictionaries(STRATEGIES, st.integers(0, 1_000), max_size=6)
).map(lambda drawn: {strategy: drawn[0] * lots for strategy, lots in drawn[1].items()})
"""Positions as the claim word allows them: all on one side of a one-way account."""
LOTS = st.integers(-3_000, 3_000).filter(bool)
FEES = st.integers(-10_000, 10_000)


@given(ONE_SIDED, STRATEGIES, LOTS, FEES, st.booleans())
def test_A1_attribute_when_any_fill_then_parts_and_fees_sum_to_it(
    held: dict[int, int], strategy: int, lots: int, fee: int, is_own: bool
) -> None:
    parts = attribute(held, strategy, lots, fee, is_own=is_own)
    assert sum(part.signed_lots for part in parts) == lots
    assert sum(part.fee_money for part in parts) == fee
    assert all(part.signed_lots * lots > 0 for part in parts)
    assert len({part.strategy for part in parts}) == len(parts)


@given(ONE_SIDED, STRATEGIES, LOTS, st.booleans())
def test_A2_attribute_when_any_fill_then_no_book_turns_while_another_could_give(
    held: dict[int, int], strategy: int, lots: int, is_own: bool
) -> None:
    after = dict(held)
    for part in attribute(held, strategy, lots, 0, is_own=is_own):
        after[part.strategy] = after.get(part.strategy, 0) + part.signed_lots
    account = sum(after.values())
    if sum(held.values()) * account >= 0:
        # The account did not turn: then no book is on the other side of any other.
        assert all(one * other >= 0 for one in after.values() for other in after.values())
    else:
        # It did: all of the old side is gone, and one book holds what is new.
        assert [amount for amount in after.values() if amount] == [account]


@given(ONE_SIDED, STRATEGIES, LOTS, FEES, st.booleans())
def test_A3_attribute_when_holders_are_named_in_another_order_then_the_parts_are_equal(
    held: dict[int, int], strategy: int, lots: int, fee: int, is_own: bool
) -> None:
    turned = dict(reversed(held.items()))
    assert attribute(held, strategy, lots, fee, is_own=is_own) == attribute(
        turned, strategy, lots, fee, is_own=is_own
    )


@given(st.integers(0, 10**6), st.dictionaries(st.integers(), st.integers(1, 10**6), min_size=1))
def test_shares_when_split_then_each_is_within_one_of_its_exact_part(
    amount: int, weights: dict[int, int]
) -> None:
    parts, total = shares(amount, weights), sum(weights.values())
    assert sum(parts.values()) == amount
    for name, weight in weights.items():
        assert abs(parts.get(name, 0) * total - amount * weight) < total


@pytest.mark.parametrize(
    ("held", "strategy", "lots", "is_own", "expected"),
    [
        ({1: 5, 2: 5}, 1, 3, True, {1: 3}),
        ({1: 5, 2: 5}, 1, -5, True, {1: -5}),
        ({1: 5, 2: 5}, 1, -8, True, {1: -5, 2: -3}),
        ({2: 6, 3: 3}, 1, -3, True, {2: -2, 3: -1}),
        ({1: 5, 2: 5}, 1, -12, True, {1: -7, 2: -5}),
        ({1: -6, 2: -3}, 1, 3, False, {1: 2, 2: 1}),
        ({1: 1, 2: 1, 3: 1}, 3, -1, False, {1: -1}),
        ({1: 5, 2: 5}, 2, 4, False, {2: 4}),
        ({}, 1, 4, True, {1: 4}),
    ],
)
def test_attribute_when_worked_by_hand_then_own_first_and_the_rest_pro_rata(
    held: dict[int, int], strategy: int, lots: int, is_own: bool, expected: dict[int, int]
) -> None:
    parts = attribute(held, strategy, lots, 0, is_own=is_own)
    assert {part.strategy: part.signed_lots for part in parts} == expected


def test_attribute_when_a_part_pays_then_the_fee_follows_its_lots() -> None:
    assert attribute({1: 1, 2: 2}, 1, -3, 10) == (Part(1, -1, 3), Part(2, -2, 7))
    with pytest.raises(InvariantBroken):
        attribute({1: 1}, 1, 0, 0)
