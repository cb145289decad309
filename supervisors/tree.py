"""The shape of the tree: the only place that names it.

The tree is flat: the root supervises every actor, because actors depend on each other only through
the page and the venue. Supervision is by group, one task in the root for each: ``core``, one for
every venue, ``strategies``; ``risk`` and ``view`` are the names of groups whose actors this release
does not have. Roles are numbered in the order below; the page's role table lists exactly what this
release starts, and nothing in a config can take a row away.
"""

from dataclasses import dataclass

from supervisors.child_spec import ChildSpec, GroupSpec, RestartRule
from tripgate.config.structs import Config
from tripgate.page.names import PageNames, RoleName

SUPERVISOR = "supervisor"
CORE, RISK, VENUE, VIEW, STRATEGIES = "core", "risk", "venue", "view", "strategies"
STRATEGY_END_WAIT_S = 3.0
"""How long a strategy may take to end of itself when the run does, and again after SIGTERM."""


@dataclass(frozen=True)
class ActorShape:
    """One kind of actor.

    Attributes
    ----------
    group
        Its group; ``venue`` stands for one group per venue.
    lease_ms, critical
        Its lease, and whether openings depend on it.
    exit_path
        Positions cannot be closed, or closings not recorded, without it.
    ends_before_earlier
        Those of its group that stand above it are asked to end only once it has.
    """

    group: str
    lease_ms: int
    critical: bool
    per_venue: bool
    exit_path: bool = False
    ends_before_earlier: bool = False


TREE: dict[str, ActorShape] = {
    SUPERVISOR: ActorShape("root", 500, critical=True, per_venue=False),
    # Last of all to end: what the others record on their way out must be written.
    "audit_writer": ActorShape(CORE, 1_000, critical=True, per_venue=False, exit_path=True),
    "position_keeper": ActorShape(
        CORE, 250, critical=True, per_venue=False, ends_before_earlier=True
    ),
    "breaker": ActorShape(CORE, 250, critical=True, per_venue=False),
    "market_feed": ActorShape(VENUE, 250, critical=True, per_venue=True),
    "router": ActorShape(VENUE, 500, critical=True, per_venue=True, exit_path=True),
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
        ChildSpec(
            role.text, role.actor, role.venue, exit_path=TREE[role.actor].exit_path,
            ends_before_earlier=TREE[role.actor].ends_before_earlier,
        )
        for role in roles
        if role.actor != SUPERVISOR
    )  # fmt: skip


def groups_of(roles: tuple[RoleName, ...]) -> tuple[GroupSpec, ...]:
    """Return the groups of actors that the root starts: core first, then one per venue.

    All are one_for_one: an actor that died is rebuilt from page, log and venue, and nobody else
    holds anything that its death made wrong.
    """
    members: dict[str, list[ChildSpec]] = {}
    for spec in children_of(roles):
        group = TREE[spec.actor].group
        members.setdefault(venue_group(spec.venue) if group == VENUE else group, []).append(spec)
    return tuple(GroupSpec(name, tuple(specs)) for name, specs in members.items())


def venue_group(venue: str) -> str:
    """Return the name of a venue's group."""
    return f"{VENUE}:{venue}"


def strategies_group(names: PageNames) -> GroupSpec:
    """Return the group of strategy processes: restarted after a failure, given up if too many."""
    specs = tuple(
        ChildSpec(
            name, "strategy", restart=RestartRule.TRANSIENT, scope=f"strategy:{name}",
            grace_s=2 * STRATEGY_END_WAIT_S, gives_up=True,
        )
        for name in names.strategies
    )  # fmt: skip
    return GroupSpec(STRATEGIES, specs)
