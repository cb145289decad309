"""An opening decided again: the tests of docs/gate.md in their order, the first failure wins.

Each test gets what the record says was read and the terms in force, and returns a verdict or None
where the order passes it. What one test needs from another it computes itself.
"""

from collections.abc import Callable

from tripgate.gate.record import FLAG_MARKET
from tripgate.page.layout import CLOSING_ENTRIES, ENTRIES_PER_SLOT
from tripgate.reasons import DenyReason, Level
from tripgate.replay import amounts
from tripgate.replay.amounts import AMOUNT_MAX, RATE_PPM_MAX, TICKS_MAX
from tripgate.replay.decided import Decided
from tripgate.replay.guards import judge_pace
from tripgate.replay.terms import PairTerms
from tripgate.replay.verdict import APPROVED, Verdict, as_told, impossible, possible
from tripgate.units import LOTS_MAX, PPM

R = DenyReason
STRATEGY, INSTRUMENT, VENUE, PORTFOLIO = 0, 1, 3, 4
"""Places of the nodes of an order, narrow to wide."""
OPENINGS_MAX = ENTRIES_PER_SLOT - CLOSING_ENTRIES
TAKEN_WHATEVER = frozenset({
    R.EXIT_IN_PROGRESS, R.EXIT_PENDING, R.OPPOSED_POSITION, R.RING_FULL, R.ENTRIES_FULL, R.FROZEN,
})  # fmt: skip
"""What a shadow page, too, denies an order for, whatever else would have denied it before."""


def asked_price(told: Decided) -> int:
    """Return the price that was asked for, 0 for a market order.

    A denied order is recorded as it was asked, a granted one at the price that binds it.
    """
    return 0 if told.token and told.flags & FLAG_MARKET else told.price


def binding_price(told: Decided, pair: PairTerms) -> int:
    """Return the price that binds the order: its own, or the far end of its collar."""
    price = asked_price(told)
    if price:
        return price
    return amounts.collar_price(told.mark, pair.instrument["collar_ppm"], told.lots)


def _tradable(told: Decided, pair: PairTerms) -> Verdict | None:
    if told.reason is R.ATTEMPT_RATE:
        most = pair.strategy["attempts_per_second_max"]
        expected = Verdict(R.ATTEMPT_RATE, pair.nodes[STRATEGY], most, told.used, 1)
        return possible(told, expected, when=told.used >= most)
    if not pair.instrument["tradable"]:
        return Verdict(R.NOT_TRADABLE, pair.nodes[INSTRUMENT])
    return None


def _level(told: Decided, pair: PairTerms) -> Verdict | None:
    if told.level < Level.MEDIUM:
        return None
    scope = told.scope if told.scope in pair.nodes else pair.nodes[PORTFOLIO]
    return Verdict(R.LEVEL, scope, int(Level.MEDIUM), told.level)


def _leases(told: Decided, pair: PairTerms) -> Verdict | None:
    if told.lease_left_ns > 0:
        return None
    if not pair.instrument["role_mask"] >> told.lease_role & 1:
        return impossible(f"role {told.lease_role} is none that the instrument depends on")
    # A lease that was zeroed has been over since the clock began; how long is not told then.
    overdue = -told.lease_left_ns if told.lease_left_ns > -told.host_ns else 0
    lapsed = Verdict(R.LEASE_LAPSED, -1 - told.lease_role, 0, overdue)
    if told.reason is R.INPUT_STALE:
        return lapsed._replace(reason=R.INPUT_STALE, is_partly=True)
    return lapsed


def _mark(told: Decided, pair: PairTerms) -> Verdict | None:
    scope, age_max = pair.nodes[INSTRUMENT], pair.age_max_ms
    if told.mark_sequence < 0:
        return Verdict(R.MARK_STALE, scope)
    fits = 0 < told.mark <= TICKS_MAX
    # The age was taken after the record's time, and market time only goes on.
    least_age = told.t_signed_ms - told.mark_ms
    if told.reason is R.MARK_STALE:
        stale = Verdict(R.MARK_STALE, scope, age_max, max(told.used, least_age))
        return stale if not fits or abs(told.used) > age_max else None
    if not fits or least_age > age_max:
        return Verdict(R.MARK_STALE, scope, age_max, least_age)
    return None


