"""Limits beyond bounds on single sources: kept, certified, priced, and named where they contradict each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from test_mixture import SCALE, make_fit, names, published_fit, random_fit, random_parameters

from lawkit import optimize_mixture
from lawkit.errors import OptimizeError
from lawkit.mixture import problem as problem_module
from lawkit.mixture.constraints import merged, read_constraints
from lawkit.mixture.infeasible import InfeasibleError, refuse_infeasible
from lawkit.mixture.prices import shifted
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.solve import solve
from lawkit.mixture.target import Target

N, T = SCALE["n_params"], SCALE["n_tokens"]


def losses(fit, h):
    return fit.losses(N, T, np.atleast_2d(h))[0]


def weights_of(result):
    return np.array(list(result.weights.values()))


#: One case a kind of limit, each of which binds on the fit of `case_fit`.
def case_fit(law="transfer"):
    return random_fit(law, 6, 4, 2)


def case(kind: str, fit: Any, by: float = 0.0) -> tuple[dict[str, Any], str, float]:
    """Constraints of which the named one binds, its name, and its limit, moved by `by` of itself."""
    free = optimize_mixture(fit, **SCALE)
    ranked = sorted(free.weights, key=lambda s: free.weights[s])
    few, most = ranked[0], ranked[-1]
    if kind == "lower":
        limit = (free.weights[few] + 0.1) * (1 + by)
        return {"bounds": {few: {"lower": limit}}}, few, limit
    if kind == "upper":
        limit = 0.6 * free.weights[most] * (1 + by)
        return {"bounds": {most: {"upper": limit}}}, most, limit
    if kind == "availability":
        limit = 0.15 * free.weights[most] * T * (1 + by)
        return {"available": {most: limit}}, most, limit
    if kind == "cap":
        limit = 0.8 * (1 + by)
        prior = {**dict.fromkeys(fit.sources, 0.02), most: 0.9}
        if prior[most] * limit >= free.weights[most]:
            prior = dict.fromkeys(fit.sources, 1 / 6)
        return {"prior": prior, "max_ratio": {most: limit}}, most, limit
    if kind in ("group", "group-lower"):
        pair = ranked[-2:] if kind == "group" else ranked[:2]
        total = sum(free.weights[s] for s in pair)
        limit = (0.7 * total if kind == "group" else total + 0.1) * (1 + by)
        return (
            {"groups": {"pair": {"sources": pair, "upper" if kind == "group" else "lower": limit}}},
            "pair",
            limit,
        )
    if kind == "generation":
        cost = {ranked[-1]: 2e9, ranked[-2]: 1e9}
        limit = 0.6 * sum(c * free.weights[s] for s, c in cost.items()) * T * (1 + by)
        return {"generation": {"cost": cost, "budget": limit}}, "generation", limit
    if kind == "divergence":
        limit = 0.05 * (1 + by)
        return {"prior": dict.fromkeys(fit.sources, 1 / 6), "max_kl": limit}, "divergence", limit
    assert kind == "loss"
    domain = max(fit.domains, key=lambda d: free.predicted[d])
    alone = optimize_mixture(fit, **SCALE, target={domain: 1}).predicted[domain]
    limit = 0.5 * (alone + free.predicted[domain]) * (1 + by)
    return {"max_loss": {domain: limit}}, f"loss_{domain}", limit


KINDS = ("lower", "upper", "availability", "cap", "group", "group-lower", "generation", "divergence", "loss")


@pytest.mark.parametrize("law", ["transfer", "additive", "exponential-scale"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_kept_certified_and_priced(kind: str, law: str) -> None:
    """The price is within 2% of what moving the limit changes, in the limit's own unit."""
    fit = case_fit(law)
    constraints, name, limit = case(kind, fit)
    result = optimize_mixture(fit, **SCALE, constraints=constraints)
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    assert name in result.shadow_prices, result.active
    (found,) = (a for a in result.active if a.name == name)
    step = 2e-5 if kind == "loss" else 2e-3  # a loss has little room
    up, down = (
        optimize_mixture(fit, **SCALE, constraints=case(kind, fit, s)[0]).objective for s in (step, -step)
    )
    measured = (up - down) / (2 * step * limit)
    if found.unit is None:
        assert found.price == pytest.approx(measured, rel=0.02)
    else:
        per = {"1B tokens": 1e9, "1e18 flops": 1e18, "1 x prior": 1.0}[found.unit]
        assert found.price_per_unit == pytest.approx(measured * per, rel=0.02)
    assert (found.price > 0) == (kind in ("lower", "group-lower"))


