"""Slots and repair: who may take a slot over, and how the page is made true after a death."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BTC,
    ETH,
    HEDGE,
    KEEPER,
    MARKET_MS,
    TREND,
    Bench,
    entries_in,
    make_bench,
)
from tripgate.errors import InvariantBroken, PageError
from tripgate.gate import repair, slots
from tripgate.gate.commit import commit, find_reserved
from tripgate.gate.exits import issue_exit
from tripgate.gate.repair import Truth, freeze, rebuild, thaw
from tripgate.gate.slots import claim_strategy_slot, take_role_slot
from tripgate.gate.words import FREE, RELEASING, RESERVED, RESERVING, STATE_MASK, entry_word
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, ENTRY, KEY, NO_GRANT, ROLE_SLOTS, SLOT, SUM
from tripgate.page.ring import RingWriter
from tripgate.processes import process_start_time

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
BUY_MONEY = 6_000_000
NOTHING = (0, 0, 0)
DEAD_PID = 2**22 + 1
"""No Linux process can have it."""


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


@pytest.fixture
def stranger() -> Iterator[int]:
    """Pid of a living process that is not us."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


def let_die(bench: Bench, slot: int) -> None:
    """Make a slot's owner a process that has ended."""
    bench.page.rows(SLOT)["pid"][slot] = DEAD_PID


def test_slot_when_claimed_then_it_is_the_first_free_and_names_us(bench: Bench) -> None:
    first, second = (claim_strategy_slot(bench.page, HEDGE) for _ in range(2))
    assert (first, second) == (ROLE_SLOTS, ROLE_SLOTS + 1)
    row = bench.page.rows(SLOT)[first]
    assert (int(row["pid"]), int(row["strategy"])) == (os.getpid(), HEDGE)
    assert int(row["start_time"]) == process_start_time(os.getpid())


def test_slot_when_all_are_taken_then_the_message_says_what_to_do(bench: Bench) -> None:
    for _ in range(ROLE_SLOTS, bench.page.layout.capacities.slots):
        claim_strategy_slot(bench.page, TREND)
    with pytest.raises(PageError, match="stop a strategy process"):
        claim_strategy_slot(bench.page, TREND)


def test_slot_when_it_is_a_roles_then_its_incarnation_is_written(bench: Bench) -> None:
    assert take_role_slot(bench.page, ALPHA_ROUTER, 9) == ALPHA_ROUTER
    assert int(bench.page.rows(SLOT)["incarnation"][ALPHA_ROUTER]) == 9
    for slot in (-1, ROLE_SLOTS):
        with pytest.raises(PageError, match="is not a role's"):
            take_role_slot(bench.page, slot, 1)


def test_slot_when_a_dead_role_left_its_section_odd_then_the_successor_ends_it(
    bench: Bench,
) -> None:
    bench.page.rows(SLOT)["section"][ALPHA_ROUTER] = 7
    take_role_slot(bench.page, ALPHA_ROUTER, 2)
    assert int(bench.page.rows(SLOT)["section"][ALPHA_ROUTER]) == 8


def release_all(bench: Bench) -> None:
    bench.settlement.reap(1 << 62)
    bench.make_durable()
    bench.settlement.free_durable()


def leave_reserved(bench: Bench, slot: int) -> None:
    """Leave the dead owner's reservation as it is."""


def leave_releasing(bench: Bench, slot: int) -> None:
    bench.settlement.reap(1 << 62)


def leave_not_freed(bench: Bench, slot: int) -> None:
    bench.settlement.reap(1 << 62)
    bench.make_durable()


def leave_not_drained(bench: Bench, slot: int) -> None:
    release_all(bench)
    RingWriter(bench.page, slot).append(1, b"", 0, 0)


def leave_inside_a_section(bench: Bench, slot: int) -> None:
    release_all(bench)
    bench.page.rows(SLOT)["section"][slot] = 1


