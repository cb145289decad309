"""Equal denials in a row: one record, an exact count, and no hole when somebody dies."""

from pathlib import Path

import pytest

from tests.gate_fixtures import MARKET_MS, RATE_MAX, TREND, Bench, make_bench
from tripgate.gate.denials import merged_body, post_merged
from tripgate.messages import EventKind
from tripgate.page.layout import RING_BYTES, RING_EXIT_RESERVE, SLOT
from tripgate.page.ring import RingReader
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels

BUY = ("0.01", "60000", "59000")
BARE = (10, 600_000, 0)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def told(bench: Bench) -> list[object]:
    """Return what the ring says, in order: a reason or token sign, or (of, more, reason)."""
    found: list[object] = []
    for frame in RingReader(bench.page, "audit").read(bench.slots[TREND]):
        if frame.kind == EventKind.DENIALS_MERGED:
            body = merged_body(frame.payload)
            found.append((body["of"], body["more"], body["reason"]))
        else:
            record = next(r for r in bench.records(bench.slots[TREND]))
            found.append(record.reason if frame.sequence == 1 else frame.kind)
    return found


def denied(bench: Bench, reason: DenyReason) -> int:
    return int(bench.page.rows(SLOT)["denied"][bench.slots[TREND]][reason])


def test_denials_when_equal_then_one_record_and_a_count_tell_all(bench: Bench) -> None:
    handle = bench.handle()
    for _ in range(1_000):
        assert handle.check_raw(*BARE) < 0
    head = int(bench.page.rows(SLOT)["ring_head"][bench.slots[TREND]])
    assert head == 288
    assert handle.check(*BUY)
    assert told(bench) == [
        DenyReason.STOP_MISSING, (1, 999, "STOP_MISSING"), EventKind.DECISION,
    ]  # fmt: skip
    assert denied(bench, DenyReason.STOP_MISSING) == 1_000


@pytest.mark.parametrize("other", [(11, 600_000, 0), (10, 600_001, 0), (10, 600_000, 600_001)])
def test_denials_when_they_differ_then_each_has_its_record(
    bench: Bench, other: tuple[int, int, int]
) -> None:
    handle = bench.handle()
    for order in (BARE, other, BARE):
        assert handle.check_raw(*order) < 0
    assert len(bench.records(bench.slots[TREND])) == 3


def test_denials_when_a_second_has_passed_then_a_new_record_begins(bench: Bench) -> None:
    handle = bench.handle()
    for ms in (0, 400, 999, 1_000, 1_999):
        bench.page.header["market_ms"] = MARKET_MS + ms
        assert handle.check_raw(*BARE) < 0
    assert post_merged(bench.page, bench.slots[TREND]) == 1
    assert told(bench)[1:] == [
        (1, 2, "STOP_MISSING"), EventKind.DECISION, (3, 1, "STOP_MISSING"),
    ]  # fmt: skip


def test_denials_when_their_owner_is_idle_or_dead_then_the_count_can_be_posted_for_it(
    bench: Bench,
) -> None:
    handle, slot = bench.handle(), None
    slot = bench.slots[TREND]
    assert post_merged(bench.page, slot) == 0
    for _ in range(3):
        assert handle.check_raw(*BARE) < 0
    assert post_merged(bench.page, slot) == 2
    assert post_merged(bench.page, slot) == 0
    body = merged_body(
        next(f for f in RingReader(bench.page, "audit").read(slot) if f.sequence == 2).payload
    )
    assert body == {
        "of": 1, "more": 2, "first_ms": MARKET_MS, "last_ms": MARKET_MS, "reason": "STOP_MISSING",
    }  # fmt: skip


def test_denials_when_a_client_asks_without_end_then_its_ring_never_fills(bench: Bench) -> None:
    handle = bench.handle()
    answers = [-handle.check_raw(*BARE) for _ in range(20_000)]
    few, many = DenyReason.STOP_MISSING, DenyReason.ATTEMPT_RATE
    assert answers == [few] * RATE_MAX + [many] * (20_000 - RATE_MAX)
    used = int(bench.page.rows(SLOT)["ring_head"][bench.slots[TREND]])
    assert used < RING_BYTES - RING_EXIT_RESERVE
    assert denied(bench, few) + denied(bench, many) == 20_000
