"""Partial pooling: the shared prior, what it does to bands, and the simulated check that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import lawkit
from lawkit import laws
from lawkit.bayes import pooling_check
from lawkit.bayes.laplace import laplace
from lawkit.bayes.pooling import _Shared, pooled
from lawkit.bayes.pooling_check import check
from lawkit.bayes.posterior import posterior
from lawkit.bayes.spec import Spec, specs
from lawkit.errors import FitError
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.estimate import Estimate, estimate
from lawkit.runs import Runs

Losses = Callable[[np.ndarray, np.ndarray], np.ndarray]


def table(domains: int, n: int, noise: float, differ: float, seed: int = 0) -> tuple[Runs, Losses]:
    """Runs of Chinchilla's law, and its losses (n, domains); log parameters differ by a standard deviation."""
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(np.log([5e7, 1e9]), np.log([2e9, 6e10]), (n, 2))).T
    asymptote = rng.uniform(1.2, 3.0, domains)
    factors = np.exp(differ * rng.normal(size=(4, domains)))
    alpha, beta, by_model, by_tokens = np.array([[0.35], [0.37], [0.2], [0.25]]) * factors

    def losses(n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        model = by_model * asymptote * (n_params[:, None] / 3e8) ** -alpha
        return asymptote + model + by_tokens * asymptote * (n_tokens[:, None] / 8e9) ** -beta

    seen = losses(n_params, n_tokens) * np.exp(noise * rng.normal(size=(n, domains)))
    runs = Runs(
        sources=(), domains=tuple(f"d{e}" for e in range(domains)), n_params=n_params, n_tokens=n_tokens,
        weights=np.zeros((n, 0)), losses=seen,
    )  # fmt: skip
    return runs, losses


def described(runs: Runs, law: str = "chinchilla") -> tuple[Estimate, list[Spec]]:
    chosen = laws.get(law)
    e, ready = estimate(runs, chosen, chosen.objective)
    return e, specs(runs, ready, e.z, e.noise, NoiseModel())


def forecasts(of: list[Spec], runs: Runs, draws: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends (domains,) of the 90% bands of log losses at ten times the largest compute, and the point itself."""
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    top = int(np.argmax(runs.n_params * runs.n_tokens))
    sizes = np.sqrt(10) * np.array([runs.n_params[top], runs.n_tokens[top]])
    ends = []
    for spec in of:
        x = replace(spec.inputs, n_params=sizes[:1], n_tokens=sizes[1:], weights=np.zeros((1, 0)))
        losses = spec.law.function.value(laplace(spec, draws).z, x)[:, 0, 0]
        ends.append(np.quantile(np.log(losses), [0.05, 0.95]))
    low, high = np.transpose(ends)
    return low, high, sizes


# ---- the shared prior ---------------------------------------------------------------------------------


def test_mean_and_sd_that_the_domains_were_made_with_are_recovered():
    runs, _ = table(domains=30, n=60, noise=1e-3, differ=0.3)
    _, before = described(runs)
    after, found = pooled(before)
    assert found.converged
    assert list(found.parameters) == ["E", "A", "B", "alpha", "beta"]
    for name, middle in (("alpha", 0.35), ("beta", 0.37)):
        told = found.parameters[name]
        assert told["mean"] == pytest.approx(np.log(middle), abs=3 * 0.3 / np.sqrt(30))
        assert told["sd"] == pytest.approx(0.3, abs=3 * 0.3 / np.sqrt(60))
        assert told["natural"] == pytest.approx(np.exp(told["mean"]))
        assert told["lower"] < middle < told["upper"]
        assert not told["relative"]
    assert found.parameters["E"]["relative"]  # a multiple of the lowest loss, which lies above it
    assert 0.5 < found.parameters["E"]["natural"] < 1.0
    at = np.arange(5)
    for old, new in zip(before, after, strict=True):
        lowest = old.log_losses.min() * np.array([1, 1, 1, 0, 0])
        np.testing.assert_allclose(
            new.prior_mean, [p["mean"] for p in found.parameters.values()] + lowest, atol=1e-12
        )
        wide = np.array([p["sd"] for p in found.parameters.values()]) ** 2 + found.uncertainty**2
        np.testing.assert_allclose(new.prior_covariance[at, at], wide)
        assert new.start is old.start


def test_the_prior_is_the_mode_of_its_own_posterior():
    """Normal evidence: the density of mu and tau is known, and the mode in log tau is where it is flat."""
    _, before = described(table(domains=5, n=30, noise=0.005, differ=0.2)[0])
    shared = _Shared(before)
    rng = np.random.default_rng(1)
    G, Q = 5, len(shared.mean)
    root = rng.normal(size=(G, Q, Q))
    precision = root @ np.swapaxes(root, 1, 2) + 3 * np.eye(Q)
    at = shared.mean + 0.6 * rng.normal(size=(G, Q))
    mean, tau, unsure = shared.fitted(precision, np.einsum("gij,gj->gi", precision, at), np.full(Q, 0.3))

    def log_density(mean: np.ndarray, log_tau: np.ndarray) -> tuple[float, np.ndarray]:
        """Of the evidence and the prior of tau at tau, mu integrated out; and the covariance of mu."""
        total = np.linalg.inv(precision) + np.diag(np.exp(2 * log_tau))
        weight = np.linalg.inv(total)
        on_mu = weight.sum(0) + np.diag(shared.sd**-2.0)
        pull = np.einsum("gij,gj->i", weight, at) + shared.mean / shared.sd**2
        best = np.linalg.solve(on_mu, pull)
        np.testing.assert_allclose(best, mean, rtol=1e-2)
        fit = np.einsum("gi,gij,gj->", at, weight, at) - pull @ best
        level = np.linalg.slogdet(total)[1].sum() + np.linalg.slogdet(on_mu)[1]
        # Scaled inverse chi-square of tau^2, worth two domains, as a density of log tau.
        own = -2 * log_tau - shared.typical**2 * np.exp(-2 * log_tau)
        return float(-0.5 * (fit + level) + own.sum()), np.linalg.inv(on_mu)

    base = np.log(tau)
    np.testing.assert_allclose(unsure, np.sqrt(np.diag(log_density(mean, base)[1])), rtol=1e-3)
    for step in 1e-3 * np.eye(Q):
        slope = (log_density(mean, base + step)[0] - log_density(mean, base - step)[0]) / 2e-3
        assert abs(slope) < 5e-3


@pytest.mark.parametrize("differ", [0.0, 3.0])
def test_three_domains_neither_make_the_sd_vanish_nor_explode(differ):
    runs, _ = table(domains=3, n=40, noise=1e-3, differ=0.0)
    _, before = described(runs)
    at = [p.name for p in before[0].law.parameters].index("alpha")
    before = [replace(s, prior_mean=s.prior_mean.copy()) for s in before]
    shared = _Shared(before)
    tight = np.tile(1e6 * np.eye(5), (3, 1, 1))
    where = np.tile(shared.mean, (3, 1))
    where[:, at] += differ * np.array([-1, 0, 1])
    mean, tau, _ = shared.fitted(tight, np.einsum("gij,gj->gi", tight, where), shared.sd)
    floor = shared.typical[at] * np.sqrt(2 / 5)
    assert tau[at] == pytest.approx(np.sqrt(floor**2 + 2 * differ**2 / 5), rel=0.15)
    assert mean[at] == pytest.approx(shared.mean[at], abs=0.1)


def test_vectors_and_what_their_prior_ties_to_them_are_left_alone():
    rng = np.random.default_rng(0)
    n, sources = 40, ("a", "b", "c")
    weights = rng.dirichlet(np.ones(3), n)
    sizes = np.exp(rng.uniform(np.log([1e8, 1e9]), np.log([1e9, 2e10]), (n, 2)))
    shared = np.sqrt(weights + 0.3 * weights.sum(1, keepdims=True))
    losses = (
        1.5 + (sizes[:, :1] / 3e8) ** -0.3 * 0.4 + (sizes[:, 1:] / 4e9) ** -0.3 * 0.4 / shared
    ) * np.exp(0.003 * rng.normal(size=(n, 3)))
    runs = Runs(
        sources=sources,
        domains=sources,
        n_params=sizes[:, 0],
        n_tokens=sizes[:, 1],
        weights=weights,
        losses=losses,
    )
    _, before = described(runs, "transfer")
    after, found = pooled(before)
    assert list(found.parameters) == ["E", "gamma", "alpha", "beta", "g", "delta"]  # not q0, k0, r0
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.prior_covariance[6:], old.prior_covariance[6:])
        np.testing.assert_array_equal(new.prior_mean[6:], old.prior_mean[6:])
        assert (new.prior_mean[:6] != old.prior_mean[:6]).all()
        np.linalg.cholesky(new.prior_covariance)


# ---- bands --------------------------------------------------------------------------------------------


def test_bands_of_sparse_alike_domains_are_narrower_and_still_cover():
    ratios, separate, covered = [], [], []
    for seed in range(6):
        runs, losses = table(domains=5, n=8, noise=0.005, differ=0.05, seed=seed)
        _, before = described(runs)
        after, _ = pooled(before)
        low, high, sizes = forecasts(before, runs)
        pooled_low, pooled_high, _ = forecasts(after, runs)
        true = np.log(losses(sizes[:1], sizes[1:]))[0]
        ratios.append((pooled_high - pooled_low) / (high - low))
        separate.append((low <= true) & (true <= high))
        covered.append((pooled_low <= true) & (true <= pooled_high))
    assert np.median(ratios) < 0.85
    assert np.mean(covered) > 0.8
    assert np.mean(covered) >= np.mean(separate) - 0.05


# ---- the check ----------------------------------------------------------------------------------------


def checked(worlds: int, **design: float) -> tuple[dict, tuple[str, ...]]:
    _, before = described(table(**design)[0])  # type: ignore[arg-type]
    after, found = pooled(before)
    return check(before, after, found, NoiseModel(), worlds=worlds)


def test_the_check_says_where_pooling_costs_coverage():
    covered, notes = checked(10, domains=5, n=8, noise=0.02, differ=0.8, seed=1)
    reached, apart = (covered[arm]["beyond"]["parameter"] for arm in ("pooled", "unpooled"))
    assert reached < 0.85
    assert reached < apart
    assert len(notes) == 1
    assert f"held {reached:.0%}" in notes[0]
    assert f"{apart:.0%}" in notes[0]
    assert json.loads(json.dumps(covered)) == covered


def test_the_check_is_content_where_the_runs_say_it_all():
    covered, notes = checked(10, domains=4, n=60, noise=0.002, differ=0.4)
    assert not notes
    for arm in (covered, covered["as_pooled"]):
        assert arm["worlds"] == 10
        for where in ("inside", "beyond"):
            assert arm["width_ratio"][where]["parameter"] < 1.05
            for kind in ("parameter", "predictive"):
                assert arm["pooled"][where][kind] > 0.75
                assert arm["standard_error"][where][kind] < 0.05


def test_one_scale_has_nothing_beyond_it():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(2), 30)
    losses = (1.5 + np.exp(-weights @ np.array([[2.0, 1.0, 0.5], [0.5, 1.0, 2.0]]))) * np.exp(
        0.005 * rng.normal(size=(30, 3))
    )
    runs = Runs(
        sources=("a", "b"),
        domains=("x", "y", "z"),
        n_params=None,
        n_tokens=None,
        weights=weights,
        losses=losses,
    )
    _, before = described(runs, "exponential")
    after, found = pooled(before)
    assert list(found.parameters) == ["c", "k"]
    covered, _ = check(before, after, found, NoiseModel(), worlds=4)
    assert covered["pooled"]["beyond"] is None
    assert covered["width_ratio"]["beyond"] is None
    assert 0.5 < covered["pooled"]["inside"]["predictive"] <= 1


# ---- through the front door ---------------------------------------------------------------------------


def test_pooling_is_asked_for_and_told(monkeypatch):
    monkeypatch.setattr(pooling_check, "_FITS", 1)  # as few worlds as there may be
    runs, _ = table(domains=3, n=12, noise=0.005, differ=0.1)
    e, _ = described(runs)
    plain, _ = posterior(runs, e, "laplace", seed=0)
    off, _ = posterior(runs, e, "laplace", pool=False, seed=0)
    np.testing.assert_array_equal(plain.z, off.z)
    assert "pooling" not in off.diagnostics
    on, _ = posterior(runs, e, "laplace", pool=True, seed=0)
    again, _ = posterior(runs, e, "laplace", pool=True, seed=0)
    np.testing.assert_array_equal(on.z, again.z)
    assert on.diagnostics["pooling"] == again.diagnostics["pooling"]
    assert not np.array_equal(on.z, off.z)
    assert on.z.std(0).mean() < off.z.std(0).mean()
    told = on.diagnostics["pooling"]
    assert set(told["parameters"]) == {"E", "A", "B", "alpha", "beta"}
    assert told["converged"]
    assert set(told["coverage"]["pooled"]) == {"inside", "beyond"}
    fit = lawkit.fit(runs, law="chinchilla", holdout="none", posterior="laplace", pool=True, seed=0)
    assert fit.draws is not None
    np.testing.assert_array_equal(fit.draws.z, on.z)


def test_what_cannot_be_pooled_is_refused():
    two, _ = table(domains=2, n=12, noise=0.005, differ=0.1)
    with pytest.raises(FitError, match=r"at least 3 domains .* got 2 \(d0, d1\)"):
        pooled(described(two)[1])
    with pytest.raises(FitError, match="pooling is a part of a posterior"):
        lawkit.fit(two, law="chinchilla", pool=True)
    _, three = described(table(domains=3, n=12, noise=0.005, differ=0.1)[0])
    for name, match in (("capacity", "fits all domains as one"), ("linear", "has no scalar parameter")):
        with pytest.raises(FitError, match=match):
            pooled([replace(s, law=laws.get(name)) for s in three])
