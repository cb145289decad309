"""The page on which producers and the audit writer meet, and what a record of theirs must hold."""

import os
from hashlib import sha256
from pathlib import Path

from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_S
from tripgate.messages import EventKind
from tripgate.page.layout import HOLDER, ROLE, ROLE_SLOTS, Capacities
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.processes import process_start_time

INSTRUMENT = InstrumentName("alpha", "BTC/USDT:USDT", "BTC", "0.1", "0.001", "1")
ROLES = (
    RoleName("supervisor", "", True),
    RoleName("audit_writer", "", True),
    RoleName("router", "alpha", True),
    RoleName("position_keeper", "", True),
    RoleName("breaker", "", True),
)
WRITER = 1
PRODUCERS = (2, 3, 4)
EPOCH = 3
DECISION_BYTES = 256
DECISION_EACH = 3
"""Every third record is a decision record of 256 bytes; the others are events of any length."""
EVENT_BYTES_MAX = 1_500
MARKET_MS = 1_700_000_000_000


def make_ground(folder: Path, state: Path) -> Page:
    """Make the page under ``folder`` for a log under ``state``."""
    scopes = ("portfolio", "venue:alpha", "asset:BTC", "strategy:trend", INSTRUMENT.scope)
    names = PageNames(
        "auditkills", "USDT", str(state), ("alpha",), ("trend",), scopes, (INSTRUMENT,), ROLES,
        ((0, 0),), {},
    )  # fmt: skip
    capacities = Capacities(
        nodes=len(scopes), instruments=1, strategies=1, keys=1, slots=ROLE_SLOTS + 1,
        roles=len(ROLES), causes=1,
    )  # fmt: skip
    page = create_page(folder, capacities, names, epoch=EPOCH, shadow=False)
    header = page.header
    header["owner_pid"], header["owner_start"] = os.getpid(), process_start_time(os.getpid())
    header["market_ms"] = MARKET_MS
    for number in range(len(ROLES)):
        row = page.rows(ROLE)[number]
        row["present"], row["lease_ns"], row["step"] = 1, NS_PER_S, -1
    page.rows(HOLDER)["mask"][:] = 1
    header["closed"], header["armed"] = 0, 1
    return page


def record_of(slot: int, sequence: int) -> tuple[int, bytes]:
    """Return kind and payload of a producer's record: known to whoever knows its number.

    A frame of which a half was visible, or two frames mixed up, would not hold this.
    """
    seed = sha256(f"{slot}/{sequence}".encode()).digest()
    if sequence % DECISION_EACH == 0:
        # It begins with the order's token, a positive number.
        token = int.from_bytes(seed[:8], "little") >> 1
        rest = (seed * 8)[8:DECISION_BYTES]
        return int(EventKind.DECISION), token.to_bytes(8, "little") + rest
    length = int.from_bytes(seed[:4], "little") % EVENT_BYTES_MAX
    filling = (seed * (length // len(seed) + 1))[:length]
    return int(EventKind.ORDER_SENT), pack_body({"sequence": sequence, "filling": filling})
