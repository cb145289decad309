"""Taking a crashed run's page over: nothing that counts is lost, nothing of the dead is sent."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.position_keeper import Keeper
from supervisors.carry_over import close_old_page
from supervisors.take_over import find_old_page, store_old_rings, supersede, take_tables
from tests.tree_fixtures import (
    BTC,
    INSTANCE,
    MARKET_MS,
    approve,
    levels,
    mark,
    paper_page,
    service,
    vouch,
)
from tripgate.audit.reader import LogReader
from tripgate.audit.verify import verify
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.cause_rows import load_causes, store_causes
from tripgate.gate.commit import Approved, commit, find_reserved
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.settle import KEPT_RECORD
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import COMMITTED, FREE, RESERVED, STATE_MASK
from tripgate.instance import state_folder
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.messages import EventKind
from tripgate.page.layout import ACCOUNT, ENTRY, KEY, RING, ROLE, ROLE_SLOTS, SLOT, SUM
from tripgate.page.level import LevelWriter, set_level, writer_level
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level

pytestmark = pytest.mark.kernels
PRICE, STOP = 500_000, 480_000
DRAWDOWN = CauseKey(Cause.DRAWDOWN, 0)
LATCHED = CauseState(Level.HARD, 200_000, latched=True, verdict=Verdict.FRESH)


class Crashed:
    """A run with a position, a committed and a reserved order, whose processes are gone."""

    def __init__(self) -> None:
        self.page = paper_page()
        self.page.set_complete()
        self.router = service(self.page, "router", "sim")
        self.place = service(self.page, "position_keeper")
        mark(self.page, 0, PRICE, step=0, market_ms=MARKET_MS)
        self.page.header["step"] = 0
        self.slot = claim_strategy_slot(self.page, 0)
        self.handle = InstrumentHandle(self.page, self.slot, 0)
        keeper = Keeper(self.place)
        keeper.rebuild()
        self.filled, self.committed = self.order(10), self.order(6)
        self.router.emit(EventKind.FILL, {
            "trade": 1, "token": self.filled.token, "strategy": "trend", "venue": "sim",
            "symbol": BTC, "lots": 10, "ticks": PRICE, "fee": 0, "cumulative": 10,
        })  # fmt: skip
        keeper.take_events()
        self.reserved = approve(self.page, self.slot, 0, 3, PRICE, STOP)
        assert self.handle.check_raw(-4, PRICE, 0) > 0

    def order(self, lots: int) -> Approved:
        order = approve(self.page, self.slot, 0, lots, PRICE, STOP)
        assert commit(self.page, order)
        return order

    def die(self) -> None:
        """End every process of the run; ours must not look like the slots' owner."""
        self.page.rows(SLOT)["start_time"][:] = 1
        self.page.rows(ROLE)["pid"][:] = 0

    def sums(self) -> bytes:
        return sums_of(self.page)


def sums_of(page: Page) -> bytes:
    keys = page.rows(KEY)
    fields = ("closable", "charged", "resting", "stop_ticks", "basis_lot_ticks", "margin_charged")
    return page.rows(SUM).tobytes() + b"".join(keys[name].tobytes() for name in fields)


def start_again(epoch: int = 2) -> tuple[Page, bool]:
    """Do what the root does; return the new page and whether the tables were kept."""
    found = close_old_page(INSTANCE)
    old = find_old_page(INSTANCE)
    if old is not None:
        store_old_rings(old, state_folder(INSTANCE))
    page = paper_page(found, epoch=epoch)
    kept = old is not None and take_tables(old, page)
    page.set_complete()
    if old is not None:
        supersede(old, epoch)
    return page, kept


@pytest.fixture
def crashed() -> Iterator[Crashed]:
    crashed = Crashed()
    crashed.die()
    yield crashed
    crashed.router.close()
    crashed.place.close()


def state_of(page: Page, order: Approved) -> int:
    return int(page.rows(ENTRY)["word"][order.row]) & STATE_MASK


def test_take_over_when_the_run_crashed_then_tables_go_on_under_the_next_epoch(
    crashed: Crashed,
) -> None:
    before = crashed.sums()
    page, kept = start_again()
    assert kept
    assert (page.epoch, sums_of(page)) == (2, before)
    assert state_of(page, crashed.committed) == COMMITTED
    assert state_of(page, crashed.reserved) == RESERVED
    assert set(page.rows(ENTRY)["record_sequence"].tolist()) == {0, KEPT_RECORD}
    place = service(page, "position_keeper")
    keeper = Keeper(place)
    keeper.rebuild()
    # There is no price yet: the position counts at its cost, which is the mark it had.
    assert sums_of(page) == before
    keeper.tidy(host_ns() + 60 * NS_PER_S)
    assert state_of(page, crashed.reserved) == FREE, "reservations of the dead expire"
    assert state_of(page, crashed.committed) == COMMITTED, "what may have left stays"
    assert int(page.rows(KEY)["closable"][0]) == 10 << 32
    assert int(page.rows(SUM)["gross"][0]) >= 16 * PRICE
    place.close()


