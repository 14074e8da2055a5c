"""The mixture laws: each as its authors write it, recovered from runs it made, and published figures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import lawkit
import lawkit.laws
from lawkit.fitting.scoring import predict_runs
from lawkit.laws._function import Inputs
from lawkit.runs import Runs

SOURCES = ("web", "code", "books")
K = len(SOURCES)
N_REF, D_REF = 3e8, 1e10

#: Values in the published units, one set a law; domain 'web', source 0.
VALUES: dict[str, dict[str, object]] = {
    "exponential": {"c": 1.9, "k": 1.4, "t": [-1.5, 0.3, -0.4]},
    "exponential-scale": {
        "E": 1.7, "A": 60.0, "B": 700.0, "alpha": 0.25, "beta": 0.32,
        "t_E": [-0.1, 0.15, 0.05], "t_A": [-0.8, 0.6, 0.1], "t_B": [-1.2, 0.9, -0.2],
    },
    "additive": {
        "E": 1.2, "C": [1.4, 0.3, 0.7], "gamma": [0.4, 0.6, 0.3], "A": 300.0, "alpha": 0.33, "B": 900.0, "beta": 0.32,
    },
    "joint": {
        "E": 1.2, "C": [1.4, 0.3, 0.7], "gamma": [0.4, 0.6, 0.3],
        "C_A": [0.5, 1.6, 0.8], "gamma_A": 0.7, "alpha": 0.33, "C_B": [2.0, 0.4, 0.9], "gamma_B": -0.5, "beta": 0.4,
    },
    "bimix": {"B": 900.0, "C": 1.8, "alpha": 0.08, "beta": 0.3},
    "dcpt": {
        "E": 1.1, "A": 300.0, "B": 700.0, "C": 0.4,
        "alpha": 0.33, "beta": 0.3, "gamma": 0.5, "eta": 0.6, "epsilon": 0.02,
    },
    "linear": {"w": [2.1, 4.0, 3.2]},
}  # fmt: skip


def as_written(name: str, n: np.ndarray, d: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Losses (rows,) straight from the papers' formulas."""
    v = {k: np.asarray(x, float) for k, x in VALUES[name].items()}
    if name == "exponential":
        return v["c"] + v["k"] * np.exp(h @ v["t"])
    if name == "exponential-scale":
        return (
            v["E"] * np.exp(h @ v["t_E"])
            + v["A"] * n ** -v["alpha"] * np.exp(h @ v["t_A"])
            + v["B"] * d ** -v["beta"] * np.exp(h @ v["t_B"])
        )
    if name == "additive":
        asymptote = v["E"] + 1 / (h ** v["gamma"] @ v["C"])
        return asymptote + v["A"] * n ** -v["alpha"] + v["B"] * d ** -v["beta"]
    if name == "joint":
        asymptote = v["E"] + 1 / (h ** v["gamma"] @ v["C"])
        model = (h @ v["C_A"]) ** v["gamma_A"] * (n / N_REF) ** -v["alpha"]
        return asymptote + model + (h @ v["C_B"]) ** v["gamma_B"] * (d / D_REF) ** -v["beta"]
    if name == "bimix":
        return h[:, 0] ** -v["alpha"] * (v["B"] * d ** -v["beta"] + v["C"])
    if name == "dcpt":
        model = v["E"] + v["A"] * n ** -v["alpha"] + v["B"] * h[:, 0] ** v["eta"] * d ** -v["beta"]
        return model + v["C"] * (h[:, 0] + v["epsilon"]) ** -v["gamma"]
    assert name == "linear"
    return h @ v["w"]


