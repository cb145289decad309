"""The guards of a strategy's pace decided again: opening rate, duplicates, repeated execution.

The rate word is in the record; the words of the other two are not, so that those are counted as
partly decided.
"""

from tripgate.clock import MS_PER_S
from tripgate.reasons import DenyReason
from tripgate.replay.decided import Decided
from tripgate.replay.terms import PairTerms
from tripgate.replay.verdict import Verdict, possible

R = DenyReason
COUNT_BITS = 16


def used_in_second(throttle: int, t_signed_ms: int) -> int:
    """Return how many openings a rate word counts in the second of ``t_signed_ms``."""
    second, count = throttle >> COUNT_BITS, throttle & (2**COUNT_BITS - 1)
    return count if second == t_signed_ms // MS_PER_S else 0


def judge_pace(told: Decided, pair: PairTerms) -> Verdict | None:
    """Judge the guards; None if the order passes them."""
    strategy, instrument = pair.nodes[0], pair.nodes[1]
    rate = pair.strategy["orders_per_second_max"]
    used = used_in_second(told.throttle, told.t_signed_ms)
    if used >= rate:
        return Verdict(R.ORDER_RATE, strategy, rate, used, 1)
    if told.reason is R.ORDER_RATE:
        # Others used the second up between the test and the charge.
        expected = Verdict(R.ORDER_RATE, strategy, rate, told.used, 1)
        return possible(told, expected, when=told.used >= rate)
    if told.reason is R.DUPLICATE_ORDER:
        window = pair.strategy["duplicate_window_ms"]
        expected = Verdict(R.DUPLICATE_ORDER, instrument, window, told.used, 1)
        return possible(told, expected, when=0 <= told.used < window)
    if told.reason is R.REPEATED_ORDER:
        most = pair.strategy["repeats_max"]
        expected = Verdict(R.REPEATED_ORDER, instrument, most, told.used, 1)
        return possible(told, expected, when=0 < most <= told.used)
    return None
