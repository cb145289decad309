"""Orders against the own position, and the tree's own exits and stops, decided again.

A close is granted or merged, never denied by a limit: a record that says otherwise is a mismatch
(P4). What the page held of resting closes and claims is in no record, so that a merge is decided in
part; that a granted close fits the position, and what it counts, is decided fully.
"""

from tripgate.gate.record import FLAG_CLOSING, FLAG_EXIT, FLAG_MARKET, FLAG_STOP
from tripgate.page.layout import EXIT_SLOT, STOP_SLOT
from tripgate.reasons import DenyReason
from tripgate.replay import amounts
from tripgate.replay.amounts import AMOUNT_MAX, RATE_PPM_MAX, TICKS_MAX
from tripgate.replay.decided import Decided
from tripgate.replay.terms import PairTerms
from tripgate.replay.tokens import token_slot
from tripgate.replay.verdict import APPROVED, Verdict, as_told, impossible

R = DenyReason
STRATEGY, INSTRUMENT = 0, 1


def judge_reducing(told: Decided, pair: PairTerms) -> Verdict:
    """Decide an order against the own position again."""
    held, size = abs(told.held), abs(told.lots)
    scope = pair.nodes[INSTRUMENT]
    closes = bool(told.flags & FLAG_CLOSING)
    if told.reason is R.EXIT_PENDING and not closes:
        # The opening half of a split order: that only an opening was asked for is not recorded.
        return Verdict(R.EXIT_PENDING, scope, 0, held, size, is_partly=True)
    if size > held:
        return Verdict(R.MIXED if held else R.NO_POSITION, scope, held, 0, size)
    if told.reason is None:
        return _granted(told, pair)
    if told.reason not in (R.EXIT_IN_PROGRESS, R.EXIT_PENDING, R.MIXED) or not closes:
        return impossible("a close of the own position is granted or merged")
    if told.scope not in (pair.nodes[STRATEGY], scope) or told.requested not in (1, size):
        return impossible("it names another scope or another order than its own")
    if told.reason is R.EXIT_PENDING and not _may_rest(told):
        return impossible("a close that would trade at once is merged, not made to wait")
    return as_told(told)


def judge_tree_order(told: Decided) -> Verdict:
    """Decide an exit or a stop of the tree again: it reduces what is held, and nothing else."""
    is_stop = bool(told.flags & FLAG_STOP)
    slot = STOP_SLOT if is_stop else EXIT_SLOT
    if told.reason is not None or token_slot(told.token) != slot:
        return impossible("an exit or a stop is always granted, under a token of its own slot")
    if told.lots * told.held >= 0 or abs(told.lots) > abs(told.held):
        return impossible(f"{told.lots} lots do not reduce a position of {told.held}")
    if is_stop and (told.stop <= 0 or told.lots != -told.held):
        return impossible("a stop covers the whole position at a price")
    if bool(told.flags & FLAG_MARKET) != (told.price == 0) and not is_stop:
        return impossible("its price and its flags disagree on whether it is a market order")
    return APPROVED


def is_tree_order(told: Decided) -> bool:
    """Whether the tree itself decided on it."""
    return bool(told.flags & (FLAG_EXIT | FLAG_STOP))


def _granted(told: Decided, pair: PairTerms) -> Verdict:
    if not told.flags & FLAG_CLOSING:
        return impossible("it reduces the position and was granted as an opening")
    if bool(told.flags & FLAG_MARKET) != (told.price == 0):
        return impossible("its price and its flags disagree on whether it is a market order")
    if abs(told.lots) + told.pending > abs(told.held):
        return impossible(
            f"{abs(told.lots)} lots beside {told.pending} promised are more than {told.held}"
        )
    if _is_fresh(told, pair) and told.price != _clamped(told, pair):
        return impossible(f"it is bound at {told.price} ticks, beyond its exit collar")
    if told.notional != (worth := _worth(told, pair)):
        return impossible(f"it counted {told.notional} money units, the close is worth {worth}")
    return APPROVED


def _is_fresh(told: Decided, pair: PairTerms) -> bool:
    read = told.mark_sequence >= 0 and 0 < told.mark <= TICKS_MAX
    return read and abs(told.t_signed_ms - told.mark_ms) <= pair.age_max_ms


def _clamped(told: Decided, pair: PairTerms) -> int:
    """Return the recorded price, brought back to the exit collar if it were beyond it."""
    collar = pair.instrument["exit_collar_ppm"]
    if told.price == 0 or collar == 0:
        return told.price
    furthest = amounts.collar_price(told.mark, collar, told.lots)
    return min(told.price, furthest) if told.lots > 0 else max(told.price, furthest)


def _may_rest(told: Decided) -> bool:
    if told.price == 0 or told.mark_sequence < 0:
        return False
    return told.price > told.mark if told.lots < 0 else told.price < told.mark


def _worth(told: Decided, pair: PairTerms) -> int:
    """Return what an open close counts at its side; at the mark where its price is no price."""
    rate = max(0, min(told.rate_ppm, RATE_PPM_MAX))
    for price in (told.price, 0):
        order = pair.instrument, told.lots, price, told.mark, rate
        if amounts.overflows(*order) <= 0:
            return amounts.worth(*order)
    return AMOUNT_MAX
