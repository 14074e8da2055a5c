"""The optimal mixture under draws: each draw's own optimum, intervals that cover, comparisons with other mixtures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_mixture import (
    LIMITS,
    PUBLISHED,
    SCALE,
    make_fit,
    names,
    published_fit,
    random_fit,
    random_parameters,
)

import lawkit
from lawkit import laws, optimize_mixture
from lawkit.cli import main
from lawkit.errors import OptimizeError
from lawkit.fitting import Fit
from lawkit.fitting.draws import Draws
from lawkit.fitting.echo import resampled
from lawkit.laws.formula import FormulaLaw
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.optima import optima
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise, minimise_many
from lawkit.mixture.solve import solve
from lawkit.mixture.target import Target
from lawkit.mixture.uncertainty import simultaneous
from lawkit.runs import Runs

SLOPES = np.array([3.0, 4.5])


def two_runs(n: int, noise: float, seed: int = 0, losses: np.ndarray | None = None) -> Runs:
    """Runs of two sources; each teaches its own domain alone: 1 + exp(-3 h_a) and 1 + exp(-4.5 h_b)."""
    rng = np.random.default_rng(seed)
    h = rng.uniform(0.05, 0.95, n)
    weights = np.column_stack([h, 1 - h])
    if losses is None:
        losses = (1 + np.exp(-SLOPES * weights)) * np.exp(noise * rng.normal(size=(n, 2)))
    return Runs(
        sources=("a", "b"), domains=("x", "y"), n_params=None, n_tokens=None, weights=weights, losses=losses
    )


def exact(intercepts: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Weight of a that minimises k_a exp(-s_a h) + k_b exp(-s_b (1 - h)), for k and s of shape (.., 2)."""
    top = np.log(intercepts[..., 0] * slopes[..., 0] / (intercepts[..., 1] * slopes[..., 1])) + slopes[..., 1]
    return top / slopes.sum(-1)


TRUTH = float(exact(np.ones(2), SLOPES))


def spread(fit: Fit, sd: float) -> Fit:
    """The fit with independent normal parameters of this standard deviation."""
    e = fit.estimate
    return replace(
        fit, estimate=replace(e, covariance=np.tile(sd**2 * np.eye(e.z.shape[1]), (len(e.z), 1, 1)))
    )


def with_draws(fit: Fit, z: np.ndarray) -> Fit:
    """The fit with these draws (S, G, P)."""
    E = len(fit.domains)
    draws = Draws(
        kind="laplace", z=z, noise=np.full((len(z), E), 0.01), nu=np.full((len(z), E), np.inf),
        eta=np.zeros((len(z), E, 0)),
    )  # fmt: skip
    return replace(fit, draws=draws)


def weights(fit: Fit, h: float) -> dict[str, float]:
    return dict(zip(fit.sources, (h, 1 - h), strict=True))


# ---- each draw's own optimum ---------------------------------------------------------------------------


def test_every_draw_has_the_optimum_that_its_parameters_give_in_closed_form():
    law = laws.get("exponential")
    parameters = {
        "d0": {"c": 1.0, "k": 1.0, "t": np.array([-3.0, 0.0])},
        "d1": {"c": 1.0, "k": 1.0, "t": np.array([0.0, -4.5])},
    }
    fit = spread(make_fit(law, parameters, ["a", "b"], ["d0", "d1"]), 0.0)
    where = law.layout(2)
    z = np.tile(fit.z, (300, 1, 1))
    rng = np.random.default_rng(1)
    for e in range(
        2
    ):  # only what the closed form knows is drawn: the size of each term and the slope of its source
        z[:, e, where["k"]] += rng.normal(0, 0.1, (300, 1))
        z[:, e, where["t"].start + e] += rng.normal(0, 0.3, 300)
    found = optimize_mixture(with_draws(fit, z), draws=300, seed=4)
    assert found.uncertainty is not None
    order = with_draws(fit, z).draw(300, 4)
    slopes = -np.stack([order[:, e, where["t"].start + e] for e in range(2)], 1)
    expected = exact(np.exp(order[:, :, where["k"].start]), slopes)
    np.testing.assert_allclose(found.uncertainty.optima[:, 0], expected, atol=1e-7)
    assert found.uncertainty.left_out == 0
    assert found.uncertainty.weights["a"][0] < TRUTH < found.uncertainty.weights["a"][1]
    # Two weights that sum to 1 vary as one: at once is the same as one at a time.
    for bounds in (found.uncertainty.weights, found.uncertainty.weights_marginal):
        inside = (expected >= bounds["a"][0] - 1e-9) & (expected <= bounds["a"][1] + 1e-9)
        assert inside.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("law", ["transfer", "transfer-average", "exponential-scale", "additive", "capacity"])
