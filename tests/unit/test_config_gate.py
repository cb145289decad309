"""What the configuration says to the gate beside its limits: margin, guards, quote currencies."""

from decimal import Decimal

import pytest

from tests.unit.test_config import BTC, EXAMPLE, changed, problems_of
from tripgate.config.reader import parse_config
from tripgate.config.structs import instrument_key


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            f'instruments."{BTC}"]', 'instruments."binance-main/BTC/USDT:ETH"]',
            "settles in its quote currency or its base coin, was BTC/USDT:ETH", id="quanto",
        ),
        pytest.param(
            "[alerts]", "[quotes.USDT]\npar = 1\n[alerts]", "its worth is always 1", id="own-par"
        ),
        pytest.param(
            "[alerts]", "[quotes.USDC]\npar = 1\n[alerts]", "no instrument is quoted in it",
            id="idle-par",
        ),
        pytest.param(
            "[alerts]", '[quotes.USD]\npar = "0.1234567"\n[alerts]', "at most 6 decimal places",
            id="par-too-fine",
        ),
        pytest.param(
            "margin_buffer_reporting = 1000\n", "",
            "margin_buffer_reporting: missing, expected an amount, zero included", id="no-buffer",
        ),
        pytest.param(
            "margin_buffer_reporting = 1000", "margin_buffer_reporting = -1",
            "expected an amount, zero included, was -1", id="negative-buffer",
        ),
        pytest.param(
            "margin_buffer_reporting = 1000", "margin_buffer_reporting = 28147497672",
            "expected an amount from 0 to 28147497671", id="huge-buffer",
        ),
        pytest.param(
            "margin_buffer_reporting = 1000",
            "margin_buffer_reporting = 1000\nmargin_haircut = 0.00001", "from 0.0001 to 1",
            id="haircut-too-fine",
        ),
        pytest.param(
            "collar_bps_max = 200", "collar_bps_max = 200\nexit_collar_bps_max = 199",
            "exit_collar_bps_max: expected at least collar_bps_max (200), was 199",
            id="exit-collar",
        ),
        pytest.param(
            "collar_bps_max = 200", "collar_bps_max = 200\nresting_closes_max = 17",
            "from 1 to 16", id="resting",
        ),
        pytest.param(
            'kind = "simulated"', 'kind = "live"',
            "initial_margin_rate: missing, expected a number above 0 and at most 1 (the venue is",
            id="live-margin",
        ),
    ],
)  # fmt: skip
def test_config_when_a_value_for_the_gate_is_wrong_then_the_message_names_it(
    old: str, new: str, problem: str
) -> None:
    assert any(problem in line for line in problems_of(changed(old, new)))


def test_config_when_the_gates_options_are_left_out_then_their_defaults_are_not_money() -> None:
    config = parse_config(EXAMPLE, "t.toml")
    instrument, strategy = config.instruments[BTC], config.strategies["trend"]
    assert (instrument.order_lots_max, instrument.exit_collar_bps_max) == (None, None)
    assert (instrument.resting_closes_max, instrument.initial_margin_rate) == (4, None)
    assert (strategy.attempts_per_second_max, strategy.duplicate_window_ms) == (1000, 0)
    assert (strategy.repeated_orders_max, strategy.repeated_window_s) == (0, 60)
    assert config.venues["binance-main"].margin_haircut == Decimal("0.95")
    assert config.quotes == {}


def test_config_when_an_instrument_is_inverse_or_in_another_currency_then_a_par_admits_it() -> None:
    second = (
        EXAMPLE.replace(f'instruments."{BTC}"', 'instruments."binance-main/BTC/USD:BTC"')
        .replace(f'["{BTC}"]', '["binance-main/BTC/USD:BTC"]')
        .replace("[alerts]", '[quotes.USD]\npar = "0.999"\n[alerts]')
    )
    config = parse_config(second, "t.toml")
    assert config.quotes["USD"].par == Decimal("0.999")
    assert instrument_key("binance-main/BTC/USD:BTC").is_inverse
    assert not instrument_key(BTC).is_inverse
