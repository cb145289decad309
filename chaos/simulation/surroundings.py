"""What outlives a killed process in a run: the page, the log, and the steps that are run.

``Steps`` is how a mutant is planted: the simulation calls whatever functions stand there, and the
mutant table puts a broken one in.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from models import drawdown
from models.drawdown import Drawdown
from tripgate.machines import book, breaker
from tripgate.machines.book import Book, Equity, Fill, Terminal
from tripgate.machines.breaker import Breaker, CauseKey, CauseState, Reading
from tripgate.reasons import Level
from tripgate.units import PPM


@dataclass(frozen=True, slots=True)
class Steps:
    """The code under test."""

    book_step: Callable[[Book, book.Message, int], tuple[Book, tuple[book.Effect, ...]]] = book.step
    breaker_step: Callable[
        [Breaker, breaker.Message, int], tuple[Breaker, tuple[breaker.Effect, ...]]
    ] = breaker.step
    drawdown_update: Callable[[Drawdown, int, int, int], Drawdown] = drawdown.update


@dataclass(slots=True)
class Page:
    """Shared memory: what processes publish for each other. It survives each of them.

    ``flatten`` and ``cancel_entries`` are wishes that the router carries out until observed done.
    """

    level: Level = Level.NORMAL
    factor_ppm: int = PPM
    cancel_entries: bool = False
    flatten: bool = False
    stopped: bool = False
    drawdown_reading: Reading | None = None
    loss_reading: Reading | None = None
    equity: Equity | None = None
    published_ms: int = 0
    released: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Log:
    """Durable records. ``events`` are the router's, in the venue's order, and lose nothing."""

    events: list[Fill | Terminal] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    checkpoint_at: int = 0
    checkpoint: book.Restore | None = None
    drawdown: Drawdown | None = None
    causes: Mapping[CauseKey, CauseState] = field(default_factory=dict)

    def append(self, events: Iterable[Fill | Terminal]) -> None:
        """Make what the router received durable; ``fills`` indexes the fills among it."""
        for event in events:
            self.events.append(event)
            if isinstance(event, Fill):
                self.fills.append(event)


class SimulatedProcess:
    """A process that can be killed between any two of its effects.

    Attributes
    ----------
    restarts
        How often it has been started again.
    down_until_ms
        Time before which its supervisor does not start it again.
    """

    def __init__(self) -> None:
        self.is_alive = True
        self.restarts = 0
        self.down_until_ms = 0
        self._effects_left: int | None = None

    def die(self, after_effects: int) -> None:
        """Die once ``after_effects`` more effects have been carried out; 0 is at once."""
        if not self.is_alive:
            return
        self._effects_left = after_effects
        if after_effects == 0:
            self.is_alive = False

    def spare(self) -> None:
        """Call off a death that has not come yet."""
        if self.is_alive:
            self._effects_left = None

    def survives_effect(self) -> bool:
        """Count one effect that is about to be carried out; return whether it still is."""
        if self._effects_left is not None:
            if self._effects_left == 0:
                self.is_alive = False
            else:
                self._effects_left -= 1
        return self.is_alive

    def revive(self) -> None:
        """Start the next incarnation; its memory must be rebuilt by the caller."""
        self.is_alive = True
        self.restarts += 1
        self._effects_left = None
