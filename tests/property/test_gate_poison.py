"""P8 as one table: each poison has a reason or exception of its own, and reserves nothing.

What a caller can hand over (numbers that are none, numbers off the grid, numbers out of range, the
wrong type, too many), what it can hold too long (a handle of a closed gate, of an ended run, of a
closed page) and what it can name that is not there. After each, every shared word and every entry
is as it was before.
"""

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate_fixtures import BTC, HEDGE, TREND, Bench, entries_in, make_bench
from tripgate.errors import PageError, UsageError
from tripgate.gate.client import Gate
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import RESERVED
from tripgate.page.layout import CONTROL_HEADER, SLOT
from tripgate.page.mapping import open_page
from tripgate.reasons import DenyReason
from tripgate.units import INT_MAX, LOTS_MAX

pytestmark = pytest.mark.kernels

Q, P = DenyReason.BAD_QUANTITY, DenyReason.BAD_PRICE
GOOD = ("0.01", "60000", "59000")
RAW = (10, 600_000, 590_000)
SMALLEST, HUGE = 5e-324, 1e308
NO_NUMBERS = (
    float("nan"), float("inf"), float("-inf"), Decimal("NaN"), Decimal("sNaN"),
    Decimal("-Infinity"), "nan", "", "ten", b"1", [1], {"a": 1}, object(), True, 1j,
    np.float64("nan"), np.array([1.0]),
)  # fmt: skip
OFF_GRID = ("0.00001", SMALLEST, -SMALLEST, "0.0105", Decimal("1E-30"))
TOO_LARGE = (HUGE, -HUGE, 10**400, "1e999", Decimal("1E+30"), INT_MAX)

POISON = (*NO_NUMBERS, *OFF_GRID, *TOO_LARGE, 0, "0")
DECIMAL_CASES = [
    *(((value, *GOOD[1:]), Q) for value in (*POISON, -0.0, None)),
    *(((GOOD[0], value, GOOD[2]), P) for value in (*POISON, "-60000")),
    *(((*GOOD[:2], value), P) for value in (*POISON, "-59000")),
]  # fmt: skip
"""(quantity, price, stop) and the reason."""

RAW_CASES: list[tuple[tuple[Any, ...], DenyReason | type[Exception]]] = [
    ((0, *RAW[1:]), Q),
    ((LOTS_MAX + 1, *RAW[1:]), Q),
    ((-(2**63), *RAW[1:]), Q),
    ((10, -1, 590_000), P),
    ((10, 2**40 + 1, 590_000), P),
    ((10, 2**63 - 1, 590_000), P),
    ((10, 600_000, -1), P),
    ((10, 600_000, -(2**63)), P),
    ((2**63, *RAW[1:]), OverflowError),
    ((10, 10**30, 590_000), OverflowError),
    ((10.5, *RAW[1:]), TypeError),
    ((float("nan"), *RAW[1:]), TypeError),
    (("10", *RAW[1:]), TypeError),
    ((None, *RAW[1:]), TypeError),
    (RAW[:2], TypeError),
    ((*RAW, 4), TypeError),
    ((), TypeError),
]
"""(lots, price, stop) in lots and ticks; the wrong type is an exception before anything happens."""

BATCHES: list[object] = [
    None, 7, "orders", [1, 2, 3], [[1, 2]], [[1, 2, 3, 4]], [[1.0, 2.0, 3.0]], [["1", "2", "3"]],
    [[1, 2, None]], [[2**70, 1, 1]], np.zeros((2, 3, 1), dtype=np.int64), [RAW] * 65,
    np.array([[2**63, 1, 1]], dtype=np.uint64), [[1, 2, 3], [1, 2]],
]  # fmt: skip


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def name_of(case: object) -> str:
    """Name a case by type: some of these values have no text, or another in each process."""
    return type(case).__name__


@pytest.mark.parametrize("number", range(len(DECIMAL_CASES)))
def test_P8_check_when_a_value_is_poison_then_its_reason_and_nothing_reserved(
    bench: Bench, number: int
) -> None:
    order, reason = DECIMAL_CASES[number]
    handle, before = bench.handle(), bench.shared_words()
    decision = handle.check(*order)
    assert (decision.reason, decision.token, decision.approved) == (reason, 0, False)
    expect_untouched(bench, before)
    # The handle is as good as before.
    assert handle.check(*GOOD).approved