def test_derivatives_of_many_draws_are_those_of_each(law):
    if law == "capacity":
        fit = published_fit()
    elif law == "transfer-average":
        rng = np.random.default_rng(0)
        both = [
            {f"{k}_{i}": v for i, m in enumerate(("transfer", "transfer-plain"), 1)
             for k, v in random_parameters(m, 7, rng).items()}
            for _ in range(7)
        ]  # fmt: skip
        fit = make_fit(law, dict(zip(names(7), both, strict=True)), names(7), names(7))
    else:
        fit = random_fit(law, 7, 7, 0)
    target = np.array([0.0, 1, 0, 2, 3, 1, 1]) / 8
    at = Target(fit, 1300 if law == "capacity" else 3e9, 30 if law == "capacity" else 1e12)
    z = spread(fit, 0.1).draw(4)
    h = np.random.default_rng(0).dirichlet(np.ones(7), 3)
    which = np.array([3, 0, 2])
    many = at.derivatives_of(z, target)(which, h, np.zeros(len(which)))
    for i, draw in enumerate(which):
        one = at.with_parameters(z[draw]).derivatives(target)(h[i])
        for a, b in zip(many, one, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-12)
        assert at.objectives(z, h, target)[draw, i] == pytest.approx(one[0], rel=1e-12)


def test_searching_at_once_is_searching_one_by_one():
    fit = spread(random_fit("transfer", 6, 4, 0), 0.2)
    at = Target(fit, SCALE["n_params"], SCALE["n_tokens"])
    problem = MixtureProblem.build(fit.sources, fit.domains, bounds={"s0": (0.2, 1), "s1": (0, 0.1)})
    z = fit.draw(5)
    many = minimise_many(at.derivatives_of(z, problem.target), problem, [problem.interior()] * 5)
    for draw, found in zip(z, many, strict=True):
        alone = minimise(at.with_parameters(draw).derivatives(problem.target), problem)
        np.testing.assert_allclose(found.h, alone.h, atol=1e-9)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("law", ["transfer", "exponential-scale", "additive", "linear"])
def test_every_draw_keeps_to_the_limits_and_is_certified(law, limits):
    fit = spread(random_fit(law, 6, 4, 1), 0.1)
    found = optimize_mixture(fit, **SCALE, **LIMITS[limits], draws=60)
    u = found.uncertainty
    assert u is not None
    assert len(u.optima) == 60
    given = {k: v for k, v in LIMITS[limits].items() if k != "max_epochs"}
    problem = MixtureProblem.build(
        fit.sources,
        fit.domains,
        n_tokens=SCALE["n_tokens"],
        max_epochs=LIMITS[limits].get("max_epochs", 4),
        **given,
    )
    assert (u.optima >= problem.lower).all()
    assert (u.optima <= problem.upper).all()
    np.testing.assert_allclose(u.optima.sum(1), 1, atol=1e-12)
    at = Target(fit, SCALE["n_params"], SCALE["n_tokens"])
    _, gradients, _ = at.derivatives_of(fit.draw(60), problem.target)(np.arange(60), u.optima, np.zeros(60))
    assert max(frank_wolfe_gap(g, h, problem) for g, h in zip(gradients, u.optima, strict=True)) < 1e-6
    for source, (low, high) in u.weights.items():
        i = fit.sources.index(source)
        assert problem.lower[i] <= low <= found.weights[source] <= high <= problem.upper[i]
        assert u.weights_marginal[source][0] >= low - 1e-12
        assert u.weights_marginal[source][1] <= high + 1e-12
    assert u.objective[0] < u.objective[1]


