"""The simulated venue's account as one text.

It is one JSON object with a checksum over the bytes of ``book`` as they stand. Its numbers are
integers of any size and its grids decimal text, so nothing is rounded. Orders and fills are rows
without field names, because there may be a million of each.

What follows from the rest is not written: an order's state and filled lots from its fills and its
cancel reason, a trade id from its place. There the text cannot contradict itself. Positions and
fees are written although they follow too: a later release may round a closed position's cost
otherwise, and an account must not change for that.

Invariants: K1 reading what was written gives an equal book; K2 a text of which a byte was changed,
added or lost is refused.
"""

import hashlib
from decimal import Decimal
from typing import Annotated

import msgspec

from exchange_adapters.simulator.matching import ORDERS_MAX
from exchange_adapters.venue_port import CancelReason, Liquidity, OrderKind, TimeInForce
from tripgate.errors import DataError
from tripgate.reasons import Side
from tripgate.units import InstrumentUnits

SCHEMA_VERSION = 1

Place = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class BookError(DataError):
    """A book that cannot be gone on with. Gate effect: none; the venue was not started."""


class InstrumentBook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One instrument: the grid its numbers are counted in, and its ``Position``.

    Attributes
    ----------
    mark_ticks
        Its last tick; ``None`` if it never had one.
    """

    symbol: str
    tick: Decimal
    lot: Decimal
    contract_size: Decimal
    lots: int
    entry_tick_lots: int
    realised_tick_lots: int
    mark_ticks: Count | None

    def units(self) -> InstrumentUnits:
        """Return the grid as ``InstrumentUnits``."""
        return InstrumentUnits(self.tick, self.lot, self.contract_size)


class OrderRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One order, as a row; ``instrument`` is a place in the list of instruments."""

    client_id: str
    instrument: Place
    side: Side
    lots: Count
    kind: OrderKind
    price_ticks: int | None
    stop_ticks: int | None
    time_in_force: TimeInForce
    reduce_only: bool
    accepted_ms: int
    updated_ms: int
    cancel_reason: CancelReason | None
    has_seen_tick: bool


class FillRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One fill, as a row; ``order`` is a place in the list of orders."""

    order: Place
    market_ms: int
    lots: Count
    price_ticks: Count
    fee_money: Place
    liquidity: Liquidity


class Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole account.

    Attributes
    ----------
    starting_equity_money, fees_money
        Money units.
    instruments
        Every instrument that ever traded here.
    orders
        Every order that was ever taken, in order of arrival.
    fills
        Every fill, by trade id from 1.
    """

    starting_equity_money: Count
    fees_money: Place
    instruments: tuple[InstrumentBook, ...]
    orders: Annotated[tuple[OrderRow, ...], msgspec.Meta(max_length=ORDERS_MAX)]
    fills: Annotated[tuple[FillRow, ...], msgspec.Meta(max_length=ORDERS_MAX)]


class _Envelope(msgspec.Struct, frozen=True):
    schema: int
    sha256: str
    book: msgspec.Raw


def encode_book(book: Book) -> bytes:
    """Return the text of a book."""
    content = msgspec.json.encode(book)
    digest = hashlib.sha256(content).hexdigest()
    return msgspec.json.encode(_Envelope(SCHEMA_VERSION, digest, msgspec.Raw(content))) + b"\n"


def decode_book(text: bytes) -> Book:
    """Return the book of a text. Raises ``BookError`` unless it is whole and of this schema."""
    try:
        envelope = msgspec.json.decode(text, type=_Envelope)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise BookError("is no book of the simulated venue, or is damaged") from None
    if envelope.schema != SCHEMA_VERSION:
        raise BookError(
            f"has schema {envelope.schema}, and this release reads {SCHEMA_VERSION}: use the "
            "release that wrote it"
        )
    content = bytes(envelope.book)
    # Bytes around the sum and the content count too: our own text, or another's work.
    is_ours = text == msgspec.json.encode(envelope) + b"\n"
    if not is_ours or hashlib.sha256(content).hexdigest() != envelope.sha256:
        raise BookError("is damaged: its checksum does not match")
    try:
        return msgspec.json.decode(content, type=Book)
    except msgspec.MsgspecError as error:
        raise BookError(f"makes no sense: {error}") from None
