"""One death, from the moment it was dealt until trading goes on: what is seen, and what is judged.

A ``Case`` is fed the witness's answers and the supervisor's records and knows no clock of its own.
Its judgement is about safety and bookkeeping alone (approved too late, told wrongly, not replaced);
whether a figure is good is not its business.
"""

import re
from dataclasses import dataclass, field

from chaos.deaths.fates import Fate, Noticed
from chaos.deaths.ground import VICTIM_LEASE_NS
from tripgate.audit.record import Body
from tripgate.clock import NS_PER_MS
from tripgate.reasons import DenyReason

LATE_NS = VICTIM_LEASE_NS + 20 * NS_PER_MS
"""No approval may be given later than this after the event: lease + 20 ms."""


@dataclass
class Case:
    """One victim's death.

    Attributes
    ----------
    incarnation
        The one that dies; before ready it is the successor of the one that was killed for it.
    dealt_ns
        When the driver had dealt it: a signal was sent by then.
    event_ns
        When it happened: before the signal was sent, or as the victim stamped it; 0 until known.
    denied_ns, zeroed_ns, recorded_ns, back_ns
        First denial, lease at zero, its record, first approval under a successor; 0 until then.
    approved_ns
        Last approval under the dying incarnation.
    """

    fate: Fate
    role: int
    actor: str
    incarnation: int
    pid: int
    dealt_ns: int
    event_ns: int = 0
    denied_ns: int = 0
    denial: int = 0
    zeroed_ns: int = 0
    recorded_ns: int = 0
    approved_ns: int = 0
    back_ns: int = 0
    successor: int = 0
    down: Body = field(default_factory=dict)

    def see_answer(self, before_ns: int, after_ns: int, denial: int, incarnation: int) -> None:
        """Take an answer of the witness.

        Parameters
        ----------
        before_ns, after_ns
            Around the question.
        denial
            0 for an approval, else the reason.
        incarnation
            The role's, read after the answer: what it names had not been replaced by then.
        """
        if incarnation > self.incarnation:
            # A denial is still the death's own: the successor holds no lease yet.
            if not denial and self.recorded_ns:
                self.back_ns, self.successor = after_ns, incarnation
        elif not denial:
            self.approved_ns = before_ns
        if denial and self.event_ns and not self.denied_ns:
            self.denied_ns, self.denial = after_ns, denial

    def see_lease(self, now_ns: int, deadline_ns: int) -> None:
        """Take a look at the lease."""
        if deadline_ns == 0 and self.event_ns and not self.zeroed_ns:
            self.zeroed_ns = now_ns

    def see_down(self, recorded_ns: int, body: Body) -> None:
        """Take the record of the death."""
        self.recorded_ns, self.down = recorded_ns, body

    @property
    def is_over(self) -> bool:
        """Whether the gate approves again under a successor, and the death is on record."""
        return bool(self.recorded_ns and self.back_ns)

    @property
    def is_late(self) -> bool:
        """Whether an opening was approved later than the bound after a death."""
        is_dealt = bool(self.fate.signal_number)
        since_ns = max(self.event_ns, self.dealt_ns) if is_dealt else self.event_ns
        if self.fate.noticed is Noticed.START:
            since_ns = self.dealt_ns
        return bool(since_ns) and self.approved_ns > since_ns + LATE_NS

    def faults(self) -> list[str]:
        """Return what was wrong with the way this death was handled."""
        who = f"{self.fate.name} of {self.actor}#{self.incarnation}"
        found = []
        if self.is_late:
            late_ms = (self.approved_ns - (self.event_ns or self.dealt_ns)) / NS_PER_MS
            never = ", although it never became ready" * (self.fate.noticed is Noticed.START)
            found.append(f"{who}: approved {late_ms:.1f} ms after it{never}")
        if not self.is_over:
            stage = "its successor" if self.recorded_ns else "its record"
            return [*found, f"{who}: not handled, {stage} is missing"]
        code, reason = self.down["code"], str(self.down["reason"])
        if self.fate.codes and code not in self.fate.codes:
            found.append(f"{who}: exit code {code} on record, not {self.fate.codes}")
        if not re.search(self.fate.reason, reason):
            found.append(f"{who}: reason {reason!r} on record, not {self.fate.reason!r}")
        return found

    def figures(self) -> dict[str, float]:
        """Return ms from the event to each thing that was seen."""
        seen = {
            "denied_ms": self.denied_ns, "zeroed_ms": self.zeroed_ns,
            "recorded_ms": self.recorded_ns, "back_ms": self.back_ns,
        }  # fmt: skip
        if self.fate.noticed is Noticed.START:
            # Nobody held a lease that this death could have ended.
            seen["denied_ms"] = seen["zeroed_ms"] = 0
        return {
            name: round((at_ns - self.event_ns) / NS_PER_MS, 3)
            for name, at_ns in seen.items()
            if at_ns
        }

    @property
    def denial_name(self) -> str:
        """Name of the reason of the first denial."""
        return DenyReason(self.denial).name if self.denial else ""