def test_capacity_law_draws_are_near_the_proven_optimum():
    fit = spread(published_fit(), 0.05)
    at = Target(fit, 1300.0, 30.0)
    problem = MixtureProblem.build(fit.sources, fit.domains)
    z = fit.draw(6)
    best = optima(at, z, problem, solve(at, problem).h, lambda other: solve(other, problem).h)
    for draw, objective in zip(z, best.objective, strict=True):
        assert objective == pytest.approx(solve(at.with_parameters(draw), problem).objective, abs=1e-7)
    found = optimize_mixture(fit, n_params=1300, n_tokens=30, draws=20)
    assert any("near that of the point fit only" in w for w in found.warnings)


def test_a_formula_is_searched_near_the_point_optimum_and_says_so():
    law = FormulaLaw("E + A/N**alpha + B/(D*(w_web**p + k*w_hq**p))**beta", ["web", "hq"])
    values = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 400.0, "beta": 0.28, "k": 2.0, "p": 0.5}
    fit = spread(make_fit(law, {"d0": values}, ["web", "hq"], ["d0"]), 0.1)
    found = optimize_mixture(fit, **SCALE, draws=100)
    u = found.uncertainty
    assert u is not None
    assert len(u.optima) == 100
    assert any("is not convex in the weights" in w for w in found.warnings)
    # Only k and p say what mixture is best: h_hq / h_web = k^(1 / (1 - p)).
    natural = [law.natural(z, fit.estimate.n_ref, fit.estimate.d_ref) for z in fit.draw(100)[:, 0]]
    ratio = np.array([n["k"] ** (1 / (1 - n["p"])) for n in natural])
    inside = np.array([n["p"] for n in natural]) < 0.95
    np.testing.assert_allclose(u.optima[inside, 1], (ratio / (1 + ratio))[inside], atol=1e-5)


def test_one_mixture_left_is_every_draws_best():
    fit = spread(random_fit("linear", 3, 2, 0), 0.1)
    found = optimize_mixture(
        fit, **SCALE, bounds={"s0": (0.5, 0.5), "s1": (0.3, 1), "s2": (0.2, 1)}, draws=30
    )
    assert found.uncertainty is not None
    assert found.uncertainty.weights == {"s0": (0.5, 0.5), "s1": (0.3, 0.3), "s2": (0.2, 0.2)}
    assert found.uncertainty.regret_upper == 0


# ---- draws that fail -----------------------------------------------------------------------------------


def test_draws_without_an_optimum_are_left_out_and_counted():
    fit = random_fit("transfer", 4, 3, 0)
    z = spread(fit, 0.1).draw(50)
    whole = optimize_mixture(with_draws(fit, z[3:]), **SCALE)
    z[:3, 1, 0] = np.nan
    broken = with_draws(fit, z)
    found = optimize_mixture(broken, **SCALE)
    assert found.uncertainty is not None
    assert whole.uncertainty is not None
    assert len(found.uncertainty.optima) == 47
    assert found.uncertainty.left_out == 3
    assert any("for 3 of 50 draws of the parameters no best mixture was found" in w for w in found.warnings)
    assert sorted(found.uncertainty.optima[:, 0]) == pytest.approx(
        sorted(whole.uncertainty.optima[:, 0]), abs=1e-9
    )
    z[:30] = np.nan
    useless = optimize_mixture(with_draws(fit, z), **SCALE)
    assert useless.uncertainty is None
    assert useless.weights == found.weights
    assert any("there are no intervals" in w for w in useless.warnings)


def test_a_draw_that_the_search_leaves_open_is_solved_alone():
    fit = spread(random_fit("linear", 3, 2, 0), 0.1)
    at = Target(fit, SCALE["n_params"], SCALE["n_tokens"])
    problem = MixtureProblem.build(fit.sources, fit.domains)
    start, z = solve(at, problem).h, fit.draw(5)
    asked = []

    class Stuck(Target):
        """Slopes of one draw that lead nowhere, so that its gap stays open."""

        def derivatives_of(self, z: np.ndarray, target: np.ndarray, over=("mean", 0.0)):
            true = super().derivatives_of(z, target, over)

            def evaluate(which, h, barrier):
                value, gradient, hessian = true(which, h, barrier)
                gradient = np.where(
                    (which == 2)[:, None] & (value > 0)[:, None], gradient - 10 * np.sign(h - 0.5), gradient
                )
                return value, gradient, hessian

            return evaluate

    def alone(other: Target) -> np.ndarray:
        asked.append(other)
        return solve(other, problem).h

    best = optima(Stuck(fit, SCALE["n_params"], SCALE["n_tokens"]), z, problem, start, alone)
    assert len(best.h) == 5
    assert len(asked) == 1
    np.testing.assert_array_equal(asked[0].fit.z, z[2])


