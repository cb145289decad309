"""The benchmark of the router's socket: its guest against a real router, and what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from actors import router_peer
from benchmarks import socket as runs
from benchmarks import socket_guest as module
from tests.tree_fixtures import until
from tests.unit.guest_line import GuestDesk, open_guest_desk
from tripgate.cli.bench import bench
from tripgate.errors import DeadlineError
from tripgate.page.layout import ROLE

TRIPS = {"ping", "board", "check, approved", "check, denied"}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPGATE_STRATEGY", "trend")
    for name, value in (("BATCH", 5), ("BATCHES", 2), ("APPROVED", 3), ("PAUSE_S", 0.001)):
        monkeypatch.setattr(module, name, value)


async def let_measure(desk: GuestDesk, monkeypatch: pytest.MonkeyPatch, result: Path) -> None:
    """Run the guest in a thread, and give it its first step."""
    monkeypatch.setenv("TRIPGATE_SOCKET", desk.page.names.sockets["sim"])
    monkeypatch.setattr("sys.argv", ["socket_guest", str(result)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, module.main)
        await until(lambda: bool(desk.router.guests._guests))
        desk.page.header["step"] = 0
        desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 0
        desk.router.guests.turn()


@pytest.mark.usefixtures("_small")
async def test_guest_when_it_measures_then_each_round_trip_has_its_figures(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = isolated_folders / "figures.json"
    async with open_guest_desk(isolated_folders) as desk:
        await let_measure(desk, monkeypatch, result)
    figures = json.loads(result.read_text())
    assert set(figures) == TRIPS
    assert figures["ping"]["singles"] == 10
    assert figures["check, approved"]["singles"] == 3
    assert all(0 < trip["p50_ns"] <= trip["p99_ns"] for trip in figures.values())


@pytest.mark.usefixtures("_small")
async def test_guest_when_the_gate_denies_what_is_measured_then_it_says_so(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = isolated_folders / "figures.json"
    async with open_guest_desk(isolated_folders) as desk:
        desk.page.header["closed"] = 1
        with pytest.raises(DeadlineError, match="the gate denied what was to be measured"):
            await let_measure(desk, monkeypatch, result)
    assert not result.exists()


def test_batch_when_measured_then_it_fits_the_burst_that_the_router_grants() -> None:
    assert module.BATCH < router_peer.BURST_REQUESTS
    assert module.PAUSE_S * router_peer.REQUESTS_PER_SECOND_MAX > module.BATCH


def test_bench_when_the_socket_was_measured_then_it_prints_a_line_for_each_round_trip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trip = {"p50_ns": 81_400.0, "p99_ns": 710_000.0, "max_ns": 6_665_000.0}
    result: dict[str, Any] = {"schema": 1, "load_average": 1.5, "round_trips": {"ping": trip}}
    monkeypatch.setattr(runs, "run_socket", lambda: result)
    assert bench("socket") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ping            81   710  6665", "load 1.5",
    ]  # fmt: skip
    assert bench("socket", json=True) == 0
    assert json.loads(capsys.readouterr().out) == result
