"""P2 with real processes: three of them hammer the same nodes while each is killed in turn.

This process plays the tree: it reaps, drains, keeps the market moving and looks at every node. It
is the keeper's way to act on live clients, so the sums it sees are the sums a check sees.
"""

import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import (
    HEDGE,
    KEEPER,
    MARKET_MS,
    MARKS,
    RATE_MAX,
    TREND,
    Bench,
    make_bench,
)
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.repair import Truth, freeze, rebuild, thaw
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import (
    CLAIM,
    ENTRY,
    LIMIT,
    ROLE_SLOTS,
    SLOT,
    SUM,
    THROTTLE,
    WATERMARK,
)
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.ring import RingReader
from tripgate.processes import process_start_time
from tripgate.reasons import Level

pytestmark = [pytest.mark.kernels, pytest.mark.jit_only]

STRATEGIES = (TREND, HEDGE, TREND)
SLOTS = range(ROLE_SLOTS, ROLE_SLOTS + len(STRATEGIES))
GROSS = {"portfolio": 40_000_000, "venue:alpha": 30_000_000, "asset:BTC": 26_000_000}
NET = {"portfolio": 24_000_000, "strategy:trend": 20_000_000, "asset:ETH": 6_000_000}
PATIENCE_NS = 60 * NS_PER_S
OBSERVATIONS = 120
TRIPS = 5
STEP_MS = 1_000


