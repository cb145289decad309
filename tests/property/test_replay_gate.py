"""Whatever the real kernels decide on random pages, the replay decides the same from the record."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.gate_machine import Trading
from tests.property.gate_model import Pair
from tests.property.gate_weather import Weather
from tripgate.clock import host_ns
from tripgate.messages import EventKind
from tripgate.page.ring import Frame, RingReader
from tripgate.page.terms import sheet
from tripgate.reasons import DenyReason
from tripgate.replay.decide import redecide
from tripgate.replay.decided import REASONS, Decidable, read_decision
from tripgate.replay.terms import RunTerms, Terms

pytestmark = pytest.mark.kernels
EXAMPLES = settings(max_examples=12, stateful_step_count=40, deadline=None)
SEEN: set[DenyReason | None] = set()


class Replayed(Trading):
    """The trading machine, each of whose decisions is decided again at once."""

    def check(self, pair: Pair, lots: int, price: int, stop: int) -> None:
        """Ask the gate and the model, then the replay."""
        candidates = self.terms()
        self.make_places(pair[0])
        read = {slot: self.newest(slot) for slot in self.bench.slots.values()}
        super().check(pair, lots, price, stop)
        slot = self.bench.slots[pair[0]]
        for frame in RingReader(self.page, "audit").read(slot):
            if frame.sequence > read.get(slot, 0) and frame.kind == EventKind.DECISION:
                self.replay(frame, candidates)

    def newest(self, slot: int) -> int:
        """Return the number of a slot's last record."""
        return max((f.sequence for f in RingReader(self.page, "audit").read(slot)), default=0)

    def terms(self) -> list[Terms]:
        """Return the terms as a log would tell them now."""
        told, names = RunTerms(), self.page.names
        told.number("strategies", 0, list(names.strategies))
        told.number("instruments", 0, [f"{n.venue}/{n.symbol}" for n in names.instruments])
        for body in sheet(self.page):
            told.take(body, host_ns())
        return told.states

    def replay(self, frame: Frame, candidates: list[Terms]) -> None:
        """Decide a record again; it must agree, and fully where its reason can be."""
        told = read_decision(frame.payload)
        found = redecide(told, frame.slot, candidates, on_shadow_page=False)
        assert found.is_judged
        assert found.difference is None, told
        SEEN.add(told.reason)
        if told.reason is None:
            assert not found.is_partly
        elif REASONS[told.reason][0] is Decidable.FULLY and told.reason is not DenyReason.MIXED:
            assert not found.is_partly


class ReplayedWeather(Replayed, Weather):
    """The same while marks, rates, levels, factors and leases move."""


@pytest.mark.parametrize("machine", [Replayed, ReplayedWeather])
def test_P6_gate_when_it_has_decided_anything_then_the_replay_decides_the_same(
    machine: type[Replayed],
) -> None:
    run_state_machine_as_test(machine, settings=EXAMPLES)
    assert len(SEEN) > 3
