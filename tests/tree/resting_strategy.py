"""A strategy process that leaves an entry resting far below the market and then only lives.

Run by the tests as ``python -m tests.tree.resting_strategy STRATEGY``; it prints the token of its
order once the router has taken it. It takes no part in the lock-step.
"""

import argparse
import sys

from tripgate import Gate
from tripgate.clock import sleep_s

TRIES = 2_000
PRICE_PERCENT, STOP_PERCENT = 985, 960
"""Tenths of a percent of the mark: within the collar of 2 %, where a calm market does not go."""


def rest(gate: Gate) -> int:
    """Leave one limit order resting and return its token; 0 if the gate grants none."""
    for _ in range(TRIES):
        for venue, symbol in gate.instruments:
            handle = gate.instrument(venue, symbol)
            if (quote := handle.quote) is None or handle.position_lots < 0:
                continue
            price, stop = (
                handle.units.tick * (quote.mark * percent // 1_000)
                for percent in (PRICE_PERCENT, STOP_PERCENT)
            )
            decision = handle.check(handle.units.lot, price=price, stop=stop)
            if decision:
                return gate.submit(decision).token
        sleep_s(0.01)
    return 0


def main() -> None:
    """Rest an order, tell its token, live until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategy")
    with Gate.attach(strategy=parser.parse_args().strategy) as gate:
        sys.stdout.write(f"{rest(gate)}\n")
        sys.stdout.flush()
        while True:
            sleep_s(1.0)


if __name__ == "__main__":
    main()
