"""The gate without a tree: its tables, its owner's work, and what the owner's death means."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import AlreadyRunningError, ConfigError, UsageError
from tripgate.gate.client import Gate
from tripgate.gate.record import unpack_record
from tripgate.gate.standalone import (
    GatePage,
    StandaloneInstrument,
    commit_token,
    open_standalone,
)
from tripgate.gate.status import read_status
from tripgate.instance import page_folder, state_folder
from tripgate.messages import EventKind
from tripgate.page.layout import ENTRY, LEASE, SLOT, SUM
from tripgate.page.mapping import open_page
from tripgate.page.ring import Frame
from tripgate.reasons import DenyReason
from tripgate.units import INT_MAX, money

pytestmark = pytest.mark.kernels
BTC, ETH = "x/BTC/USDT:USDT", "x/ETH/USDT:USDT"
INSTRUMENT = StandaloneInstrument(
    asset="BTC", tick="0.1", lot="0.001", order_reporting_max="10000",
    collar_bps_max=200, stop_distance_bps_max=500, mark_age_max_ms=3_600_000,
)  # fmt: skip
INSTRUMENTS = {BTC: INSTRUMENT, ETH: replace(INSTRUMENT, asset="ETH")}
STRATEGIES = {"trend": 1_000, "hedge": 1_000}
SCOPES = (
    "portfolio", "venue:x", "asset:BTC", "asset:ETH", "strategy:trend", "strategy:hedge",
    f"instrument:{BTC}", f"instrument:{ETH}",
)  # fmt: skip
LIMITS: dict[str, tuple[object, object]] = {scope: ("none", "none") for scope in SCOPES} | {
    "portfolio": ("30000", 20_000)
}
ORDER = ("0.1", "60000", "59000")
WORTH = money(6_000)
PATIENCE_NS = 60 * NS_PER_S
OWNER = """
import sys
from tests.unit.test_gate_standalone import BTC, opened
from tripgate.clock import sleep_s

with opened(lease_s=0.5) as owner:
    owner.mark(BTC, "60000")
    owner.open()
    print("open", flush=True)
    while True:
        owner.renew()
        sleep_s(0.02)
"""


def opened(**changes: Any) -> GatePage:
    """Return the owner's hand on a page with a long lease."""
    given: dict[str, Any] = {
        "limits": LIMITS, "instruments": INSTRUMENTS, "strategies": STRATEGIES,
        "reporting_currency": "USDT", "lease_s": 60.0, **changes,
    }  # fmt: skip
    return open_standalone("desk", **given)


@pytest.fixture
def owner() -> Iterator[GatePage]:
    with opened() as owner:
        for instrument in (BTC, ETH):
            owner.mark(instrument, "60000")
        yield owner


