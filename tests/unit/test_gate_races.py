"""What happens between two instructions of a check: trips, freezes, and words others keep moving.

The trip and the freeze are reached as in life, by another process while the check runs. Moves that
must fall between two particular instructions are put there by hand; that works in the interpreted
kernels only, where a kernel finds its helpers by name.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BTC_SCOPE,
    KEEPER,
    MARKET_MS,
    TREND,
    Bench,
    entries_in,
    make_bench,
    numbers,
)
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate import close, guards, opening, reserve, section, words
from tripgate.gate.repair import freeze, thaw
from tripgate.page import atomics
from tripgate.page.layout import (
    CLAIM,
    CONTROL_HEADER,
    KEY,
    LIMIT,
    SLOT,
    STRATEGY,
    SUM,
    THROTTLE,
)
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import DenyReason, Level

pytestmark = pytest.mark.kernels
interpreted_only = pytest.mark.skipif(
    not atomics.INTERPRETED, reason="puts a move between two instructions of a kernel"
)

BUY = ("0.01", "60000", "59000")
PATIENCE_NS = 60 * NS_PER_S
HOOKED_TRIES = 3


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


TIGHTEN = """
import mmap, os, sys
path, place, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    word = memoryview(mmap.mmap(file.fileno(), 0))[place : place + 8].cast("q")
    while os.getppid() == parent:
        for _ in range(10_000):
            word[0] += 1
