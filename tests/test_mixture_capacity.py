"""The capacity law's mixtures: the optimum is global, and its bound is a bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_mixture import PUBLISHED, make_fit, names

from lawkit.mixture._capacity_bound import Prices, lower_bounds
from lawkit.mixture._form import Scale
from lawkit.mixture.capacity import CapacityForm
from lawkit.mixture.infeasible import proven_empty
from lawkit.mixture.objective import Objective
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.solve import Solution, solve
from lawkit.mixture.target import Target


def parameters(seed: int, K: int, noise: bool = True) -> dict[str, Any]:
    """Random ones, like those published."""
    rng = np.random.default_rng(seed)
    b = rng.uniform(0.2, 1.5, K)
    out = {"b": b, "c": rng.uniform(0.5, 2, K) * 100**b, "E": rng.uniform(1, 2, K), "H": 5.0}
    return out | ({"A": rng.uniform(0.5, 2, K), "a": rng.uniform(0.2, 1, K)} if noise else {})


def solved(values: dict[str, Any], n_params: float, **limits: Any) -> tuple[Solution, Target, MixtureProblem]:
    K = len(values["b"])
    law = "capacity" if "A" in values else "capacity-plain"
    at = Target(make_fit(law, values, names(K), names(K), (500, 1300), (10, 30)), n_params, 30.0)
    problem = MixtureProblem.build(names(K), names(K), n_tokens=30.0, **limits).raised(at.floor)
    return solve(at, problem), at, problem


def slow_loss(values: dict[str, Any], n_params: float, h: np.ndarray) -> float:
    """The law's mean loss by bisection, from its definition."""
    b, c, H = values["b"], values["c"], values["H"]
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        x = np.maximum(H, (h * b * c / np.exp(middle)) ** (1 / (b + 1)))
        low, high = (middle, high) if x.sum() > n_params + (len(b) - 1) * H else (low, middle)
    noise = values.get("A", 0.0) * (30.0 * h) ** -values.get("a", 1.0)
    return float(np.mean(c * x**-b + noise + values["E"]))


# ---- the form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_params", [7.0, 40.0, 1300.0])
def test_the_form_is_the_law_with_its_derivatives(n_params: float) -> None:
    values = parameters(0, 6)
    at = Target(make_fit("capacity", values, names(6), names(6), (500, 1300), (10, 30)), n_params, 30.0)
    form = CapacityForm(values, at.scale, 6)
    h = np.random.default_rng(1).dirichlet(np.ones(6)) * 0.9 + 0.1 / 6
    for ours, law in zip(form.losses(h), at.fit.weights_derivatives(n_params, 30.0, h), strict=True):
        np.testing.assert_allclose(ours, law, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rounding", [0.3, 1e-2])
def test_rounded_corners_have_exact_derivatives(rounding: float) -> None:
    form = CapacityForm(parameters(0, 5), Scale(n_params=12.0, n_tokens=30.0), 5)
    h, step = np.array([0.4, 0.3, 0.2, 0.07, 0.03]), 1e-6
    _, slope, curve = form.losses(h, rounding)
    for j in range(5):
        up, down = (form.losses(h + s * step * h[j] * np.eye(5)[j], rounding) for s in (1, -1))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step * h[j]), slope[:, j], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            (up[1] - down[1]) / (2 * step * h[j]), curve[:, :, j], rtol=1e-5, atol=1e-5
        )


# ---- the bound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_any_prices_give_a_bound_over_any_box(seed: int) -> None:
    """Against many points of the box, by the law itself; prices of sums of either sign."""
    rng = np.random.default_rng(seed)
    K = 4
    form = CapacityForm(
        parameters(seed, K), Scale(n_params=float(rng.choice([7, 30, 1300])), n_tokens=30.0), K
    )
    draws = np.maximum(rng.dirichlet(rng.choice([0.3, 1, 4], K), 3000), 1e-4)
    draws /= draws.sum(1, keepdims=True)
    inner = [form.inner(np.log(h)) for h in draws]
    m = np.array([x.m for x in inner])
    losses = np.array([
        form.c * np.exp(-form.b * x.u) + form.noise * h**-form.a for x, h in zip(inner, draws, strict=True)
    ])  # fmt: skip
    tightest = np.inf
    for _ in range(60):
        weights = rng.dirichlet(np.ones(K)) * (rng.random(K) < 0.8)
        p, q = rng.normal() * rng.choice([0.1, 1, 10]), abs(rng.normal()) * rng.choice([0.0, 1e-3, 1e-2])
        mu = rng.normal(size=K) * rng.choice([0, 0.1, 1])
        s = np.log(np.sort(draws[rng.integers(len(draws), size=2)], axis=0))
        ends = np.sort(rng.choice(m, 2))
        prices = Prices(weights, np.full(K, p), q, mu, -p)
        bound = float(lower_bounds(form, prices, s[0], s[1], ends[:1], ends[1:]).bound[0])
        inside = (
            (draws >= np.exp(s[0])).all(1) & (draws <= np.exp(s[1])).all(1) & (m >= ends[0]) & (m <= ends[1])
        )
        least = float((losses[inside] @ weights).min(initial=np.inf))
        assert bound <= least + 1e-12
        tightest = min(tightest, least - bound)
    assert np.isfinite(tightest)


