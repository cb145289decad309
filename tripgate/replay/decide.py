"""Deciding a record again: which rules apply to it, and under which terms it agrees with them.

A decision agrees if it does under any state of the terms that it can have seen; in quiet times
there is one. Before the rules come the marks that every approval must bear: a token of the ring it
stood in, of its own run, later than the ones before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tripgate.reasons import DenyReason
from tripgate.replay.amounts import RATE_PPM_MAX, TICKS_MAX
from tripgate.replay.closings import is_tree_order, judge_reducing, judge_tree_order
from tripgate.replay.decided import Decided
from tripgate.replay.openings import judge_opening, judge_shadow_denial
from tripgate.replay.terms import PairTerms, Terms
from tripgate.replay.tokens import token_epoch, token_slot
from tripgate.replay.verdict import Verdict, difference
from tripgate.units import LOTS_MAX

R = DenyReason
INSTRUMENT, PORTFOLIO = 1, 4


class Redecided(NamedTuple):
    """What came of deciding a record again.

    Attributes
    ----------
    difference
        (what, recorded, recomputed), or None if both agree.
    is_partly
        They agree as far as the record goes: one word that the rule read is in no record.
    is_judged
        False if the log tells no terms for it: nothing was proved at all.
    """

    difference: tuple[str, str, str] | None
    is_partly: bool = False
    is_judged: bool = True


UNJUDGED = Redecided(None, is_judged=False)


def redecide(
    told: Decided, producer: int, candidates: Sequence[Terms], *, on_shadow_page: bool
) -> Redecided:
    """Decide a record again.

    Parameters
    ----------
    producer
        Slot whose ring the record stood in.
    candidates
        States of the terms that it can have seen.
    on_shadow_page
        Whether the run's page was one that looks on.
    """
    if problem := _token_problem(told, producer, on_shadow_page):
        return Redecided(("token", str(told.token), problem))
    if is_tree_order(told):
        return Redecided(difference(told, judge_tree_order(told)))
    if not candidates:
        return UNJUDGED
    first: Redecided | None = None
    for terms in reversed(candidates):
        pair = terms.pair(told.strategy, told.instrument)
        if pair is None:
            text = f"strategy {told.strategy} on instrument {told.instrument}"
            return Redecided(("key", text, "no key of this run"))
        for verdict in _verdicts(told, pair, on_shadow_page):
            found = difference(told, verdict)
            if found is None:
                return Redecided(None, verdict.is_partly)
            if told.reason is verdict.reason and _told_again(told, pair):
                return Redecided(None, is_partly=True)
            first = first or Redecided(found)
    assert first is not None
    return first


def _told_again(told: Decided, pair: PairTerms) -> bool:
    """Whether a shadow page's second look, at a stale price, overwrote the first one's numbers."""
    return told.is_shadow and told.limit in (pair.age_max_ms, RATE_PPM_MAX)


def _token_problem(told: Decided, producer: int, on_shadow_page: bool) -> str:
    if told.token < 0:
        return "no token is negative"
    if told.is_shadow and not on_shadow_page:
        return "an enforcing page grants nothing as a shadow"
    if told.token == 0:
        return "" if told.reason is not None else "neither a token nor a reason"
    if told.reason is not None and not told.is_shadow:
        return f"granted and denied for {told.reason.name}"
    if token_epoch(told.token) != told.epoch:
        return f"it is of epoch {token_epoch(told.token)}, the record of epoch {told.epoch}"
    if not is_tree_order(told) and token_slot(told.token) != producer:
        return f"slot {producer} grants no token of slot {token_slot(told.token)}"
    return ""


def _verdicts(told: Decided, pair: PairTerms, on_shadow_page: bool) -> list[Verdict]:
    """Return every verdict that the record may stand for; more than one only in hedge mode."""
    if told.reason in (R.EPOCH_CHANGED, R.PAGE_CLOSED):
        return [Verdict(told.reason, pair.nodes[PORTFOLIO], is_partly=True)]
    node = pair.nodes[INSTRUMENT]
    if told.lots == 0 or abs(told.lots) > LOTS_MAX:
        return [Verdict(R.BAD_QUANTITY, node)]
    bad = not 0 <= asked(told) <= TICKS_MAX or not 0 <= told.stop <= TICKS_MAX
    if bad:
        return [Verdict(R.BAD_PRICE, node)]
    return [_verdict(told, pair, side, on_shadow_page) for side in pair.sides]


def asked(told: Decided) -> int:
    """Return the recorded price; a granted one may lie beyond the bound of what can be asked."""
    return 0 if told.token else told.price


def _verdict(told: Decided, pair: PairTerms, side: int, on_shadow_page: bool) -> Verdict:
    buys = told.lots > 0
    reduces = told.held != 0 and (told.held > 0) != buys if side == 0 else (side > 0) != buys
    if reduces:
        return judge_reducing(told, pair)
    if on_shadow_page and not told.token:
        verdict = judge_shadow_denial(told, pair)
        if verdict is not None:
            return verdict
    return judge_opening(told, pair)


def exceeds_level(told: Decided, least: int, most: int) -> str:
    """Return why the level that a decision read cannot have been, or an empty text."""
    if least <= told.level <= most or not reads_level(told):
        return ""
    return f"{least} to {most}" if least != most else str(least)


def reads_level(told: Decided) -> bool:
    """Whether a decision came as far as the level: earlier tests leave its word zero."""
    early = {
        R.EPOCH_CHANGED, R.PAGE_CLOSED, R.BAD_QUANTITY, R.BAD_PRICE, R.ATTEMPT_RATE,
        R.NOT_TRADABLE, R.MIXED, R.NO_POSITION, R.EXIT_PENDING, R.EXIT_IN_PROGRESS,
    }  # fmt: skip
    closes = told.held * told.lots < 0
    return told.reason not in early and not closes and not is_tree_order(told)
