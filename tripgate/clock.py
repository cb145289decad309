"""The only reader of clocks.

Host time is CLOCK_MONOTONIC in nanoseconds: leases, deadlines, supervision, sockets. Market time
is milliseconds since 1970 as the venue stamps it and comes from the page, never from here. UTC is
read only to stamp audit rows. Everything else takes ``now`` as an argument, which is what lets the
same code run under the deterministic simulator.
"""

import time

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
MS_PER_S = 1_000


def host_ns() -> int:
    """Return host time, ns (CLOCK_MONOTONIC; comparable between processes of one boot)."""
    return time.monotonic_ns()


def boot_ns() -> int:
    """Return ns since boot *including* suspend: it parts from host time when the host slept."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def utc_ns() -> int:
    """Return wall-clock UTC, ns since 1970. For records and file names, never for decisions."""
    return time.time_ns()


def utc_ms() -> int:
    """Return wall-clock UTC, ms since 1970."""
    return time.time_ns() // NS_PER_MS


def coarse_resolution_ns() -> int:
    """Return the step of CLOCK_MONOTONIC_COARSE, ns: the gate subtracts it from every lease."""
    return int(time.clock_getres(6) * NS_PER_S)


def sleep_s(duration_s: float) -> None:
    """Block this thread for ``duration_s`` seconds (never inside an actor's loop)."""
    time.sleep(duration_s)