def test_several_limits_at_once_are_all_priced() -> None:
    fit = random_fit("transfer", 8, 5, 4)
    h = np.full(8, 1 / 8)
    base = dict(zip(fit.domains, losses(fit, h), strict=True))
    constraints: dict[str, Any] = {
        "bounds": {"s0": {"lower": 0.2}},
        "groups": {
            "a": {"sources": ["s1", "s2", "s3"], "upper": 0.3},
            "b": {"sources": ["s3", "s4"], "lower": 0.3},
        },
        "prior": dict(zip(fit.sources, h, strict=True)),
        "max_kl": 0.15,
        "max_loss": {"d0": float(base["d0"])},
    }
    result = optimize_mixture(fit, **SCALE, constraints=constraints)
    w = weights_of(result)
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-8
    assert w[1:4].sum() <= 0.3 + 1e-12
    assert w[3:5].sum() >= 0.3 - 1e-12
    assert w @ np.log(w / h) <= 0.15 + 1e-12
    assert result.predicted["d0"] <= base["d0"] + 1e-12
    step = 1e-3
    for name in set(result.shadow_prices) & {"s0", "a", "b", "divergence"}:
        ends = []
        for sign in (1, -1):
            moved = {k: dict(v) if isinstance(v, dict) else v for k, v in constraints.items()}
            if name == "s0":
                moved["bounds"] = {"s0": {"lower": 0.2 + sign * step}}
            elif name == "divergence":
                moved["max_kl"] = 0.15 + sign * step
            else:
                side = "upper" if name == "a" else "lower"
                moved["groups"][name] = {**moved["groups"][name], side: 0.3 + sign * step}
            ends.append(optimize_mixture(fit, **SCALE, constraints=moved).objective)
        assert result.shadow_prices[name] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02)


def test_slsqp_finds_nothing_better_under_all_limits() -> None:
    fit = random_fit("additive", 5, 3, 1)
    prior = np.array([0.4, 0.2, 0.2, 0.1, 0.1])
    constraints = {
        "groups": {"g": {"sources": ["s0", "s2"], "upper": 0.5}},
        "prior": dict(zip(fit.sources, prior.tolist(), strict=True)),
        "max_kl": 0.1,
    }
    result = optimize_mixture(fit, **SCALE, constraints=constraints)
    best = np.inf
    for start in np.random.default_rng(0).dirichlet(prior * 40, size=6):
        found = minimize(
            lambda h: losses(fit, np.maximum(h, 1e-12)).mean(), start, method="SLSQP", bounds=[(1e-9, 1)] * 5,
            constraints=[
                {"type": "eq", "fun": lambda h: h.sum() - 1},
                {"type": "ineq", "fun": lambda h: 0.5 - h[0] - h[2]},
                {"type": "ineq", "fun": lambda h: 0.1 - np.maximum(h, 1e-12) @ np.log(np.maximum(h, 1e-12) / prior)},
            ],
            options={"ftol": 1e-13, "maxiter": 300},
        )  # fmt: skip
        if found.success:
            best = min(best, found.fun)
    assert np.isfinite(best)
    assert result.objective <= best + 1e-8


def test_a_group_held_at_one_value_is_an_equation() -> None:
    fit = case_fit()
    groups = {"pair": {"sources": ["s0", "s1"], "lower": 0.4, "upper": 0.4}}
    result = optimize_mixture(fit, **SCALE, groups=groups)
    assert weights_of(result)[:2].sum() == pytest.approx(0.4, abs=1e-12)
    assert result.optimality_gap < 1e-8
    # Limits that imply an equation without saying so.
    implied = {
        "pair": {"sources": ["s0", "s1"], "lower": 0.4},
        "rest": {"sources": names(6)[2:], "lower": 0.6},
    }
    again = optimize_mixture(fit, **SCALE, groups=implied)
    assert again.objective == pytest.approx(result.objective, abs=1e-8)
    assert again.certificate == "global"


