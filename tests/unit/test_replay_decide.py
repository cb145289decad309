"""Every reason decided again: what the real kernels denied or granted, from the record alone."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.gate_fixtures import BTC, ETH, MARKET_MS, TREND, Bench, make_bench
from tests.unit.denial_cases import BUY, CASES, Case
from tripgate.clock import host_ns
from tripgate.gate.exits import issue_exit, issue_stop
from tripgate.gate.record import FIELDS, GROSS_AT
from tripgate.messages import EventKind
from tripgate.page.layout import INSTRUMENT, LIMIT
from tripgate.page.level import LevelWriter, set_effective_limits, set_level
from tripgate.page.ring import RingReader, RingWriter
from tripgate.page.terms import changed_rows, sheet
from tripgate.reasons import DenyReason, Level
from tripgate.replay.decide import Redecided, redecide
from tripgate.replay.decided import REASONS, BadRecordError, Decidable, read_decision
from tripgate.replay.terms import RunTerms
from tripgate.units import PPM

pytestmark = pytest.mark.kernels
R = DenyReason


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def terms_of(bench: Bench) -> RunTerms:
    """Return what a log would tell of the page as it stands."""
    terms, names = RunTerms(), bench.page.names
    terms.number("strategies", 0, list(names.strategies))
    terms.number("instruments", 0, [f"{n.venue}/{n.symbol}" for n in names.instruments])
    for body in sheet(bench.page):
        terms.take(body, host_ns())
    return terms


@dataclass
class Asked:
    """A record as it stood in a ring, and what came of it."""

    slot: int
    data: bytes

    def again(self, bench: Bench, terms: RunTerms | None = None, **words: int) -> Redecided:
        """Decide it again, with some of its words changed."""
        values = list(struct.unpack("<32q", self.data))
        for name, value in words.items():
            values[FIELDS.index(name) if name in FIELDS else GROSS_AT + int(name[5:])] = value
        told = read_decision(struct.pack("<32q", *values))
        states = (terms or terms_of(bench)).candidates(told.host_ns, told.version)
        shadow = bool(bench.page.header["shadow"])
        return redecide(told, self.slot, states, on_shadow_page=shadow)


def last_record(bench: Bench, slot: int | None = None) -> Asked:
    """Return the newest decision record of a slot."""
    place = bench.slots[TREND] if slot is None else slot
    frames = [
        f for f in RingReader(bench.page, "audit").read(place) if f.kind == EventKind.DECISION
    ]
    return Asked(place, frames[-1].payload)


def approved(bench: Bench) -> Asked:
    assert bench.handle().check(*BUY)
    return last_record(bench)


NEVER_RECORDED = {R.STALE_HANDLE, R.RING_FULL}
"""A full ring has no room for its own denial; a stale handle has no ring."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reason_when_the_kernels_denied_for_it_then_the_record_says_the_same(
    bench: Bench, case: Case
) -> None:
    case.arrange(bench)
    assert bench.handle(case.instrument).check(*case.order).reason is case.reason
    found = last_record(bench).again(bench)
    assert found.difference is None
    how, _ = REASONS[case.reason]
    fully = {Decidable.FULLY: {False}, Decidable.PARTLY: {True}}[how]
    # The opening whose promised lots stand in the record already is decided fully.
    assert found.is_partly in fully | ({False} if case.reason is R.EXIT_PENDING else set())


def test_reasons_when_listed_then_each_is_decided_again_or_said_not_to_be() -> None:
    assert set(REASONS) == set(DenyReason)
    tried = {case.reason for case in CASES}
    others = {R.TRIPPED, *NEVER_RECORDED}
    assert tried | others == set(DenyReason)
    assert tried & others <= {R.RING_FULL}
    for how, lacking in REASONS.values():
        assert how is Decidable.FULLY or lacking


