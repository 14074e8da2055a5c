"""optimize_mixture on the zoo's laws: optimal, certified, within limits, and its prices true."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from lawkit import laws, optimize_mixture
from lawkit.errors import OptimizeError
from lawkit.fitting import Fit, fit
from lawkit.fitting.estimate import Estimate
from lawkit.laws.formula import FormulaLaw
from lawkit.mixture import optimize, prices
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.solve import Solution
from lawkit.mixture.target import Target
from lawkit.runs import Runs

# Published parameters of the capacity law at N = 1300 and D = 30 (arXiv:2606.08167), and its best loss there.
PUBLISHED = {
    "b": [1.2931, 0.2504, 0.7759, 4.2533, 0.8209, 2.1420, 0.9245],
    "c": [6.1217, 3.3571, 7.8612, 7.3098, 2.3083, 3.8489, 2.3059],
    "A": [0.3931, 0.4080, 0.7319, 1.2868, 0.7130, 2.0230, 0.8802],
    "a": [0.9685, 1.6999, 0.3088, 0.0827, 1.0596, 0.0777, 0.5132],
    "E": [0.9448, 0.8770, 0.5612, 1e-9, 2.4074, 0.0001, 1.3406],
    "H": 4.877181,
}
SCALE: dict[str, Any] = {"n_params": 3e9, "n_tokens": 1e12}


def make_fit(law, parameters, sources, domains, n_params=(1e8, 1e9), n_tokens=(2e9, 2e10)):
    """A fit with given natural parameters, over two made-up runs."""
    law = laws.get(law) if isinstance(law, str) else law
    n_ref, d_ref = (float(np.exp(np.log(x).mean())) for x in (n_params, n_tokens))
    groups = [parameters] if law.coupled else [parameters[d] for d in domains]
    z = np.array([law.unconstrained(p, n_ref, d_ref) for p in groups])
    K, E, (G, P) = len(sources), len(domains), z.shape
    runs = Runs(
        sources=tuple(sources),
        domains=tuple(domains),
        n_params=np.array(n_params, float),
        n_tokens=np.array(n_tokens, float),
        weights=np.random.default_rng(0).dirichlet(np.ones(K), size=2),
        losses=np.ones((2, E)),
    )
    estimate = Estimate(
        law=law,
        objective=law.objective,
        domains=tuple(domains),
        own=np.array([sources.index(d) if d in sources else -1 for d in domains]),
        recorded=frozenset({"n_params", "n_tokens"}),
        n_ref=n_ref,
        d_ref=d_ref,
        z=z,
        covariance=np.zeros((G, P, P)),
        noise=np.full(E, 0.01),
        cost=np.zeros(G),
        starts_at_optimum=np.ones(G),
        hessian=np.zeros((G, P, P)),
    )
    errors: dict[str, float | None] = {"mre": 0.0, "mae": 0.0, "rmse": 0.0}
    return Fit(runs=runs, estimate=estimate, train=errors, domain_train=dict.fromkeys(domains, errors))


def names(K, letter="s"):
    return [f"{letter}{i}" for i in range(K)]


def random_parameters(law, K, rng):
    """Natural parameters of one domain."""
    chinchilla = {"A": 400.0, "B": 1000.0, "alpha": 0.35, "beta": 0.37}
    if law.startswith("transfer"):
        out = {"E": rng.uniform(0.5, 1.5), "gamma": 0.6, "alpha": 0.4, "beta": rng.uniform(0.3, 0.6)}
        out |= {w: np.exp(rng.normal(0, 1.5, K)) for w in "qk"}
        if law != "transfer-linear":
            out["g"] = rng.uniform(0.4, 0.95)
        if law == "transfer":
            out |= {"delta": rng.uniform(0.3, 1.0), "r": np.exp(rng.normal(2, 1.5, K))}
            out |= {w: np.exp(rng.normal()) for w in ("q0", "k0", "r0")}
        return out
    return {
        "exponential": {"c": 2.0, "k": rng.uniform(0.5, 2), "t": rng.normal(0, 2, K)},
        "exponential-scale": {"E": 1.0, **chinchilla, **{f"t_{x}": rng.normal(0, 1, K) for x in "EAB"}},
        "additive": {"E": 1.0, **chinchilla, "C": rng.uniform(0.2, 5, K), "gamma": rng.uniform(0.1, 0.95, K)},
        "linear": {"w": rng.uniform(2, 4, K)},
    }[law]


def random_fit(law, K, E, seed):
    rng = np.random.default_rng(seed)
    return make_fit(law, {d: random_parameters(law, K, rng) for d in names(E, "d")}, names(K), names(E, "d"))


def published_fit():
    return make_fit("capacity", PUBLISHED, names(7), names(7), (500, 1300), (10, 30))


def objective(fit, weights, n_params, n_tokens):
    return float(fit.losses(n_params, n_tokens, np.atleast_2d(weights)).mean())


TRANSFER = ("transfer", "transfer-plain", "transfer-linear")
CONVEX = (*TRANSFER, "exponential", "exponential-scale", "additive", "linear")
LIMITS: dict[str, Any] = {
    "none": {},
    "bounds": {"bounds": {"s0": (0.2, 1), "s1": (0, 0.1), "s2": (0.05, 0.3), "s3": (0, 0.15)}},
    "availability": {
        "bounds": {"s4": (0.3, None)},
        "available": {"s0": 5e9, "s2": 1e10, "s5": 2e10},
        "max_epochs": 2,
    },
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("law", CONVEX)
@pytest.mark.parametrize("seed", [0, 1])
def test_optimum_is_feasible_certified_and_stationary(law, limits, seed):
    fit = random_fit(law, 6, 4, seed)
    result = optimize_mixture(fit, **SCALE, **LIMITS[limits])
    h = np.array(list(result.weights.values()))
    assert result.certificate == "global"
    assert 0 <= result.optimality_gap < 1e-8
    assert result.lower_bound == pytest.approx(result.objective, abs=1e-8)
    assert abs(h.sum() - 1) < 1e-12
    low, high = np.zeros(6), np.ones(6)
    for source, (lower, upper) in LIMITS[limits].get("bounds", {}).items():
        low[int(source[1:])], high[int(source[1:])] = lower, 1 if upper is None else upper
    for source, tokens in LIMITS[limits].get("available", {}).items():
        high[int(source[1:])] = 2 * tokens / SCALE["n_tokens"]
    assert np.all(h >= low)
    assert np.all(h <= high)
    # KKT: slopes agree between the limits, are higher on a lower limit and lower on an upper one.
    slope = fit.weights_derivatives(SCALE["n_params"], SCALE["n_tokens"], h)[1].mean(axis=0)
    inside = (h > low + 1e-6) & (h < high - 1e-6)
    if inside.any():
        common = slope[inside].mean()
        assert np.ptp(slope[inside]) < 1e-5
        assert np.all(slope[h >= high] <= common + 1e-5)
        assert np.all(slope[(h <= low)] >= common - 1e-5)
    assert result.objective == pytest.approx(objective(fit, h, **SCALE), abs=1e-13)
    assert result.unconstrained_objective is not None
    assert result.unconstrained_objective <= result.objective + 1e-9


@pytest.mark.parametrize("law", CONVEX)
def test_no_multi_start_finds_better(law):
    fit = random_fit(law, 5, 3, 7)
    bounds = {"s0": (0.1, 0.3), "s1": (0, 0.2)}
    result = optimize_mixture(fit, **SCALE, bounds=bounds)
    box = [bounds.get(s, (0, 1)) for s in names(5)]
    best = np.inf
    for start in np.random.default_rng(0).dirichlet(np.ones(5), size=12):
        found = minimize(
            lambda h: objective(fit, np.maximum(h, 1e-12), **SCALE),
            start,
            method="SLSQP",
            bounds=box,
            constraints={"type": "eq", "fun": lambda h: h.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 300},
        )
        if abs(found.x.sum() - 1) < 1e-9:
            best = min(best, found.fun)
    assert result.objective <= best + 1e-8
    assert best <= result.objective + 1e-3  # the search is no straw man


def test_capacity_law_on_its_authors_parameters():
    result = optimize_mixture(published_fit(), n_params=1300, n_tokens=30)
    assert result.objective == pytest.approx(1.5803065, abs=1e-7)
    assert result.optimality_gap < 1e-8
    assert result.certificate == "global"


@pytest.mark.parametrize(
    "bounds",
    [{"s1": (0.3, 1)}, {"s0": (0, 0.05), "s6": (0.3, 1)}, {"s2": (0.4, 0.5), "s1": (0, 0.05)}],
)
def test_capacity_law_with_limits_is_proven(bounds):
    fit = published_fit()
    result = optimize_mixture(fit, n_params=1300, n_tokens=30, bounds=bounds)
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    assert set(bounds) == set(result.shadow_prices)
    rng = np.random.default_rng(0)
    feasible = []
    for h in rng.dirichlet(np.ones(7) * 3, size=20000):
        if all(low <= h[int(s[1:])] <= high for s, (low, high) in bounds.items()):
            feasible.append(h)
    assert feasible
    losses = fit.losses(1300, 30, np.array(feasible)).mean(axis=1)
    assert losses.min() >= result.objective


@pytest.mark.parametrize("scale", [(122e6, 10e9), (7e9, 1e12), (70e9, 15e12)])
def test_transfer_law_from_small_to_large(scale):
    fit = random_fit("transfer", 7, 8, 3)
    result = optimize_mixture(fit, n_params=scale[0], n_tokens=scale[1])
    assert result.optimality_gap < 1e-8


def test_laws_with_held_parameters_are_read_by_the_conic_forms():
    fit = random_fit("exponential-scale", 4, 2, 0)
    whole = optimize_mixture(fit, **SCALE)
    held = laws.get("exponential-scale").with_fixed(alpha=0.35, A=400.0)
    parameters = {d: {k: v for k, v in p.items() if k not in held.fixed} for d, p in fit.parameters.items()}
    result = optimize_mixture(make_fit(held, parameters, names(4), names(2, "d")), **SCALE)
    assert result.objective == pytest.approx(whole.objective, abs=1e-9)
    assert result.certificate == "global"
    assert not any("conic solver failed" in w for w in result.warnings)


def test_hundred_sources():
    fit = random_fit("transfer", 100, 8, 0)
    result = optimize_mixture(fit, **SCALE, bounds={"s0": (0.1, 1), "s1": (0, 0.001)})
    assert result.optimality_gap < 1e-6
    assert result.certificate == "global"


def test_a_worthless_source_gets_almost_nothing_and_stays_certified():
    fit = random_fit("transfer", 4, 2, 0)
    parameters = fit.parameters
    for p in parameters.values():
        p["q"][0] = p["k"][0] = p["r"][0] = 1e-5
    result = optimize_mixture(make_fit("transfer", parameters, names(4), names(2, "d")), **SCALE)
    assert result.weights["s0"] < 1e-6
    assert result.optimality_gap < 1e-8


# ---- prices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["transfer", "exponential-scale", "additive", "capacity"])
def test_prices_are_what_moving_a_limit_changes(law):
    fit = published_fit() if law == "capacity" else random_fit(law, 6, 4, 2)
    scale: dict[str, Any] = {"n_params": 1300.0, "n_tokens": 30.0} if law == "capacity" else SCALE
    free = optimize_mixture(fit, **scale).weights
    ranked = sorted(free, key=lambda s: free[s])
    low, high, scarce = ranked[0], ranked[-1], ranked[-2]
    limits = {low: free[low] + 0.05, high: free[high] - 0.05}
    tokens = (free[scarce] - 0.03) * scale["n_tokens"] / 4

    def at(change):
        return optimize_mixture(
            fit,
            **scale,
            bounds={
                low: (limits[low] + change.get(low, 0), 1),
                high: (0, limits[high] + change.get(high, 0)),
            },
            available={scarce: tokens + change.get(scarce, 0)},
        )

    result = at({})
    assert set(result.shadow_prices) == {low, high, scarce}
    assert result.active_constraints == tuple(sorted(result.active_constraints, key=lambda c: int(c[1])))
    for source, sign in ((low, 1), (high, -1)):
        price = result.shadow_prices[source]
        step = 1e-3
        measured = (at({source: step}).objective - at({source: -step}).objective) / (2 * step)
        assert price == pytest.approx(measured, rel=0.02)
        assert price * sign > 0
    step = 0.01 * tokens
    measured = (at({scarce: step}).objective - at({scarce: -step}).objective) / (2 * step)
    assert result.prices_per_billion_tokens[scarce] == pytest.approx(measured * 1e9, rel=0.02)
    assert result.shadow_prices[scarce] == pytest.approx(measured * scale["n_tokens"] / 4, rel=0.02)


def test_price_of_a_source_that_is_forbidden_is_that_of_its_first_point():
    fit = random_fit("transfer", 4, 3, 1)
    none = optimize_mixture(fit, **SCALE, bounds={"s1": (0, 0)})
    some = optimize_mixture(fit, **SCALE, bounds={"s1": (0, 0.01)})
    assert none.weights["s1"] == 0
    assert none.shadow_prices["s1"] == pytest.approx((some.objective - none.objective) / 0.01, rel=1e-6)
    assert none.active_constraints == ("s1 <= 0",)


def test_limits_are_priced_by_moving_them_the_way_they_can_move():
    """A quadratic objective over two weights, with slopes that say nothing: 1e9 at every limit."""
    center = np.array([0.1, 0.9])

    def best(limits: MixtureProblem) -> float:
        x = np.clip(
            center[0], max(limits.lower[0], 1 - limits.upper[1]), min(limits.upper[0], 1 - limits.lower[1])
        )
        return float((x - center[0]) ** 2)

    for bounds, floor, h, source, kind in (
        ({"a": (0.3, 1)}, 0.0, [0.3, 0.7], "a", "lower"),
        ({"b": (None, 0.7)}, 0.0, [0.3, 0.7], "b", "upper"),
        ({}, 0.2, [0.2, 0.8], "a", "law"),
    ):
        limits = MixtureProblem.build("ab", "e", bounds=bounds).raised(floor)
        slope = np.where(np.array(["a", "b"]) == source, 1e9, 0.0)
        at = Solution(np.array(h), best(limits), slope, 0.0, "global", None)
        (found,) = prices.active(limits, at, lambda p: best(p.raised(floor)))  # noqa: B023
        assert (found.name, found.kind) == (source, kind)
        sign = -1 if kind == "upper" else 1
        assert found.price == pytest.approx(sign * 2 * (h[0] - center[0]), abs=0.011)
    tight = MixtureProblem.build("ab", "e", bounds={"a": (0.2, 0.2)})
    at = Solution(np.array([0.2, 0.8]), 0.01, np.array([1e9, 0.0]), 0.0, "global", None)
    (fixed, *_) = prices.active(tight, at, best)
    assert (fixed.kind, str(fixed)) == ("fixed", "a = 0.2")


def test_an_answer_stands_when_there_is_none_without_limits_to_compare_with(monkeypatch):
    fit = random_fit("transfer", 3, 2, 0)
    whole = optimize_mixture(fit, **SCALE, bounds={"s0": (0.4, 1)})
    real = optimize.solve_risk

    def only_limited(at, problem, *rest):
        if not problem.limited:
            raise OptimizeError("no gap closed")
        return real(at, problem, *rest)

    monkeypatch.setattr(optimize, "solve_risk", only_limited)
    result = optimize_mixture(fit, **SCALE, bounds={"s0": (0.4, 1)})
    assert result.weights == whole.weights
    assert result.unconstrained_weights is None
    assert result.to_dict()["unconstrained"] == {"weights": None, "objective": None}
    assert any("compare with: no gap closed" in w for w in result.warnings)


def test_limits_leave_nothing_to_choose():
    fit = random_fit("transfer", 3, 2, 0)
    result = optimize_mixture(fit, **SCALE, bounds={"s0": (0.5, 0.5), "s1": (0.3, 1), "s2": (0.2, 1)})
    assert result.weights == {"s0": 0.5, "s1": 0.3, "s2": 0.2}
    assert result.optimality_gap < 1e-15


# ---- targets, warnings, output -------------------------------------------------------------------------


def test_target_weights_choose_the_domains():
    fit = random_fit("transfer", 5, 3, 4)
    both = optimize_mixture(fit, **SCALE, target={"d0": 2, "d2": 6})
    v = both.predicted
    assert both.objective == pytest.approx(0.25 * v["d0"] + 0.75 * v["d2"], abs=1e-12)
    alone = optimize_mixture(fit, **SCALE, target={"d0": 1})
    assert alone.predicted["d0"] <= v["d0"]
    assert set(alone.predicted) == {"d0", "d1", "d2"}


def test_a_law_not_known_to_be_convex_says_local():
    sources = ["web", "hq"]
    law = FormulaLaw("E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta", sources)
    values = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 400.0, "beta": 0.28, "k": 3.0}
    fit = make_fit(law, {"d0": values}, sources, ["d0"])
    result = optimize_mixture(fit, **SCALE, bounds={"hq": (0, 0.5)})
    assert result.certificate == "local"
    assert result.lower_bound is None
    assert result.weights == {"web": 0.5, "hq": 0.5}
    assert any("local" in w for w in result.warnings)


def test_local_search_escapes_a_worse_minimum():
    sources = ["a", "b"]
    law = FormulaLaw("E + C*(w_a*w_b + p)/(w_a + q)", sources)
    fit = make_fit(law, {"d0": {"E": 1.0, "C": 1.0, "p": 0.05, "q": 0.4}}, sources, ["d0"])
    result = optimize_mixture(fit, **SCALE)
    grid = np.linspace(0, 1, 2001)
    losses = fit.losses(SCALE["n_params"], SCALE["n_tokens"], np.column_stack([grid, 1 - grid]))[:, 0]
    assert result.objective <= losses.min() + 1e-9


def test_warnings_say_how_far_the_plan_is_from_the_data():
    fit = random_fit("transfer", 3, 2, 0)
    big = optimize_mixture(fit, n_params=7e9, n_tokens=2e10)
    assert any("n_params 7e+09 is 7x the largest run" in w for w in big.warnings)
    assert not any("n_tokens" in w for w in big.warnings)
    small = optimize_mixture(fit, n_params=5e8, n_tokens=1e9)
    assert any("n_tokens 1e+09 is below the data" in w for w in small.warnings)
    edge = optimize_mixture(fit, n_params=5e8, n_tokens=1e10, bounds={"s1": (0.95, 1)})
    assert any("weight of s1, 0.950, is above the largest in the runs" in w for w in edge.warnings)


def test_json_object_is_the_contract():
    result = optimize_mixture(random_fit("transfer", 4, 2, 0), **SCALE, bounds={"s0": (0.4, 1)})
    out = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {
        "weights", "objective", "predicted", "optimality_gap", "certificate", "active_constraints",
        "shadow_prices", "unconstrained",
    } <= set(out)  # fmt: skip
    assert set(out["unconstrained"]) == {"weights", "objective"}
    assert out["active_constraints"] == ["s0 >= 0.4"]
    assert out["baselines"]["uniform"] > out["unconstrained"]["objective"]


def test_results_repeat_to_the_bit():
    fit = random_fit("transfer", 6, 3, 0)
    assert optimize_mixture(fit, **SCALE).to_dict() == optimize_mixture(fit, **SCALE).to_dict()


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": {"s00": (0, 0.5)}}, r"unknown source 's00'; did you mean 's\d'"),
        ({"target": {"d00": 1}}, "unknown domain 'd00'; did you mean"),
        ({"available": {"web": 1e9}}, "unknown source 'web'"),
        ({"bounds": {"s0": (0, 50)}}, "for 50% write 0.5"),
        ({"bounds": {"s0": (-0.1, 0.5)}}, "fractions from 0 to 1, got -0.1"),
        ({"bounds": {"s0": (0.6, 0.5)}}, "lower bound 0.6 is above the upper bound 0.5"),
        ({"bounds": {"s0": 0.5}}, r"must be a pair \(lower, upper\), got 0.5"),
        ({"bounds": {"s0": (0, float("nan"))}}, "finite number"),
        ({"bounds": {"s0": (0, "half")}}, "must be a number"),
        (
            {"bounds": {"s0": (0.7, 1), "s1": (0.6, 1)}},
            r"add up to 1.3, more than 1.*by 0.3 of .*lower s0's limit to 0.4; or",
        ),
        (
            {"bounds": dict.fromkeys(("s0", "s1", "s2"), (0, 0.2))},
            r"add up to 0.6, less than 1.*by 0.4 of the mixture\): raise s\d's limit to 0.6; or raise s\d",
        ),
        (
            {"bounds": {"s0": (0.5, 1)}, "available": {"s0": 1e10}},
            "s0 >= 0.5, s0 <= 0.04 .* find 1.15e\\+11 more",
        ),
        ({"available": {"s0": 1e9, "s1": 1e9, "s2": 1e9}}, "more unique tokens of s"),
        ({"available": {"s0": -1}}, "0 or more"),
        ({"available": {"s0": 1e9}, "max_epochs": 0}, "max_epochs must be above 0"),
        ({"target": {"d0": -1}}, "0 or more, got -1"),
        ({"target": {"d0": 0}}, "gives no domain a positive weight"),
        ({"n_params": -1}, "n_params must be a positive finite number, got -1"),
        ({"n_params": "7B"}, "n_params must be a positive finite number, got '7B'; in Python write 7e9"),
        ({"n_params": [7e9, 1e9]}, "n_params must be a positive finite number"),
        ({"n_tokens": float("nan")}, "n_tokens must be a positive finite number"),
        ({"n_params": None}, "n_params of the run to plan is missing"),
    ],
)
def test_impossible_requests_are_explained(arguments, message):
    with pytest.raises(OptimizeError, match=message):
        optimize_mixture(random_fit("transfer", 3, 2, 0), **{**SCALE, **arguments})


def test_law_without_weights_is_refused():
    parameters = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}
    fit = make_fit("chinchilla", {"d0": parameters}, [], ["d0"])
    with pytest.raises(OptimizeError, match="chinchilla does not depend on mixture weights"):
        optimize_mixture(fit, **SCALE)


def test_fit_with_a_parameter_that_is_not_a_number_is_refused():
    fit = random_fit("transfer", 3, 2, 0)
    fit.estimate.z[1, 0] = np.nan
    with pytest.raises(OptimizeError, match="no finite loss at this scale for d1"):
        optimize_mixture(fit, **SCALE)


def test_capacity_law_refuses_a_model_below_its_floor_and_a_forbidden_source():
    with pytest.raises(OptimizeError, match="under the floor"):
        optimize_mixture(published_fit(), n_params=4, n_tokens=30)
    with pytest.raises(OptimizeError, match=r"at least 0.0001 of every source"):
        optimize_mixture(published_fit(), n_params=1300, n_tokens=30, bounds={"s0": (0, 0)})


def test_target_gradient_is_that_of_its_objective():
    fit = random_fit("transfer", 4, 3, 0)
    evaluate = Target(fit, SCALE["n_params"], SCALE["n_tokens"]).derivatives(np.array([0.2, 0.0, 0.8]))
    h, step = np.array([0.1, 0.2, 0.3, 0.4]), 1e-6
    for j, e in enumerate(np.eye(4)):
        ahead, behind = evaluate(h + step * e), evaluate(h - step * e)
        assert evaluate(h)[1][j] == pytest.approx((ahead[0] - behind[0]) / (2 * step), rel=1e-6)
        measured = (ahead[1] - behind[1]) / (2 * step)
        np.testing.assert_allclose(evaluate(h)[2][j], measured, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"s0": (1.0, 1.0)}, {"s0": 1.0}),
        ({"s0": (0.5, None), "s1": (0.5, None)}, {"s0": 0.5, "s1": 0.5}),
        ({"s0": (0, 0.3), "s1": (0, 0.3), "s2": (0, 0.4)}, {"s0": 0.3, "s1": 0.3, "s2": 0.4}),
    ],
)
def test_limits_that_leave_one_mixture_give_that_mixture(bounds, expected):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 20)
    runs = Runs(
        sources=("s0", "s1", "s2"), domains=("x",), n_params=None, n_tokens=None, weights=weights,
        losses=3 + np.exp(-weights @ [1.0, 2.0, 0.5])[:, None],
    )  # fmt: skip
    fitted = fit(runs, law="transfer-linear", holdout="none")
    best = optimize_mixture(fitted, bounds=bounds)
    assert {k: v for k, v in best.weights.items() if v > 0} == pytest.approx(expected)
    assert best.optimality_gap == 0
    with pytest.raises(OptimizeError, match="too narrow"):
        optimize_mixture(fitted, bounds={"s0": (0.99999999, None)})