@pytest.mark.parametrize(
    "pending",
    [leave_reserved, leave_releasing, leave_not_freed, leave_not_drained, leave_inside_a_section],
)
def test_slot_when_its_owner_is_dead_but_something_is_pending_then_it_is_not_reused(
    bench: Bench, pending: Callable[[Bench, int], None]
) -> None:
    assert bench.handle().check(*BUY)
    slot = bench.slots[TREND]
    let_die(bench, slot)
    pending(bench, slot)
    assert claim_strategy_slot(bench.page, TREND) == slot + 1


def test_slot_when_its_owner_is_dead_and_all_is_done_then_it_is_reused(bench: Bench) -> None:
    assert bench.handle().check(*BUY)
    slot = bench.slots[TREND]
    let_die(bench, slot)
    release_all(bench)
    tokens = int(bench.page.rows(SLOT)["token_sequence"][slot])
    assert claim_strategy_slot(bench.page, HEDGE) == slot
    row = bench.page.rows(SLOT)[slot]
    # Tokens are never used again, and what was granted here stays in the run's summary.
    assert (int(row["token_sequence"]), int(row["approved"])) == (tokens, 1)
    assert NO_GRANT < int(row["overshoot_max"]) < 0


def test_slot_when_the_pid_was_reused_then_the_start_time_tells(
    bench: Bench, stranger: int
) -> None:
    slot = claim_strategy_slot(bench.page, TREND)
    row = bench.page.rows(SLOT)[slot]
    row["pid"], row["start_time"] = stranger, process_start_time(stranger)
    assert claim_strategy_slot(bench.page, TREND) == slot + 1
    row["start_time"] -= 1
    assert claim_strategy_slot(bench.page, TREND) == slot


def test_slot_when_a_claimant_has_no_start_time_yet_then_a_second_leaves_it_alone(
    bench: Bench, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: list[int] = []
    read_start_time = process_start_time

    def racing(pid: int) -> int:
        if pid == os.getpid() and not claimed:
            claimed.append(-1)
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: stranger)
                claimed.append(claim_strategy_slot(bench.page, HEDGE))
        return read_start_time(pid)

    monkeypatch.setattr(slots, "process_start_time", racing)
    mine = claim_strategy_slot(bench.page, TREND)
    assert claimed == [-1, mine + 1]


def test_slot_when_a_claimant_died_before_its_start_time_then_it_is_free_again(
    bench: Bench,
) -> None:
    bench.page.rows(SLOT)["pid"][ROLE_SLOTS] = -DEAD_PID
    assert claim_strategy_slot(bench.page, TREND) == ROLE_SLOTS


def test_slot_when_another_process_was_first_then_the_next_one_is_taken(
    bench: Bench, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap: Callable[[int, int, int], int] = atomics.compare_exchange
    rivals = [stranger]

    def outrun(address: int, expected: int, value: int) -> int:
        if rivals:
            atomics.store(address, rivals.pop())
        return swap(address, expected, value)

    monkeypatch.setattr(atomics, "compare_exchange", outrun)
    assert claim_strategy_slot(bench.page, TREND) == ROLE_SLOTS + 1


def test_freeze_when_a_living_process_stays_inside_then_the_keeper_crashes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "QUIET_WAIT_NS", 20_000_000)
    bench.handle()
    slot = bench.slots[TREND]
    bench.page.rows(SLOT)["section"][slot] = 1
    with pytest.raises(InvariantBroken, match="do not leave"):
        freeze(bench.page, KEEPER)
    let_die(bench, slot)
    freeze(bench.page, KEEPER)
    assert int(bench.page.header["freeze"]) == 1
    bench.page.rows(SLOT)["section"][KEEPER] = 1
    freeze(bench.page, KEEPER)
    thaw(bench.page)
    assert int(bench.page.header["freeze"]) == 0


def spoil(bench: Bench) -> None:
    """Overwrite every word that is a sum of others."""
    for name in ("gross", "long_worst", "short_worst"):
        bench.page.rows(SUM)[name][:] = 123_456_789
    bench.page.rows(CLAIM)["lots"][:] = -77
    bench.page.rows(KEY)["closable"][:] = 5


