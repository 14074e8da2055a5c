"""NUTS: the published posterior, reproducible, honest about trouble, and stoppable."""

from __future__ import annotations

import _thread
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp

import lawkit.laws
from lawkit.bayes import _samplers, sample
from lawkit.bayes._axes import Axes, axes
from lawkit.bayes.laplace import laplace
from lawkit.bayes.natural import natural
from lawkit.bayes.spec import GroupDraws, Spec, specs
from lawkit.errors import FitError
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.estimate import estimate
from lawkit.laws._law import D, D_ref, Implicit, Law, Parameter, scalars
from lawkit.runs import Runs
from needs import need
from published import chinchilla

need("pymc")


def described(runs: Runs, name: str = "chinchilla") -> Spec:
    law = lawkit.laws.get(name)
    e, ready = estimate(runs, law, law.objective)
    return specs(runs, ready, e.z, e.noise, NoiseModel())[0]


@pytest.fixture(scope="module")
def spec(datasets: Path) -> Spec:
    return described(chinchilla(datasets, 5))


@pytest.fixture(scope="module")
def sampled(spec: Spec) -> tuple[GroupDraws, Any]:
    return sample.nuts(spec, 1000, 1000, 4, seed=1)


def test_published_posterior(spec: Spec, sampled: tuple[GroupDraws, Any]) -> None:
    draws, _ = sampled
    found = draws.diagnostics
    assert draws.z.shape == (4000, 5)
    assert draws.warnings == ()
    assert (found["chains"], found["draws"], found["tune"]) == (4, 1000, 1000)
    assert found["max_rhat"] < 1.01
    assert found["min_ess_bulk"] > 2000
    assert found["divergences"] == 0
    assert not found["interrupted"]
    values = natural(spec.law, draws.z, spec.inputs.n_ref, spec.inputs.d_ref, 0)
    for name, mean, sd in (("alpha", 0.345, 0.009), ("beta", 0.360, 0.010), ("E", 1.807, 0.016)):
        assert values[name].mean() == pytest.approx(mean, abs=0.2 * sd), name
        assert values[name].std() == pytest.approx(sd, rel=0.15), name


def test_trace_holds_the_draws(sampled: tuple[GroupDraws, Any], spec: Spec) -> None:
    draws, trace = sampled
    values = natural(spec.law, draws.z, spec.inputs.n_ref, spec.inputs.d_ref, 0)
    np.testing.assert_array_equal(trace["posterior"]["A"].values.ravel(), values["A"])
    assert trace["posterior"]["A"].dims == ("chain", "draw", "domain")
    assert not trace["sample_stats"]["diverging"].values.any()
    assert trace["observed_data"]["log_loss"].shape == (240, 1)


