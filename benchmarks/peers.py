"""What a user would take instead of the gate, doing the same work as far as each tool goes.

Every peer answers the same question: level at five nodes, leases, age of the mark, collar, stop,
order cap, then gross and net at five nodes under hard limits, all or nothing. Left out, in the
peers' favour: decision record, entry, margin, throttles, duplicate guard, generation and whatever
survives a killed holder. So a ratio to a peer understates what it would cost to do *all* of it
there.

Two peers live here: plain dicts under a thread lock, which bind one process, and shared memory
under a lock of ``multiprocessing``, which binds several until a holder of the lock is killed.
SQLite and Redis have files of their own.

Invariant of every peer: a refused order changes nothing, and no node passes its limit.
"""

import multiprocessing
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.page import MARK_TICKS
from tripgate.clock import NS_PER_S, host_ns
from tripgate.reasons import DenyReason, Level
from tripgate.units import PPM

NODES = 5
LEASES = 6
GROSS, LONG, SHORT = range(3)
SUMS = 3


MEDIUM = int(Level.MEDIUM)
"""A plain number, like all that is compared on the timed path: an enum's would cost the peer."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a peer judges by: one instrument, five nodes with equal limits.

    Attributes
    ----------
    limit_money
        Hard limit of gross and of net at each node, money units; below 2^53, because a Lua number
        is a double.
    lease_ns, age_max_ns
        How long the leases and the mark hold from the peer's making on.
    """

    limit_money: int = 2**50
    level: Level = Level.NORMAL
    lease_ns: int = 3_600 * NS_PER_S
    mark: int = MARK_TICKS
    age_max_ns: int = 3_600 * NS_PER_S
    collar_ppm: int = 20_000
    stop_distance_ppm: int = 100_000
    order_money_max: int = 2**50
    value_numerator: int = 1
    value_denominator: int = 1


class Peer(Protocol):
    """One tool holding the limits."""

    name: str
    says: str

    def check(self, lots: int, price: int, stop: int) -> int:
        """Return a positive number if the order was reserved, else −``DenyReason``."""

    def sums(self) -> list[tuple[int, int, int]]:
        """Return (gross, long, short) of each node, money units."""

    def release_all(self) -> None:
        """Give back everything that was reserved."""

    def close(self) -> None:
        """Release what the peer holds of the machine."""


