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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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

#: Bins of the chi-square test, and simulations that the test by the distribution function is calibrated by.
_BINS, _SIMULATIONS = 10, 5000


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Whether the ranks of one quantity are uniform.

    Attributes
    ----------
    name
        The quantity.
    chi_square
        p-value of a chi-square test over ten bins.
    ecdf
        p-value by the largest departure of the empirical distribution function, over all ranks at once.
    mean, spread
        Of the ranks divided by their number, 1/2 expected; and their standard deviation by that of uniform ones: above
        1 where the posterior is too narrow.
    """

    name: str
    chi_square: float
    ecdf: float
    mean: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ranks of true values among the draws of their posteriors.

    Attributes
    ----------
    quantities
        Names of the Q quantities.
    ranks
        (tables, Q) 0 to `draws`.
    draws
        How many draws each true value was ranked among.
    diagnostics
        Of the sampler, table by table.
    failures
        Messages of the tables that could not be fitted. They are missing from `ranks`, and what is said of the others
        holds no more than it would if they were the odd ones out.
    """

    quantities: tuple[str, ...]
    ranks: np.ndarray
    draws: int
    diagnostics: tuple[dict[str, Any], ...] = ()
    failures: tuple[str, ...] = ()

    def where(self, chosen: np.ndarray) -> Calibration:
        """Only the tables (a mask) that were chosen by their losses or the sampler's diagnostics."""
        kept = tuple(d for d, c in zip(self.diagnostics, chosen, strict=True) if c)
        return replace(self, ranks=self.ranks[chosen], diagnostics=kept)

    def uniformity(self) -> tuple[Uniformity, ...]:
        """The tests, quantity by quantity."""
        from scipy.stats import chisquare

        edges = np.linspace(0, self.draws + 1, _BINS + 1)
        by_ecdf = ecdf_p_values(self.ranks, self.draws)
        share = (self.ranks + 0.5) / (self.draws + 1)
        return tuple(
            Uniformity(
                name=name,
                chi_square=float(chisquare(np.histogram(self.ranks[:, i] + 0.5, edges)[0]).pvalue),
                ecdf=float(by_ecdf[i]),
                mean=float(share[:, i].mean()),
                spread=float(share[:, i].std() * np.sqrt(12)),
            )
            for i, name in enumerate(self.quantities)
        )

    def worst(self) -> tuple[str, float]:
        """The quantity whose ranks are the least uniform, and its p-value times the number of tests (Bonferroni)."""
        found = self.uniformity()
        p = [min(u.chi_square, u.ecdf) for u in found]
        which = int(np.argmin(p))
        return found[which].name, min(1.0, 2 * len(found) * p[which])


def ecdf_p_values(ranks: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """How often uniform ranks have a distribution function as far off, anywhere, as these have.

    The count of ranks up to each value is binomial; the statistic is the smallest two-sided tail probability of any
    of them, compared with that of simulated uniform ranks.

    Parameters
    ----------
    ranks
        (N, Q) 0 to `draws`.
    draws
        The highest rank.
    seed
        Of the simulation.

    Returns
    -------
    ndarray
        (Q,) p-values.

    References
    ----------
    Säilynoja, Bürkner and Vehtari 2022, Graphical test for discrete uniformity, arXiv:2103.10522.
    """
    from scipy.stats import binom

    count = len(ranks)
    inside = np.arange(1, draws + 1) / (draws + 1)
    below = binom.cdf(np.arange(count + 1)[:, None], count, inside)  # (N + 1, draws)
    above = binom.sf(np.arange(count + 1)[:, None] - 1, count, inside)
    tail = np.minimum(1.0, 2 * np.minimum(below, above))

    def statistic(some: np.ndarray) -> np.ndarray:  # (N, Q) to (Q,)
        each = np.stack([np.bincount(column, minlength=draws + 1) for column in some.T])
        reached = each.cumsum(1)[:, :-1]
        return tail[reached, np.arange(draws)].min(1)

    uniform = np.random.default_rng(seed).integers(0, draws + 1, (count, _SIMULATIONS))
    null = np.sort(statistic(uniform))
    return (1 + np.searchsorted(null, statistic(ranks) * (1 + 1e-9), side="right")) / (1 + _SIMULATIONS)


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
