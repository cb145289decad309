"""Leases: permission to add risk that runs out by itself.

A lease is one word, the host time until which its holder vouches for its duty. Only the holder
renews it, and only from its own work loop after a useful step: a heartbeat beside the loop would
stay alive while the loop hangs. A successor starts only after its predecessor's exit was seen, so
the word has one writer and plain stores are enough. The supervisor may zero it.

Gate effect of a lapse: OPERATIONS.md section 4; openings of the role's scope are denied.
"""

from dataclasses import dataclass

from tripgate.page.layout import LEASE, ROLE
from tripgate.page.mapping import Page

RENEW_FRACTION = 5
"""A holder renews this many times per lease, so that one late turn does not lapse it."""


class LeaseHolder:
    """The renewing side of one role's lease."""

    def __init__(self, page: Page, role: int) -> None:
        self._deadline = page.rows(LEASE)["deadline_ns"]
        self._row = page.rows(ROLE)[role]
        self._role = role
        self.lease_ns = int(self._row["lease_ns"])
        self.interval_s = self.lease_ns / RENEW_FRACTION / 1e9

    def renew(self, now_ns: int) -> None:
        """Extend the lease from ``now_ns``: call it only after a useful step on fresh data."""
        self._row["stale"] = 0
        self._deadline[self._role] = now_ns + self.lease_ns
        self._row["renewals"] += 1

    def give_up_stale(self) -> None:
        """Zero the own lease at once because the input is too old in market time."""
        self._row["stale"] = 1
        self._deadline[self._role] = 0


def zero_lease(page: Page, role: int) -> None:
    """Zero a role's lease: its process is dead (supervisor only)."""
    page.rows(LEASE)["deadline_ns"][role] = 0


@dataclass(frozen=True)
class LeaseState:
    """One role's lease as an onlooker sees it; ``left_ms`` is negative once lapsed."""

    role: str
    critical: bool
    left_ms: float
    stale: bool
    pid: int
    incarnation: int
    restarts: int

    @property
    def live(self) -> bool:
        """Whether the lease holds."""
        return self.left_ms > 0


def lease_states(page: Page, now_ns: int) -> list[LeaseState]:
    """Return every present role's lease, in role order."""
    deadlines, roles = page.rows(LEASE)["deadline_ns"], page.rows(ROLE)
    states = []
    for number, name in enumerate(page.names.roles):
        row = roles[number]
        if not row["present"]:
            continue
        deadline = int(deadlines[number])
        left_ms = (deadline - now_ns) / 1e6 if deadline else -1.0
        states.append(
            LeaseState(
                name.text,
                name.critical,
                left_ms,
                bool(row["stale"]),
                int(row["pid"]),
                int(row["incarnation"]),
                int(row["restarts"]),
            )
        )
    return states
