"""Margin by tiers: what an account must hold, how near it is to liquidation, and at which price.

Venues charge maintenance margin like an income tax: each tier of notional has its rate, and a
maintenance amount (venues call it ``cum``) makes the sum continuous, so that
maintenance = notional × rate − amount. Unified structures of exchange libraries leave that amount
out, and some fields of theirs are computed back from others; so the engine computes its own figures
and takes the worse of the two.

Source of the formulas: Binance's documentation of USDT-M liquidation (cross and isolated, one-way
and hedge mode); the inverse forms follow from the payoff quantity × (1 ÷ entry − 1 ÷ mark).

All amounts are floats in the account's margin currency, prices in the instrument's quote currency;
results have a relative error of a few ulp. Input that cannot be true raises ``MarginInputError``
and never gives a number.

Invariants: M1 maintenance margin is continuous and rising in notional; M2 at its liquidation price
an account's margin balance equals its maintenance margin; M3 a position without a liquidation price
(None) cannot be liquidated by its own price alone.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from tripgate.errors import TripgateError

TIERS_MAX = 100
RATIO_MAX = 1_000.0
"""Margin ratio of an account that owes maintenance margin and has no margin balance left."""

AMOUNT_TOLERANCE = 1e-6
"""Relative error allowed between a given maintenance amount and the one that joins the tiers."""

JOINT_TOLERANCE = 1e-12
"""Relative distance from a tier's end at which a notional still counts as in it."""


class MarginInputError(TripgateError):
    """Margin data cannot be true. Gate effect: the margin of that venue counts as not known."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One step of a margin table.

    Attributes
    ----------
    notional_max
        Largest notional of this step (that of the step before is its floor).
    maintenance_rate
        Maintenance margin ÷ notional within the step, in (0, 1).
    leverage_max
        Largest leverage that a position of this size may be opened with, at least 1.
    maintenance_amount
        Is subtracted: maintenance = notional × rate − amount.
    """

    notional_max: float
    maintenance_rate: float
    leverage_max: float
    maintenance_amount: float


@dataclass(frozen=True, slots=True)
class MarginTable:
    """The tiers of one instrument, checked and in ascending order."""

    tiers: tuple[Tier, ...]
    bounds: tuple[float, ...]

    def tier(self, notional: float) -> Tier:
        """Return the tier of a notional; beyond the last one the last counts."""
        return self.tiers[min(bisect_left(self.bounds, notional), len(self.tiers) - 1)]

    def maintenance(self, notional: float) -> float:
        """Return the maintenance margin of a position's notional (absolute)."""
        step = self.tier(notional)
        return notional * step.maintenance_rate - step.maintenance_amount

    def initial(self, notional: float, leverage: float) -> float:
        """Return the initial margin of a notional at the leverage chosen, capped by its tier."""
        return notional / min(_positive(leverage, "leverage"), self.tier(notional).leverage_max)


def make_table(
    rows: Sequence[tuple[float, float, float]], amounts: Sequence[float] | None = None
) -> MarginTable:
    """Return a margin table from (notional_max, maintenance_rate, leverage_max), ascending.

    Parameters
    ----------
    amounts
        The maintenance amounts that a venue states; they are compared with those that join the
        tiers: amount(i) = amount(i − 1) + floor(i) × (rate(i) − rate(i − 1)).

    Raises
    ------
    MarginInputError
        Rows are not ascending, out of range or too many, or an amount does not join its tier.
    """
    if not 0 < len(rows) <= TIERS_MAX:
        raise MarginInputError(f"a margin table has 1 to {TIERS_MAX} tiers, was {len(rows)}")
    if amounts is not None and len(amounts) != len(rows):
        raise MarginInputError(f"{len(rows)} tiers have {len(amounts)} maintenance amounts")
    tiers: list[Tier] = []
    floor, rate_before, amount = 0.0, 0.0, 0.0
    for number, (notional_max, rate, leverage) in enumerate(rows):
        if not (math.isfinite(notional_max) and notional_max > floor):
            raise MarginInputError(f"tier {number}: notional {notional_max} is not above {floor}")
        if not rate_before <= rate < 1 or not rate > 0:
            raise MarginInputError(
                f"tier {number}: rate {rate} is below the one before, or not < 1"
            )
        if not (math.isfinite(leverage) and leverage >= 1):
            raise MarginInputError(f"tier {number}: leverage {leverage} is below 1")
        amount += floor * (rate - rate_before) if number else 0.0
        stated = amount if amounts is None else amounts[number]
        if not math.isclose(stated, amount, rel_tol=AMOUNT_TOLERANCE, abs_tol=AMOUNT_TOLERANCE):
            raise MarginInputError(
                f"tier {number}: maintenance amount {stated} does not join the tier before it "
                f"({amount:g} would)"
            )
        tiers.append(Tier(notional_max, rate, leverage, amount))
        floor, rate_before = notional_max, rate
    return MarginTable(tuple(tiers), tuple(tier.notional_max for tier in tiers))


