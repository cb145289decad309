"""Lock-step: how a strategy follows a replay, one market step at a time.

Step k is a strategy's turn once the breaker has judged step k and every strategy before it (in
config order) has finished it: so the same replay gives the same decisions, run after run. The
strategy publishes its own step in its own slot. On live data the same loop simply yields each step
as it comes, and nobody waits for it.
"""

import os
import select
from collections.abc import Iterator
from dataclasses import dataclass

from tripgate.gate.denials import post_merged
from tripgate.page import atomics
from tripgate.page.board import Quote, read_quote
from tripgate.page.doorbell import WAIT_MAX_S, Doorbell, Ringer
from tripgate.page.layout import CONTROL_HEADER, ROLE, ROLE_SLOTS, SLOT, STRATEGY
from tripgate.page.level import node_level
from tripgate.page.mapping import Page
from tripgate.processes import is_alive
from tripgate.reasons import Level


@dataclass(frozen=True)
class Tick:
    """One market step as a strategy sees it.

    Attributes
    ----------
    quotes
        Latest prices by (venue, symbol) of those instruments that had a tick in this step; an
        instrument in an outage is absent, it has no return of zero.
    level
        The portfolio's breaker level.
    """

    step: int
    market_ms: int
    quotes: dict[tuple[str, str], Quote]
    level: Level


def participants(page: Page) -> list[int]:
    """Return the slots of living strategies that take part in the lock-step, in acting order."""
    slots, plans = page.rows(SLOT), page.rows(STRATEGY)
    found = []
    for slot in range(ROLE_SLOTS, page.layout.capacities.slots):
        row = slots[slot]
        strategy = int(row["strategy"])
        if not row["participating"] or plans[strategy]["dropped"]:
            continue
        if is_alive(int(row["pid"]), int(row["start_time"])):
            found.append((int(plans[strategy]["order"]), slot))
    return [slot for _, slot in sorted(found)]


def strategies_done(page: Page, step: int) -> bool:
    """Whether every configured strategy that was not dropped has finished a step."""
    slots, plans = page.rows(SLOT), page.rows(STRATEGY)
    done: dict[int, bool] = {}
    for slot in participants(page):
        strategy = int(slots["strategy"][slot])
        done[strategy] = done.get(strategy, True) and int(slots["step"][slot]) >= step
    expected = (n for n in range(len(page.names.strategies)) if not plans["dropped"][n])
    return all(done.get(number, False) for number in expected)


class StepTurn:
    """One slot's place in the lock-step: which step is its turn, and that it has finished it.

    It waits for nothing, so that a strategy's own loop and a router that acts for a guest share it.
    """

    def __init__(self, page: Page, slot: int, strategy: int, ringer: Ringer) -> None:
        self._page = page
        self._slot = slot
        self._ringer = ringer
        self._order = int(page.rows(STRATEGY)["order"][strategy])
        self._mine = page.address(SLOT, slot, "step")
        self._breaker = page.address(ROLE, page.names.role("breaker"), "step")
        self._market_step = page.address(CONTROL_HEADER, 0, "step")
        self._done = -1

    def join(self) -> None:
        """Take part from the step at hand on: the first tick is where many strategies begin."""
        self._done = atomics.load(self._market_step) - 1
        atomics.store(self._mine, self._done)
        atomics.store(self._page.address(SLOT, self._slot, "participating"), 1)
        self._ringer.ring_all()

    def due(self) -> int | None:
        """Return the step that is this slot's turn now, or None."""
        step = atomics.load(self._market_step)
        is_judged = bool(self._page.header["armed"]) and atomics.load(self._breaker) >= step
        return step if step > self._done and is_judged and self._is_my_turn(step) else None

    def finish(self, step: int) -> None:
        """Publish that a step is finished: what it merged is posted, and everybody is rung."""
        post_merged(self._page, self._slot)
        self._done = step
        atomics.store(self._mine, step)
        self._ringer.ring_all()

    @property
    def is_over(self) -> bool:
        """Whether no step will come any more: the instance has ended, or the feed has."""
        header = self._page.header
        # The mark before the step: a step that is published in between is still to be done.
        is_finished = bool(header["feed_finished"])
        is_last = atomics.load(self._market_step) <= self._done
        return bool(header["ended"]) or (is_finished and is_last)

    def _is_my_turn(self, step: int) -> bool:
        if not self._page.header["replay"]:
            return True
        plans, slots = self._page.rows(STRATEGY), self._page.rows(SLOT)
        for slot in participants(self._page):
            if slot == self._slot:
                return True
            order = int(plans["order"][int(slots["strategy"][slot])])
            if order < self._order and int(slots["step"][slot]) < step:
                return False
        return True


class StepClock:
    """One strategy process's walk through the steps."""

    def __init__(self, page: Page, slot: int, strategy: int) -> None:
        self._page = page
        self._bell = Doorbell(page.folder, f"slot{slot}")
        self._ringer = Ringer(page.folder)
        self._turn = StepTurn(page, slot, strategy, self._ringer)
        self._root = os.pidfd_open(int(page.header["owner_pid"]))

    def ticks(self) -> Iterator[Tick]:
        """Yield steps; see ``Gate.ticks``."""
        self._turn.join()
        while (step := self._next_step()) is not None:
            yield self._tick(step)
            self._turn.finish(step)

    def close(self) -> None:
        """Leave the lock-step."""
        self._bell.close()
        self._ringer.close()
        os.close(self._root)

    def _next_step(self) -> int | None:
        while not self._page.header["ended"]:
            if (step := self._turn.due()) is not None:
                return step
            if self._turn.is_over:
                return None
            bell = self._bell.socket.fileno()
            ready, _, _ = select.select([bell, self._root], [], [], WAIT_MAX_S)
            if self._root in ready:
                return None
            self._bell.drain()
        return None

    def _tick(self, step: int) -> Tick:
        quotes = {}
        for number, name in enumerate(self._page.names.instruments):
            quote = read_quote(self._page, number)
            if quote is not None and quote.step == step:
                quotes[name.venue, name.symbol] = quote
        market_ms = int(self._page.header["market_ms"])
        return Tick(step, market_ms, quotes, node_level(self._page, 0))
