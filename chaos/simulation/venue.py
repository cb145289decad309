"""A small exchange: market orders fill on the next tick, stops trigger, nothing is lost here.

It keeps its own positions, by its own arithmetic, because it is the truth that the keeper's book is
compared with. Orders belong to a (strategy, instrument) as if each had an account of its own.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from tripgate.machines.book import Fill, Key, Terminal
from tripgate.units import notional_money

HALF_SPREAD_PPM = 200
FEE_PPM = 450
ORDERS_MAX = 500
"""Open orders: the run's strategies stay far below it; beyond it something leaks."""


@dataclass(slots=True)
class VenueOrder:
    """An open order. ``stop_ticks`` 0 means a market order; reduce-only orders never open."""

    token: int
    key: Key
    signed_lots: int
    reduce_only: bool
    stop_ticks: int = 0
    filled_lots: int = 0


@dataclass(slots=True)
class Venue:
    """The exchange's books."""

    seed: int
    value: Mapping[int, Fraction]
    lots: dict[Key, int] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    orders: dict[int, VenueOrder] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Draw fills from a stream of their own."""
        self._random = random.Random(f"venue/{self.seed}")

    def send(self, order: VenueOrder) -> None:
        """Take an order; it can fill from the next tick on."""
        assert len(self.orders) < ORDERS_MAX, "orders pile up at the simulated venue"
        self.orders[order.token] = order

    def cancel(self, tokens: Iterable[int]) -> list[Terminal]:
        """Cancel open orders and return their terminal records."""
        ended = [self.orders.pop(token) for token in tokens]
        return [Terminal(order.token, order.filled_lots) for order in ended]

    def pending_lots(self, key: Key) -> int:
        """Return signed lots that open market orders would still add or take."""
        return sum(
            order.signed_lots - (order.filled_lots if order.signed_lots > 0 else -order.filled_lots)
            for order in self.orders.values()
            if order.key == key and not order.stop_ticks
        )

    def match(self, ticks: Mapping[int, int], market_ms: int) -> list[Fill | Terminal]:
        """Fill what the new prices fill and return fills and terminal records in order."""
        events: list[Fill | Terminal] = []
        for order in list(self.orders.values()):
            price = ticks.get(order.key.instrument)
            if price is None or not _is_due(order, price):
                continue
            lots = self._fillable_lots(order)
            # Half of the larger orders fill in two pieces, the second one on a later tick.
            part = lots // 2 if abs(lots) > 1 and self._random.randrange(2) else lots
            if order.filled_lots:
                part = lots
            if part:
                events.append(self._trade(order, part, price, market_ms))
            if part == lots:
                del self.orders[order.token]
                events.append(Terminal(order.token, order.filled_lots))
        return events

    def _fillable_lots(self, order: VenueOrder) -> int:
        """Return the signed lots left, cut to the position where the order only reduces."""
        sign = 1 if order.signed_lots > 0 else -1
        left = abs(order.signed_lots) - order.filled_lots
        if order.reduce_only:
            left = max(0, min(left, -sign * self.lots.get(order.key, 0)))
        return sign * left

    def _trade(self, order: VenueOrder, signed_lots: int, mark: int, market_ms: int) -> Fill:
        half_spread = -(-mark * HALF_SPREAD_PPM // 1_000_000)
        price = max(1, mark + half_spread if signed_lots > 0 else mark - half_spread)
        worth = notional_money(signed_lots, price, self.value[order.key.instrument])
        fill = Fill(
            trade_id=len(self.fills) + 1,
            token=order.token,
            strategy=order.key.strategy,
            instrument=order.key.instrument,
            signed_lots=signed_lots,
            ticks=price,
            fee_money=-(-worth * FEE_PPM // 1_000_000),
            market_ms=market_ms,
        )
        self.fills.append(fill)
        self.lots[order.key] = self.lots.get(order.key, 0) + signed_lots
        order.filled_lots += abs(signed_lots)
        return fill


def _is_due(order: VenueOrder, ticks: int) -> bool:
    if not order.stop_ticks or order.filled_lots:
        return True
    return ticks <= order.stop_ticks if order.signed_lots < 0 else ticks >= order.stop_ticks
