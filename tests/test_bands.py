"""Bands beyond the runs: made of earlier forecasts, held to their coverage on published tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit.fitting.bands import ELASTICITY, LEVEL, Rolling, _Forecast, _line, compute, distances
from lawkit.runs import Runs
from published import chinchilla, gemstones, mixtures


def scale_runs(seed: int = 0, noise: float = 0.01, bend: float = 0.0, n: int = 90) -> Runs:
    """Runs of Chinchilla's law over three decades of compute; `bend` makes the loss stop falling."""
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(np.log([5e7, 1e9]), np.log([2e9, 6e10]), (n, 2))).T
    far = np.log(n_params * n_tokens / (5e7 * 1e9))
    loss = (1.8 + 480 / n_params**0.35 + 2000 / n_tokens**0.37) * np.exp(
        bend * far**2 + noise * rng.normal(size=n)
    )
    return Runs(
        sources=(), domains=("web",), n_params=n_params, n_tokens=n_tokens, weights=np.zeros((n, 0)),
        losses=loss[:, None],
    )  # fmt: skip


def cut(runs: Runs, share: float) -> tuple[Runs, Runs]:
    """The runs of least compute, and the others."""
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    order = runs.n_params * runs.n_tokens
    below = order <= np.quantile(order, share) * 1.0001
    return runs.select(below), runs.select(~below)


def coverage(train: Runs, test: Runs, law: str | None = None) -> tuple[float, float]:
    """Share of the test losses inside the 90% bands, and the median half width on log loss."""
    fit = lawkit.fit(train, law=law, holdout="none")
    band = fit.predict(test.n_params, test.n_tokens, test.weights if test.sources else None, interval=0.9)
    assert band.lower is not None
    assert band.upper is not None
    seen = ~np.isnan(test.losses)
    inside = (test.losses >= band.lower) & (test.losses <= band.upper)
    return float(inside[seen].mean()), float(np.median(np.log(band.upper / band.mean)))


# ---- published tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("table", ["chinchilla 240", "chinchilla 245", "gemstones hot", "gemstones cool_end"])
def test_ninety_percent_bands_cover_the_dearer_runs(datasets: Path, table: str, share: float) -> None:
    name, which = table.split()
    runs = chinchilla(datasets, 245 - int(which)) if name == "chinchilla" else gemstones(datasets, which)
    found, half = coverage(*cut(runs, share))
    assert found >= 0.85
    assert half < 0.15  # a band that says nothing would cover too


@pytest.mark.slow
@pytest.mark.parametrize("table", ["slimpajama7/runs_122M_310M.csv", "pile4/runs_90M_200M.csv"])
def test_ninety_percent_bands_cover_a_size_never_seen(datasets: Path, table: str) -> None:
    runs = mixtures(datasets / table, "{}_loss")
    runs = runs.select(np.asarray(~np.isnan(runs.losses).any(1)))
    assert runs.n_params is not None
    small, large = np.asarray(runs.n_params < 1.3e8), np.asarray(runs.n_params > 1.3e8)
    found, half = coverage(runs.select(small), runs.select(large))
    assert found >= 0.85
    assert half < 0.15


# ---- simulated tables ------------------------------------------------------------------------------------


def test_bands_hold_where_the_law_is_right_and_where_it_bends_away() -> None:
    right = [coverage(*cut(scale_runs(seed), 0.6), law="chinchilla") for seed in range(8)]
    assert np.mean([found for found, _ in right]) >= 0.88
    assert np.median([half for _, half in right]) < 3 * 1.645 * 0.01  # of the noise alone: 1.6%
    bent = [coverage(*cut(scale_runs(seed, bend=0.002), 0.6), law="chinchilla") for seed in range(8)]
    assert np.mean([found for found, _ in bent]) >= 0.85


def test_a_law_that_always_bent_away_is_said_to() -> None:
    runs = scale_runs(noise=1e-4, bend=0.002)
    fit = lawkit.fit(runs, law="chinchilla")
    assert fit.rolling is not None
    assert fit.rolling.bends_away
    assert fit.rolling.factor > 1
    assert any("bend away" in w for w in fit.warnings)
    assert not any("bend away" in w for w in lawkit.fit(scale_runs(), law="chinchilla").warnings)


def test_bands_widen_with_the_distance_and_say_how() -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    widths = []
    for factor in (1, 3, 30, 1000):
        band = fit.predict(2e9 * factor, 6e10, interval=0.9)
        assert band.upper is not None
        widths.append(np.log(band.upper / band.mean).item())
    assert widths == sorted(widths)
    assert widths[3] > 1.5 * widths[1]
    assert "rolling origin" in str(band.kind)
    assert fit.rolling is not None
    assert widths[3] >= fit.rolling.half_width(np.array([np.log(1000)]))[0, 0]
    inside = fit.predict(3e8, 5e9, interval=0.9)
    assert inside.kind == "Gauss-Newton posterior predictive"
    smaller = fit.predict(1e6, 5e9, interval=0.9)
    assert smaller.upper is not None
    assert inside.upper is not None
    assert np.log(smaller.upper / smaller.mean) > np.log(inside.upper / inside.mean)


