"""The suspend detector, and the supervisor that closes the gate when the host has slept."""

import pytest

from supervisors import supervisor as module
from supervisors.supervisor import Supervisor
from supervisors.suspend import SLEPT_NS, SuspendDetector
from tests.tree_fixtures import byte_of, paper_page, records
from tripgate.clock import NS_PER_S, boot_ns, host_ns
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter
from tripgate.reasons import Level


def test_detector_when_both_clocks_run_alike_then_nothing_was_slept() -> None:
    detector = SuspendDetector(100, 700)
    assert detector.slept_ns(100 + 9 * NS_PER_S, 700 + 9 * NS_PER_S + SLEPT_NS - 1) == 0


def test_detector_when_the_host_slept_then_it_is_told_once() -> None:
    detector = SuspendDetector(0, 0)
    assert detector.slept_ns(5, 5 + 3 * NS_PER_S) == 3 * NS_PER_S
    assert detector.slept_ns(6, 6 + 3 * NS_PER_S) == 0


def test_detector_when_this_host_is_awake_then_its_clocks_agree() -> None:
    assert SuspendDetector(host_ns(), boot_ns()).slept_ns(host_ns(), boot_ns()) == 0


async def test_P3_supervisor_when_the_host_slept_then_the_portfolio_closes_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = paper_page()
    supervisor = Supervisor(page, {}, None)  # type: ignore[arg-type]  # starts no child here
    asleep_ns = boot_ns() + 60 * NS_PER_S
    monkeypatch.setattr(module, "boot_ns", lambda: asleep_ns)
    supervisor.look_for_suspend(host_ns())
    assert byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.MEDIUM
    told = [body for kind, body in records(page, 0) if kind is EventKind.ESCALATED]
    assert told[0]["scope"] == "portfolio"
    supervisor.calm_down(host_ns())
    assert byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.MEDIUM
    supervisor.calm_down(host_ns() + 2 * module.STEADY_NS)
    assert byte_of(page, 0, LevelWriter.SUPERVISOR) == Level.NORMAL
    supervisor.close()
