"""Risk over draws and the worst of domains: exact, certified, honest about what is local."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixture import SCALE, random_fit

from lawkit import optimize_mixture
from lawkit.cli import main
from lawkit.errors import OptimizeError
from lawkit.mixture import export_mixture, mixture_path
from lawkit.mixture.corners import smoothed, worst
from lawkit.mixture.objective import Objective
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.target import Target

N, T = SCALE["n_params"], SCALE["n_tokens"]


def uncertain(law: str = "transfer", K: int = 5, E: int = 3, seed: int = 0, sd: float = 0.15) -> Any:
    """A fit whose parameters have a standard deviation on the unconstrained scale."""
    fit = random_fit(law, K, E, seed)
    G, P = fit.estimate.z.shape
    return replace(fit, estimate=replace(fit.estimate, covariance=np.tile(sd**2 * np.eye(P), (G, 1, 1))))


# ---- corners ------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_cvar_is_its_definition_and_rounding_it_converges(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    f = rng.normal(2, 0.5, size=12)
    caps = np.full(12, 1 / (12 * (1 - level)))
    value, weights = worst(f, caps)
    grid = np.unique(f)  # the least over t of t + mean excess / (1 - level) is at one of the losses
    assert value == pytest.approx(min(t + (caps * np.maximum(f - t, 0)).sum() for t in grid), abs=1e-12)
    assert weights.sum() == pytest.approx(1)
    assert (weights <= caps + 1e-15).all()
    for barrier in (1e-3, 1e-7):
        rounded, p, q = smoothed(f[None], caps, barrier)
        # A logarithmic barrier of 2n terms costs 2n barrier weights, beside its own value.
        assert value - p[0] @ f <= 24.1 * barrier
        assert (p <= caps * (1 + 1e-12)).all()
        assert p.sum() == pytest.approx(1)
        assert (q > 0).all()
        assert np.isfinite(rounded).all()


@pytest.mark.parametrize("over", ["mean", "max", "cvar:.5"])
@pytest.mark.parametrize("risk", [("mean", 0.0), ("cvar", 0.8)])
def test_derivatives_of_rounded_objectives(over: str, risk: tuple[str, float]) -> None:
    fit = uncertain()
    problem = MixtureProblem.build(
        fit.sources,
        fit.domains,
        over=over,
        prior=dict.fromkeys(fit.sources, 0.2),
        max_kl=1.0,
        max_loss={"d1": 9.0},
    )
    objective = Objective(Target(fit, N, T), problem, fit.draw(6, 0), risk)
    h, step = np.array([0.1, 0.2, 0.3, 0.25, 0.15]), 1e-6
    at = objective(h, 1e-2)
    for j, e in enumerate(np.eye(5)):
        up, down = objective(h + step * e, 1e-2), objective(h - step * e, 1e-2)
        assert at.gradient[j] == pytest.approx((up.value - down.value) / (2 * step), rel=1e-5, abs=1e-8)
        np.testing.assert_allclose(
            at.hessian[j], (up.gradient - down.gradient) / (2 * step), rtol=2e-4, atol=1e-5
        )
        np.testing.assert_allclose(at.slopes[:, j], (up.g - down.g) / (2 * step), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(
            at.curves[:, j], (up.slopes - down.slopes) / (2 * step), rtol=2e-4, atol=1e-5
        )


# ---- optima -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["transfer", "exponential", "linear", "additive"])
@pytest.mark.parametrize("over", ["max", "cvar:.6"])
def test_the_worst_of_domains_is_certified_and_below_every_draw(law: str, over: str) -> None:
    fit = random_fit(law, 6, 5, 3)
    result = optimize_mixture(fit, **SCALE, constraints={"over": over})
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    values = np.array(list(result.predicted.values()))
    draws = fit.losses(N, T, np.random.default_rng(0).dirichlet(np.ones(6), 5000))
    if over == "max":
        assert result.objective == pytest.approx(values.max(), abs=1e-12)
        assert draws.max(1).min() >= result.objective - 1e-9
    else:  # two of five domains are the worst 40%
        assert result.objective == pytest.approx(np.sort(values)[-2:].mean(), abs=1e-12)
        assert np.sort(draws, 1)[:, -2:].mean(1).min() >= result.objective - 1e-9


@pytest.mark.parametrize("law", ["transfer", "exponential-scale"])
@pytest.mark.parametrize("risk", ["mean", "cvar:.8"])
def test_risk_over_draws_is_certified_and_best_by_its_own_measure(law: str, risk: str) -> None:
    fit = uncertain(law)
    draws = 60
    result = optimize_mixture(fit, **SCALE, risk=risk, draws=draws)
    assert result.risk == risk.replace(":.", ":0.")
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    z, at = fit.draw(draws, 0), Target(fit, N, T)

    def measure(h: np.ndarray) -> np.ndarray:
        values = np.sort(at.objectives(z, h, np.full(3, 1 / 3)), axis=0)
        return values.mean(0) if risk == "mean" else values[-12:].mean(0)

    h = np.array([list(result.weights.values())])
    assert result.objective == pytest.approx(measure(h)[0], abs=1e-10)
    assert result.baselines["uniform"] == pytest.approx(measure(np.full((1, 5), 0.2))[0], abs=1e-10)
    others = np.random.default_rng(0).dirichlet(np.ones(5), 400)
    near = 0.98 * h + 0.02 * others
    assert min(measure(others).min(), measure(near).min()) >= result.objective - 1e-9
    point = optimize_mixture(fit, **SCALE, draws=0)
    assert measure(np.array([list(point.weights.values())]))[0] >= result.objective - 1e-9


@pytest.mark.parametrize("risk", ["mean", "cvar:.9", "quantile:.9"])
def test_risk_over_no_draws_is_refused(risk: str) -> None:
    with pytest.raises(OptimizeError, match=rf"risk {risk.replace('.', '0.')} is over draws .* of which 0"):
        optimize_mixture(random_fit("transfer", 3, 2, 0), **SCALE, risk=risk, draws=0)


def test_quantile_says_local_is_no_worse_than_cvars_mixture_and_has_a_bound() -> None:
    fit = uncertain(sd=0.3)
    result = optimize_mixture(fit, **SCALE, risk="quantile:.8", draws=50)
    assert result.certificate == "local"
    assert any("proven only locally" in w for w in result.warnings)
    at, z = Target(fit, N, T), fit.draw(50, 0)

    def quantile(weights: dict[str, float]) -> float:
        values = at.objectives(z, np.array([list(weights.values())]), np.full(3, 1 / 3))[:, 0]
        return float(np.sort(values)[39])

    tail = optimize_mixture(fit, **SCALE, risk="cvar:.8", draws=50)
    assert result.objective == pytest.approx(quantile(result.weights), abs=1e-12)
    assert result.objective <= quantile(tail.weights) + 1e-12
    assert result.objective <= tail.objective
    assert result.lower_bound is not None
    others = np.random.default_rng(0).dirichlet(np.ones(5), 300)
    least = np.sort(at.objectives(z, others, np.full(3, 1 / 3)), axis=0)[39].min()
    assert result.lower_bound <= min(least, result.objective)


@pytest.mark.slow
def test_risk_with_limits_and_the_worst_domain_all_at_once() -> None:
    fit = uncertain()
    result = optimize_mixture(
        fit, **SCALE, risk="cvar:.8", draws=20,
        constraints={"over": "max", "groups": {"g": {"sources": ["s0", "s1"], "upper": 0.3}}},
    )  # fmt: skip
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    assert result.weights["s0"] + result.weights["s1"] <= 0.3 + 1e-12


def test_many_draws_are_searched_from_fewer_and_proven_on_all() -> None:
    fit = uncertain("exponential", 4, 2)
    few = optimize_mixture(fit, **SCALE, risk="cvar:.9", draws=500)
    assert few.certificate == "global"
    assert few.optimality_gap < 1e-6
    assert any("200 of 500 draws" in w for w in few.warnings)


def test_a_law_not_convex_in_the_weights_stays_local_under_risk() -> None:
    fit = random_fit("transfer", 3, 2, 0)
    law = replace_convexity(fit)
    result = optimize_mixture(law, **SCALE, risk="cvar:.8", draws=20)
    assert result.certificate == "local"
    assert result.lower_bound is None


def replace_convexity(fit: Any) -> Any:
    """The fit of a law that no longer says it is convex."""

    class Unproven(type(fit.law)):
        convex_in_weights = False
        form = None

    return replace(fit, estimate=replace(fit.estimate, law=Unproven()))


@pytest.mark.slow
def test_intervals_respect_groups_and_losses() -> None:
    fit = uncertain(sd=0.05)
    groups = {"g": {"sources": ["s0", "s1"], "upper": 0.3}}
    result = optimize_mixture(fit, **SCALE, groups=groups, draws=30)
    assert result.uncertainty is not None
    assert (result.uncertainty.optima[:, :2].sum(1) <= 0.3 + 1e-9).all()
    over = optimize_mixture(fit, **SCALE, constraints={"over": "max"}, draws=20)
    assert over.uncertainty is not None
    assert over.uncertainty.regret_mean >= 0


# ---- paths and files ----------------------------------------------------------------------------------------


def test_a_path_is_the_optimum_at_each_size_and_availability_moves_with_it() -> None:
    fit = random_fit("transfer", 4, 3, 1)
    free = optimize_mixture(fit, **SCALE).weights
    most = max(free, key=lambda s: free[s])
    path = mixture_path(fit, "n_tokens", 1e10, 1e13, points=4, n_params=N, available={most: 2e10})
    np.testing.assert_allclose(path.sizes, [1e10, 1e11, 1e12, 1e13])
    for size, found in zip(path.sizes, path.results, strict=True):
        assert (
            found.weights == optimize_mixture(fit, n_params=N, n_tokens=size, available={most: 2e10}).weights
        )
        assert found.weights[most] <= 8e10 / size + 1e-12
    with pytest.raises(OptimizeError, match="at least 2 points"):
        mixture_path(fit, "n_tokens", 1e10, 1e9, n_params=N)
    with pytest.raises(OptimizeError, match="n_params or n_tokens"):
        mixture_path(fit, "flops", 1e10, 1e12)


def test_exports_are_what_trainers_read(tmp_path) -> None:
    weights = {"web": 0.625, "hq": 0.375, "none": 0.0}
    export_mixture(weights, tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == weights
    export_mixture(weights, tmp_path / "m.yaml")
    assert yaml.safe_load((tmp_path / "m.yaml").read_text()) == weights
    export_mixture(weights, tmp_path / "t", "torchtitan")
    assert json.loads((tmp_path / "t").read_text()) == {
        "datasets": [{"dataset": "web", "weight": 0.625}, {"dataset": "hq", "weight": 0.375}]
    }
    export_mixture(weights, tmp_path / "o", "olmo-core", paths={"hq": ["a.npy", "b.npy"]}, epochs={"hq": 2.5})
    sources = yaml.safe_load((tmp_path / "o").read_text())["sources"]
    assert sum(s["target_ratio"] for s in sources) == 1
    assert sources[1] == {
        "source_name": "hq", "target_ratio": 0.375, "paths": ["a.npy", "b.npy"], "max_repetition_ratio": 2.5
    }  # fmt: skip
    with pytest.raises(OptimizeError, match="does not say the format"):
        export_mixture(weights, tmp_path / "m.txt")
    with pytest.raises(OptimizeError, match="cannot be written"):
        export_mixture(weights, tmp_path / "no" / "m.json")


def test_the_command(tmp_path, capsys) -> None:
    uncertain("transfer", 4, 2).save(tmp_path / "fit")
    limits = tmp_path / "limits.yaml"
    limits.write_text(
        "groups:\n  pair: {sources: [s0, s1], upper: 60%}\nmax_epochs: 2\navailable: {s2: 100B}\n"
    )
    command = ["optimize-mixture", str(tmp_path / "fit"), "--n-params", "3B", "--n-tokens", "1T"]
    more = ["--constraints", str(limits), "--group", "s1+s3<=.7", "--export", str(tmp_path / "m.yaml")]
    assert main([*command, *more, "--path", "n-tokens=100B:10T", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["weights"]["s0"] + out["weights"]["s1"] <= 0.6 + 1e-12
    assert out["weights"]["s1"] + out["weights"]["s3"] <= 0.7 + 1e-12
    assert out["weights"]["s2"] <= 0.2 + 1e-12
    assert out["path"]["vary"] == "n_tokens"
    assert [p["n_tokens"] for p in out["path"]["points"]][::8] == pytest.approx([1e11, 1e13])
    assert yaml.safe_load((tmp_path / "m.yaml").read_text()) == pytest.approx(out["weights"])
    assert main([*command, "--risk", "cvar:.9", "--draws", "30"]) == 0
    assert "cvar:0.9 over draws" in capsys.readouterr().out
    assert main([*command, *more, "--path", "n-tokens=100B:10T"]) == 0
    assert "binding limits" in capsys.readouterr().out
    limits.write_text("groups:\n  synthetic: {sources: [s0, s1], upper: 150}\n")
    assert main([*command, "--constraints", str(limits)]) == 1
    assert (
        "limits.yaml: groups.synthetic.upper: 150: must be a fraction from 0 to 1" in capsys.readouterr().err
    )
    for wrong in (["--group", "s0<=.5"], ["--path", "n-tokens=10B"], ["--format", "yaml"]):
        assert main([*command, *wrong]) == 2
