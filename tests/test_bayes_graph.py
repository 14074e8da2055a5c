"""Laws as PyTensor graphs and PyMC models: the same numbers as numpy's, for every law."""

# PyTensor re-exports its names without saying so, and types its variables loosely.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import lawkit.laws
from lawkit.bayes import _arviz
from lawkit.bayes.natural import natural, variable_name
from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, Spec, prior
from lawkit.errors import LawError
from lawkit.laws._average import Average
from lawkit.laws._function import Inputs
from lawkit.laws._law import D, Law, Parameter, PriorContext, scalars
from needs import need

need("pymc", "arviz")
_arviz.arviz()  # before PyMC imports it, and lets its notices through
import pymc  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402

NAMES = [n for n, _, _ in lawkit.laws.BUILTIN if not isinstance(lawkit.laws.get(n), Average)]
SOURCES = 3
N_REF, D_REF = 1e9, 3e10


def inputs(law: Law, rng: np.random.Generator, n: int) -> Inputs:
    """Runs among which mixtures repeat, and a weight is zero."""
    mixtures = rng.dirichlet(np.ones(SOURCES), max(n // 2, 2))
    mixtures[0] = [0.0, 0.4, 0.6]
    n_tokens = 10 ** rng.uniform(9.5, 11.5, n)
    return Inputs(
        n_params=10 ** rng.uniform(8, 10, n),
        n_tokens=n_tokens,
        weights=mixtures[np.arange(n) % len(mixtures)],
        own=np.arange(SOURCES)[None] if law.coupled else np.array([[1]]),
        unique=n_tokens * 10 ** rng.uniform(-1.5, 0.5, n),
        n_ref=N_REF,
        d_ref=D_REF,
    )


def near_prior(law: Law, rng: np.random.Generator, count: int) -> np.ndarray:
    """Parameter vectors (count, P) within the priors, or the ranges of starting values."""
    z = np.empty((count, law.n_parameters(SOURCES)))
    for p in law.parameters:
        part = law.layout(SOURCES)[p.name]
        low, high = (-1, 1) if p.prior is None else (p.prior.mean - p.prior.sd, p.prior.mean + p.prior.sd)
        if p.prior is None:
            low, high = law.unconstrained_range(p)
        z[:, part] = rng.uniform(low, high, (count, part.stop - part.start))
    return z


def described(law: Law, n: int = 12, covariates: int = 0, seed: int = 3, **changes: Any) -> Spec:
    """A `Spec` of losses simulated from a law."""
    rng = np.random.default_rng(seed)
    x = inputs(law, rng, n)
    z = near_prior(law, rng, 1)
    value = law.function.value(z, x)[0]
    shape = value.shape
    context = PriorContext(
        lowest_loss=value.min(0)[None], own=x.own, n_sources=SOURCES, n_model_sizes=n, n_scales=n
    )
    mean, covariance = prior(law, context)
    sd = np.sqrt(np.diag(covariance))
    return Spec(
        **{
            "name": "web", "domains": tuple("abc"[: shape[1]]), "law": law, "inputs": x,
            "log_losses": np.log(value) + 0.01 * rng.standard_t(5, shape), "live": np.ones(shape, bool),
            "spread": rng.uniform(0.5, 2, shape), "counts": np.ones(shape),
            "covariates": rng.standard_normal((n, covariates)), "prior_mean": np.clip(mean[0], z[0] - sd, z[0] + sd),
            "prior_covariance": covariance, "start": z[0], "start_noise": np.full(shape[1], 0.01), **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_graph_is_the_law(name: str) -> None:
    from lawkit.bayes.graph import loss

    law = lawkit.laws.get(name)
    rng = np.random.default_rng(1)
    x = inputs(law, rng, 6)
    z = pt.dvector()
    value = loss(law, z, x)
    direction = rng.standard_normal(value.type.shape)
    f = pytensor.function([z], [value, pytensor.grad((value * direction).sum(), z)], mode="FAST_COMPILE")
    for at in near_prior(law, rng, 4):
        expected, slope = law.function.jacobian(at[None], x)
        gradient = np.einsum("ne,nep->p", direction, slope[0])
        found, found_gradient = f(at)
        np.testing.assert_allclose(found, expected[0], rtol=1e-12)
        np.testing.assert_allclose(found_gradient, gradient, rtol=1e-10, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("name", NAMES)
def test_natural_values_of_many_draws(name: str) -> None:
    law = lawkit.laws.get(name)
    z = near_prior(law, np.random.default_rng(2), 5)
    found = natural(law, z, N_REF, D_REF, SOURCES)
    for s, each in enumerate(z):
        expected = law.natural(each, N_REF, D_REF)
        assert found.keys() == expected.keys()
        for parameter, value in expected.items():
            np.testing.assert_allclose(found[parameter][s], value, rtol=1e-12)


def log_density(spec: Spec, z: np.ndarray, log_noise: np.ndarray, nu: np.ndarray, eta: np.ndarray) -> float:
    """The formula of `lawkit.bayes.spec`, in (z, log sigma, log nu, eta)."""
    mean = np.log(spec.law.function.value(z[None], spec.inputs)[0])
    scale = np.exp(log_noise) * spec.spread * np.exp(spec.covariates @ eta.T)
    cells = spec.counts * stats.t.logpdf(spec.log_losses, nu, mean, scale)
    out = np.where(spec.live, cells, 0.0).sum() + stats.norm.logpdf(log_noise, *LOG_SIGMA).sum()
    out += (stats.gamma.logpdf(nu, NU[0], scale=1 / NU[1]) + np.log(nu)).sum() + stats.norm.logpdf(
        eta, 0, ETA_SD
    ).sum()
    return float(out + stats.multivariate_normal.logpdf(z, spec.prior_mean, spec.prior_covariance))


def assert_density(spec: Spec) -> None:
    """The model's log density is the formula's, up to a constant, and its natural parameters are the law's."""
    from lawkit.bayes._axes import axes, bends, level_runs, sheared
    from lawkit.bayes.model import build

    around, few = axes(spec), level_runs(spec)

    def level(u: np.ndarray) -> float:
        z = spec.prior_mean + around.root @ u
        return float(np.log(spec.law.function.value(z[None], few)).mean())

    model = build(spec, around)
    names = [variable_name(p.name) for p in spec.law.parameters]
    # Where the level is straightened, u is a function of the free v.
    assert {v.name for v in model.deterministics} == {*names, "noise", *(["u"] if bends(spec) else [])}
    outputs = [model.logp(), *model.replace_rvs_by_values([model[name] for name in names])]
    f = pytensor.function(model.value_vars, outputs, mode="FAST_COMPILE", on_unused_input="ignore")
    rng = np.random.default_rng(5)
    m, C = spec.log_losses.shape[1], spec.covariates.shape[1]
    apart = []
    for _ in range(3):
        u, log_noise = rng.standard_normal(len(spec.start)), rng.normal(-4.5, 0.3, m)
        log_nu, eta = rng.normal(1.5, 0.5, m), rng.normal(0, 0.3, (m, C))
        z = spec.prior_mean + around.root @ (u + np.linalg.solve(around.root, spec.start - spec.prior_mean))
        of_z = np.linalg.solve(around.root, z - spec.prior_mean)
        at = {
            "u": of_z,
            "v": sheared(of_z, level, vars(around), 1) if bends(spec) else None,
            "log_noise": log_noise,
            "noise_nu": log_nu,
            "noise_slope": eta,
        }
        value, *parameters = f(*[at[model.values_to_rvs[v].name] for v in model.value_vars])
        apart.append(value - log_density(spec, z, log_noise, np.exp(log_nu), eta))
        expected = spec.law.natural(z, N_REF, D_REF)
        for p, found in zip(spec.law.parameters, parameters, strict=True):
            np.testing.assert_allclose(found, expected[p.name], rtol=1e-6)  # tied priors cost digits
    np.testing.assert_allclose(apart, apart[0], rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_model_is_the_posterior(name: str) -> None:
    assert_density(described(lawkit.laws.get(name)))


def test_model_of_noise_with_covariates_and_rows_that_share_their_error() -> None:
    law = lawkit.laws.get("capacity-plain")
    spec = described(law)
    live = np.ones(spec.live.shape, bool)
    live[2, 1] = False
    counts = np.where(live, np.random.default_rng(0).uniform(0.3, 1, live.shape), 0.0)
    assert_density(
        described(
            law, covariates=2, live=live, counts=counts, log_losses=np.where(live, spec.log_losses, 0.0)
        )
    )


def test_names_of_a_users_law_do_not_collide() -> None:
    chain, noise, beta = scalars("chain noise beta")

    class Clash(Law):
        """A law whose parameters have names that models and traces use themselves."""

        name = "clash"
        parameters = (Parameter(name="chain"), Parameter(name="noise"), Parameter(name="beta"))
        loss = chain + noise / D**beta

    assert [variable_name(p.name) for p in Clash.parameters] == ["chain_", "noise_", "beta"]
    assert_density(described(Clash()))


def test_a_domain_that_is_no_source_is_refused() -> None:
    from lawkit.bayes.graph import loss

    law = lawkit.laws.get("bimix")
    x = inputs(law, np.random.default_rng(0), 4)
    with pytest.raises(LawError, match="to be one of the sources"):
        loss(law, pt.dvector(), Inputs(**{**x.__dict__, "own": np.array([[-1]])}))


def test_a_law_that_falls_below_zero_has_a_finite_density() -> None:
    from lawkit.bayes.graph import log_loss

    law = lawkit.laws.get("linear")
    x = inputs(law, np.random.default_rng(0), 4)
    z = pt.dvector()
    value = log_loss(law, z, x)
    f = pytensor.function([z], [value, pytensor.grad(value.sum(), z)], mode="FAST_COMPILE")
    below = np.full(law.n_parameters(SOURCES), -1.0)
    assert (law.function.value(below[None], x) < 0).any()
    assert all(np.isfinite(part).all() for part in f(below))


def test_losses_simulated_by_the_model_are_those_of_the_prior_predictive() -> None:
    from lawkit.bayes.model import build
    from lawkit.bayes.sample import prior_predictive

    spec = described(lawkit.laws.get("chinchilla"))
    simulated = prior_predictive(spec, 2000, seed=1)
    np.testing.assert_array_equal(simulated, prior_predictive(spec, 2000, seed=1))
    draws = pymc.draw(build(spec)["log_loss"], 2000, random_seed=1, mode="FAST_COMPILE")
    for i in range(3):
        assert stats.ks_2samp(simulated[:, i, 0], draws[:, i, 0]).pvalue > 0.001
