"""A paper run's real page and an actor's real place in it, without a tree around them.

The page is made by the root's own ``make_page`` from the config that ``paper`` renders; what no
process is there to do (leases, marks, positions) is done by the functions below, the way the
process concerned would do it.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio

from actors.service import Service
from exchange_adapters import local_venue
from exchange_adapters.venue_port import MarginTier, VenueMarket
from supervisors.page_setup import VenueFacts, make_page
from supervisors.paper_config import render_paper_config
from tripgate.audit.record import Body, unpack_body
from tripgate.clock import NS_PER_S, host_ns
from tripgate.config.reader import load_text
from tripgate.config.structs import Config
from tripgate.gate.commit import Approved, find_reserved
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.settle import Settlement
from tripgate.instance import prepare_state
from tripgate.messages import EventKind
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import LEASE, LIMIT
from tripgate.page.level import LevelWriter, node_level
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX, money

INSTANCE = "paper-1"
PATIENCE_S = 60.0
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
SYMBOLS = (BTC, ETH)
STEP_MS = 75_000
MARKET_MS = 1_621_382_400_000
EQUITY = money(100_000)
GRIDS = {BTC: ("0.1", "0.001"), ETH: ("0.01", "0.01")}
"""Tick and lot: one lot at one tick is worth one money unit on both, which keeps sums readable."""
TIERS = (MarginTier("50000", 100), MarginTier("250000", 30), MarginTier("1000000", 10))
INSTALLATION = "0123456789AB"


def markets(symbols: Sequence[str] = SYMBOLS) -> dict[str, VenueMarket]:
    """Return what a venue says of its instruments."""
    return {
        symbol: VenueMarket(
            symbol, *GRIDS[symbol], contract_size="1", half_spread_bps="1", taker_fee_bps="5",
            maker_fee_bps="2", quote="USDT", margin_tiers=TIERS,
        )
        for symbol in symbols
    }  # fmt: skip


def facts(symbols: Sequence[str] = SYMBOLS, venue: str = "sim") -> dict[str, VenueFacts]:
    """Return what the root has asked the venue."""
    return {venue: VenueFacts(markets(symbols), EQUITY, STEP_MS, MARKET_MS)}


def paper_text(strategies: Sequence[str] = ("trend",), symbols: Sequence[str] = SYMBOLS) -> str:
    """Return the config that a paper run would be given."""
    return render_paper_config(symbols, strategies, Decimal(1))


def paper_config(strategies: Sequence[str] = ("trend",)) -> Config:
    """Return the config of a paper run, read."""
    return load_text(paper_text(strategies), "paper", {}).config


def paper_page(
    carried: Mapping[str, Level] | None = None,
    strategies: Sequence[str] = ("trend",),
    *,
    epoch: int = 1,
    shadow: bool = False,
) -> Page:
    """Return the page of a paper run, armed, every critical lease an hour long."""
    prepare_state(INSTANCE)
    config = paper_config(strategies)
    page = make_page(config, INSTANCE, epoch, facts(), dict(carried or {}), shadow=shadow)
    page.header["armed"], page.header["closed"] = 1, 0
    vouch(page)
    # What the keeper does at its first mark; a test of margin writes its own.
    page.rows(LIMIT)["margin_max"] = INT_MAX
    return page


def vouch(page: Page, seconds: int = 3_600) -> None:
    """Make every role's lease good for some seconds."""
    deadlines = page.rows(LEASE)["deadline_ns"]
    deadlines[: len(page.names.roles)] = host_ns() + seconds * NS_PER_S


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on words that others write has come true."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - words of a page give no event
            await trio.sleep(0.005)


async def nobody_waits(_answer: Any) -> None:
    """Take the word that an actor is ready."""


def service(page: Page, actor: str, venue: str = "", **settings: Any) -> Service:
    """Return an actor's place in the tree, held by this process."""
    values: dict[str, Any] = {
        "config_text": paper_text(page.names.strategies), "config_name": "paper",
        "installation": INSTALLATION, **settings,
    }  # fmt: skip
    return Service(page, actor, venue, 1, values, nobody_waits)


def records(page: Page, slot: int) -> list[tuple[EventKind, Body]]:
    """Return kind and body of every event in a slot's ring, decisions left out, oldest first."""
    return [
        (EventKind(frame.kind), unpack_body(frame.payload))
        for frame in RingReader(page, "audit").read(slot)
        if frame.kind != EventKind.DECISION
    ]


def kinds(page: Page, slot: int) -> list[EventKind]:
    """Return the kinds of every event in a slot's ring, oldest first."""
    return [kind for kind, _ in records(page, slot)]


def mark(page: Page, instrument: int, ticks: int, *, step: int, market_ms: int) -> None:
    """Publish a tick."""
    quote = Quote(ticks, ticks, ticks, ticks, market_ms, step, 0)
    write_quote(page, instrument, quote, host_ns())


def hold(page: Page, key: int, lots: int, worth: int = 0) -> None:
    """Move a key by some lots, as the keeper books a fill of an order that nobody knows."""
    Settlement(page, page.names.role("position_keeper")).fill(key, None, lots, worth)


def approve(page: Page, slot: int, key: int, lots: int, price: int = 0, stop: int = 0) -> Approved:
    """Let the gate approve an order of a claimed slot and return the router's view of it."""
    token = InstrumentHandle(page, slot, key).check_raw(lots, price, stop)
    if token <= 0:
        raise AssertionError(f"the gate denied it: {DenyReason(-token).name}")
    order = find_reserved(page, token, slot)
    if order is None:
        raise AssertionError("what was granted is not there")
    return order


def byte_of(page: Page, node: int, writer: LevelWriter) -> int:
    """Return one writer's byte of a level word."""
    return int(page.bytes_of(LIMIT, node)[LIMIT.offset("level") + writer])


def levels(page: Page) -> dict[str, Level]:
    """Return the scopes that are above NORMAL."""
    found = {scope: node_level(page, node) for node, scope in enumerate(page.names.scopes)}
    return {scope: level for scope, level in found.items() if level}


def set_send_window(patch: pytest.MonkeyPatch, window_ms: int | None) -> None:
    """Let the local venue claim another send window, so that nobody has to wait for a real one."""
    changed = msgspec.structs.replace(local_venue.CAPABILITIES, send_window_ms=window_ms)
    patch.setattr(local_venue, "CAPABILITIES", changed)
