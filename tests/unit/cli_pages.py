"""An instance without a tree, for tests of the commands that look at a page or write to it.

The page and the state folder are real and lie where the commands look for them; what no actor is
there to write (leases, equity, causes) is written here.
"""

import os
from pathlib import Path

from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.cause_rows import store_causes
from tripgate.instance import page_folder, prepare_state
from tripgate.machines.breaker_types import CauseKey, CauseState
from tripgate.page.layout import ACCOUNT, LEASE, LIMIT, ROLE, Capacities
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page, create_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.processes import process_start_time
from tripgate.reasons import Level
from tripgate.units import INT_MAX, PPM, money

SCOPES = (
    "portfolio", "venue:sim", "asset:BTC", "strategy:trend", "instrument:sim/BTC/USDT:USDT",
)  # fmt: skip
BREAKER = 1
FEED = 2


def make_instance(name: str = "paper-1", *, alive: bool = True, epoch: int = 1) -> Page:
    """Make an instance whose root is this process (or a dead one) and return its page."""
    state = prepare_state(name)
    names = PageNames(
        name, "USDT", str(state), ("sim",), ("trend",), SCOPES,
        (InstrumentName("sim", "BTC/USDT:USDT", "BTC", "0.1", "0.001", "1"),),
        (
            RoleName("supervisor", "", critical=True),
            RoleName("breaker", "", critical=True),
            RoleName("market_feed", "sim", critical=True),
        ),
        ((0, 0),), {},
    )  # fmt: skip
    capacities = Capacities(nodes=len(SCOPES), instruments=1, strategies=1, keys=1)
    page = create_page(page_folder(name), capacities, names, epoch=epoch, shadow=False)
    header = page.header
    header["owner_pid"] = os.getpid()
    header["owner_start"] = process_start_time(os.getpid()) if alive else 1
    header["armed"], header["closed"] = 1, 0
    header["market_ms"], header["step"] = 1_621_400_000_000, 7
    limits = page.rows(LIMIT)
    limits["gross_max"] = limits["gross_configured"] = money(1000)
    limits["net_max"] = limits["net_configured"] = INT_MAX
    limits["factor_ppm"] = PPM
    limits["margin_max"] = INT_MAX
    roles = page.rows(ROLE)
    for number in range(len(names.roles)):
        roles["present"][number], roles["lease_ns"][number] = 1, 3600 * NS_PER_S
    page.rows(LEASE)["deadline_ns"] = host_ns() + 3600 * NS_PER_S
    account = page.rows(ACCOUNT)[0]
    account["known"], account["starting"] = 1, money(1000)
    account["equity_mark"], account["high_water_mark"] = money(800), money(1000)
    account["drawdown_ppm"] = account["drawdown_max_ppm"] = 200_000
    return page


def hold(page: Page, causes: dict[CauseKey, CauseState]) -> None:
    """Put causes into the page, and the breaker's byte of each scope at what they call for."""
    store_causes(page, causes)
    for scope in {key.scope for key in causes}:
        level = max(state.contribution for key, state in causes.items() if key.scope == scope)
        set_level(page, scope, LevelWriter.BREAKER, Level(level))


def mode_of(path: Path) -> int:
    """Return a file's permission bits."""
    return path.stat().st_mode & 0o777
