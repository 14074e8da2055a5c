"""The capacity laws: the inner problem, exact implicit derivatives, recovery, and their authors' data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import lawkit
import lawkit.laws
from lawkit.laws._codegen import Node
from lawkit.laws._evaluation import Evaluation, Inputs
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: The authors' fit to seven SlimPajama sources (their optimal_mixture.py); N in millions, D in billions.
PUBLISHED = {
    "b": [1.2931, 0.2504, 0.7759, 4.2533, 0.8209, 2.1420, 0.9245],
    "c": [6.1217, 3.3571, 7.8612, 7.3098, 2.3083, 3.8489, 2.3059],
    "A": [0.3931, 0.4080, 0.7319, 1.2868, 0.7130, 2.0230, 0.8802],
    "a": [0.9685, 1.6999, 0.3088, 0.0827, 1.0596, 0.0777, 0.5132],
    "E": [0.9448, 0.8770, 0.5612, 0.0, 2.4074, 0.0001, 1.3406],
    "H": 4.877181,
}


@pytest.fixture(params=["capacity", "capacity-plain"])
def law(request: pytest.FixtureRequest) -> Law:
    return lawkit.laws.get(request.param)


def shares(v: dict, n: float, h: np.ndarray) -> np.ndarray:
    """Capacities x (K,) for one mixture, by bisection as the authors write it."""
    b, c, floor = np.asarray(v["b"]), np.asarray(v["c"]), v["H"]
    low, high = -500.0, 500.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        x = np.maximum(floor, np.exp((np.log(h * b * c) - middle) / (b + 1)))
        low, high = (middle, high) if x.sum() > n + (len(h) - 1) * floor else (low, middle)
    return x


def as_written(law: Law, v: dict, n: np.ndarray, d: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Losses (rows, K) from the paper's formula."""
    b, c, e = (np.asarray(v[k], float) for k in "bcE")
    x = np.stack([shares(v, *row) for row in zip(n, h, strict=True)])
    loss = c * x**-b + e
    if law.name == "capacity":
        loss = loss + np.asarray(v["A"]) * (d[:, None] * h) ** -np.asarray(v["a"])
    return loss


def values_of(law: Law, v: dict) -> dict:
    return {p.name: v[p.name] for p in law.parameters}


def inputs(n: np.ndarray, d: np.ndarray, h: np.ndarray, n_ref: float = 1.0, d_ref: float = 1.0) -> Inputs:
    return Inputs(
        n_params=n, n_tokens=d, weights=h, own=np.arange(h.shape[1])[None], n_ref=n_ref, d_ref=d_ref
    )