def rows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes and mixtures around the reference scale, whose geometric means are exactly N_REF and D_REF."""
    n, d = (np.exp(rng.uniform(-1.5, 1.5, count)) for _ in range(2))
    h = 0.02 + 0.94 * rng.dirichlet(np.ones(K), count)
    return N_REF * n / np.exp(np.log(n).mean()), D_REF * d / np.exp(np.log(d).mean()), h


@pytest.mark.parametrize("name", VALUES)
def test_law_is_what_its_paper_writes(name: str) -> None:
    law = lawkit.laws.get(name)
    n, d, h = rows(np.random.default_rng(1), 20)
    z = law.unconstrained(VALUES[name], N_REF, D_REF)[None]
    x = Inputs(n_params=n, n_tokens=d, weights=h, own=np.array([[0]]), n_ref=N_REF, d_ref=D_REF)
    np.testing.assert_allclose(law.function.value(z, x)[0, :, 0], as_written(name, n, d, h), rtol=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_law_is_recovered_from_its_own_runs(name: str) -> None:
    """Fitted to noiseless runs, it predicts unseen mixtures and scales, larger ones included, to 1e-4."""
    rng = np.random.default_rng(2)
    n, d, h = rows(rng, 150)
    losses = as_written(name, n, d, h)[:, None]
    runs = Runs(sources=SOURCES, domains=("web",), n_params=n, n_tokens=d, weights=h, losses=losses)
    fit = lawkit.fit(runs, law=name, holdout="none")
    n, d, h = rows(rng, 100)
    n, d = 1.5 * n, 1.5 * d
    np.testing.assert_allclose(fit.losses(n, d, h)[:, 0], as_written(name, n, d, h), rtol=1e-4)


@pytest.mark.parametrize("name", ["additive", "exponential-scale"])
def test_scale_laws_fit_runs_of_one_scale(name: str) -> None:
    """Without n_params and n_tokens the terms of scale are constants."""
    n, d, h = rows(np.random.default_rng(3), 120)
    losses = as_written(name, np.full_like(n, N_REF), np.full_like(d, D_REF), h)[:, None]
    runs = Runs(sources=SOURCES, domains=("web",), n_params=None, n_tokens=None, weights=h, losses=losses)
    fit = lawkit.fit(runs, law=name, holdout="none")
    assert fit.train["mre"] is not None
    assert fit.train["mre"] < 1e-4


def test_a_size_that_the_runs_do_not_record_changes_nothing_and_is_said(tmp_path: Path) -> None:
    n, d, h = rows(np.random.default_rng(3), 60)
    losses = as_written("additive", np.full_like(n, N_REF), d, h)[:, None]
    runs = Runs(sources=SOURCES, domains=("web",), n_params=None, n_tokens=d, weights=h, losses=losses)
    fit = lawkit.fit(runs, law="additive", holdout="none")
    fit.save(tmp_path / "fit")
    for f in (fit, lawkit.load_fit(tmp_path / "fit")):
        plain = f.losses(None, d, h)
        np.testing.assert_array_equal(f.losses(7e9, d, h), plain)
        point = f.weights_derivatives(7e9, D_REF, h[0])
        np.testing.assert_array_equal(point[0], f.losses(None, D_REF, h[:1])[0])
        asked = f.predict(7e9, d, h)
        np.testing.assert_array_equal(asked.mean, f.predict(None, d, h).mean)
        assert asked.warnings == f.predict(n, d, h, interval=0.9).warnings
        assert [w.split(":")[0] for w in asked.warnings] == ["n_params is ignored"]
        assert f.predict(None, d, h).warnings == ()
    _, warnings = predict_runs(fit, Runs(sources=SOURCES, domains=(), n_params=n, n_tokens=d, weights=h,
                                         losses=np.empty((60, 0))))  # fmt: skip
    assert any("n_params is ignored" in w for w in warnings)


def test_exponential_is_determined_up_to_a_shift_of_t() -> None:
    """Adding s to every t_j and dividing k by exp(s) changes nothing, as the docstring says."""
    law = lawkit.laws.get("exponential")
    moved = {"c": 1.9, "k": 1.4 * np.exp(-0.7), "t": np.array([-1.5, 0.3, -0.4]) + 0.7}
    _, _, h = rows(np.random.default_rng(4), 10)
    x = Inputs(n_params=np.ones(10), n_tokens=np.ones(10), weights=h, own=np.array([[-1]]))
    a, b = (law.function.value(law.unconstrained(v)[None], x) for v in (VALUES["exponential"], moved))
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_joint_without_mixture_in_the_scale_terms_is_additive() -> None:
    n, d, h = rows(np.random.default_rng(5), 10)
    x = Inputs(n_params=n, n_tokens=d, weights=h, own=np.array([[0]]), n_ref=N_REF, d_ref=D_REF)
    joint, additive = lawkit.laws.get("joint"), lawkit.laws.get("additive")
    flat = {
        **VALUES["joint"],
        "C_A": [0.6] * K,
        "gamma_A": 1.0,
        "C_B": [0.5] * K,
        "gamma_B": 1.0,
        "beta": 0.32,
    }
    same = {**VALUES["additive"], "A": 0.6 * N_REF**0.33, "B": 0.5 * D_REF**0.32}
    np.testing.assert_allclose(
        joint.function.value(joint.unconstrained(flat, N_REF, D_REF)[None], x),
        additive.function.value(additive.unconstrained(same, N_REF, D_REF)[None], x),
        rtol=1e-12,
    )


def test_bimix_is_finite_at_zero_weight() -> None:
    law = lawkit.laws.get("bimix")
    h = np.array([[0.0, 0.5, 0.5], [1e-4, 0.4999, 0.5]])
    x = Inputs(n_params=np.ones(2), n_tokens=np.full(2, D_REF), weights=h, own=np.array([[0]]), d_ref=D_REF)
    at_zero, at_floor = law.function.value(law.unconstrained(VALUES["bimix"], 1.0, D_REF)[None], x)[0, :, 0]
    assert at_zero == at_floor == pytest.approx(as_written("bimix", np.ones(1), np.full(1, D_REF), h[1:])[0])


def test_linear_is_least_squares_even_where_it_predicts_losses_below_zero() -> None:
    rng = np.random.default_rng(6)
    h = rng.dirichlet(np.full(K, 0.3), 60)
    losses = 0.05 + 5.0 * h[:, 0] ** 4 + 0.01 * rng.random(60)
    runs = Runs(
        sources=SOURCES, domains=("web",), n_params=None, n_tokens=None, weights=h, losses=losses[:, None]
    )
    fit = lawkit.fit(runs, law="linear", holdout="none")
    expected = np.linalg.lstsq(h, losses, rcond=None)[0]
    np.testing.assert_allclose(fit.parameters["web"]["w"], expected, atol=1e-8)
    assert (h @ expected).min() < 0
    assert np.isfinite(fit.covariance).all()


# ---- published figures -----------------------------------------------------------------------------------


def regmix(folder: Path, split: str, size: str) -> Runs:
    """The runs of one split: weights and losses of 17 sources and 13 domains, joined on `index`."""

    def read(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
        with path.open() as file:
            head, *lines = csv.reader(file)
        return head[1:], {line[0]: np.array(line[1:], float) for line in lines}

    sources, weights = read(folder / "regmix" / f"{split}_mixture_{size}.csv")
    domains, losses = read(folder / "regmix" / f"{split}_pile_loss_{size}.csv")
    both = [key for key in weights if key in losses]
    h = np.array([weights[key] for key in both])
    return Runs(
        sources=tuple(sources), domains=tuple(domains), n_params=None, n_tokens=None,
        weights=h / h.sum(1, keepdims=True), losses=np.array([losses[key] for key in both]),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "published"), [("linear", (0.831, 0.830)), ("exponential", (0.972, 0.967))])
def test_baselines_on_regmix(datasets: Path, name: str, published: tuple[float, float]) -> None:
    """Mean rank correlation over 13 losses on the 256 mixtures held back, at 1M and at 60M."""
    from scipy.stats import spearmanr

    fit = lawkit.fit(regmix(datasets, "train", "1m"), law=name, holdout="none")
    for size, expected in zip(("1m", "60m"), published, strict=True):
        test = regmix(datasets, "test", size)
        predicted = fit.losses(None, None, test.weights)
        ranks = [spearmanr(predicted[:, i], test.losses[:, i]).statistic for i in range(len(test.domains))]
        assert np.mean(ranks) == pytest.approx(expected, abs=2e-3)
