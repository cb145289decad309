"""The port through which market data is read, and how a feed is named on the command line.

A feed is random access: step k is the same however often and in whatever order it is asked for. So
a venue that restarts, or a subscriber that comes late, needs no state but the number of the step.

Invariants: F1 equal arguments give equal steps; F2 no feed opens a network connection.
"""

from collections.abc import Sequence
from typing import Protocol

from exchange_adapters.market.generator import open_generator
from exchange_adapters.market.replay import open_replay
from exchange_adapters.market.ticks import Step
from tripgate.errors import UsageError

__all__ = ["Feed", "Step", "open_feed"]


class Feed(Protocol):
    """Prices in ticks, step by step."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Unified symbols, in the order of every step's ticks."""

    @property
    def step_ms(self) -> int:
        """Spacing of the steps, ms of market time: a quarter of a bar."""

    @property
    def start_ms(self) -> int:
        """Market time of step 0, ms since 1970."""

    @property
    def length(self) -> int:
        """Number of steps."""

    def step(self, index: int) -> Step:
        """Return one step. Raises ``IndexError`` outside ``0 ≤ index < length``."""


def open_feed(
    spec: str,
    *,
    seed: int,
    start: str | None = None,
    stop: str | None = None,
    symbols: Sequence[str] | None = None,
) -> Feed:
    """Return the feed that ``spec`` names.

    Parameters
    ----------
    spec
        ``replay:DIR`` (a panel's folder, or the bare name of one in the panels' folder) or
        ``generator:NAME`` (a scenario).
    seed
        Seed of a generator, ≥ 0; a replay ignores it.
    start, stop
        First and first no longer wanted bar, ISO date or date and time, UTC unless it says so.
    symbols
        Unified symbols (or base coins) in the wanted order; all of the feed's if ``None``.

    Raises
    ------
    UsageError
        A spec, date or selection that makes no sense.
    DataError
        Data that is missing or malformed.
    """
    kind, _, name = spec.partition(":")
    if kind == "public":
        raise UsageError(
            f"{spec}: public market data arrives with the ccxt adapter, which this release does "
            "not have: use replay:DIR or generator:NAME"
        )
    if not name or kind not in ("replay", "generator"):
        raise UsageError(f"{spec!r} names no feed: write replay:DIR or generator:NAME")
    if kind == "replay":
        return open_replay(name, start=start, stop=stop, symbols=symbols)
    return open_generator(name, seed=seed, start=start, stop=stop, symbols=symbols)
