"""What a fit makes of its own losses: how far its priors pull."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.fitting.estimate import estimate

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
