"""What one board row says, and how an onlooker reads it without compiled code.

Apart from ``board`` because ``status`` must answer without numba, which takes a second to import.
The rules of the seqlock stand there.
"""

from dataclasses import dataclass

from tripgate.page.layout import BOARD
from tripgate.page.mapping import Page

READ_TRIES = 64


@dataclass(frozen=True)
class Quote:
    """One instrument's prices with the times they belong to.

    Attributes
    ----------
    mark, last, bid, ask
        Prices in ticks, above 0.
    market_ms, step
        Market time and market step of the tick.
    sequence
        Even, rises by 2 with each tick that is published.
    index_price
        Price of the underlying index in ticks; 0 where the venue gives none.
    host_ns
        Host time at which the feed published the tick; 0 in a quote that was not read from a page.
    """

    mark: int
    last: int
    bid: int
    ask: int
    market_ms: int
    step: int
    sequence: int
    index_price: int = 0
    host_ns: int = 0

    def age_ms(self, market_ms: int) -> int:
        """Return how old the tick is at a market time, ms; negative if it lies ahead of it."""
        return market_ms - self.market_ms


def read_quote(page: Page, instrument: int) -> Quote | None:
    """Return an instrument's latest quote, or None if there is none that can be read whole.

    For onlookers and actors; the check itself uses ``board.read_row``.
    """
    row = page.rows(BOARD)[instrument]
    for _ in range(READ_TRIES):
        before = int(row["sequence"])
        if before and not before & 1:
            copy = row.copy()
            if int(row["sequence"]) == before:
                return Quote(
                    int(copy["mark"]), int(copy["last"]), int(copy["bid"]), int(copy["ask"]),
                    int(copy["market_ms"]), int(copy["step"]), before, int(copy["index_price"]),
                    int(copy["host_ns"]),
                )  # fmt: skip
    return None
