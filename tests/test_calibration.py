"""Simulation-based calibration: tests of uniformity, of the simulated tables, and of Laplace's approximation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lawkit import laws
from lawkit.bayes._ranks import Calibration, ecdf_p_values
from lawkit.bayes.calibration import calibrate, simulate, template
from lawkit.bayes.laplace import laplace
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.errors import FitError
from lawkit.runs import Runs


def sizes(sizes: int = 6, budgets: int = 6) -> Runs:
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(5e7, 3e9, sizes), np.geomspace(1e9, 1e11, budgets)))
    return Runs(
        sources=(),
        domains=("web",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((len(n), 0)),
        losses=np.full((len(n), 1), 2.5),
    )


def mixtures() -> Runs:
    """Eight mixtures of three sources at two sizes and three token counts."""
    weights = np.repeat(np.random.default_rng(1).dirichlet(np.ones(3), 8), 6, 0)
    return Runs(
        sources=("a", "b", "c"),
        domains=("a",),
        n_params=np.tile(np.repeat([1e8, 4e8], 3), 8),
        n_tokens=np.tile([2e9, 6e9, 2e10] * 2, 8),
        weights=weights,
        losses=np.full((48, 1), 2.5),
    )


def far(runs: Runs) -> Runs:
    """Two models ten and a hundred times larger than any of the runs."""
    weights = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]) if runs.sources else np.zeros((2, 0))
    return Runs(
        sources=runs.sources,
        domains=(),
        n_params=np.array([1e10, 1e11]),
        n_tokens=np.array([1e12, 2e13]),
        weights=weights,
        losses=np.zeros((2, 0)),
    )


def narrowed(law: str, runs: Runs, by: float) -> tuple[np.ndarray, np.ndarray]:
    """The law's own prior, its standard deviations divided."""
    spec = template(laws.get(law), runs)
    return spec.prior_mean, spec.prior_covariance / by**2


# ---- uniformity -----------------------------------------------------------------------------------------


def test_p_values_of_uniform_ranks_are_uniform() -> None:
    ranks = np.random.default_rng(0).integers(0, 100, (120, 1000))
    p = ecdf_p_values(ranks, 99, seed=1)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(
            level, abs=4 * np.sqrt(level * (1 - level) / 1000) + 0.005
        )


@pytest.mark.parametrize(
    "shape", [(1.5, 1.0), (0.6, 0.6), (1.7, 1.7)], ids=["shifted", "too narrow", "too wide"]
)
def test_ranks_that_are_not_uniform_are_told(shape: tuple[float, float]) -> None:
    share = np.random.default_rng(0).beta(*shape, (200, 20))
    p = ecdf_p_values((100 * share).astype(int), 99)
    assert (p < 0.01).mean() > 0.7


def test_what_is_said_of_ranks() -> None:
    rng = np.random.default_rng(0)
    good, low = rng.integers(0, 100, 300), rng.integers(0, 60, 300)
    found = Calibration(
        quantities=("good", "low"),
        ranks=np.column_stack([good, low]),
        draws=99,
        diagnostics=tuple({"k": i % 3} for i in range(300)),
    )
    first, second = found.uniformity()
    assert min(first.chi_square, first.ecdf) > 0.05
    assert first.mean == pytest.approx(0.5, abs=0.05)
    assert first.spread == pytest.approx(1.0, abs=0.1)
    assert second.mean == pytest.approx(0.3, abs=0.03)
    assert second.spread == pytest.approx(0.6, abs=0.06)
    name, p = found.worst()
    assert name == "low"
    assert p < 1e-6
    third = found.where(np.array([d["k"] == 0 for d in found.diagnostics]))
    assert np.array_equal(third.ranks, found.ranks[::3])
    assert len(third.diagnostics) == 100


# ---- simulated tables -----------------------------------------------------------------------------------


def test_tables_are_drawn_from_the_prior_and_the_model() -> None:
    spec = template(laws.get("transfer"), mixtures(), "size")
    drawn = [simulate(spec, np.random.default_rng(i)) for i in range(400)]
    z = np.concatenate([truth.z for _, truth in drawn])
    off = np.linalg.solve(np.linalg.cholesky(spec.prior_covariance), (z - spec.prior_mean).T)
    assert stats.kstest(off.ravel(), "norm").pvalue > 0.01
    ranks = []
    for table, truth in drawn:
        mean = np.log(spec.law.function.value(truth.z, spec.inputs)[0])
        scale = spec.spread * truth.noise[0] * np.exp(spec.covariates @ truth.eta[0].T)
        ranks.append(stats.t.cdf((table.log_losses - mean) / scale, truth.nu[0]))
    assert stats.kstest(np.concatenate(ranks).ravel(), "uniform").pvalue > 0.01
    assert spec.spread.std() > 0.1  # the law weights runs by their tokens, and so does the simulation


