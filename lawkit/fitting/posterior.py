"""How sure a fit is: the noise of its residuals and the covariance of its parameters."""

from __future__ import annotations

import numpy as np

from lawkit.fitting.solver import LeastSquares, Target, residuals, tame


def posterior(problem: LeastSquares, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise (G x E,) of the log residuals at z (G, P), and the Gauss-Newton covariance (G, P, P) that it implies.

    Weights say how much a run counts, on average 1; the noise is that of a run of weight 1. The covariance is that of
    normal log residuals with this noise, and the priors. z was found under the objective instead: its fixed
    sigma, or Huber's threshold. So it is not quite the mode of the posterior that the covariance describes: a sigma
    that is larger than the noise leaves z nearer to the priors.
    """
    target, size = problem.target, z.shape[1]
    value, slope = problem.function.jacobian(z, problem.inputs.take(np.arange(len(z))))
    live = target.cell_weights > 0
    with np.errstate(all="ignore"):
        # Linear laws may fall to zero and below, where only the relative residual has a meaning.
        sound = value > 0.1 * target.losses
        residual = np.where(sound, residuals(value, target.losses, "huber"), value / target.losses - 1.0)
        log_residual = np.where(live, residual, 0.0)
        divisor = np.where(sound, value, target.losses)[..., None]
        jac = tame(np.where(live[..., None], slope / divisor, 0.0)).reshape(len(z), -1, size)
    w = mean_one(target)
    spread = (w * log_residual**2).sum(1) / live.sum(1)  # (G, E)
    precision = (
        np.zeros((size, size)) if target.prior_root is None else target.prior_root.T @ target.prior_root
    )
    noise, covariance = np.empty_like(spread), np.empty((len(z), size, size))
    for g in range(len(z)):
        count = live[g].sum()
        noise[g] = np.sqrt(spread[g]) + 1e-12
        for _ in range(3):  # noise and the number of parameters that the runs determine depend on each other
            rows = jac[g] * (np.sqrt(w[g]) / noise[g]).reshape(-1, 1)
            information = rows.T @ rows
            covariance[g] = _inverse(information + precision)
            used = float(np.clip(np.trace(covariance[g] @ information), 0.0, count - 1.0))
            # Floors: a perfect fit has no noise, and a tenth of the cells always counts as informing it.
            noise[g] = np.maximum(np.sqrt(spread[g] / max(1.0 - used / count, 0.1)), 1e-12)
    return noise.ravel(), covariance


def mean_one(target: Target) -> np.ndarray:
    """Cell weights (G, n, E) with mean 1 over the cells of each domain that are not masked.

    A domain whose runs are missing where weights are small must not count as informed by more runs than it has.
    """
    live = target.cell_weights > 0
    return target.cell_weights * (live.sum(1) / target.cell_weights.sum(1))[:, None]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a positive semidefinite matrix; directions it says nothing about get a variance of 100 at most."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors / np.maximum(values, 1e-2)) @ vectors.T
