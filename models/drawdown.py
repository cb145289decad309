"""Drawdown from the high-water mark, exact and net of external flows.

Drawdown is (mark − equity) ÷ mark in parts per million, rounded up, so that a threshold is never
reached late by rounding. A transfer is no result: it shifts the mark by the same amount of money
as it shifts equity. Everything is an integer, so two processes that see the same equities agree.

Invariants
----------
D1  0 <= drawdown_ppm <= 1_000_000; it is 1_000_000 when equity is not positive.
D2  The mark falls only by an outgoing flow or by ``rebase``.
D3  Lower equity never gives a smaller drawdown.
"""

from dataclasses import dataclass

from tripgate.units import INT_MAX, PPM


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Drawdown of one scope.

    Attributes
    ----------
    high_water_mark_money
        Highest equity since the start or the last rebase, shifted by flows, money units (1e-4).
    drawdown_ppm
        Present drawdown, 0 .. 1_000_000.
    since_ms
        Market time at which equity was last at its mark, ms: where time under water begins.
    updated_ms
        Market time of the last update, ms.
    """

    high_water_mark_money: int
    drawdown_ppm: int
    since_ms: int
    updated_ms: int

    @property
    def under_water_ms(self) -> int:
        """Market time since equity was last at its mark, ms."""
        return self.updated_ms - self.since_ms


def start(equity_money: int, market_ms: int) -> Drawdown:
    """Return the drawdown of a scope that begins with ``equity_money``.

    Raises
    ------
    ValueError
        Equity is not a positive whole number of money units in range.
    """
    if _whole(equity_money, "equity") <= 0:
        raise ValueError(f"starting equity must be positive, was {equity_money}")
    _whole(market_ms, "market time")
    return Drawdown(equity_money, 0, market_ms, market_ms)


def drawdown_ppm(high_water_mark_money: int, equity_money: int) -> int:
    """Return (mark − equity) ÷ mark in ppm, rounded up and held within 0 .. 1_000_000."""
    if equity_money <= 0:
        return PPM
    if equity_money >= high_water_mark_money:
        return 0
    return -((equity_money - high_water_mark_money) * PPM // high_water_mark_money)


def update(state: Drawdown, equity_money: int, flow_money: int, market_ms: int) -> Drawdown:
    """Return the drawdown after equity was evaluated anew.

    Parameters
    ----------
    equity_money
        Equity after the flow, money units; may be negative.
    flow_money
        External flow since the last update: deposits positive, withdrawals negative.
    market_ms
        Market time of the evaluation, not before the last one.

    Raises
    ------
    ValueError
        A value is not a whole number in range, or market time ran backwards.
    """
    _whole(equity_money, "equity")
    _whole(flow_money, "flow")
    if _whole(market_ms, "market time") < state.updated_ms:
        raise ValueError(f"market time ran backwards: {market_ms} after {state.updated_ms}")
    mark = max(state.high_water_mark_money + flow_money, equity_money)
    ppm = drawdown_ppm(mark, equity_money)
    return Drawdown(mark, ppm, state.since_ms if ppm else market_ms, market_ms)


def rebase(state: Drawdown, equity_money: int) -> Drawdown:
    """Return the drawdown restarted at present equity: an operator's recorded decision.

    Raises
    ------
    ValueError
        Equity is not positive: there is nothing left to measure a drawdown from.
    """
    if _whole(equity_money, "equity") <= 0:
        raise ValueError(f"cannot rebase a drawdown at equity {equity_money}: deposit or stop")
    return Drawdown(equity_money, 0, state.updated_ms, state.updated_ms)


def _whole(value: object, what: str) -> int:
    """Return ``value`` if it is an int in range; a float here would be a unit mistake."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be a whole number, was {type(value).__name__}")
    if abs(value) > INT_MAX:
        raise ValueError(f"{what} is out of range: {value}")
    return value