def a_bit_of_everything(bench: Bench) -> Truth:
    """Make a position, an opening half filled, a close half filled, an exit and a reservation."""
    bench.hold(20)
    opening = bench.handle(ETH).check("-0.05", "3000", "3010").token
    order = find_reserved(bench.page, opening, bench.slots[TREND])
    assert order is not None
    assert commit(bench.page, order)
    bench.settlement.fill(bench.key(ETH), bench.settlement.find(opening), -2, -600_000)
    closing = bench.handle().check("-0.005", "60000").token
    bench.settlement.fill(0, bench.settlement.find(closing), -2, 18 * 600_000)
    assert bench.handle(BTC, HEDGE).check(*BUY)
    assert issue_exit(bench.page, RingWriter(bench.page, ALPHA_ROUTER), 0, MARKET_MS)
    released = bench.handle().check(*BUY).token
    assert bench.settlement.release(released)
    return Truth(
        positions={0: 18, bench.key(ETH): -2},
        charged={0: 18 * 600_000, bench.key(ETH): -600_000},
        filled={opening: 2, closing: 2},
    )


def test_repair_when_every_sum_is_wrong_then_they_equal_entries_and_positions_again(
    bench: Bench,
) -> None:
    truth = a_bit_of_everything(bench)
    expected = bench.shared_words()
    spoil(bench)
    assert bench.shared_words() != expected
    freeze(bench.page, KEEPER)
    rebuild(bench.page, truth)
    assert bench.shared_words() == expected
    rebuild(bench.page, truth)
    thaw(bench.page)
    assert bench.shared_words() == expected
    assert bench.sums()["portfolio"][0] == 18 * 600_000 + 1_500_000 + BUY_MONEY


def test_repair_when_a_client_died_in_the_middle_of_a_check_then_its_half_is_undone(
    bench: Bench,
) -> None:
    bench.handle()
    slot = bench.slots[TREND]
    row = bench.page.slot_entries(slot)
    bench.page.rows(ENTRY)["word"][row] = entry_word(5, RESERVING)
    bench.page.rows(SLOT)["section"][slot] = 1
    bench.page.rows(SUM)["gross"][:3] += BUY_MONEY
    bench.page.rows(CLAIM)["lots"][BTC] = 10
    let_die(bench, slot)
    assert claim_strategy_slot(bench.page, TREND) == slot + 1
    freeze(bench.page, KEEPER)
    rebuild(bench.page, Truth({}, {}, {}))
    thaw(bench.page)
    assert set(bench.sums().values()) == {NOTHING}
    assert int(bench.page.rows(CLAIM)["lots"][BTC]) == 0
    assert int(bench.page.rows(ENTRY)["word"][row]) & STATE_MASK == FREE
    assert int(bench.page.rows(SLOT)["section"][slot]) == 2
    assert claim_strategy_slot(bench.page, TREND) == slot


def test_repair_when_a_living_client_is_about_to_reserve_then_its_entry_is_left_alone(
    bench: Bench,
) -> None:
    bench.handle()
    row = bench.page.slot_entries(bench.slots[TREND])
    bench.page.rows(ENTRY)["word"][row] = entry_word(5, RESERVING)
    rebuild(bench.page, Truth({}, {}, {}))
    assert list(entries_in(bench, RESERVING)) == [row]


def test_repair_when_the_keeper_died_while_releasing_then_nothing_of_it_counts(
    bench: Bench,
) -> None:
    token = bench.handle().check(*BUY).token
    (row,) = entries_in(bench, RESERVED)
    bench.page.rows(ENTRY)["word"][row] = entry_word(token, RELEASING)
    assert bench.sums()["portfolio"][0] == BUY_MONEY
    rebuild(bench.page, Truth({}, {}, {}))
    assert set(bench.sums().values()) == {NOTHING}
    assert int(bench.page.rows(ENTRY)["charged"][row]) == 0