@pytest.mark.parametrize(
    "more",
    [
        {"over": "max"},
        {"over": "cvar:.5"},
        {"prior": dict.fromkeys(names(6), 1 / 6), "max_kl": 0.2},
        {"max_loss": {"d0": 5.0}},
    ],
)
def test_a_group_held_at_one_value_goes_with_every_smooth_limit(more) -> None:
    fit = case_fit()
    groups = {"pair": {"sources": ["s0", "s1"], "lower": 0.4, "upper": 0.4}}
    result = optimize_mixture(fit, **SCALE, constraints={"groups": groups, **more})
    assert weights_of(result)[:2].sum() == pytest.approx(0.4, abs=1e-12)
    assert result.certificate == "global"


# ---- generation against text that exists --------------------------------------------------------------------


def synthetic_fit():
    """Web and rephrased text: a blend is better than either."""
    rng = np.random.default_rng(0)
    parameters = {d: random_parameters("transfer", 2, rng) for d in names(2, "d")}
    for p in parameters.values():
        p |= {"q": np.array([3.0, 2.0]), "k": np.array([3.0, 2.0]), "r": np.array([8.0, 5.0])}
    return make_fit("transfer", parameters, ["web", "synthetic"], names(2, "d"))


def test_generation_too_dear_leaves_none_and_the_price_says_so() -> None:
    fit = synthetic_fit()
    result = optimize_mixture(
        fit, **SCALE, constraints={"generation": {"cost": {"synthetic": 1e15}, "budget": 0.0}}
    )
    assert result.weights == {"web": 1.0, "synthetic": 0.0}
    assert result.active_constraints == ("generation <= 0 flops",)
    assert result.shadow_prices["generation"] < 0


def test_scarce_natural_text_pushes_generation_up_and_the_price_says_so() -> None:
    fit = synthetic_fit()
    budget = {"generation": {"cost": {"synthetic": 1e9}, "budget": 1e21}}
    plenty = optimize_mixture(fit, **SCALE, constraints=budget)
    scarce = optimize_mixture(fit, **SCALE, constraints={**budget, "available": {"web": 0.05 * T}})
    assert plenty.weights["synthetic"] < scarce.weights["synthetic"] == pytest.approx(0.8)
    assert scarce.prices_per_billion_tokens["web"] < 0
    assert "web" not in plenty.shadow_prices


# ---- the capacity law ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups",
    [
        {"two": {"sources": ["s0", "s2"], "lower": 0.6}},
        {"a": {"sources": ["s1", "s3", "s4"], "upper": 0.2}, "b": {"sources": ["s5", "s6"], "lower": 0.3}},
        {"three": {"sources": ["s0", "s1", "s2"], "lower": 0.5, "upper": 0.5}},
    ],
)
def test_capacity_law_under_limits_on_groups_is_proven_and_priced(groups) -> None:
    fit = published_fit()
    result = optimize_mixture(fit, n_params=1300, n_tokens=30, groups=groups)
    w = weights_of(result)
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-6
    draws = np.random.default_rng(0).dirichlet(np.ones(7), 30000)
    for limit in groups.values():
        index = [int(s[1:]) for s in limit["sources"]]
        low, high = limit.get("lower", 0) - 1e-12, limit.get("upper", 1) + 1e-12
        assert low <= w[index].sum() <= high
        wide = 0.02 if low > 0.49 and high < 0.51 else 0.0  # no draw is on an equation
        total = draws[:, index].sum(1)
        draws = draws[(total >= low - wide) & (total <= high + wide)]
    assert len(draws) > 20
    if "three" not in groups:
        assert fit.losses(1300, 30, draws).mean(1).min() >= result.objective - 1e-9
    for name, price in result.shadow_prices.items():
        side = "lower" if price > 0 else "upper"
        ends = [
            optimize_mixture(
                fit, n_params=1300, n_tokens=30,
                groups={**groups, name: {**groups[name], side: groups[name][side] + step}},
            ).objective
            for step in (1e-3, -1e-3)
            if "three" not in groups
        ]  # fmt: skip
        assert not ends or price == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.02)


