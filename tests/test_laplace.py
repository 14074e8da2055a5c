"""Laplace's approximation: exact derivatives, the mode, weights, and figures that quadrature and NUTS give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_published_fits import chinchilla

from lawkit import laws
from lawkit.bayes._importance import affordable_power, effective, pareto_smoothed, resampled
from lawkit.bayes._proposal import Normal, Warped
from lawkit.bayes.density import LogPosterior, log_likelihood
from lawkit.bayes.laplace import effective_parameters, laplace, mode
from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, GroupDraws, Spec, specs
from lawkit.errors import FitError
from lawkit.fitting.draws import Noise, NoiseModel
from lawkit.fitting.estimate import estimate
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: Laws that take a few seconds to compile and to fit.
SLOW = {"capacity", "m4", "data-constrained", "joint", "farseer", "bnsl-data"}
SINGLE = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name, _, _ in laws.BUILTIN
    if name != "transfer-average"
]


def table(n: int = 48, noise: float = 0.004, one_scale: bool = False) -> Runs:
    """Three sources that are the domains too, with two losses missing."""
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = np.exp(rng.uniform(18, 21, n)), np.exp(rng.uniform(21, 24, n))
    if one_scale:
        n_params, n_tokens = np.full(n, 1e9), np.full(n, 2e10)
    losses = 1.5 + (300 / n_params**0.33 + 700 / n_tokens**0.34)[:, None] + 0.2 * (weights + 0.05) ** -0.4
    losses *= np.exp(noise * rng.standard_t(5, losses.shape))
    losses[4, 0] = losses[9, 2] = np.nan
    names = ("a", "b", "c")
    return Runs(
        sources=names,
        domains=names,
        n_params=n_params,
        n_tokens=n_tokens,
        weights=weights,
        losses=losses,
        unique=np.tile(n_tokens[:, None], 3) * rng.uniform(0.05, 2, (n, 3)),
    )


def spec_of(law: str | Law, runs: Runs, noise: Noise = "constant", group: int = 0) -> Spec:
    law = laws.get(law) if isinstance(law, str) else law
    found, ready = estimate(runs, law, law.objective, starts=2)
    return specs(runs, ready, found.z, found.noise, NoiseModel.of(runs, noise))[group]


@pytest.fixture(scope="module")
def scale_spec() -> Spec:
    """Chinchilla's law on a grid of sizes, rows that count unequally."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(5e7, 3e9, 6), np.geomspace(1e9, 1e11, 6)))
    rng = np.random.default_rng(0)
    loss = (1.7 + 420 / n**0.34 + 1900 / d**0.36) * np.exp(0.004 * rng.standard_t(6, len(n)))
    runs = Runs(
        sources=(),
        domains=("web",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((36, 0)),
        losses=loss[:, None],
    )
    spec = spec_of("chinchilla", runs)
    return replace(spec, counts=rng.uniform(0.4, 1.0, spec.counts.shape))


# ---- the density ----------------------------------------------------------------------------------------


def by_scipy(spec: Spec, d: GroupDraws) -> float:
    """The log posterior of the first draw as `lawkit.bayes.spec` words it."""
    mean = np.log(spec.law.function.value(d.z[:1], spec.inputs)[0])
    scale = spec.spread * d.noise[0] * np.exp(np.einsum("nc,mc->nm", spec.covariates, d.eta[0]))
    cells = spec.counts * stats.t.logpdf(spec.log_losses, d.nu[0], mean, scale)
    return float(
        cells[spec.live].sum()
        + stats.multivariate_normal.logpdf(d.z[0], spec.prior_mean, spec.prior_covariance)
        + stats.norm.logpdf(np.log(d.noise[0]), *LOG_SIGMA).sum()
        + (stats.gamma.logpdf(d.nu[0], NU[0], scale=1 / NU[1]) + np.log(d.nu[0])).sum()
        + stats.norm.logpdf(d.eta[0], 0, ETA_SD).sum()
    )


CASES: list[tuple[str, Noise]] = [
    ("chinchilla", "constant"),
    ("chinchilla", "size"),
    ("bnsl", "mixture"),
    ("exponential", "size"),
    ("additive", "constant"),
    ("transfer", "mixture"),
    ("capacity-plain", "size"),
]


@pytest.mark.parametrize(("law", "noise"), CASES)
def test_density_and_derivatives(law: str, noise: Noise) -> None:
    """The value against scipy, derivatives against differences of the value and of each other."""
    spec = spec_of(law, table(), noise)
    rng = np.random.default_rng(1)
    spec = replace(spec, counts=spec.counts * rng.uniform(0.4, 1.0, spec.counts.shape))
    posterior = LogPosterior(spec)
    # Near the prior's middle: point fits may stand where a law is all but kinked.
    u = 0.2 * rng.normal(size=posterior.size)
    u[posterior.P : posterior.P + posterior.m] += 2
    value, gradient = posterior.gradient(np.stack([u, u + 0.01]))
    np.testing.assert_allclose(value, posterior.value(np.stack([u, u + 0.01])), rtol=1e-12)
    assert value[0] == pytest.approx(by_scipy(spec, posterior.draws(u[None])), rel=1e-9)
    step = 1e-5 * np.eye(posterior.size)
    slopes = (posterior.value(u + step) - posterior.value(u - step)) / 2e-5
    np.testing.assert_allclose(gradient[0], slopes, atol=2e-6 * np.abs(gradient[0]).max())
    bends = (posterior.gradient(u + step)[1] - posterior.gradient(u - step)[1]) / 2e-5
    hessian = posterior.hessian(u)
    np.testing.assert_allclose(hessian, bends, atol=2e-6 * np.abs(hessian).max())
    np.testing.assert_allclose(posterior.coordinates(posterior.draws(u[None]))[0], u, atol=1e-8)


def test_what_is_not_live_says_nothing(scale_spec: Spec) -> None:
    spec = spec_of("exponential", table())
    assert (~spec.live).sum() == 1
    other = replace(spec, log_losses=np.where(spec.live, spec.log_losses, 9.0))
    u = LogPosterior(spec).start()
    for ours, theirs in zip(
        LogPosterior(spec).gradient(u[None]), LogPosterior(other).gradient(u[None]), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(LogPosterior(spec).hessian(u), LogPosterior(other).hessian(u))


def test_log_likelihood_is_of_each_cell_whatever_its_count() -> None:
    spec = spec_of("exponential", table(), "size")
    draws = laplace(spec, 40)
    found = log_likelihood(spec, draws)
    assert found.shape == (40, 48, 1)
    assert np.array_equal(np.isnan(found[7]), ~spec.live)
    mean = np.log(spec.law.function.value(draws.z[7:8], spec.inputs)[0])
    scale = spec.spread * draws.noise[7] * np.exp(spec.covariates @ draws.eta[7].T)
    expected = stats.t.logpdf(spec.log_losses, draws.nu[7], mean, scale)
    np.testing.assert_allclose(found[7][spec.live], expected[spec.live], rtol=1e-10)


def test_losses_that_no_law_gives_have_no_density() -> None:
    posterior = LogPosterior(spec_of("linear", table()))
    u = posterior.start()
    negative = replace(posterior.draws(u[None]), z=np.full((1, 3), -1.0))
    wild = posterior.coordinates(negative)
    value, gradient = posterior.gradient(np.stack([u, wild[0]]))
    assert np.isfinite(value[0])
    assert value[1] == -np.inf
    assert posterior.value(wild)[0] == -np.inf
    assert not gradient[1].any()


# ---- the mode -------------------------------------------------------------------------------------------


def test_the_mode_is_one() -> None:
    """Also from afar, and with priors that tie parameters together by correlations of .9999."""
    spec = spec_of("transfer", table(one_scale=True))
    assert np.linalg.cond(spec.prior_covariance) > 1e5
    posterior = LogPosterior(spec)
    u, _, arrived = mode(posterior, posterior.start())
    assert arrived
    assert np.abs(posterior.gradient(u[None])[1]).max() < 0.02
    assert np.linalg.eigvalsh(posterior.hessian(u)).max() < 0
    away, _, arrived = mode(posterior, u + 0.5 * np.random.default_rng(0).normal(size=len(u)))
    assert arrived
    assert posterior.value(away[None])[0] == pytest.approx(posterior.value(u[None])[0], abs=1e-3)


def test_effective_parameters(scale_spec: Spec) -> None:
    """All five of an informative table, next to none where the prior decides."""
    posterior = LogPosterior(scale_spec)
    u, _, _ = mode(posterior, posterior.start())
    assert effective_parameters(posterior, u).sum() == pytest.approx(5.0, abs=0.5)
    sure = LogPosterior(
        replace(scale_spec, prior_mean=scale_spec.start, prior_covariance=1e-12 * scale_spec.prior_covariance)
    )
    u, _, _ = mode(sure, sure.start())
    assert effective_parameters(sure, u).sum() < 1e-3


# ---- weights and proposals ------------------------------------------------------------------------------


def test_pareto_k_of_exponentials() -> None:
    """Draws of Exp(1) as proposals for Exp(rate): the weights' tail has the shape 1 - rate."""
    x = np.random.default_rng(0).exponential(size=20_000)
    for rate in (0.4, 0.6, 0.8):
        log_weights, k = pareto_smoothed((1 - rate) * x)
        assert k == pytest.approx(1 - rate, abs=0.08)
        w = np.exp(log_weights)
        assert (w * x).sum() / w.sum() == pytest.approx(1 / rate, rel=0.1)
    assert pareto_smoothed(np.zeros(100))[1] == -np.inf
    assert pareto_smoothed(np.r_[np.zeros(3), np.full(97, -np.inf)])[1] == np.inf


def test_powers_of_weights() -> None:
    log_weights = np.random.default_rng(1).normal(0, 4, 5000)
    power = affordable_power(log_weights, 1000)
    assert 0 < power < 1
    assert effective(log_weights, power) == pytest.approx(1000, rel=1e-6)
    assert affordable_power(0.01 * log_weights, 1000) == 1.0
    some = np.full(100, -np.inf)
    some[:10] = np.arange(10) * 50.0
    assert affordable_power(some, 50) == 0.0  # of ten possible draws none can be preferred


def test_resampling_is_in_proportion() -> None:
    weights = np.array([0.5, 0.0, 0.2, 0.3])
    with np.errstate(divide="ignore"):
        index = resampled(np.log(weights), 1000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(index, minlength=4), 1000 * weights, atol=1)
    assert (np.diff(index) < 0).any()


def test_warped_density_is_that_of_its_map(scale_spec: Spec) -> None:
    posterior = LogPosterior(scale_spec)
    u, _, _ = mode(posterior, posterior.start())
    normal = Normal(u, posterior.hessian(u))
    warped = Warped(posterior, normal)
    points = np.random.default_rng(0).normal(size=(20, posterior.size))
    log_density = warped.sample(points)[1]
    straight = np.linalg.slogdet(normal.axes)[1]
    for point, found in zip(points, log_density, strict=True):
        step = 1e-6 * np.eye(len(point))
        jacobian = (warped.sample(point + step)[0] - warped.sample(point - step)[0]) / 2e-6
        expected = -0.5 * point @ point - np.linalg.slogdet(jacobian)[1] + straight
        assert found == pytest.approx(expected, abs=1e-5)
    # It follows the posterior better than the normal does.
    worth = []
    for proposal in (normal, warped):
        draws, log_density = proposal.sample(np.random.default_rng(1).normal(size=(2000, posterior.size)))
        worth.append(effective(posterior.value(draws) - log_density))
    assert worth[1] > 1.2 * worth[0]


# ---- draws ----------------------------------------------------------------------------------------------


def test_draws_agree_with_quadrature() -> None:
    """Three unknowns (a loss at the reference, noise and nu), integrated on a grid of a million points."""
    n, d = np.full(24, 1e9), np.geomspace(1e9, 1e11, 24)
    rng = np.random.default_rng(3)
    loss = (1.9 + 1900 / d**0.36) * np.exp(0.006 * rng.standard_t(4, 24))
    runs = Runs(
        sources=(),
        domains=("web",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((24, 0)),
        losses=loss[:, None],
    )
    spec = spec_of(laws.get("chinchilla-data").with_fixed(E=1.9, beta=0.36), runs)
    posterior = LogPosterior(spec)
    u, _, _ = mode(posterior, posterior.start())
    sd = np.sqrt(np.diag(np.linalg.inv(-posterior.hessian(u))))
    axes = [c + s * np.linspace(low, 8, 100) for c, s, low in zip(u, sd, (-8, -6, -10), strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    density = posterior.value(grid)
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    mean = weight @ grid
    spread = np.sqrt(weight @ (grid - mean) ** 2)
    draws = laplace(spec, 20_000)
    found = posterior.coordinates(draws)
    assert draws.warnings == ()
    assert draws.diagnostics["pareto_k"] < 0.7
    np.testing.assert_allclose((found.mean(0) - mean) / spread, 0, atol=0.03)
    np.testing.assert_allclose(found.std(0) / spread, 1, atol=0.03)
    for i, (axis, points) in enumerate(zip(axes, grid.T, strict=True)):
        cumulative = np.histogram(points, np.r_[axis, np.inf] - 1e-9, weights=weight)[0].cumsum()
        edges = axis + 0.5 * (axis[1] - axis[0])
        for q in (0.05, 0.5, 0.95):
            assert np.interp(np.quantile(found[:, i], q), edges, cumulative) == pytest.approx(q, abs=0.012)


def test_chinchilla_as_nuts_gives_it(datasets: Path) -> None:
    """Within a tenth of the standard deviations of 4 chains of 1,000 draws (nutpie; see issue 3)."""
    spec = spec_of("chinchilla", chinchilla(datasets, 5))
    draws = laplace(spec)
    assert draws.warnings == ()
    assert draws.diagnostics["weight_power"] == 1.0
    where = spec.law.layout(0)
    for name, (mean, sd) in {"alpha": (0.345, 0.009), "beta": (0.360, 0.010), "E": (1.807, 0.016)}.items():
        values = np.exp(draws.z[:, where[name].start])
        assert values.mean() == pytest.approx(mean, abs=0.1 * sd)
        assert values.std() == pytest.approx(sd, rel=0.1)


def test_the_same_seed_gives_the_same_bits(scale_spec: Spec) -> None:
    first, second, third = (laplace(scale_spec, 500, seed) for seed in (1, 1, 2))
    for name in ("z", "noise", "nu", "eta"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.z, third.z)
    assert first.diagnostics == second.diagnostics


def test_a_rough_approximation_says_so() -> None:
    """Three sizes and tokens leave five parameters to the priors: the posterior is far from normal."""
    n, d = np.array([1e8, 3e8, 1e9] * 2), np.array([2e9, 2e9, 2e9, 4e9, 4e9, 4e9])
    runs = Runs(
        sources=(),
        domains=("web",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((6, 0)),
        losses=(1.7 + 420 / n**0.34 + 1900 / d**0.36)[:, None] * np.exp(0.01 * np.sin(np.arange(6)))[:, None],
    )
    draws = laplace(spec_of("chinchilla", runs), 1000)
    assert draws.diagnostics["weight_power"] < 1
    assert draws.diagnostics["effective_draws"] == pytest.approx(250, rel=1e-3)
    assert len(draws.warnings) == 1
    assert "web by law chinchilla is rough (Pareto k" in draws.warnings[0]
    assert "--posterior nuts" in draws.warnings[0]
    assert np.isfinite(draws.z).all()


@pytest.mark.parametrize("law", SINGLE)
def test_every_law(law: str) -> None:
    """Draws are finite, predict finite losses, and follow the losses they were fitted to."""
    spec = spec_of(law, table(), "size")
    draws = laplace(spec, 300, 1)
    m = spec.log_losses.shape[1]
    assert draws.z.shape == (300, len(spec.start))
    assert draws.noise.shape == draws.nu.shape == (300, m)
    assert draws.eta.shape == (300, m, 1)
    predicted = np.log(spec.law.function.value(draws.z, spec.inputs))
    assert np.isfinite(predicted[:, spec.live]).all()
    off = np.abs(np.median(predicted, 0) - spec.log_losses)[spec.live]
    assert np.median(off) < 2.5 * np.median(draws.noise * spec.spread.mean())


# ---- what is refused ------------------------------------------------------------------------------------


def test_a_prior_that_pins_a_parameter_elsewhere(scale_spec: Spec) -> None:
    mean, covariance = scale_spec.prior_mean.copy(), scale_spec.prior_covariance.copy()
    mean[3], covariance[3, 3] = np.log(3.0), 1e-4
    with pytest.raises(
        FitError, match=r"the prior of alpha excludes the losses of web: it expects 3 \(2.97 to 3.03"
    ):
        laplace(replace(scale_spec, prior_mean=mean, prior_covariance=covariance))


def test_a_prior_that_the_losses_overrule(scale_spec: Spec) -> None:
    mean, covariance = scale_spec.prior_mean.copy(), scale_spec.prior_covariance.copy()
    mean[0], covariance[0, 0] = np.log(1e-4), 0.5
    with pytest.raises(
        FitError, match=r"the prior of E excludes the losses of web: .* ask for 1\.\d+, 13\.\d stand"
    ):
        laplace(replace(scale_spec, prior_mean=mean, prior_covariance=covariance))


def test_a_wide_prior_far_off_is_no_contradiction(scale_spec: Spec) -> None:
    covariance = scale_spec.prior_covariance.copy()
    covariance[0, 0] = 9.0
    mean = scale_spec.prior_mean + np.array([-6.0, 0, 0, 0, 0])
    assert np.isfinite(laplace(replace(scale_spec, prior_mean=mean, prior_covariance=covariance), 50).z).all()


def test_bad_starts_priors_and_counts(scale_spec: Spec) -> None:
    with pytest.raises(
        FitError, match=r"no finite posterior at its point fit to web \(E 1\.014e\+304, A 0\.\d"
    ):
        laplace(replace(scale_spec, start=scale_spec.start + np.array([800.0, 0, 0, 0, 0])))
    broken = scale_spec.prior_covariance.copy()
    broken[0, 1] = broken[1, 0] = 5.0
    with pytest.raises(FitError, match=r"prior covariance of law 'chinchilla' is not positive definite"):
        laplace(replace(scale_spec, prior_covariance=broken))
    with pytest.raises(FitError, match="draws must be at least 1, got 0"):
        laplace(scale_spec, 0)
