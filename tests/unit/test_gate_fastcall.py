"""The ways to call the check from Python: each answers alike, and none touches a page in error."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate_fixtures import TREND, Bench, make_bench
from tripgate.errors import UsageError
from tripgate.gate import fastcall
from tripgate.gate.check import BATCH_MAX
from tripgate.page import atomics
from tripgate.page.layout import SLOT
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels

BUY = (10, 600_000, 590_000)
ROUTES = ("dispatcher",) if atomics.INTERPRETED else ("fastcall", "entry_point", "dispatcher")
compiled_only = pytest.mark.skipif(
    atomics.INTERPRETED, reason="the builtin is made of compiled code, which this pass does not use"
)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


@pytest.mark.parametrize("way", ROUTES)
def test_route_when_the_check_is_called_then_it_answers_as_every_other(
    bench: Bench, way: str
) -> None:
    handle = bench.handle()
    call = fastcall.bind(handle._context, bench.page, by=way)
    assert call(*BUY) > 0
    assert call(0, 600_000, 590_000) == -DenyReason.BAD_QUANTITY
    assert call(10, 600_000, 0) == -DenyReason.STOP_MISSING
    assert bench.sums()["portfolio"][0] == 6_000_000


def test_route_when_chosen_then_it_is_the_fastest_that_passed_its_test() -> None:
    assert fastcall.route() == ("dispatcher" if atomics.INTERPRETED else "fastcall")
    assert fastcall.self_test() is not atomics.INTERPRETED


@compiled_only
def test_route_when_the_self_test_fails_then_the_entry_point_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fastcall, "_ROUTE", [])
    monkeypatch.setattr(fastcall, "_PAYLOAD", 40)
    assert fastcall.route() == "entry_point"
    monkeypatch.setattr(fastcall, "_ROUTE", [])
    monkeypatch.setattr(fastcall, "_entry_point", lambda: None)
    assert fastcall.route() == "dispatcher"


@compiled_only
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((1, 2), TypeError),
        ((1, 2, 3, 4), TypeError),
        (("1", 2, 3), TypeError),
        ((1, 2.5, 3), TypeError),
        ((1, 2, None), TypeError),
        ((2**70, 2, 3), OverflowError),
        ((1, -(2**63) - 1, 3), OverflowError),
        ((1, 2, 2**63), OverflowError),
    ],
)
def test_builtin_when_arguments_are_no_integers_then_it_raises_and_nothing_is_reserved(
    bench: Bench, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    handle = bench.handle()
    before, slot = bench.shared_words(), bench.page.rows(SLOT)[bench.slots[TREND]].tobytes()
    with pytest.raises(error):
        handle.check_raw(*arguments)
    assert bench.shared_words() == before
    assert bench.page.rows(SLOT)[bench.slots[TREND]].tobytes() == slot


@compiled_only
def test_builtin_when_its_handle_is_gone_then_it_still_checks(bench: Bench) -> None:
    check = bench.handle().check_raw
    assert check(*BUY) > 0
    assert check(np.int64(10), 600_000, 590_000) > 0


@pytest.mark.parametrize("way", ROUTES)
def test_handle_when_disowned_then_every_route_says_stale_and_touches_nothing(
    bench: Bench, way: str
) -> None:
    handle = bench.handle()
    before, slot = bench.shared_words(), bench.page.rows(SLOT)[bench.slots[TREND]].tobytes()
    handle.disown()
    assert fastcall.bind(handle._context, by=way)(*BUY) == -DenyReason.STALE_HANDLE
    decision = handle.check("0.01", "60000", "59000")
    assert (decision.reason, decision.approved) == (DenyReason.STALE_HANDLE, False)
    assert bench.shared_words() == before
    assert bench.page.rows(SLOT)[bench.slots[TREND]].tobytes() == slot


def test_handle_when_the_process_forks_then_the_child_cannot_use_its_parents_slot(
    bench: Bench,
) -> None:
    handle = bench.handle()
    assert handle.check_raw(*BUY) > 0
    child = os.fork()
    if child == 0:
        os._exit(-handle.check_raw(*BUY))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DenyReason.STALE_HANDLE
    assert handle.check_raw(*BUY) > 0


def test_batch_when_orders_are_judged_then_each_is_answered_alone(bench: Bench) -> None:
    bench.limit("portfolio", gross=2 * 6_000_000)
    answers = bench.handle().check_batch([BUY, (0, 1, 1), BUY, BUY])
    assert list(answers > 0) == [True, False, True, False]
    assert list(-answers[[1, 3]]) == [DenyReason.BAD_QUANTITY, DenyReason.GROSS_LIMIT]
    assert list(bench.handle().check_batch(np.zeros((0, 3), dtype=np.int64))) == []


@pytest.mark.parametrize(
    "orders",
    [
        [BUY] * (BATCH_MAX + 1),
        [(1, 2)],
        BUY,
        [(1.0, 2.0, 3.0)],
        [("1", "2", "3")],
        [(2**70, 1, 1)],
        [(1, 2, 3), (1, 2)],
        np.full((1, 3), 2**64 - 1, dtype=np.uint64),
    ],
)
def test_batch_when_it_is_malformed_then_it_is_refused_whole(bench: Bench, orders: Any) -> None:
    handle, before = bench.handle(), bench.shared_words()
    with pytest.raises(UsageError, match="batch"):
        handle.check_batch(orders)
    assert bench.shared_words() == before


@compiled_only
def test_check_when_called_from_compiled_code_then_it_answers_as_from_python(
    bench: Bench,
) -> None:
    import numba

    from tripgate.gate.check import check_raw

    def ask(context: int, times: int) -> int:
        approved = 0
        for _ in range(times):
            approved += check_raw(context, 10, 600_000, 590_000) > 0
        return approved

    compiled: Any = numba.njit(ask)
    bench.limit("portfolio", gross=3 * 6_000_000)
    assert compiled(bench.handle().address, 5) == 3


@compiled_only
def test_carrier_when_made_then_its_words_lie_where_compiled_code_reads_them() -> None:
    carrier = fastcall._Carrier((77).to_bytes(8, "little"))
    assert ctypes.c_int64.from_address(id(carrier) + fastcall._PAYLOAD).value == 77
