"""Lossless at cascade rate: producer and slow consumer are killed, nothing is lost, nothing twice.

Real processes on a real page. The producer writes as fast as the ring takes it; each side is killed
several times at moments nobody chose and started anew.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import make_bench
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.page.layout import HOLDER, LINK, SLOT
from tripgate.page.links import ring_row
from tripgate.page.mapping import Page

pytestmark = [pytest.mark.kernels, pytest.mark.jit_only]
EVENTS = 25_000
KILLS = 9
PATIENCE_NS = 90 * NS_PER_S
PRODUCER = 17
HERE = Path(__file__).parent


class Sides:
    """A producer and a consumer that are started again each time they were killed."""

    def __init__(self, page: Page, database: Path) -> None:
        script = [str(HERE / "lossless_sides.py"), str(page.folder), str(database), str(EVENTS)]
        self.maker = subprocess.Popen(
            [sys.executable, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pids = {"producer": 0, "consumer": 0}

    def start(self, side: str) -> None:
        assert self.maker.stdin is not None
        assert self.maker.stdout is not None
        print(side, file=self.maker.stdin, flush=True)
        self.pids[side] = int(self.maker.stdout.readline())

    def kill(self, side: str) -> None:
        """Kill a side and wait until it is gone: a successor begins only then."""
        pid, give_up_ns = self.pids[side], host_ns() + PATIENCE_NS
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, signal.SIGKILL)
                assert host_ns() < give_up_ns
                sleep_s(0.001)

    def close(self) -> None:
        for side in self.pids:
            if self.pids[side]:
                self.kill(side)
        self.maker.communicate()


def until(page: Page, condition: str, value: int) -> None:
    """Wait until a side has come so far."""
    give_up_ns = host_ns() + PATIENCE_NS
    while progress(page)[condition] < value:
        assert host_ns() < give_up_ns, f"{condition} stays at {progress(page)[condition]}"
        sleep_s(0.005)


def progress(page: Page) -> dict[str, int]:
    return {
        "produced": int(page.rows(SLOT)["record_sequence"][PRODUCER]),
        "applied": int(page.rows(LINK)["received"][ring_row(page, "keeper")]),
    }


@pytest.fixture
def page(isolated_folders: Path) -> Page:
    page = make_bench(isolated_folders / "page").page
    page.rows(HOLDER)["mask"][PRODUCER] = 2
    return page


@pytest.fixture
def sides(page: Page, isolated_folders: Path) -> Iterator[Sides]:
    sides = Sides(page, isolated_folders / "applied.db")
    yield sides
    sides.close()


def test_P6_lossless_link_when_both_sides_are_killed_at_will_then_none_is_lost_and_none_twice(
    page: Page, sides: Sides, isolated_folders: Path
) -> None:
    for side in sides.pids:
        sides.start(side)
    for number in range(1, KILLS + 1):
        until(page, "applied", number * EVENTS // (KILLS + 2))
        side = "producer" if number % 3 == 0 else "consumer"
        sides.kill(side)
        sides.start(side)
    until(page, "produced", EVENTS)
    database = sqlite3.connect(isolated_folders / "applied.db")
    give_up_ns = host_ns() + PATIENCE_NS
    while database.execute("SELECT max(sequence) FROM applied").fetchone()[0] != EVENTS:
        assert host_ns() < give_up_ns
        sleep_s(0.01)
    rows = database.execute("SELECT sequence, body FROM applied ORDER BY rowid").fetchall()
    database.close()
    assert rows == [(number, f"fill {number}") for number in range(1, EVENTS + 1)]
    assert page.rows(LINK)["gap"][ring_row(page, "keeper")] == 0