# ---- limits that contradict each other ----------------------------------------------------------------------

SETS: list[tuple[dict[str, Any], set[str]]] = [
    ({"bounds": {"a": (0.7, 1), "b": (0.6, 1), "c": (0.1, 1)}}, {"a >= 0.7", "b >= 0.6"}),
    ({"bounds": {"a": (0.5, 1), "b": (0.3, 1), "c": (0.3, 1), "d": (0, 0.9)}}, {"a >= 0.5", "b >= 0.3", "c >= 0.3"}),
    ({"bounds": dict.fromkeys("abcd", (0, 0.2))}, {f"{s} <= 0.2" for s in "abcd"}),
    ({"bounds": {"a": (0.5, 1)}, "available": {"a": 1.0}}, {"a >= 0.5", "a <= 0.4 (available: 1 unique tokens)"}),
    (
        {"groups": {"g": {"sources": ["a", "b"], "upper": 0.2}}, "bounds": {"a": (0.3, 1)}},
        {"g (a + b) <= 0.2", "a >= 0.3"},
    ),
    (
        {"groups": {"g": {"sources": ["a", "b"], "upper": 0.3}}, "bounds": {"c": (0, 0.3), "d": (0, 0.3)}},
        {"g (a + b) <= 0.3", "c <= 0.3", "d <= 0.3"},
    ),
    (
        {"groups": {"g": {"sources": ["a", "b"], "lower": 0.6}, "k": {"sources": ["c", "d"], "lower": 0.5}}},
        {"g (a + b) >= 0.6", "k (c + d) >= 0.5"},
    ),
    (
        {"groups": {"g": {"sources": ["a", "b"], "upper": 0.4}, "k": {"sources": ["c", "d"], "upper": 0.5}}},
        {"g (a + b) <= 0.4", "k (c + d) <= 0.5"},
    ),
    ({"groups": {"all": {"sources": ["a", "b", "c", "d"], "upper": 0.9}}}, {"all (a + b + c + d) <= 0.9"}),
    (
        {"groups": {"out": {"sources": ["a", "b", "c"], "upper": 0.3}, "in": {"sources": ["a", "b"], "lower": 0.5}}},
        {"out (a + b + c) <= 0.3", "in (a + b) >= 0.5"},
    ),
    (
        {"groups": {"x": {"sources": ["a", "b"], "lower": 0.6}, "y": {"sources": ["b", "c"], "lower": 0.6}},
         "bounds": {"b": (0, 0.1)}},
        {"x (a + b) >= 0.6", "y (b + c) >= 0.6", "b <= 0.1"},
    ),
    (
        {"groups": {"x": {"sources": ["a", "b"], "upper": 0.3}, "y": {"sources": ["c", "d"], "upper": 0.3},
                    "z": {"sources": ["a", "d"], "lower": 0.1}}},
        {"x (a + b) <= 0.3", "y (c + d) <= 0.3"},
    ),
    (
        {"prior": {"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}, "max_ratio": 2.0, "bounds": {"d": (0.3, 1)}},
        {"d >= 0.3", "d <= 0.2 (2 times its prior weight)"},
    ),
    (
        {"prior": {"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}, "max_ratio": {"b": 2, "c": 2, "d": 2},
         "bounds": {"a": (0, 0.3)}},
        {"a <= 0.3", "b <= 0.2 (2 times its prior weight)", "c <= 0.2 (2 times its prior weight)",
         "d <= 0.2 (2 times its prior weight)"},
    ),
    (
        {"generation": {"cost": {"c": 1.0, "d": 1.0}, "budget": 1.0}, "bounds": {"c": (0.2, 1)}},
        {"generation <= 1 flops", "c >= 0.2"},
    ),
    (
        {"generation": {"cost": {"c": 1.0, "d": 2.0}, "budget": 2.0}, "available": {"a": 1.0, "b": 0.5}},
        {"generation <= 2 flops", "a <= 0.4 (available: 1 unique tokens)", "b <= 0.2 (available: 0.5 unique tokens)"},
    ),
    ({"available": dict.fromkeys("abcd", 0.5)}, {f"{s} <= 0.2 (available: 0.5 unique tokens)" for s in "abcd"}),
    (
        {"bounds": {"a": (0, 0.1), "b": (0.95, 1)}, "groups": {"g": {"sources": ["c", "d"], "lower": 0.1}}},
        {"b >= 0.95", "g (c + d) >= 0.1"},
    ),
    (
        {"groups": {"x": {"sources": ["a", "b"], "upper": 0.5}, "y": {"sources": ["b", "c"], "upper": 0.2},
                    "z": {"sources": ["c", "d"], "upper": 0.3}}},
        {"x (a + b) <= 0.5", "z (c + d) <= 0.3"},
    ),
    (
        {"groups": {"x": {"sources": ["a", "b"], "upper": 0.3}, "y": {"sources": ["b", "c"], "upper": 0.3},
                    "z": {"sources": ["a", "c"], "upper": 0.3}}, "bounds": {"d": (0, 0.5)}},
        {"x (a + b) <= 0.3", "y (b + c) <= 0.3", "z (a + c) <= 0.3", "d <= 0.5"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "subset"), SETS, ids=range(len(SETS)))
def test_contradictory_limits_are_named_and_the_relaxation_mends_them(limits, subset, monkeypatch) -> None:
    with pytest.raises(InfeasibleError, match="no mixture fits") as caught:
        MixtureProblem.build("abcd", ["x"], n_tokens=10.0, **limits)
    assert set(caught.value.subset) == subset
    moves = caught.value.relaxation
    assert moves
    assert min(moves.values()) > 0
    with monkeypatch.context() as unchecked:
        unchecked.setattr(problem_module, "refuse_infeasible", lambda _: None)
        refused = MixtureProblem.build("abcd", ["x"], n_tokens=10.0, **limits)
    mended = relaxed(refused, moves, 1.0)
    refuse_infeasible(mended)
    fit = random_fit("linear", 4, 1, 0)
    h = solve(Target(fit, *SCALE.values()), mended).h
    assert mended.polytope.contains(h, 1e-9)
    with pytest.raises(InfeasibleError):
        refuse_infeasible(relaxed(refused, moves, 1 - 1e-4))


def relaxed(problem: MixtureProblem, moves: dict[str, float], part: float) -> MixtureProblem:
    """The problem with limits moved by a part of what is said to mend it."""
    for text, by in moves.items():
        limit = next(s for s in problem.limits if str(s) == text)
        problem = shifted(problem, limit, part * (by if limit.sense == "<=" else -by))
    return problem


def test_another_remedy_is_offered_only_where_it_mends_all_limits() -> None:
    """Two contradictions share web's limit: moving either group alone leaves the other."""
    groups = {"A": {"sources": ["web", "hq"], "upper": 0.4}, "B": {"sources": ["web", "qa"], "upper": 0.4}}
    sources = ["web", "hq", "qa", "code"]
    with pytest.raises(InfeasibleError, match=r"lower web's limit to 0\.4$"):
        MixtureProblem.build(sources, ["x"], bounds={"web": (0.5, 1)}, groups=groups)
    with pytest.raises(InfeasibleError, match=r"raise A .*'s limit to 0\.5; or lower web's limit to 0\.4$"):
        MixtureProblem.build(sources, ["x"], bounds={"web": (0.5, 1)}, groups={"A": groups["A"]})


def test_another_remedy_moves_by_what_it_needs_itself() -> None:
    """A unit of the cheaper source takes half a unit of the budget."""
    cost = {"hq": 2e9, "qa": 1e9}
    given: dict[str, Any] = {"bounds": {"qa": (0.5, 1)}, "n_tokens": 1e11}
    with pytest.raises(
        InfeasibleError, match=r"budget of generation to 5e\+19 flops; or lower qa's limit to 0\.3$"
    ):
        MixtureProblem.build(
            ["web", "hq", "qa"], ["x"], generation={"cost": cost, "budget": 3e19}, **given
        )  # fmt: skip
    MixtureProblem.build(
        ["web", "hq", "qa"], ["x"], generation={"cost": cost, "budget": 3e19}, n_tokens=1e11,
        bounds={"qa": (0.3, 1)},
    )  # fmt: skip


def test_a_source_that_the_prior_lacks_is_said_to_be_lacking() -> None:
    with pytest.raises(
        InfeasibleError, match=r"hq <= 0 \(the prior has none of it\).*: give hq a weight in the prior"
    ):
        MixtureProblem.build(
            ["web", "hq"], ["x"], bounds={"hq": (0.1, 1)}, prior={"web": 1.0}, max_kl=0.1
        )  # fmt: skip


def test_a_limit_lowered_to_nothing_reads_0() -> None:
    bounds = {"hq": (0.065, 1), "qa": (0.322, 1)}
    groups = {
        "g": {"sources": ["code", "web"], "lower": 0.734},
        "c": {"sources": ["code", "qa"], "upper": 0.772},
    }
    with pytest.raises(InfeasibleError, match=r"lower hq's limit to 0 and"):
        MixtureProblem.build(
            ["web", "hq", "qa", "code"], ["x"], bounds={**bounds, "code": (0, 0.378)},
            groups={**groups, "a": {"sources": ["qa", "hq"], "upper": 0.655}},
        )  # fmt: skip


def test_the_twenty_sets_are_twenty() -> None:
    assert len(SETS) == 20


def test_losses_that_cannot_be_had_together_are_named_with_what_can() -> None:
    fit = random_fit("transfer", 4, 3, 0)
    alone = {d: optimize_mixture(fit, **SCALE, target={d: 1}).predicted[d] for d in fit.domains}
    with pytest.raises(
        InfeasibleError, match=r"loss of d0 <= .* cannot hold.*Attainable at best: loss of d0"
    ) as one:
        optimize_mixture(fit, **SCALE, constraints={"max_loss": {"d0": alone["d0"] - 0.01, "d1": 9.0}})
    assert one.value.subset == (f"loss of d0 <= {alone['d0'] - 0.01:.6g}",)
    assert next(iter(one.value.relaxation.values())) == pytest.approx(0.01, abs=1e-6)
    tight = {d: alone[d] + 1e-4 for d in fit.domains}
    with pytest.raises(InfeasibleError, match=r"each by itself: loss of d") as many:
        optimize_mixture(fit, **SCALE, constraints={"max_loss": tight})
    by = max(many.value.relaxation.values())
    looser = optimize_mixture(
        fit, **SCALE, constraints={"max_loss": {d: v + 1.01 * by for d, v in tight.items()}}
    )
    assert looser.certificate == "global"
    with pytest.raises(InfeasibleError, match="divergence from the prior"):
        optimize_mixture(
            fit, **SCALE, bounds={"s0": (0.9, 1)},
            constraints={"prior": dict.fromkeys(fit.sources, 0.25), "max_kl": 0.1},
        )  # fmt: skip


# ---- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"group": {}}, "unknown key 'group'; did you mean 'groups'"),
        ({"groups": {"g": {"sources": ["s9"], "upper": 0.5}}}, r"groups\.g\.sources: unknown source 's9'"),
        ({"groups": {"g": {"sources": ["s0", "s0"], "upper": 0.5}}}, "names source 's0' twice"),
        ({"groups": {"g": {"sources": [], "upper": 0.5}}}, "must be a list of sources"),
        ({"groups": {"g": {"sources": ["s0"]}}}, "limits nothing"),
        ({"groups": {"s1": {"sources": ["s0"], "upper": 0.5}}}, "has the name of a source"),
        ({"groups": {"g": {"sources": ["s0"], "upper": 150}}}, r"groups\.g\.upper: 150: must be a fraction"),
        ({"groups": {"g": {"sources": ["s0"], "upper": 50}}}, r"did you mean 0\.5 or '50%'"),
        ({"groups": {"g": {"sources": ["s0"], "upper": "150%"}}}, "must be a percentage from 0% to 100%"),
        ({"bounds": {"s0": {"uper": 0.5}}}, r"bounds\.s0: unknown key 'uper'; did you mean 'upper'"),
        ({"bounds": {"s0": {"lower": 0.5, "upper": 0.4}}}, "the lower limit 0.5 is above the upper limit 0.4"),
        ({"bounds": {"s0": {"lower": float("nan")}}}, "must be a fraction"),
        ({"prior": {"s0": 0.5, "s1": 0.4}}, r"prior: the weights sum to 0\.9: they must sum to 1"),
        ({"max_kl": 0.1}, "max_kl needs prior"),
        ({"max_ratio": 2}, "max_ratio needs prior"),
        ({"max_loss": {"d9": 2.0}}, "unknown domain 'd9'"),
        ({"max_loss": {"d0": -1}}, "must be a number of 0 or more"),
        ({"generation": {"budget": 1e20}}, "must have cost"),
        ({"generation": {"cost": {"s0": 0}, "budget": 1e20}}, "costs something"),
        ({"available": {"s0": "20 B tokens"}}, "such as 20B"),
        ({"target": {"d0": True}}, "must be a number"),
        ({"over": "mx"}, "over must be one of mean, max, cvar:.9"),
        ({"over": "cvar:90"}, "did you mean cvar:0.9"),
        ({"over": "cvar:1"}, r"from 0 to below 1, as in cvar:\.9$"),
        ({"bounds": {"s0": {"upper": "50%%"}}}, "must be a percentage from 0% to 100%"),
        ({"groups": {3: {"sources": ["s0"], "upper": 0.5}, "3": {"sources": ["s1"], "upper": 0.5}}}, "'3' comes twice"),
        ({"risk": "cvar"}, "risk must be one of"),
        ({"risk": 0.9}, "must be a word"),
        ([1, 2], "must be keys and values"),
    ],
)  # fmt: skip
def test_constraints_that_make_no_sense_name_their_path(constraints, message) -> None:
    with pytest.raises(OptimizeError, match=message):
        optimize_mixture(random_fit("transfer", 3, 2, 0), **SCALE, constraints=constraints)


def test_a_yaml_file_is_read_as_the_mapping_and_flags_win(tmp_path) -> None:
    fit = case_fit()
    path = tmp_path / "constraints.yaml"
    path.write_text(
        "bounds:\n  s0: {lower: 10%}\n  s1: {upper: .3}\ngroups:\n  pair: {sources: [s2, s3], upper: 40%}\n"
        "available: {s4: 5e10}\nmax_epochs: 2\n"
    )
    read = optimize_mixture(fit, **SCALE, constraints=path)
    told = optimize_mixture(
        fit, **SCALE, bounds={"s0": (0.1, 1), "s1": (0, 0.3)}, available={"s4": 5e10}, max_epochs=2,
        groups={"pair": {"sources": ["s2", "s3"], "upper": 0.4}},
    )  # fmt: skip
    assert read.to_dict() == told.to_dict()
    flag = optimize_mixture(fit, **SCALE, constraints=path, bounds={"s0": (0.5, 1)})
    assert flag.weights["s0"] >= 0.5
    path.write_text("groups:\n  g: {sources: [s0], upper: .5}\n  g: {sources: [s1], upper: .5}\n")
    with pytest.raises(OptimizeError, match=r"constraints.yaml: line 3: 'g' comes twice"):
        optimize_mixture(fit, **SCALE, constraints=path)
    path.write_text("groups: [unclosed")
    with pytest.raises(OptimizeError, match=r"constraints.yaml is no YAML"):
        optimize_mixture(fit, **SCALE, constraints=path)
    with pytest.raises(OptimizeError, match="cannot be read"):
        optimize_mixture(fit, **SCALE, constraints=tmp_path / "none.yaml")


def test_bounds_of_a_file_and_of_an_option_both_hold() -> None:
    file = read_constraints(
        {"bounds": {"s0": {"lower": 0.2}, "s1": {"upper": 0.3}},
         "groups": {"g": {"sources": ["s2", "s3"], "upper": 0.4}}},
        names(6), names(4),
    )  # fmt: skip
    flags = {"s0": (None, 0.5), "s4": (0.1, 1.0)}
    both = merged(file, bounds=flags, groups={"g": {"sources": ["s3", "s2"], "lower": 0.1}})
    assert both["bounds"] == {"s0": (0.2, 0.5), "s1": (0.0, 0.3), "s4": (0.1, 1.0)}
    assert both["groups"] == {"g": {"sources": ["s2", "s3"], "lower": 0.1, "upper": 0.4}}
    with pytest.raises(
        OptimizeError, match=r"bounds of 's0': the constraints say 0.2 to 1, the option 0 to 0.1"
    ):
        merged(file, bounds={"s0": (0, 0.1)})
    with pytest.raises(OptimizeError, match=r"groups\['g'\] comes twice, with other sources"):
        merged(file, groups={"g": {"sources": ["s2", "s4"], "upper": 0.1}})


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("generation", {"generation": {"cost": {"b": 1.0}, "budget": 1.0}}),
        ("divergence", {"prior": {"b": 0.5, "c": 0.5}, "max_kl": 0.1}),
        ("loss_wiki", {"max_loss": {"wiki": 2.0}}),
    ],
)
def test_a_source_named_like_another_limits_price_is_refused_with_that_limit(name: str, limits: dict) -> None:
    sources = [name, "b", "c"]
    MixtureProblem.build(sources, ["wiki"], n_tokens=10.0)
    with pytest.raises(OptimizeError, match=f"a source is called '{name}'"):
        MixtureProblem.build(sources, ["wiki"], n_tokens=10.0, **limits)


