"""Published tables: the objectives that other people reached, or better ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lawkit
from published import chinchilla, gemstones


def test_chinchilla_without_the_five_highest_losses(datasets: Path) -> None:
    fit = lawkit.fit(chinchilla(datasets, 5), law="chinchilla", holdout="none")
    assert fit.estimate.cost[0] == pytest.approx(1.01827402e-3, rel=1e-8)
    found = fit.parameters["loss"]
    published = {"A": 477.826, "B": 2143.417, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
    for name, value in published.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name
    assert fit.estimate.starts_at_optimum[0] == 1.0
    assert fit.warnings == ()


def test_chinchilla_with_all_points_names_the_five_that_move_beta(datasets: Path) -> None:
    runs = chinchilla(datasets, 0)
    fit = lawkit.fit(runs, law="chinchilla", holdout="none")
    found = fit.parameters["loss"]
    assert found["B"] == pytest.approx(12846, rel=1e-4)
    assert found["beta"] == pytest.approx(0.453, abs=5e-4)
    highest = sorted(runs.rows[np.argsort(-runs.losses[:, 0])[:5]].tolist())
    (warning,) = fit.warnings
    assert f"rows {', '.join(map(str, highest))} beta is 0.367, not 0.453" in warning
    (moved,) = fit.diagnostics["influential"]["loss"]
    assert moved["rows"] == highest
    assert moved["without"] == pytest.approx(0.36717, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_chinchilla_whatever_the_seed(datasets: Path, seed: int) -> None:
    fit = lawkit.fit(chinchilla(datasets, 5), law="chinchilla", holdout="none", seed=seed)
    assert fit.estimate.cost[0] == pytest.approx(1.01827402e-3, rel=1e-8)


@pytest.mark.parametrize(("which", "published"), [("hot", 2.07506e-4), ("cool_end", 2.04780e-4)])
def test_gemstones(datasets: Path, which: str, published: float) -> None:
    runs = gemstones(datasets, which)
    fit = lawkit.fit(runs, law="chinchilla", delta=1e-4, holdout="none")
    assert fit.estimate.cost[0] <= published
    # The objective is what it says: summed here from the predictions.
    r = np.abs(np.log(fit.losses(runs.n_params, runs.n_tokens, runs.weights) / runs.losses))
    total = np.where(r <= 1e-4, r * r / 2, 1e-4 * (r - 5e-5)).sum()
    assert total == pytest.approx(fit.estimate.cost[0], rel=1e-9)
