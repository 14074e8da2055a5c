"""Simulation-based calibration, which tests whether a sampler returns the posterior that it claims to.

Parameters are drawn from the prior and losses from the model; then the posterior of the simulated table must contain
the parameters as often as it says. The rank of the true value among independent draws of the right posterior is
uniform, for every quantity, whether or not the table identifies it (Talts et al. 2018).

This holds only if the refit uses the very prior that the parameters came from. Two things in a fit depend on the
losses and must not here. Priors that are relative to the lowest observed loss are fixed by the losses of the template,
and stay so for all tables simulated from it. How much rows count is estimated from residuals; simulated rows err
independently, so all count in full. What the posterior is started from may depend on the losses, and does: it is the
point fit, as ever. A choice made by the losses alone, such as looking only at tables for which a sampler gave no
warning, leaves ranks uniform too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lawkit.bayes._ranks import Calibration
from lawkit.bayes.density import prior_root
from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, GroupDraws, Spec, prior, specs
from lawkit.errors import FitError, LawkitError
from lawkit.fitting.draws import Noise, NoiseModel
from lawkit.fitting.estimate import estimate
from lawkit.fitting.prepare import prepare, total_unique
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: A sampler: the posterior, how many draws, a seed.
Sampler = Callable[[Spec, int, int], GroupDraws]


def template(
    law: Law, runs: Runs, noise: Noise = "constant", priors: tuple[np.ndarray, np.ndarray] | None = None
) -> Spec:
    """The posterior of a table whose losses are still to be simulated.

    Parameters
    ----------
    law
        The law.
    runs
        Sizes and mixtures. Of the losses only the lowest of each domain counts: priors are relative to it. Of a law
        that is fitted domain by domain, the first domain is taken.
    noise
        What the noise depends on.
    priors
        (P,) mean and (P, P) covariance in place of the law's own, on the unconstrained scale.
    """
    ready = prepare(runs, law, law.objective)
    if priors is None:
        mean, covariance = prior(law, ready.context)
    else:
        mean, covariance = np.broadcast_to(priors[0], (len(ready.context.own), ready.size)), priors[1]
    sigma = np.full(len(ready.domains), np.exp(LOG_SIGMA[0]))
    spec = specs(runs, ready, mean, sigma, NoiseModel.of(runs, noise))[0]
    return replace(
        spec, prior_mean=mean[0], prior_covariance=covariance, counts=spec.live.astype(float), start=mean[0]
    )


def simulate(spec: Spec, rng: np.random.Generator) -> tuple[Spec, GroupDraws]:
    """A table drawn from the prior, and the one draw that is the truth behind it.

    Losses of a law that may fall to zero are drawn again until none does, as a table cannot hold them; the prior is
    then understood to exclude such parameters.

    Raises
    ------
    FitError
        If the prior hardly ever gives positive finite losses.
    """
    m, C = spec.log_losses.shape[1], spec.covariates.shape[1]
    root = prior_root(spec)
    for _ in range(1000):
        truth = GroupDraws(
            z=(spec.prior_mean + root @ rng.standard_normal(len(root)))[None],
            noise=np.exp(rng.normal(*LOG_SIGMA, (1, m))),
            nu=rng.gamma(NU[0], 1 / NU[1], (1, m)),
            eta=rng.normal(0, ETA_SD, (1, m, C)),
        )
        scale = spec.spread * truth.noise[0] * np.exp(np.einsum("nc,mc->nm", spec.covariates, truth.eta[0]))
        with np.errstate(all="ignore"):
            mean = np.log(spec.law.function.value(truth.z, spec.inputs)[0])
            log_losses = mean + scale * rng.standard_t(np.broadcast_to(truth.nu[0], mean.shape))
        if np.isfinite(log_losses[spec.live]).all():
            return replace(spec, log_losses=np.where(spec.live, log_losses, 0.0)), truth
    raise FitError(
        f"of 1,000 draws from the prior of law {spec.law.name!r} none gave positive finite losses for all runs: "
        "choose a narrower prior"
    )


def calibrate(
    law: Law,
    runs: Runs,
    sampler: Sampler,
    *,
    tables: int = 100,
    far: Runs | None = None,
    sampled: int = 1000,
    draws: int = 99,
    noise: Noise = "constant",
    priors: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Ranks of true parameters, and of true losses at far points, in the posteriors of simulated tables.

    Parameters
    ----------
    law, runs, noise, priors
        As for `template`.
    sampler
        Gives draws of a posterior: `sampler(spec, sampled, seed)`.
    tables
        How many tables to simulate.
    far
        Sizes and mixtures at which predictions are judged.
    sampled
        Draws asked of the sampler; it may give more.
    draws
        How many of them, evenly spaced so that they are nearly independent, a true value is ranked among.
    seed
        The same seed gives the same tables, whatever the sampler.
    progress
        Called after each table with its number.

    Returns
    -------
    Calibration
        Quantities are the elements of z, log sigma, nu and eta, and the log loss at each far point.

    Raises
    ------
    FitError
        If every single table failed.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman 2018, Validating Bayesian inference algorithms with simulation-based
    calibration, arXiv:1804.06788.
    """
    spec = template(law, runs, noise, priors)
    at = None if far is None else _inputs(spec, far)
    ranks, diagnostics, failures = [], [], []
    for table in range(tables):
        simulated, truth = simulate(spec, np.random.default_rng([seed, table]))
        try:
            found = sampler(_started(simulated, runs), sampled, table)
        except LawkitError as error:
            failures.append(str(error))
            continue
        every = np.linspace(0, len(found.z) - 1, draws).round().astype(int)
        kept = replace(found, **{k: getattr(found, k)[every] for k in ("z", "noise", "nu", "eta")})
        ranks.append((_quantities(spec, kept, at) < _quantities(spec, truth, at)).sum(0))
        diagnostics.append(found.diagnostics)
        if progress is not None:
            progress(table)
    if not ranks:
        raise FitError(f"none of {tables} simulated tables could be fitted; the first said: {failures[0]}")
    return Calibration(
        quantities=_names(spec, 0 if far is None else len(far)),
        ranks=np.array(ranks),
        draws=draws,
        diagnostics=tuple(diagnostics),
        failures=tuple(failures),
    )


