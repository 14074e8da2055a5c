"""Parameters that a fit allows: what a proposal takes for possible truths.

Where a fit has no draws of its own, they are refits to the observed losses with their noise added once more, around
prior means that are drawn from their priors. For linear laws these are draws of the posterior; for others each still
agrees with the runs. Draws of a normal do not, where runs leave a law much freedom: parameters that lie along the
slopes at the fit miss the very runs that were fitted. For tables too large for hundreds of refits they are taken all
the same, resampled by how well each agrees with the runs.

References
----------
Refits to perturbed losses: Oliver, He and Reynolds 1996, Conditioning permeability fields to pressure data; Bardsley et
al. 2014, SIAM Journal on Scientific Computing 36. Importance resampling: Vehtari et al. 2024, arXiv:1507.02646.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.fitting.posterior import mean_one
from lawkit.fitting.prepare import prepare
from lawkit.fitting.solver import LeastSquares, Target, minimise
from lawkit.laws._average import members
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Objective

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Refits end where an iteration lowers their cost by less than this, relatively, or after so many: no choice hangs on
#: more, and the last few would take as long as all others.
CLOSE, ROUNDS = 1e-4, 20
#: Draws of a normal to choose from for each that is kept, and the least part of them that weights may leave.
FROM, SHARE = 4, 0.25
#: Residuals in units of their noise.
STANDARD = Objective(kind="relative", sigma=1.0)


def refits(fit: Fit, used: list[int], count: int, seed: int) -> np.ndarray:
    """(count, G, P) fits to the observed losses with noise added, and priors around draws of their means.

    Losses count by the noise that was estimated rather than by the objective's own sigma: as in the covariance of the
    fit, that is what they and the priors together tell.
    """
    e, rng = fit.estimate, np.random.default_rng(seed)
    columns, shocks = [], None
    for law, own in fitted_apart(fit):
        z, problem = e.z[:, own], prepare(fit.runs, law, e.objective, e.min_weight).problem
        target, weight = problem.target, mean_one(problem.target)
        if shocks is None:  # members of an average saw the same noise
            shocks = rng.standard_normal((count, *weight.shape))
        noise = e.noise.reshape(len(z), 1, -1)
        spread = np.divide(noise, np.sqrt(weight), where=weight > 0, out=np.zeros_like(weight))
        losses, found = target.losses * np.exp(spread * shocks), np.tile(z, (count, 1, 1))
        for g in used:
            cells, prior = target.cell_weights[g], prior_of(target, g)
            if prior is not None and e.objective.sigma is not None:
                cells = weight[g] * (e.objective.sigma / noise[g]) ** 2
                moved = np.linalg.solve(prior[1], rng.standard_normal((z.shape[1], count))).T
                prior = prior[0] + moved, prior[1]
            found[:, g] = minima(problem, problem.inputs, g, losses[:, g], cells, prior, z[g])
        columns.append(found)
    return np.concatenate(columns, 2)


def resampled_normal(fit: Fit, used: list[int], count: int, seed: int) -> np.ndarray:
    """(count, G, P) draws of the normal with the fit's covariance, resampled towards those that agree with the runs."""
    from lawkit.bayes._importance import affordable_power, pareto_smoothed, resampled

    e, drawn, rng = fit.estimate, fit.draw(FROM * count, seed), np.random.default_rng([seed, 2])
    log_ratio = np.zeros((len(e.z), len(drawn)))
    for law, own in fitted_apart(fit):
        problem = prepare(fit.runs, law, e.objective, e.min_weight).problem
        cells = mean_one(problem.target) / e.noise.reshape(len(e.z), 1, -1) ** 2
        target = replace(problem.target, cell_weights=cells)
        exact = LeastSquares(law.function, problem.inputs, target, STANDARD)
        for g in used:
            z = drawn[:, g, own]
            off = z - e.z[g, own]
            normal = (off * np.linalg.solve(e.covariance[g, own, own], off.T).T).sum(1)
            log_ratio[g] += 0.5 * (normal - exact.cost(z, np.full(len(z), g)))
    out = drawn[:count].copy()
    for g in used:
        weights = pareto_smoothed(log_ratio[g])[0]
        power = affordable_power(weights, SHARE * len(weights))
        out[:, g] = drawn[resampled(power * weights, count, rng), g]
    return out


def minima(
    problem: LeastSquares,
    x: Inputs,
    group: int,
    losses: np.ndarray,
    cells: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray] | None,
    start: np.ndarray,
) -> np.ndarray:
    """(S, P) minima of the problem's objective for one group with other losses (S, n, m), from one start (P,).

    Parameters
    ----------
    x
        The n rows.
    cells
        (n, m) how much each loss counts.
    prior
        Its mean (P,) or (S, P), and the root (P, P) of its precision.
    """
    S, P = len(losses), len(start)
    mean, root = (None, None) if prior is None else (np.broadcast_to(prior[0], (S, P)), prior[1])
    target = Target(losses, np.broadcast_to(cells, losses.shape), mean, root)
    many = LeastSquares(problem.function, x.take(np.full(S, group)), target, problem.objective)
    return minimise(many, np.tile(start, (S, 1)), np.arange(S), ROUNDS, CLOSE, workers=1)[0]


def fitted_apart(fit: Fit) -> Iterator[tuple[Law, slice]]:
    """The laws that are fitted one by one, and which part of the fitted vectors belongs to each."""
    end = 0
    for law in members(fit.law):
        own = slice(end, end := end + law.n_parameters(len(fit.sources)))
        yield law, own


def prior_of(target: Target, group: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean (P,) of a group's prior, and the root (P, P) of its precision."""
    if target.prior_mean is None or target.prior_root is None:
        return None
    return target.prior_mean[group], target.prior_root


def root_of(precision: np.ndarray) -> np.ndarray:
    """R (P, P) with R'R a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(precision)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
