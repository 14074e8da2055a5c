"""What other fits like this one would find: how far its priors pull, and how far other runs would move it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.fitting.clusters import training_runs
from lawkit.fitting.estimate import estimate, parts
from lawkit.fitting.prepare import prepare
from lawkit.laws._average import members

if TYPE_CHECKING:
    from lawkit.fitting.result import Fit


def echo(fit: Fit) -> np.ndarray:
    """(G, P) parameters that the same law, objective and priors give to the losses that `fit` predicts for its runs.

    Without priors these are the fit's own. Priors pull estimates towards themselves, and do so again from where the
    first pull has led: the second pull can be seen, and says how large the first one was, which cannot.

    Raises
    ------
    FitError
        If the predicted losses cannot be fitted.

    References
    ----------
    Estimates of a bias by taking the estimate for the truth: Efron and Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 10.
    """
    e, runs = fit.estimate, fit.runs.with_domains(list(fit.domains))
    if e.objective.sigma is None or not any(p.prior for p in e.law.parameters):
        return e.z
    predicted = fit.losses(runs.n_params, runs.n_tokens, runs.weights, runs.unique)
    runs = replace(runs, losses=np.where(np.isnan(runs.losses), np.nan, predicted))
    return estimate(runs, e.law, e.objective, e.min_weight, warm=e.z)[0].z


def resampled(fit: Fit, count: int, seed: int = 0) -> np.ndarray:
    """(count, G, P) parameters as other runs like these would have given them, to first order.

    The pull of each training run on the parameters is multiplied by a standard normal number, the same for all its
    checkpoints, all domains and all members of an average: so what errs together in the table does so here.

    Raises
    ------
    FitError
        If the runs cannot be fitted.

    References
    ----------
    Wild bootstrap by clusters: Cameron, Gelbach and Miller 2008, Review of Economics and Statistics 90.
    """
    e, runs = fit.estimate, fit.runs
    labels = training_runs(runs)
    pulls = []
    for member, z in zip(members(e.law), parts(e.law, e.z, len(runs.sources)), strict=True):
        assert z is not None
        each = prepare(runs, member, e.objective, e.min_weight).problem.pulls(z)
        by_row = each.reshape(len(z), len(runs), -1, z.shape[1]).sum(2)
        by_run = np.zeros((len(z), labels.max() + 1, z.shape[1]))
        np.add.at(by_run, (slice(None), labels), by_row)  # type: ignore[arg-type]
        pulls.append(by_run)
    moves = np.concatenate(pulls, 2) @ np.stack([_inverse(matrix) for matrix in e.hessian])
    signs = np.random.default_rng(seed).standard_normal((count, labels.max() + 1))
    return e.z + np.einsum("sr,grp->sgp", signs, moves)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse (P, P) of a positive semidefinite matrix in any units; 0 in directions that it says nothing about."""
    size = np.sqrt(np.diag(matrix))
    size = np.where(size > 0, size, 1.0)
    return np.linalg.pinv(matrix / np.outer(size, size), rcond=1e-10, hermitian=True) / np.outer(size, size)
