"""Estimators behind ``calibrate``: one common factor, clustering of volatility, weight of tails.

Each is the simplest that answers its question and needs numpy alone. They are used once, at
calibration, never while trading.

Sources: principal factor iteration, Harman (1976), chapter 8; the log-squared autocovariance of
stochastic volatility, Taylor (1986), chapter 3; the scale of a Student-t by expectation and
maximisation, Liu and Rubin (1995).
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FACTOR_ROUNDS_MAX = 500
LOADING_MAX = 0.98
LAGS = np.arange(2, 61)
"""Lags of the clustering fit, bars; not lag 1, which bounces between bid and ask imitate."""

LOG_FLOOR = 0.05
"""Returns below this part of the median size count as it: the log of a zero return says nothing."""

DECAY = 0.97
"""Of the running variance that returns are divided by before their tails are measured."""

WARM_UP_BARS = 200
DEGREES = np.arange(4.5, 30.01, 0.25)
SCALE_ROUNDS = 60


def one_factor(correlation: Floats) -> Floats:
    """Return the loadings of the one-factor model nearest to a correlation matrix.

    Parameters
    ----------
    correlation
        Float64 [asset, asset], at least three assets.

    Returns
    -------
    NDArray
        Float64 [asset], at most ``LOADING_MAX``: correlation of each asset with the factor.
    """
    reduced = correlation.copy()
    loadings = np.zeros(len(correlation))
    for _ in range(FACTOR_ROUNDS_MAX):
        np.fill_diagonal(reduced, loadings**2 if loadings.any() else 1.0)
        values, vectors = np.linalg.eigh(reduced)
        vector = vectors[:, -1] * math.copysign(1.0, float(vectors[:, -1].sum()))
        loadings = np.clip(vector * math.sqrt(float(values[-1])), -LOADING_MAX, LOADING_MAX)
    return np.asarray(loadings, dtype=np.float64)


def clustering(returns: Floats) -> tuple[float, float]:
    """Return variance and persistence (per bar) of the log volatility, modelled as an AR(1).

    If r = exp(h) · z with z independent, the autocovariance of log|r| at lag k > 0 is that of h,
    variance · persistence^k: both follow from a line through its logarithm, weighted by its size.

    Parameters
    ----------
    returns
        Float64 [bar], NaN where the bar does not belong to the sample.
    """
    size = np.abs(returns)
    logs = np.log(np.maximum(size, LOG_FLOOR * np.nanmedian(size)))
    logs -= np.nanmean(logs)
    covariance = np.array([np.nanmean(logs[lag:] * logs[:-lag]) for lag in LAGS])
    positive = covariance > 0
    lags, heights = LAGS[positive].astype(np.float64), covariance[positive]
    slope, level = np.polyfit(lags, np.log(heights), 1, w=heights)
    return float(np.exp(level)), float(min(np.exp(slope), 0.9999))


def degrees_of_freedom(returns: Floats, chosen: NDArray[np.bool_]) -> float:
    """Return the Student-t degrees of freedom of returns, by maximum likelihood on a grid.

    Returns are first divided by their running volatility, which knows only earlier bars. Its own
    error stays in them, so that the tails are, if anything, taken as too heavy.

    Parameters
    ----------
    returns
        Float64 [bar, asset], NaN where missing.
    chosen
        Bool [bar]: bars of the sample.

    Returns
    -------
    float
        Above 4, so that the kurtosis exists.
    """
    variance = np.nanmean(returns**2, axis=0)
    scaled = np.full(returns.shape, np.nan)
    for bar, row in enumerate(returns):
        known = np.isfinite(row)
        scaled[bar, known] = row[known] / np.sqrt(variance[known])
        variance[known] = DECAY * variance[known] + (1 - DECAY) * row[known] ** 2
    sample = scaled[WARM_UP_BARS:][chosen[WARM_UP_BARS:]]
    values = sample[np.isfinite(sample)]
    likelihoods = [_student_log_likelihood(values, float(degrees)) for degrees in DEGREES]
    return float(DEGREES[int(np.argmax(likelihoods))])


def _student_log_likelihood(values: Floats, degrees: float) -> float:
    # The scale is free: only the shape of the distribution is wanted here.
    squared = values**2
    scale = float(np.median(squared))
    for _ in range(SCALE_ROUNDS):
        scale = float(np.mean((degrees + 1) * squared / (degrees + squared / scale)))
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    constant -= 0.5 * math.log(degrees * math.pi * scale)
    logs = np.log1p(squared / (degrees * scale))
    return len(values) * constant - (degrees + 1) / 2 * float(logs.sum())