@pytest.mark.parametrize("over", ["max", "cvar:.6"])
def test_draws_of_the_worst_domains_searched_at_once_are_those_solved_alone(over: str) -> None:
    fit = spread(random_fit("transfer", 5, 4, 1), 0.03)
    at = Target(fit, SCALE["n_params"], SCALE["n_tokens"])
    problem = MixtureProblem.build(fit.sources, fit.domains, over=over, bounds={"s0": (0.1, 1)})
    z, asked = fit.draw(12), []

    def alone(other: Target) -> np.ndarray:
        asked.append(other)
        return solve(other, problem).h

    best = optima(at, z, problem, solve(at, problem).h, alone)
    assert len(best.h) == 12
    assert not asked or over != "max"
    for h, objective, draw in zip(best.h, best.objective, z, strict=True):
        found = solve(at.with_parameters(draw), problem)
        assert objective == pytest.approx(found.objective, abs=1e-8)
        assert at.objectives(draw[None], h[None], problem.target, problem.over)[0, 0] == pytest.approx(
            objective
        )


# ---- intervals -----------------------------------------------------------------------------------------


def test_intervals_shrink_with_more_runs_and_hold_the_truth():
    width = {}
    for n in (15, 60, 240):
        fit = lawkit.fit(two_runs(n, 0.01), law="exponential", holdout="none")
        u = optimize_mixture(fit, draws=200).uncertainty
        assert u is not None
        low, high = u.weights["a"]
        assert low < TRUTH < high
        width[n] = high - low
    assert width[15] / width[60] == pytest.approx(2, rel=0.5)
    assert width[60] / width[240] == pytest.approx(2, rel=0.5)


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = []
    for seed in range(60):
        fit = lawkit.fit(two_runs(40, 0.01, seed), law="exponential", holdout="none", starts=2)
        u = optimize_mixture(fit, draws=100, interval=0.8).uncertainty
        assert u is not None
        covered.append(u.weights["a"][0] <= TRUTH <= u.weights["a"][1])
    # 80% of 60, less two and a half standard errors.
    assert np.mean(covered) >= 0.67


def test_a_higher_interval_is_wider():
    fit = lawkit.fit(two_runs(30, 0.02), law="exponential", holdout="none")
    ends = []
    for interval in (0.5, 0.8, 0.95):
        u = optimize_mixture(fit, draws=400, interval=interval).uncertainty
        assert u is not None
        ends.append([*u.weights["a"], *u.objective, u.regret_upper])
    ends = np.array(ends)
    assert (np.diff(ends[:, [0, 2]], axis=0) < 0).all()
    assert (np.diff(ends[:, [1, 3, 4]], axis=0) > 0).all()


@given(st.integers(1, 8), st.integers(20, 120), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 1000))
def test_simultaneous_intervals_hold_the_share_at_once(k, n, share, seed):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=(n, k)) @ rng.normal(size=(k, k)))
    values[:, 0] = np.where(rng.random(n) < 0.95, 0.0, values[:, 0])  # nearly always at its limit
    low, high = simultaneous(values, share)
    inside = ((values >= low - 1e-12) & (values <= high + 1e-12)).all(1).mean()
    assert inside >= share - 1e-12
    middle = np.quantile(values, [0.5 * (1 - share), 0.5 * (1 + share)], axis=0)
    assert (low <= middle[0] + 1e-12).all()
    assert (high >= middle[1] - 1e-12).all()


def test_a_source_that_is_rarely_used_does_not_stretch_the_others():
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(0.5, 0.05, 400), np.where(np.arange(400) % 25 == 0, 0.3, 0.0)])
    low, high = simultaneous(values, 0.9)
    assert high[0] - low[0] < 1.5 * (np.quantile(values[:, 0], 0.95) - np.quantile(values[:, 0], 0.05))


def prior_bound() -> Fit:
    """A fit to so few and so noisy runs that its priors have much to say."""
    rng = np.random.default_rng(3)
    h = rng.dirichlet(np.ones(3), 14)
    losses = np.stack([2.5 - 0.8 * h[:, i] ** 0.5 for i in range(3)], 1) * np.exp(
        0.01 * rng.normal(size=(14, 3))
    )
    runs = Runs(
        sources=("a", "b", "c"),
        domains=("a", "b", "c"),
        n_params=None,
        n_tokens=None,
        weights=h,
        losses=losses,
    )
    return lawkit.fit(runs, law="transfer-plain", holdout="none")