@dataclass(frozen=True, slots=True)
class Position:
    """One open position (in hedge mode: one side).

    Attributes
    ----------
    quantity
        Coins if linear (contracts × contract size), positive long; contract value in the quote
        currency if inverse. Not zero.
    entry_price, mark_price
        Quote currency per coin.
    table
        Margin table of its instrument, in the margin currency.
    leverage
        Leverage chosen for the instrument, at least 1.
    isolated_margin
        Margin set aside for it alone; None for cross margin.
    is_inverse
        It is margined and settled in its base coin.
    """

    quantity: float
    entry_price: float
    mark_price: float
    table: MarginTable
    leverage: float = 1.0
    isolated_margin: float | None = None
    is_inverse: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.quantity) or self.quantity == 0:
            raise MarginInputError(f"a position has a quantity, was {self.quantity}")
        _positive(self.entry_price, "entry price")
        _positive(self.mark_price, "mark price")
        _positive(self.leverage, "leverage")
        if self.isolated_margin is not None and not math.isfinite(self.isolated_margin):
            raise MarginInputError(f"isolated margin is finite, was {self.isolated_margin}")

    @property
    def notional(self) -> float:
        """Worth at the mark price in the margin currency, positive."""
        return self.notional_at(self.mark_price)

    def notional_at(self, price: float) -> float:
        """Return the worth at a price in the margin currency, positive."""
        size = abs(self.quantity)
        return size / price if self.is_inverse else size * price

    @property
    def unrealised(self) -> float:
        """Result at the mark price, margin currency."""
        return self.unrealised_at(self.mark_price)

    def unrealised_at(self, price: float) -> float:
        """Return the result at a price, margin currency."""
        if self.is_inverse:
            return self.quantity * (1 / self.entry_price - 1 / price)
        return self.quantity * (price - self.entry_price)

    @property
    def maintenance(self) -> float:
        """Maintenance margin at the mark price."""
        return self.table.maintenance(self.notional)

    @property
    def initial(self) -> float:
        """Initial margin at the mark price."""
        return self.table.initial(self.notional, self.leverage)


@dataclass(frozen=True, slots=True)
class AccountMargin:
    """The cross-margin side of an account.

    Attributes
    ----------
    balance
        Margin balance: wallet + unrealised results of cross positions.
    maintenance, initial
        Sums over cross positions.
    ratio
        maintenance ÷ balance, 0 without positions; liquidation at 1; ``RATIO_MAX`` when nothing is
        left.
    """

    balance: float
    maintenance: float
    initial: float
    ratio: float


def account_margin(wallet: float, positions: Sequence[Position]) -> AccountMargin:
    """Return the margin of an account's cross positions.

    Parameters
    ----------
    wallet
        Cross wallet balance without unrealised results and without isolated margins.
    """
    if not math.isfinite(wallet):
        raise MarginInputError(f"a wallet balance is finite, was {wallet}")
    cross = [position for position in positions if position.isolated_margin is None]
    balance = math.fsum((wallet, *(position.unrealised for position in cross)))
    maintenance = math.fsum(position.maintenance for position in cross)
    initial = math.fsum(position.initial for position in cross)
    return AccountMargin(balance, maintenance, initial, _ratio(maintenance, balance))


def isolated_ratio(position: Position) -> float:
    """Return the margin ratio of an isolated position. Raises for a cross position."""
    if position.isolated_margin is None:
        raise MarginInputError("the position is on cross margin: its account has the ratio")
    return _ratio(position.maintenance, position.isolated_margin + position.unrealised)


def liquidation_price(wallet: float, positions: Sequence[Position], number: int) -> float | None:
    """Return the price of one position at which its margin no longer suffices, or None.

    Cross: everything else stays at its mark, and both sides of one instrument in hedge mode are to
    be given as one net position. Isolated: wallet and other positions do not count.

    Parameters
    ----------
    number
        Which of ``positions``.

    Returns
    -------
    float or None
        Above zero; None if no price of this position alone does it.
    """
    position = positions[number]
    if position.isolated_margin is not None:
        return _solve(position, position.isolated_margin)
    others = [p for n, p in enumerate(positions) if n != number and p.isolated_margin is None]
    rest = math.fsum((wallet, *(p.unrealised - p.maintenance for p in others)))
    return _solve(position, rest)


def _solve(position: Position, collateral: float) -> float | None:
    """Solve collateral + unrealised(P) = maintenance(notional(P)) for P, tier by tier.

    Within a tier both sides are linear in P (inverse: in 1 ÷ P). The surplus of an account is
    monotone in P for rates below 1, so at most one tier holds its own solution.
    """
    quantity, size = position.quantity, abs(position.quantity)
    floor = 0.0
    last = len(position.table.tiers) - 1
    for number, tier in enumerate(position.table.tiers):
        slope = quantity - size * tier.maintenance_rate
        if position.is_inverse:
            owed = collateral + quantity / position.entry_price + tier.maintenance_amount
            inverted = owed / (quantity + size * tier.maintenance_rate)
            price = 1 / inverted if inverted > 0 else -1.0
        else:
            owed = quantity * position.entry_price - collateral - tier.maintenance_amount
            price = owed / slope
        if price > 0 and math.isfinite(price):
            notional = position.notional_at(price)
            # A solution on the joint of two tiers may be rounded out of both.
            reaches = notional <= tier.notional_max * (1 + JOINT_TOLERANCE) or number == last
            if reaches and notional >= floor * (1 - JOINT_TOLERANCE):
                return price
        floor = tier.notional_max
    return None


def distance_sigmas(mark_price: float, liquidation: float | None, sigma_1d: float) -> float | None:
    """Return how many daily standard deviations of log returns a mark is from liquidation.

    None if there is no liquidation price; 0 if the mark has reached it from either side is for the
    caller to see from the account's ratio: this is a distance and never negative.
    """
    _positive(mark_price, "mark price")
    _positive(sigma_1d, "daily volatility")
    if liquidation is None:
        return None
    return abs(math.log(_positive(liquidation, "liquidation price") / mark_price)) / sigma_1d


def _ratio(maintenance: float, balance: float) -> float:
    if maintenance <= 0:
        return 0.0
    return min(RATIO_MAX, maintenance / balance) if balance > 0 else RATIO_MAX


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise MarginInputError(f"{name} is a positive number, was {value}")
    return value
