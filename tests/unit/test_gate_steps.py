"""Lock-step: whose turn it is, who is waited for, and how a strategy's loop ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import (
    BREAKER,
    BTC,
    ETH,
    HEDGE,
    MARKET_MS,
    TREND,
    Bench,
    make_bench,
)
from tripgate.gate.client import Gate
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.steps import StepClock, Tick, participants, strategies_done
from tripgate.page.board import Quote, write_quote
from tripgate.page.layout import ROLE, ROLE_SLOTS, SLOT, STRATEGY
from tripgate.page.level import LevelWriter, set_level
from tripgate.processes import process_start_time
from tripgate.reasons import Level

pytestmark = pytest.mark.kernels
BOUND_S = 20


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    bench = make_bench(isolated_folders / "page")
    bench.page.header["replay"] = 1
    return bench


def attach(bench: Bench, strategy: int) -> int:
    """Make this process a participant of the lock-step; return its slot."""
    slot = claim_strategy_slot(bench.page, strategy)
    bench.page.rows(SLOT)["participating"][slot] = 1
    return slot


def publish(bench: Bench, step: int, *instruments: int) -> None:
    """Let market_feed and breaker do a step with ticks of some instruments."""
    for instrument in instruments:
        write_quote(bench.page, instrument, Quote(5, 5, 5, 5, MARKET_MS + step, step, 0), 0)
    bench.page.header["market_ms"], bench.page.header["step"] = MARKET_MS + step, step
    bench.page.rows(ROLE)["step"][BREAKER] = step


def test_participants_when_listed_then_living_ones_in_acting_order(bench: Bench) -> None:
    hedge, trend = attach(bench, HEDGE), attach(bench, TREND)
    silent, dead = claim_strategy_slot(bench.page, TREND), attach(bench, TREND)
    bench.page.rows(SLOT)["start_time"][dead] -= 1
    assert participants(bench.page) == [trend, hedge]
    bench.page.rows(STRATEGY)["order"][TREND] = 5
    assert participants(bench.page) == [hedge, trend]
    bench.page.rows(STRATEGY)["dropped"][HEDGE] = 1
    assert participants(bench.page) == [trend]
    assert silent not in participants(bench.page)


def test_strategies_when_one_lags_or_is_absent_then_the_step_is_not_done(bench: Bench) -> None:
    steps = bench.page.rows(SLOT)["step"]
    trend = attach(bench, TREND)
    steps[trend] = 3
    assert not strategies_done(bench.page, 3)
    hedge = attach(bench, HEDGE)
    assert not strategies_done(bench.page, 3)
    steps[hedge] = 4
    assert strategies_done(bench.page, 3)
    assert not strategies_done(bench.page, 4)
    second = attach(bench, TREND)
    assert not strategies_done(bench.page, 3)
    steps[second] = 3
    assert strategies_done(bench.page, 3)
    bench.page.rows(STRATEGY)["dropped"][TREND] = 1
    assert strategies_done(bench.page, 4)


@pytest.fixture
def clock(bench: Bench) -> Iterator[StepClock]:
    clock = StepClock(bench.page, attach(bench, HEDGE), HEDGE)
    yield clock
    clock.close()


def test_ticks_when_the_step_at_hand_is_ours_then_it_comes_first_with_what_ticked(
    bench: Bench, clock: StepClock
) -> None:
    publish(bench, 7, BTC)
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.SOFT)
    ticks = clock.ticks()
    tick = next(ticks)
    assert isinstance(tick, Tick)
    assert (tick.step, tick.market_ms, tick.level) == (7, MARKET_MS + 7, Level.SOFT)
    assert list(tick.quotes) == [("alpha", "BTC/USDT:USDT")]
    row = bench.page.rows(SLOT)[ROLE_SLOTS]
    assert (int(row["step"]), int(row["participating"])) == (6, 1)
    bench.page.header["feed_finished"] = 1
    assert next(ticks, None) is None
    assert int(row["step"]) == 7


def test_ticks_when_the_instance_ends_then_the_loop_ends(bench: Bench, clock: StepClock) -> None:
    publish(bench, 7, BTC)
    bench.page.header["ended"] = 1
    assert list(clock.ticks()) == []


def test_ticks_when_it_is_anothers_turn_then_we_wait_for_it(bench: Bench, clock: StepClock) -> None:
    trend = attach(bench, TREND)
    publish(bench, 7, ETH)
    bench.page.rows(SLOT)["step"][trend] = 6
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(tick.step for tick in clock.ticks()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert got == []
    bench.page.rows(SLOT)["step"][trend] = 7
    bench.page.header["feed_finished"] = 1
    thread.join(BOUND_S)
    assert got == [7]


def test_ticks_when_data_is_live_then_nobody_is_waited_for(bench: Bench, clock: StepClock) -> None:
    bench.page.header["replay"] = 0
    attach(bench, TREND)
    publish(bench, 7, ETH)
    assert next(clock.ticks()).step == 7


def test_ticks_when_the_one_before_us_is_dropped_or_finished_then_it_is_our_turn(
    bench: Bench, clock: StepClock
) -> None:
    trend = attach(bench, TREND)
    publish(bench, 7, ETH)
    bench.page.rows(SLOT)["step"][trend] = 7
    # A later slot of an earlier strategy: it has done this step already.
    assert next(clock.ticks()).step == 7
    bench.page.rows(SLOT)["pid"][ROLE_SLOTS] = 0
    assert clock._turn._is_my_turn(8) is False
    bench.page.rows(STRATEGY)["dropped"][TREND] = 1
    assert clock._turn._is_my_turn(8) is True


def test_ticks_when_the_tree_dies_then_the_loop_ends(bench: Bench) -> None:
    root = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    bench.page.header["owner_pid"] = root.pid
    bench.page.header["owner_start"] = process_start_time(root.pid)
    bench.page.header["armed"] = 0
    with Gate(bench.page, claim_strategy_slot(bench.page, TREND), TREND) as gate:
        ticks = gate.ticks()
        os.kill(root.pid, signal.SIGKILL)
        assert list(ticks) == []
        assert list(gate.ticks()) == []
    root.communicate()
    assert [path.name for path in bench.page.folder.glob("bell-*")] == []
