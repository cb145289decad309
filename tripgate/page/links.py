"""Rows of the LINK table: which link is which row, how it fares, and its fault switch.

Role r's control link has two rows: 2r is what the child says to the root, 2r + 1 what the root says
to it. After all roles' rows there is one per ring consumer. A row's first line is written by the
direction's sender, its last three by its receiver, its fault words by whoever injects a fault:
nobody ever shares a word. Rows outlive incarnations: they count since the page was made.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.clock import NS_PER_MS
from tripgate.errors import UsageError
from tripgate.messages import LinkFault, LinkVerdict
from tripgate.page.layout import LINK
from tripgate.page.mapping import Page

ROOT = "supervisor"
CONSUMERS = {"audit": "audit_writer", "keeper": "position_keeper", "breaker": "breaker"}
ARGUMENT_MAX = 1_000_000
COUNTERS = {verdict: verdict.name.lower() for verdict in LinkVerdict}
COUNTERS[LinkVerdict.FRESH] = "received"
"""The word that counts each verdict."""


def to_root(role: int) -> int:
    """Return the row of what a role's actor says to the root."""
    return 2 * role


def from_root(role: int) -> int:
    """Return the row of what the root says to a role's actor."""
    return 2 * role + 1


def ring_row(page: Page, consumer: str) -> int:
    """Return the row of what a consumer reads from the rings."""
    return 2 * page.layout.capacities.roles + list(CONSUMERS).index(consumer)


def link_names(page: Page) -> dict[int, str]:
    """Return the name of every row that a link of this instance may use, by row."""
    names = {}
    for role, name in enumerate(page.names.roles):
        if name.actor != ROOT:
            names[to_root(role)] = f"{name.text}>{ROOT}"
            names[from_root(role)] = f"{ROOT}>{name.text}"
    for consumer, actor in CONSUMERS.items():
        names[ring_row(page, consumer)] = f"rings>{actor}"
    return {row: name for row, name in names.items() if row < page.layout.capacities.links}


def set_fault(page: Page, link: str, fault: LinkFault, argument: int = 0) -> None:
    """Set or lift (``LinkFault.NONE``) the fault of one direction of a control link.

    Links only tell: no fault of theirs can loosen anything or stop an order.

    Raises
    ------
    UsageError
        No link has that name, or the argument is out of range.
    """
    switched = {n: row for row, n in link_names(page).items() if ROOT in n.split(">")}
    if link not in switched:
        raise UsageError(f"no link is called {link!r} (there are: {', '.join(sorted(switched))})")
    if not 0 <= argument <= ARGUMENT_MAX:
        raise UsageError(f"a fault's argument is 0 to {ARGUMENT_MAX}, was {argument}")
    row = page.rows(LINK)[switched[link]]
    # The argument first: a fault must not act for a moment with that of the one before.
    row["argument"] = argument
    row["fault"] = int(fault)


def fault_of(row: Any) -> tuple[LinkFault, int]:
    """Return the fault and argument of a row; words that mean nothing are no fault."""
    word = int(row["fault"])
    if word not in LinkFault.__members__.values():
        return LinkFault.NONE, 0
    return LinkFault(word), min(max(0, int(row["argument"])), ARGUMENT_MAX)


@dataclass(frozen=True)
class LinkState:
    """One direction of a link as an onlooker sees it.

    Attributes
    ----------
    heard_ms
        Host time since the last fresh message; None if there was none.
    rejected
        Messages refused, by verdict; verdicts that did not occur are left out.
    overflowed, dropped
        Messages replaced by newer ones before they were sent, and before they were looked at.
    """

    name: str
    heard_ms: float | None
    silent: bool
    silences: int
    sent: int
    received: int
    rejected: dict[str, int]
    overflowed: int
    dropped: int
    age_max_ms: float
    fault: str
    argument: int


def link_states(page: Page, now_ns: int) -> list[LinkState]:
    """Return every link that was ever used, in row order."""
    return [
        _state(name, page.rows(LINK)[number], now_ns)
        for number, name in sorted(link_names(page).items())
        if page.rows(LINK)[number]["sent"] or page.rows(LINK)[number]["received"]
    ]


def _state(name: str, row: Any, now_ns: int) -> LinkState:
    fault, argument = fault_of(row)
    heard_ns = int(row["heard_ns"])
    rejected = {v.name: int(row[word]) for v, word in COUNTERS.items() if v and row[word]}
    return LinkState(
        name, (now_ns - heard_ns) / NS_PER_MS if heard_ns else None, bool(row["silent"]),
        int(row["silences"]), int(row["sent"]), int(row["received"]), rejected,
        int(row["overflowed"]), int(row["dropped"]), int(row["age_max_ns"]) / NS_PER_MS,
        fault.name, argument,
    )  # fmt: skip
