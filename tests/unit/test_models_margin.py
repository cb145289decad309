"""Margin by tiers against exact formulas, a search on the account itself, and real brackets."""

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange_adapters.market.replay import panels_folder
from exchange_adapters.simulator.instruments import listed_symbols, load_instruments
from models.margin import (
    RATIO_MAX,
    MarginInputError,
    MarginTable,
    Position,
    account_margin,
    distance_sigmas,
    isolated_ratio,
    liquidation_price,
    make_table,
)

ROWS = ((50_000.0, 0.004, 125.0), (600_000.0, 0.005, 100.0), (3_000_000.0, 0.0065, 75.0),
        (12_000_000.0, 0.01, 50.0), (70_000_000.0, 0.02, 25.0))  # fmt: skip
AMOUNTS = (0.0, 50.0, 950.0, 11_450.0, 131_450.0)
TABLE = make_table(ROWS, AMOUNTS)
COIN_TABLE = make_table(((5.0, 0.004, 125.0), (10.0, 0.005, 100.0), (50.0, 0.01, 50.0)))


def surplus(wallet: float, positions: list[Position], number: int, price: float) -> float:
    """Return margin balance less maintenance when one position's mark moves, others stand."""
    total = wallet
    for place, position in enumerate(positions):
        mark = price if place == number else position.mark_price
        if position.isolated_margin is None or place == number:
            total += position.unrealised_at(mark)
            total -= position.table.maintenance(position.notional_at(mark))
    return total


def test_maintenance_when_the_notional_is_5_million_then_the_amount_is_taken_off() -> None:
    # The figure that a library gets wrong: 5,000,000 × 1 % = 50,000, less the amount of its tier.
    assert TABLE.maintenance(5_000_000) == pytest.approx(38_550)
    assert TABLE.maintenance(40_000) == pytest.approx(160)