def test_a_bound_at_one_mixture_is_its_loss() -> None:
    form = CapacityForm(parameters(3, 5), Scale(n_params=60.0, n_tokens=30.0), 5)
    h = np.array([0.4, 0.3, 0.2, 0.07, 0.03])
    weights, s, m = np.full(5, 0.2), np.log(h), np.array([form.inner(np.log(h)).m])
    prices = Prices(weights, np.full(5, -0.7), 0.01, np.zeros(5), 0.7 + float(weights @ form.E))
    found = lower_bounds(form, prices, s, s, m, m)
    assert found.bound[0] == pytest.approx(float(weights @ form.losses(h)[0]), abs=1e-9)


def test_an_empty_box_is_proven_empty_under_limits_on_sums() -> None:
    limits = {"g": {"sources": ["s0", "s1"], "upper": 0.3}}
    box = {"s0": (0.25, 1), "s1": (0.04, 1), "s2": (0.1, 1)}
    fits = MixtureProblem.build(names(3), names(3), groups=limits, bounds=box).polytope
    assert not proven_empty(fits)
    lower = fits.lower.copy()
    lower[1] = 0.06
    assert proven_empty(type(fits)(lower, fits.upper, fits.rows, fits.most, fits.equal, fits.equal_to))


# ---- the optimum -------------------------------------------------------------------------------------------------

LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "caps": {"bounds": {"s0": (0, 0.3), "s1": (0, 0.15)}},
    "lower": {"bounds": {"s1": (0.3, 1), "s2": (0, 0.2)}},
    "group": {"groups": {"g": {"sources": ["s0", "s1"], "upper": 0.4}}},
    "one domain": {"target": {"s2": 1.0}, "bounds": {"s2": (0, 0.5)}},
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize(("n_params", "noise"), [(7.0, True), (30.0, True), (1300.0, True), (400.0, False)])
def test_three_sources_against_a_fine_grid(n_params: float, noise: bool, limits: str) -> None:
    values = parameters(5, 3, noise)
    found, at, problem = solved(values, n_params, **LIMITS[limits])
    assert found.certificate == "global"
    assert 0 <= found.gap < 1e-6
    side = np.linspace(1e-4, 1, 160)
    first, second = (g.ravel() for g in np.meshgrid(side, side))
    grid = np.column_stack([first, second, 1 - first - second])
    grid = grid[[problem.polytope.contains(h, 1e-12) for h in grid]]
    least = float((at.losses(grid) @ problem.target).min())
    assert found.lower_bound is not None
    assert found.lower_bound <= least
    assert found.objective <= least
    if limits != "one domain":
        assert found.objective == pytest.approx(slow_loss(values, n_params, found.h), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_caps_that_leave_weights_unwanted_are_proven(seed: int) -> None:
    """Where sources that capacity is best spent on are capped, others would rather have none: not convex."""
    values = parameters(seed, 6)
    order = np.argsort(values["b"])
    caps = {f"s{i}": (0.0, 0.05) for i in order[:3]}
    found, at, problem = solved(values, 1300.0, bounds=caps)
    assert found.certificate == "global"
    assert found.gap < 1e-6
    draws = np.random.default_rng(seed).dirichlet(np.ones(6), 20_000)
    draws = draws[(draws <= problem.upper).all(1) & (draws >= problem.lower).all(1)]
    assert len(draws) > 10
    assert found.lower_bound is not None
    assert float((at.losses(draws) @ problem.target).min()) >= found.lower_bound


def test_a_source_just_at_its_floor_is_found() -> None:
    """A corner of the loss: more weight would take capacity away, less would add noise."""
    values = parameters(2, 4)
    values["c"] = values["c"] * [1, 1, 0.0046, 1]
    values["A"] = np.array([0.5, 0.5, 6.0, 0.5])
    found, at, _ = solved(values, 30.0)
    form = CapacityForm(values, at.scale, 4)
    s = np.log(found.h)
    over = (s + form.offset - form.inner(s).m) / (form.b + 1) - form.log_floor
    assert abs(over[2]) < 1e-6
    assert found.certificate == "global"
    assert found.gap < 1e-6


def test_divergence_ceilings_and_the_worst_domain_have_a_bound_that_holds() -> None:
    prior = dict(zip(names(7), [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2], strict=True))
    free, at, _ = solved(PUBLISHED_ARRAYS, 1300.0)
    own = at.losses(free.h[None])[0]
    cases: dict[str, dict[str, Any]] = {
        "divergence": {"prior": prior, "max_kl": 0.1},
        "ceiling": {"max_loss": {"s0": float(own[0] - 0.005)}},
        "worst": {"over": "max"},
    }
    for name, limits in cases.items():
        found, at, problem = solved(PUBLISHED_ARRAYS, 1300.0, **limits)
        judge = Objective(at, problem)
        assert found.lower_bound is not None
        assert found.lower_bound <= found.objective + 1e-12
        if problem.over[0] == "mean":
            assert found.certificate == "global", name
            assert found.objective >= free.objective - 1e-9
            assert judge.constraints(found.h)[0].max() <= 1e-9
        draws = np.maximum(np.random.default_rng(0).dirichlet(40 * found.h, 300), 1e-4)
        for h in draws / draws.sum(1, keepdims=True):
            if not judge.constrained or judge.constraints(h)[0].max() <= 0:
                assert judge.exact(h)[0] >= found.lower_bound


PUBLISHED_ARRAYS = {k: np.asarray(v, float) if isinstance(v, list) else v for k, v in PUBLISHED.items()}