class Tree:
    """Reaps, drains, ticks and observes."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.page = bench, bench.page
        self.reader = RingReader(bench.page, "audit")
        self.sequences: dict[int, int] = defaultdict(int)
        self.tokens: dict[int, list[int]] = defaultdict(list)
        self.market_ms = MARKET_MS
        self.used_most = 0

    def turn(self) -> None:
        """Do one round of everything and look at every node before, between and after."""
        self.observe()
        self.bench.settlement.reap(1 << 62)
        self.observe()
        self.drain()
        self.bench.settlement.free_durable()
        self.market_ms += STEP_MS
        for instrument, mark in enumerate(MARKS):
            self.bench.mark(instrument, mark, self.market_ms)
        self.page.header["market_ms"] = self.market_ms
        self.observe()

    def observe(self) -> None:
        """Compare every node's words with its limits, every throttle with its rate."""
        sums, limits = self.page.rows(SUM), self.page.rows(LIMIT)
        for name, limit in (
            ("gross", "gross_max"), ("long_worst", "net_max"), ("short_worst", "net_max"),
        ):  # fmt: skip
            words = sums[name].copy()
            assert (words <= limits[limit]).all(), (name, words)
            assert (words >= 0).all(), (name, words)
            self.used_most = max(self.used_most, int((words * 100 // limits[limit]).max()))
        used = self.page.rows(THROTTLE)["window"].copy() & 0xFFFF
        assert (used <= RATE_MAX).all()

    def drain(self) -> None:
        """Read every ring as audit_writer does: sequences without a gap, no token twice."""
        for slot in SLOTS:
            frames = list(self.reader.read(slot))
            for frame in frames:
                assert frame.kind in (EventKind.DECISION, EventKind.DENIALS_MERGED)
                assert frame.sequence == self.sequences[slot] + 1
                self.sequences[slot] = frame.sequence
                token = int.from_bytes(frame.payload[:8], "little")
                if token and frame.kind == EventKind.DECISION:
                    self.tokens[slot].append(token)
            if frames:
                self.page.rows(WATERMARK)["sequence"][slot] = frames[-1].sequence
                self.reader.release(slot, frames[-1].end)

    def approved(self, slot: int) -> int:
        """Return how many orders a slot's owner was granted."""
        return int(self.page.rows(SLOT)["approved"][slot])

    def wait_for_grants(self, slots: set[int]) -> None:
        """Turn until each of the slots has been granted something from now on."""
        before, give_up_ns = {slot: self.approved(slot) for slot in slots}, host_ns() + PATIENCE_NS
        while not all(self.approved(slot) > before[slot] for slot in slots):
            assert host_ns() < give_up_ns, "no grants any more"
            self.turn()

    def wait_until_outside(self, slots: set[int]) -> None:
        """Wait until each of the slots has been seen outside its section."""
        give_up_ns = host_ns() + PATIENCE_NS
        while slots:
            slots = {s for s in slots if int(self.page.rows(SLOT)["section"][s]) & 1}
            assert host_ns() < give_up_ns, f"slots {slots} stay inside"

    def repair(self) -> None:
        """Do what the keeper does at its start, and prove the result by plain addition."""
        freeze(self.page, KEEPER)
        rebuild(self.page, Truth({}, {}, {}))
        entries = self.page.rows(ENTRY)
        live = entries["word"] & 0xFF != 0
        assert int(self.page.rows(SUM)["gross"][0]) == int(entries["charged"][live].sum())
        signed = entries["remaining"] * (2 * (entries["lots"] > 0) - 1) * live
        for instrument, lots in enumerate(self.page.rows(CLAIM)["lots"]):
            assert int(lots) == int(signed[entries["instrument"] == instrument].sum())
        thaw(self.page)


@pytest.fixture
def tree(isolated_folders: Path) -> Tree:
    bench = make_bench(isolated_folders / "page")
    for scope, gross in GROSS.items():
        bench.limit(scope, gross=gross)
    for scope, net in NET.items():
        bench.limit(scope, net=net)
    return Tree(bench)


@pytest.fixture
def hammers(tree: Tree) -> Iterator[dict[int, "subprocess.Popen[bytes]"]]:
    """Start the three and wait until each has been granted something; yield them by slot."""
    code = "import sys; from tests.gate_fixtures import hammer; hammer(sys.argv[1], {}, {})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(strategy, seed), str(tree.page.folder)],
            cwd=Path(__file__).parents[2],
        )
        for seed, strategy in enumerate(STRATEGIES)
    ]
    try:
        tree.wait_for_grants(set(SLOTS))
        owners = {int(tree.page.rows(SLOT)["pid"][slot]): slot for slot in SLOTS}
        yield {owners[process.pid]: process for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def trip_under_fire(tree: Tree, slots: set[int]) -> None:
    """P3: trip the portfolio while everybody asks; not one grant follows until it is loosened."""
    for _ in range(TRIPS):
        set_level(tree.page, 0, LevelWriter.SUPERVISOR, Level.MEDIUM)
        # A check whose second look at the generation came before the trip may still grant.
        tree.wait_until_outside(slots)
        before = {slot: tree.approved(slot) for slot in slots}
        for _ in range(OBSERVATIONS // TRIPS):
            tree.turn()
        assert {slot: tree.approved(slot) for slot in slots} == before
        set_level(tree.page, 0, LevelWriter.SUPERVISOR, Level.NORMAL)
        tree.wait_for_grants(slots)


def kill(tree: Tree, process: "subprocess.Popen[bytes]") -> None:
    """End a process wherever it is, after it has been watched for a while."""
    for _ in range(OBSERVATIONS):
        tree.turn()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process_start_time(process.pid) == 0


def test_P2_gate_when_processes_hammer_it_and_are_killed_then_no_node_passes_its_limit(
    tree: Tree, hammers: dict[int, "subprocess.Popen[bytes]"]
) -> None:
    alive = set(hammers)
    trip_under_fire(tree, alive)
    first, second, last = hammers
    for slot in (first, second):
        kill(tree, hammers[slot])
        alive.discard(slot)
        tree.repair()
        tree.wait_for_grants(alive)
    tree.page.header["ended"] = 1
    assert hammers[last].wait(PATIENCE_NS // NS_PER_S) == 0
    for _ in range(2):
        tree.turn()
    assert set(tree.bench.sums().values()) == {(0, 0, 0)}
    assert not tree.page.rows(CLAIM)["lots"].any()
    assert tree.used_most > 90
    for slot in SLOTS:
        assert len(set(tree.tokens[slot])) == len(tree.tokens[slot])
        # Killed between recording and counting, it may have one more than it counted.
        assert abs(len(tree.tokens[slot]) - tree.approved(slot)) <= (slot != last)
        assert int(tree.page.rows(SLOT)["overshoot_max"][slot]) <= 0
    assert [claim_strategy_slot(tree.page, TREND) for _ in SLOTS] == list(SLOTS)
