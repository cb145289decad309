"""One rogue client beside an honest one: it may cost the honest one time, and nothing else.

The honest client asks the same questions three times: alone, and beside a rogue process that floods
the gate with denials until its ring is full, takes every entry and gives none back, or dies in a
loop. Each of its decisions must be the one it would get alone, whole and in order.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.gate_fixtures import BETA_BTC, BTC, ETH, HEDGE, MARKS, TREND, Bench, make_bench
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.gate.commit import commit, find_reserved
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.repair import died_inside, freeze, rebuild, thaw, truth_of_page
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.layout import ROLE_SLOTS, SLOT, STRATEGY
from tripgate.page.mapping import open_page
from tripgate.reasons import DenyReason

pytestmark = [pytest.mark.kernels, pytest.mark.jit_only]

UNIT = 6_000_000
QUESTIONS = 400
DEATHS = 4
PATIENCE_NS = 60 * NS_PER_S
ROGUE_LOTS = 1
FLOOD, HOARD = "flood", "hoard"
KEEPER_SLOT = 1
Verdict = tuple[int, int, int, int, tuple[int, int, int]]
"""Instrument, lots, answer (1 for any token), position before, sums of the strategy after."""
HONEST_LIMITS = {"strategy:hedge": 3 * UNIT, "instrument:beta/BTC/USDT:USDT": 2 * UNIT}
"""Limits of scopes that the rogue does not trade in: those bind the honest client alone."""


def rogue(folder: str, manner: str) -> None:
    """Misbehave until killed: the strategy trend, on bitcoin at alpha. Runs in its own process."""
    page = open_page(Path(folder))
    slot = claim_strategy_slot(page, TREND)
    handle = InstrumentHandle(page, slot, page.names.keys.index((TREND, BTC)))
    stop = MARKS[BTC] * 98 // 100
    while True:
        if manner == HOARD:
            handle.check_raw(ROGUE_LOTS, MARKS[BTC], stop)
            continue
        # No two alike in a row, so that they cannot merge and each wants its place in the ring.
        for size in range(1, 100):
            handle.check_raw(10**9 + size, MARKS[BTC], stop)


class Honest:
    """The strategy hedge on ether and at beta, and the tree that serves it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        for scope, gross in HONEST_LIMITS.items():
            bench.limit(scope, gross=gross)
        # The rogue's own attempt throttle would tame it: here it is let loose.
        bench.page.rows(STRATEGY)["attempts_per_second_max"][TREND] = 10**6
        self.handles = {place: bench.handle(place, HEDGE) for place in (ETH, BETA_BTC)}
        self.draw = np.random.default_rng(5)

    def ask(self) -> Verdict:
        """Ask one random question and let the venue fill or end what was granted."""
        draw, bench = self.draw, self.bench
        place, lots = int(draw.choice([ETH, BETA_BTC])), int(draw.integers(1, 40))
        share, fills = int(draw.integers(1, 4)), bool(draw.integers(2))
        handle = self.handles[place]
        held = handle.position_lots
        if held and draw.random() < 0.4:
            lots = -max(1, held // share)
        stop = 0 if lots < 0 else MARKS[place] * int(draw.choice([98, 98, 98, 101])) // 100
        answer = handle.check_raw(lots, MARKS[place], stop)
        if answer > 0:
            order = find_reserved(bench.page, answer, bench.slots[HEDGE])
            assert order is not None
            assert commit(bench.page, order)
            if fills:
                key = bench.key(place, HEDGE)
                entry = bench.settlement.find(answer)
                bench.settlement.fill(key, entry, lots, bench.worth(place, held + lots))
            assert bench.settlement.release(answer)
        self.serve()
        return (place, lots, min(answer, 1), held, bench.sums()["strategy:hedge"])

    def serve(self) -> None:
        """Drain the own ring, leave the rogue's as it is, repair after the dead."""
        page, slot = self.bench.page, self.bench.slots[HEDGE]
        rings = page.rows(SLOT)["ring_head"]
        if rings[slot] > 1 << 16:
            self.bench.make_durable()
        self.bench.settlement.free_durable()
        if died_inside(page):
            freeze(page, KEEPER_SLOT)
            rebuild(page, truth_of_page(page))
            thaw(page)


@contextmanager
def rogues(bench: Bench, manner: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a rogue and wait until it is at it."""
    code = "import sys; from tests.property.test_gate_rogue import rogue; rogue(*sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(bench.page.folder), manner],
        cwd=Path(__file__).parents[2],
    )
    try:
        reason = DenyReason.ENTRIES_FULL if manner == HOARD else DenyReason.RING_FULL
        wait_until_denied(bench, process, reason)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_denied(bench: Bench, process: "subprocess.Popen[bytes]", reason: DenyReason) -> None:
    """Wait until the rogue has run into the bound that stops it."""
    slots, give_up_ns = bench.page.rows(SLOT), host_ns() + PATIENCE_NS
    while not (slots["denied"][slots["pid"] == process.pid, reason] > 0).any():
        assert process.poll() is None
        assert host_ns() < give_up_ns, "the rogue does not get going"
        sleep_s(0.01)


def decisions_alone(folder: Path) -> list[Verdict]:
    honest = Honest(make_bench(folder))
    return [honest.ask() for _ in range(QUESTIONS)]


@pytest.mark.parametrize("manner", [FLOOD, HOARD])
def test_P2_honest_client_when_a_rogue_floods_or_hoards_then_its_decisions_are_those_alone(
    isolated_folders: Path, manner: str
) -> None:
    alone = decisions_alone(isolated_folders / "alone")
    assert {answer for _, _, answer, *_ in alone} >= {1, -DenyReason.GROSS_LIMIT}
    bench = make_bench(isolated_folders / "beside")
    honest = Honest(bench)
    with rogues(bench, manner) as process:
        before = attempts_of(bench, process)
        assert [honest.ask() for _ in range(QUESTIONS)] == alone
        wait_for_attempts(bench, process, before)
    if manner == HOARD:
        # It never gives back; the reaper does, once the reservations have expired.
        assert len(bench.settlement.reap(1 << 62)) > 0
        assert bench.sums()["strategy:trend"] == (0, 0, 0)


def attempts_of(bench: Bench, process: "subprocess.Popen[bytes]") -> int:
    slots = bench.page.rows(SLOT)
    return int(slots["denied"][slots["pid"] == process.pid].sum())


def wait_for_attempts(bench: Bench, process: "subprocess.Popen[bytes]", before: int) -> None:
    """Wait until the rogue has gone on misbehaving meanwhile."""
    give_up_ns = host_ns() + PATIENCE_NS
    while attempts_of(bench, process) <= before:
        assert host_ns() < give_up_ns, "the rogue was not at it"
        sleep_s(0.01)


def test_P2_honest_client_when_a_rogue_dies_in_a_loop_then_its_decisions_are_those_alone(
    isolated_folders: Path,
) -> None:
    alone = decisions_alone(isolated_folders / "alone")
    bench = make_bench(isolated_folders / "beside", slots=ROLE_SLOTS + DEATHS + 1)
    honest = Honest(bench)
    beside: list[Verdict] = []
    for _ in range(DEATHS):
        with rogues(bench, HOARD) as process:
            beside += [honest.ask() for _ in range(QUESTIONS // DEATHS)]
            process.send_signal(signal.SIGKILL)
            process.wait()
        bench.settlement.reap(1 << 62)
    beside += [honest.ask() for _ in range(QUESTIONS - len(beside))]
    assert beside == alone
    assert bench.sums()["strategy:trend"] == (0, 0, 0)
    assert not (bench.page.rows(SLOT)["section"] & 1).any()
