"""The objective's derivatives against finite differences, and its minimum against scipy's."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy.optimize import least_squares

from lawkit import laws
from lawkit.fitting.estimate import estimate
from lawkit.fitting.prepare import Prepared, prepare
from lawkit.fitting.solver import LeastSquares, Target, minimise
from lawkit.laws._law import Objective
from lawkit.laws.formula import FormulaLaw
from lawkit.runs import Runs

HUBER = Objective(kind="huber", delta=2e-3)
RELATIVE = Objective(kind="relative")
ABSOLUTE = Objective(kind="absolute")
MAP = Objective(kind="relative", sigma=0.01, token_power=0.5)


def table(n: int = 40, noise: float = 0.004) -> Runs:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = np.exp(rng.uniform(18, 21, n)), np.exp(rng.uniform(21, 24, n))
    losses = 1.5 + (300 / n_params**0.33 + 700 / n_tokens**0.34)[:, None] + 0.2 * (weights + 0.05) ** -0.4
    losses *= np.exp(rng.normal(0, noise, losses.shape))
    losses[4, 0] = losses[9, 2] = np.nan
    names = ("a", "b", "c")
    return Runs(
        sources=names, domains=names, n_params=n_params, n_tokens=n_tokens, weights=weights, losses=losses
    )


def ready(law: str, objective: Objective) -> tuple[Prepared, np.ndarray]:
    """A problem and a vector (G, P) somewhere in its middle."""
    found = prepare(table(), laws.get(law), objective)
    z = laws.get(law).draw_starts(np.random.default_rng(0), found.context, 40)
    flat, groups = z.reshape(-1, found.size), np.repeat(np.arange(len(z)), 40)
    cost = found.problem.cost(flat, groups).reshape(len(z), 40)
    return found, z[np.arange(len(z)), cost.argmin(1)]


CASES = [
    ("chinchilla", HUBER),
    ("chinchilla", RELATIVE),
    ("chinchilla", ABSOLUTE),
    ("kaplan", HUBER),
    ("dcpt", HUBER),
    ("additive", HUBER),
    ("transfer-plain", MAP),
    ("chinchilla-coupled", RELATIVE),
]


@pytest.mark.parametrize(("law", "objective"), CASES, ids=[f"{n}-{o.kind}" for n, o in CASES])
def test_gradient_is_that_of_the_cost(law: str, objective: Objective) -> None:
    found, z = ready(law, objective)
    groups = np.arange(len(z))
    gradient, _, _ = found.problem.expansion(z, groups, newton=False)
    for p in range(found.size):
        step = np.zeros(found.size)
        step[p] = 1e-6
        rise = found.problem.cost(z + step, groups) - found.problem.cost(z - step, groups)
        np.testing.assert_allclose(rise / 4e-6, gradient[:, p], rtol=2e-5, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize(("law", "objective"), CASES, ids=[f"{n}-{o.kind}" for n, o in CASES])
def test_hessian_is_that_of_the_gradient(law: str, objective: Objective) -> None:
    found, z = ready(law, objective)
    groups = np.arange(len(z))
    _, hessian, majorant = found.problem.expansion(z, groups, newton=True)
    for p in range(found.size):
        step = np.zeros(found.size)
        step[p] = 1e-6
        up, down = (found.problem.expansion(z + s, groups, newton=False)[0] for s in (step, -step))
        scale = np.abs(hessian).max()
        np.testing.assert_allclose((up - down) / 2e-6, hessian[:, :, p], rtol=1e-4, atol=1e-6 * scale)
    assert (np.linalg.eigvalsh(majorant) >= -1e-9 * np.abs(majorant).max()).all()


def test_masked_cells_say_nothing() -> None:
    found, z = ready("chinchilla", HUBER)
    target = found.problem.target
    masked = target.cell_weights == 0
    assert masked.sum() == 2
    other = LeastSquares(
        found.problem.function,
        found.problem.inputs,
        Target(np.where(masked, 7.0, target.losses), target.cell_weights),
        HUBER,
    )
    groups = np.arange(len(z))
    assert np.array_equal(other.cost(z, groups), found.problem.cost(z, groups))
    for ours, theirs in zip(
        other.expansion(z, groups, True), found.problem.expansion(z, groups, True), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert not other.pulls(z)[masked[..., 0]].any()


@pytest.mark.parametrize(
    ("law", "objective"), [("chinchilla", HUBER), ("chinchilla", RELATIVE), ("dcpt", RELATIVE)]
)
def test_minimum_is_scipys(law: str, objective: Objective) -> None:
    """From the same start, scipy's trust region with the same loss never ends lower."""
    found, z = ready(law, objective)
    ours, cost = minimise(found.problem, z, np.arange(len(z)))
    for g in range(len(z)):
        y = found.problem.target.losses[g].ravel()
        live = found.problem.target.cell_weights[g].ravel() > 0
        at = found.problem.inputs.take(np.array([g]))

        def residual(p: np.ndarray, at=at, y=y, live=live) -> np.ndarray:
            predicted = laws.get(law).function.value(p[None], at).ravel()
            r = np.log(predicted / y) if objective.kind == "huber" else predicted / y - 1
            return r[live]

        loss = {"loss": "huber", "f_scale": objective.delta} if objective.kind == "huber" else {}
        theirs = least_squares(
            residual, ours[g] + 0.02, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=3000, **loss
        )
        lowest = theirs.cost * (1 if objective.kind == "huber" else 2)  # scipy halves squares
        assert cost[g] <= lowest * (1 + 1e-7)


def test_each_start_is_its_own_search() -> None:
    """A batch gives what its members give alone, to the last bits that a sum's order decides."""
    found, _ = ready("chinchilla", HUBER)
    z = laws.get("chinchilla").draw_starts(np.random.default_rng(3), found.context, 6)[0]
    together = minimise(found.problem, z, np.zeros(6, int))[1]
    alone = [minimise(found.problem, z[[i]], np.zeros(1, int))[1][0] for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_start_where_the_law_is_not_finite_stays_behind() -> None:
    found, z = ready("chinchilla", HUBER)
    bad = z.copy()
    bad[:, 0] = 800.0  # E = e^800
    ends, cost = minimise(found.problem, np.concatenate([bad, z]), np.r_[np.arange(3), np.arange(3)])
    assert np.isinf(cost[:3]).all()
    assert np.isfinite(cost[3:]).all()
    assert np.isfinite(ends).all()


def test_a_law_linear_in_many_unbounded_parameters_is_solved_for() -> None:
    # Only positive parameters may have to be left out: to try every subset of these 20 would take minutes.
    terms = [
        f"{a}*{b}"
        for a, b in combinations_with_replacement(("1", "log(N/1e9)", "log(D/1e10)", "w_a", "w_b"), 2)
    ]
    terms += [f"{a}**3" for a in ("log(N/1e9)", "log(D/1e10)", "w_a", "w_b")] + ["log(N/1e9)*log(D/1e10)**2"]
    law = FormulaLaw("8 + " + " + ".join(f"~p{i}*{t}" for i, t in enumerate(terms)), ("a", "b", "c"))
    runs = table()
    z = np.random.default_rng(0).normal(0, 0.1, (1, 20))
    x = prepare(runs, law, RELATIVE).problem.inputs.take(np.zeros(1, int))
    exact = replace(runs, domains=("x",), losses=law.function.value(z, x)[0])
    found = estimate(exact, law, RELATIVE, starts=1)[0]
    np.testing.assert_allclose(found.losses(x), exact.losses, rtol=1e-6)
