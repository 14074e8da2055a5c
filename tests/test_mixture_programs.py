"""Parts of the mixture optimiser: laws against cvxpy, bounds that hold, interior point."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixture import make_fit

from lawkit import optimize_mixture
from lawkit.errors import OptimizeError
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise, multi_start

K, E = 5, 3
SOURCES = tuple(f"s{i}" for i in range(K))
DOMAINS = tuple(f"d{i}" for i in range(E))
BOUNDS = {"s0": (0.1, 0.4), "s3": (0.0, 0.25)}


def problem(bounds=None, sources=SOURCES, domains=DOMAINS):
    return MixtureProblem.build(sources, domains, bounds=bounds)


def ours(law, parameters):
    """The best mixture (K,) of a law with these parameters, one set a domain."""
    fit = make_fit(
        law,
        dict(zip(DOMAINS, parameters, strict=True)),
        list(SOURCES),
        list(DOMAINS),
        (1e9, 1e9),
        (2e10, 2e10),
    )
    result = optimize_mixture(fit, n_params=3e9, n_tokens=1e11, bounds=BOUNDS)
    return np.array(list(result.weights.values()))


def cvxpy_minimum(loss, limits):
    """Minimum of loss(h), stated in cvxpy, under the limits."""
    h = cp.Variable(K)
    rows = [cp.sum(h) == 1, h >= limits.lower, h <= limits.upper]
    stated = cp.Problem(cp.Minimize(loss(h)), rows)
    stated.solve(solver=cp.CLARABEL)
    return stated.value


# ---- laws as cvxpy states them -----------------------------------------------------------------------------------


def test_transfer_program_is_the_law_as_cvxpy_states_it():
    rng = np.random.default_rng(0)
    parameters = [
        {
            "E": 1.0, "alpha": 0.4, "beta": 0.5, "gamma": 0.7, "delta": 0.6, "g": g, "q0": 0.5, "k0": 0.4, "r0": 3.0,
            **{w: np.exp(rng.normal(0, 1, K)) for w in "qkr"},
        }
        for g in (0.5, 0.7, 0.9)
    ]  # fmt: skip

    def log_lent(p, name, h, log, power):
        return log(p[name] @ power(h, p["g"]) + p[name + "0"] * 0.01 ** p["g"]) / p["g"]

    def loss(h, log, power, exp, log_sum_exp):
        total = 0
        for p in parameters:
            short = [
                -p["alpha"] * (np.log(3) + log_lent(p, "q", h, log, power)),
                -p["beta"] * (np.log(5) + log_lent(p, "k", h, log, power)),
            ]
            total += exp(p["gamma"] * log_sum_exp(short)) + exp(-p["delta"] * log_lent(p, "r", h, log, power))
        return total / E

    limits = problem(BOUNDS)

    def power(x, g):
        return cp.power(x, g, approx=False)

    def log_sum_exp(x):
        return cp.log_sum_exp(cp.hstack(x))

    stated = cvxpy_minimum(lambda h: loss(h, cp.log, power, cp.exp, log_sum_exp), limits)
    h = ours("transfer", parameters)
    found = loss(h, np.log, np.power, np.exp, np.logaddexp.reduce)
    assert found == pytest.approx(stated, abs=1e-7)
    assert h.sum() == pytest.approx(1, abs=1e-8)
    np.testing.assert_allclose(h, np.clip(h, limits.lower, limits.upper), atol=1e-8)


def test_exponential_program_is_the_law_as_cvxpy_states_it():
    rng = np.random.default_rng(1)
    scaled = [
        {"E": 1.5, "A": 300.0, "B": 800.0, "alpha": 0.3, "beta": 0.3}
        | {f"t_{x}": rng.normal(0, 1, K) for x in "EAB"}
        for _ in DOMAINS
    ]
    sizes = {"E": 1.0, "A": 3e9**-0.3, "B": 1e11**-0.3}

    def loss(h, exp):
        return sum(p[x] * f * exp(p[f"t_{x}"] @ h) for p in scaled for x, f in sizes.items())

    h = ours("exponential-scale", scaled)
    stated = cvxpy_minimum(lambda h: loss(h, cp.exp), problem(BOUNDS))
    assert loss(h, np.exp) == pytest.approx(stated, abs=1e-7)
    plain = [{"c": 2.0, "k": 0.5, "t": rng.normal(0, 3, K)} for _ in DOMAINS]
    h = ours("exponential", plain)
    stated = cvxpy_minimum(lambda h: sum(p["k"] * cp.exp(p["t"] @ h) for p in plain), problem(BOUNDS))
    assert sum(p["k"] * np.exp(p["t"] @ h) for p in plain) == pytest.approx(stated, abs=1e-7)


def test_additive_program_is_the_law_as_cvxpy_states_it():
    rng = np.random.default_rng(2)
    scale = {"E": 1.0, "A": 400.0, "B": 1000.0, "alpha": 0.35, "beta": 0.37}
    parameters = [
        {**scale, "C": np.exp(rng.normal(0, 1, K)), "gamma": rng.uniform(0.2, 0.9, K)} for _ in DOMAINS
    ]

    def stated(h):
        return sum(
            cp.inv_pos(sum(p["C"][j] * cp.power(h[j], float(p["gamma"][j]), approx=False) for j in range(K)))
            for p in parameters
        )

    h = ours("additive", parameters)
    found = sum(1 / (p["C"] @ h ** p["gamma"]) for p in parameters)
    assert found == pytest.approx(cvxpy_minimum(stated, problem(BOUNDS)), abs=1e-6)


# ---- certificate --------------------------------------------------------------------------------------


def quadratic(center):
    return lambda h: (float(0.5 * (h - center) @ (h - center)), h - center, np.eye(len(center)))


def test_a_wrong_mixture_has_a_gap_at_least_as_large_as_its_excess():
    evaluate, limits = quadratic(np.array([0.9, 0.4, -0.1, 0.2, 0.1])), problem(BOUNDS)
    best = minimise(evaluate, limits)
    assert frank_wolfe_gap(evaluate(best.h)[1], best.h, limits) < 1e-11
    wrong = limits.interior()
    gap = frank_wolfe_gap(evaluate(wrong)[1], wrong, limits)
    assert gap >= evaluate(wrong)[0] - best.objective
    assert gap > 0.05


def test_infinite_slope_has_an_infinite_gap_unless_the_weight_is_fixed():
    slope, h = np.array([-np.inf, 1.0, 1.0, 1.0, 1.0]), np.array([0, 0.25, 0.25, 0.25, 0.25])
    assert frank_wolfe_gap(slope, h, problem()) == np.inf
    assert frank_wolfe_gap(slope, h, problem({"s0": (0, 0)})) < 1e-12


# ---- interior point -----------------------------------------------------------------------------------


def test_interior_point_finds_the_projection_onto_the_simplex():
    center = np.array([0.9, 0.4, -0.1, 0.2, 0.1])
    h = minimise(quadratic(center), problem()).h
    np.testing.assert_allclose(h, np.maximum(0, center - 1 / 6), atol=1e-9)  # its closed form


def test_interior_point_copes_with_slopes_that_span_many_orders():
    w = np.array([1.0, 1e-3, 1e-5, 1.0, 1e-2])

    def evaluate(h):  # -sum w h^.3: the optimum is h proportional to w^(1/.7)
        return float(-w @ h**0.3), -0.3 * w * h**-0.7, np.diag(0.21 * w * h**-1.7)

    exact = w ** (1 / 0.7) / (w ** (1 / 0.7)).sum()
    np.testing.assert_allclose(minimise(evaluate, problem()).h, exact, rtol=1e-4)
    assert exact.min() < 1e-7


def test_interior_point_started_on_a_limit_stays_there():
    """No step is taken from where the barrier is infinite; the certificate judges the point."""
    limits = MixtureProblem.build("abc", "e", groups={"g": {"sources": ["a", "b"], "upper": 0.5}})
    for start in ([0.25, 0.25, 0.5], [0.0, 0.3, 0.7]):
        found = minimise(lambda h: (float(h @ h), 2 * h, 2 * np.eye(3)), limits, np.array(start))
        assert found.h.tolist() == start
        assert found.objective == pytest.approx(float(np.square(start).sum()))


def test_interior_point_leaves_a_saddle():
    def evaluate(h):  # concave: a minimum at every corner, the lowest at s2
        tilt = np.array([0.0, 0.1, -0.2, 0.1, 0.0])
        return float(-h @ h + tilt @ h), -2 * h + tilt, -2 * np.eye(K)

    found = multi_start(evaluate, problem(), starts=4)
    np.testing.assert_allclose(found[0].h, np.eye(K)[2], atol=1e-6)


# ---- the feasible set ---------------------------------------------------------------------------------

LIMIT = st.floats(0, 1)


@given(st.lists(st.tuples(LIMIT, LIMIT), min_size=K, max_size=K))
@settings(max_examples=200, deadline=None)
def test_any_limits_are_either_refused_or_hold(pairs):
    bounds = {s: (min(p), max(p)) for s, p in zip(SOURCES, pairs, strict=True)}
    low, high = sum(b[0] for b in bounds.values()), sum(b[1] for b in bounds.values())
    try:
        limits = problem(bounds)
    except OptimizeError:
        assert low > 1 or high < 1
        return
    assert low <= 1 + 1e-9
    assert high >= 1 - 1e-9
    for toward in (None, *np.eye(K)):
        h = limits.interior(toward)
        assert abs(h.sum() - 1) < 1e-9
        assert np.all(h >= limits.lower - 1e-9)
        assert np.all(h <= limits.upper + 1e-9)
        snapped = limits.snap(h, 1e-3)
        assert abs(snapped.sum() - 1) < 1e-9
        assert np.all(snapped >= limits.lower - 1e-9)
        assert np.all(snapped <= limits.upper + 1e-9)