def test_a_size_that_never_varied_is_a_guess() -> None:
    runs = scale_runs()
    one_size = replace(runs, n_params=np.full(len(runs), 1e9))
    fit = lawkit.fit(one_size, law="chinchilla-data", holdout="none")
    band = fit.predict(1e10, 1e10, interval=0.9)
    assert band.upper is not None
    assert np.log(band.upper / band.mean).item() >= ELASTICITY * np.log(10)
    assert "never varied" in str(band.kind)
    same = fit.predict(1e9, 1e10, interval=0.9)
    assert "never varied" not in str(same.kind)


def test_too_few_runs_for_an_earlier_fit_are_said() -> None:
    fit = lawkit.fit(scale_runs(n=6), law="chinchilla", holdout="none")
    assert fit.rolling is None
    assert "too few for an earlier forecast" in str(fit.predict(1e12, 1e12, interval=0.9).kind)


def test_what_the_holdout_reports_is_the_coverage_of_the_bands() -> None:
    runs = scale_runs(bend=0.002, noise=0.003)
    fit = lawkit.fit(runs, law="chinchilla")
    assert fit.holdout is not None
    kept, test = cut(runs, 0.8)
    found, _ = coverage(kept, test, "chinchilla")
    assert fit.holdout["coverage_90"] == pytest.approx(found)
    assert fit.holdout["coverage_90_plain"] < fit.holdout["coverage_90"]


def test_what_was_learnt_is_saved_and_what_was_not_is_made_again(tmp_path: Path) -> None:
    runs = scale_runs()
    judged = lawkit.fit(runs, law="chinchilla")
    judged.save(tmp_path / "judged")
    again = lawkit.load_fit(tmp_path / "judged")
    assert "rolling" in again.__dict__
    quick = lawkit.fit(runs, law="chinchilla", holdout="none")
    assert "rolling" not in quick.__dict__
    quick.save(tmp_path / "quick")
    loaded = lawkit.load_fit(tmp_path / "quick")
    assert "rolling" not in loaded.__dict__
    bands = [f.predict(1e11, 1e12, interval=0.9).upper for f in (judged, again, quick, loaded)]
    assert len({float(b[0, 0]) for b in bands if b is not None}) == 1


# ---- parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_line_is_the_linear_quantile_regression(seed: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    distance = rng.uniform(0, 3, 200)
    error = np.abs(rng.normal(size=200)) * (0.01 + 0.02 * distance * (seed != 3))

    def loss(a: float, b: float) -> float:
        left = error - a - b * distance
        return float(np.where(left > 0, LEVEL * left, (LEVEL - 1) * left).sum())

    eye = np.eye(200)
    best = linprog(
        np.r_[0, 0, np.full(200, LEVEL), np.full(200, 1 - LEVEL)],
        A_eq=np.c_[np.ones(200), distance, eye, -eye], b_eq=error, bounds=(0, None),
    )  # fmt: skip
    assert loss(*_line(distance, error)) <= best.fun * (1 + 1e-3)


def test_one_distance_gives_half_a_constant_and_half_a_slope() -> None:
    a, b = _line(np.full(20, 0.5), np.linspace(0.01, 0.02, 20))
    assert a + 0.5 * b == pytest.approx(np.quantile(np.linspace(0.01, 0.02, 20), LEVEL, method="higher"))
    assert a == pytest.approx(0.5 * b)


def test_distances_count_corners_sums_and_what_is_missing() -> None:
    runs = scale_runs()
    fit = lawkit.fit(runs, law="chinchilla", holdout="none")
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    most = (runs.n_params * runs.n_tokens).max()
    n, d = runs.n_params.max(), runs.n_tokens.max()
    points = np.array([(n, d), (10 * n, d / 50), (runs.n_params.min() / 7, 1e10), (1e9, 1e10)])
    found, guess = distances(fit, fit.estimate.inputs(np.zeros((4, 0)), *points.T))
    expected = [np.log(n * d / most), np.log(10), np.log(7), 0.0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not guess.any()


def test_compute_is_of_the_sizes_that_vary() -> None:
    runs = scale_runs()
    assert runs.n_params is not None
    one = replace(runs, n_params=np.full(len(runs), 1e9))
    np.testing.assert_array_equal(compute(one), one.n_tokens)  # type: ignore[arg-type]
    assert compute(replace(one, n_tokens=None)) is None


def test_half_widths_are_the_larger_of_own_and_pooled() -> None:
    rolling = Rolling(
        lines=np.array([[0.01, 0.0], [0.0, 0.05]]), pooled=np.array([0.0, 0.02]), reach=1.0, factor=1.0,
        origins=3, errors=99, mean_error=np.zeros((3, 2)),
    )  # fmt: skip
    np.testing.assert_allclose(rolling.half_width(np.array([0.0, 2.0])), [[0.01, 0.0], [0.04, 0.1]])


def test_forecasts_without_error_lean_nowhere() -> None:
    zero, unknown = np.zeros((3, 1)), np.full((3, 1), np.nan)
    for error, lean in ((zero, 0.0), (unknown, 0.0), (zero + 0.5, 1.0), (zero - 0.5, -1.0)):
        assert _Forecast(np.arange(3), np.ones(3), error, zero).lean == lean