@given(st.floats(0, 1e8), st.floats(0, 1e8))
def test_maintenance_when_the_notional_rises_then_it_never_falls(one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert TABLE.maintenance(low) <= TABLE.maintenance(high) + 1e-9 * high


@pytest.mark.parametrize("bound", [row[0] for row in ROWS[:-1]])
def test_maintenance_when_a_tier_ends_then_the_next_one_joins_it(bound: float) -> None:
    above = math.nextafter(bound, math.inf)
    assert TABLE.maintenance(above) == pytest.approx(TABLE.maintenance(bound), rel=1e-12)
    assert TABLE.tier(above) is not TABLE.tier(bound)


def test_initial_margin_when_more_leverage_is_chosen_than_the_tier_allows_then_it_is_capped() -> (
    None
):
    assert TABLE.initial(5_000_000, 125) == pytest.approx(100_000)
    assert TABLE.initial(5_000_000, 10) == pytest.approx(500_000)


def tables_of_the_simulator() -> dict[str, MarginTable]:
    return {
        symbol: make_table(
            [(float(b.notional_quote_max), float(b.maintenance_margin_rate),
              float(b.initial_leverage_max)) for b in instrument.brackets],
            [float(b.maintenance_amount_quote) for b in instrument.brackets],
        )
        for symbol, instrument in load_instruments(listed_symbols()).items()
    }  # fmt: skip


def test_table_when_made_from_the_simulators_brackets_then_every_amount_joins() -> None:
    tables = tables_of_the_simulator()
    assert len(tables) > 10
    assert tables["BTC/USDT:USDT"].maintenance(5_000_000) == pytest.approx(38_550)


def test_table_when_made_from_real_brackets_then_every_amount_joins() -> None:
    folder = panels_folder()
    path = folder / "binance_leverage_tiers" / "tiers.json" if folder else None
    if path is None or not path.is_file():
        pytest.skip("the recorded brackets are not here (TRIPGATE_PANELS names their folder)")
    markets = json.loads(path.read_text())
    for symbol, rows in markets.items():
        table = make_table(
            [(r["maxNotional"], r["maintenanceMarginRate"], r["maxLeverage"]) for r in rows],
            [r["cum"] for r in rows],
        )
        assert len(table.tiers) == len(rows), symbol
    assert len(markets) >= 29


@pytest.mark.parametrize(
    ("rows", "amounts", "words"),
    [
        ((), None, "1 to 100 tiers"),
        (((1.0, 0.01, 10.0),) * 101, None, "1 to 100 tiers"),
        (((1.0, 0.01, 10.0), (1.0, 0.02, 5.0)), None, "not above"),
        (((math.nan, 0.01, 10.0),), None, "not above"),
        (((math.inf, 0.01, 10.0),), None, "not above"),
        (((1.0, 0.02, 10.0), (2.0, 0.01, 5.0)), None, "below the one before"),
        (((1.0, 1.0, 10.0),), None, "not < 1"),
        (((1.0, math.nan, 10.0),), None, "not < 1"),
        (((1.0, 0.01, 0.5),), None, "leverage"),
        (((1.0, 0.01, 10.0),), (0.0, 1.0), "2 maintenance amounts"),
        (((1e5, 0.01, 10.0), (2e5, 0.02, 5.0)), (0.0, 900.0), "does not join"),
    ],
)
def test_table_when_its_rows_cannot_be_true_then_it_is_refused(
    rows: tuple[tuple[float, float, float], ...], amounts: tuple[float, ...] | None, words: str
) -> None:
    with pytest.raises(MarginInputError, match=words):
        make_table(rows, amounts)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_position_when_a_number_is_poison_then_it_is_refused(bad: float) -> None:
    with pytest.raises(MarginInputError):
        Position(bad, 100.0, 100.0, TABLE)
    with pytest.raises(MarginInputError):
        Position(1.0, bad, 100.0, TABLE)
    with pytest.raises(MarginInputError):
        Position(1.0, 100.0, bad, TABLE)
    with pytest.raises(MarginInputError):
        Position(1.0, 100.0, 100.0, TABLE, leverage=bad)
    with pytest.raises(MarginInputError):
        distance_sigmas(100.0, 90.0, bad)


def test_margin_when_a_balance_is_poison_then_it_is_refused() -> None:
    with pytest.raises(MarginInputError):
        account_margin(math.nan, [])
    with pytest.raises(MarginInputError):
        Position(1.0, 1.0, 1.0, TABLE, isolated_margin=math.inf)
    with pytest.raises(MarginInputError, match="its account has the ratio"):
        isolated_ratio(Position(1.0, 1.0, 1.0, TABLE))


def test_account_when_it_holds_cross_and_isolated_then_only_cross_counts() -> None:
    cross = Position(1.0, 60_000.0, 61_000.0, TABLE, leverage=10)
    alone = Position(-2.0, 60_000.0, 61_000.0, TABLE, leverage=10, isolated_margin=12_000.0)
    margin = account_margin(5_000.0, [cross, alone])
    assert margin.balance == pytest.approx(6_000)
    assert margin.maintenance == pytest.approx(61_000 * 0.005 - 50)
    assert margin.initial == pytest.approx(6_100)
    assert margin.ratio == pytest.approx((61_000 * 0.005 - 50) / 6_000)
    assert isolated_ratio(alone) == pytest.approx((122_000 * 0.005 - 50) / 10_000)


def test_ratio_when_nothing_is_left_or_nothing_is_held_then_it_is_bounded() -> None:
    assert account_margin(0.0, []).ratio == 0
    assert account_margin(-5.0, [Position(1.0, 100.0, 100.0, TABLE)]).ratio == RATIO_MAX


def test_liquidation_when_long_and_short_then_the_textbook_price_comes_out() -> None:
    # One coin at 50,000 with 5,000 set aside, in the first tier: P = (E − margin) ÷ (1 − 0.004).
    long = Position(1.0, 50_000.0, 50_000.0, TABLE, isolated_margin=5_000.0)
    short = Position(-1.0, 40_000.0, 40_000.0, TABLE, isolated_margin=4_000.0)
    assert liquidation_price(0.0, [long], 0) == pytest.approx(45_000 / 0.996)
    assert liquidation_price(0.0, [short], 0) == pytest.approx(44_000 / 1.004)


def test_liquidation_when_the_margin_covers_a_fall_to_zero_then_there_is_none() -> None:
    long = Position(1.0, 50_000.0, 50_000.0, TABLE)
    assert liquidation_price(60_000.0, [long], 0) is None
    assert distance_sigmas(50_000.0, None, 0.04) is None
    assert distance_sigmas(50_000.0, 25_000.0, 0.04) == pytest.approx(math.log(2) / 0.04)


def positions_strategy(is_inverse: bool) -> st.SearchStrategy[Position]:
    return st.builds(
        lambda side, size, entry, move, isolated: Position(
            side * size, entry, entry * move, COIN_TABLE if is_inverse else TABLE,
            isolated_margin=isolated, is_inverse=is_inverse,
        ),
        st.sampled_from((-1, 1)),
        st.floats(100, 2_000_000) if is_inverse else st.floats(0.001, 300),
        st.floats(1_000, 100_000),
        st.floats(0.5, 2),
        st.one_of(st.none(), st.floats(0.01, 50) if is_inverse else st.floats(1, 1e6)),
    )  # fmt: skip


@pytest.mark.parametrize("is_inverse", [False, True])
@given(data=st.data())
def test_liquidation_when_solved_then_the_surplus_is_zero_there_and_changes_sign(
    data: st.DataObject, is_inverse: bool
) -> None:
    positions = data.draw(st.lists(positions_strategy(is_inverse), min_size=1, max_size=4))
    wallet = data.draw(st.floats(-10, 50) if is_inverse else st.floats(-1e5, 1e6))
    number = data.draw(st.integers(0, len(positions) - 1))
    chosen = positions[number]
    if chosen.isolated_margin is not None:
        wallet, positions, number = chosen.isolated_margin, [chosen], 0
    price = liquidation_price(wallet, positions, number)
    lowest, highest = 1e-9, 1e15
    ends = [surplus(wallet, positions, number, end) for end in (lowest, highest)]
    if price is None:
        # No sign change over all prices that a float can reach: nothing to be liquidated by.
        assert ends[0] * ends[1] > 0 or min(map(abs, ends)) < 1e-6 * (1 + abs(wallet))
        return
    assume(lowest * 10 < price < highest / 10)
    scale = abs(wallet) + sum(p.notional_at(price) + abs(p.unrealised_at(price)) for p in positions)
    assert abs(surplus(wallet, positions, number, price)) <= 1e-9 * scale
    around = [surplus(wallet, positions, number, price * side) for side in (0.999, 1.001)]
    assert around[0] * around[1] < 0


def test_liquidation_when_it_falls_on_the_joint_of_two_tiers_then_it_is_found() -> None:
    for bound in (50_000.0, 600_000.0, 3_000_000.0):
        for quantity in (1.0, 3.0, 7.0, 0.3, -1.0, -3.0, -0.7):
            price = bound / abs(quantity)
            maintenance = TABLE.maintenance(bound)
            entry = price * (1.1 if quantity > 0 else 0.9)
            margin = maintenance - quantity * (price - entry)
            position = Position(quantity, entry, entry, TABLE, isolated_margin=margin)
            assert liquidation_price(0.0, [position], 0) == pytest.approx(price, rel=1e-9)
