"""P3 fail closed, P4 exits always work, P5 monotone, P8 poison: each over everything it ranges."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate_fixtures import (
    AGE_MAX_MS,
    BETA_BTC,
    BTC,
    INSTRUMENTS,
    MARKET_MS,
    MARKS,
    RESTING_MAX,
    ROLES,
    SCOPES,
    TREND,
    Bench,
    make_bench,
    unlinked_bench,
)
from tripgate.clock import host_ns
from tripgate.gate.words import closable_parts
from tripgate.page.layout import INSTRUMENT, KEY, LIMIT, RING_BYTES, RING_EXIT_RESERVE, SLOT
from tripgate.page.layout import STRATEGY as PLAN
from tripgate.page.lease import LeaseHolder, zero_lease
from tripgate.page.level import (
    LevelWriter,
    node_level,
    set_effective_limits,
    set_level,
    writer_level,
)
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX, LOTS_MAX, PPM

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
EXAMPLES = settings(max_examples=60)
LIVE, LAPSED, ZEROED, STALE = range(4)
CRITICAL = [number for number, role in enumerate(ROLES) if role.critical]


@EXAMPLES
@given(states=st.lists(st.integers(LIVE, STALE), min_size=len(ROLES), max_size=len(ROLES)))
@pytest.mark.parametrize("instrument", [BTC, BETA_BTC])
def test_P3_opening_when_a_lease_it_needs_is_gone_then_denied_and_else_granted(
    states: list[int], instrument: int
) -> None:
    bench = unlinked_bench()
    for role, state in enumerate(states):
        if state == LAPSED:
            LeaseHolder(bench.page, role).renew(host_ns() - 10**10 - role)
        elif state == ZEROED:
            zero_lease(bench.page, role)
        elif state == STALE:
            LeaseHolder(bench.page, role).give_up_stale()
    venue = INSTRUMENTS[instrument].venue
    needed = {role for role in CRITICAL if ROLES[role].venue in ("", venue)}
    gone = {role for role in needed if states[role] != LIVE}
    decision = bench.handle(instrument).check(*BUY)
    assert decision.approved is not bool(gone)
    if gone:
        blamed = {f"lease:{ROLES[role].text}": states[role] for role in gone}
        assert decision.scope in blamed
        stale = blamed[decision.scope] == STALE
        assert decision.reason is (DenyReason.INPUT_STALE if stale else DenyReason.LEASE_LAPSED)


@EXAMPLES
@given(
    position=st.integers(1, 2_000),
    shares=st.lists(st.integers(1, 150), min_size=1, max_size=8),
    price=st.sampled_from([0, 1, 300_000, 600_000, 1_200_000, 2**40]),
    is_long=st.booleans(),
    fill_ring=st.booleans(),
)
def test_P4_close_when_everything_forbids_trading_then_it_is_granted_up_to_the_position(
    position: int, shares: list[int], price: int,
    is_long: bool, fill_ring: bool,
) -> None:  # fmt: skip
    bench = unlinked_bench()
    handle, held = bench.handle(), position if is_long else -position
    bench.hold(held)
    forbid_everything(bench, fill_ring)
    assert handle.check_raw(1 if is_long else -1, 600_000, 590_000) < 0
    left, merged, resting = position, 0, 0
    for share in shares:
        lots = -(-position * share // 100)
        answer = handle.check_raw(-lots if is_long else lots, price, 0)
        if lots > position:
            full = [DenyReason.RING_FULL] if fill_ring else []
            assert -answer in [DenyReason.MIXED, *full]
        elif lots <= left and resting < RESTING_MAX and not merged:
            assert answer > 0
            left, resting = left - lots, resting + 1
        else:
            # What does not fit beside the resting closes is carried out by the merged exit.
            assert -answer == DenyReason.EXIT_IN_PROGRESS
            merged = max(merged, lots)
    key = bench.page.rows(KEY)[0]
    assert (int(key["exit_lots"]), int(key["exit_claim"])) == (merged, int(merged > 0))
    # The holds never pass the position: no close can flip it.
    word = int(bench.page.rows(KEY)["closable"][0])
    assert closable_parts(word) == (held, position - left)


def forbid_everything(bench: Bench, fill_ring: bool) -> None:
    """Turn every word against trading that may stop an opening."""
    page = bench.page
    for node in range(len(SCOPES)):
        set_level(page, node, LevelWriter.OPERATOR, Level.EMERGENCY)
        page.rows(LIMIT)["gross_max"][node] = page.rows(LIMIT)["net_max"][node] = 0
    for role in range(len(ROLES)):
        LeaseHolder(page, role).give_up_stale()
    page.rows(PLAN)["orders_per_second_max"][:] = 0
    page.rows(INSTRUMENT)["tradable"][:] = page.rows(INSTRUMENT)["order_money_max"][:] = 0
    page.header["market_ms"] = MARKET_MS + 1_000 * AGE_MAX_MS
    page.header["armed"] = 0
    writer, slot = RingWriter(page, bench.slots[TREND]), bench.slots[TREND]
    bound = RING_BYTES - RING_EXIT_RESERVE
    while fill_ring and int(page.rows(SLOT)["ring_head"][slot]) < bound:
        assert writer.append(99, b"x" * 4_064, 0, 0)


def test_P4_close_when_the_openings_have_taken_their_entries_then_places_are_kept_for_it(
    isolated_folders: Path,
) -> None:
    bench = make_bench(isolated_folders / "page")
    bench.hold(10)
    bench.page.rows(INSTRUMENT)["resting_max"] = 16
    while (opened := bench.handle().check(*BUY)).approved:
        pass
    assert opened.reason is DenyReason.ENTRIES_FULL
    assert [bench.handle().check("-0.001").approved for _ in range(8)] == [True] * 8
    # Without a place the exit is merged, not refused; only a passive limit has to wait.
    passive = bench.handle().check("-0.001", "60000.1")
    assert (passive.reason, passive.scope) == (DenyReason.EXIT_PENDING, "strategy:trend")
    assert bench.handle().check("-0.001").reason is DenyReason.EXIT_IN_PROGRESS
    assert int(bench.page.rows(KEY)["exit_lots"][0]) == 1


@EXAMPLES
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(
                st.just("level"), st.integers(0, len(SCOPES) - 1), st.sampled_from(LevelWriter),
                st.sampled_from(Level),
            ),
            st.tuples(
                st.just("factor"), st.integers(0, len(SCOPES) - 1), st.integers(-5, 2 * PPM),
                st.none(),
            ),
        ),
        max_size=25,
    ),
    configured=st.integers(0, INT_MAX),
)  # fmt: skip
def test_P5_limits_when_levels_and_factors_move_at_will_then_none_passes_its_configured(
    moves: list[tuple[str, int, int, Level | None]],
    configured: int,
) -> None:
    bench, held = unlinked_bench(), {}
    rows = bench.page.rows(LIMIT)
    for scope in SCOPES:
        bench.limit(scope, gross=configured, net=configured // 3)
    for kind, node, what, level in moves:
        generation, before = int(bench.page.header["generation"][0]), rows[node].copy()
        if kind == "level":
            assert level is not None
            held[node, what] = level
            set_level(bench.page, node, LevelWriter(what), level)
            tightened = node_level(bench.page, node) > max_byte(int(before["level"]))
        elif 0 < what <= PPM:
            set_effective_limits(bench.page, node, what)
            tightened = what < int(before["factor_ppm"])
        else:
            with pytest.raises(ValueError, match="factor"):
                set_effective_limits(bench.page, node, what)
            tightened = False
        assert not tightened or int(bench.page.header["generation"][0]) > generation
    assert (rows["gross_max"] <= rows["gross_configured"]).all()
    assert (rows["net_max"] <= rows["net_configured"]).all()
    assert (rows["gross_configured"] == configured).all()
    for node in range(len(SCOPES)):
        levels = [held.get((node, writer), Level.NORMAL) for writer in LevelWriter]
        assert [writer_level(bench.page, node, writer) for writer in LevelWriter] == levels
        assert node_level(bench.page, node) == max(levels)


def max_byte(word: int) -> int:
    """Return the largest byte of a word."""
    return max(word.to_bytes(8, "little", signed=True))


POISON = [
    float("nan"), float("inf"), float("-inf"), 5e-324, 1e308, -1e308, 1e-9, 10**400, -(10**400),
    10**5_000, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E+400"),
    Decimal("1E-400"), "NaN", "inf", "", " ", "six", "1,000", "0x10", "1e999999", "--1", b"1",
    [1], {}, object(), True, False, 1 + 2j, np.array([1]),
]  # fmt: skip
"""Neither a quantity nor a price."""


def kind_of(poison: object) -> str:
    """Name a case by its type: some of these values have no text, or another in each process."""
    return type(poison).__name__


@pytest.mark.parametrize("poison", [*POISON, None, "0", 0, -0.0, "0.00001"], ids=kind_of)
def test_P8_quantity_when_it_is_poison_then_denied_as_such_and_nothing_is_reserved(
    isolated_folders: Path, poison: object
) -> None:
    expect_denial(isolated_folders / "page", (poison, *BUY[1:]), DenyReason.BAD_QUANTITY)


@pytest.mark.parametrize("poison", [*POISON, "0", 0, -60_000, "-0.1", "60000.05"], ids=kind_of)
def test_P8_price_when_it_is_poison_then_denied_as_such_and_nothing_is_reserved(
    isolated_folders: Path, poison: object
) -> None:
    expect_denial(isolated_folders / "page", ("0.01", poison, "59000"), DenyReason.BAD_PRICE)


@pytest.mark.parametrize("poison", [*POISON, "0", 0, -59_000, "-0.1", "59000.05"], ids=kind_of)
def test_P8_stop_when_it_is_poison_then_denied_as_such_and_nothing_is_reserved(
    isolated_folders: Path, poison: object
) -> None:
    expect_denial(isolated_folders / "page", ("0.01", "60000", poison), DenyReason.BAD_PRICE)


def expect_denial(folder: Path, order: tuple[object, ...], reason: DenyReason) -> None:
    """Check an order on a page of its own: denied for the reason, counted, nothing reserved."""
    bench = make_bench(folder)
    handle, before = bench.handle(), bench.shared_words()
    decision = handle.check(*order)
    assert (decision.reason, decision.token) == (reason, 0)
    assert bench.shared_words() == before
    assert int(bench.page.rows(SLOT)["denied"][bench.slots[TREND]][reason]) == 1
    assert bench.records(bench.slots[TREND])[-1].reason is reason


@EXAMPLES
@given(
    lots=st.integers(-(2**63), 2**63 - 1),
    price=st.integers(-(2**63), 2**63 - 1),
    stop=st.integers(-(2**63), 2**63 - 1),
)
def test_P8_check_raw_when_any_three_words_then_an_answer_and_never_an_overflow(
    lots: int, price: int, stop: int
) -> None:
    bench = unlinked_bench()
    answer = bench.handle().check_raw(lots, price, stop)
    if lots == 0 or abs(lots) > LOTS_MAX:
        assert answer == -DenyReason.BAD_QUANTITY
    elif not 0 <= price <= 2**40 or not 0 <= stop <= 2**40:
        assert answer == -DenyReason.BAD_PRICE
    else:
        assert answer > 0 or -answer in list(DenyReason)
    assert all(0 <= gross <= 10**14 for gross, _, _ in bench.sums().values())


@pytest.mark.parametrize("lots", [-(2**63), -(2**63) + 1, 2**63 - 1, -LOTS_MAX - 1, LOTS_MAX + 1])
@pytest.mark.parametrize("held", [0, 5])
def test_P8_check_raw_when_lots_are_out_of_range_then_neither_granted_free_nor_as_a_close(
    isolated_folders: Path, lots: int, held: int
) -> None:
    bench = make_bench(isolated_folders / "page")
    # With an even worth per lot and tick the product of the lowest word wraps round to nothing.
    bench.page.rows(INSTRUMENT)["value_numerator"][BTC] = 2
    if held:
        bench.hold(held)
    handle, before = bench.handle(), bench.shared_words()
    stop = 590_000 if lots > 0 else 610_000
    assert handle.check_raw(lots, 600_000, stop) == -DenyReason.BAD_QUANTITY
    assert bench.shared_words() == before


@EXAMPLES
@given(
    lots=st.integers(-LOTS_MAX, LOTS_MAX).filter(bool),
    mark=st.integers(1, 2**40),
    gap_ppm=st.integers(-9_999, 9_999),
)
def test_P8_opening_when_prices_are_extreme_then_its_worth_is_exact_or_it_is_denied(
    lots: int, mark: int, gap_ppm: int
) -> None:
    bench = unlinked_bench()
    bench.mark(BTC, mark)
    bench.page.rows(INSTRUMENT)["order_money_max"][:] = INT_MAX
    for scope in SCOPES:
        bench.limit(scope, gross=INT_MAX, net=INT_MAX)
    price = max(1, mark + mark * gap_ppm // PPM)
    stop = max(1, mark * 95 // 100) if lots > 0 else mark * 105 // 100 + 1
    answer = bench.handle().check_raw(lots, price, stop)
    exact = abs(lots) * max(price, mark)
    if answer > 0:
        assert bench.sums()["portfolio"][0] == exact <= INT_MAX
    else:
        assert bench.sums()["portfolio"] == (0, 0, 0)
        expected = {DenyReason.STOP_WRONG_SIDE, DenyReason.STOP_TOO_FAR, DenyReason.PRICE_COLLAR}
        assert -answer in expected | {DenyReason.AMOUNT_OVERFLOW, DenyReason.BAD_PRICE}
        # One order may be worth a quarter of the range; floats judge that, right to 2**-50.
        assert -answer != DenyReason.AMOUNT_OVERFLOW or exact > INT_MAX // 4 - 2**13
    assert MARKS[BTC] == 600_000
