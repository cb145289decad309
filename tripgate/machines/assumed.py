"""Lots booked on an operator's word, and how the venue's own trades replace them.

Both are pure parts of the book's step: what is still assumed of an order, and what its position
looks like once lots that count already turn out to have traded at another price.
"""

from collections.abc import Mapping
from dataclasses import replace

from tripgate.machines.book_types import Assumed, Book, Fill, Position


def replaced_lots(state: Book, fill: Fill) -> tuple[Mapping[int, Assumed], int]:
    """Return what stays assumed after a trade, and the assumed lots (signed) that it replaces."""
    word = state.assumed.get(fill.token)
    if word is None or (word.lots > 0) != (fill.signed_lots > 0):
        return state.assumed, 0
    lots = min(abs(word.lots), abs(fill.signed_lots))
    signed = lots if word.lots > 0 else -lots
    left = {token: other for token, other in state.assumed.items() if token != fill.token}
    if word.lots != signed:
        left[fill.token] = Assumed(word.lots - signed, word.ticks)
    return left, signed


def repriced(position: Position, signed_lots: int, before: int, after: int) -> Position:
    """Return the position after lots that count in it already turn out to have another price."""
    cash = position.cash_lot_ticks + signed_lots * (before - after)
    same_side = position.lots * signed_lots > 0
    # Of lots that were closed meanwhile no cost is left in the basis.
    held = min(abs(signed_lots), abs(position.lots)) if same_side else 0
    basis = position.basis_lot_ticks + (after - before) * (held if position.lots > 0 else -held)
    return replace(position, cash_lot_ticks=cash, basis_lot_ticks=basis)
