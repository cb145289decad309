"""Whose a fill is, where several strategies hold one one-way instrument.

The venue knows one position; the book knows one per strategy, and together they are the venue's.
A fill can reduce more than its strategy holds (a stop and a close that both filled), and a
liquidation, an auto-deleveraging or a trade by hand belongs to nobody. Such lots go to those who
hold the side that the fill reduces, in proportion to what they hold, so that no book changes sign
while another one could have given the lots.

Invariants
----------
A1  The parts sum to the fill, and their fees to its fee.
A2  No part takes a holder across zero while any holder still has lots on the reduced side.
A3  The same input gives the same parts: remainders go to the largest fraction, then to the lowest
    strategy number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tripgate.errors import InvariantBroken


@dataclass(frozen=True, slots=True)
class Part:
    """One strategy's part of a fill: signed lots and fee in money units."""

    strategy: int
    signed_lots: int
    fee_money: int


def attribute(
    held: Mapping[int, int], strategy: int, signed_lots: int, fee_money: int, *, is_own: bool = True
) -> tuple[Part, ...]:
    """Return the parts of a fill.

    Parameters
    ----------
    held
        Signed lots by strategy of everyone who holds the instrument at this venue.
    strategy
        Whose order it was; of a fill that is nobody's, who takes what no holder can give.
    signed_lots
        What was filled, not zero.
    fee_money
        Its fee, money units; a rebate is negative.
    is_own
        False for a fill that is nobody's: a liquidation, a trade by hand.

    Raises
    ------
    InvariantBroken
        A fill of nothing.
    """
    if signed_lots == 0:
        raise InvariantBroken("a fill has lots")
    side = 1 if signed_lots > 0 else -1
    left = abs(signed_lots)
    reducible = {s: -lots * side for s, lots in held.items() if lots * side < 0}
    lots: dict[int, int] = {}
    if is_own:
        # What reduces is its own as far as its position goes.
        lots[strategy] = min(left, reducible.pop(strategy, 0))
        left -= lots[strategy]
    given = shares(min(left, sum(reducible.values())), reducible)
    # What nobody can give opens: it is its owner's, or the account itself has turned.
    rest = left - sum(given.values())
    lots |= given
    lots[strategy] = lots.get(strategy, 0) + rest
    lots = {name: amount for name, amount in lots.items() if amount}
    fees = shares(abs(fee_money), lots)
    sign = 1 if fee_money >= 0 else -1
    return tuple(
        Part(name, amount * side, fees.get(name, 0) * sign) for name, amount in lots.items()
    )


def shares(amount: int, weights: Mapping[int, int]) -> dict[int, int]:
    """Split a whole amount in proportion to positive weights by the largest remainder.

    Returns
    -------
    dict
        Whole parts by name, none of them zero, in the order of names; empty without weights.
    """
    total = sum(weights.values())
    if not total:
        return {}
    parts = {name: amount * weight // total for name, weight in weights.items()}
    order = sorted(weights, key=lambda name: (-(amount * weights[name] % total), name))
    for name in order[: amount - sum(parts.values())]:
        parts[name] += 1
    return {name: parts[name] for name in sorted(parts) if parts[name]}
