"""Importance resampling: draws of an approximation become draws of the posterior, as far as their weights allow."""

from __future__ import annotations

import numpy as np


def pareto_smoothed(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Log weights with the largest ones smoothed, and how heavy their tail is.

    Parameters
    ----------
    log_ratios
        (S,) log of posterior over proposal density, up to a constant; -infinity for draws the posterior excludes.

    Returns
    -------
    log_weights : ndarray
        (S,) with maximum 0 or below.
    k : float
        Shape of the tail: up to .7 a mean under the weights can be trusted, from 1 on it does not exist. Infinity
        where fewer than five draws are possible at all.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao and Gabry 2024, Pareto smoothed importance sampling, arXiv:1507.02646.
    """
    size = len(log_ratios)
    out = log_ratios - log_ratios.max()
    tail = min(int(0.2 * size), int(3 * np.sqrt(size)))
    order = np.argsort(out)
    largest, cut = order[-tail:], out[order[-tail - 1]] if tail >= 5 else -np.inf
    if not np.isfinite(cut):
        return out, np.inf
    above = np.exp(out[largest]) - np.exp(cut)
    if above[-1] <= 0 or above[0] < 0:
        return out, -np.inf  # all alike: nothing to smooth
    k, scale = _pareto(np.maximum(above, 1e-300))
    share = (np.arange(tail) + 0.5) / tail
    with np.errstate(over="ignore"):
        quantiles = scale * (np.expm1(-k * np.log1p(-share)) / k if abs(k) > 1e-9 else -np.log1p(-share))
    out[largest] = np.minimum(np.log(quantiles + np.exp(cut)), 0.0)
    return out, k


def _pareto(x: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution of x (M,), sorted (Zhang and Stephens 2009)."""
    count = len(x)
    grid = 30 + int(np.sqrt(count))
    quarter = x[int(count / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quarter)
    shape = np.log1p(-theta[:, None] * x).mean(1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        profile = count * (np.log(-theta / shape) - shape - 1)
        weight = 1 / np.exp(profile - profile[:, None]).sum(1)
    best = float((theta * weight)[weight > 0].sum() / weight.sum())
    k = float(np.log1p(-best * x).mean())
    # A weak prior at .5, as the authors of the smoothing advise.
    return (k * count + 5) / (count + 10), -k / best


def effective(log_weights: np.ndarray, power: float = 1.0) -> float:
    """How many equally weighted draws the weights, raised to a power, are worth (Kish)."""
    w = np.exp(power * (log_weights - log_weights.max())) if power > 0 else np.isfinite(log_weights) * 1.0
    return float(w.sum() ** 2 / (w * w).sum())


def affordable_power(log_weights: np.ndarray, least: float) -> float:
    """The largest power up to 1 that leaves the weights worth at least `least` draws."""
    low, high = 0.0, 1.0
    if effective(log_weights) >= least:
        return 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(log_weights, middle) >= least else (low, middle)
    return low


def resampled(log_weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) indices of draws, each as often as its weight says, in random order (systematic resampling)."""
    w = np.exp(log_weights - log_weights.max())
    steps = (rng.uniform() + np.arange(count)) / count
    # Rounding may leave the last step beyond the sum.
    index = np.minimum(np.searchsorted(np.cumsum(w / w.sum()), steps), len(w) - 1)
    return rng.permutation(index)
