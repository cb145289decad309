"""The shape of the tree: the only place that names it.

The tree is flat: the root supervises every actor, because actors depend on each other only through
the page and the venue. Roles are numbered in the order below; the page's role table lists exactly
what this release starts, and nothing in a config can take a row away.
"""

from dataclasses import dataclass

from supervisors.child_spec import ChildSpec
from tripgate.config.structs import Config
from tripgate.page.names import RoleName

SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class ActorShape:
    """One kind of actor: its group, its lease in ms, whether openings depend on it."""

    group: str
    lease_ms: int
    critical: bool
    per_venue: bool


TREE: dict[str, ActorShape] = {
    SUPERVISOR: ActorShape("root", 500, critical=True, per_venue=False),
    "audit_writer": ActorShape("core", 1_000, critical=True, per_venue=False),
    "position_keeper": ActorShape("core", 250, critical=True, per_venue=False),
    "breaker": ActorShape("core", 250, critical=True, per_venue=False),
    "market_feed": ActorShape("venue", 250, critical=True, per_venue=True),
    "router": ActorShape("venue", 500, critical=True, per_venue=True),
}
"""Actors of this release with the leases of OPERATIONS section 4."""


def roles_of(config: Config) -> tuple[RoleName, ...]:
    """Return the roles of a run, in role order."""
    roles: list[RoleName] = []
    for actor, shape in TREE.items():
        venues = tuple(config.venues) if shape.per_venue else ("",)
        roles.extend(RoleName(actor, venue, shape.critical) for venue in venues)
    return tuple(roles)


def children_of(roles: tuple[RoleName, ...]) -> tuple[ChildSpec, ...]:
    """Return the specs of every actor that the root starts, in start order."""
    return tuple(
        ChildSpec(role.text, role.actor, role.venue) for role in roles if role.actor != SUPERVISOR
    )
