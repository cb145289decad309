"""Synthetic bars that behave like recorded ones: two regimes, fat tails, common shocks.

The log return of asset i in a bar of one minute is

    r[i] = σ[i] · exp(√v · u − v) · m · (β[i] · f + √(1 − β[i]²) · e[i])

with f, e[i] standard normal (made of four equal sub-steps, which give open, high, low and close);
m = √((ν − 2) / χ²_ν), one for all assets, so that (f, e) · m is a multivariate Student-t of unit
variance and extremes come together; u a Gaussian AR(1) of unit variance with coefficient φ, which
makes volatility cluster; σ, β, ν, v, φ those of the regime, and the regime a two-state Markov
chain. The mean log return is zero. Parameters are fitted (``calibrate``) and stand in
``generator.toml``; a scenario may add a script, which is written by hand and says so.

Invariants: G1 equal name and seed give equal prices, whatever window or symbols are asked for;
G2 every price is positive; G3 volatility clustering leaves the variance of a regime unchanged.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange_adapters.market.selection import bar_window, symbol_columns
from exchange_adapters.market.ticks import Bars, TickFeed
from exchange_adapters.simulator.instruments import symbol_of
from tripgate.errors import DataError, UsageError

SCHEMA_VERSION = 1
GENERATOR_FILE = Path(__file__).with_name("generator.toml")
START_MS = 1_735_689_600_000
"""2025-01-01T00:00 UTC: every scenario begins here."""

BAR_MS = 60_000
SUB_STEPS = 4
REGIMES = ("calm", "stressed")


@dataclass(frozen=True)
class Regime:
    """What one state of the market is like; σ per square root of a minute.

    Attributes
    ----------
    volatility
        σ, standard deviation of the one-minute log return, [asset].
    loading
        β, correlation of each asset with the common factor, [asset].
    degrees_of_freedom
        ν of the Student-t, above 4 so that a kurtosis exists.
    log_volatility_variance, log_volatility_persistence
        v and φ of the clustering.
    """

    volatility: NDArray[np.float64]
    loading: NDArray[np.float64]
    degrees_of_freedom: float
    log_volatility_variance: float
    log_volatility_persistence: float


@dataclass(frozen=True)
class Scenario:
    """A named course of the market.

    Attributes
    ----------
    bases
        N base coins.
    price_first
        Prices at the start, quote currency, [asset].
    regimes
        By the order of ``REGIMES``.
    regime_path
        Regime of each bar where a script says so, int64 [bar], else ``None``.
    regime_first
        Regime in which the chain starts.
    leave_probability
        Probability per bar of leaving each regime, by the order of ``REGIMES``.
    drift
        Scripted log return per bar, the same for all assets, [bar].
    sub_step_log_return_max
        Bound of every sub-step, drift included; infinite where there is no script.
    """

    bases: tuple[str, ...]
    price_first: NDArray[np.float64]
    regimes: tuple[Regime, ...]
    regime_path: NDArray[np.int64] | None
    regime_first: int
    leave_probability: tuple[float, ...]
    drift: NDArray[np.float64]
    sub_step_log_return_max: float


def scenario_names() -> tuple[str, ...]:
    """Return the names that ``generator:NAME`` takes."""
    return tuple(_table()["scenarios"])


def load_scenario(name: str) -> Scenario:
    """Return a scenario of ``generator.toml``. Raises ``UsageError`` for an unknown name."""
    table = _table()
    if name not in table["scenarios"]:
        close = get_close_matches(name, scenario_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(scenario_names())}"
        raise UsageError(f"there is no generator scenario {name!r}: {hint}")
    entry = table["scenarios"][name]
    leave = table["chains"][entry["chain"]]
    bases = tuple(table["assets"])
    regimes, drift = _script(entry.get("script", []))
    scripted = len(drift) > 0
    return Scenario(
        bases=bases,
        price_first=np.array([table["assets"][base]["price_first"] for base in bases]),
        regimes=tuple(_regime(table, bases, regime) for regime in REGIMES),
        regime_path=regimes if scripted else None,
        regime_first=REGIMES.index(entry["regime_first"]),
        leave_probability=tuple(leave[f"leave_{regime}_probability"] for regime in REGIMES),
        drift=drift if scripted else np.zeros(entry["bars"]),
        sub_step_log_return_max=entry.get("sub_step_log_return_max", math.inf),
    )


def draw_regimes(scenario: Scenario, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the regime of each bar, int64 [bar]; the script's where there is one."""
    uniform = random.random(len(scenario.drift))
    if scenario.regime_path is not None:
        return scenario.regime_path
    path = np.empty(len(uniform), dtype=np.int64)
    state = scenario.regime_first
    for bar, draw in enumerate(uniform.tolist()):
        path[bar] = state
        if draw < scenario.leave_probability[state]:
            state = 1 - state
    return path


