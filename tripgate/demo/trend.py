"""trend: long above a slow average, flat below it, one position per instrument.

A small, honest trend follower: it makes no promise of profit. It shows the whole round of a
strategy process: check, submit, read the events, close its own position, live with denials.
"""

import argparse
from decimal import ROUND_FLOOR, Decimal

from tripgate import Gate
from tripgate.demo.common import parse_gross, send, starting_equity, strategy_name
from tripgate.gate.handle import InstrumentHandle
from tripgate.page.board import Quote

SLOW_TICKS = 120
FAST_TICKS = 20
STOP_DISTANCE = Decimal("0.05")


class Average:
    """An exponential average of the mark; ready after as many ticks as it is long."""

    def __init__(self, length: int) -> None:
        self._share = 2.0 / (length + 1)
        self._length = length
        self._value = 0.0
        self._seen = 0

    def add(self, mark: int) -> float | None:
        """Take one mark in ticks; return the average once it is ready."""
        self._seen += 1
        self._value += (mark - self._value) * (self._share if self._seen > 1 else 1.0)
        return self._value if self._seen >= self._length else None


class Follower:
    """One instrument's signal and position."""

    def __init__(self, gate: Gate, handle: InstrumentHandle, budget: Decimal) -> None:
        self._gate = gate
        self._handle = handle
        self._budget = budget
        self._slow, self._fast = Average(SLOW_TICKS), Average(FAST_TICKS)

    def follow(self, quote: Quote) -> None:
        """Open or close as the averages say."""
        slow, fast = self._slow.add(quote.mark), self._fast.add(quote.mark)
        if slow is None or fast is None:
            return
        lots = self._handle.position_lots
        units = self._handle.units
        if fast > slow and lots == 0:
            price = units.tick * quote.mark
            wanted = self._budget / price / units.lot / units.contract_size
            quantity = wanted.to_integral_value(rounding=ROUND_FLOOR) * units.lot
            stop = units.tick * int(quote.mark * (1 - STOP_DISTANCE))
            self._send(quantity, stop)
        elif fast < slow and lots > 0:
            self._send(-lots * units.lot, None)

    def _send(self, quantity: Decimal, stop: Decimal | None) -> None:
        decision = self._handle.check(quantity, stop=stop)
        if decision:
            send(self._gate, decision)


def main() -> None:
    """Run until the feed or the tree ends."""
    gross = parse_gross(argparse.ArgumentParser(description=__doc__))
    with Gate.attach(strategy=strategy_name("trend")) as gate:
        budget = starting_equity(gate) * gross / len(gate.instruments)
        followers = {
            name: Follower(gate, gate.instrument(*name), budget) for name in gate.instruments
        }
        for tick in gate.ticks():
            for name, quote in tick.quotes.items():
                if name in followers:
                    followers[name].follow(quote)


if __name__ == "__main__":
    main()
