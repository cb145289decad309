"""A strategy's handle on one instrument: what it asks the gate through.

A handle binds strategy, instrument and position side once, so that a check takes three integers.
``check`` takes quantities and prices as people write them; ``check_raw`` is the builtin underneath.
"""

from dataclasses import dataclass
from decimal import Decimal

from tripgate.gate.batch import Int64Array, check_orders
from tripgate.gate.context import AT, IMAGE, build_context, disown
from tripgate.gate.decision import Decision, scope_text
from tripgate.gate.fastcall import CheckRaw, bind
from tripgate.page.board import Quote, read_quote
from tripgate.page.layout import KEY
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason
from tripgate.units import INT_MAX, InstrumentUnits

_REASON, _SCOPE, _LIMIT, _USED, _REQUESTED = (
    offset // 8 for offset in (AT.reason, AT.scope, IMAGE.limit, IMAGE.used, IMAGE.requested)
)
_ONLY_OPENS = AT.only_opens // 8


@dataclass(frozen=True)
class OpeningHalf:
    """The part of a split order that opens, kept until the closing half has ended.

    Attributes
    ----------
    quantity
        Signed quantity on the lot grid.
    """

    handle: "InstrumentHandle"
    quantity: Decimal
    price: object
    stop: object

    @property
    def ready(self) -> bool:
        """Whether position and pending closes are both gone, so that the other side may open."""
        return self.handle.closable_word == 0

    def check(self) -> Decision:
        """Judge the opening half now; EXIT_PENDING while the closing half is still under way."""
        return self.handle.check_opening(self.quantity, self.price, self.stop)


