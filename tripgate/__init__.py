"""tripgate: a fail-safe risk engine for crypto trading.

What a strategy process imports: ask the gate before every order.

    from tripgate import Gate
"""

from typing import TYPE_CHECKING, Any

from tripgate.reasons import DenyReason, Level, Side

if TYPE_CHECKING:
    from tripgate.gate.client import Gate
    from tripgate.gate.decision import Decision

__all__ = ["Decision", "DenyReason", "Gate", "Level", "Side", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the client on first use: commands that only look must start without numba."""
    if name == "Gate":
        from tripgate.gate.client import Gate

        return Gate
    if name == "Decision":
        from tripgate.gate.decision import Decision

        return Decision
    raise AttributeError(f"module 'tripgate' has no attribute {name!r}")