def _rate(told: Decided, pair: PairTerms) -> Verdict | None:
    scope, age_max = pair.nodes[INSTRUMENT], pair.age_max_ms
    if told.reason is R.QUOTE_STALE:
        if told.limit == RATE_PPM_MAX:
            expected = Verdict(R.QUOTE_STALE, scope, RATE_PPM_MAX, told.used)
            return possible(told, expected, when=told.used > RATE_PPM_MAX)
        is_aged = abs(told.used) > age_max
        limit = age_max if told.limit or is_aged else 0
        expected = Verdict(R.QUOTE_STALE, scope, limit, told.used)
        return possible(told, expected, when=is_aged or told.rate_ppm <= 0)
    if 0 < told.rate_ppm <= RATE_PPM_MAX:
        return None
    return impossible(f"a quote rate of {told.rate_ppm} ppm passes no check")


def _collar(told: Decided, pair: PairTerms) -> Verdict | None:
    price, mark, collar = asked_price(told), told.mark, pair.instrument["collar_ppm"]
    far = abs(price - mark) * PPM
    if price and far > collar * mark:
        return Verdict(R.PRICE_COLLAR, pair.nodes[INSTRUMENT], collar, 0, far // mark)
    if bool(told.flags & FLAG_MARKET) != (price == 0):
        return impossible("its price and its flags disagree on whether it is a market order")
    if told.token and told.price != (bound := binding_price(told, pair)):
        return impossible(f"it is bound at {told.price} ticks, the collar at {bound}")
    return None


def _stop(told: Decided, pair: PairTerms) -> Verdict | None:
    scope, stop = pair.nodes[INSTRUMENT], told.stop
    if stop == 0:
        return Verdict(R.STOP_MISSING, scope)
    base = asked_price(told) or told.mark
    buys = told.lots > 0
    nearest = min(base, told.mark) if buys else max(base, told.mark)
    if stop >= nearest if buys else stop <= nearest:
        return Verdict(R.STOP_WRONG_SIDE, scope, nearest, 0, stop)
    reach, far = pair.instrument["stop_distance_ppm"], abs(base - stop) * PPM
    if far > reach * base:
        return Verdict(R.STOP_TOO_FAR, scope, reach, 0, far // base)
    return None


def _size(told: Decided, pair: PairTerms) -> Verdict | None:
    scope, spec, size = pair.nodes[INSTRUMENT], pair.instrument, abs(told.lots)
    order = spec, told.lots, binding_price(told, pair), told.mark, told.rate_ppm
    beyond = amounts.overflows(*order)
    too_much = Verdict(R.AMOUNT_OVERFLOW, scope, AMOUNT_MAX, 0, size)
    said_so = told.reason is R.AMOUNT_OVERFLOW and told.limit == AMOUNT_MAX
    if beyond > 0 or (beyond == 0 and said_so):
        return too_much
    notional = amounts.worth(*order)
    if told.notional != notional:
        return impossible(f"it counted {told.notional} money units, the order is worth {notional}")
    if size > spec["order_lots_max"]:
        return Verdict(R.ORDER_LOTS, scope, spec["order_lots_max"], 0, size)
    cap = amounts.share_down(spec["order_money_max"], pair.factor_ppm)
    if notional > cap:
        return Verdict(R.ORDER_NOTIONAL, scope, cap, 0, notional)
    return None


def _place(told: Decided, pair: PairTerms) -> Verdict | None:
    if told.reason is R.ENTRIES_FULL:
        scope = pair.nodes[STRATEGY]
        expected = Verdict(R.ENTRIES_FULL, scope, OPENINGS_MAX, OPENINGS_MAX, 1)
        return expected._replace(is_partly=True)
    if told.reason in (R.RING_FULL, R.FROZEN):
        return as_told(told) if told.scope in pair.nodes else None
    return None


def claim_verdict(told: Decided, pair: PairTerms) -> Verdict | None:
    """Return what the key and the instrument's claim say against an opening, or None."""
    scope, size = pair.nodes[INSTRUMENT], abs(told.lots)
    if told.reason is R.EXIT_IN_PROGRESS:
        expected = Verdict(R.EXIT_IN_PROGRESS, scope, 0, abs(told.held), size)
        return expected._replace(is_partly=True)
    if told.reason is R.EXIT_PENDING:
        # The promised lots are read again here: they may have grown since the record's word.
        expected = Verdict(R.EXIT_PENDING, scope, 0, told.used, size)
        is_read = told.used == told.pending
        if told.held == 0 and told.used > 0:
            return expected._replace(is_partly=not is_read)
        return None
    if told.held == 0 and told.pending and told.reason is None:
        return Verdict(R.EXIT_PENDING, scope, 0, told.pending, size)
    if told.reason is R.OPPOSED_POSITION and told.used * told.lots < 0:
        return Verdict(R.OPPOSED_POSITION, scope, 0, told.used, told.lots)
    if told.reason is R.AMOUNT_OVERFLOW and abs(told.used + told.lots) > LOTS_MAX:
        return Verdict(R.AMOUNT_OVERFLOW, scope, LOTS_MAX, told.used, told.lots)
    return None


def _nodes(told: Decided, pair: PairTerms) -> Verdict | None:
    amount = told.notional
    for place, node in enumerate(pair.nodes):
        words = (
            (R.GROSS_LIMIT, pair.gross_max[place], told.gross[place]),
            (R.NET_LIMIT, pair.net_max[place], told.side[place]),
        )
        for reason, limit, before in words:
            if before + amount > limit:
                return Verdict(reason, node, limit, before, amount)
        if told.gross[place] < 0:
            return impossible(f"gross of node {node} was {told.gross[place]}")
    return None


def _margin(told: Decided, pair: PairTerms) -> Verdict | None:
    margin = amounts.share_up(told.notional, pair.instrument["margin_ppm"])
    if margin == 0:
        return None
    if told.reason is R.MARGIN:
        exceeds = told.margin + margin > told.limit
        denied = Verdict(R.MARGIN, pair.nodes[VENUE], told.limit, told.margin, margin)
        return denied if exceeds else None
    if told.reason is None and told.margin + margin > told.limit:
        return Verdict(R.MARGIN, pair.nodes[VENUE], told.limit, told.margin, margin)
    return None


def _end(told: Decided, pair: PairTerms) -> Verdict | None:
    if told.reason is R.TRIPPED:
        return Verdict(R.TRIPPED, pair.nodes[PORTFOLIO], is_partly=True)
    return None


_JUDGING = (_tradable, _level, _leases, _mark, _rate, _collar, _stop, _size, judge_pace)
_TAKING = (_place, claim_verdict, _nodes, _margin, _end)
Test = Callable[[Decided, PairTerms], Verdict | None]


def judge_opening(told: Decided, pair: PairTerms) -> Verdict:
    """Decide an opening again from its record.

    An order that a shadow page granted although a rule spoke against it is judged by that rule; its
    sums were read a second time and are not compared.
    """
    tests: tuple[Test, ...] = _JUDGING + _TAKING
    if told.is_shadow and told.reason is not None:
        told = _as_denied(told, pair)
    for test in tests:
        verdict = test(told, pair)
        if verdict is not None:
            return verdict
    return APPROVED


def _as_denied(told: Decided, pair: PairTerms) -> Decided:
    """Return a shadow page's grant as an enforcing page would have recorded its denial."""
    gross, side = list(told.gross), list(told.side)
    for reason, before in ((R.GROSS_LIMIT, gross), (R.NET_LIMIT, side)):
        if told.reason is reason and told.scope in pair.nodes:
            before[pair.nodes.index(told.scope)] = told.used
    margin = told.used if told.reason is R.MARGIN else told.margin
    return told._replace(gross=tuple(gross), side=tuple(side), margin=margin)


def judge_shadow_denial(told: Decided, pair: PairTerms) -> Verdict | None:
    """Return the verdict on what even a shadow page denied, or None if it is an ordinary one."""
    if told.reason in TAKEN_WHATEVER:
        return _place(told, pair) or claim_verdict(told, pair)
    return None
