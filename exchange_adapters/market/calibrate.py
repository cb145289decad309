"""Fit the generator to recorded panels: ``calibrate CALM_PANEL STRESSED_PANEL…``.

Prints the fitted half of ``generator.toml``. The first panel is the calm one; of the stressed ones
an asset is taken from the first that has it. Every hour of every panel is called calm or stressed
by its volatility (two-means on the log, one threshold for all panels), and each regime is fitted to
the hours that bear its name: so the regimes explain the slow moves of volatility, and only what is
left within them goes into clustering and tails. Figures are per one-minute bar; five-minute panels
are scaled by the square root of time.

Invariants: K1 a missing bar is never a zero return; K2 equal panels give equal text.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exchange_adapters.market.replay import Panel, find_panel, read_panel
from exchange_adapters.market.selection import market_text
from exchange_adapters.market.tail import clustering, degrees_of_freedom, one_factor
from tripgate.errors import DataError, TripgateError, UsageError

Floats = NDArray[np.float64]

INDEX_BASES = ("BTC", "ETH", "XRP", "LTC")
"""Coins whose mean return measures an hour's volatility; every panel used here must have them."""

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
BARS_PRESENT_MIN = 0.75
"""Part of an hour's bars that must exist before the hour is given a regime."""

TWO_MEANS_ROUNDS_MAX = 100
UNKNOWN = -1


@dataclass(frozen=True)
class Sample:
    """Log returns of a panel and the regime of each.

    Attributes
    ----------
    panel
        Where they come from.
    returns
        Float64 [bar, coin]; NaN across a gap.
    minutes
        Length of a bar, minutes.
    regimes
        Int64 [bar]: 0 calm, 1 stressed, -1 unknown.
    hours
        The same per hour, int64 [hour].
    """

    panel: Panel
    returns: Floats
    minutes: int
    regimes: NDArray[np.int64]
    hours: NDArray[np.int64]

    def rows(self, regime: int) -> Floats:
        """Return the complete rows of a regime, float64 [row, coin]."""
        chosen = self.returns[self.regimes == regime]
        return np.asarray(chosen[np.isfinite(chosen).all(axis=1)], dtype=np.float64)


@dataclass(frozen=True)
class RegimeFit:
    """A regime as fitted: per coin σ per root minute and β, and the shape of its shocks."""

    volatility: dict[str, float]
    loading: dict[str, float]
    source: dict[str, str]
    degrees_of_freedom: float
    log_volatility_variance: float
    log_volatility_persistence: float
    correlation_average: float
    bars_used: int


def log_returns(panel: Panel) -> Floats:
    """Return close-to-close log returns, float64 [bar, coin], NaN where either close is missing."""
    close = panel.prices["close"].astype(np.float64)
    first = np.full((1, close.shape[1]), np.nan)
    return np.concatenate([first, np.diff(np.log(close), axis=0)])


def index_returns(panel: Panel, returns: Floats) -> Floats:
    """Return the mean return of the index coins, float64 [bar]."""
    missing = [base for base in INDEX_BASES if base not in panel.bases]
    if missing:
        raise DataError(f"{panel.name} lacks {', '.join(missing)}: calibrate on panels with them")
    columns = [panel.bases.index(base) for base in INDEX_BASES]
    return np.asarray(returns[:, columns].mean(axis=1), dtype=np.float64)


