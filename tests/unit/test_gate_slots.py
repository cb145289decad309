"""Slots: who may take one, take one over, and give one back."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import ALPHA_ROUTER, HEDGE, TREND, Bench, make_bench
from tripgate.errors import PageError
from tripgate.gate import slots
from tripgate.gate.slots import (
    claim_strategy_slot,
    is_attached,
    is_claimable,
    release_slot,
    take_role_slot,
)
from tripgate.page import atomics
from tripgate.page.layout import NO_GRANT, ROLE_SLOTS, SLOT
from tripgate.page.ring import RingWriter
from tripgate.processes import process_start_time

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
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
    row = bench.page.rows(SLOT)[ALPHA_ROUTER]
    row["section"], row["exit_section"] = 7, 3
    take_role_slot(bench.page, ALPHA_ROUTER, 2)
    assert (int(row["section"]), int(row["exit_section"])) == (8, 4)


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


def leave_inside_an_exit(bench: Bench, slot: int) -> None:
    release_all(bench)
    bench.page.rows(SLOT)["exit_section"][slot] = 1


def leave_merged_denials(bench: Bench, slot: int) -> None:
    release_all(bench)
    bench.page.rows(SLOT)["merged_count"][slot] = 1


PENDING = (
    leave_reserved, leave_releasing, leave_not_freed, leave_not_drained, leave_inside_a_section,
    leave_inside_an_exit, leave_merged_denials,
)  # fmt: skip


@pytest.mark.parametrize("pending", PENDING)
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


def test_slot_when_its_owner_died_with_merged_denials_then_they_are_posted_and_it_is_free(
    bench: Bench,
) -> None:
    handle = bench.handle()
    slot = bench.slots[TREND]
    for _ in range(3):
        assert not handle.check("0.01", "60000")
    assert int(bench.page.rows(SLOT)["merged_count"][slot]) == 2
    let_die(bench, slot)
    bench.settlement.free_durable()
    assert int(bench.page.rows(SLOT)["merged_count"][slot]) == 0
    bench.make_durable()
    assert claim_strategy_slot(bench.page, TREND) == slot


@pytest.mark.parametrize("pending", PENDING[:4])
def test_slot_when_given_back_with_something_pending_then_it_is_not_reused(
    bench: Bench, pending: Callable[[Bench, int], None]
) -> None:
    assert bench.handle().check(*BUY)
    slot = bench.slots[TREND]
    assert release_slot(bench.page, slot)
    pending(bench, slot)
    assert claim_strategy_slot(bench.page, TREND) == slot + 1


def test_slot_when_a_living_process_comes_and_goes_then_slots_never_run_out(bench: Bench) -> None:
    count = bench.page.layout.capacities.slots
    for _ in range(2 * count):
        bench.slots.clear()
        assert bench.handle().check(*BUY)
        assert release_slot(bench.page, bench.slots[TREND])
        release_all(bench)
    assert bench.slots[TREND] == ROLE_SLOTS


def test_slot_when_it_is_not_ours_then_it_cannot_be_given_back(bench: Bench, stranger: int) -> None:
    slot = claim_strategy_slot(bench.page, TREND)
    row = bench.page.rows(SLOT)[slot]
    mine = int(row["pid"]), int(row["start_time"])
    row["pid"], row["start_time"] = stranger, process_start_time(stranger)
    assert not release_slot(bench.page, slot)
    assert int(row["start_time"]) == process_start_time(stranger)
    row["pid"], row["start_time"] = mine
    assert release_slot(bench.page, slot)
    assert not release_slot(bench.page, slot), "once is enough"


@pytest.mark.parametrize("counter", ["section", "exit_section"])
def test_slot_when_a_check_was_cut_short_in_it_then_it_is_kept_for_repair(
    bench: Bench, counter: str
) -> None:
    slot = claim_strategy_slot(bench.page, TREND)
    bench.page.rows(SLOT)[counter][slot] = 1
    assert not release_slot(bench.page, slot)
    assert int(bench.page.rows(SLOT)["start_time"][slot]) > 0


def test_slot_when_taken_given_back_and_settled_then_it_says_so(bench: Bench) -> None:
    assert is_claimable(bench.page, ROLE_SLOTS)
    assert bench.handle().check(*BUY)
    slot = bench.slots[TREND]
    assert not is_claimable(bench.page, slot)
    assert (is_attached(bench.page, TREND), is_attached(bench.page, HEDGE)) == (True, False)
    assert release_slot(bench.page, slot)
    assert not is_attached(bench.page, TREND)
    assert not is_claimable(bench.page, slot), "its order is not settled"
    release_all(bench)
    assert is_claimable(bench.page, slot)


def test_slot_when_it_is_just_being_claimed_then_its_strategy_counts_as_attached(
    bench: Bench,
) -> None:
    slot = claim_strategy_slot(bench.page, HEDGE)
    bench.page.rows(SLOT)["pid"][slot] = -os.getpid()
    assert is_attached(bench.page, HEDGE)
    assert not is_claimable(bench.page, slot)
