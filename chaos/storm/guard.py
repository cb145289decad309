"""The storm's breaker: moves levels and factors up and down and claims keys for flattening.

Factors stay at or below one, so the configured limits bind whatever it does.
"""

from random import Random

from chaos.storm.ground import Ground
from tripgate.clock import sleep_s
from tripgate.gate.exits import wish_exit
from tripgate.page.level import LevelWriter, set_effective_limits, set_level
from tripgate.reasons import Level
from tripgate.units import PPM

TURN_REST_S = 0.004
LOWER, TRIP, FLATTEN = 0.6, 0.64, 0.66
"""Bounds of one uniform draw: loosen a node, trip one, flatten a key; above: move a factor."""


class Guard:
    """One breaker process."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground, self._page = ground, ground.page
        self._draw = Random(seed)
        self._tripped: list[int] = list(range(len(ground.page.names.scopes)))

    def turn(self) -> None:
        """Move one word."""
        chance = self._draw.random()
        node = self._draw.randrange(len(self._page.names.scopes))
        key = self._draw.randrange(len(self._page.names.keys))
        if chance < LOWER:
            if self._tripped:
                set_level(self._page, self._tripped.pop(), LevelWriter.BREAKER, Level.NORMAL)
        elif chance < TRIP:
            level = self._draw.choice((Level.SOFT, Level.MEDIUM, Level.HARD))
            set_level(self._page, node, LevelWriter.BREAKER, level)
            self._tripped.append(node)
        elif chance < FLATTEN:
            if self._ground.reduces_only(key) and self._ground.position(key):
                wish_exit(self._page, key, int(Level.HARD), int(self._page.header["market_ms"]))
        else:
            factor = self._draw.choice((PPM, PPM, PPM // 2, PPM // 5))
            set_effective_limits(self._page, node, factor)
        sleep_s(TURN_REST_S)