def hourly_log_volatility(panel: Panel, returns: Floats) -> Floats:
    """Return the log of the index's volatility per root minute, float64 [hour], NaN where unknown.

    The mean return of an hour is taken as zero: its error would be larger than what it removes.
    """
    per_hour = HOUR_MS // panel.bar_ms
    hours = len(returns) // per_hour
    blocks = index_returns(panel, returns)[: hours * per_hour].reshape(hours, per_hour)
    known = np.isfinite(blocks)
    total = np.where(known, blocks, 0.0) ** 2
    count = np.maximum(known.sum(axis=1), 1)
    variance = total.sum(axis=1) / count / (panel.bar_ms // MINUTE_MS)
    enough = (known.mean(axis=1) >= BARS_PRESENT_MIN) & (variance > 0)
    return np.log(np.where(enough, variance, np.nan)) / 2


def two_means_threshold(values: Floats) -> float:
    """Return the midpoint between the two means that best split finite ``values``, [n]."""
    low, high = (float(quantile) for quantile in np.quantile(values, [0.25, 0.75]))
    for _ in range(TWO_MEANS_ROUNDS_MAX):
        upper = values > (low + high) / 2
        means = float(values[~upper].mean()), float(values[upper].mean())
        if means == (low, high):
            break
        low, high = means
    return (low + high) / 2


def sampled(panels: Sequence[Panel]) -> tuple[list[Sample], float]:
    """Return the panels' returns with regimes, and the threshold (log σ per root minute)."""
    returns = [log_returns(panel) for panel in panels]
    levels = [hourly_log_volatility(*pair) for pair in zip(panels, returns, strict=True)]
    pooled = np.concatenate(levels)
    threshold = two_means_threshold(pooled[np.isfinite(pooled)])
    samples = []
    for panel, values, level in zip(panels, returns, levels, strict=True):
        hours = np.where(np.isnan(level), UNKNOWN, (level > threshold).astype(np.int64))
        per_bar = np.repeat(hours, HOUR_MS // panel.bar_ms)
        tail = np.full(len(values) - len(per_bar), UNKNOWN)
        regimes = np.concatenate([per_bar, tail])
        samples.append(Sample(panel, values, panel.bar_ms // MINUTE_MS, regimes, hours))
    return samples, threshold


def leave_probabilities(sample: Sample) -> tuple[float, float]:
    """Return the probability per minute of leaving calm and stressed, from the hours' changes."""
    before, after = sample.hours[:-1], sample.hours[1:]
    leaves = []
    for regime in (0, 1):
        stays = (before == regime) & (after != UNKNOWN)
        # Half a change more than seen: a change that a short sample lacks is rare, not impossible.
        changes = float((stays & (after != regime)).sum()) + 0.5
        per_hour = changes / (float(stays.sum()) + 1.0)
        leaves.append(1 - (1 - per_hour) ** (MINUTE_MS / HOUR_MS))
    return leaves[0], leaves[1]


def fit_regime(samples: Sequence[Sample], regime: int, bases: Sequence[str]) -> RegimeFit:
    """Return the fit of one regime; each coin's σ and β from the first sample that has it."""
    volatility: dict[str, float] = {}
    loading: dict[str, float] = {}
    source: dict[str, str] = {}
    for sample in samples:
        rows = sample.rows(regime)
        columns = [place for place, base in enumerate(sample.panel.bases) if base in bases]
        chosen = rows[:, columns]
        loadings = one_factor(np.asarray(np.corrcoef(chosen.T)))
        sigmas = np.sqrt((chosen**2).mean(axis=0) / sample.minutes)
        for place, column in enumerate(columns):
            base = sample.panel.bases[column]
            if base not in volatility:
                volatility[base] = float(sigmas[place])
                loading[base] = float(loadings[place])
                source[base] = sample.panel.name
    first = samples[0]
    index = index_returns(first.panel, first.returns)
    variance, persistence = clustering(np.where(first.regimes == regime, index, np.nan))
    betas = np.array([loading[base] for base in bases])
    pairs = np.triu_indices(len(bases), 1)
    return RegimeFit(
        volatility=volatility,
        loading=loading,
        source=source,
        degrees_of_freedom=degrees_of_freedom(
            first.returns[:, [first.panel.bases.index(base) for base in INDEX_BASES]],
            first.regimes == regime,
        ),
        log_volatility_variance=variance,
        log_volatility_persistence=persistence,
        correlation_average=float(np.outer(betas, betas)[pairs].mean()),
        bars_used=sum(len(sample.rows(regime)) for sample in samples),
    )


def fitted_toml(panels: Sequence[Panel]) -> str:
    """Return the fitted half of ``generator.toml``.

    Parameters
    ----------
    panels
        The calm panel, then at least one stressed panel.
    """
    samples, threshold = sampled(panels)
    calm_sample, stressed_samples = samples[0], samples[1:]
    stressed_bases = {base for sample in stressed_samples for base in sample.panel.bases}
    bases = [base for base in panels[0].bases if base in stressed_bases]
    calm = fit_regime([calm_sample], 0, bases)
    stressed = fit_regime(stressed_samples, 1, bases)
    return "\n".join(
        [
            *_head(panels, samples, threshold),
            *_regime_lines("calm", calm),
            *_regime_lines("stressed", stressed),
            *_chain_lines("calm", calm_sample),
            *_chain_lines("stressed", stressed_samples[0]),
            *_asset_lines(panels[0], bases, calm, stressed),
        ]
    )


def _head(panels: Sequence[Panel], samples: Sequence[Sample], threshold: float) -> list[str]:
    names = [f"#     {panel.name} \\" for panel in panels]
    lines = [
        "# Fitted; do not edit. Made by:",
        "#   python -m exchange_adapters.market.calibrate \\",
        *names[:-1],
        names[-1].removesuffix(" \\"),
        "# Volatilities are standard deviations of one-minute log returns.",
        "",
        "schema = 1",
        f"threshold_volatility = {np.exp(threshold):.6f}",
        "",
    ]
    for panel, sample in zip(panels, samples, strict=True):
        end_ms = int(panel.open_ms[-1]) + panel.bar_ms
        lines += [
            "[[sources]]",
            f'panel = "{panel.name}"',
            f'period = "{market_text(int(panel.open_ms[0]))} to {market_text(end_ms)} UTC"',
            f"bar_s = {panel.bar_ms // 1000}",
            f"bars_calm = {len(sample.rows(0))}",
            f"bars_stressed = {len(sample.rows(1))}",
            "",
        ]
    return lines


def _regime_lines(name: str, fit: RegimeFit) -> list[str]:
    return [
        f"[regimes.{name}]",
        f"degrees_of_freedom = {fit.degrees_of_freedom:.2f}",
        f"log_volatility_variance = {fit.log_volatility_variance:.4f}",
        f"log_volatility_persistence = {fit.log_volatility_persistence:.4f}",
        f"correlation_average = {fit.correlation_average:.4f}",
        f"bars_used = {fit.bars_used}",
        "",
    ]


def _chain_lines(name: str, sample: Sample) -> list[str]:
    calm, stressed = leave_probabilities(sample)
    return [
        f"[chains.{name}]",
        f'source = "{sample.panel.name}"',
        f"leave_calm_probability = {calm:.6f}",
        f"leave_stressed_probability = {stressed:.6f}",
        "",
    ]


def _asset_lines(
    panel: Panel, bases: Sequence[str], calm: RegimeFit, stressed: RegimeFit
) -> list[str]:
    lines = []
    for base in bases:
        closes = panel.prices["close"][:, panel.bases.index(base)]
        last = float(closes[np.isfinite(closes)][-1])
        lines += [
            f"[assets.{base}]",
            f"price_first = {last:.6g}",
            f"volatility_calm = {calm.volatility[base]:.6f}",
            f"volatility_stressed = {stressed.volatility[base]:.6f}",
            f"loading_calm = {calm.loading[base]:.4f}",
            f"loading_stressed = {stressed.loading[base]:.4f}",
            f'source_stressed = "{stressed.source[base]}"',
            "",
        ]
    return lines


def main(arguments: Sequence[str]) -> int:
    """Print the fit of the named panels; return the exit code."""
    try:
        if len(arguments) < 2:
            raise UsageError("name a calm panel and at least one stressed panel")
        print(fitted_toml([read_panel(find_panel(name)) for name in arguments]))
    except TripgateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
