"""What the gate writes down and shows: decisions, records, client order ids, causes, status."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BREAKER,
    BTC_SCOPE,
    ETH,
    MARKET_MS,
    STRATEGIES,
    TREND,
    Bench,
    make_bench,
    make_names,
)
from tripgate.errors import InvariantBroken
from tripgate.gate.cause_rows import load_causes, store_causes
from tripgate.gate.client_order_id import CROCKFORD, decode_client_id, encode_client_id
from tripgate.gate.decision import Decision, scope_text
from tripgate.gate.record import (
    FIELDS,
    FLAG_CLOSING,
    FLAG_MARKET,
    FLAG_STOP,
    HOST_DEPENDENT,
    RECORD_BYTES,
    pack_record,
    unpack_record,
)
from tripgate.gate.status import decision_counts, read_status
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.page.layout import ACCOUNT, ENTRY
from tripgate.page.lease import zero_lease
from tripgate.page.level import LevelWriter, bump_generation, set_level
from tripgate.page.mapping import open_page
from tripgate.reasons import REASON_TEXT, DenyReason, Level
from tripgate.units import INT_MAX

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
INSTALLATION = "0123456789AB"
WORD = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


@given(token=st.integers(1, 2**63 - 1), installation=st.text(CROCKFORD, min_size=12, max_size=12))
def test_client_id_when_encoded_then_the_token_comes_back(token: int, installation: str) -> None:
    client_id = encode_client_id(installation, token)
    assert len(client_id) == 25
    assert set(client_id) <= set(CROCKFORD)
    assert decode_client_id(installation, client_id) == token


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        INSTALLATION,
        encode_client_id("ZZZZZZZZZZZZ", 5),
        encode_client_id(INSTALLATION, 5)[:-1],
        encode_client_id(INSTALLATION, 5) + "0",
        encode_client_id(INSTALLATION, 5)[:-1] + "U",
        encode_client_id(INSTALLATION, 5)[:-1] + "a",
    ],
)
def test_client_id_when_it_is_not_ours_then_it_names_no_token(foreign: str) -> None:
    assert decode_client_id(INSTALLATION, foreign) is None


@given(words=st.lists(WORD, min_size=32, max_size=32), reason=st.sampled_from([0, *DenyReason]))
def test_record_when_unpacked_then_every_word_is_where_it_was_put(
    words: list[int], reason: int
) -> None:
    words[FIELDS.index("outcome")] = reason | 3 << 16 | 2 << 32 | 6 << 40 | -5 << 48
    words[FIELDS.index("scope_ids")] = 9 | 8 << 32
    words[FIELDS.index("limits")] = 4 | 7 << 32
    record = unpack_record(struct.pack("<32q", *words))
    assert (record.reason or 0) == reason
    assert record.approved is (words[0] > 0)
    assert record.would_deny is (words[0] > 0 and reason > 0)
    assert (record.flags, record.level, record.strategy, record.instrument) == (3, 2, 9, 8)
    assert (record.limits_version, record.epoch, record.token) == (4, 7, words[0])
    packed_away = {"token", "outcome", "scope_ids", "limits"}
    assert record.values == {
        name: words[index] for index, name in enumerate(FIELDS) if name not in packed_away
    } | {"lease_role": 6, "scope": -5}
    assert record.gross_before + record.side_before == tuple(words[len(FIELDS) :])


@pytest.mark.parametrize("size", [0, RECORD_BYTES - 8, RECORD_BYTES + 8])
def test_record_when_it_has_another_length_then_it_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        unpack_record(b"\0" * size)


def test_record_when_the_tree_decides_then_it_unpacks_to_the_same(bench: Bench) -> None:
    data = pack_record(
        token=5, flags=FLAG_STOP, strategy=1, instrument=2, lots=-3, stop=4, t_signed_ms=6,
        host_ns=7, epoch=8, position=-9,
    )  # fmt: skip
    record = unpack_record(data)
    assert (record.token, record.flags, record.strategy, record.instrument) == (5, FLAG_STOP, 1, 2)
    assert (record.epoch, record.approved) == (8, True)
    named = {"lots": -3, "stop": 4, "t_signed_ms": 6, "host_ns": 7, "position": -9}
    assert {name: record.values[name] for name in named} == named


def test_P6_record_when_approved_then_entry_and_ring_hold_the_same_bytes(bench: Bench) -> None:
    bench.page.header["limits_version"] = 3
    bench.hold(5, ETH)
    token = bench.handle().check(*BUY).token
    (record,) = bench.records(bench.slots[TREND])
    row = bench.page.slot_entries(bench.slots[TREND])
    embedded = bench.page.rows(ENTRY)["record"][row].tobytes()
    assert unpack_record(embedded) == record
    assert (record.token, record.strategy, record.instrument) == (token, TREND, 0)
    assert (record.epoch, record.limits_version, record.level) == (7, 3, 0)
    read = {name: record.values[name] for name in ("lots", "price", "stop", "mark", "notional")}
    assert read == {
        "lots": 10, "price": 600_000, "stop": 590_000, "mark": 600_000, "notional": 6_000_000,
    }  # fmt: skip
    assert (record.values["mark_ms"], record.values["mark_sequence"]) == (MARKET_MS, 2)
    assert record.values["lease_left_ns"] > 3_000_000_000_000
    # Narrow to wide: strategy and portfolio and venue hold the other position already.
    assert record.gross_before == (1_500_000, 0, 0, 1_500_000, 1_500_000)
    assert record.side_before == record.gross_before


def test_record_when_it_closes_then_its_flags_and_position_say_so(bench: Bench) -> None:
    bench.hold(-5)
    assert bench.handle().check("0.005")
    record = bench.records(bench.slots[TREND])[-1]
    assert record.flags == FLAG_CLOSING | FLAG_MARKET
    assert record.values["position"] >> 32 == -5


def test_record_when_two_runs_are_compared_then_host_time_does_not_count(
    isolated_folders: Path,
) -> None:
    records = []
    for trips, quantity in enumerate(("0.01", "0.01", "0.011")):
        bench = make_bench(isolated_folders / "page" / str(trips))
        for _ in range(trips):
            bump_generation(bench.page)
        assert bench.handle().check(quantity, *BUY[1:])
        records.extend(bench.records(bench.slots[TREND]))
    first, second, other = records
    differing = {name for name, value in first.values.items() if second.values[name] != value}
    assert "generation" in differing <= HOST_DEPENDENT
    assert first.replayed() == second.replayed() != other.replayed()


def test_decision_when_printed_then_it_says_which_limit_in_which_unit() -> None:
    assert str(Decision(5, None, "", 0, 0, 0)) == "approved, token 5"
    gross = Decision(0, DenyReason.GROSS_LIMIT, "portfolio", 10_000, 5_000, 7_500)
    assert str(gross).endswith("(portfolio: limit 1.00, used 0.50, requested 0.75)")
    level = Decision(0, DenyReason.LEVEL, "venue:alpha", 2, 3, 0)
    assert str(level).endswith("(venue:alpha: level HARD)")
    collar = Decision(0, DenyReason.PRICE_COLLAR, "instrument:a/B", 10, 0, 20)
    assert str(collar).endswith("limit 10, used 0, requested 20)")
    assert all(
        REASON_TEXT[reason] in str(Decision(0, reason, "x", 0, 0, 0)) for reason in DenyReason
    )


def test_scope_when_it_is_a_lease_then_the_role_is_named() -> None:
    names = make_names()
    assert scope_text(names, 0) == "portfolio"
    assert scope_text(names, 7) == BTC_SCOPE
    assert scope_text(names, -1 - ALPHA_ROUTER) == "lease:router(alpha)"
    assert scope_text(names, -1 - BREAKER) == "lease:breaker"


def some_causes(count: int) -> dict[CauseKey, CauseState]:
    return {
        CauseKey(Cause.DRAWDOWN, scope): CauseState(
            level=Level(scope % 5),
            value=-scope,
            since_ms=MARKET_MS + scope,
            latched=bool(scope % 2),
            verdict=Verdict.STALE,
            blind=True,
            fresh_since_ms=None if scope % 2 else scope,
            pending_hard_since_ms=scope,
            pending_emergency_since_ms=None,
            below_since_ms=(1, None, 3, None),
        )
        for scope in range(count)
    }


def test_causes_when_stored_then_a_restarted_breaker_finds_them(bench: Bench) -> None:
    causes = some_causes(4)
    store_causes(bench.page, causes)
    assert load_causes(bench.page) == causes
    with pytest.raises(InvariantBroken, match="cause rows"):
        store_causes(bench.page, some_causes(5))


def test_status_when_read_from_the_page_alone_then_it_shows_everything(bench: Bench) -> None:
    bench.hold(-5)
    assert bench.handle().check("-0.01", "60000", "61000")
    assert not bench.handle().check("0", "60000", "61000")
    bench.limit("portfolio", gross=INT_MAX)
    set_level(bench.page, 1, LevelWriter.OPERATOR, Level.SOFT)
    store_causes(bench.page, some_causes(2))
    row = bench.page.rows(ACCOUNT)[0]
    row["starting"], row["known"], row["equity_mark"] = 10**8, 1, 99_500_000
    row["drawdown_ppm"] = 5_000
    bench.page.rows(ACCOUNT)["starting"][1] = 10**8
    status = read_status(open_page(bench.page.folder, writable=False))
    assert (status.instance, status.epoch, status.armed, status.root_alive) == (
        "test", 7, True, True,
    )  # fmt: skip
    assert (status.approved, status.denied) == (1, {"BAD_QUANTITY": 1})
    assert status.positions == {"trend alpha/BTC/USDT:USDT": -5}
    assert (status.level, status.nodes[1].held_by) == (Level.SOFT, ("operator",))
    assert status.nodes[0].gross_money == 9_000_000
    assert status.open_for_openings
    assert status.overshoot_at_grant_max_money is not None
    assert status.overshoot_at_grant_max_money <= 0
    shown = json.loads(json.dumps(status.to_json()))
    assert shown["nodes"]["portfolio"]["gross_max"] == "none"
    assert shown["nodes"]["portfolio"]["gross"] == "900.00"
    assert shown["accounts"]["portfolio"]["equity"] == "9950.00"
    assert shown["accounts"]["venue:alpha"]["equity"] is None
    assert shown["causes"][1]["level"] == "SOFT"
    assert set(shown["leases"]) == {role.text for role in bench.page.names.roles}


@pytest.mark.parametrize(
    ("word", "value"),
    [("armed", 0), ("closed", 1)],
)
def test_status_when_the_page_is_not_open_then_no_opening_is_possible(
    bench: Bench, word: str, value: int
) -> None:
    assert read_status(bench.page).open_for_openings
    bench.page.header[word] = value
    assert not read_status(bench.page).open_for_openings


def test_status_when_a_critical_lease_lapsed_then_no_opening_is_possible(bench: Bench) -> None:
    zero_lease(bench.page, len(bench.page.names.roles) - 1)
    assert read_status(bench.page).open_for_openings
    zero_lease(bench.page, BREAKER)
    assert not read_status(bench.page).open_for_openings


def test_status_when_only_closes_were_granted_then_there_is_no_overshoot(bench: Bench) -> None:
    assert read_status(bench.page).overshoot_at_grant_max_money is None
    bench.hold(5)
    assert bench.handle().check("-0.005", "60000")
    assert decision_counts(bench.page) == (1, {})
    assert read_status(bench.page).overshoot_at_grant_max_money is None
    assert np.all(bench.page.rows(ENTRY)["stop"] == 0)
    assert STRATEGIES[TREND] == "trend"