def _started(spec: Spec, runs: Runs) -> Spec:
    """The posterior, started from the point fit to its losses (from the prior's mean where there is none)."""
    losses = np.full(runs.losses.shape, np.nan)
    with np.errstate(over="ignore"):
        cells = np.where(spec.live, np.exp(spec.log_losses), np.nan)
    columns = [runs.domains.index(d) for d in spec.domains]
    losses[:, columns] = cells
    try:
        table = replace(runs, losses=losses).with_domains([runs.domains[c] for c in columns])
        fitted, _ = estimate(table, spec.law, spec.law.objective)
    except LawkitError:
        return replace(spec, start=spec.prior_mean)
    return replace(spec, start=fitted.z[0], start_noise=fitted.noise)


def _inputs(spec: Spec, far: Runs) -> Inputs:
    n = len(far)
    return Inputs(
        n_params=np.full(n, spec.inputs.n_ref) if far.n_params is None else far.n_params,
        n_tokens=np.full(n, spec.inputs.d_ref) if far.n_tokens is None else far.n_tokens,
        weights=far.weights,
        own=spec.inputs.own,
        unique=total_unique(far.weights, far.unique),
        n_ref=spec.inputs.n_ref,
        d_ref=spec.inputs.d_ref,
    )


def _quantities(spec: Spec, draws: GroupDraws, far: Inputs | None) -> np.ndarray:
    """(S, Q) in the order of `_names`."""
    parts = [draws.z, np.log(draws.noise), draws.nu, draws.eta.reshape(len(draws.z), -1)]
    if far is not None:
        with np.errstate(all="ignore"):
            value = np.log(spec.law.function.value(draws.z, far))
        parts.append(np.where(np.isnan(value), -np.inf, value).reshape(len(draws.z), -1))
    return np.concatenate(parts, 1)


def _names(spec: Spec, n_far: int) -> tuple[str, ...]:
    out = []
    for p in spec.law.parameters:
        out += [f"{p.name}[{s}]" for s in spec.sources] if p.per_source else [p.name]
    out += [f"log sigma of {d}" for d in spec.domains] + [f"nu of {d}" for d in spec.domains]
    out += [f"eta {c + 1} of {d}" for d in spec.domains for c in range(spec.covariates.shape[1])]
    return tuple(out + [f"log loss of {d} at far point {i + 1}" for i in range(n_far) for d in spec.domains])
