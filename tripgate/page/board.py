"""The market board: the latest prices of each instrument, one writer per row, by seqlock.

A row is odd while it is being written; a reader that meets an odd or changed sequence tries again
a bounded number of times and then treats the row as stale: a writer killed in the middle leaves
its row odd for ever, and a mark that cannot be read must deny, not guess. The next write of the
feed's successor makes the row whole again.

Invariants: B1 a reader sees one whole tick or none; B2 the rows of a venue are written only by the
live owner of its feed's slot (``BoardWriter``), and a slot is handed on only after its owner's
death was seen; B3 a price that the venue does not give is 0, never a copy of another price.
"""

import os

from tripgate.errors import InvariantBroken
from tripgate.page import atomics
from tripgate.page.atomics import kernel
from tripgate.page.layout import BOARD, SLOT
from tripgate.page.mapping import Page
from tripgate.page.quote import READ_TRIES, Quote, read_quote
from tripgate.processes import process_start_time

__all__ = ["READ_TRIES", "BoardWriter", "Quote", "read_quote", "read_row", "write_quote"]

_SEQUENCE = BOARD.offset("sequence")
_MARK = BOARD.offset("mark")
_LAST = BOARD.offset("last")
_BID = BOARD.offset("bid")
_ASK = BOARD.offset("ask")
_INDEX = BOARD.offset("index_price")
_MARKET_MS = BOARD.offset("market_ms")
_HOST_NS = BOARD.offset("host_ns")
_STEP = BOARD.offset("step")
_TICKS = BOARD.offset("ticks")


@kernel("void(int64, int64, int64, int64, int64, int64, int64, int64, int64)")
def write_row(
    row: int, mark: int, last: int, bid: int, ask: int, index_price: int, market_ms: int,
    host_ns: int, step: int,
) -> None:  # fmt: skip
    """Publish one tick in the board row at address ``row`` (prices in ticks)."""
    sequence = atomics.load(row + _SEQUENCE)
    # A row left odd by a killed predecessor is taken over: odd stays odd until this write ends.
    odd = sequence | 1
    atomics.exchange(row + _SEQUENCE, odd)
    atomics.store(row + _MARK, mark)
    atomics.store(row + _LAST, last)
    atomics.store(row + _BID, bid)
    atomics.store(row + _ASK, ask)
    atomics.store(row + _INDEX, index_price)
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
    """Publish an instrument's tick, whoever asks: actors go through ``BoardWriter``."""
    write_row(
        page.address(BOARD, instrument), quote.mark, quote.last, quote.bid, quote.ask,
        quote.index_price, quote.market_ms, host_ns, quote.step,
    )  # fmt: skip


class BoardWriter:
    """The one hand that writes a venue's rows: that of the process that owns its feed's slot.

    Parameters
    ----------
    role
        Number of the role that feeds the venue, which is also its slot.

    Raises
    ------
    InvariantBroken
        This process does not own the slot: two feeds of one venue would take turns in telling
        the gate two markets. It must end; its lease is not touched.
    """

    def __init__(self, page: Page, role: int, venue: str) -> None:
        self._page = page
        self._venue = venue
        self._owner = page.rows(SLOT)[role]
        self._pid = os.getpid()
        self._start_time = process_start_time(self._pid)
        self.instruments = tuple(
            n for n, name in enumerate(page.names.instruments) if name.venue == venue
        )
        self._own = frozenset(self.instruments)
        self.require_ownership()

    def require_ownership(self) -> None:
        """Raise ``InvariantBroken`` unless this process owns the feed's slot now."""
        owner = int(self._owner["pid"]), int(self._owner["start_time"])
        if owner != (self._pid, self._start_time):
            raise InvariantBroken(
                f"process {owner[0]} feeds venue {self._venue}, not this one: a board row has one "
                "writer"
            )

    def write(self, instrument: int, quote: Quote, host_ns: int) -> None:
        """Publish a tick of one of the venue's instruments."""
        if instrument not in self._own:
            raise InvariantBroken(f"instrument {instrument} is not of venue {self._venue}")
        self.require_ownership()
        write_quote(self._page, instrument, quote, host_ns)