def test_the_prior_stays_the_templates() -> None:
    """Although it is relative to the lowest loss, which every table has its own of."""
    runs = mixtures()
    spec = template(laws.get("transfer"), runs)
    lower = template(laws.get("transfer"), replace(runs, losses=0.5 * runs.losses))
    assert spec.prior_mean[0] - lower.prior_mean[0] == pytest.approx(np.log(2))
    seen = []

    def sampler(posterior: Spec, draws: int, seed: int) -> GroupDraws:
        seen.append(posterior)
        return laplace(posterior, draws, seed)

    calibrate(laws.get("transfer"), runs, sampler, tables=2, sampled=100)
    for posterior in seen:
        assert np.array_equal(posterior.prior_mean, spec.prior_mean)
        assert (posterior.counts == 1).all()
        assert not np.array_equal(posterior.start, spec.start)  # the search starts from the table's own fit
    assert seen[0].log_losses.min() != seen[1].log_losses.min()


def test_tables_do_not_depend_on_the_sampler_and_failures_are_kept() -> None:
    law, runs = laws.get("chinchilla-data"), sizes(1, 12)
    truths = []

    def every_other(posterior: Spec, draws: int, seed: int) -> GroupDraws:
        truths.append(posterior.log_losses)
        if seed % 2:
            raise FitError("not this one")
        return laplace(posterior, draws, seed)

    with_failures = calibrate(law, runs, every_other, tables=6, sampled=200, far=far(runs))
    whole = calibrate(law, runs, laplace, tables=6, sampled=200, far=far(runs))
    assert np.array_equal(with_failures.ranks, whole.ranks[::2])
    assert with_failures.failures == ("not this one",) * 3
    assert whole.quantities == (
        "E",
        "B",
        "beta",
        "log sigma of web",
        "nu of web",
        "log loss of web at far point 1",
        "log loss of web at far point 2",
    )
    assert len({t.tobytes() for t in truths}) == 6

    def none(posterior: Spec, draws: int, seed: int) -> GroupDraws:
        raise FitError("never")

    with pytest.raises(FitError, match="none of 2 simulated tables could be fitted; the first said: never"):
        calibrate(law, runs, none, tables=2)


def test_a_prior_that_gives_no_losses() -> None:
    runs = mixtures()
    prior = np.full(3, -50.0), np.eye(3)
    with pytest.raises(FitError, match="of 1,000 draws from the prior of law 'linear' none gave positive"):
        calibrate(laws.get("linear"), runs, laplace, tables=1, priors=prior)


# ---- samplers -------------------------------------------------------------------------------------------


def test_a_wrong_sampler_is_found_out() -> None:
    """Half the spread, or half a standard deviation off."""
    law, runs = laws.get("chinchilla-data"), sizes(1, 12)
    priors = narrowed("chinchilla-data", runs, 4)

    def narrow(posterior: Spec, draws: int, seed: int) -> GroupDraws:
        found = laplace(posterior, draws, seed)
        return replace(found, z=0.5 * (found.z + found.z.mean(0)))

    def shifted(posterior: Spec, draws: int, seed: int) -> GroupDraws:
        found = laplace(posterior, draws, seed)
        return replace(found, z=found.z + 0.7 * found.z.std(0))

    for wrong in (narrow, shifted):
        found = calibrate(law, runs, wrong, tables=120, sampled=400, priors=priors)
        assert found.worst()[1] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "by", "tables"), [("chinchilla", 3, 150), ("transfer", 6, 60)], ids=["chinchilla", "transfer"]
)
def test_laplace_is_calibrated_where_the_posterior_is_tame(law: str, by: float, tables: int) -> None:
    """Priors narrow enough for it; under the laws' own, the benchmark has the figures, and NUTS's."""
    runs = sizes() if law == "chinchilla" else mixtures()
    found = calibrate(
        laws.get(law),
        runs,
        laplace,
        tables=tables,
        sampled=1000,
        far=far(runs),
        priors=narrowed(law, runs, by),
    )
    assert found.failures == ()
    assert found.worst()[1] > 0.05, [u for u in found.uniformity() if min(u.chi_square, u.ecdf) < 0.01]


@pytest.mark.slow
def test_laplace_is_calibrated_where_it_says_that_it_is_good() -> None:
    """Under wide priors: ranks are uniform among the tables that bring no warning, and not among the others."""
    runs = sizes()
    found = calibrate(laws.get("chinchilla"), runs, laplace, tables=150, sampled=2000, far=far(runs))
    good = np.array([d["pareto_k"] <= 0.7 and d["weight_power"] == 1 for d in found.diagnostics])
    assert 0.2 < good.mean() < 0.9
    assert found.where(good).worst()[1] > 0.05
    assert found.where(~good).worst()[1] < 0.001
