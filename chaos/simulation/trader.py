"""The simulated strategies and router: orders in, and the breaker's wishes carried out.

Strategies draw the same numbers in every step whatever happens, so leaving a fault out of a plan
changes a run by that fault's consequences only.
"""

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction

from chaos.simulation.market import START_TICKS
from chaos.simulation.surroundings import Log, Page
from chaos.simulation.venue import Venue, VenueOrder
from tripgate.machines.book import Key
from tripgate.reasons import Level
from tripgate.units import PPM, notional_money

STRATEGIES = (1, 2)
STOP_DISTANCE_PPM = 160_000


class Trader:
    """Sends orders for the strategies, and exits for the breaker.

    Attributes
    ----------
    openings_wanted, openings_permitted, openings_sent
        Of the present step: asked for, let through by level and leases, and within the limit too.
    """

    def __init__(self, seed: int, venue: Venue, page: Page, log: Log, gross_max_money: int) -> None:
        self._random = random.Random(f"trader/{seed}")
        self._venue = venue
        self._page = page
        self._log = log
        self._gross_max_money = gross_max_money
        self._token = 0
        self._ticks = dict(START_TICKS)
        self.openings_wanted = self.openings_permitted = self.openings_sent = 0

    def carry_out_wishes(self) -> None:
        """Cancel resting entries and close positions while the breaker wishes it."""
        venue = self._venue
        if self._page.cancel_entries:
            entries = [
                order.token
                for order in venue.orders.values()
                if not order.reduce_only and not order.stop_ticks
            ]
            self._log.append(venue.cancel(entries))
        if self._page.flatten:
            for key, lots in sorted(venue.lots.items()):
                if lots and not venue.pending_lots(key):
                    self._send(key, -lots, reduce_only=True)
        idle = [
            order.token
            for order in venue.orders.values()
            if order.stop_ticks
            and not venue.lots.get(order.key)
            and not venue.pending_lots(order.key)
        ]
        self._log.append(venue.cancel(idle))

    def trade(self, mark_ticks: Mapping[int, int], is_leased: bool) -> None:
        """Let each strategy try one thing."""
        self._ticks.update(mark_ticks)
        self.openings_wanted = self.openings_permitted = self.openings_sent = 0
        for strategy in STRATEGIES:
            instrument = self._random.randrange(len(START_TICKS))
            wish, side = self._random.randrange(10), self._random.randrange(4)
            share_ppm = self._random.randrange(100_000, 500_000)
            key = Key(strategy, instrument)
            held = self._venue.lots.get(key, 0)
            if wish < 6:
                self._open(key, held, 1 if side else -1, share_ppm, is_leased)
            elif wish == 9 and held and not self._venue.pending_lots(key):
                self._send(key, -held, reduce_only=True)

    def _open(self, key: Key, held: int, side: int, share_ppm: int, is_leased: bool) -> None:
        pending = self._venue.pending_lots(key)
        if pending:
            return
        if held:
            side = 1 if held > 0 else -1
        self.openings_wanted += 1
        if self._page.level >= Level.MEDIUM or self._page.stopped or not is_leased:
            return
        self.openings_permitted += 1
        ticks, value = self._ticks[key.instrument], self._venue.value[key.instrument]
        limit = self._gross_max_money * self._page.factor_ppm // PPM
        room = limit - self._gross_money()
        lots = int(Fraction(min(room, limit * share_ppm // PPM)) / (ticks * value))
        if lots < 1:
            return
        self.openings_sent += 1
        self._send(key, side * lots, reduce_only=False)
        stop = ticks * (PPM - side * STOP_DISTANCE_PPM) // PPM
        self._send(key, -side * lots, reduce_only=True, stop_ticks=stop)

    def _gross_money(self) -> int:
        keys: Sequence[Key] = sorted(
            {*self._venue.lots, *(order.key for order in self._venue.orders.values())}
        )
        total = 0
        for key in keys:
            lots = abs(self._venue.lots.get(key, 0)) + abs(self._venue.pending_lots(key))
            value = self._venue.value[key.instrument]
            total += notional_money(lots, self._ticks[key.instrument], value)
        return total

    def _send(self, key: Key, signed_lots: int, *, reduce_only: bool, stop_ticks: int = 0) -> None:
        self._token += 1
        self._venue.send(VenueOrder(self._token, key, signed_lots, reduce_only, stop_ticks))
