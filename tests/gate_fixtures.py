"""One small real page for tests of the page and the gate, and the hands that act on it.

The page is made by the product's own ``create_page`` with small tables, and its words are written
the way the root writes them before arming. Two venues, three instruments and two strategies are
the least that tells every scope from every other.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tripgate.clock import NS_PER_S, coarse_resolution_ns, host_ns
from tripgate.gate.decision import Decision
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.record import DecisionRecord, unpack_record
from tripgate.gate.settle import Settlement
from tripgate.gate.slots import claim_strategy_slot, take_role_slot
from tripgate.gate.words import STATE_MASK
from tripgate.messages import EventKind
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import (
    CLAIM,
    CURSOR,
    ENTRY,
    HOLDER,
    INSTRUMENT,
    KEY,
    LEASE,
    LIMIT,
    RATE,
    ROLE,
    ROLE_SLOTS,
    SLOT,
    STRATEGY,
    SUM,
    THROTTLE,
    WATERMARK,
    Capacities,
)
from tripgate.page.mapping import Page, create_page, open_page
from tripgate.page.names import InstrumentName, PageNames, RoleName
from tripgate.page.ring import RingReader
from tripgate.processes import process_start_time
from tripgate.units import LOTS_MAX, PPM, notional_money

MARKET_MS = 1_700_000_000_000
AGE_MAX_MS = 2_000
COLLAR_PPM = 10_000
EXIT_COLLAR_PPM = 20_000
RESTING_MAX = 4
STOP_DISTANCE_PPM = 100_000
ORDER_MONEY_MAX = 10**12
WIDE = 10**14
RATE_MAX = 10_000
HAMMER_BATCH, HAMMER_BATCHES_MAX = 100, 100_000

BREAKER, KEEPER, ALPHA_ROUTER, BETA_ROUTER, DASHBOARD = range(5)
TREND, HEDGE = 0, 1
BTC, ETH, BETA_BTC = 0, 1, 2
INSTRUMENTS = (
    InstrumentName("alpha", "BTC/USDT:USDT", "BTC", "0.1", "0.001", "1"),
    InstrumentName("alpha", "ETH/USDT:USDT", "ETH", "0.001", "0.01", "1"),
    InstrumentName("beta", "BTC/USDT:USDT", "BTC", "0.5", "0.001", "1"),
)
"""One lot at one tick is worth 1, 1/10 and 5 money units: whole, broken and more than one."""
MARKS = (600_000, 3_000_000, 120_000)
ROLES = (
    RoleName("breaker", "", True),
    RoleName("position_keeper", "", True),
    RoleName("router", "alpha", True),
    RoleName("router", "beta", True),
    RoleName("dashboard", "", False),
)
STRATEGIES = ("trend", "hedge")
SCOPES = (
    "portfolio", "venue:alpha", "venue:beta", "asset:BTC", "asset:ETH", "strategy:trend",
    "strategy:hedge", *(name.scope for name in INSTRUMENTS),
)  # fmt: skip
BTC_SCOPE = INSTRUMENTS[BTC].scope
WISH = ("exit_claim", "exit_lots", "exit_ms", "exit_count", "exit_first_ms")
SHARED = (SUM, CLAIM)
"""Tables of which a denial may not change one word; of THROTTLE it may charge the attempts."""


def make_names(sockets: Mapping[str, str] | None = None) -> PageNames:
    """Return the names of the test instance."""
    keys = tuple((s, i) for s in range(len(STRATEGIES)) for i in range(len(INSTRUMENTS)))
    return PageNames(
        "test", "USDT", "/nowhere", ("alpha", "beta"), STRATEGIES, SCOPES, INSTRUMENTS, ROLES,
        keys, dict(sockets or {}),
    )  # fmt: skip


@dataclass
class Bench:
    """A page with a keeper's hand on it; strategies attach by ``handle``."""

    page: Page
    settlement: Settlement
    slots: dict[int, int] = field(default_factory=dict)

    def handle(self, instrument: int = BTC, strategy: int = TREND) -> InstrumentHandle:
        """Return a strategy's handle; its slot is claimed on first use."""
        if strategy not in self.slots:
            self.slots[strategy] = claim_strategy_slot(self.page, strategy)
        return InstrumentHandle(self.page, self.slots[strategy], self.key(instrument, strategy))

    def key(self, instrument: int = BTC, strategy: int = TREND) -> int:
        """Return the closable key of a pair."""
        return self.page.names.keys.index((strategy, instrument))

    def limit(self, scope: str, *, gross: int | None = None, net: int | None = None) -> None:
        """Write a node's configured and effective limits, money units."""
        row = self.page.rows(LIMIT)[self.page.names.scope(scope)]
        for name, value in (("gross", gross), ("net", net)):
            if value is not None:
                row[f"{name}_configured"] = row[f"{name}_max"] = value

    def mark(self, instrument: int, ticks: int, market_ms: int = MARKET_MS) -> None:
        """Publish a mark."""
        quote = Quote(ticks, ticks, ticks, ticks, market_ms, 1, 0)
        write_quote(self.page, instrument, quote, host_ns())

    def worth(self, instrument: int, lots: int) -> int:
        """Return the signed worth of a position at the standing mark, money units."""
        value = INSTRUMENTS[instrument].units.value_fraction()
        amount = notional_money(lots, int(MARKS[instrument]), value)
        return amount if lots > 0 else -amount

    def hold(self, lots: int, instrument: int = BTC, strategy: int = TREND) -> None:
        """Give a strategy a position, the way a fill of an unknown order would."""
        key = self.key(instrument, strategy)
        self.settlement.fill(key, None, lots, self.worth(instrument, self.position(key) + lots))

    def position(self, key: int) -> int:
        """Return a key's signed lots."""
        return int(self.page.rows(KEY)["closable"][key]) >> 32

    def shared_words(self) -> tuple[bytes, ...]:
        """Return everything a denial must leave alone, with the states and charges of entries.

        A close that merges raises its key's wish; only that may differ.
        """
        entries = self.page.rows(ENTRY)
        states = (entries["word"] & STATE_MASK).tobytes()
        charges = (entries["charged"] * (entries["word"] & STATE_MASK != 0)).tobytes()
        rate = self.page.rows(THROTTLE)["window"].tobytes()
        keys = self.page.rows(KEY).copy()
        for name in WISH:
            keys[name] = 0
        sums = (self.page.rows(table).tobytes() for table in SHARED)
        return (*sums, keys.tobytes(), rate, states, charges)

    def records(self, slot: int) -> list[DecisionRecord]:
        """Return the decision records that stand in a slot's ring, oldest first."""
        frames = RingReader(self.page, "audit").read(slot)
        return [unpack_record(f.payload) for f in frames if f.kind == EventKind.DECISION]

    def make_durable(self) -> None:
        """Do what audit_writer does: mark every record durable, then give ring space back."""
        reader = RingReader(self.page, "audit")
        slots = self.page.rows(SLOT)
        for slot in range(len(slots)):
            if reader.backlog(slot):
                self.page.rows(WATERMARK)["sequence"][slot] = slots["record_sequence"][slot]
                reader.skip_to_head(slot)

    def sums(self) -> dict[str, tuple[int, int, int]]:
        """Return (gross, long, short) by scope."""
        rows = self.page.rows(SUM)
        return {
            scope: (int(row["gross"]), int(row["long_worst"]), int(row["short_worst"]))
            for scope, row in zip(SCOPES, rows, strict=True)
        }


