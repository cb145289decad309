"""What the gate answers: a decision that says yes with a token or no with a reason and numbers."""

from dataclasses import dataclass
from decimal import Decimal

from tripgate.page.names import PageNames
from tripgate.reasons import REASON_TEXT, DenyReason, Level
from tripgate.units import MONEY_SCALE

_MONEY_REASONS = frozenset(
    {
        DenyReason.GROSS_LIMIT,
        DenyReason.NET_LIMIT,
        DenyReason.ORDER_NOTIONAL,
        DenyReason.MARGIN,
    }
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one check.

    Attributes
    ----------
    token
        The order's token, or 0 if it was denied.
    reason
        Why it was denied; None if it was not. On a shadow page an order can be approved and name
        the reason for which an enforcing page would have denied it.
    scope
        Scope name of what limited the order: a node, or ``lease:ROLE``; empty without a reason.
    limit, used, requested
        In the unit of the reason: money units (1e-4 of the reporting currency) for exposure and
        order worth, ppm for collars and stop distances, ms for ages, lots for positions.
    would_deny
        True on a shadow page where the order would have been denied.
    """

    token: int
    reason: DenyReason | None
    scope: str
    limit: int
    used: int
    requested: int
    would_deny: bool = False

    @property
    def approved(self) -> bool:
        """Whether the order may be submitted."""
        return self.token > 0

    def __bool__(self) -> bool:
        """Return ``approved``, so that ``if decision:`` reads as it should."""
        return self.approved

    def __str__(self) -> str:
        """Return one line that says what happened and, if denied, by which limit."""
        if self.reason is None:
            return f"approved, token {self.token}"
        verb = "would deny" if self.would_deny else "denied"
        text = f"{verb} {self.reason.name}: {REASON_TEXT[self.reason]} ({self.scope}"
        if self.reason in _MONEY_REASONS:
            limit, used, requested = (
                f"{Decimal(value) / MONEY_SCALE:.2f}"
                for value in (self.limit, self.used, self.requested)
            )
            return f"{text}: limit {limit}, used {used}, requested {requested})"
        if self.reason is DenyReason.LEVEL:
            return f"{text}: level {Level(self.used).name})"
        return f"{text}: limit {self.limit}, used {self.used}, requested {self.requested})"


def scope_text(names: PageNames, scope: int) -> str:
    """Return the name of a scope number: a node, or −1 − role for a lease."""
    if scope < 0:
        return f"lease:{names.roles[-1 - scope].text}"
    return names.scopes[scope]