def generate(scenario: Scenario, seed: int) -> tuple[Bars, NDArray[np.int64]]:
    """Return the bars of a scenario and the regime of each, int64 [bar].

    Parameters
    ----------
    scenario
        What to play.
    seed
        0 or more. Numpy promises equal draws for one of its versions, not across all of them.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    path = draw_regimes(scenario, random)
    bars, assets = len(path), len(scenario.bases)
    by_regime = scenario.regimes
    volatility = np.stack([regime.volatility for regime in by_regime])[path]
    loading = np.stack([regime.loading for regime in by_regime])[path]
    degrees = np.array([regime.degrees_of_freedom for regime in by_regime])[path]
    scale = _clustering(by_regime, path, random.standard_normal(bars))
    scale *= np.sqrt((degrees - 2) / random.chisquare(degrees))
    factor = random.standard_normal((bars, SUB_STEPS, 1))
    own = random.standard_normal((bars, SUB_STEPS, assets))
    shock = loading[:, None] * factor + np.sqrt(1 - loading[:, None] ** 2) * own
    sub_steps = volatility[:, None] * scale[:, None, None] * shock / math.sqrt(SUB_STEPS)
    sub_steps += scenario.drift[:, None, None] / SUB_STEPS
    bound = scenario.sub_step_log_return_max
    return _bars(scenario, np.clip(sub_steps, -bound, bound)), path


def open_generator(
    name: str,
    *,
    seed: int,
    start: str | None,
    stop: str | None,
    symbols: Sequence[str] | None,
) -> TickFeed:
    """Return a scenario as a feed.

    Parameters
    ----------
    name
        A scenario of ``generator.toml``.
    seed, start, stop, symbols
        As for ``open_feed``. The whole scenario is generated and then cut, so that a bar does not
        depend on the window it is seen through.

    Raises
    ------
    UsageError, DataError
        As ``open_feed`` says.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is negative: use 0 or more")
    bars, _ = generate(load_scenario(name), seed)
    source = f"generator:{name}"
    columns = symbol_columns(source, bars.symbols, symbols)
    window = bar_window(source, START_MS, BAR_MS, len(bars.close), start, stop)
    return TickFeed(
        Bars(
            symbols=tuple(bars.symbols[column] for column in columns),
            start_ms=START_MS + window.start * BAR_MS,
            bar_ms=BAR_MS,
            open=bars.open[window][:, columns],
            high=bars.high[window][:, columns],
            low=bars.low[window][:, columns],
            close=bars.close[window][:, columns],
        )
    )


def _clustering(
    regimes: Sequence[Regime], path: NDArray[np.int64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    # exp(√v·u − v) squared has mean 1 for u of unit variance: clustering adds no variance (G3).
    persistence = [regime.log_volatility_persistence for regime in regimes]
    spread = [math.sqrt(1 - value**2) for value in persistence]
    level = np.empty(len(path))
    value = float(noise[0])
    for bar, (state, draw) in enumerate(zip(path.tolist(), noise.tolist(), strict=True)):
        if bar:
            value = persistence[state] * value + spread[state] * draw
        level[bar] = value
    variance = np.array([regime.log_volatility_variance for regime in regimes])[path]
    return np.asarray(np.exp(np.sqrt(variance) * level - variance), dtype=np.float64)


def _bars(scenario: Scenario, sub_steps: NDArray[np.float64]) -> Bars:
    count, _, assets = sub_steps.shape
    log_path = np.cumsum(sub_steps.reshape(count * SUB_STEPS, assets), axis=0)
    log_path = log_path.reshape(count, SUB_STEPS, assets)
    # A bar opens where the one before closed, so its path has five points.
    opens = np.concatenate([np.zeros((1, assets)), log_path[:-1, -1]])
    points = scenario.price_first * np.exp(np.concatenate([opens[:, None], log_path], axis=1))
    return Bars(
        symbols=tuple(symbol_of(base) for base in scenario.bases),
        start_ms=START_MS,
        bar_ms=BAR_MS,
        open=points[:, 0],
        high=points.max(axis=1),
        low=points.min(axis=1),
        close=points[:, -1],
    )


def _regime(table: Mapping[str, Any], bases: Sequence[str], regime: str) -> Regime:
    assets, shape = table["assets"], table["regimes"][regime]
    return Regime(
        volatility=np.array([assets[base][f"volatility_{regime}"] for base in bases]),
        loading=np.array([assets[base][f"loading_{regime}"] for base in bases]),
        degrees_of_freedom=shape["degrees_of_freedom"],
        log_volatility_variance=shape["log_volatility_variance"],
        log_volatility_persistence=shape["log_volatility_persistence"],
    )


def _script(legs: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    regimes: list[int] = []
    drift: list[float] = []
    level = 1.0
    for leg in legs:
        per_bar = math.log(leg["level_end"] / level) / leg["bars"]
        regimes += [REGIMES.index(leg["regime"])] * leg["bars"]
        drift += [per_bar] * leg["bars"]
        level = leg["level_end"]
    return np.array(regimes, dtype=np.int64), np.array(drift)


@cache
def _table() -> Mapping[str, Any]:
    table = tomllib.loads(GENERATOR_FILE.read_text(encoding="utf-8"))
    if table["schema"] != SCHEMA_VERSION:
        raise DataError(
            f"{GENERATOR_FILE}: schema {table['schema']}, this release reads {SCHEMA_VERSION}: "
            "install the file that belongs to it"
        )
    return table