def make_bench(
    folder: Path, *, sockets: Mapping[str, str] | None = None, slots: int = 20, epoch: int = 7
) -> Bench:
    """Make a page under ``folder``, armed, every lease an hour long, every limit wide."""
    names = make_names(sockets)
    capacities = Capacities(
        nodes=len(SCOPES), instruments=len(INSTRUMENTS), strategies=len(STRATEGIES),
        keys=len(names.keys), slots=slots, roles=len(ROLES), causes=4,
    )  # fmt: skip
    page = create_page(folder, capacities, names, epoch=epoch, shadow=False)
    header = page.header
    header["owner_pid"], header["owner_start"] = os.getpid(), process_start_time(os.getpid())
    header["market_ms"] = header["starting_ms"] = MARKET_MS
    header["limits_version"], header["step"], header["age_floor_ms"] = 1, 1, 0
    header["coarse_resolution_ns"] = coarse_resolution_ns()
    _write_roles(page)
    _write_instruments(page)
    _write_keys(page)
    take_role_slot(page, KEEPER, 1)
    bench = Bench(page, Settlement(page, KEEPER))
    for scope in SCOPES:
        bench.limit(scope, gross=WIDE, net=WIDE)
        page.rows(LIMIT)["factor_ppm"][names.scope(scope)] = PPM
        page.rows(LIMIT)["margin_max"][names.scope(scope)] = WIDE
    page.rows(RATE)["rate_ppm"] = page.rows(RATE)["par_ppm"] = PPM
    page.rows(RATE)["market_ms"] = -1
    for instrument, mark in enumerate(MARKS):
        bench.mark(instrument, mark)
    header["closed"], header["armed"] = 0, 1
    return bench