def judge(terms: Terms, age_ns: int, lots: int, price: int, stop: int) -> int:
    """Judge an opening by its mark, price, stop and size; return its worth or −reason.

    The worth is rounded up (money units). Written for speed: a peer is timed with it.
    """
    if age_ns > terms.age_max_ns:
        return -DenyReason.MARK_STALE
    mark = terms.mark
    if abs(price - mark) * PPM > terms.collar_ppm * mark:
        return -DenyReason.PRICE_COLLAR
    unit = price if price > mark else mark
    if lots > 0:
        if stop >= price or stop >= mark:
            return -DenyReason.STOP_WRONG_SIDE
    elif stop <= unit:
        return -DenyReason.STOP_WRONG_SIDE
    if abs(price - stop) * PPM > terms.stop_distance_ppm * price:
        return -DenyReason.STOP_TOO_FAR
    amount = -(-abs(lots) * terms.value_numerator * unit // terms.value_denominator)
    return amount if amount <= terms.order_money_max else -DenyReason.ORDER_NOTIONAL


class DictPeer:
    """Plain dicts under a ``threading.Lock``: the limits of one process."""

    name = "peer_dicts"
    says = "dicts and threading.Lock: one process only, gone with it"

    def __init__(self, terms: Terms) -> None:
        now = host_ns()
        self._terms = terms
        self._lock = threading.Lock()
        self._nodes = [
            {"gross": 0, "long": 0, "short": 0, "gross_max": terms.limit_money,
             "net_max": terms.limit_money, "level": int(terms.level)}
            for _ in range(NODES)
        ]  # fmt: skip
        self._leases = {f"role{n}": now + terms.lease_ns for n in range(LEASES)}
        self._marked_ns = now
        self._sequence = 0

    def check(self, lots: int, price: int, stop: int) -> int:
        """See ``Peer.check``. Under a lock all nodes can be tested before the first is changed."""
        now = host_ns()
        with self._lock:
            nodes = self._nodes
            for node in nodes:
                if node["level"] >= MEDIUM:
                    return -DenyReason.LEVEL
            if min(self._leases.values()) <= now:
                return -DenyReason.LEASE_LAPSED
            amount = judge(self._terms, now - self._marked_ns, lots, price, stop)
            if amount < 0:
                return amount
            side = "long" if lots > 0 else "short"
            for node in nodes:
                if node["gross"] + amount > node["gross_max"]:
                    return -DenyReason.GROSS_LIMIT
                if node[side] + amount > node["net_max"]:
                    return -DenyReason.NET_LIMIT
            for node in nodes:
                node["gross"] += amount
                node[side] += amount
            self._sequence += 1
            return self._sequence

    def sums(self) -> list[tuple[int, int, int]]:
        """See ``Peer.sums``."""
        return [(node["gross"], node["long"], node["short"]) for node in self._nodes]

    def release_all(self) -> None:
        """See ``Peer.release_all``."""
        with self._lock:
            for node in self._nodes:
                node.update(gross=0, long=0, short=0)

    def close(self) -> None:
        """Nothing is held."""


_LIMITS_AT = NODES * SUMS
_LEVELS_AT = _LIMITS_AT + 2 * NODES
_LEASES_AT = _LEVELS_AT + NODES
_MARKED_AT = _LEASES_AT + LEASES
_SEQUENCE_AT = _MARKED_AT + 1


class ArrayPeer:
    """``multiprocessing.Array`` under its own lock: the limits of a family of processes."""

    name = "peer_shared_array"
    says = "multiprocessing.Array under its lock: a killed holder leaves it locked for ever"

    def __init__(self, terms: Terms) -> None:
        now = host_ns()
        self._terms = terms
        sums = [0] * (NODES * SUMS)
        limits = [terms.limit_money] * (2 * NODES)
        levels = [int(terms.level)] * NODES
        leases = [now + terms.lease_ns] * LEASES
        words = [*sums, *limits, *levels, *leases, now, 0]
        # Its stubs promise ctypes objects where ctypes gives plain integers.
        self._array: Any = multiprocessing.get_context("spawn").Array("q", words)

    def check(self, lots: int, price: int, stop: int) -> int:
        """See ``Peer.check``."""
        now = host_ns()
        with self._array.get_lock():
            raw = self._array.get_obj()
            words: list[int] = raw[:]
            if max(words[_LEVELS_AT:_LEASES_AT]) >= MEDIUM:
                return -DenyReason.LEVEL
            if min(words[_LEASES_AT:_MARKED_AT]) <= now:
                return -DenyReason.LEASE_LAPSED
            amount = judge(self._terms, now - words[_MARKED_AT], lots, price, stop)
            if amount < 0:
                return amount
            side = LONG if lots > 0 else SHORT
            limit = _LIMITS_AT
            for place in range(0, NODES * SUMS, SUMS):
                if words[place] + amount > words[limit]:
                    return -DenyReason.GROSS_LIMIT
                if words[place + side] + amount > words[limit + 1]:
                    return -DenyReason.NET_LIMIT
                limit += 2
            for place in range(0, NODES * SUMS, SUMS):
                raw[place] = words[place] + amount
                raw[place + side] = words[place + side] + amount
            raw[_SEQUENCE_AT] = sequence = words[_SEQUENCE_AT] + 1
            return sequence

    def sums(self) -> list[tuple[int, int, int]]:
        """See ``Peer.sums``."""
        with self._array.get_lock():
            words: list[int] = self._array.get_obj()[: NODES * SUMS]
        return [
            (words[place], words[place + LONG], words[place + SHORT])
            for place in range(0, NODES * SUMS, SUMS)
        ]

    def release_all(self) -> None:
        """See ``Peer.release_all``."""
        with self._array.get_lock():
            self._array.get_obj()[: NODES * SUMS] = [0] * (NODES * SUMS)

    def close(self) -> None:
        """The memory goes with the last reference."""
