"""Every live entry of a page, read from the page alone: what ``orders list`` shows.

Needs no actor and no compiled code, so it answers when every process of the tree is dead. Entries
move while they are read: each is read until its word stood still meanwhile.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.gate.client_order_id import encode_client_id
from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_MARKET, FLAG_STOP
from tripgate.machines.reservation import EntryState
from tripgate.page.layout import ENTRY, WATERMARK
from tripgate.page.mapping import Page

# As in gate.words, which cannot be imported without compiled code; a test compares them.
TOKEN_SLOT_SHIFT, TOKEN_EPOCH_SHIFT, TOKEN_SLOT_MASK = 40, 48, 0xFF
STATE_MASK, UNPOSTED = 0x7F, 0x80

READS_MAX = 8
"""Times an entry is read before it is shown as it moves."""


@dataclass(frozen=True)
class LiveOrder:
    """One entry that is not free.

    Attributes
    ----------
    kind
        ``entry``, ``close``, ``exit`` (the merged one) or ``stop``.
    lots, remaining_lots
        Unsigned; ``side`` is ``buy`` or ``sell``.
    price_ticks, stop_ticks
        0 where the order has none.
    age_ms
        Market time since it was decided.
    durable
        Whether its decision record is in the log.
    unposted
        Whether it was taken during a repair and is in no sum yet.
    """

    token: int
    client_id: str
    epoch: int
    strategy: str
    venue: str
    symbol: str
    kind: str
    side: str
    lots: int
    remaining_lots: int
    price_ticks: int
    stop_ticks: int
    state: EntryState
    age_ms: int
    charged_money: int
    durable: bool
    unposted: bool

    @property
    def filled_lots(self) -> int:
        """Lots booked so far."""
        return self.lots - self.remaining_lots


def live_orders(page: Page, installation: str) -> list[LiveOrder]:
    """Return every entry that is not free, oldest first.

    Parameters
    ----------
    installation
        The installation's id, for the client order ids.
    """
    rows = (page.rows(ENTRY)["word"] & STATE_MASK).nonzero()[0]
    found = [order for row in rows if (order := _read(page, int(row), installation)) is not None]
    return sorted(found, key=lambda order: (-order.age_ms, order.token))


def _read(page: Page, row: int, installation: str) -> LiveOrder | None:
    entries = page.rows(ENTRY)
    for _ in range(READS_MAX):
        word = int(entries["word"][row])
        entry: Any = entries[row].copy()
        if int(entries["word"][row]) == word:
            break
    state = EntryState(word & STATE_MASK)
    return None if state is EntryState.FREE else _order(page, entry, word, state, installation)


def _order(page: Page, entry: Any, word: int, state: EntryState, installation: str) -> LiveOrder:
    names, token, flags = page.names, int(entry["token"]), int(entry["flags"])
    name, lots = names.instruments[int(entry["instrument"])], int(entry["lots"])
    is_market = bool(flags & FLAG_MARKET) and bool(flags & FLAG_EXIT)
    return LiveOrder(
        token, encode_client_id(installation, token), token >> TOKEN_EPOCH_SHIFT,
        names.strategies[int(entry["strategy"])], name.venue, name.symbol, _kind(flags),
        "buy" if lots > 0 else "sell", abs(lots), int(entry["remaining"]),
        0 if is_market else int(entry["price"]), int(entry["stop"]), state,
        max(0, int(page.header["market_ms"]) - int(entry["t_signed_ms"])), int(entry["charged"]),
        _is_durable(page, entry, name.venue, flags), bool(word & UNPOSTED),
    )  # fmt: skip


def _kind(flags: int) -> str:
    kinds = ((FLAG_EXIT, "exit"), (FLAG_STOP, "stop"), (FLAG_CLOSING, "close"))
    return next((kind for flag, kind in kinds if flags & flag), "entry")


def _is_durable(page: Page, entry: Any, venue: str, flags: int) -> bool:
    sequence = int(entry["record_sequence"])
    if sequence <= 0:
        return sequence < 0  # restored from the log of an earlier run
    slot = (int(entry["token"]) >> TOKEN_SLOT_SHIFT) & TOKEN_SLOT_MASK
    if flags & (FLAG_EXIT | FLAG_STOP):
        # The tree's own orders are recorded by the router of their venue.
        slot = page.names.role("router", venue)
    return sequence <= int(page.rows(WATERMARK)["sequence"][slot])
