"""Whether the log can be vouched for: when the audit lease may be renewed, and when to try again.

The writer proves the disk by writing to it: every commit, probe and checkpoint that succeeds is a
proof as old as its *beginning*, so that a disk that hangs lapses the lease as surely as one that
refuses. After a failure the next attempt waits, longer each time; the waiting starts over only
after a calm minute, because each failure of a file that holds rows costs one of the month's names.

The rules are OPERATIONS section 4, row audit_writer. Pure: no clock, no file.

Invariants: L1 no renewal while the last write failed; L2 none on a proof older than the lease; L3
none while the oldest record of a tree process has waited longer than ``UNDRAINED_NS``.
"""

from dataclasses import dataclass, replace

from tripgate.clock import NS_PER_MS, NS_PER_S

PROBE_NS = NS_PER_S // 5
"""An idle writer proves the disk writable this often: a lease is not renewed on hope."""
UNDRAINED_NS = 500 * NS_PER_MS
"""Age of a tree process's oldest record not in the log yet, beyond which openings stop."""
RETRY_MIN_NS = NS_PER_S // 10
RETRY_MAX_NS = 10 * NS_PER_S
CALM_NS = 60 * NS_PER_S


@dataclass(frozen=True, slots=True)
class LogHealth:
    """What the writer knows of its disk, ns of host time.

    Attributes
    ----------
    proved_ns
        When the last write that succeeded began; 0 before the first.
    failed_ns, reason
        When the present outage began and what its first failure was; None and "" while all is well.
    retry_ns
        When the next attempt is due in an outage.
    attempts
        Failures since the last calm minute.
    recovered_ns
        When the last outage ended.
    """

    proved_ns: int = 0
    failed_ns: int | None = None
    reason: str = ""
    retry_ns: int = 0
    attempts: int = 0
    recovered_ns: int = 0


def proved(health: LogHealth, began_ns: int, now_ns: int) -> LogHealth:
    """Return the health after a write that began at ``began_ns`` has succeeded."""
    if health.failed_ns is not None:
        return replace(health, proved_ns=began_ns, failed_ns=None, reason="", recovered_ns=now_ns)
    calm = health.attempts and now_ns - health.recovered_ns >= CALM_NS
    return replace(health, proved_ns=began_ns, attempts=0 if calm else health.attempts)


def failed(health: LogHealth, reason: str, now_ns: int) -> LogHealth:
    """Return the health after a write has failed, with the next attempt set."""
    wait_ns = min(RETRY_MAX_NS, RETRY_MIN_NS << min(health.attempts, 16))
    return replace(
        health, failed_ns=now_ns if health.failed_ns is None else health.failed_ns,
        reason=health.reason or reason, retry_ns=now_ns + wait_ns, attempts=health.attempts + 1,
    )  # fmt: skip


def needs_proof(health: LogHealth, now_ns: int) -> bool:
    """Return whether the disk is to be probed now because nothing else was written lately."""
    return now_ns - health.proved_ns >= PROBE_NS


def why_not_vouch(
    health: LogHealth, oldest_ns: int | None, lease_ns: int, now_ns: int
) -> str | None:
    """Return why the lease may not be renewed, or None.

    Parameters
    ----------
    oldest_ns
        When the oldest record of a tree process that is not in the log was made; None: there is
        none. Strategies' records do not count: a strategy must not be able to stop the others.
    lease_ns
        Length of the lease.
    """
    if health.failed_ns is not None:
        return health.reason
    if now_ns - health.proved_ns >= lease_ns:
        return "the disk does not answer"
    if oldest_ns is not None and now_ns - oldest_ns > UNDRAINED_NS:
        return "records wait too long to be stored"
    return None
