"""Every reason of a denial, reached through a real check, with the numbers it must name.

After each of them nothing is reserved: no word of a node, claim, closable word, throttle or live
entry has moved, and the ring holds exactly one more record that says the same.
"""

from pathlib import Path

import pytest

from tests.gate_fixtures import HEDGE, KEEPER, TREND, make_bench, numbers
from tests.unit.denial_cases import BUY, CASES, Case, fill_ring
from tripgate.clock import host_ns
from tripgate.gate.decide import FRAME_ROOM
from tripgate.page.layout import RING_BYTES, RING_EXIT_RESERVE, SLOT
from tripgate.page.lease import LeaseHolder
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_when_a_reason_applies_then_it_is_named_and_nothing_is_reserved(
    isolated_folders: Path, case: Case
) -> None:
    bench = make_bench(isolated_folders / "page")
    handle = bench.handle(case.instrument)
    case.arrange(bench)
    slot = bench.slots[TREND]
    counted = int(bench.page.rows(SLOT)["denied"][slot][case.reason])
    approved = int(bench.page.rows(SLOT)["approved"][slot])
    recorded = len(bench.records(slot))
    before = bench.shared_words()

    decision = handle.check(*case.order)

    used = decision.used if case.reason is DenyReason.LEASE_LAPSED else case.used
    assert numbers(decision) == (case.reason, case.scope, case.limit, used, case.requested)
    assert (decision.token, bool(decision)) == (0, False)
    assert bench.shared_words() == before
    assert int(bench.page.rows(SLOT)["section"][slot]) % 2 == 0
    assert int(bench.page.rows(SLOT)["denied"][slot][case.reason]) == counted + 1
    assert int(bench.page.rows(SLOT)["approved"][slot]) == approved
    records = bench.records(slot)
    assert len(records) == recorded + 1
    record = records[-1]
    assert (record.reason, record.token, record.approved) == (case.reason, 0, False)
    named = tuple(record.values[name] for name in ("limit", "used", "requested"))
    assert named == (decision.limit, decision.used, decision.requested)


def test_check_when_a_lease_ran_out_then_the_denial_says_how_long_ago(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    LeaseHolder(bench.page, KEEPER).renew(host_ns() - 3_000_000_000)
    decision = bench.handle().check(*BUY)
    assert (decision.reason, decision.scope) == (
        DenyReason.LEASE_LAPSED, "lease:position_keeper",
    )  # fmt: skip
    # The check reads the coarse clock, which on a busy host may lag by more than its step.
    assert 1_900_000_000 <= decision.used < 60_000_000_000


def test_check_when_the_ring_is_full_then_ring_full_is_counted_but_not_recorded(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    fill_ring(bench)
    slot, before = bench.slots[TREND], bench.shared_words()
    head = int(bench.page.rows(SLOT)["ring_head"][slot])
    decision = bench.handle().check(*BUY)
    limit = RING_BYTES - RING_EXIT_RESERVE
    assert numbers(decision) == (
        DenyReason.RING_FULL, "strategy:trend", limit, head, FRAME_ROOM,
    )  # fmt: skip
    assert bench.shared_words() == before
    assert int(bench.page.rows(SLOT)["ring_head"][slot]) == head
    # A denial that cannot be recorded is never answered as anything else.
    assert bench.handle().check("0", "60000", "59000").reason is DenyReason.RING_FULL
    assert int(bench.page.rows(SLOT)["denied"][slot][DenyReason.RING_FULL]) == 2
    bench.make_durable()
    assert bench.handle().check(*BUY)


def test_check_when_one_clients_ring_is_full_then_another_is_served(isolated_folders: Path) -> None:
    bench = make_bench(isolated_folders / "page")
    fill_ring(bench)
    assert bench.handle(strategy=HEDGE).check(*BUY)