@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-6])
def test_narrow_bounds_and_a_group_that_cuts_them_are_searched(width: float) -> None:
    fit = random_fit("transfer", 4, 3, 0)
    middle = np.array([0.124, 0.403, 0.413, 0.06])
    bounds = {s: (v - width, v + width) for s, v in zip(names(4), middle, strict=True) if s != "s1"}
    group = {"sources": ["s0", "s1"], "upper": float(middle[:2].sum() + width / 20)}
    result = optimize_mixture(fit, **SCALE, bounds=bounds, groups={"g": group})
    assert result.certificate == "global"
    assert result.optimality_gap < 1e-8
    h = weights_of(result)
    assert np.abs(h - middle)[[0, 2, 3]].max() <= width * (1 + 1e-6)
    assert h[:2].sum() <= group["upper"] + 1e-12
    # The corners of the set: none is better.
    for a, c, d in np.ndindex(2, 2, 2):
        corner = middle + width * np.array([2 * a - 1, 0, 2 * c - 1, 2 * d - 1])
        corner[1] = 1 - corner[[0, 2, 3]].sum()
        if corner[:2].sum() <= group["upper"]:
            assert losses(fit, corner).mean() >= result.objective - 1e-9


# ---- solvers that fail --------------------------------------------------------------------------------------


