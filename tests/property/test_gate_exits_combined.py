"""P4 over every combination: whatever stands against trading, a close is granted or merged.

Ten conditions, each there or not, make 1024 pages. On each the same closes are asked for; the only
answers allowed are a token, if the lots are free to be held and no exit is under way, and otherwise
the merged exit with a wish that covers them.
"""

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from tests.gate_fixtures import BTC, KEEPER, MARKET_MS, SCOPES, TREND, Bench, unlinked_bench
from tripgate.gate.exits import issue_stop, wish_exit
from tripgate.gate.words import closable_parts
from tripgate.page import atomics
from tripgate.page.layout import (
    CONTROL_HEADER,
    KEY,
    LIMIT,
    RING_BYTES,
    RING_EXIT_RESERVE,
    SLOT,
    STRATEGY,
)
from tripgate.page.lease import LeaseHolder
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason, Level

pytestmark = pytest.mark.kernels

HELD, RESTING = 100, 60
TINY_TICKS = 1
STOP_TICKS = 590_000
CLOSES = (30, 50, 100, 1)
"""Lots asked for one after the other: some fit beside what rests already, some do not."""


def emergency(bench: Bench) -> None:
    for node in range(len(SCOPES)):
        set_level(bench.page, node, LevelWriter.OPERATOR, Level.EMERGENCY)


def lapsed_leases(bench: Bench) -> None:
    for role in range(len(bench.page.names.roles)):
        LeaseHolder(bench.page, role).give_up_stale()


def exhausted_throttle(bench: Bench) -> None:
    plans = bench.page.rows(STRATEGY)
    plans["orders_per_second_max"] = plans["attempts_per_second_max"] = 0
    plans["repeats_max"], plans["repeat_window_ms"] = 1, 10_000
    plans["duplicate_window_ms"] = 10_000


def exhausted_limit(bench: Bench) -> None:
    for name in ("gross_max", "net_max", "margin_max"):
        bench.page.rows(LIMIT)[name] = 0


def full_ring(bench: Bench) -> None:
    """Fill the part of the client's ring that openings and denials may use."""
    slot = bench.slots[TREND]
    writer, bound = RingWriter(bench.page, slot), RING_BYTES - RING_EXIT_RESERVE
    while int(bench.page.rows(SLOT)["ring_head"][slot]) < bound:
        assert writer.append(99, b"x" * 4_064, 0, 0)


def running_repair(bench: Bench) -> None:
    atomics.store(bench.page.address(CONTROL_HEADER, 0, "freeze"), 1)


def tiny_notional(bench: Bench) -> None:
    bench.mark(BTC, TINY_TICKS)


def pending_stop(bench: Bench) -> None:
    assert issue_stop(bench.page, RingWriter(bench.page, KEEPER), 0, STOP_TICKS, MARKET_MS)


def pending_close(bench: Bench) -> None:
    assert bench.handle().check_raw(-RESTING, 600_010, 0) > 0


def flatten_under_way(bench: Bench) -> None:
    assert wish_exit(bench.page, 0, int(Level.HARD), MARKET_MS)


AGAINST: tuple[Callable[[Bench], None], ...] = (
    pending_stop, pending_close, flatten_under_way, tiny_notional, full_ring, emergency,
    lapsed_leases, exhausted_throttle, exhausted_limit, running_repair,
)  # fmt: skip
"""In an order in which each can still be brought about after those before it."""


def combinations(half: int) -> Iterator[tuple[Callable[[Bench], None], ...]]:
    """Yield every set of conditions whose last one is there (1) or not (0)."""
    for chosen in product((False, True), repeat=len(AGAINST) - 1):
        flags = (*chosen, bool(half))
        yield tuple(act for act, there in zip(AGAINST, flags, strict=True) if there)


@pytest.mark.jit_only
@pytest.mark.parametrize("frozen", [0, 1], ids=["", "during a repair"])
def test_P4_close_when_any_combination_stands_against_it_then_it_is_granted_or_merged(
    frozen: int,
) -> None:
    tried = 0
    for acts in combinations(frozen):
        bench = unlinked_bench()
        handle = bench.handle()
        bench.hold(HELD)
        for act in acts:
            act(bench)
        resting = RESTING if pending_close in acts else 0
        claimed = flatten_under_way in acts
        for lots in CLOSES:
            fits = not claimed and lots + resting <= HELD
            claimed, resting = not fits, resting + lots * fits
            expect_exit(bench, handle.check_raw(-lots, 0, 0), lots, fits, acts)
            assert closable_parts(int(bench.page.rows(KEY)["closable"][0])) == (HELD, resting)
        tried += 1
    assert tried == 2 ** (len(AGAINST) - 1)


def expect_exit(
    bench: Bench, answer: int, lots: int, fits: bool, acts: tuple[Callable[[Bench], None], ...]
) -> None:
    """Compare an answer, and the wish it left in the page, with what the promise says."""
    case = (lots, [act.__name__ for act in acts])
    if fits:
        assert answer > 0, (DenyReason(-answer).name, case)
        return
    assert answer == -DenyReason.EXIT_IN_PROGRESS, (answer, case)
    row = bench.page.rows(KEY)[0]
    assert int(row["exit_claim"]) == 1, case
    assert int(row["exit_lots"]) >= lots, case


def test_P4_opening_when_any_one_condition_stands_against_it_then_it_is_denied() -> None:
    """What the closes above overcame is really in the way of openings."""
    harmless = {tiny_notional, pending_stop, pending_close}
    for act in AGAINST:
        bench = unlinked_bench()
        handle = bench.handle()
        bench.hold(HELD)
        act(bench)
        price = TINY_TICKS if act is tiny_notional else 600_000
        answer = handle.check_raw(1, price, price * 98 // 100)
        if act not in harmless:
            assert answer < 0, act.__name__
