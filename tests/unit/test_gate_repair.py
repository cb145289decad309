"""Repair: how the page is made true after a death, and what it does to who stays inside."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate_fixtures import BTC, KEEPER, TREND, Bench, entries_in
from tests.unit.ruins import (
    BUY,
    BUY_MONEY,
    a_bit_of_everything,
    die_in_a_check,
    die_in_an_exit,
    let_die,
    margin_bench,
    mend,
    plain_sums,
    spoil,
    stored_sums,
    unposted,
)
from tripgate.errors import InvariantBroken
from tripgate.gate import repair, settle
from tripgate.gate.recount import Tables, Truth, read_tables, truth_of_page
from tripgate.gate.repair import died_inside, freeze, rebuild, thaw
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import (
    FREE,
    RELEASING,
    RESERVED,
    RESERVING,
    STATE_MASK,
    UNPOSTED,
    entry_word,
)
from tripgate.page.layout import CLAIM, ENTRY, KEY, SLOT
from tripgate.page.mapping import Page
from tripgate.processes import process_start_time

pytestmark = pytest.mark.kernels
NOTHING = (0, 0, 0)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return margin_bench(isolated_folders / "page")


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A living process that is not us, stopped."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def test_freeze_when_this_process_is_inside_then_it_crashes_and_is_never_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "INSIDE_NS", 20_000_000)
    bench.handle()
    slot = bench.slots[TREND]
    bench.page.rows(SLOT)["section"][slot] = 1
    with pytest.raises(InvariantBroken, match="does not leave"):
        freeze(bench.page, KEEPER)
    let_die(bench, slot)
    assert freeze(bench.page, KEEPER) == ()
    assert int(bench.page.header["freeze"]) == 1
    bench.page.rows(SLOT)["section"][KEEPER] = 1
    freeze(bench.page, KEEPER)
    thaw(bench.page)
    assert int(bench.page.header["freeze"]) == 0


@pytest.mark.parametrize("counter", ["section", "exit_section"])
def test_freeze_when_another_process_stays_inside_then_it_is_killed(
    bench: Bench, stranger: "subprocess.Popen[bytes]", counter: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(repair, "INSIDE_NS", 20_000_000)
    row = bench.page.rows(SLOT)[claim_strategy_slot(bench.page, TREND)]
    row["pid"], row["start_time"] = stranger.pid, process_start_time(stranger.pid)
    row[counter] = 7
    assert not died_inside(bench.page)
    assert freeze(bench.page, KEEPER) == (stranger.pid,)
    assert process_start_time(stranger.pid) == 0
    assert died_inside(bench.page)
    rebuild(bench.page, truth_of_page(bench.page))
    assert not died_inside(bench.page)
    assert int(row[counter]) == 8


def test_freeze_when_a_process_was_outside_once_then_it_is_not_waited_for(
    bench: Bench, stranger: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bench.page.rows(SLOT)[claim_strategy_slot(bench.page, TREND)]
    row["pid"], row["start_time"] = stranger.pid, process_start_time(stranger.pid)
    row["section"] = 7

    def move_on(_seconds: float) -> None:
        # It left and is inside again, where it has seen the freeze before it changed anything.
        row["section"] += 2

    monkeypatch.setattr(repair, "sleep_s", move_on)
    assert freeze(bench.page, KEEPER) == ()
    assert int(row["section"]) == 9
    row["section"] = 8


def test_repair_when_every_sum_is_wrong_then_they_equal_entries_and_positions_again(
    bench: Bench,
) -> None:
    truth = a_bit_of_everything(bench)
    expected = bench.shared_words()
    assert plain_sums(bench.page) == stored_sums(bench.page)
    spoil(bench)
    assert bench.shared_words() != expected
    freeze(bench.page, KEEPER)
    rebuild(bench.page, truth)
    assert bench.shared_words() == expected
    rebuild(bench.page, truth)
    thaw(bench.page)
    assert bench.shared_words() == expected
    assert bench.sums()["portfolio"][0] == 18 * 600_000 + 1_500_000 + BUY_MONEY
    assert any(stored_sums(bench.page)["margin"])


def test_truth_of_page_when_a_client_died_then_the_page_knows_its_fills_itself(
    bench: Bench,
) -> None:
    truth, expected = a_bit_of_everything(bench), bench.shared_words()
    die_in_a_check(bench)
    found = truth_of_page(bench.page)
    assert found.positions == {**dict.fromkeys(range(6), 0), **truth.positions}
    assert truth.filled.items() <= found.filled.items()
    mend(bench, found)
    assert bench.shared_words() == expected


def test_repair_when_a_client_died_in_the_middle_of_a_check_then_its_half_is_undone(
    bench: Bench,
) -> None:
    row = die_in_a_check(bench)
    slot = row // 64
    assert died_inside(bench.page)
    assert claim_strategy_slot(bench.page, TREND) == slot + 1
    mend(bench, Truth({}, {}, {}))
    assert set(bench.sums().values()) == {NOTHING}
    assert int(bench.page.rows(CLAIM)["lots"][BTC]) == 0
    assert int(bench.page.rows(ENTRY)["word"][row]) & STATE_MASK == FREE
    assert int(bench.page.rows(SLOT)["section"][slot]) == 2
    assert claim_strategy_slot(bench.page, TREND) == slot


def test_repair_when_a_client_died_in_an_exit_then_its_hold_and_its_count_are_undone(
    bench: Bench,
) -> None:
    bench.hold(20)
    row = die_in_an_exit(bench)
    assert died_inside(bench.page)
    mend(bench, truth_of_page(bench.page))
    key = bench.page.rows(KEY)[0]
    assert (int(key["closable"]), int(key["resting"]), unposted(bench)) == (20 << 32, 0, 0)
    assert int(bench.page.rows(ENTRY)["word"][row]) & (STATE_MASK | UNPOSTED) == FREE
    assert not died_inside(bench.page)


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


def test_P4_exit_when_a_repair_is_under_way_then_it_is_granted_and_no_hold_is_lost(
    bench: Bench,
) -> None:
    bench.hold(20)
    freeze(bench.page, KEEPER)
    before = stored_sums(bench.page)
    assert not bench.handle().check(*BUY)
    assert bench.handle().check("-0.005", "60000").approved
    bench.page.rows(KEY)["closable"][0] -= 2
    rebuild(bench.page, truth_of_page(bench.page))
    key = bench.page.rows(KEY)[0]
    assert (int(key["closable"]), int(key["resting"])) == ((20 << 32) | 5, 1)
    assert (unposted(bench), stored_sums(bench.page)) == (1, before)
    thaw(bench.page)
    assert not bench.handle().check(*BUY), "an opening waits until the exit is in the sums"
    assert bench.settlement.post_exits() == 1
    assert bench.sums()["portfolio"][2] == before["short_worst"][0] + 3_000_000
    assert unposted(bench) == 0
    assert plain_sums(bench.page) == stored_sums(bench.page)
    assert bench.handle().check(*BUY).approved


def test_repair_when_an_exit_comes_between_copy_and_store_then_its_hold_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(20)
    handle, taken = bench.handle(), list[int]()

    def with_an_exit_after(page: Page) -> Tables:
        tables = read_tables(page)
        if len(taken) < 2:
            taken.append(handle.check_raw(-3, 600_000, 0))
        return tables

    freeze(bench.page, KEEPER)
    monkeypatch.setattr(repair, "read_tables", with_an_exit_after)
    rebuild(bench.page, Truth({0: 20}, {0: 20 * 600_000}, {}))
    assert all(token > 0 for token in taken)
    key = bench.page.rows(KEY)[0]
    assert (int(key["closable"]), int(key["resting"])) == ((20 << 32) | 6, 2)
    assert unposted(bench) == 2


def test_repair_when_a_client_dies_in_an_exit_after_the_store_then_the_next_repair_ends_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(20)
    truth, rows = Truth({0: 20}, {0: 20 * 600_000}, {}), list[int]()

    original = repair._swap_exits

    def swap_then_die(*arguments: Any) -> bool:
        swapped = original(*arguments)
        rows.append(die_in_an_exit(bench))
        return swapped

    freeze(bench.page, KEEPER)
    monkeypatch.setattr(repair, "_swap_exits", swap_then_die)
    rebuild(bench.page, truth)
    thaw(bench.page)
    monkeypatch.undo()
    assert died_inside(bench.page), "what it took came after the copy"
    mend(bench, truth)
    assert not died_inside(bench.page)
    assert (int(bench.page.rows(KEY)["closable"][0]), unposted(bench)) == (20 << 32, 0)


def test_repair_when_an_exit_never_ends_then_its_process_is_killed(
    bench: Bench, stranger: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "INSIDE_NS", 20_000_000)
    bench.hold(20)
    freeze(bench.page, KEEPER)
    row = bench.page.rows(SLOT)[die_in_an_exit(bench) // 64]
    row["pid"], row["start_time"] = stranger.pid, process_start_time(stranger.pid)
    assert rebuild(bench.page, truth_of_page(bench.page)) == (stranger.pid,)
    assert int(bench.page.rows(KEY)["closable"][0]) == 20 << 32


def test_repair_when_an_entry_was_overwritten_then_it_counts_nowhere_and_nothing_overflows(
    bench: Bench,
) -> None:
    assert bench.handle().check(*BUY)
    (row,) = entries_in(bench, RESERVED)
    entry = bench.page.rows(ENTRY)[row]
    entry["key"], entry["reserved"] = -1, 2**63 - 1
    mend(bench, Truth({}, {}, {}))
    assert set(bench.sums().values()) == {NOTHING}
    entry["key"], entry["lots"] = 0, 10
    mend(bench, Truth({}, {}, {}))
    assert bench.sums()["portfolio"][:2] == (2**62, 2**62)
    assert not bench.handle().check(*BUY), "a sum at its bound leaves no room"


def test_settle_when_a_repair_is_under_way_then_a_move_waits_for_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(bench.page, KEEPER)
    monkeypatch.setattr(settle, "sleep_s", lambda _seconds: thaw(bench.page))
    bench.hold(20)
    assert int(bench.page.rows(KEY)["closable"][0]) == 20 << 32
    assert int(bench.page.rows(SLOT)["section"][KEEPER]) % 2 == 0


def test_settle_when_the_repairer_died_then_a_move_crashes_and_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "THAW_WAIT_NS", 10_000_000)
    freeze(bench.page, KEEPER)
    before = bench.shared_words()
    with pytest.raises(InvariantBroken, match="repair it first"):
        bench.hold(20)
    assert bench.shared_words() == before
    assert int(bench.page.rows(SLOT)["section"][KEEPER]) % 2 == 0


@pytest.mark.parametrize("end", ["filled", "released", "expired"])
def test_settle_when_an_exit_is_not_posted_yet_then_its_end_moves_no_side(
    bench: Bench, end: str
) -> None:
    bench.hold(20)
    freeze(bench.page, KEEPER)
    token = bench.handle().check_raw(-6, 600_000, 0)
    thaw(bench.page)
    before, key = stored_sums(bench.page), bench.page.rows(KEY)[0]
    if end == "filled":
        bench.settlement.fill(0, bench.settlement.find(token), -6, 14 * 600_000)
        assert bench.settlement.release(token)
        assert int(key["closable"]) == 14 << 32
    else:
        if end == "expired":
            assert bench.settlement.reap(1 << 62) == [token]
        else:
            assert bench.settlement.release(token)
        assert (int(key["closable"]), stored_sums(bench.page)) == (20 << 32, before)
    assert (int(key["resting"]), unposted(bench)) == (0, 0)
    assert plain_sums(bench.page) == stored_sums(bench.page)
    assert bench.settlement.post_exits() == 0


def test_settle_when_an_unposted_exit_filled_in_part_then_what_is_left_is_posted(
    bench: Bench,
) -> None:
    bench.hold(20)
    freeze(bench.page, KEEPER)
    token = bench.handle().check_raw(-6, 600_000, 0)
    assert bench.settlement.post_exits() == 0, "a frozen page takes none"
    thaw(bench.page)
    bench.settlement.fill(0, bench.settlement.find(token), -2, 18 * 600_000)
    before = stored_sums(bench.page)["short_worst"][0]
    assert bench.settlement.post_exits() == 1
    assert stored_sums(bench.page)["short_worst"][0] == before + 4 * 600_000
    assert plain_sums(bench.page) == stored_sums(bench.page)
    assert expected_holds(bench) == ((18 << 32) | 4, 1)


def expected_holds(bench: Bench) -> tuple[int, int]:
    key = bench.page.rows(KEY)[0]
    return int(key["closable"]), int(key["resting"])