def test_highs_failing_costs_no_certificate(monkeypatch) -> None:
    """The interior-point method's own multipliers prove the mixture."""
    fit = case_fit()
    groups = {"pair": {"sources": ["s0", "s1"], "upper": 0.2}}
    whole = optimize_mixture(fit, **SCALE, groups=groups)
    from lawkit.mixture.polytope import Polytope

    monkeypatch.setattr(Polytope, "prices_of", lambda self, cost: None)
    result = optimize_mixture(fit, **SCALE, groups=groups)
    assert result.objective == pytest.approx(whole.objective, abs=1e-9)
    assert result.certificate == "global"


def test_the_interior_point_method_failing_is_said_and_the_mixture_certified(monkeypatch) -> None:
    fit = random_fit("exponential", 4, 3, 0)
    groups = {"pair": {"sources": ["s0", "s1"], "upper": 0.6}}
    whole = optimize_mixture(fit, **SCALE, groups=groups)
    from lawkit.mixture import solve
    from lawkit.mixture.smooth import SmoothSolution

    def stuck(objective, polytope, start, *_, **__):
        return SmoothSolution(start, objective.exact(start)[0], np.zeros(len(polytope.most)), np.zeros(0))

    monkeypatch.setattr(solve, "minimise_full", stuck)
    result = optimize_mixture(fit, **SCALE, groups=groups)
    assert any("interior-point method left a gap" in w for w in result.warnings)
    assert result.certificate == "global"
    assert result.objective == pytest.approx(whole.objective, abs=1e-6)
