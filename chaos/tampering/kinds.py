"""What a kind of tampering is, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from random import Random

from chaos.tampering.ground import Log, Originals


@unique
class Demand(Enum):
    """What a verdict on the tampered log must be."""

    FOUND = "found"
    FOUND_OR_HARMLESS = "found or harmless"
    """Harmless: every row is, byte for byte, what was written."""
    FOUND_OR_YOUNG = "found, or outside"
    """Rows younger than the last checkpoint may be lost unseen: then a head elsewhere shows it."""
    OUTSIDE = "outside"
    """Log and heads were changed together: only a head kept elsewhere shows it, and it must."""
    HARMLESS = "harmless"
    """Nothing was changed, and no alarm may be raised."""


@dataclass(frozen=True)
class Scene:
    """A copy to tamper with, and where things may be taken from."""

    log: Log
    originals: Originals
    draw: Random


Act = Callable[[Scene], None]


@dataclass(frozen=True)
class Kind:
    """One way of tampering.

    Attributes
    ----------
    is_hot
        It needs a log that was copied while it was written.
    """

    name: str
    demand: Demand
    act: Act
    is_hot: bool = False
