"""pulse: at every step try to open a little of each instrument, and close what it holds.

It never looks at its data's age, its level or its limits: it shows, step by step, what the gate
grants and what it denies, which is what outage and chaos runs need.
"""

import argparse
from decimal import ROUND_CEILING, Decimal

from tripgate import Gate
from tripgate.demo.common import parse_gross, send, starting_equity, strategy_name
from tripgate.gate.handle import InstrumentHandle

STOP_DISTANCE = Decimal("0.05")
SHARE = Decimal("0.001")
"""One pulse's worth as a share of the instrument's budget."""


def beat(gate: Gate, handle: InstrumentHandle, budget: Decimal) -> None:
    """Close what is held, and try to open a little."""
    quote, units = handle.quote, handle.units
    if handle.position_lots:
        closing = handle.check(-handle.position_lots * units.lot)
        if closing:
            send(gate, closing)
    if quote is None:
        return
    price = units.tick * quote.mark
    wanted = budget * SHARE / price / units.lot / units.contract_size
    quantity = wanted.to_integral_value(rounding=ROUND_CEILING) * units.lot
    opening = handle.check(quantity, stop=units.tick * int(quote.mark * (1 - STOP_DISTANCE)))
    if opening:
        send(gate, opening)


def main() -> None:
    """Run until the feed or the tree ends."""
    gross = parse_gross(argparse.ArgumentParser(description=__doc__))
    with Gate.attach(strategy=strategy_name("pulse")) as gate:
        handles = [gate.instrument(*name) for name in gate.instruments]
        budget = starting_equity(gate) * gross / len(handles)
        for _ in gate.ticks():
            for handle in handles:
                beat(gate, handle, budget)


if __name__ == "__main__":
    main()
