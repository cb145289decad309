"""The market board: the latest prices of each instrument, one writer per row, by seqlock.

A row is odd while it is being written; a reader that meets an odd or changed sequence tries again
a bounded number of times and then treats the row as stale: a writer killed in the middle leaves
its row odd for ever, and a mark that cannot be read must deny, not guess.
"""

from dataclasses import dataclass

from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import BOARD
from tripgate.page.mapping import Page

READ_TRIES = 64
_SEQUENCE = BOARD.offset("sequence")
_MARK = BOARD.offset("mark")
_LAST = BOARD.offset("last")
_BID = BOARD.offset("bid")
_ASK = BOARD.offset("ask")
_MARKET_MS = BOARD.offset("market_ms")
_HOST_NS = BOARD.offset("host_ns")
_STEP = BOARD.offset("step")
_TICKS = BOARD.offset("ticks")


@dataclass(frozen=True)
class Quote:
    """One instrument's prices in ticks with their market time; ``sequence`` rises per tick."""

    mark: int
    last: int
    bid: int
    ask: int
    market_ms: int
    step: int
    sequence: int


@kernel("void(int64, int64, int64, int64, int64, int64, int64, int64)")
def write_row(
    row: int, mark: int, last: int, bid: int, ask: int, market_ms: int, host_ns: int, step: int
) -> None:
    """Publish one tick in the board row at address ``row`` (prices in ticks)."""
    sequence = atomics.load(row + _SEQUENCE)
    # A row left odd by a killed predecessor is taken over: odd stays odd until this write ends.
    odd = sequence | 1
    atomics.exchange(row + _SEQUENCE, odd)
    atomics.store(row + _MARK, mark)
    atomics.store(row + _LAST, last)
    atomics.store(row + _BID, bid)
    atomics.store(row + _ASK, ask)
    atomics.store(row + _MARKET_MS, market_ms)
    atomics.store(row + _HOST_NS, host_ns)
    atomics.store(row + _STEP, step)
    atomics.store(row + _TICKS, atomics.load(row + _TICKS) + 1)
    atomics.store(row + _SEQUENCE, odd + 1)


@kernel("int64(int64, int64)")
def read_row(row: int, out: int) -> int:
    """Copy mark, last, bid, ask, market_ms, step of a row to ``out``; return its sequence or -1.

    -1 means never written, or not readable within ``READ_TRIES``.
    """
    for _ in range(READ_TRIES):
        before = atomics.load(row + _SEQUENCE)
        if before & 1:
            continue
        if before == 0:
            return -1
        atomics.store(out, atomics.load(row + _MARK))
        atomics.store(out + 8, atomics.load(row + _LAST))
        atomics.store(out + 16, atomics.load(row + _BID))
        atomics.store(out + 24, atomics.load(row + _ASK))
        atomics.store(out + 32, atomics.load(row + _MARKET_MS))
        atomics.store(out + 40, atomics.load(row + _STEP))
        if atomics.load(row + _SEQUENCE) == before:
            return before
    return -1


def write_quote(page: Page, instrument: int, quote: Quote, host_ns: int) -> None:
    """Publish an instrument's tick (market_feed of its venue only)."""
    write_row(
        page.address(BOARD, instrument), quote.mark, quote.last, quote.bid, quote.ask,
        quote.market_ms, host_ns, quote.step,
    )  # fmt: skip


def read_quote(page: Page, instrument: int) -> Quote | None:
    """Return an instrument's latest quote without compiled code, or None if there is none.

    For onlookers and actors; the check itself uses ``read_row``.
    """
    row = page.rows(BOARD)[instrument]
    for _ in range(READ_TRIES):
        before = int(row["sequence"])
        if before and not before & 1:
            copy = row.copy()
            if int(row["sequence"]) == before:
                return Quote(
                    int(copy["mark"]), int(copy["last"]), int(copy["bid"]), int(copy["ask"]),
                    int(copy["market_ms"]), int(copy["step"]), before,
                )  # fmt: skip
    return None
