"""A repairer that dies: at whatever line, the next one ends its work."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tests.gate_fixtures import KEEPER, Bench
from tests.unit.ruins import (
    a_bit_of_everything,
    die_in_a_check,
    die_in_an_exit,
    margin_bench,
    mend,
    plain_sums,
    spoil,
    stored_sums,
    unposted,
)
from tripgate.gate import recount, repair
from tripgate.gate.repair import freeze, thaw
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, COUNTERS_HEADER, ENTRY, KEY, SLOT, SUM

pytestmark = [pytest.mark.kernels, pytest.mark.jit_only]
DEATHS = 250
TABLES_IN_RUINS = (SUM, CLAIM, KEY, SLOT, ENTRY)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return margin_bench(isolated_folders / "page")


class Ruin:
    """A page in ruins that can be brought back as often as one likes."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.truth = bench, a_bit_of_everything(bench)
        freeze(bench.page, KEEPER)
        closing = bench.handle().check("-0.004", "60000")
        assert closing.approved
        die_in_a_check(bench)
        die_in_an_exit(bench)
        spoil(bench)
        thaw(bench.page)
        self._saved = {table: bench.page.rows(table).copy() for table in TABLES_IN_RUINS}
        self._unposted = unposted(bench)

    def bring_back(self) -> None:
        for table, rows in self._saved.items():
            self.bench.page.rows(table)[:] = rows
        address = self.bench.page.address(COUNTERS_HEADER, 0, "unposted")
        atomics.store(address, self._unposted)

    def words(self) -> tuple[object, ...]:
        slots = self.bench.page.rows(SLOT)
        odd = bool(((slots["section"] | slots["exit_section"]) & 1).any())
        frozen = int(self.bench.page.header["freeze"])
        return (*self.bench.shared_words(), unposted(self.bench), odd, frozen)


def in_a_child(work: Callable[[], None]) -> int:
    """Run something in a forked child and return its exit code (−9: it was killed)."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(autouse=True)
def _unmeasured_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare hundreds of children, which are killed anyway, the start of a coverage measurement."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def test_repair_when_the_repairer_dies_at_any_line_then_the_next_one_ends_its_work(
    bench: Bench,
) -> None:
    ruin = Ruin(bench)
    mend(bench, ruin.truth)
    expected = ruin.words()
    assert expected[-3:] == (1, False, 0)
    assert plain_sums(bench.page) == stored_sums(bench.page)
    files = {recount.__file__, repair.__file__}
    counted = np.frombuffer(bench.page.bytes_of(SLOT, 15), np.int64)

    def dying_at(last: int) -> Callable[[], None]:
        left = last

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        def work() -> None:
            sys.settrace(trace)
            mend(bench, ruin.truth)
            sys.settrace(None)
            counted[-1] = last - left

        return work

    ruin.bring_back()
    assert in_a_child(dying_at(10**9)) == 0
    lines = int(counted[-1])
    assert lines > DEATHS
    for death in np.linspace(1, lines, DEATHS).astype(int).tolist():
        ruin.bring_back()
        assert in_a_child(dying_at(death)) == -signal.SIGKILL
        assert int(bench.page.header["freeze"]) or death == 1 or ruin.words()[:-1] == expected[:-1]
        mend(bench, ruin.truth)
        assert ruin.words() == expected, f"the repairer died at line {death} of {lines}"
    assert bench.settlement.post_exits() == 1
    assert plain_sums(bench.page) == stored_sums(bench.page)