def test_intervals_are_widened_by_what_the_priors_do_to_the_fits_own_losses():
    fit = prior_bound()
    u = optimize_mixture(fit, draws=100).uncertainty
    assert u is not None
    predicted = replace(fit.runs, losses=fit.losses(None, None, fit.runs.weights))
    again = lawkit.fit(predicted, law="transfer-plain", holdout="none")
    moved = optimize_mixture(again).weights
    chosen = optimize_mixture(fit).weights
    plain = replace(fit)
    plain.__dict__["echo"] = plain.z
    without = optimize_mixture(plain, draws=100).uncertainty
    assert without is not None
    assert max(abs(v) for v in u.pull.values()) > 1e-3
    for source, pull in u.pull.items():
        assert pull == pytest.approx(moved[source] - chosen[source], abs=2e-4)
        assert without.pull[source] == 0
        for mine, other in ((u.weights, without.weights), (u.weights_marginal, without.weights_marginal)):
            assert mine[source][0] == pytest.approx(max(other[source][0] - abs(pull), 0), abs=1e-9)
            assert mine[source][1] == pytest.approx(other[source][1] + abs(pull), abs=1e-9)


def test_other_runs_move_parameters_as_a_bootstrap_does():
    fit = lawkit.fit(two_runs(60, 0.02), law="exponential", holdout="none", bootstrap=400)
    assert fit.draws is not None
    moves, replicates = resampled(fit, 2000), fit.draws.z
    ends = np.quantile(replicates, [0.16, 0.84], axis=0)
    np.testing.assert_allclose(moves.std(0)[:, :2], (0.5 * (ends[1] - ends[0]))[:, :2], rtol=0.25)


def test_errors_that_runs_and_domains_share_widen_the_intervals():
    """Ten checkpoints of each run, and both domains, with one error: a fit that takes them for many is too sure."""
    rng = np.random.default_rng(1)
    h = np.repeat(rng.uniform(0.05, 0.95, 24), 10)
    mixtures = np.column_stack([h, 1 - h])
    # An error that favours a where it is positive, so that it moves the optimum though both domains have it.
    error = np.repeat(rng.normal(size=24), 10)[:, None] * np.array([0.02, -0.02])
    apart = 0.02 * rng.normal(size=(240, 2))
    width = {}
    for name, noise in (("shared", error), ("apart", apart)):
        runs = Runs(
            sources=("a", "b"), domains=("x", "y"), n_params=None, n_tokens=np.tile(np.geomspace(1e9, 1e10, 10), 24),
            weights=mixtures, losses=(1 + np.exp(-SLOPES * mixtures)) * np.exp(noise),
            run_id=np.repeat([f"run{i}" for i in range(24)], 10),
        )  # fmt: skip
        fit = lawkit.fit(runs, law="exponential", holdout="none")
        u = optimize_mixture(fit, draws=200).uncertainty
        assert u is not None
        low, high = u.weights["a"]
        assert low < TRUTH < high
        width[name] = (high - low) / np.ptp(np.quantile(u.optima[:, 0], [0.05, 0.95]))
    assert width["apart"] == pytest.approx(1, abs=0.35)
    assert width["shared"] > 2


def test_runs_that_cannot_be_fitted_again_leave_the_draws_alone():
    fit = spread(random_fit("exponential-scale", 4, 2, 0), 0.1)  # two made-up runs
    found = optimize_mixture(fit, **SCALE, draws=100)
    u = found.uncertainty
    assert u is not None
    assert any(
        "intervals hold the draws only; how other fits would differ: 2 losses" in w for w in found.warnings
    )
    assert u.pull == dict.fromkeys(fit.sources, 0.0)
    low, high = simultaneous(np.where(u.optima < 1e-6, 0.0, u.optima), 0.9)
    chosen = np.array(list(found.weights.values()))
    np.testing.assert_allclose([v[0] for v in u.weights.values()], np.clip(low, 0, chosen), atol=2e-6)
    np.testing.assert_allclose([v[1] for v in u.weights.values()], np.clip(high, chosen, 1), atol=2e-6)


