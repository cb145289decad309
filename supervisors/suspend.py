"""Noticing that the host slept: marks, leases and windows of before are no ground to trade on.

CLOCK_BOOTTIME counts a suspend and CLOCK_MONOTONIC does not, so their difference moves exactly when
the host slept. Everything that runs on host time would otherwise believe that no time has passed.
"""

from tripgate.clock import NS_PER_S

SLEPT_NS = NS_PER_S
"""A difference that moves by less is the two clocks being read one after the other."""


class SuspendDetector:
    """Compares the two clocks; make it with their present difference."""

    def __init__(self, host_ns: int, boot_ns: int) -> None:
        self._offset_ns = boot_ns - host_ns

    def slept_ns(self, host_ns: int, boot_ns: int) -> int:
        """Return how long the host has slept since the last look, ns; 0 if it has not."""
        slept_ns = boot_ns - host_ns - self._offset_ns
        if slept_ns < SLEPT_NS:
            return 0
        self._offset_ns += slept_ns
        return slept_ns