def unlinked_bench() -> Bench:
    """Return a bench whose files have no name any more: its memory ends with its last view.

    For tests that make hundreds of pages.
    """
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tripgate-test-", dir=root) as folder:
        return make_bench(Path(folder), slots=ROLE_SLOTS + 2)


def _write_roles(page: Page) -> None:
    for number, name in enumerate(ROLES):
        row = page.rows(ROLE)[number]
        row["present"], row["lease_ns"] = 1, NS_PER_S
        row["scope_node"] = page.names.scope(f"venue:{name.venue}") if name.venue else 0
        row["step"] = -1
        page.rows(LEASE)["deadline_ns"][number] = host_ns() + 3_600 * NS_PER_S
    page.rows(HOLDER)["mask"][:] = 1
    page.rows(CURSOR)["audit"][:] = 0


def _write_instruments(page: Page) -> None:
    for number, name in enumerate(INSTRUMENTS):
        row, value = page.rows(INSTRUMENT)[number], name.units.value_fraction()
        row["tradable"], row["node"] = 1, page.names.scope(name.scope)
        row["value_numerator"], row["value_denominator"] = value.numerator, value.denominator
        row["order_money_max"], row["collar_ppm"] = ORDER_MONEY_MAX, COLLAR_PPM
        row["order_lots_max"], row["exit_collar_ppm"] = LOTS_MAX, EXIT_COLLAR_PPM
        row["resting_max"] = RESTING_MAX
        row["stop_distance_ppm"], row["age_max_ms"] = STOP_DISTANCE_PPM, AGE_MAX_MS
        roles = [n for n, role in enumerate(ROLES) if role.critical]
        row["role_mask"] = sum(1 << n for n in roles if ROLES[n].venue in ("", name.venue))


def _write_keys(page: Page) -> None:
    for strategy, name in enumerate(STRATEGIES):
        row = page.rows(STRATEGY)[strategy]
        row["node"], row["order"] = page.names.scope(f"strategy:{name}"), strategy
        row["orders_per_second_max"] = row["attempts_per_second_max"] = RATE_MAX
    for number, (strategy, instrument) in enumerate(page.names.keys):
        row, traded = page.rows(KEY)[number], INSTRUMENTS[instrument]
        row["strategy"], row["instrument"] = strategy, instrument
        row["node"] = [page.names.scope(scope) for scope in scopes_of(strategy, traded)]


def scopes_of(strategy: int, traded: InstrumentName) -> tuple[str, ...]:
    """Return the five scopes of an order, narrow to wide."""
    return (
        f"strategy:{STRATEGIES[strategy]}", traded.scope, f"asset:{traded.asset}",
        f"venue:{traded.venue}", "portfolio",
    )  # fmt: skip


def numbers(decision: Decision) -> tuple[Any, ...]:
    """Return what a decision names: reason, scope, limit, used, requested."""
    return (
        decision.reason, decision.scope, decision.limit, decision.used, decision.requested,
    )  # fmt: skip


def entries_in(bench: Bench, state: int) -> Iterator[int]:
    """Yield the rows of entries in a state."""
    words = bench.page.rows(ENTRY)["word"] & STATE_MASK
    yield from (int(row) for row in (words == state).nonzero()[0])


def hammer(folder: str, strategy: int, seed: int) -> None:
    """Ask for openings as fast as possible until the page says that the run has ended.

    Runs in a process of its own. Trend buys and hedge sells ether, both buy bitcoin: so they meet
    at the venue, the asset and the portfolio, and on bitcoin's claim and instrument node too.
    """
    page = open_page(Path(folder))
    slot = claim_strategy_slot(page, strategy)
    handles = [
        InstrumentHandle(page, slot, page.names.keys.index((strategy, instrument)))
        for instrument in (BTC, ETH, BETA_BTC)
    ]
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 40, HAMMER_BATCH).tolist()
    places = draw.integers(0, len(handles), HAMMER_BATCH).tolist()
    for _ in range(HAMMER_BATCHES_MAX):
        for lots, place in zip(sizes, places, strict=True):
            sells = place == ETH and strategy == HEDGE
            stop = MARKS[place] * (102 if sells else 98) // 100
            handles[place].check_raw(-lots if sells else lots, MARKS[place], stop)
        if page.header["ended"]:
            return
