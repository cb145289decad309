"""A venue's request budget: a token bucket in market time that keeps a share for getting out.

A venue counts requests, and a loop of entries that uses the count up would leave none for the
exit that must follow. So entries may use the bucket only down to a share that cancels, flattens,
stops and exits alone may go below. Requests are counted in thousandths, which makes a refill at a
whole number of requests per second exact for every millisecond.

Invariants
----------
Q1  Within any span of market time no more than burst + rate × span requests are granted.
Q2  An entry never leaves fewer than the kept share in the bucket.
Q3  Market time that stands or goes back refills nothing.
"""

from dataclasses import dataclass

from tripgate.errors import InvariantBroken
from tripgate.units import PPM

KEPT_PPM = 250_000
"""Share of the burst that only cancels, flattens, stops and exits may use."""
THOUSANDTHS = 1_000
REQUESTS_MAX = 1_000_000
"""Highest rate and burst that make sense; it keeps the arithmetic small."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a venue allows: requests per second of market time, and how many at once."""

    requests_per_second: int
    burst_requests: int
    kept_ppm: int = KEPT_PPM

    def __post_init__(self) -> None:
        for name, value in (("rate", self.requests_per_second), ("burst", self.burst_requests)):
            if not 1 <= value <= REQUESTS_MAX:
                raise InvariantBroken(f"a {name} of {value} requests is out of range")
        if not 0 <= self.kept_ppm < PPM:
            raise InvariantBroken(f"a kept share of {self.kept_ppm} ppm leaves entries nothing")

    @property
    def kept(self) -> int:
        """Return what entries must leave, in thousandths of a request."""
        return self.burst_requests * THOUSANDTHS * self.kept_ppm // PPM


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left, in thousandths of a request, and the market time up to which it is counted."""

    left: int
    market_ms: int


def full(budget: Budget, market_ms: int) -> Bucket:
    """Return a full bucket."""
    return Bucket(budget.burst_requests * THOUSANDTHS, market_ms)


def refilled(budget: Budget, bucket: Bucket, market_ms: int) -> Bucket:
    """Return the bucket at a market time, ms."""
    passed_ms = market_ms - bucket.market_ms
    if passed_ms <= 0:
        return bucket
    most = budget.burst_requests * THOUSANDTHS
    return Bucket(min(most, bucket.left + passed_ms * budget.requests_per_second), market_ms)


def may_take(budget: Budget, bucket: Bucket, market_ms: int, *, is_exit: bool) -> bool:
    """Whether one request may leave now; ``is_exit`` is what the kept share is kept for."""
    least = 0 if is_exit else budget.kept
    return refilled(budget, bucket, market_ms).left - THOUSANDTHS >= least


def take(budget: Budget, bucket: Bucket, market_ms: int) -> Bucket:
    """Return the bucket after one request. Raises ``InvariantBroken`` if it holds none."""
    before = refilled(budget, bucket, market_ms)
    if before.left < THOUSANDTHS:
        raise InvariantBroken("a request was taken from an empty budget")
    return Bucket(before.left - THOUSANDTHS, before.market_ms)
