"""A strategy client of the storm: opens and closes at random, as fast as it is let.

Most of what it asks is sensible (right side, near the mark, with a stop), so that it reaches the
nodes; the rest is not, so that every way back out of a check is walked too.
"""

from random import Random

from chaos.storm.ground import INSTRUMENTS, MARKS, PRICE_STEP, REDUCE_ONLY_VENUES
from tripgate.clock import sleep_s
from tripgate.errors import PageError
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, SUM
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason

SLOT_TRIES, SLOT_WAIT_S = 2_000, 0.005
BURST, REPEATS = 200, 40
BURST_REST_S = 0.0005
"""Between two bursts a client rests, or the desk would see nothing but full tables."""
CLOSE, PASSIVE, SHARES = 0.15, 0.97, (0.05, 0.05, 0.1, 0.1, 0.3, 0.5, 1.0, 1.2)
"""How often a close is asked for, how often it may rest, and its share; the last is too much."""
LOTS_USUAL_MAX, LOTS_MOST = 12, 80
REST_REASONS = frozenset({-DenyReason.ENTRIES_FULL, -DenyReason.RING_FULL})


class Client:
    """One strategy process.

    Parameters
    ----------
    understates
        A planted bug: it takes a unit out of the portfolio's gross after each grant.
    """

    def __init__(self, page: Page, strategy: int, seed: int, *, understates: bool = False) -> None:
        self._page = page
        self._draw = Random(seed)
        self._understates = understates
        slot = _claim_slot(page, strategy)
        self._handles = [
            (instrument, InstrumentHandle(page, slot, key))
            for key, (owner, instrument) in enumerate(page.names.keys)
            if owner == strategy
        ]
        self._side = 1

    def turn(self) -> None:
        """Ask a burst of questions, each several times in a row, then rest.

        Drawing a question takes longer than asking it: repeated, most of the time is spent in
        checks, so that a signal at any moment finds them at any instruction.
        """
        for _ in range(BURST):
            instrument, handle = self._draw.choice(self._handles)
            check, order = handle.check_raw, self._order(instrument, handle)
            for _ in range(REPEATS):
                answer = check(*order)
                if answer > 0:
                    if self._understates:
                        atomics.fetch_add(self._page.address(SUM, 0, "gross"), -1)
                    break
            if answer in REST_REASONS:
                break
        sleep_s(BURST_REST_S)

    def _order(self, instrument: int, handle: InstrumentHandle) -> tuple[int, int, int]:
        """Draw signed lots, price and stop."""
        draw, position = self._draw, handle.position_lots
        mark = MARKS[instrument]
        if position and draw.random() < CLOSE:
            share = draw.choice(SHARES)
            lots = max(1, int(abs(position) * share))
            side = -1 if position > 0 else 1
            price = draw.choice((0, mark, mark - 2 * PRICE_STEP, mark + 2 * PRICE_STEP))
            if INSTRUMENTS[instrument].venue not in REDUCE_ONLY_VENUES or draw.random() < PASSIVE:
                # Passive: what does not fit is refused, not merged into an exit.
                price = mark - side * draw.randint(1, 10) * PRICE_STEP
            return side * lots, price, 0
        lots = draw.randint(1, LOTS_MOST if draw.random() < 0.02 else LOTS_USUAL_MAX)
        side = self._side_of(instrument, position)
        price = mark + PRICE_STEP * draw.randint(-10, 10)
        chance = draw.random()
        if chance < 0.1:
            price = 0 if chance < 0.08 else mark * 2
        stop = mark * (95 if side > 0 else 105) // 100
        if draw.random() < 0.02:
            stop = draw.choice((0, mark, mark * (105 if side > 0 else 95) // 100))
        return side * lots, price, stop

    def _side_of(self, instrument: int, position: int) -> int:
        claimed = int(self._page.rows(CLAIM)["lots"][instrument])
        if position == 0 and self._draw.random() < 0.02:
            return self._draw.choice((-1, 1))
        if position or claimed:
            return 1 if (position or claimed) > 0 else -1
        if self._draw.random() < 0.1:
            self._side = -self._side
        return self._side


def _claim_slot(page: Page, strategy: int) -> int:
    """Claim a slot, waiting for the desk to finish with those of the dead."""
    for _ in range(SLOT_TRIES):
        try:
            return claim_strategy_slot(page, strategy)
        except PageError:
            sleep_s(SLOT_WAIT_S)
    raise PageError("no slot became free: the desk does not end the orders of the dead")