"""
"""Another process that raises the trip generation as fast as it can, until its parent is gone."""


@pytest.fixture
def _tightening(bench: Bench) -> Iterator[None]:
    place = CONTROL_HEADER.offset("generation")
    command = [sys.executable, "-S", "-c", TIGHTEN, str(bench.page.folder / "control")]
    with subprocess.Popen([*command, str(place), str(os.getpid())]) as process:
        yield
        process.kill()


@pytest.mark.usefixtures("_tightening")
def test_check_when_the_gate_tightens_meanwhile_then_it_is_tripped_and_rolled_back(
    bench: Bench,
) -> None:
    handle, give_up_ns = bench.handle(), host_ns() + PATIENCE_NS
    while True:
        before = bench.shared_words()
        decision = handle.check(*BUY)
        if decision.reason is DenyReason.TRIPPED:
            break
        assert decision
        assert host_ns() < give_up_ns
        bench.settlement.reap(1 << 62)
        bench.make_durable()
        bench.settlement.free_durable()
        assert bench.sums()["portfolio"] == (0, 0, 0)
        # What a grant leaves behind when it has been released is the rate it has used.
        bench.page.rows(THROTTLE)["window"][:] = 0
    assert numbers(decision) == (DenyReason.TRIPPED, "portfolio", 0, 0, 0)
    assert bench.shared_words() == before


def test_check_when_a_level_was_set_before_it_then_no_generation_saves_it(bench: Bench) -> None:
    handle = bench.handle()
    set_level(bench.page, 0, LevelWriter.SUPERVISOR, Level.MEDIUM)
    assert handle.check(*BUY).reason is DenyReason.LEVEL


def test_check_when_a_repair_runs_then_openings_are_frozen_and_go_on_after_it(
    bench: Bench,
) -> None:
    handle, before = bench.handle(), bench.shared_words()
    freeze(bench.page, KEEPER)
    assert handle.check(*BUY).reason is DenyReason.FROZEN
    assert bench.shared_words() == before
    thaw(bench.page)
    assert handle.check(*BUY)


def test_P4_close_when_the_freeze_outlasts_its_patience_then_it_is_granted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if atomics.INTERPRETED:
        monkeypatch.setattr(section, "FREEZE_TRIES", HOOKED_TRIES)
    bench.hold(10)
    handle = bench.handle()
    freeze(bench.page, KEEPER)
    assert handle.check("-0.01", "60000")
    assert int(bench.page.rows(SLOT)["section"][bench.slots[TREND]]) % 2 == 0


Hook = Callable[[], None]


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, move: Hook) -> None:
    """Let ``move`` happen once, right after the next call of a helper."""
    helper, moves = getattr(owner, name), [move]

    def hooked(*arguments: int) -> Any:
        answer = helper(*arguments)
        if moves:
            moves.pop()()
        return answer

    monkeypatch.setattr(owner, name, hooked)


@interpreted_only
@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (
            lambda b: b.page.header.__setitem__("closed", 1),
            (DenyReason.PAGE_CLOSED, "portfolio", 0, 0, 0),
        ),
        (
            lambda b: b.page.rows(THROTTLE)["window"].__setitem__(
                TREND, ((MARKET_MS // 1000) << 16) | 5
            ),
            (DenyReason.ORDER_RATE, "strategy:trend", 5, 5, 1),
        ),
        (
            lambda b: set_level(b.page, 0, LevelWriter.BREAKER, Level.HARD),
            (DenyReason.TRIPPED, "portfolio", 0, 0, 0),
        ),
    ],
)
def test_check_when_something_moves_after_the_reserve_then_all_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, move: Callable[[Bench], None], expected: Any
) -> None:
    handle = bench.handle()
    bench.page.rows(STRATEGY)["orders_per_second_max"][TREND] = 5
    after(monkeypatch, opening, "reserve_nodes", lambda: move(bench))
    assert numbers(handle.check(*BUY)) == expected
    assert set(bench.sums().values()) == {(0, 0, 0)}
    assert not bench.page.rows(CLAIM)["lots"].any()
    assert list(entries_in(bench, words.RESERVED)) == []


def lose_swaps(monkeypatch: pytest.MonkeyPatch, word: int) -> list[int]:
    """Let every compare-and-swap of one word fail, as if another process were always first."""
    swap, lost = atomics.compare_exchange, []

    def losing(address: int, expected: int, value: int) -> int:
        if address != word:
            return swap(address, expected, value)
        lost.append(value)
        return expected + 1

    monkeypatch.setattr(atomics, "compare_exchange", losing)
    return lost


@interpreted_only
def test_check_when_a_node_is_never_still_then_it_is_frozen_and_nothing_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, before = bench.handle(), bench.shared_words()
    monkeypatch.setattr(reserve, "CAS_TRIES", HOOKED_TRIES)
    venue = bench.page.names.scope("venue:alpha")
    lost = lose_swaps(monkeypatch, bench.page.address(SUM, venue, "long_worst"))
    decision = handle.check(*BUY)
    assert (decision.reason, decision.scope) == (DenyReason.FROZEN, "venue:alpha")
    assert len(lost) == HOOKED_TRIES
    assert bench.shared_words() == before


@interpreted_only
@pytest.mark.parametrize(
    ("table", "row", "field", "reason"),
    [
        (CLAIM, 0, "lots", DenyReason.FROZEN),
        (THROTTLE, TREND, "window", DenyReason.ORDER_RATE),
    ],
)
def test_check_when_a_word_of_an_opening_is_never_still_then_it_ends_and_nothing_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, table: Any, row: int, field: str,
    reason: DenyReason,
) -> None:  # fmt: skip
    handle, before = bench.handle(), bench.shared_words()
    for module in (opening, guards):
        monkeypatch.setattr(module, "CAS_TRIES", HOOKED_TRIES)
    lost = lose_swaps(monkeypatch, bench.page.address(table, row, field))
    assert handle.check(*BUY).reason is reason
    assert len(lost) == HOOKED_TRIES
    assert bench.shared_words() == before


@interpreted_only
def test_close_when_its_closable_word_is_never_still_then_it_merges_and_holds_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(10)
    handle, before = bench.handle(), bench.shared_words()
    monkeypatch.setattr(close, "CAS_TRIES", HOOKED_TRIES)
    lose_swaps(monkeypatch, bench.page.address(KEY, 0, "closable"))
    assert handle.check("-0.01", "60000").reason is DenyReason.EXIT_IN_PROGRESS
    assert int(bench.page.rows(KEY)["exit_lots"][0]) == 10
    assert bench.shared_words() == before


@interpreted_only
def test_close_when_the_position_goes_meanwhile_then_it_is_mixed_and_holds_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(10)
    handle = bench.handle()
    after(monkeypatch, close, "find_entry", lambda: bench.hold(-10))
    decision = handle.check("-0.01", "60000")
    assert numbers(decision) == (DenyReason.MIXED, BTC_SCOPE, 0, 0, 10)
    assert int(bench.page.rows(KEY)["closable"][0]) == 0
    assert set(bench.sums().values()) == {(0, 0, 0)}


@interpreted_only
def test_settlement_when_a_closable_word_is_never_still_then_it_crashes_loudly(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "CAS_TRIES", HOOKED_TRIES)
    lose_swaps(monkeypatch, bench.page.address(KEY, 0, "closable"))
    with pytest.raises(AssertionError, match="never still"):
        bench.hold(10)


@interpreted_only
def test_overshoot_when_a_limit_is_cut_right_after_a_grant_then_it_shows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = bench.handle()
    row = bench.page.rows(LIMIT)[0]
    after(monkeypatch, opening, "take", lambda: row.__setitem__("gross_max", 1))
    assert handle.check(*BUY)
    assert int(bench.page.rows(SLOT)["overshoot_max"][bench.slots[TREND]]) == 6_000_000 - 1


def test_reservation_when_reaped_by_deadline_then_only_expired_ones_go(bench: Bench) -> None:
    assert bench.handle().check(*BUY)
    assert bench.settlement.reap(0) == []
    assert len(bench.settlement.reap(1 << 62)) == 1
    assert set(bench.sums().values()) == {(0, 0, 0)}
    assert ALPHA_ROUTER not in bench.slots
