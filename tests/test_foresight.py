"""Simulated regret: against closed forms, its truths, its refits, and what proposals report of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_design import simulated

import lawkit
from lawkit.design import foresight
from lawkit.design._goals import Goals
from lawkit.design.candidates import Candidates
from lawkit.design.foresight import Foresight
from lawkit.design.value import Posterior, Slopes
from lawkit.errors import OptimizeError
from lawkit.fitting import Fit
from lawkit.fitting.estimate import estimate
from lawkit.runs import Runs

NAMES = ("web", "code", "math")
GOAL: dict[str, Any] = {"n_params": 1e9, "n_tokens": 3e10}
COLUMNS = ("n_params", "n_tokens", "weights")


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer truths show what hundreds do."""
    monkeypatch.setattr(foresight, "MOST", 96)


def table(n: int, seed: int, noise: float = 0.0) -> Runs:
    """Runs whose log losses are linear in the weights."""
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3), n)
    losses = np.exp(h @ [[0.70, 0.90], [0.71, 0.80], [0.80, 0.62]] + noise * rng.normal(size=(n, 2)))
    return Runs(
        sources=NAMES, domains=("a", "b"), n_params=np.full(n, 1e8), n_tokens=np.full(n, 1e9), weights=h, losses=losses
    )  # fmt: skip


def pool_of(runs: Runs) -> Candidates:
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    return Candidates(
        n_params=runs.n_params, n_tokens=runs.n_tokens, weights=runs.weights, flops=np.ones(len(runs))
    )


def goals_of(fit: Fit, choices: np.ndarray | None, target: dict[str, float] | None = None) -> Goals:
    among = None
    if choices is not None:
        among = replace(table(len(choices), 0), weights=choices, losses=np.full((len(choices), 2), np.nan))
    return Goals.build(fit, {**GOAL, "bounds": None, "target": target}, (), None, 4.0, among, 1, 0)


def within(values: np.ndarray, expected: float, sigmas: float = 4.0) -> bool:
    return abs(values.mean() - expected) < sigmas * values.std() / np.sqrt(len(values))


# ---- closed forms ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear() -> Fit:
    """Linear in log losses and fitted by least squares, so that its posterior is the normal with its covariance."""
    formula = "exp(p*w_web + q*w_code + r*w_math)"
    return lawkit.fit(table(9, 3, noise=0.02), formula=formula, delta=10.0, holdout="none")


