"""What the book's step reads, keeps and says: state, messages, effects.

Units: lots are signed contracts or coins of the instrument's grid, ticks are whole price steps,
money is 1e-4 of the reporting currency, times are market time in ms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple


class Key(NamedTuple):
    """Whose position it is: numeric ids as the log assigned them."""

    strategy: int
    instrument: int


@dataclass(frozen=True, slots=True)
class BookInstrument:
    """What the book must know of an instrument: money per lot and tick, and its venue's id.

    ``shared``: several strategies hold one net position of it at the venue.
    """

    value: Fraction
    venue: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """One key's holdings.

    Attributes
    ----------
    lots
        Signed position.
    cash_lot_ticks
        −Σ signed lots × price ticks over all fills, exact.
    fees_money
        Σ fees, money units; a rebate is negative.
    basis_lot_ticks
        Average-cost worth of the open lots, signed like ``lots``; rounded down on a partial close.
    """

    lots: int = 0
    cash_lot_ticks: int = 0
    fees_money: int = 0
    basis_lot_ticks: int = 0

    @property
    def average_ticks(self) -> Fraction | None:
        """Average entry price of the open lots in ticks; None when flat."""
        return Fraction(self.basis_lot_ticks, self.lots) if self.lots else None


@dataclass(frozen=True, slots=True)
class Equity:
    """Equity in money units at mark and at last prices; None where a position has no price."""

    on_mark_money: int | None
    on_last_money: int | None


@dataclass(frozen=True, slots=True)
class Book:
    """The keeper's state; make it with ``new_book``. Its mappings are never changed in place."""

    instruments: Mapping[int, BookInstrument]
    starting_money: int
    strategy_starting_money: Mapping[int, int]
    positions: Mapping[Key, Position] = field(default_factory=dict)
    mark_ticks: Mapping[int, int] = field(default_factory=dict)
    last_ticks: Mapping[int, int] = field(default_factory=dict)
    last_trade_id: Mapping[int, int] = field(default_factory=dict)
    filled_lots: Mapping[int, int] = field(default_factory=dict)
    waiting: Mapping[int, int] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)
    assumed: Mapping[int, "Assumed"] = field(default_factory=dict)
    marks_step: int = -1


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade at the venue. ``token`` 0 marks an order that is not ours; ``fee_money`` >= or < 0.

    ``signed_lots`` is positive for a buy; ``ticks`` is the price; ``market_ms`` the venue's stamp.
    ``is_own`` is False where no order of the strategy explains it (liquidation, a trade by hand):
    on a shared instrument it then is everybody's, see ``attribution``.
    """

    trade_id: int
    token: int
    strategy: int
    instrument: int
    signed_lots: int
    ticks: int
    fee_money: int
    market_ms: int
    is_own: bool = True


@dataclass(frozen=True, slots=True)
class Marks:
    """Prices of step ``step``: instruments that had no fresh tick are absent."""

    step: int
    market_ms: int
    mark_ticks: Mapping[int, int]
    last_ticks: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Terminal:
    """The venue's last word on an order: ``cumulative_lots`` (unsigned) were filled in all."""

    token: int
    cumulative_lots: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """An operator's word on an order of unknown fate: so many lots were filled in all, at a price.

    ``cumulative_lots`` is unsigned; ``side`` is 1 for a buy and -1 for a sell; ``ticks`` counts for
    the lots that no trade of the venue has told of.
    """

    token: int
    strategy: int
    instrument: int
    side: int
    cumulative_lots: int
    ticks: int


class Assumed(NamedTuple):
    """Lots (signed) booked on an operator's word at ``ticks``, until the venue's trades come."""

    lots: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Restore:
    """A checkpoint taken from the log, into an empty book; the fills after it are replayed next.

    Prices are not restored: equity is unknown until the market has been seen again.
    """

    positions: Mapping[Key, Position]
    last_trade_id: Mapping[int, int]
    filled_lots: Mapping[int, int]
    waiting: Mapping[int, int]
    ended: Mapping[int, int]
    assumed: Mapping[int, Assumed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PositionMoved:
    """Effect: a position changed; nodes and closable words follow."""

    key: Key
    lots_before: int
    lots_after: int


@dataclass(frozen=True, slots=True)
class EquityChanged:
    """Effect: equity was evaluated again at market time ``market_ms``."""

    market_ms: int
    portfolio: Equity
    strategies: Mapping[int, Equity]


@dataclass(frozen=True, slots=True)
class Releasable:
    """Effect: all ``filled_lots`` of an ended order are booked; the rest may be released."""

    token: int
    filled_lots: int


Message = Fill | Marks | Terminal | Resolved | Restore
Effect = PositionMoved | EquityChanged | Releasable
