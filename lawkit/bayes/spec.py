"""The posterior that is approximated or sampled: one law, one group of domains, priors and noise.

Both ways to it, `lawkit.bayes.laplace` (numpy) and `lawkit.bayes.model` (PyMC), read this one description:

    log y[i, e] ~ Student-t(nu[e], mean log L(z; x[i])[e], scale sigma[e] * s[i, e] * exp(covariates[i] . eta[e]))
    z ~ Normal(prior_mean, prior_covariance)
    log sigma[e] ~ Normal(LOG_SIGMA), nu[e] ~ Gamma(NU), eta[e] ~ Normal(0, ETA_SD)

with each cell's log density times `counts[i, e]` (below 1 where rows share their error).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.clusters import independent_share
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.posterior import mean_one
from lawkit.fitting.prepare import Prepared
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Parameter, PriorContext
from lawkit.runs import Runs

#: Mean and standard deviation of the log noise: 1%, within a factor of e.
LOG_SIGMA = (float(np.log(0.01)), 1.0)
#: Shape and rate of the degrees of freedom (Juarez and Steel 2010): most between 4 and 50.
NU = (2.0, 0.1)
#: Of the slopes of log noise by standardised covariates.
ETA_SD = 0.5


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The posterior of one group of m domains (1, or all of a coupled law) over n runs.

    Attributes
    ----------
    name
        The domain, or 'all domains'.
    domains
        The m domains.
    law, inputs
        The law, and the runs as it reads them (`inputs.own` is (1, m)).
    log_losses, live
        (n, m) observed, 0 where not `live`.
    spread
        (n, m) s above: noise of each run in units of a run of weight 1.
    counts
        (n, m) how much each cell counts; 0 where not live.
    covariates
        (n, C) of the log noise, see `NoiseModel`; C may be 0.
    prior_mean, prior_covariance
        (P,), (P, P) on the unconstrained scale.
    start
        (P,) the point fit.
    start_noise
        (m,) its noise.
    sources, rows
        Names of the K sources, and the (n,) rows of the table; for people.
    """

    name: str
    domains: tuple[str, ...]
    law: Law
    inputs: Inputs
    log_losses: np.ndarray
    live: np.ndarray
    spread: np.ndarray
    counts: np.ndarray
    covariates: np.ndarray
    prior_mean: np.ndarray
    prior_covariance: np.ndarray
    start: np.ndarray
    start_noise: np.ndarray
    sources: tuple[str, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))


@dataclass(frozen=True, kw_only=True)
class GroupDraws:
    """Draws of one group's posterior.

    Attributes
    ----------
    z
        (S, P) on the unconstrained scale.
    noise, nu, eta
        (S, m), (S, m), (S, m, C) as in `lawkit.fitting.draws.Draws`.
    diagnostics, warnings
        As there, of this group.
    """

    z: np.ndarray
    noise: np.ndarray
    nu: np.ndarray
    eta: np.ndarray
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def specs(
    runs: Runs, ready: Prepared, z: np.ndarray, noise: np.ndarray, noise_model: NoiseModel
) -> list[Spec]:
    """One `Spec` a group.

    Parameters
    ----------
    runs, ready
        The runs, and what `prepare` made of them and the law.
    z, noise
        (G, P) and (E,) of the point fit.
    noise_model
        What the noise depends on.

    Raises
    ------
    FitError
        If the runs are too few for a posterior.
    """
    law, target = ready.law, ready.problem.target
    mean, covariance = prior(law, ready.context)
    weight = mean_one(target)
    live = target.cell_weights > 0
    value = ready.problem.function.value(z, ready.problem.inputs.take(np.arange(len(z))))
    sound = live & (value > 0)
    with np.errstate(all="ignore"):
        spread = np.where(live, 1.0 / np.sqrt(np.where(live, weight, 1.0)), 1.0)
        residual = np.where(sound, np.log(target.losses / value) / spread, np.nan)
    columns = noise_model.columns(runs.n_params, runs.weights)
    share = _by_group(independent_share(_by_run(residual), runs), len(z))
    out = []
    for g in range(len(z)):
        domains = ready.domains if law.coupled else (ready.domains[g],)
        fewest = int(live[g].sum(0).min())
        if fewest < 4:
            raise FitError(
                f"a posterior needs at least 4 losses of each domain, {domains[int(live[g].sum(0).argmin())]} has "
                f"{fewest}: add runs"
            )
        out.append(
            Spec(
                name="all domains" if law.coupled else domains[0],
                domains=domains,
                law=law,
                inputs=replace(ready.problem.inputs, own=ready.problem.inputs.own[[g]]),
                log_losses=np.where(live[g], np.log(target.losses[g]), 0.0),
                live=live[g],
                spread=spread[g],
                counts=np.where(live[g], share[g], 0.0),
                covariates=columns,
                prior_mean=mean[g],
                prior_covariance=covariance,
                start=z[g],
                start_noise=noise.reshape(len(z), -1)[g],
                sources=runs.sources,
                rows=runs.rows,
            )
        )
    return out


def prior(law: Law, context: PriorContext) -> tuple[np.ndarray, np.ndarray]:
    """Prior mean (B, P) and covariance (P, P): the law's own, and weakly informative ones where it declares none.

    Parameters that enter linearly are losses in nats: the asymptote, or a term's size at the reference point. The
    range that starts are drawn from is taken as the middle nine tenths of the others, but of real ones (coefficients of
    weights, above all) as the middle quarter: tables with many sources ask for values far outside it.
    """
    mean, covariance = law.prior(context)
    where = law.layout(context.n_sources)
    lowest = context.lowest_loss.min(1, keepdims=True)
    for p in law.parameters:
        if p.prior is not None:
            continue
        part = where[p.name]
        if p.name in law.linear and p.support == "positive":
            mean[:, part] = np.log((0.5 if _is_asymptote(law, p) else 0.25) * lowest)
            sd = 1.0 if _is_asymptote(law, p) else 1.5
        else:
            low, high = law.unconstrained_range(p)
            width = 1.5 * (high - low) if p.support == "real" else (high - low) / 3.3
            mean[:, part], sd = 0.5 * (low + high), max(width, 0.25)
        covariance[part, part] = np.eye(part.stop - part.start) * sd**2
    return mean, covariance


def _is_asymptote(law: Law, p: Parameter) -> bool:
    """Whether a linear parameter is a term by itself."""
    import sympy as sp

    return law._symbol(p) in sp.Add.make_args(law.loss)


def _by_run(values: np.ndarray) -> np.ndarray:
    """(G, n, m) as (n, G x m), domains in their order."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)


def _by_group(values: np.ndarray, groups: int) -> np.ndarray:
    """The inverse of `_by_run`."""
    return np.moveaxis(values.reshape(len(values), groups, -1), 1, 0)