def test_laws_without_priors_are_not_pulled():
    fit = lawkit.fit(two_runs(30, 0.01), law="exponential", holdout="none")
    assert fit.echo is fit.z
    u = optimize_mixture(fit, draws=20).uncertainty
    assert u is not None
    assert u.pull == {"a": 0.0, "b": 0.0}


# ---- other mixtures ------------------------------------------------------------------------------------


def test_an_equal_baseline_is_worse_half_the_time_and_a_bad_one_always():
    fit = lawkit.fit(two_runs(40, 0.01), law="exponential", holdout="none")
    chosen = optimize_mixture(fit)
    found = optimize_mixture(fit, draws=300, baseline=chosen.weights)
    assert found.uncertainty is not None
    same = found.uncertainty.against["baseline"]
    assert same.probability_worse == 0.5
    assert same.difference == (0, 0, 0)
    assert found.baselines["baseline"] == same.objective == pytest.approx(found.objective, abs=1e-12)
    bad = optimize_mixture(fit, draws=300, baseline={"a": 1}).uncertainty
    assert bad is not None
    assert bad.against["baseline"].probability_worse == 1
    assert bad.against["baseline"].difference[0] > 0.2
    assert set(bad.against) == {"uniform", "best_recorded", "baseline"}


def test_a_baseline_beyond_the_optimum_is_worse_in_the_draws_that_say_so():
    """The limit keeps the mixture on one side; the baseline as far on the other side is better half the time."""
    fit = lawkit.fit(two_runs(40, 0.02), law="exponential", holdout="none")
    best = optimize_mixture(fit).weights["a"]
    limit, other = best - 0.02, best + 0.0204
    found = optimize_mixture(fit, draws=400, bounds={"a": (0, limit)}, baseline=weights(fit, other), seed=3)
    assert found.uncertainty is not None
    against = found.uncertainty.against["baseline"]
    z = fit.draw(400, 3)
    both = np.array([[limit, 1 - limit], [other, 1 - other]])
    losses = fit.estimate.losses_at(z, fit.estimate.inputs(both)).mean(2)
    difference = losses[:, 1] - losses[:, 0]
    assert against.probability_worse == pytest.approx((difference > 0).mean(), abs=1e-12)
    assert 0.3 < against.probability_worse < 0.7
    assert against.difference == pytest.approx(np.quantile(difference, [0.05, 0.5, 0.95]), abs=1e-12)
    assert found.baselines["baseline"] == against.objective


def test_regret_is_what_the_point_optimum_costs_each_draw():
    fit = lawkit.fit(two_runs(40, 0.02), law="exponential", holdout="none")
    found = optimize_mixture(fit, draws=200)
    u = found.uncertainty
    assert u is not None
    z = fit.draw(200)
    at = fit.estimate.inputs(np.array([list(found.weights.values())]))
    point = fit.estimate.losses_at(z, at).mean(2)[:, 0]
    own = np.array(
        [
            fit.estimate.losses_at(one[None], fit.estimate.inputs(h[None])).mean()
            for one, h in zip(z, u.optima, strict=True)
        ]
    )
    assert u.regret_mean == pytest.approx((point - own).mean(), abs=1e-10)
    assert u.regret_upper == pytest.approx(np.quantile(point - own, 0.9), abs=1e-10)
    assert u.objective == pytest.approx(np.quantile(point, [0.05, 0.95]), abs=1e-12)
    assert 0 < u.regret_mean < u.regret_upper < 1e-3


def test_a_baseline_may_break_the_limits_of_the_mixture():
    fit = lawkit.fit(two_runs(30, 0.01), law="exponential", holdout="none")
    found = optimize_mixture(fit, bounds={"a": (0, 0.2)}, baseline=weights(fit, TRUTH))
    assert found.baselines["baseline"] < found.objective
    assert found.uncertainty is None


# ---- how many draws, and what is printed ---------------------------------------------------------------