@pytest.mark.jit_only
@pytest.mark.parametrize(("order", "expected"), RAW_CASES)
def test_P8_check_raw_when_a_word_is_poison_then_a_reason_or_an_exception_and_nothing_reserved(
    bench: Bench, order: tuple[Any, ...], expected: DenyReason | type[Exception]
) -> None:
    handle, before = bench.handle(), bench.shared_words()
    if isinstance(expected, DenyReason):
        assert handle.check_raw(*order) == -expected
    else:
        with pytest.raises(expected):
            handle.check_raw(*order)
    expect_untouched(bench, before)


@pytest.mark.parametrize("orders", BATCHES, ids=name_of)
def test_P8_check_batch_when_it_is_no_batch_then_a_usage_error_and_nothing_judged(
    bench: Bench, orders: object
) -> None:
    handle, before = bench.handle(), bench.shared_words()
    with pytest.raises(UsageError, match="batch"):
        handle.check_batch(orders)
    expect_untouched(bench, before)
    assert not bench.page.rows(SLOT)["denied"].any()


def ended_run(bench: Bench, handle: InstrumentHandle) -> DenyReason:
    bench.page.header["epoch"] += 1
    return DenyReason.EPOCH_CHANGED


def closed_page(bench: Bench, handle: InstrumentHandle) -> DenyReason:
    bench.page.header["closed"] = 1
    return DenyReason.PAGE_CLOSED


def closed_gate(bench: Bench, handle: InstrumentHandle) -> DenyReason:
    handle.disown()
    return DenyReason.STALE_HANDLE


@pytest.mark.parametrize("end", [ended_run, closed_page, closed_gate])
@pytest.mark.parametrize("held", [0, 10])
def test_P8_handle_when_it_is_held_too_long_then_every_order_has_the_reason(
    bench: Bench, end: Callable[[Bench, InstrumentHandle], DenyReason], held: int
) -> None:
    handle = bench.handle()
    if held:
        bench.hold(held)
    reason = end(bench, handle)
    before = bench.shared_words()
    for order in (GOOD, ("-0.005", None, None), ("0.01", None, "59000")):
        decision = handle.check(*order)
        assert (decision.reason, decision.token) == (reason, 0)
    expect_untouched(bench, before)


@pytest.mark.parametrize(
    ("venue", "symbol", "side", "text"),
    [
        ("gamma", "BTC/USDT:USDT", "net", "unknown instrument gamma"),
        ("alpha", "BTC", "net", "unknown instrument alpha/BTC"),
        ("", "", "net", "unknown instrument"),
        ("alpha", "BTC/USDT:USDT", "long", "does not trade"),
        ("alpha", "BTC/USDT:USDT", "NET", "net, long or short"),
    ],
)
def test_P8_instrument_when_it_is_unknown_then_a_usage_error_and_no_handle(
    bench: Bench, venue: str, symbol: str, side: str, text: str
) -> None:
    gate = Gate(bench.page, claim_strategy_slot(bench.page, HEDGE), HEDGE)
    before = bench.shared_words()
    with pytest.raises(UsageError, match=text):
        gate.instrument(venue, symbol, position_side=side)
    expect_untouched(bench, before)


def cut_off(folder: Path) -> None:
    os.truncate(folder / "counters", 4_096)


def of_another_version(folder: Path) -> None:
    place = CONTROL_HEADER.offset("layout_version")
    with open(folder / "control", "r+b") as file:
        file.seek(place)
        file.write((99).to_bytes(8, "little"))


def open_to_others(folder: Path) -> None:
    (folder / "counters").chmod(0o644)


def gone(folder: Path) -> None:
    (folder / "control").unlink()


def of_another_run(folder: Path) -> None:
    with open(folder / "counters", "r+b") as file:
        file.seek(CONTROL_HEADER.offset("epoch"))
        file.write((99).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (cut_off, "another layout|cut off"),
        (of_another_version, "not a page of this version"),
        (open_to_others, "open to others"),
        (gone, "no page at"),
        (of_another_run, "being replaced"),
    ],
)
def test_P8_page_when_its_files_are_spoiled_then_no_client_gets_in(
    bench: Bench, spoil: Callable[[Path], None], text: str
) -> None:
    spoil(bench.page.folder)
    with pytest.raises(PageError, match=text):
        open_page(bench.page.folder)


def expect_untouched(bench: Bench, before: tuple[bytes, ...]) -> None:
    """Nothing is reserved and no shared word has moved."""
    assert bench.shared_words() == before
    assert not list(entries_in(bench, RESERVED))
    assert bench.handle(BTC, TREND).units.lot > 0