def random_rows(
    rng: np.random.Generator, count: int, k: int = 7
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes in millions and billions, mixtures from the corners to the centre."""
    h = 0.001 + (1 - 0.001 * k) * rng.dirichlet(np.full(k, 0.5), count)
    return np.exp(rng.uniform(4, 8, count)), np.exp(rng.uniform(1, 5, count)), h


def test_losses_are_those_of_the_published_formula(law: Law) -> None:
    n, d, h = random_rows(np.random.default_rng(1), 50)
    z = law.unconstrained(values_of(law, PUBLISHED))[None]
    at_floor = np.isclose([shares(PUBLISHED, *row) for row in zip(n, h, strict=True)], PUBLISHED["H"])
    assert 0.02 < at_floor.mean() < 0.9  # both kinds of source are there
    expected = as_written(law, PUBLISHED, n, d, h)
    np.testing.assert_allclose(law.function.value(z, inputs(n, d, h))[0], expected, rtol=1e-10)


def test_units_of_sizes_do_not_matter(law: Law) -> None:
    """Parameters and tokens counted singly, with reference scales: the same losses."""
    n, d, h = random_rows(np.random.default_rng(2), 20)
    v = values_of(law, PUBLISHED)
    single = {**v, "c": np.array(v["c"]) * 1e6 ** np.array(v["b"]), "H": v["H"] * 1e6}
    if "A" in v:
        single["A"] = np.array(v["A"]) * 1e9 ** np.array(v["a"])
    z = law.unconstrained(single, 3e8, 2e10)[None]
    np.testing.assert_allclose(
        law.function.value(z, inputs(n * 1e6, d * 1e9, h, 3e8, 2e10)),
        law.function.value(law.unconstrained(v)[None], inputs(n, d, h)),
        rtol=1e-9,
    )


def test_shares_are_the_best_division_of_the_capacity(law: Law) -> None:
    """No other division of N + (K - 1) H with every share at least H has a lower training loss."""
    rng = np.random.default_rng(3)
    n, _, h = random_rows(rng, 20)
    b, c, floor = np.array(PUBLISHED["b"]), np.array(PUBLISHED["c"]), PUBLISHED["H"]
    for size, mixture in zip(n, h, strict=True):
        x = shares(PUBLISHED, size, mixture)
        np.testing.assert_allclose(x.sum(), size + 6 * floor, rtol=1e-12)
        anywhere = floor + (size - floor) * rng.dirichlet(np.ones(7), 500)
        for division in (anywhere, 0.99 * x + 0.01 * anywhere):
            assert ((c * division**-b) @ mixture >= (c * x**-b) @ mixture * (1 - 1e-12)).all()


def test_inner_equation_is_solved_in_a_few_steps(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, at extreme parameters too."""
    rng = np.random.default_rng(4)
    n, d, h = random_rows(rng, 40)
    where = law.layout(7)
    z = rng.uniform(-1, 1, (30, law.n_parameters(7)))
    z[:, where["b"]] = rng.uniform(-7, 3, (30, 7))
    z[:, where["c"]] = rng.uniform(-6, 6, (30, 7))
    z[:, where["H"]] = rng.uniform(-8, -3, (30, 1))
    equation = law.function._equation
    assert equation is not None
    evaluations = []
    original = Evaluation.equation_slope

    def recorded(state: Evaluation, node: Node) -> tuple[np.ndarray, np.ndarray]:
        evaluations.append(original(state, node))
        return evaluations[-1]

    monkeypatch.setattr(Evaluation, "equation_slope", recorded)
    with np.errstate(all="ignore"):
        state = Evaluation(law.function, z, inputs(n, d, h, n_ref=float(n.min()), d_ref=30.0))
        assert len(evaluations) <= 40
        value, slope = state.equation_slope(equation)
    assert np.abs(value).max() < 1e-13
    assert (slope < 0).all()


@pytest.mark.parametrize("variable", ["params", "weights"])
def test_implicit_derivatives_are_exact(law: Law, variable: str) -> None:
    """First and second, against central differences, with sources at their floor and above it."""
    rng = np.random.default_rng(5)
    n, d, h = random_rows(rng, 30)
    v = values_of(law, PUBLISHED) | {"E": np.full(7, 0.5)}
    z = law.unconstrained(v)[None]
    # A source that is just leaving its floor has one-sided derivatives only: rows with one are left out.
    free = (
        np.exp((np.log(h * v["b"] * v["c"]) - _multiplier(law, z, n, d, h)) / (np.array(v["b"]) + 1)) / v["H"]
    )
    keep = (np.abs(np.log(free)) > 1e-3).all(1)
    assert keep.sum() > 20
    assert (free[keep] < 1).any()
    x = inputs(n[keep], d[keep], h[keep])
    _, slope, curve = law.function.hessian(z, x, (variable,))
    step = 1e-6
    size = slope.shape[-1]
    for k in range(size):
        ends = []
        for sign in (1, -1):
            moved_z, moved_h = z.copy(), x.weights.copy()
            (moved_z if variable == "params" else moved_h)[:, k] += sign * step
            ends.append(law.function.jacobian(moved_z, inputs(x.n_params, x.n_tokens, moved_h), (variable,)))
        first = (ends[0][0] - ends[1][0]) / (2 * step)
        second = (ends[0][1] - ends[1][1]) / (2 * step)
        np.testing.assert_allclose(slope[..., k], first, rtol=1e-5, atol=1e-7 * np.abs(slope).max())
        np.testing.assert_allclose(curve[..., k], second, rtol=1e-5, atol=1e-6 * np.abs(curve).max())


def _multiplier(law: Law, z: np.ndarray, n: np.ndarray, d: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Log of the inner problem's multiplier (rows, 1)."""
    state = Evaluation(law.function, z, inputs(n, d, h))
    return state._outer["s"][0] - np.log(n)[:, None]


def test_model_smaller_than_the_floor_is_divided_evenly(law: Law) -> None:
    """With N < H no division satisfies the sum: every share is the floor, as in the authors' code."""
    v = values_of(law, PUBLISHED)
    h = np.full((1, 7), 1 / 7)
    small = law.function.value(law.unconstrained(v)[None], inputs(np.array([2.0]), np.array([30.0]), h))[0, 0]
    expected = np.array(v["c"]) * v["H"] ** -np.array(v["b"]) + np.array(v["E"])
    if "A" in v:
        expected = expected + np.array(v["A"]) * (30 / 7) ** -np.array(v["a"])
    np.testing.assert_allclose(small, expected, rtol=1e-9)


def test_law_is_recovered_from_its_own_runs(law: Law) -> None:
    """Fitted to noiseless runs of three sources, it predicts unseen mixtures and scales to 1e-4."""
    truth = values_of(
        law,
        {
            "b": [0.35, 0.5, 0.25], "c": [4.0, 7.0, 3.0], "A": [0.8, 1.2, 0.6], "a": [0.3, 0.4, 0.25],
            "E": [1.2, 0.7, 1.5], "H": 8.0,
        },
    )  # fmt: skip
    rng = np.random.default_rng(6)

    def table(count: int) -> Runs:
        n, d, _ = random_rows(rng, count)
        h = 0.02 + 0.94 * rng.dirichlet(np.ones(3), count)
        names = ("web", "code", "books")
        losses = as_written(law, truth, n, d, h)
        return Runs(sources=names, domains=names, n_params=n, n_tokens=d, weights=h, losses=losses)

    fit = lawkit.fit(table(120), law=law.name, holdout="none")
    unseen = table(60)
    np.testing.assert_allclose(
        fit.losses(unseen.n_params, unseen.n_tokens, unseen.weights), unseen.losses, rtol=1e-4
    )


# ---- the authors' data -----------------------------------------------------------------------------------


def slimpajama(folder: Path, n_params: float, n_tokens: float) -> Runs:
    """Runs of one size and budget with seven sources that are the domains too."""
    with (folder / "slimpajama7" / "runs_122M_310M.csv").open() as file:
        table = [
            r
            for r in csv.DictReader(file)
            if (float(r["model_size"]), float(r["n_tokens"])) == (n_params, n_tokens)
        ]
    names = tuple(k.removeprefix("weight_") for k in table[0] if k.startswith("weight_"))
    table = [r for r in table if any(r[f"{name}_loss"] for name in names)]
    weights = np.array([[float(r[f"weight_{name}"]) for name in names] for r in table])
    return Runs(
        sources=names, domains=names, n_params=np.full(len(table), n_params), n_tokens=np.full(len(table), n_tokens),
        weights=weights / weights.sum(1, keepdims=True),
        losses=np.array([[float(r[f"{name}_loss"] or "nan") for name in names] for r in table]),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_authors_split_of_slimpajama(datasets: Path, seed: int) -> None:
    """Their script reaches a training MSE of 7.41e-4 and a validation MRE of .948%, on weights of .1 and more."""
    runs = slimpajama(datasets, 122e6, 9998e6)
    assert len(runs) == 60
    order = np.random.default_rng(11514).permutation(len(runs))
    train, validation = runs.select(order[:48]), runs.select(order[48:])
    fit = lawkit.fit(train, law="capacity", min_weight=0.1, holdout="none", seed=seed)

    def misses(part: Runs) -> tuple[np.ndarray, np.ndarray]:
        counted = part.weights >= 0.1
        predicted = fit.losses(part.n_params, part.n_tokens, part.weights)
        return (predicted - part.losses)[counted], part.losses[counted]

    assert np.mean(misses(train)[0] ** 2) <= 5.6e-4
    miss, losses = misses(validation)
    assert np.mean(np.abs(miss) / losses) <= 0.0080