def test_draws_are_those_of_the_posterior_where_there_is_one():
    fit = lawkit.fit(two_runs(30, 0.01), law="exponential", holdout="none")
    assert optimize_mixture(fit).uncertainty is None
    asked = optimize_mixture(fit, draws=50).uncertainty
    assert asked is not None
    assert (asked.kind, len(asked.optima)) == ("normal", 50)
    sampled = with_draws(fit, fit.draw(300, 7))
    given = optimize_mixture(sampled).uncertainty
    assert given is not None
    assert (given.kind, len(given.optima)) == ("laplace", 200)
    few = optimize_mixture(with_draws(fit, fit.draw(80, 7)), draws=500).uncertainty
    assert few is not None
    assert len(few.optima) == 80
    assert optimize_mixture(sampled, draws=0).uncertainty is None


def test_results_with_draws_repeat_to_the_bit():
    fit = lawkit.fit(two_runs(30, 0.01), law="exponential", holdout="none")
    once, twice, other = (optimize_mixture(fit, draws=50, seed=s).to_dict() for s in (1, 1, 2))
    assert once == twice
    assert once["weights_interval"] != other["weights_interval"]
    assert once["weights"] == other["weights"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": -1}, "draws must be 0 or a whole number of at least 20, got -1"),
        ({"draws": 5}, "got 5: fewer give no interval"),
        ({"draws": 100.5}, "got 100.5"),
        ({"draws": True}, "got True"),
        ({"interval": 1}, "interval must lie between 0 and 1, got 1"),
        ({"interval": 90}, "interval must lie between 0 and 1, got 90"),
        ({"baseline": {"web": 1}}, "baseline names an unknown source 'web'; the fit knows a, b"),
        ({"baseline": {"a": 0.7, "b": 0.7}}, "the weights of baseline sum to 1.4: they must sum to 1"),
        ({"baseline": {"a": 1.5, "b": -0.5}}, r"baseline\['a'\] must be a fraction from 0 to 1, got 1.5"),
        ({"baseline": {"a": "half"}}, "must be a number"),
    ],
)
def test_impossible_requests_are_explained(arguments, message):
    fit = lawkit.fit(two_runs(30, 0.01), law="exponential", holdout="none")
    with pytest.raises(OptimizeError, match=message):
        optimize_mixture(fit, **arguments)


@pytest.fixture
def folder(tmp_path):
    fit = spread(make_fit("capacity", PUBLISHED, names(7), names(7), (500, 1300), (10, 30)), 0.02)
    fit.save(tmp_path / "fit")
    return str(tmp_path / "fit")


def test_json_has_the_intervals(folder, capsys):
    command = ["optimize-mixture", folder, "--n-params", "1300", "--n-tokens", "30", "--json"]
    assert main([*command, "--draws", "40", "--interval", ".8", "--baseline", "s0=.5,s1=.5"]) == 0
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert out["interval"] == 0.8
    assert out["draws"] == {"kind": "normal", "used": 40, "left_out": 0}
    for key in ("weights_interval", "weights_interval_marginal", "pull"):
        assert list(out[key]) == list(out["weights"])
    for source, (low, high) in out["weights_interval"].items():
        assert low <= out["weights"][source] <= high
    assert out["objective_interval"][0] < out["objective"] < out["objective_interval"][1]
    assert 0 <= out["regret"]["mean"] <= out["regret"]["upper"]
    assert set(out["baselines"]) == set(out["against"]) == {"uniform", "best_recorded", "baseline"}
    for name, other in out["against"].items():
        assert other["objective"] == pytest.approx(out["baselines"][name], rel=1e-12)
        assert other["probability_worse"] == 1
        assert 0 < other["difference"][0] <= other["difference"][1] <= other["difference"][2]
    assert main([*command, "--draws", "0", "--baseline", "s0=.5,s1=.5"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert "weights_interval" not in out
    assert "against" not in out
    assert out["baselines"]["baseline"] > out["objective"]


def test_the_table_has_the_intervals(folder, capsys):
    command = ["optimize-mixture", folder, "--n-params", "1300", "--n-tokens", "30"]
    assert main([*command, "--draws", "40", "--baseline", "s0=.5,s1=.5"]) == 0
    out = capsys.readouterr().out
    assert "90% interval" in out
    row = next(line for line in out.splitlines() if line.startswith("s3"))
    weight, low, high = (float(row.split()[i]) for i in (1, 2, 4))
    assert low < weight < high
    assert "at the baseline" in out
    assert "worse with probability 1" in out
    assert "40 draws of a normal around the fit" in out
    assert main(command) == 0
    assert "interval" not in capsys.readouterr().out