@pytest.mark.parametrize("work", [2e6, 1.0], ids=["refits", "expansion"])
def test_two_mixtures_under_a_linear_law_have_a_closed_form(
    linear: Fit, work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.stats import norm

    monkeypatch.setattr(foresight, "WORK", work)
    monkeypatch.setattr(foresight, "MOST", 4096)
    monkeypatch.setattr(foresight, "LEAST", 4096)
    choices = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    goals, new = goals_of(linear, choices, {"a": 1.0}), pool_of(table(4, 9))
    ahead = Foresight(linear, goals.of[0], seed=5)
    after = ahead.after(new)

    def lost(sd: float) -> float:
        """Mean of how far a normal difference of losses falls under zero."""
        return sd * norm.pdf(gap / sd) - gap * norm.cdf(-gap / sd)

    losses = goals.first.at.losses(choices)[:, 0]
    gap = float(np.ptp(losses))
    slope = (losses[0] * choices[0] - losses[1] * choices[1])[None]  # of the difference, in the parameters
    posterior, slopes = Posterior.of(linear), Slopes(linear, new)
    sd = [float(np.sqrt(slope @ posterior.covariance[0] @ slope.T).item())]
    for c in range(4):
        posterior = posterior.observed(slopes.at(c))
    sd.append(float(np.sqrt(slope @ posterior.covariance[0] @ slope.T).item()))
    assert sd[1] < 0.9 * sd[0]
    assert within(ahead.before, lost(sd[0]))
    # What is learned of the difference is normal too: its variance is what the posterior has lost.
    assert within(ahead.before - after, lost(float(np.sqrt(sd[0] ** 2 - sd[1] ** 2))))


def test_truths_of_a_linear_law_are_draws_of_its_posterior(
    linear: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "MOST", 4096)
    monkeypatch.setattr(foresight, "LEAST", 4096)
    monkeypatch.setattr(foresight, "WORK", 1e9)
    z = Foresight(linear, goals_of(linear, np.eye(3)).of[0], seed=1).z
    for g in range(2):
        np.testing.assert_allclose(z[:, g].mean(0), linear.z[g], atol=0.08 * z[:, g].std(0).max())
        root = np.linalg.inv(np.linalg.cholesky(linear.covariance[g]))
        np.testing.assert_allclose(root @ np.cov(z[:, g].T) @ root.T, np.eye(3), atol=0.1)


# ---- a law that is not linear ------------------------------------------------------------------------------


def curved(n: int = 14, seed: int = 0, noise: float = 4e-3) -> Runs:
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    capacity = ((0.15 + np.eye(3)[:2, None]) * h**0.6).sum(2) ** (1 / 0.6)
    losses = 1.5 + ((n_params / 1e8 * capacity) ** -0.3 + (n_tokens / 3e9) ** -0.35) ** 0.7
    return Runs(
        sources=NAMES, domains=NAMES[:2], n_params=n_params, n_tokens=n_tokens, weights=h,
        losses=losses.T * np.exp(noise * rng.normal(size=(n, 2))),
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit() -> Fit:
    return lawkit.fit(curved(), law="transfer-plain", holdout="none", starts=1)


NEW = replace(curved(4, seed=9), n_params=np.full(4, 4e8))


@pytest.mark.parametrize("work", [2e6, 1.0], ids=["refits", "resampled"])
def test_truths_agree_with_the_runs_where_draws_of_a_normal_do_not(
    fit: Fit, work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresight, "WORK", work)
    ahead = Foresight(fit, goals_of(fit, None).of[0])
    runs = fit.runs
    assert runs.n_tokens is not None
    x, noise = fit.estimate.inputs(runs.weights, runs.n_params, runs.n_tokens), fit.noise_at(runs.n_tokens)

    def missed(z: np.ndarray) -> float:
        off = np.log(fit.estimate.losses_at(z, x) / runs.losses) / noise
        return float(np.median((off**2).mean((1, 2))))

    assert missed(ahead.z) < 2
    assert missed(ahead.z) < 0.5 * missed(fit.draw(256, 0))


def test_refits_are_those_of_a_fit_to_all_runs(fit: Fit) -> None:
    goals, new = goals_of(fit, curved(30, seed=5).weights), pool_of(NEW)
    ahead = Foresight(fit, goals.of[0])
    losses, goal = ahead.outcomes(new), goals.first
    assert goal.choice is not None
    among = goal.choice.among
    assert among is not None
    after, same = ahead.after(new), []
    for s in range(12):
        fresh = replace(NEW, losses=losses[s])
        joint: dict[str, Any] = {
            c: np.concatenate([getattr(fit.runs, c), getattr(fresh, c)]) for c in (*COLUMNS, "losses")
        }
        runs = Runs(sources=NAMES, domains=fit.domains, **joint)
        again = replace(fit, estimate=estimate(runs, fit.law, fit.law.objective, warm=fit.z)[0])
        pick = (again.losses(GOAL["n_params"], GOAL["n_tokens"], among) @ goal.target).argmin()
        truth = goal.at.with_parameters(ahead.z[s]).losses(among) @ goal.target
        same.append(abs(truth[pick] - truth.min() - after[s]) < 1e-4)
    assert np.mean(same) >= 0.9


def test_more_runs_leave_less_regret_and_seeds_repeat(fit: Fit) -> None:
    for choices in (None, curved(30, seed=5).weights):
        goals = goals_of(fit, choices)
        first, again, other = (Foresight(fit, goals.of[0], seed) for seed in (1, 1, 2))
        few, many = pool_of(NEW), pool_of(replace(curved(24, seed=9), n_params=np.full(24, 4e8)))
        after = first.after(few)
        np.testing.assert_array_equal(after, again.after(few))
        assert (first.before != other.before).any()
        saved = [first.before - after, first.before - first.after(many)]
        assert saved[1].mean() > 3 * saved[1].std() / np.sqrt(len(after)) > 0
        assert saved[1].mean() > saved[0].mean()
        assert (first.before >= 0).all()
        assert (after >= 0).all()
        np.testing.assert_array_equal(first.after(few.select(np.zeros(0, int))), first.before)


def test_a_target_counts_by_its_share_and_one_without_choice_not_at_all(fit: Fit) -> None:
    goal = goals_of(fit, None).first
    alone = Foresight(fit, [goal])
    third = replace(goal, share=1 / 3)
    both = Foresight(fit, [goal, replace(goal, choice=None), third])
    np.testing.assert_allclose(both.before, alone.before * 4 / 3)


def test_draws_of_the_fit_are_its_truths() -> None:
    f = lawkit.fit(curved(24), law="transfer-plain", holdout="none", starts=1, posterior="laplace")
    assert f.draws is not None
    goals = goals_of(f, np.eye(3) * 0.7 + 0.1)
    ahead = Foresight(f, goals.of[0])
    assert all((f.draws.z == z).all((1, 2)).any() for z in ahead.z[:20])
    # The noise of a new run is the draws' own, heavy tails and all.
    clean = f.estimate.losses_at(ahead.z, f.estimate.inputs(NEW.weights, NEW.n_params, NEW.n_tokens))
    shock = np.log(ahead.outcomes(pool_of(NEW)) / clean)
    assert np.median(np.abs(shock)) == pytest.approx(0.7 * np.median(f.draws.noise), rel=0.3)
    broken = replace(f, draws=replace(f.draws, z=np.full_like(f.draws.z, np.nan)))
    with pytest.raises(OptimizeError, match="no finite loss at the target under 96 of 96"):
        Foresight(broken, goals.of[0])


@pytest.mark.parametrize("law", ["transfer-average", "capacity", "exponential-scale"])
def test_averages_coupled_laws_and_laws_without_priors(law: str) -> None:
    f = lawkit.fit(simulated(), law=law, holdout="none", starts=1)
    goals = Goals.build(f, {**GOAL, "bounds": None, "target": None}, (), None, 4.0, None, 1, 0)
    ahead = Foresight(f, goals.of[0])
    after = ahead.after(pool_of(NEW))
    assert np.isfinite(after).all()
    assert 0 < after.mean() < 1.5 * ahead.before.mean() < 0.1


# ---- what proposals say ------------------------------------------------------------------------------------


def test_proposals_report_the_simulated_regret(fit: Fit) -> None:
    rows = replace(curved(12, seed=3), losses=np.full((12, 2), np.nan))
    found = lawkit.propose_runs(fit, **GOAL, budget=1e20, n=3, candidates=rows, seed=4)
    goals = goals_of(fit, None)
    ahead = Foresight(fit, goals.of[0], seed=4)
    new = found.to_runs()
    after = ahead.after(pool_of(new))
    path = [found.expected_regret_now, *(r.regret_after for r in found.runs)]
    assert path[0] == pytest.approx(ahead.before.mean())
    assert path[-1] == pytest.approx(after.mean())
    assert found.regret_errors is not None
    error = (ahead.before - after).std(ddof=1) / np.sqrt(len(after))
    assert found.regret_errors["saved"] == pytest.approx(error)
    own = [found.criterion_now, *(r.criterion_after for r in found.runs)]
    np.testing.assert_allclose(np.diff(path) / (path[-1] - path[0]), np.diff(own) / (own[-1] - own[0]))  # type: ignore[arg-type, operator]
    told = found.to_dict()
    assert told["regret_errors"] == found.regret_errors
    assert told["stopped"] == "n: 3 runs"


def test_a_choice_that_only_large_errors_move_is_told(fit: Fit) -> None:
    f = lawkit.fit(curved(40), law="linear", holdout="none")  # its best mixture is a corner
    found = lawkit.propose_runs(f, **GOAL, budget=1e18)
    assert found.criterion_now == pytest.approx(0, abs=1e-12)
    if found.expected_regret_now and found.expected_regret_now > 1e-4:
        assert any("which this criterion cannot see" in w for w in found.warnings)
