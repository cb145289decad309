"""The simulated position keeper: a thin shell around the book's and the drawdown's steps."""

from collections.abc import Mapping

from chaos.simulation.market import Tick
from chaos.simulation.surroundings import Log, Page, SimulatedProcess, Steps
from models import drawdown
from models.drawdown import Drawdown
from tripgate.errors import InvariantBroken
from tripgate.machines import book
from tripgate.machines.book import BookInstrument, Equity, EquityChanged, Marks, Releasable
from tripgate.machines.breaker import Reading

REDELIVERED = 8
"""Events delivered again after a restart although the checkpoint holds them."""


class Keeper(SimulatedProcess):
    """Books fills from the log's ring, marks positions and publishes equity and drawdown."""

    def __init__(
        self,
        steps: Steps,
        page: Page,
        log: Log,
        instruments: Mapping[int, BookInstrument],
        starting_money: int,
        strategy_starting_money: Mapping[int, int],
    ) -> None:
        super().__init__()
        self._steps = steps
        self._page = page
        self._log = log
        self._start = instruments, starting_money, strategy_starting_money
        self.starting_money = starting_money
        self.shown_mark_ticks: dict[int, int] = {}
        self.book = book.new_book(*self._start)
        self.drawdown: Drawdown | None = None
        self._cursor = 0

    def restart(self) -> None:
        """Rebuild the book from the last checkpoint; the ring then delivers some events again."""
        self.revive()
        self.shown_mark_ticks = {}
        self.book = book.new_book(*self._start)
        self.drawdown = self._log.drawdown
        if self._log.checkpoint is not None:
            self._run(self._log.checkpoint, 0)
        self._cursor = max(0, self._log.checkpoint_at - REDELIVERED)

    def take_checkpoint(self) -> None:
        """Write the book as it stands into the log."""
        self._log.checkpoint = book.checkpoint(self.book)
        self._log.checkpoint_at = self._cursor

    def run(self, step: int, tick: Tick, now: int) -> None:
        """Take in everything of one step, or die on the way."""
        while self.is_alive and self._cursor < len(self._log.events):
            self._run(self._log.events[self._cursor], now)
            self._cursor += 1
        if not self.is_alive:
            return
        self.shown_mark_ticks.update(tick.mark_ticks)
        changed = self._run(Marks(step, now, tick.mark_ticks, tick.last_ticks), now)
        if self.is_alive and changed is not None:
            self._publish(changed.portfolio, now)

    def rebase(self) -> None:
        """Restart the high-water mark at the last published equity, as the operator commanded."""
        equity = self._page.equity
        if self.drawdown is None or equity is None or equity.on_mark_money is None:
            raise InvariantBroken("a rebase without a known equity should have been refused")
        self.drawdown = self._log.drawdown = drawdown.rebase(self.drawdown, equity.on_mark_money)

    def _run(self, message: book.Message, now: int) -> EquityChanged | None:
        self.book, effects = self._steps.book_step(self.book, message, now)
        changed: EquityChanged | None = None
        for effect in effects:
            if not self.survives_effect():
                return None
            if isinstance(effect, Releasable):
                self._page.released.add(effect.token)
            elif isinstance(effect, EquityChanged):
                changed = effect
        return changed

    def _publish(self, equity: Equity, now: int) -> None:
        """Log the drawdown, then publish it: what others have seen is never lost."""
        money, on_last = equity.on_mark_money, equity.on_last_money
        if not self.survives_effect():
            return
        self._page.equity = equity
        self._page.published_ms = now
        self._page.drawdown_reading = self._page.loss_reading = None
        if money is None:
            return
        before = self.drawdown or drawdown.start(self.starting_money, 0)
        self.drawdown = self._log.drawdown = self._steps.drawdown_update(before, money, 0, now)
        mark = self.drawdown.high_water_mark_money
        second = None if on_last is None else drawdown.drawdown_ppm(mark, on_last)
        second_loss = None if on_last is None else self.starting_money - on_last
        self._page.drawdown_reading = Reading(self.drawdown.drawdown_ppm, second)
        self._page.loss_reading = Reading(self.starting_money - money, second_loss)