@pytest.fixture
def gate(owner: GatePage) -> Iterator[Gate]:
    owner.open()
    with Gate.attach(strategy="trend", instance="desk") as gate:
        yield gate


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until another process has made something true, far longer than it can take."""
    give_up_ns = host_ns() + PATIENCE_NS
    while not condition():
        assert host_ns() < give_up_ns
        sleep_s(0.01)


def gross(page: GatePage, scope: str = "portfolio") -> int:
    return int(page.page.rows(SUM)["gross"][page.page.names.scope(scope)])


def test_page_when_made_then_nothing_is_granted_before_it_is_opened(owner: GatePage) -> None:
    with Gate.attach(strategy="trend", instance="desk") as gate:
        btc = gate.instrument("x", "BTC/USDT:USDT")
        assert btc.check(*ORDER).reason is DenyReason.PAGE_CLOSED
        owner.open()
        assert btc.check(*ORDER).approved
        owner.close()
        assert btc.check(*ORDER).reason is DenyReason.PAGE_CLOSED


def test_page_when_its_owner_is_silent_for_a_lease_then_openings_are_denied(
    owner: GatePage, gate: Gate
) -> None:
    btc = gate.instrument("x", "BTC/USDT:USDT")
    owner.page.rows(LEASE)["deadline_ns"][0] = host_ns()
    decision = btc.check(*ORDER)
    assert (decision.reason, decision.scope) == (DenyReason.LEASE_LAPSED, "lease:owner")
    owner.renew()
    assert btc.check(*ORDER).approved


@pytest.mark.jit_only
def test_P3_page_when_its_owner_is_killed_then_openings_are_denied_and_a_successor_starts_closed(
    isolated_folders: object,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(AlreadyRunningError):
            opened()
        gate = Gate.attach(strategy="trend", instance="desk")
        btc = gate.instrument("x", "BTC/USDT:USDT")
        wait_until(lambda: btc.check(*ORDER).approved)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: btc.check(*ORDER).reason is DenyReason.LEASE_LAPSED)
    with opened() as successor:
        assert btc.check(*ORDER).reason is DenyReason.PAGE_CLOSED, "the old page says so"
        assert successor.page.epoch == gate.page.epoch + 1
        assert int(successor.page.header["closed"]) == 1
        assert gross(successor) == 0
    gate.close()


def test_limit_when_several_strategies_ask_then_it_holds_for_them_together(
    owner: GatePage, gate: Gate
) -> None:
    with Gate.attach(strategy="hedge", instance="desk") as other:
        handles = [each.instrument("x", "BTC/USDT:USDT") for each in (gate, other)]
        answers = [handles[turn % 2].check(*ORDER) for turn in range(4)]
    assert [bool(answer) for answer in answers] == [True, True, True, False]
    refused = answers[-1]
    assert (refused.reason, refused.scope) == (DenyReason.NET_LIMIT, "portfolio")
    assert (refused.limit, refused.used, refused.requested) == (
        money(20_000), 3 * WORTH, WORTH,
    )  # fmt: skip


def test_order_when_it_fills_in_parts_then_position_and_sums_follow_to_the_end(
    owner: GatePage, gate: Gate
) -> None:
    btc = gate.instrument("x", "BTC/USDT:USDT")
    token = btc.check(*ORDER).token
    assert owner.commit(token)
    assert not owner.commit(token), "it was used"
    owner.fill(token, "0.04")
    assert btc.position_lots == 40
    assert gross(owner) == WORTH
    owner.fill(token, "0.06")
    assert btc.position_lots == 100
    assert gross(owner) == gross(owner, f"instrument:{BTC}") == WORTH
    with pytest.raises(UsageError, match="no live order has token"):
        owner.fill(token, "0.01")
    owner.mark(BTC, "61000")
    assert gross(owner) == money(6_100), "a position counts at the mark"
    closing = btc.check("-0.1").token
    assert commit_token(gate.page, closing)
    owner.fill(closing, "0.1")
    assert (btc.position_lots, gross(owner)) == (0, 0)


def test_order_when_it_ends_unfilled_then_what_was_left_is_given_back(
    owner: GatePage, gate: Gate
) -> None:
    btc = gate.instrument("x", "BTC/USDT:USDT")
    token = btc.check(*ORDER).token
    assert owner.commit(token)
    owner.fill(token, "0.025")
    assert owner.release(token)
    assert not owner.release(token)
    assert gross(owner) == money(1_500)


@pytest.mark.parametrize("quantity", ["0", "-0.1", "0.101", "0.0005", "NaN", "1e400", None])
def test_fill_when_it_cannot_have_happened_then_it_is_refused_and_nothing_moves(
    owner: GatePage, gate: Gate, quantity: object
) -> None:
    token = gate.instrument("x", "BTC/USDT:USDT").check(*ORDER).token
    assert owner.commit(token)
    before = owner.page.rows(SUM).tobytes()
    with pytest.raises(UsageError, match=f"token {token}"):
        owner.fill(token, quantity)
    assert owner.page.rows(SUM).tobytes() == before


def test_reservation_when_nobody_commits_it_then_it_is_taken_back(
    owner: GatePage, gate: Gate
) -> None:
    token = gate.instrument("x", "BTC/USDT:USDT").check(*ORDER).token
    entries = owner.page.rows(ENTRY)
    entries["deadline_ns"][entries["token"] == token] = host_ns() - 1
    owner.renew()
    assert gross(owner) == 0
    assert not owner.commit(token)


def test_client_when_it_died_inside_a_section_then_the_next_renewal_repairs_the_sums(
    owner: GatePage, gate: Gate
) -> None:
    btc = gate.instrument("x", "BTC/USDT:USDT")
    token = btc.check(*ORDER).token
    assert owner.commit(token)
    owner.fill(token, "0.04")
    good = owner.page.rows(SUM).tobytes()
    dead = owner.page.rows(SLOT)[-1]
    dead["pid"], dead["start_time"], dead["section"] = 2**22 + 1, 7, 1
    owner.page.rows(SUM)["gross"][0] += 123
    owner.renew()
    assert owner.page.rows(SUM).tobytes() == good
    assert not int(owner.page.header["freeze"])
    assert btc.check(*ORDER).approved


def test_adopt_when_positions_are_held_already_then_they_count_and_can_be_closed(
    owner: GatePage,
) -> None:
    owner.adopt("trend", BTC, "-0.2")
    owner.adopt("hedge", ETH, "0")
    owner.open()
    assert gross(owner, "strategy:trend") == 2 * WORTH
    with Gate.attach(strategy="trend", instance="desk") as gate:
        btc = gate.instrument("x", "BTC/USDT:USDT")
        assert btc.position_lots == -200
        assert btc.check("0.2").approved
    with pytest.raises(UsageError, match="not a multiple"):
        owner.adopt("trend", BTC, "0.0001")


def test_adopt_when_there_is_no_mark_then_it_says_so() -> None:
    with opened() as owner, pytest.raises(UsageError, match="give it one with mark"):
        owner.adopt("trend", BTC, "0.2")


def test_mark_when_all_prices_are_given_then_clients_see_them(owner: GatePage, gate: Gate) -> None:
    owner.mark(BTC, "60000", bid="59999.9", ask="60000.2", last="60000.1", index="59990")
    quote = gate.instrument("x", "BTC/USDT:USDT").quote
    assert quote is not None
    assert (quote.bid, quote.mark, quote.last, quote.ask) == (599_999, 600_000, 600_001, 600_002)
    assert quote.index_price == 599_900
    owner.mark(BTC, "60000")
    quote = gate.instrument("x", "BTC/USDT:USDT").quote
    assert quote is not None
    assert (quote.bid, quote.index_price) == (600_000, 0)


@pytest.mark.parametrize("price", ["0", "-1", "0.05", "NaN", float("inf"), None, "x"])
def test_P8_mark_when_it_is_no_price_then_the_board_is_unchanged(
    owner: GatePage, price: object
) -> None:
    before = read_status(owner.page).board[0].mark
    with pytest.raises(UsageError, match=BTC):
        owner.mark(BTC, price)
    with pytest.raises(UsageError, match=BTC):
        owner.mark(BTC, "60001", index=price if price is not None else "0")
    with pytest.raises(UsageError, match="unknown instrument"):
        owner.mark("x/DOGE/USDT:USDT", "1")
    assert read_status(owner.page).board[0].mark == before


def test_P6_renew_when_there_are_records_then_each_is_handed_on_once() -> None:
    told: list[Frame] = []
    with opened(on_record=told.append) as owner:
        owner.mark(BTC, "60000")
        owner.open()
        with Gate.attach(strategy="trend", instance="desk") as gate:
            btc = gate.instrument("x", "BTC/USDT:USDT")
            token = btc.check(*ORDER).token
            assert btc.check("0.1", "60000").reason is DenyReason.STOP_MISSING
            owner.renew()
            owner.renew()
    decisions = [unpack_record(frame.payload) for frame in told
                 if frame.kind == EventKind.DECISION]  # fmt: skip
    assert [(record.token, record.reason) for record in decisions] == [
        (token, None), (0, DenyReason.STOP_MISSING),
    ]  # fmt: skip


def test_renew_when_a_record_cannot_be_kept_then_the_lease_is_not_renewed() -> None:
    def full(frame: Frame) -> None:
        raise OSError("no space")

    with opened(on_record=full) as owner:
        owner.mark(BTC, "60000")
        owner.open()
        deadline = int(owner.page.rows(LEASE)["deadline_ns"][0])
        with Gate.attach(strategy="trend", instance="desk") as gate:
            gate.instrument("x", "BTC/USDT:USDT").check(*ORDER)
        with pytest.raises(OSError, match="no space"):
            owner.renew()
        assert int(owner.page.rows(LEASE)["deadline_ns"][0]) == deadline


def test_status_when_asked_then_it_reads_a_standalone_page_too(owner: GatePage, gate: Gate) -> None:
    gate.instrument("x", "BTC/USDT:USDT").check(*ORDER)
    status = read_status(open_page(page_folder("desk"), writable=False))
    assert (status.instance, status.root_alive, status.open_for_openings) == ("desk", True, True)
    assert [lease.role for lease in status.leases] == ["owner"]
    assert {node.scope: node.gross_max_money for node in status.nodes}["asset:BTC"] == INT_MAX


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limits": {}}, "limits: portfolio is missing"),
        ({"limits": {**LIMITS, "asset:DOGE": (1, 1)}}, "there is no scope 'asset:DOGE'"),
        ({"limits": {**LIMITS, "portfolio": (1,)}}, "expected (gross, net)"),
        ({"limits": {**LIMITS, "portfolio": (-1, 1)}}, "-1 is negative"),
        ({"limits": {**LIMITS, "portfolio": (float("nan"), 1)}}, "limits.portfolio"),
        ({"limits": {**LIMITS, "portfolio": (None, 1)}}, "limits.portfolio"),
        ({"instruments": {}}, "instruments: name at least one"),
        ({"instruments": {"BTC": INSTRUMENT}}, "'BTC' is not VENUE/SYMBOL"),
        ({"instruments": {BTC: replace(INSTRUMENT, tick="0")}}, "tick: a positive decimal"),
        ({"instruments": {BTC: replace(INSTRUMENT, lot="x")}}, "lot: a positive decimal"),
        ({"instruments": {BTC: replace(INSTRUMENT, lot="1e12")}}, "worth more than can be"),
        ({"instruments": {BTC: replace(INSTRUMENT, collar_bps_max=0)}}, "from 1 to 10000"),
        ({"instruments": {BTC: replace(INSTRUMENT, order_reporting_max="")}}, "order_reporting"),
        ({"strategies": {}}, "strategies: name at least one"),
        ({"strategies": {"trend": 0}}, "strategies.trend: openings per second"),
        ({"lease_s": 0}, "lease_s is above 0"),
        ({"lease_s": np.nan}, "lease_s is above 0"),
    ],
)  # fmt: skip
def test_page_when_an_argument_is_wrong_then_it_is_named_and_nothing_is_made(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(**changes)
    assert words in str(caught.value)
    assert not page_folder("desk").exists()
    assert not state_folder("desk").exists()
