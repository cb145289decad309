"""The configuration of a paper run that was started without a file.

It is written out as TOML with every amount spelled out, stored with the run's state and read back
through the same reader as anybody's file: there is no second way to configure a limit. All amounts
are multiples of the paper account's starting equity.
"""

from collections.abc import Sequence
from decimal import Decimal

PAPER_EQUITY = Decimal(100_000)
VENUE_NAME = "sim"
STRATEGIES = ("trend", "hold", "pulse")
STOP_BPS = {"trend": 1_000, "hold": 6_000, "pulse": 1_000}
"""``hold`` places its stops 50 % away, which its own run must allow."""
ORDERS_PER_SECOND = 50


def render_paper_config(
    symbols: Sequence[str], strategies: Sequence[str], gross: Decimal, venue: str = VENUE_NAME
) -> str:
    """Return the TOML of a paper run.

    Parameters
    ----------
    symbols
        Unified symbols of the feed.
    strategies
        Names of demo strategies; several share the symbols out among them in turn.
    gross
        What each strategy is told to hold in all, as a multiple of starting equity; the limits are
        set half as wide again, so that the strategies fit and a runaway does not.
    """
    limit = max(Decimal(2), gross * len(strategies) * Decimal("1.5")) * PAPER_EQUITY
    lines = [
        "schema = 1",
        'reporting_currency = "USDT"',
        f"risk = {{ var_budget_reporting = {PAPER_EQUITY * Decimal('0.04'):f} }}",
        "[limits.portfolio]",
        *_limits(limit),
        f"stress_loss_reporting_max = {limit / 4:f}",
        f"loss_reporting_max = {PAPER_EQUITY / 2:f}",
        f"[limits.venues.{venue}]",
        *_limits(limit),
        f"[venues.{venue}]",
        'exchange = "binanceusdm"',
        'kind = "simulated"',
        'position_mode = "one-way"',
        f"starting_equity_reporting = {PAPER_EQUITY:f}",
        f"margin_buffer_reporting = {PAPER_EQUITY / 100:f}",
    ]
    for asset in dict.fromkeys(symbol.partition("/")[0] for symbol in symbols):
        lines += [f"[limits.assets.{asset}]", *_limits(limit)]
    for number, strategy in enumerate(strategies):
        mine = symbols[number :: len(strategies)]
        lines += [f"[limits.strategies.{strategy}]", *_limits(limit)]
        lines += _strategy(strategy, mine, gross, venue)
        for symbol in mine:
            lines += _instrument(symbol, strategy, limit, venue)
    return "\n".join(lines) + "\n"


def _limits(limit: Decimal) -> list[str]:
    return [f"gross_reporting_max = {limit:f}", f"net_reporting_max = {limit:f}"]


def _strategy(name: str, symbols: Sequence[str], gross: Decimal, venue: str) -> list[str]:
    instruments = ", ".join(f'"{venue}/{symbol}"' for symbol in symbols)
    return [
        f"[strategies.{name}]",
        f'command = ["python", "-m", "tripgate.demo.{name}", "--gross", "{gross:f}"]',
        f"instruments = [{instruments}]",
        f"orders_per_second_max = {ORDERS_PER_SECOND}",
        'on_exit = "cancel_entries"',
    ]


def _instrument(symbol: str, strategy: str, limit: Decimal, venue: str) -> list[str]:
    return [
        f'[instruments."{venue}/{symbol}"]',
        *_limits(limit),
        f"order_reporting_max = {limit:f}",
        "collar_bps_max = 200",
        f"stop_distance_bps_max = {STOP_BPS[strategy]}",
    ]
