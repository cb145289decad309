"""The generator: determinism, its fitted statistics, the scripted crash, and the fit itself."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from exchange_adapters.market import calibrate, tail
from exchange_adapters.market.feed import open_feed
from exchange_adapters.market.generator import (
    GENERATOR_FILE,
    START_MS,
    Scenario,
    generate,
    load_scenario,
    scenario_names,
)
from exchange_adapters.market.replay import find_panel, panels_folder, read_panel
from exchange_adapters.market.ticks import Bars
from tripgate.errors import DataError, UsageError

SEEDS = range(6)
TICKS_PER_MINUTE = 4


def returns_of(bars: Bars) -> NDArray[np.float64]:
    return np.asarray(np.log(bars.close / bars.open), dtype=np.float64)


def correlation_average(returns: NDArray[np.float64]) -> float:
    matrix = np.asarray(np.corrcoef(returns.T))
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def kurtosis(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = returns - returns.mean(axis=0)
    return np.asarray((centred**4).mean(axis=0) / (centred**2).mean(axis=0) ** 2)


@pytest.fixture(scope="module")
def weeks() -> tuple[Scenario, list[Bars], list[NDArray[np.int64]]]:
    scenario = load_scenario("calm")
    made = [generate(scenario, seed) for seed in SEEDS]
    return scenario, [bars for bars, _ in made], [path for _, path in made]


@pytest.mark.parametrize("name", scenario_names())
def test_feed_when_name_and_seed_are_equal_then_every_step_is_equal(name: str) -> None:
    one, two = (open_feed(f"generator:{name}", seed=7) for _ in range(2))
    assert one.length == two.length
    chosen = range(0, one.length, 13)
    assert [one.step(index) for index in chosen] == [two.step(index) for index in chosen]
    other = open_feed(f"generator:{name}", seed=8)
    assert [other.step(index) for index in chosen] != [one.step(index) for index in chosen]


def test_feed_when_opened_then_it_starts_at_the_fixed_time_in_steps_of_15_s() -> None:
    feed = open_feed("generator:crash", seed=1)
    assert feed.start_ms == START_MS == datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000
    assert feed.step_ms == 15_000
    assert feed.length == 4 * 60 * TICKS_PER_MINUTE
    assert feed.step(feed.length - 1).market_ms == START_MS + 4 * 3_600_000 - 1


def test_feed_when_cut_to_a_window_and_symbols_then_prices_are_those_of_the_whole() -> None:
    whole = open_feed("generator:crash", seed=3)
    part = open_feed(
        "generator:crash",
        seed=3,
        start="2025-01-01T01:00",
        stop="2025-01-01T02:00",
        symbols=["ETH"],
    )
    place = whole.symbols.index("ETH/USDT:USDT")
    assert part.length == 60 * TICKS_PER_MINUTE
    for index in range(0, part.length, 7):
        beside = whole.step(index + 60 * TICKS_PER_MINUTE)
        assert part.step(index).market_ms == beside.market_ms
        assert part.step(index).ticks == (beside.ticks[place],)


@pytest.mark.parametrize("name", scenario_names())
def test_prices_when_generated_then_positive_finite_and_inside_their_bar(name: str) -> None:
    for seed in SEEDS:
        bars, _ = generate(load_scenario(name), seed)
        for values in (bars.open, bars.high, bars.low, bars.close):
            assert np.isfinite(values).all()
            assert (values > 0).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        np.testing.assert_array_equal(bars.open[1:], bars.close[:-1])


def test_returns_when_calm_then_tails_are_fat_in_every_asset(
    weeks: tuple[Scenario, list[Bars], list[NDArray[np.int64]]],
) -> None:
    for bars in weeks[1]:
        assert (kurtosis(returns_of(bars)) > 5).all()


@pytest.mark.parametrize("regime", [0, 1])
def test_returns_when_split_by_regime_then_volatility_and_correlation_are_the_fitted_ones(
    weeks: tuple[Scenario, list[Bars], list[NDArray[np.int64]]], regime: int
) -> None:
    scenario, bars, paths = weeks
    parts = [returns_of(week)[path == regime] for week, path in zip(bars, paths, strict=True)]
    pooled = np.concatenate(parts)
    assert len(pooled) > 1000
    fitted = scenario.regimes[regime]
    # Clustering leaves few independent stretches in six weeks, fewest of all in the rarer regime.
    ratio = np.sqrt((pooled**2).mean(axis=0)) / fitted.volatility
    assert (np.abs(np.log(ratio)) < (0.10, 0.25)[regime]).all()
    outer = np.outer(fitted.loading, fitted.loading)
    expected = outer[np.triu_indices(len(outer), 1)].mean()
    assert correlation_average(pooled) == pytest.approx(expected, abs=0.03)


def test_returns_when_calm_then_volatility_clusters_and_returns_do_not(
    weeks: tuple[Scenario, list[Bars], list[NDArray[np.int64]]],
) -> None:
    size_now, return_now = [], []
    for bars in weeks[1]:
        returns = returns_of(bars)
        common = (returns / returns.std(axis=0)).mean(axis=1)
        size_now.append(np.corrcoef(np.abs(common[5:]), np.abs(common[:-5]))[0, 1])
        return_now.append(np.corrcoef(common[5:], common[:-5])[0, 1])
    assert np.mean(size_now) > 0.1
    assert abs(np.mean(return_now)) < 0.03


def test_returns_when_regimes_alternate_then_share_is_that_of_the_chain(
    weeks: tuple[Scenario, list[Bars], list[NDArray[np.int64]]],
) -> None:
    scenario, _, paths = weeks
    enter, leave = scenario.leave_probability
    share = float(np.mean(np.concatenate(paths)))
    assert share == pytest.approx(enter / (enter + leave), rel=0.5)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 42])
def test_crash_when_played_then_it_keeps_what_its_script_promises(seed: int) -> None:
    feed = open_feed("generator:crash", seed=seed)
    rows = [feed.step(index).ticks for index in range(feed.length)]
    ticks = np.array(rows, dtype=np.float64)
    assert (ticks >= 1).all()
    assert np.abs(np.diff(ticks, axis=0) / ticks[:-1]).max() < 0.042
    basket = (ticks / ticks[0]).mean(axis=1)
    drawdown = 1 - basket / np.maximum.accumulate(basket)
    slide_start, slide_stop = 20 * TICKS_PER_MINUTE, 110 * TICKS_PER_MINUTE
    assert drawdown[:slide_start].max() < 0.05
    bars = [int(np.argmax(drawdown >= level)) // TICKS_PER_MINUTE for level in (0.05, 0.1, 0.15)]
    assert bars[0] < bars[1] < bars[2]
    assert bars[2] * TICKS_PER_MINUTE < slide_stop
    assert basket[slide_stop - 1] == pytest.approx(0.55, abs=0.08)
    assert basket[-1] > basket.min() * 1.1
    quiet = np.diff(np.log(basket[-60 * TICKS_PER_MINUTE :]))
    slide = np.diff(np.log(basket[slide_start:slide_stop]))
    assert quiet.std() < slide.std() / 2


@pytest.mark.parametrize(
    ("spec", "seed", "message"),
    [
        ("generator:crsh", 1, "did you mean crash?"),
        ("generator:zzz", 1, "there are calm, crash"),
        ("generator:calm", -1, "seed -1 is negative"),
    ],
)
def test_feed_when_name_or_seed_makes_no_sense_then_usage_error(
    spec: str, seed: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed(spec, seed=seed)


def test_feed_when_symbol_is_not_generated_then_data_error() -> None:
    with pytest.raises(DataError, match="generator:calm has no DOGE/USDT:USDT"):
        open_feed("generator:calm", seed=1, symbols=["DOGE"])


def test_one_factor_when_matrix_has_one_factor_then_loadings_are_found() -> None:
    loadings = np.array([0.9, 0.8, 0.7, 0.5, 0.3])
    matrix = np.outer(loadings, loadings)
    np.fill_diagonal(matrix, 1.0)
    np.testing.assert_allclose(tail.one_factor(matrix), loadings, atol=1e-3)


@pytest.mark.parametrize("degrees", [5.0, 12.0])
def test_degrees_of_freedom_when_returns_are_student_t_then_near(degrees: float) -> None:
    random = np.random.default_rng(11)
    returns = 0.001 * random.standard_t(degrees, size=(20_000, 3))
    found = tail.degrees_of_freedom(returns, np.ones(len(returns), dtype=np.bool_))
    # The running volatility's own error makes tails look heavier, never lighter.
    assert degrees * 0.6 < found < degrees * 1.15


def test_clustering_when_volatility_is_an_autoregression_then_its_figures_are_near() -> None:
    random = np.random.default_rng(5)
    variance, persistence = 0.15, 0.98
    level = np.empty(60_000)
    level[0] = 0.0
    noise = random.standard_normal(len(level)) * math.sqrt(variance * (1 - persistence**2))
    for bar in range(1, len(level)):
        level[bar] = persistence * level[bar - 1] + noise[bar]
    found = tail.clustering(np.exp(level) * random.standard_normal(len(level)))
    assert found[0] == pytest.approx(variance, rel=0.3)
    assert found[1] == pytest.approx(persistence, abs=0.01)


def test_threshold_when_values_have_two_groups_then_it_lies_between_them() -> None:
    random = np.random.default_rng(2)
    values = np.concatenate([random.normal(-8, 0.2, 900), random.normal(-6, 0.2, 100)])
    assert -7.2 < calibrate.two_means_threshold(values) < -6.8


PANELS = panels_folder()
PANEL_NAMES = (
    "binance_perp_1m_2025-05",
    "binance_spot_1m_2021-04_2021-05",
    "binance_spot_5m_2021-02_2021-07",
)


@pytest.mark.skipif(
    PANELS is None or not all((PANELS / name).is_dir() for name in PANEL_NAMES),
    reason="needs the recorded panels (TRIPGATE_PANELS)",
)
def test_calibration_when_run_on_its_panels_then_it_prints_what_is_committed() -> None:
    panels = [read_panel(find_panel(name)) for name in PANEL_NAMES]
    committed = GENERATOR_FILE.read_text(encoding="utf-8")
    fitted, _, scenarios = committed.partition("# Scenarios: written by hand.")
    assert scenarios
    assert calibrate.fitted_toml(panels).strip() == fitted.strip()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [([], 2, "name a calm panel"), (["/nowhere/a", "/nowhere/b"], 4, "there is no folder")],
)
def test_calibrate_when_called_wrongly_then_message_and_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(arguments) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out