class InstrumentHandle:
    """One strategy's handle on one instrument: pre-bound, so that a check takes three integers."""

    def __init__(self, page: Page, slot: int, key: int, *, by: str | None = None) -> None:
        # ``by`` names a call route (see fastcall.bind): a builtin costs most of a second to make,
        # which one that is asked over a socket does not earn back.
        self._page = page
        self.key = key
        """Number of the closable key: strategy, instrument and position side."""
        self._instrument = page.names.keys[key][1]
        self._context = build_context(page, slot, key)
        self.check_raw: CheckRaw = bind(self._context, page, by=by)
        """(lots, price ticks, stop ticks) to a token or −``DenyReason``: the check at full speed.

        Lots are signed, positive buys. Price 0 is a market order; stop 0 is none, which only a
        close may have. TypeError and OverflowError tell of arguments that are no 64-bit integers.
        """
        self.name = page.names.instruments[self._instrument]
        self.units: InstrumentUnits = self.name.units

    @property
    def address(self) -> int:
        """Address of the handle's context: what ``gate.check.check_raw`` takes from ``@njit`` code.

        Valid while the handle lives. Compiled callers that release the GIL need a slot of their
        own for each thread.
        """
        return int(self._context.ctypes.data)

    def check_batch(self, orders: object) -> Int64Array:
        """Judge several orders in one call; return a token or −``DenyReason`` for each.

        Parameters
        ----------
        orders
            Rows of (signed lots, price ticks, stop ticks), as ``check_raw`` takes them; at most
            ``gate.check.BATCH_MAX``.

        Raises
        ------
        UsageError
            Not such rows. Nothing has been judged then.
        """
        return check_orders(self.address, orders)

    def check_split(
        self, quantity: object, price: object = None, stop: object = None
    ) -> tuple[Decision | None, OpeningHalf | None]:
        """Judge an order that may close and open at once, as its two halves.

        Returns
        -------
        closing, opening
            The closing half has been judged; None if there is nothing to close. The opening half
            is None if there is none, and is to be checked when the closing half has ended.
        """
        try:
            lots = self.units.quantity_lots(quantity)
        except (ValueError, ArithmeticError):
            lots = 0
        if not lots:
            return self._deny_input(DenyReason.BAD_QUANTITY), None
        position = self.position_lots
        reduces = position != 0 and (position > 0) != (lots > 0)
        closing = min(abs(lots), abs(position)) if reduces else 0
        sign = 1 if lots > 0 else -1
        lot = self.units.lot
        closed = self.check(sign * closing * lot, price) if closing else None
        rest = abs(lots) - closing
        half = OpeningHalf(self, sign * rest * lot, price, stop) if rest else None
        return closed, half

    def check(self, quantity: object, price: object = None, stop: object = None) -> Decision:
        """Judge an order and reserve for it.

        Parameters
        ----------
        quantity
            Signed quantity: Decimal, str, int or finite float, a multiple of the lot.
        price
            Limit price on the tick grid; None is a market order.
        stop
            Price of the protective stop; an opening needs one.

        Returns
        -------
        Decision
            Off-grid or non-finite input is denied with BAD_QUANTITY or BAD_PRICE, not raised:
            a strategy that computes nonsense must not crash into an unprotected position.
        """
        # Decimal answers numbers beyond its precision with an ArithmeticError, not a ValueError.
        try:
            lots = self.units.quantity_lots(quantity)
        except (ValueError, ArithmeticError):
            return self._deny_input(DenyReason.BAD_QUANTITY)
        try:
            price_ticks = 0 if price is None else self._positive_ticks(price)
            stop_ticks = 0 if stop is None else self._positive_ticks(stop)
        except (ValueError, ArithmeticError):
            return self._deny_input(DenyReason.BAD_PRICE)
        return self._decision(self.check_raw(lots, price_ticks, stop_ticks))

    def check_ticks(self, lots: int, price_ticks: int, stop_ticks: int) -> Decision:
        """Judge an order given in lots and ticks as ``check_raw`` takes them.

        Whole numbers beyond 64 bits are denied with BAD_QUANTITY or BAD_PRICE like any other that
        is out of range.
        """
        if abs(lots) > INT_MAX:
            return self._deny_input(DenyReason.BAD_QUANTITY)
        if max(abs(price_ticks), abs(stop_ticks)) > INT_MAX:
            return self._deny_input(DenyReason.BAD_PRICE)
        return self._decision(self.check_raw(lots, price_ticks, stop_ticks))

    def check_opening(self, quantity: object, price: object, stop: object) -> Decision:
        """Judge an order that must not close: EXIT_PENDING while there is a position against it."""
        self._context[_ONLY_OPENS] = 1
        try:
            return self.check(quantity, price, stop)
        finally:
            self._context[_ONLY_OPENS] = 0

    @property
    def quote(self) -> Quote | None:
        """The instrument's latest prices in ticks, or None if there are none yet."""
        return read_quote(self._page, self._instrument)

    @property
    def position_lots(self) -> int:
        """The strategy's own position, signed lots."""
        return self.closable_word >> 32

    @property
    def closable_word(self) -> int:
        """Position (high half, signed lots) and pending closes (low half) as one word."""
        return int(self._page.rows(KEY)["closable"][self.key])

    def disown(self) -> None:
        """Refuse every further check with STALE_HANDLE: the gate behind it was closed."""
        disown(self._context)

    def _positive_ticks(self, price: object) -> int:
        ticks = self.units.price_ticks(price)
        if ticks <= 0:
            raise ValueError(f"a price is positive, was {price}")
        return ticks

    def _deny_input(self, reason: DenyReason) -> Decision:
        # The kernel records and counts the denial: what is not in the log did not happen.
        lots, price = (0, 0) if reason is DenyReason.BAD_QUANTITY else (1, -1)
        return self._decision(self.check_raw(lots, price, 0))

    def _decision(self, answer: int) -> Decision:
        words = self._context
        reason = int(words[_REASON]) if answer > 0 else -answer
        if not reason:
            return Decision(answer, None, "", 0, 0, 0)
        if reason == DenyReason.STALE_HANDLE:
            return Decision(0, DenyReason.STALE_HANDLE, self.name.scope, 0, 0, 0)
        return Decision(
            max(0, answer),
            DenyReason(reason),
            scope_text(self._page.names, int(words[_SCOPE])),
            int(words[_LIMIT]),
            int(words[_USED]),
            int(words[_REQUESTED]),
            would_deny=answer > 0,
        )