@pytest.mark.parametrize(
    ("order", "lots"),
    [
        (BUY, 0), (("0.01", None, "59000"), 0), (("-0.01", "60000", "61000"), 0),
        (("-0.005", "60000"), 10), (("-0.005", None), 10), (("-0.005", "50000"), 10),
        (("0.003", "60000"), -10),
    ],
)  # fmt: skip
def test_approval_when_decided_again_then_it_is_one(
    bench: Bench, order: tuple[Any, ...], lots: int
) -> None:
    if lots:
        bench.hold(lots)
    bench.page.rows(INSTRUMENT)["margin_ppm"].fill(PPM // 7)
    assert bench.handle().check(*order)
    found = last_record(bench).again(bench)
    assert (found.difference, found.is_partly, found.is_judged) == (None, False, True)


@pytest.mark.parametrize("issue", ["exit", "stop"])
def test_tree_order_when_decided_again_then_it_reduces_the_position(
    bench: Bench, issue: str
) -> None:
    bench.hold(10)
    ring = RingWriter(bench.page, 0)
    if issue == "exit":
        assert issue_exit(bench.page, ring, bench.key(), MARKET_MS)
    else:
        assert issue_stop(bench.page, ring, bench.key(), 590_000, MARKET_MS)
    record = last_record(bench, 0)
    assert record.again(bench).difference is None
    assert record.again(bench, lots=10).difference is not None
    assert record.again(bench, lots=-11).difference is not None


def changes(asked: Asked) -> dict[str, dict[str, Any]]:
    words = dict(zip(FIELDS, struct.unpack("<32q", asked.data), strict=False))
    return {
        "lots": {"lots": words["lots"] + 1},
        "price": {"price": words["price"] * 2},
        "stop": {"stop": words["price"]},
        "mark": {"mark": words["mark"] * 2},
        "mark_ms": {"mark_ms": words["mark_ms"] - 10_000},
        "notional": {"notional": words["notional"] - 1},
        "rate": {"rate_ppm": words["rate_ppm"] + 1},
        "throttle": {"throttle": words["t_signed_ms"] // 1000 << 16 | 60_000},
        "lease": {"lease_left_ns": -1},
        "reason": {"outcome": words["outcome"] | int(R.GROSS_LIMIT)},
        "level": {"outcome": words["outcome"] | int(Level.HARD) << 32},
        "gross before": {"gross4": 10**15},
        "negative gross": {"gross2": -1},
        "side before": {"gross7": 10**15},
        "margin": {"margin": 10**15},
        "margin limit": {"limit": 1},
        "position": {"position": -10 << 32},
        "token": {"token": words["token"] + (1 << 40)},
        "no token": {"token": 0},
        "epoch": {"limits": 1 << 32},
        "key": {"scope_ids": 9},
    }


@pytest.mark.parametrize("what", list(changes(Asked(0, b"\0" * 256))))
def test_approval_when_one_word_was_changed_then_it_is_no_approval(bench: Bench, what: str) -> None:
    bench.page.rows(INSTRUMENT)["margin_ppm"].fill(PPM // 10)
    asked = approved(bench)
    assert asked.again(bench).difference is None
    assert asked.again(bench, **changes(asked)[what]).difference is not None


@pytest.mark.parametrize(
    "word", ["limit", "used", "requested", "notional", "gross0", "outcome"]
)  # fmt: skip
def test_denial_when_one_number_was_changed_then_it_is_found(bench: Bench, word: str) -> None:
    bench.limit("strategy:trend", gross=1)
    assert bench.handle().check(*BUY).reason is R.GROSS_LIMIT
    asked = last_record(bench)
    assert asked.again(bench).difference is None
    values = struct.unpack("<32q", asked.data)
    at = GROSS_AT if word == "gross0" else FIELDS.index(word)
    changed: dict[str, Any] = {word: values[at] + 1}
    assert asked.again(bench, **changed).difference is not None


def test_grant_when_a_limit_was_below_it_then_it_is_found(bench: Bench) -> None:
    asked = approved(bench)
    bench.limit("venue:alpha", gross=5_999_999)
    difference = asked.again(bench).difference
    assert difference == ("reason", "approved", "GROSS_LIMIT")


def test_grant_when_the_limit_was_cut_at_that_moment_then_either_answer_is_right(
    bench: Bench,
) -> None:
    terms = terms_of(bench)
    asked, since_ns = approved(bench), host_ns()
    node = bench.page.names.scope("portfolio")
    set_effective_limits(bench.page, node, 1)
    terms.take(changed_rows(bench.page, since_ns, {"nodes": [node]}), host_ns())
    assert asked.again(bench, terms).difference is None
    later = struct.unpack("<32q", asked.data)[FIELDS.index("host_ns")] + 10**9
    assert asked.again(bench, terms, host_ns=later).difference is not None


def test_shadow_grant_when_decided_again_then_its_reason_is_that_of_the_rules(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    bench.page.header["shadow"] = 1
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.HARD)
    assert bench.handle().check(*BUY)
    asked = last_record(bench)
    assert asked.again(bench).difference is None
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.NORMAL)
    bench.page.rows(LIMIT)["gross_max"].fill(1)
    for instrument in (BTC, ETH):
        stop = "59000" if instrument == BTC else "2950"
        price = "60000" if instrument == BTC else "3000"
        assert bench.handle(instrument).check("0.01", price, stop)
        assert last_record(bench).again(bench).difference is None
    bench.page.header["shadow"] = 0
    assert asked.again(bench).difference is not None


def test_record_when_its_bytes_are_none_then_it_is_refused() -> None:
    with pytest.raises(BadRecordError):
        read_decision(b"short")
    words = [0] * 32
    words[FIELDS.index("outcome")] = 999
    with pytest.raises(BadRecordError):
        read_decision(struct.pack("<32q", *words))
