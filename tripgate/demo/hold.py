"""hold: buy equal notional of every instrument at its first tick, stop far away, then only watch.

The plainest strategy there is, so that what the engine does to it is easy to compute by hand.
"""

import argparse
from decimal import ROUND_FLOOR, Decimal

from tripgate import Gate
from tripgate.demo.common import parse_gross, send, starting_equity, strategy_name

STOP_DISTANCE = Decimal("0.5")


def main() -> None:
    """Run until the feed or the tree ends."""
    gross = parse_gross(argparse.ArgumentParser(description=__doc__))
    with Gate.attach(strategy=strategy_name("hold")) as gate:
        handles = {name: gate.instrument(*name) for name in gate.instruments}
        budget = starting_equity(gate) * gross / len(handles)
        bought: set[tuple[str, str]] = set()
        for tick in gate.ticks():
            for name, quote in tick.quotes.items():
                if name not in handles or name in bought:
                    continue
                bought.add(name)
                handle = handles[name]
                units = handle.units
                price = units.tick * quote.mark
                lots = (budget / price / units.lot / units.contract_size).to_integral_value(
                    rounding=ROUND_FLOOR
                )
                stop = units.tick * int(quote.mark * STOP_DISTANCE)
                decision = handle.check(lots * units.lot, stop=stop)
                if decision:
                    send(gate, decision)
                else:
                    print(f"{name[1]}: {decision}", flush=True)


if __name__ == "__main__":
    main()
