"""What the demo strategies share: their arguments and the account they begin with."""

import argparse
import os
from decimal import Decimal

from tripgate import Decision, Gate
from tripgate.errors import DeadlineError, UsageError, VenueError
from tripgate.page.layout import ACCOUNT
from tripgate.units import MONEY_SCALE


def parse_gross(parser: argparse.ArgumentParser) -> Decimal:
    """Return ``--gross``: what to hold in all, as a multiple of starting equity."""
    parser.add_argument("--gross", type=Decimal, default=Decimal(1))
    gross: Decimal = parser.parse_args().gross
    return gross


def strategy_name(default: str) -> str:
    """Return the name this process was configured under."""
    return os.environ.get("TRIPGATE_STRATEGY", default)


def send(gate: Gate, decision: Decision) -> None:
    """Submit an approved order; a router that is being restarted is no reason to end.

    What could not be handed over stays reserved until it expires, and is then free again.
    """
    try:
        gate.submit(decision)
    except (VenueError, DeadlineError, UsageError) as error:
        print(f"not submitted: {error}", flush=True)


def starting_equity(gate: Gate) -> Decimal:
    """Return the portfolio's starting equity in the reporting currency."""
    return Decimal(int(gate.page.rows(ACCOUNT)["starting"][0])) / MONEY_SCALE
