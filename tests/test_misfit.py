"""What the law's own error may cost: against closed forms, between lists and the simplex, and under another law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import lawkit
from lawkit.design import misfit
from lawkit.design._criterion import Goal
from lawkit.design._goals import Goals
from lawkit.design.misfit import misfit_regret, unexplained
from lawkit.design.value import Posterior
from lawkit.fitting import Fit
from lawkit.runs import Runs

NAMES = ("web", "code", "math")
GOAL: dict[str, Any] = {"n_params": 4e8, "n_tokens": 3e10}


def truth(n_params: Any, n_tokens: Any, h: np.ndarray) -> np.ndarray:
    """(n, 2) losses that exponentials of the mixture make, which transfer laws do not."""
    lends = np.array([[1.2, 0.2, 0.5], [0.3, 1.3, 0.2]])
    size, data = (np.asarray(n_params) / 1e8) ** -0.3, (np.asarray(n_tokens) / 3e9) ** -0.35
    return np.array(
        [1.2 * np.exp(h @ (0.3 - a) / 2) + 0.4 * size * np.exp(h @ a) + 0.4 * data * np.exp(1 - h @ a) for a in lends]
    ).T  # fmt: skip


def runs_of(n: int, seed: int, noise: float = 2e-3, law: Any = truth) -> Runs:
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    losses = law(n_params, n_tokens, h)
    return Runs(
        sources=NAMES, domains=("a", "b"), n_params=n_params, n_tokens=n_tokens, weights=h,
        losses=losses * np.exp(noise * rng.normal(size=losses.shape)),
    )  # fmt: skip


def linear(n_params: Any, n_tokens: Any, h: np.ndarray) -> np.ndarray:
    return np.exp(h @ np.array([[0.70, 0.90], [0.71, 0.80], [0.80, 0.62]]))


def fitted(runs: Runs, law: str = "transfer-plain") -> Fit:
    return lawkit.fit(runs, law=law, holdout="none", starts=1)


def goals_of(fit: Fit, among: np.ndarray | None = None, **also: Any) -> Goals:
    choices = None
    if among is not None:
        choices = replace(runs_of(len(among), 0), weights=among, losses=np.full((len(among), 2), np.nan))
    return Goals.build(fit, {**GOAL, "bounds": None, "target": None, **also}, (), None, 4.0, choices, 1, 0)


def cost(goals: Sequence[Goal], seed: int = 0) -> float:
    found = misfit_regret(goals, seed)
    assert found is not None
    return found


def chosen(goals: Goals) -> np.ndarray:
    """(K,) the mixture."""
    assert goals.first.h is not None
    return goals.first.h


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fitted(runs_of(30, 1))


def test_two_mixtures_have_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfit, "TILTS", 40_000)
    fit = fitted(runs_of(30, 0, 0.02, linear), "linear")
    pair = np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]])
    goals = goals_of(fit, pair)
    first, second = np.sort(goals.first.at.losses(pair).mean(1))
    apart = fit.runs.weights - fit.runs.weights.mean(0)
    per_weight = unexplained(fit, 0.5 * goals.first.at.losses(chosen(goals)[None])[0]) / np.sqrt(
        (apart**2).sum(1).mean()
    )
    sd, gap, normal = per_weight * np.linalg.norm(pair[0] - pair[1]), second - first, NormalDist()
    expected = sd * normal.pdf(gap / sd) - gap * normal.cdf(-gap / sd)
    assert cost(goals.of[0]) == pytest.approx(expected, rel=0.05)


def test_what_is_unexplained_is_the_noise_and_goes_together_as_the_residuals_do() -> None:
    runs = runs_of(30, 0, 0.01, linear)
    fit = fitted(runs, "linear")
    assert unexplained(fit, np.array([1.0, 0.0])) == pytest.approx(fit.noise[0])
    alone = fit.noise / np.sqrt(2)
    assert unexplained(fit, np.full(2, 0.5)) == pytest.approx(np.linalg.norm(alone / np.sqrt(2)), rel=0.4)
    twice = fitted(replace(runs, losses=runs.losses[:, [0, 0]]), "linear")
    assert unexplained(twice, np.full(2, 0.5)) == pytest.approx(twice.noise[0])


def test_missing_losses_count_as_explained(fit: Fit) -> None:
    losses = fit.runs.losses.copy()
    losses[::3, 1] = np.nan
    some = fitted(replace(fit.runs, losses=losses))
    assert unexplained(some, np.array([0.0, 1.0])) == pytest.approx(some.noise[1])
    assert np.isfinite(cost(goals_of(some).of[0]))


def test_the_simplex_is_a_fine_list(fit: Fit) -> None:
    grid = np.array([(i, j, 60 - i - j) for i in range(61) for j in range(61 - i)]) / 60
    assert cost(goals_of(fit).of[0]) == pytest.approx(
        cost(goals_of(fit, grid[(grid > 0).all(1)]).of[0]), rel=0.05
    )


def test_runs_of_one_mixture_tell_nothing(fit: Fit) -> None:
    runs = replace(fit.runs, weights=np.tile([0.5, 0.3, 0.2], (len(fit.runs), 1)))
    assert misfit_regret(goals_of(fitted(runs)).of[0]) is None


def test_limits_shares_and_seeds(fit: Fit) -> None:
    everything = goals_of(fit)
    whole = cost(everything.of[0])
    assert whole > 0
    assert cost(everything.of[0]) == whole
    assert cost(everything.of[0], 1) != whole
    assert cost([replace(everything.first, share=0.5)] * 2) == pytest.approx(whole)
    near = {s: (w - 0.01, w + 0.01) for s, w in zip(NAMES, chosen(everything), strict=True)}
    narrow = cost(goals_of(fit, bounds=near).of[0])
    assert 0 <= narrow < 0.3 * whole
    one = goals_of(fit, bounds={"web": (0.5, 0.5), "code": (0.3, 0.3)})
    assert cost(one.of[0]) == 0.0


@pytest.mark.parametrize("law", ["transfer-average", "capacity-plain", "exponential-scale"])
def test_averages_coupled_laws_and_laws_without_priors(law: str) -> None:
    runs = runs_of(40, 2)
    runs = replace(runs, domains=NAMES, losses=runs.losses[:, [0, 1, 0]])  # a coupled law needs all sources
    assert 0 < cost(goals_of(fitted(runs, law)).of[0]) < 1


def test_where_the_law_is_wrong_it_is_nearer_to_what_is_given_away() -> None:
    told = []
    for seed in range(8):
        fit = fitted(runs_of(30, seed))
        goals = goals_of(fit)
        goal, h = goals.first, chosen(goals)
        assert goal.choice is not None
        grid = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
        now, least = truth(**GOAL, h=h[None]).mean(), truth(**GOAL, h=grid).mean(1).min()
        told.append((max(now - least, 0.0), Posterior.of(fit).trace(goal.choice.factor), cost([goal])))
    given, right, wrong = np.mean(told, 0)
    assert given > 5 * right
    assert right + wrong > given / 5


def test_proposals_report_it(fit: Fit) -> None:
    found = lawkit.propose_runs(fit, **GOAL, budget=1e20, n=1)
    assert found.to_dict()["regret_misfit"] == cost(goals_of(fit).of[0])
    fixed = lawkit.propose_runs(
        fit, **GOAL, budget=1e20, n=1, method="variance", bounds={"web": (0.5, 0.5), "code": (0.3, 0.3)}
    )
    assert fixed.regret_misfit is None