def test_same_seed_same_bits_and_silent(
    spec: Spec, sampled: tuple[GroupDraws, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    again, _ = sample.nuts(spec, 1000, 1000, 4, seed=1, progress=True)
    for name in ("z", "noise", "nu", "eta"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sampled[0], name))
    assert capfd.readouterr() == ("", "")  # no bar where standard error is no terminal


def test_another_domain_needs_no_compiling(spec: Spec, sampled: tuple[GroupDraws, Any]) -> None:
    """The model of the last law and table is used again; the posterior is that of the new losses."""
    before = _samplers._compiled
    higher = Spec(
        **{
            **spec.__dict__,
            "log_losses": spec.log_losses + np.log(2.0),
            "prior_mean": spec.prior_mean + np.log([2, 2, 2, 1, 1]),
            "start": spec.start + np.log([2, 2, 2, 1, 1]),
        }
    )
    draws, _ = sample.nuts(higher, 500, 500, 4, seed=2)
    assert _samplers._compiled is before
    first = sampled[0]
    scale = np.log([2, 2, 2, 1, 1])
    # The same posterior, twice as high.
    assert np.abs((draws.z.mean(0) - scale - first.z.mean(0)) / first.z.std(0)).max() < 0.2


def few_runs() -> Spec:
    """24 runs of Chinchilla's law in the tokens alone."""
    n_tokens, rng = np.geomspace(1e8, 1e12, 24), np.random.default_rng(0)
    losses = (1.7 + 300.0 / n_tokens**0.3) * np.exp(0.01 * rng.standard_normal(24))
    runs = Runs(
        sources=(), domains=("web",), n_params=None, n_tokens=n_tokens, weights=np.zeros((24, 0)),
        losses=losses[:, None],
    )  # fmt: skip
    return described(runs, "chinchilla-data")


def assert_like_laplace(spec: Spec, draws: GroupDraws) -> None:
    near = laplace(spec, 4000)
    assert near.diagnostics["pareto_k"] < 0.7
    assert np.abs((draws.z.mean(0) - near.z.mean(0)) / near.z.std(0)).max() < 0.3
    np.testing.assert_allclose(draws.z.std(0), near.z.std(0), rtol=0.3)


class Roundabout(Law):
    """Chinchilla's law in the tokens, its second term found by solving for its logarithm."""

    name = "roundabout"
    _E, _B, _beta = scalars("E B beta")
    _term = sp.Symbol("term", real=True)
    _log_term = sp.log(_B) - _beta * sp.log(D)
    parameters = (
        Parameter(name="E"),
        Parameter(name="B", reference=D_ref**_beta),
        Parameter(name="beta", start=(0.05, 2.0)),
    )
    loss = _E + sp.exp(_term)
    implicit = Implicit(symbol=_term, equation=_log_term - _term, lower=_log_term - 1, upper=_log_term + 1)


@pytest.mark.slow
def test_law_with_an_implicit_quantity() -> None:
    plain = few_runs()
    spec = Spec(**{**plain.__dict__, "law": Roundabout()})
    draws, _ = sample.nuts(spec, 300, 300, 2, seed=3)
    assert draws.diagnostics["sampler"].startswith("nutpie")
    assert draws.diagnostics["max_rhat"] < 1.05
    assert_like_laplace(plain, draws)


@pytest.mark.slow
def test_without_nutpie_pymc_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nutpie", None)
    spec = few_runs()
    counts = np.full(spec.counts.shape, 0.9)
    counts[3] = 0.4
    spec = Spec(**{**spec.__dict__, "counts": counts})
    draws, trace = sample.nuts(spec, 200, 300, 2, seed=3)
    assert draws.diagnostics["sampler"].startswith("PyMC")
    assert draws.diagnostics["steps_per_draw"] >= 1
    assert trace["posterior"]["E"].shape == (2, 200, 1)
    assert_like_laplace(spec, draws)
    again, _ = sample.nuts(spec, 200, 300, 2, seed=3)
    np.testing.assert_array_equal(draws.z, again.z)


# ---- trouble ----------------------------------------------------------------------------------------------


def interrupted(spec: Spec, seconds: float, **asked: int) -> GroupDraws:
    """What is left when Ctrl-C is pressed after so many seconds."""
    sample.nuts(spec, 20, 20, chains=2)  # compiled before the clock runs, whatever model came last
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.start()
    try:
        return sample.nuts(spec, seed=4, **asked)[0]  # type: ignore[arg-type]
    finally:
        timer.cancel()


def test_ctrl_c_keeps_what_is_finished(spec: Spec, sampled: tuple[GroupDraws, Any]) -> None:
    draws = interrupted(spec, 4.0, draws=1_000_000, tune=50, chains=2)
    found = draws.diagnostics
    assert found["interrupted"]
    assert len(draws.z) == found["chains"] * found["draws"]
    assert _samplers.FEWEST <= found["draws"] < 1_000_000
    assert np.isfinite(draws.z).all()
    assert "was interrupted" in draws.warnings[0]
    assert f"{found['draws']:,} of 1,000,000 draws" in draws.warnings[0]


def test_wanting_draws_are_drawn_again(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lawkit.bayes import posterior

    asked, real = [], sample.nuts

    def nuts(spec: Spec, draws: int, **how: Any) -> Any:
        asked.append(draws)
        return real(spec, draws, **how)

    monkeypatch.setattr(sample, "nuts", nuts)
    monkeypatch.setattr(posterior, "CHAIN_DRAWS", 60)  # too few to be worth a hundred of each chain
    lawkit.fit(chinchilla(datasets, 5), law="chinchilla", posterior="nuts", holdout="none")
    assert asked == [60, 120]


def test_ctrl_c_too_early(spec: Spec, sampled: tuple[GroupDraws, Any]) -> None:
    with pytest.raises(FitError, match=r"interrupted with 0 draws .* too few to keep"):
        interrupted(spec, 2.0, draws=1000, tune=10_000_000, chains=2)


def test_sampler_that_fails(
    spec: Spec, sampled: tuple[GroupDraws, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = axes(spec)
    lost = Axes(**{**found.__dict__, "centre": np.full(len(found.centre), np.nan)})
    monkeypatch.setattr(sample, "axes", lambda _: lost)  # chains then start nowhere
    with pytest.raises(FitError, match=r"sampling the posterior of loss failed: .*--posterior laplace"):
        sample.nuts(spec, 50, 50, 2)


def test_sampler_that_is_not_installed(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(FitError, match=r"sampling needs PyMC.*pip install 'lawkit\[bayes\]'"):
        sample.nuts(spec)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"draws": 3}, "draws must be at least 4, got 3"), ({"chains": 0}, "chains must be at least 1, got 0")],
)
def test_counts_that_make_no_sense(spec: Spec, asked: dict[str, int], message: str) -> None:
    with pytest.raises(FitError, match=message):
        sample.nuts(spec, **asked)  # type: ignore[arg-type]


def test_losses_that_no_parameters_explain(spec: Spec) -> None:
    broken = Spec(**{**spec.__dict__, "log_losses": np.full(spec.log_losses.shape, np.nan)})
    with pytest.raises(FitError, match="no finite posterior at its point fit"):
        sample.nuts(broken)


def test_warnings_name_the_trouble_and_the_way_out(spec: Spec) -> None:
    """Chains that disagree, stand still and diverge, made up number by number."""
    rng = np.random.default_rng(0)
    u = 0.1 * rng.standard_normal((2, 200, 5))
    u[1] += 1.0
    steady = rng.standard_normal((2, 200, 1))
    diverging = np.zeros((2, 200), bool)
    diverging[0, :7] = True
    made = _samplers.Sampled(
        values={"u": u, "log_noise": steady, "noise_nu": np.exp(steady)}, diverging=diverging,
        n_steps=np.ones((2, 200), int), sampler="none",
    )  # fmt: skip
    draws, stats = sample._told(spec, made, axes(spec).root, {"tune": 1, "draws": 200, "chains": 2})
    disagree, few, diverged = draws.warnings
    assert "the chains of loss disagree: R-hat is" in disagree
    assert "sample longer" in disagree
    assert "bulk effective sample size" in few
    assert diverged.startswith("7 of 400 draws of loss diverged")
    assert stats["diverging"].sum() == 7