def test_take_over_when_rings_were_not_drained_then_their_records_reach_the_log(
    crashed: Crashed,
) -> None:
    crashed.page.rows(ENTRY)["record_sequence"][crashed.reserved.row] = 0
    slots = crashed.page.rows(SLOT)
    start_again()
    rows = [stored.row for stored in LogReader(state_folder(INSTANCE) / "audit").rows()]
    assert {row.epoch for row in rows} == {1}
    tokens = {row.token for row in rows if row.kind == EventKind.DECISION}
    assert {crashed.filled.token, crashed.committed.token, crashed.reserved.token} <= tokens
    assert [row.kind for row in rows].count(EventKind.FILL) == 1
    assert int(slots["record_sequence"][crashed.slot]) == len(
        [row for row in rows if row.producer == crashed.slot]
    )
    state = state_folder(INSTANCE)
    assert verify(state / "audit", state / "heads").verified
    stored = len(rows)
    start_again(3)
    assert len(list(LogReader(state / "audit").rows())) == stored, "nothing is stored twice"


def test_take_over_when_a_ring_is_damaged_then_the_others_are_stored_and_it_is_named(
    crashed: Crashed,
) -> None:
    close_old_page(INSTANCE)
    old = find_old_page(INSTANCE)
    assert old is not None
    np.frombuffer(old.bytes_of(RING, crashed.slot), np.int64)[:] = -1
    stored = store_old_rings(old, state_folder(INSTANCE))
    assert stored.damaged == (crashed.slot,)
    rows = [entry.row for entry in LogReader(state_folder(INSTANCE) / "audit").rows()]
    assert EventKind.FILL in [row.kind for row in rows]


def test_P1_take_over_when_a_token_is_of_the_old_run_then_it_can_never_be_committed(
    crashed: Crashed,
) -> None:
    page, _ = start_again()
    assert find_reserved(page, crashed.reserved.token, crashed.slot) is None


def test_take_over_when_a_client_still_has_the_old_page_then_every_check_is_refused(
    crashed: Crashed,
) -> None:
    vouch(crashed.page)
    page, _ = start_again()
    before = sums_of(page)
    refused = {-int(DenyReason.PAGE_CLOSED), -int(DenyReason.EPOCH_CHANGED)}
    for order in ((5, PRICE, STOP), (-1, PRICE, 0), (-1, 0, 0)):
        assert crashed.handle.check_raw(*order) in refused
    assert (crashed.page.epoch, sums_of(page)) == (2, before)


def test_take_over_when_slots_hold_live_entries_then_nobody_gets_them_and_tokens_go_on(
    crashed: Crashed,
) -> None:
    last = int(crashed.page.rows(SLOT)["token_sequence"][crashed.slot])
    page, _ = start_again()
    assert crashed.slot == ROLE_SLOTS
    assert claim_strategy_slot(page, 0) == crashed.slot + 1
    assert int(page.rows(SLOT)["token_sequence"][crashed.slot]) == last
    assert int(page.rows(SLOT)["pid"][crashed.slot]) == os.getpid()


def test_P5_take_over_when_something_was_latched_then_cause_and_bytes_stay(
    crashed: Crashed,
) -> None:
    store_causes(crashed.page, {DRAWDOWN: LATCHED})
    set_level(crashed.page, 0, LevelWriter.OPERATOR, Level.HARD)
    set_level(crashed.page, 1, LevelWriter.KEEPER, Level.MEDIUM)
    crashed.page.rows(ACCOUNT)["high_water_mark"][0] += 77
    mark_before = int(crashed.page.rows(ACCOUNT)["high_water_mark"][0])
    page, _ = start_again()
    assert load_causes(page)[DRAWDOWN] == LATCHED
    assert writer_level(page, 0, LevelWriter.OPERATOR) is Level.HARD
    assert writer_level(page, 1, LevelWriter.KEEPER) is Level.MEDIUM
    assert levels(page)["portfolio"] is Level.HARD
    assert int(page.rows(ACCOUNT)["high_water_mark"][0]) == mark_before


def test_take_over_when_the_last_one_was_not_completed_then_its_page_is_not_believed(
    crashed: Crashed,
) -> None:
    crashed.page.header["directory"][32] = 0
    page, kept = start_again()
    assert not kept
    assert not (page.rows(ENTRY)["word"] & STATE_MASK).any()
    assert page.is_complete


def test_take_over_when_instruments_or_strategies_differ_then_the_log_alone_tells(
    crashed: Crashed,
) -> None:
    close_old_page(INSTANCE)
    old = find_old_page(INSTANCE)
    assert old is not None
    page = paper_page(strategies=("hold",), epoch=2)
    assert not take_tables(old, page)
    assert not page.rows(SUM)["gross"].any()


def test_take_over_when_there_is_no_page_then_nothing_is_kept() -> None:
    assert find_old_page(INSTANCE) is None
    assert start_again(1)[1] is False


def test_take_over_when_a_client_died_inside_then_its_half_is_not_taken_over(
    crashed: Crashed, tmp_path: Path
) -> None:
    row = crashed.page.slot_entries(crashed.slot) + 9
    crashed.page.rows(ENTRY)["word"][row] = 1
    crashed.page.rows(SUM)["gross"][:2] += 5
    crashed.page.rows(SLOT)["section"][crashed.slot] = 3
    page, kept = start_again()
    assert kept
    assert int(page.rows(ENTRY)["word"][row]) & STATE_MASK == FREE
    assert not (page.rows(SLOT)["section"] & 1).any()
