"""The simulated venue's contracts: grids, brackets, unknown names."""

import json
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest

from exchange_adapters.market.replay import PANEL_FILE, panels_folder, read_panel
from exchange_adapters.simulator.instruments import (
    base_of,
    listed_symbols,
    load_instruments,
    symbol_of,
)
from tripgate.errors import DataError, UsageError

PANELS = panels_folder()
TIERS = "binance_leverage_tiers/tiers.json"
TICK_SHARE_MAX = 1e-3
"""Largest tick, as a part of the median price of a panel."""


def test_symbol_of_when_given_a_base_then_base_of_gives_it_back() -> None:
    assert symbol_of("BTC") == "BTC/USDT:USDT"
    assert base_of(symbol_of("BTC")) == "BTC"


@pytest.mark.parametrize("text", ["BTC", "BTC/USDT", "/USDT:USDT", "A/B/USDT:USDT", ""])
def test_base_of_when_text_is_no_unified_symbol_then_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not a symbol like"):
        base_of(text)


def test_load_when_symbols_are_listed_then_order_is_kept_and_grid_is_exact() -> None:
    loaded = load_instruments(["ETH/USDT:USDT", "BTC/USDT:USDT"])
    assert list(loaded) == ["ETH/USDT:USDT", "BTC/USDT:USDT"]
    bitcoin = loaded["BTC/USDT:USDT"]
    assert bitcoin.units.tick == Decimal("0.1")
    assert bitcoin.units.contract_size == 1
    assert 0 < bitcoin.maker_fee_bps < bitcoin.taker_fee_bps
    assert bitcoin.half_spread_bps > 0


def test_load_when_symbols_are_unknown_then_all_are_named_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        load_instruments(["BTCC/USDT:USDT", "BTC/USDT:USDT", "QQQQQ/USDT:USDT"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "did you mean BTC/USDT:USDT?" in lines[0]
    assert "it lists BTC, ETH" in lines[1]


@pytest.mark.parametrize("symbol", listed_symbols())
def test_brackets_when_read_then_they_ascend_and_join_without_a_step(symbol: str) -> None:
    brackets = load_instruments([symbol])[symbol].brackets
    assert brackets[0].maintenance_amount_quote == 0
    assert brackets[-1].initial_leverage_max >= 1
    for lower, upper in pairwise(brackets):
        edge = lower.notional_quote_max
        assert upper.notional_quote_max > edge
        assert upper.maintenance_margin_rate > lower.maintenance_margin_rate
        assert upper.initial_leverage_max < lower.initial_leverage_max
        below = edge * lower.maintenance_margin_rate - lower.maintenance_amount_quote
        above = edge * upper.maintenance_margin_rate - upper.maintenance_amount_quote
        assert above == below, f"margin jumps at {edge}"


@pytest.mark.parametrize("symbol", listed_symbols())
def test_brackets_when_position_is_at_its_leverage_then_margin_is_below_its_equity(
    symbol: str,
) -> None:
    for bracket in load_instruments([symbol])[symbol].brackets:
        assert bracket.maintenance_margin_rate * bracket.initial_leverage_max < 1


@pytest.mark.skipif(
    PANELS is None or not any(PANELS.glob(f"*/{PANEL_FILE}")), reason="needs recorded panels"
)
def test_listing_when_panels_are_there_then_every_coin_trades_on_a_fine_grid() -> None:
    assert PANELS is not None
    folders = sorted(path.parent for path in PANELS.glob(f"*/{PANEL_FILE}"))
    assert folders
    for folder in folders:
        panel = read_panel(folder)
        listed = load_instruments(symbol_of(base) for base in panel.bases)
        median = np.nanmedian(panel.prices["close"], axis=0)
        for price, instrument in zip(median.tolist(), listed.values(), strict=True):
            share = float(instrument.units.tick) / price
            assert share <= TICK_SHARE_MAX, (folder.name, instrument.symbol, share)


@pytest.mark.skipif(
    PANELS is None or not (PANELS / TIERS).is_file(), reason="needs the recorded brackets"
)
def test_brackets_when_the_source_is_there_then_they_are_its_figures() -> None:
    assert PANELS is not None
    text = (PANELS / TIERS).read_text(encoding="utf-8")
    source = json.loads(text, parse_float=Decimal)
    compared = [symbol for symbol in listed_symbols() if symbol in source]
    assert len(compared) == 13
    for symbol in compared:
        brackets = load_instruments([symbol])[symbol].brackets
        assert [
            (
                bracket.notional_quote_max,
                bracket.maintenance_margin_rate,
                bracket.initial_leverage_max,
                bracket.maintenance_amount_quote,
            )
            for bracket in brackets
        ] == [
            (row["maxNotional"], row["maintenanceMarginRate"], row["maxLeverage"], row["cum"])
            for row in source[symbol]
        ]
