"""lawkit.fit: known parameters come back, doubts are voiced, and bad tables are one clear message."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lawkit
from lawkit import laws
from lawkit.errors import FitError, LawError, LawkitError
from lawkit.fitting.diagnostics import exponents
from lawkit.fitting.estimate import EXACT
from lawkit.fitting.holdout import split
from lawkit.fitting.posterior import posterior
from lawkit.fitting.prepare import fitted_cells, prepare
from lawkit.runs import Runs, check_runs

TRUTH = {"E": 1.7, "A": 420.0, "B": 1900.0, "alpha": 0.34, "beta": 0.36}


def grid(sizes: int = 5, budgets: int = 5) -> tuple[np.ndarray, np.ndarray]:
    n, d = np.meshgrid(np.geomspace(5e7, 3e9, sizes), np.geomspace(1e9, 1e11, budgets), indexing="ij")
    return n.ravel(), d.ravel()


def chinchilla(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    t = TRUTH
    return t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]


def scale_runs(noise: float = 0.0, seed: int = 0, **grid_of: int) -> Runs:
    n, d = grid(**grid_of)
    loss = chinchilla(n, d) * np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))
    return Runs(
        sources=(),
        domains=("web",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((len(n), 0)),
        losses=loss[:, None],
    )


def mixture_runs(n: int = 60, seed: int = 0) -> Runs:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), n)
    losses = np.column_stack([2.0 + np.exp(-1.0 - weights @ t) for t in ([1.5, 0.2, -0.4], [0.1, 2.0, 0.3])])
    return Runs(
        sources=("a", "b", "c"),
        domains=("a", "web"),
        n_params=None,
        n_tokens=None,
        weights=weights,
        losses=losses * np.exp(rng.normal(0, 1e-3, losses.shape)),
    )


# ---- known parameters come back -------------------------------------------------------------------------


def test_exact_losses_give_exact_parameters() -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    for name, value in TRUTH.items():
        assert fit.parameters["web"][name] == pytest.approx(value, rel=1e-6), name
    assert fit.train["mre"] == pytest.approx(0.0, abs=1e-9)
    assert fit.warnings == ()


@pytest.mark.parametrize("delta", [None, 1e-2])
def test_noisy_losses_give_parameters_within_their_errors(delta: float | None) -> None:
    """Over 20 tables, the deviations in posterior standard errors have a spread near 1."""
    deviations = []
    for seed in range(20):
        runs = scale_runs(noise=0.005, seed=seed, sizes=7, budgets=7)
        fit = lawkit.fit(runs, law="chinchilla", holdout="none", delta=delta)
        truth = fit.law.unconstrained(TRUTH, fit.reference["n_params"], fit.reference["n_tokens"])
        deviations.append((fit.z[0] - truth) / np.sqrt(np.diag(fit.covariance[0])))
        assert fit.noise[0] == pytest.approx(0.005, rel=0.4)
    # Huber's fit with a threshold far under the noise is nearly that of least absolute deviations: 1.25 times wider.
    assert 0.7 < np.std(deviations) < 1.6
    assert np.abs(np.mean(deviations, 0)).max() < 0.8


def test_a_missing_loss_is_left_out_of_its_domain_only() -> None:
    runs = scale_runs(noise=0.002)
    both = np.repeat(runs.losses, 2, 1)
    both[3, 1] = np.nan
    fit = lawkit.fit(replace(runs, domains=("web", "wiki"), losses=both), law="chinchilla", holdout="none")
    alone = lawkit.fit(runs.select(np.arange(25) != 3), law="chinchilla", holdout="none")
    full = lawkit.fit(runs, law="chinchilla", holdout="none")
    for name in TRUTH:
        assert fit.parameters["web"][name] == pytest.approx(full.parameters["web"][name], rel=1e-5)
        assert fit.parameters["wiki"][name] == pytest.approx(alone.parameters["web"][name], rel=1e-3)


def test_the_order_of_rows_and_domains_does_not_matter() -> None:
    runs = mixture_runs()
    straight = lawkit.fit(runs, law="exponential", holdout="none")
    turned = lawkit.fit(
        runs.select(np.arange(len(runs))[::-1]), law="exponential", holdout="none", domains=["web", "a"]
    )
    at = np.full((1, 3), 1 / 3)
    np.testing.assert_allclose(
        straight.losses(None, None, at), turned.losses(None, None, at)[:, ::-1], rtol=1e-6
    )


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = (
        lawkit.fit(scale_runs(noise=0.01), law="chinchilla", holdout=0.3, seed=4) for _ in range(2)
    )
    assert np.array_equal(first.z, second.z)
    assert first.to_dict() == second.to_dict()


# ---- choice of law --------------------------------------------------------------------------------------


def test_the_columns_choose_the_law() -> None:
    runs = scale_runs()
    assert lawkit.fit(runs, holdout="none").law.name == "chinchilla"
    one_size = replace(runs, n_params=np.full(25, 1e9))
    assert lawkit.fit(one_size, holdout="none").law.name == "chinchilla-data"
    one_budget = replace(runs, n_tokens=None)
    assert lawkit.fit(one_budget, holdout="none").law.name == "chinchilla-model"
    assert "weights" in lawkit.fit(mixture_runs(), holdout="none", starts=1).law.columns
    with pytest.raises(FitError, match="no law can be fitted"):
        lawkit.fit(replace(runs, n_params=None, n_tokens=None))


def test_a_law_may_be_an_instance_and_a_formula_a_string() -> None:
    runs = scale_runs()
    by_instance = lawkit.fit(runs, law=laws.get("chinchilla"), holdout="none")
    by_formula = lawkit.fit(runs, formula="E + A/N**alpha + B/D**beta", holdout="none")
    np.testing.assert_allclose(
        by_instance.losses(1e10, 1e12, np.zeros((1, 0))),
        by_formula.losses(1e10, 1e12, np.zeros((1, 0))),
        rtol=1e-6,
    )


def test_domains_without_their_source_are_left_out_and_said() -> None:
    runs = replace(mixture_runs(), n_tokens=np.exp(np.linspace(21, 24, 60)))
    fit = lawkit.fit(runs, law="bimix", holdout="none")
    assert fit.domains == ("a",)
    assert any("'web' is not a source" in w for w in fit.warnings)


def test_min_weight_leaves_out_cells_of_absent_sources() -> None:
    runs = mixture_runs()
    own = np.array([0, -1])
    cells = fitted_cells(runs, own, 0.2)
    assert cells[:, 1].all()
    np.testing.assert_array_equal(cells[:, 0], runs.weights[:, 0] >= 0.2)
    fit = lawkit.fit(runs, law="linear", min_weight=0.2, holdout="none")
    kept = lawkit.fit(runs.select(cells[:, 0]), law="linear", holdout="none")
    assert fit.domain_train["a"]["mre"] == pytest.approx(kept.domain_train["a"]["mre"], rel=1e-6)


# ---- hold-out, predictions, bands -----------------------------------------------------------------------


def test_scale_holds_out_the_largest_size_and_scores_a_fit_without_it() -> None:
    runs = scale_runs(noise=0.004)
    fit = lawkit.fit(runs, law="chinchilla")
    assert fit.holdout is not None
    assert fit.holdout["what"] == "n_params 3e+09"
    assert fit.holdout["n_runs"] == 5
    largest = runs.n_params == runs.n_params.max()  # type: ignore[union-attr]
    part = lawkit.fit(runs.select(~largest), law="chinchilla", holdout="none")
    test = runs.select(largest)
    by_hand = np.mean(np.abs(part.predict(test.n_params, test.n_tokens).mean / test.losses - 1))
    assert fit.holdout["mre"] == pytest.approx(by_hand, rel=1e-9)


def test_what_is_held_out() -> None:
    runs = scale_runs()
    held, what = split(replace(runs, n_params=None), "scale", 0)  # type: ignore[misc]
    assert held.sum() == 5
    assert what.startswith("n_tokens")
    spread = np.random.default_rng(0).uniform(1, 30, 25) * 1e8
    held, what = split(replace(runs, n_params=spread), "scale", 0)  # type: ignore[misc]
    assert held.sum() == 5
    assert "most compute" in what
    same_compute = replace(runs, n_params=spread, n_tokens=1e19 / spread)
    assert 0 < split(same_compute, "scale", 0)[0].sum() < 25  # type: ignore[index]
    held, what = split(mixture_runs(), "scale", 0)  # type: ignore[misc]
    assert held.sum() == 12
    ids = np.array([f"run-{i // 5}" for i in range(25)], object)
    held, _ = split(replace(runs, run_id=ids), 0.4, 1)  # type: ignore[misc]
    assert held.sum() == 10
    assert {tuple(held[i : i + 5]) for i in range(0, 25, 5)} == {(True,) * 5, (False,) * 5}
    twice = runs.select(np.repeat(np.arange(25), 2))
    repeated = replace(twice, run_id=np.array([f"run-{i}" for i in range(50)], object))
    held, _ = split(repeated, 0.4, 1)  # type: ignore[misc]
    assert (held[::2] == held[1::2]).all()
    assert held.sum() == 20
    assert split(runs, "none", 0) is None
    assert split(runs.select([0]), "scale", 0) is None


@pytest.mark.parametrize("holdout", ["largest", 0.0, 1.0, -1, "1.5", float("nan"), [1]])
def test_an_impossible_holdout_is_refused(holdout: Any) -> None:
    with pytest.raises(FitError, match="holdout must be"):
        lawkit.fit(scale_runs(), law="chinchilla", holdout=holdout)


def test_too_few_runs_to_hold_out_is_a_warning() -> None:
    fit = lawkit.fit(scale_runs(noise=1e-3, sizes=2, budgets=3), law="chinchilla")
    assert fit.holdout is None
    assert any("nothing could be held out" in w for w in fit.warnings)


def test_bands_cover_what_they_say_inside_the_data() -> None:
    inside = []
    for seed in range(15):
        runs = scale_runs(noise=0.01, seed=seed, sizes=6, budgets=6)
        fit = lawkit.fit(runs, law="chinchilla", holdout="none")
        n, d = grid(4, 4)
        fresh = chinchilla(n, d) * np.exp(0.01 * np.random.default_rng(100 + seed).normal(size=16))
        band = fit.predict(n, d, interval=0.8)
        assert band.lower is not None
        assert band.upper is not None
        inside += list((fresh >= band.lower[:, 0]) & (fresh <= band.upper[:, 0]))
    assert 0.7 < np.mean(inside) < 0.9


def mixed_scales(noise: float = 0.0, n: int = 60, seed: int = 0) -> Runs:
    """Two sources, each a domain, at several scales; the loss is a power of the own weight."""
    rng = np.random.default_rng(seed)
    sizes = {
        "n_params": rng.choice([1e8, 3e8, 1e9], n),
        "n_tokens": rng.choice([1e9, 4e9, 1.6e10, 6.4e10], n),
    }
    weights = rng.dirichlet(np.ones(2), n)
    losses = chinchilla(**{k[2]: v for k, v in zip(("n_n", "n_d"), sizes.values(), strict=True)})[:, None]
    losses = losses * (weights + 0.05) ** -0.1 * np.exp(noise * rng.normal(size=(n, 2)))
    return Runs(
        sources=("a", "b"),
        domains=("a", "b"),
        weights=weights,
        losses=losses,
        n_params=sizes["n_params"],
        n_tokens=sizes["n_tokens"],
    )


def test_a_prediction_is_held_at_the_highest_loss_seen_above_a_run() -> None:
    runs = mixed_scales()
    fit = lawkit.fit(runs, law="additive", holdout="none", starts=2)
    high = replace(fit, estimate=replace(fit.estimate, z=fit.z + 3.0 * (np.arange(fit.z.shape[1]) == 0)))
    even = np.array([[0.5, 0.5]])
    prediction = high.predict(1e9, 1e10, even)
    assert prediction.capped == 2
    assert prediction.mean[0].tolist() == runs.losses.max(0).tolist()
    below = high.predict(1e7, 1e10, even)  # smaller than any run: may well be worse
    assert below.capped == 0
    assert (below.mean > runs.losses.max(0)).all()


def test_points_between_the_runs_of_an_anti_diagonal_are_not_held() -> None:
    """Small models saw many tokens and large ones few: nothing was seen of a small model with few tokens."""
    n, d = np.geomspace(1e7, 1e10, 9), np.geomspace(1e12, 1e9, 9)
    share = np.linspace(0.1, 0.9, 9)
    loss = chinchilla(n, d)
    runs = Runs(
        sources=("a", "b"), domains=("web",), n_params=n, n_tokens=d,
        weights=np.column_stack([share, 1 - share]), losses=loss[:, None],
    )  # fmt: skip
    truth = chinchilla(np.array([1e7]), np.array([1e9]))[0]
    assert truth > 1.15 * loss.max()
    scale_only = lawkit.fit(runs, law="chinchilla", holdout="none").predict(1e7, 1e9)
    assert scale_only.mean[0, 0] == pytest.approx(truth, rel=1e-3)
    mixed = lawkit.fit(runs, formula="E + A/N**alpha + B/D**beta + c*w_a", holdout="none")
    assert "weights" in mixed.law.columns
    assert mixed.predict(1e7, 1e9, np.array([[0.5, 0.5]])).capped == 0


def test_training_errors_are_those_of_predict() -> None:
    share = np.linspace(0, 1, 21)
    loss = 3.0 - np.maximum(share - 0.5, 0.0)  # a line through this lies above it where it is flat
    runs = Runs(
        sources=("a", "b"), domains=("web",), n_params=None, n_tokens=None,
        weights=np.column_stack([share, 1 - share]), losses=loss[:, None],
    )  # fmt: skip
    fit = lawkit.fit(runs, law="linear", holdout="none")
    found = fit.predict(weights=runs.weights)
    assert fit.losses(None, None, runs.weights).max() > 3.0
    assert found.capped > 0
    assert found.mean.max() == 3.0
    assert fit.train["mre"] == np.mean(np.abs(found.mean - runs.losses) / runs.losses)


def test_noise_falls_with_the_weight_of_a_run() -> None:
    runs = mixed_scales(noise=0.01)
    fit = lawkit.fit(runs, law="transfer", holdout="none")
    power = fit.estimate.objective.token_power
    assert power == 0.5
    at = fit.noise_at(np.array([1e9, 1.6e10, 6.4e10, 1e15]))
    np.testing.assert_allclose(at[0] / at[1], 16**0.25)
    np.testing.assert_array_equal(at[2], at[3])  # no more exact than the most exact run
    weight = runs.n_tokens**power  # type: ignore[operator]
    np.testing.assert_allclose(1 / (1 / fit.noise_at(runs.n_tokens) ** 2).mean(0), fit.noise**2)  # type: ignore[arg-type]
    sure = replace(fit, estimate=replace(fit.estimate, covariance=np.zeros_like(fit.covariance)))
    band = sure.predict(1e8, 1e9, np.array([[0.5, 0.5]]), interval=0.9)
    half = 1.6448536 * fit.noise / np.sqrt(1e9**power / weight.mean())
    np.testing.assert_allclose(np.log(band.upper / band.mean)[0], half, rtol=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"n_params": 0.0, "n_tokens": 1e9}, "n_params must be positive"),
        ({"n_params": 1e9, "n_tokens": float("nan")}, "n_tokens must be positive"),
        ({"n_params": [1e9, 2e9], "n_tokens": [1e9, 2e9, 3e9]}, "one row per point"),
        ({"n_params": 1e9, "n_tokens": 1e9, "weights": [[0.5, 0.5]]}, "weights need one column"),
        ({"n_params": 1e9, "n_tokens": 1e9, "interval": 1.5}, "interval must lie"),
    ],
)
def test_points_that_cannot_be_predicted(asked: dict[str, Any], said: str) -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    with pytest.raises(FitError, match=said):
        fit.predict(**asked)


def test_points_broadcast() -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    many = fit.predict([1e9, 2e9], 1e10).mean
    assert many.shape == (2, 1)
    assert many[1, 0] == fit.predict(2e9, 1e10).mean[0, 0]
    mixed = lawkit.fit(mixture_runs(), law="linear", holdout="none")
    assert mixed.predict(weights=np.eye(3)).mean.shape == (3, 2)
    with pytest.raises(FitError, match="needs weights"):
        mixed.predict(1e9, 1e9)
    with pytest.raises(FitError, match=r"not negative, got -0\.5 for a in point 1"):
        mixed.predict(weights=np.array([[-0.5, 1.0, 0.5]]))
    with pytest.raises(FitError, match="not negative, got inf for c in point 2"):
        mixed.predict(weights=np.array([[0.5, 0.5, 0.0], [0.5, 0.0, np.inf]]))
    with pytest.raises(FitError, match=r"point 1 sum to 0\.9: divide them by their sum"):
        mixed.predict(weights=np.array([[0.5, 0.3, 0.1]]))
    thirds = mixed.predict(weights=np.array([[0.3333, 0.3333, 0.3333]])).mean
    np.testing.assert_allclose(thirds, mixed.predict(weights=np.full((1, 3), 1 / 3)).mean, rtol=1e-12)


def test_checkpoints_and_standard_errors_that_a_fit_does_not_heed_are_said() -> None:
    runs = scale_runs()
    runs = replace(runs, is_final=np.arange(25) % 5 == 4, losses_se=np.full((25, 1), 0.01))
    said = lawkit.fit(runs, law="chinchilla", holdout="none", starts=2).warnings
    assert "20 of 25 rows are intermediate checkpoints (is_final false), fitted as if finished" in said
    assert "loss_web_se is not used yet: all losses count alike" in said
    done = replace(runs, is_final=np.ones(25, bool), losses_se=np.full((25, 1), np.nan))
    said = lawkit.fit(done, law="chinchilla", holdout="none", starts=2).warnings
    assert not any("is_final" in w or "_se" in w for w in said)


# ---- diagnostics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_runs_that_carry_an_exponent_are_named(count: int) -> None:
    """Diverged runs hide each other from measures that take them one by one; a wide threshold lets them pull."""
    runs = scale_runs(noise=0.003, sizes=9, budgets=9)
    bad = np.argsort(runs.n_tokens)[:count]  # type: ignore[arg-type]
    losses = runs.losses.copy()
    losses[bad] *= 1.5
    fit = lawkit.fit(replace(runs, losses=losses), law="chinchilla", holdout="none", delta=1.0)
    named = {row for moved in fit.diagnostics["influential"]["web"] for row in moved["rows"]}
    assert named == set(runs.rows[bad].tolist())
    assert any(w.startswith("few runs carry much of the fit of web: without row") for w in fit.warnings)


def test_clean_tables_raise_no_alarm() -> None:
    for seed in range(12):
        fit = lawkit.fit(
            scale_runs(noise=0.01, seed=seed, sizes=6, budgets=6), law="chinchilla", holdout="none"
        )
        assert not any("few runs" in w for w in fit.warnings), seed


def test_exponents_are_found_in_the_expression() -> None:
    assert exponents(laws.get("chinchilla")) == ["alpha", "beta"]
    assert exponents(laws.get("kaplan")) == ["alpha_N", "alpha_D"]
    assert exponents(laws.get("exponential")) == []


def test_too_few_scales_and_scales_that_move_together() -> None:
    two = lawkit.fit(scale_runs(noise=1e-3, sizes=2, budgets=6), law="chinchilla", holdout="none")
    assert any(w.startswith("n_params takes two values only") for w in two.warnings)
    runs = scale_runs(noise=1e-3)
    tied = replace(runs, n_params=runs.n_tokens / 20)  # type: ignore[operator]
    fit = lawkit.fit(tied, law="chinchilla", holdout="none")
    assert sum("move together (correlation 1.000 of their logarithms)" in w for w in fit.warnings) == 1
    read = replace(tied, warnings=tuple(f.message for f in check_runs(tied) if f.level == "warning"))
    again = lawkit.fit(read, law="chinchilla", holdout="none")
    assert sum("move together" in w for w in again.warnings) == 1
    blind = lawkit.fit(tied, law="chinchilla-data", holdout="none")
    assert not any("move together" in w for w in blind.warnings)


def test_directions_that_change_no_prediction_are_not_undetermined() -> None:
    """Adding a number to every t of the exponential law and taking it off log k is no change."""
    fit = lawkit.fit(mixture_runs(), law="exponential", holdout="none")
    assert not any("undetermined" in w for w in fit.warnings)
    assert max(fit.diagnostics["condition_number"]) < 1e10
    runs = mixture_runs()
    fixed = replace(
        runs, weights=np.column_stack([runs.weights[:, :2].sum(1) / 2] * 2 + [runs.weights[:, 2]])
    )
    said = lawkit.fit(
        fixed, law="exponential", holdout="none"
    ).warnings  # the first two always in equal parts
    (warning,) = [w for w in said if "undetermined" in w]
    assert "e+300" not in warning


def test_starts_that_all_fit_exact_losses_agree() -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    ready = prepare(fit.runs, fit.law, fit.estimate.objective)
    near = ready.problem.cost(fit.z + 1e-8, np.zeros(1, int))
    assert near > 1e6 * fit.estimate.cost
    assert near < ready.problem.cost_of(EXACT)
    assert fit.estimate.starts_at_optimum == 1


def test_sizes_within_two_percent_are_one_scale() -> None:
    runs = scale_runs()
    jitter = np.random.default_rng(0).uniform(0.997, 1.003, (2, 25))
    runs = replace(runs, n_params=runs.n_params * jitter[0], n_tokens=runs.n_tokens * jitter[1])  # type: ignore[operator]
    context = prepare(runs, laws.get("chinchilla"), laws.get("chinchilla").objective).context
    assert (context.n_model_sizes, context.n_scales) == (5, 25)
    one = replace(runs, n_params=1e9 * jitter[0], n_tokens=1e10 * jitter[1])
    assert prepare(one, laws.get("chinchilla"), laws.get("chinchilla").objective).context.n_scales == 1


def test_every_domain_with_too_few_losses_is_named() -> None:
    runs = scale_runs()
    losses = np.repeat(runs.losses, 4, 1)
    losses[:, 1:3] = np.nan
    runs = replace(runs, domains=("a", "b", "c", "d"), losses=losses)
    with pytest.raises(FitError, match="no loss to fit of domains b, c: leave them out"):
        lawkit.fit(runs, law="chinchilla")
    losses = losses.copy()
    losses[:2, 1], losses[:1, 2] = 3.0, 3.0
    with pytest.raises(FitError, match="2 losses of b, 1 loss of c for 5 parameters"):
        lawkit.fit(replace(runs, losses=losses), law="chinchilla")


def test_a_parameter_at_its_edge_and_undetermined_directions_are_said() -> None:
    """Losses that stop falling with the tokens leave B and beta without evidence."""
    loss = 1.7 + 420 / grid()[0] ** 0.34
    runs = replace(scale_runs(), losses=loss[:, None])
    fit = lawkit.fit(runs, law="chinchilla", holdout="none")
    assert any("B (web)" in w or "undetermined" in w for w in fit.warnings), fit.warnings


def test_a_constant_domain_is_said() -> None:
    runs = replace(scale_runs(), losses=np.full((25, 1), 2.5))
    fit = lawkit.fit(runs, law="chinchilla", holdout="none")
    assert any("loss_web is 2.5 in all 25 runs" in w for w in fit.warnings)


def test_few_starts_that_agree_is_said() -> None:
    fit = lawkit.fit(mixture_runs(), law="exponential", holdout="none")
    assert 0 < fit.estimate.starts_at_optimum.min() <= 1
    low = replace(fit.estimate, starts_at_optimum=np.array([0.25, 1.0]))
    from lawkit.fitting.diagnostics import diagnose

    ready = prepare(fit.runs, fit.law, fit.estimate.objective)
    _, said = diagnose(fit.runs, low, ready, 8)
    assert said[0].startswith("under half of 8 starts reached the best objective for a:")


def test_weights_do_not_count_runs_twice() -> None:
    """Noise and covariance are the same when all weights are, whatever their size and whatever is missing."""
    runs = scale_runs(noise=0.01)
    losses = runs.losses.copy()
    losses[:8] = np.nan
    law = laws.get("chinchilla")
    z = law.unconstrained(TRUTH, 1e9, 1e10)[None]
    found = []
    for weight in (1.0, 3.0):
        ready = prepare(replace(runs, losses=losses), law, law.objective)
        ready.problem.target.cell_weights[...] *= weight
        found.append(posterior(ready.problem, z))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-9)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)


def test_members_of_an_average_that_agree_give_its_band_the_width_of_one() -> None:
    """Two members that err alike are no more certain together than alone."""
    from lawkit.laws._average import Average

    class Twice(Average):
        name = "twice"
        title = "Twice"

    member = laws.get("transfer-plain")
    runs = replace(mixture_runs(), n_params=np.full(60, 1e8), n_tokens=np.tile([1e9, 2e9, 4e9], 20))
    alone = lawkit.fit(runs, law=member, holdout="none")
    twice = lawkit.fit(runs, law=Twice(member, member), holdout="none")
    points: dict[str, Any] = {"n_params": 1e8, "n_tokens": 2e9, "weights": np.eye(3), "interval": 0.9}
    one, two = alone.predict(**points), twice.predict(**points)
    np.testing.assert_allclose(two.mean, one.mean, rtol=1e-6)
    widths = [np.log(np.asarray(p.upper) / p.mean) for p in (one, two)]
    assert (widths[1] <= widths[0] * 1.001).all()
    assert (widths[1] >= widths[0] * 0.9).all()
    assert (np.linalg.eigvalsh(twice.covariance) > -1e-9 * np.abs(twice.covariance).max()).all()


# ---- bad input ------------------------------------------------------------------------------------------


def changed(**columns: Any) -> Runs:
    return replace(scale_runs(), **columns)


def with_cell(column: str, value: float) -> Runs:
    runs = scale_runs()
    values = getattr(runs, column).copy()
    values.flat[6] = value
    return replace(runs, **{column: values})


@pytest.mark.parametrize(
    ("runs", "options", "said"),
    [
        (scale_runs().select([]), {}, "the runs table is empty"),
        (replace(scale_runs(), domains=(), losses=np.zeros((25, 0))), {}, "no loss_<domain> column"),
        (scale_runs().select([0]), {"law": "chinchilla"}, "one run only"),
        (scale_runs().select([0, 1, 7, 9]), {"law": "chinchilla"}, "4 losses of web for 5 parameters of law"),
        (with_cell("losses", 0.0), {}, r"loss_web must be positive and finite, got .*0\.0.* in row 7"),
        (with_cell("losses", np.inf), {}, "loss_web must be positive and finite, got .*inf.* in row 7"),
        (with_cell("n_params", -1.0), {}, r"n_params must be positive and finite, got .*-1\.0.* in row 7"),
        (with_cell("n_tokens", np.nan), {}, "n_tokens must be positive and finite, got .*nan.* in row 7"),
        (changed(losses=np.full((25, 1), np.nan)), {"law": "chinchilla"}, "no loss to fit of domain web"),
        (
            scale_runs(),
            {"law": "exponential"},
            "needs mixture weights; the table has no weight_<source> column",
        ),
        (scale_runs(), {"law": "chincilla"}, "did you mean 'chinchilla'"),
        (scale_runs(), {"domains": ["wbe"]}, "Did you mean 'web'"),
        (scale_runs(), {"delta": 0.0}, "delta must be a positive number, got 0.0"),
        (scale_runs(), {"delta": float("inf")}, "delta must be a positive number"),
        (scale_runs(), {"starts": 0}, "starts must be at least 1"),
        (scale_runs(), {"min_weight": 2.0}, "min_weight must lie between"),
        (scale_runs(), {"law": "chinchilla", "formula": "E"}, "a law or a formula, not both"),
        (mixture_runs(), {"law": "chinchilla"}, "needs the column n_params"),
        (mixture_runs(), {"law": "data-constrained"}, "needs"),
        (mixture_runs(), {"law": "capacity"}, "needs every source to be an evaluation domain"),
    ],
)
def test_what_cannot_be_fitted_is_one_message(runs: Runs, options: dict[str, Any], said: str) -> None:
    with pytest.raises(LawkitError, match=said) as caught:
        lawkit.fit(runs, **options)
    assert "\n" not in str(caught.value)


def test_missing_unique_tokens_name_their_rows() -> None:
    runs = mixture_runs()
    unique = np.full((60, 3), 1e9)
    unique[4, 1] = np.nan
    runs = replace(runs, n_params=np.full(60, 1e8), n_tokens=np.full(60, 1e9), unique=unique)
    with pytest.raises(FitError, match="unique_<source> is empty in row 5"):
        lawkit.fit(runs, law="data-constrained")


@pytest.mark.parametrize(
    "runs",
    [
        changed(n_params=np.full(25, 1e9), n_tokens=np.full(25, 1e10)),
        changed(losses=np.full((25, 1), 1e-9)),
        changed(losses=scale_runs().losses * 1e-12),
        changed(losses=scale_runs().losses * 1e12),
        changed(n_params=np.full(25, 1e-300), n_tokens=np.full(25, 1e300)),
        changed(losses=np.exp(np.random.default_rng(0).normal(0, 3, (25, 1)))),
        changed(losses=scale_runs().losses[::-1]),
    ],
)
def test_odd_tables_are_fitted_without_a_word_from_numpy(runs: Runs) -> None:
    fit = lawkit.fit(runs, law="chinchilla")
    assert np.isfinite(fit.z).all()
    assert np.isfinite(fit.covariance).all()
    assert fit.predict(runs.n_params, runs.n_tokens, interval=0.9).mean.shape == (25, 1)
    assert fit.warnings


@st.composite
def tables(draw: st.DrawFn) -> tuple[Runs, str]:
    """Valid tables, however odd, and a law for them."""
    n = draw(st.integers(1, 24))
    sources = tuple("abc"[: draw(st.sampled_from([0, 1, 2, 3]))])
    domains = sources if sources and draw(st.booleans()) else ("x", "y")[: draw(st.integers(1, 2))]

    def column(low: float, high: float) -> np.ndarray:
        values = draw(st.lists(st.floats(np.log(low), np.log(high)), min_size=1, max_size=n))
        return np.exp(np.resize(values, n))

    losses = np.column_stack([column(1e-3, 1e3) for _ in domains])
    if draw(st.booleans()):
        losses[draw(st.integers(0, n - 1)), 0] = np.nan
    raw = np.column_stack([column(1e-6, 1.0) for _ in sources]) if sources else np.zeros((n, 0))
    if sources and draw(st.booleans()):
        raw[draw(st.integers(0, n - 1)), 0] *= 0.0 if len(sources) > 1 else 1.0
    weights = raw / raw.sum(1, keepdims=True) if sources else raw
    runs = Runs(
        sources=sources,
        domains=domains,
        n_params=column(1e3, 1e13) if draw(st.booleans()) else None,
        n_tokens=column(1e3, 1e15) if draw(st.booleans()) else None,
        weights=weights,
        losses=losses,
        unique=np.full((n, len(sources)), 1e9) if sources and draw(st.booleans()) else None,
    )
    return runs, draw(st.sampled_from(laws.names()))


@settings(max_examples=60)
@given(tables())
def test_any_valid_table_is_fitted_or_refused(case: tuple[Runs, str]) -> None:
    runs, law = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = lawkit.fit(runs, law=law, starts=2)
        except LawkitError:  # refused, in one message
            return
        assert np.isfinite(fit.z).all()
        band = fit.predict(runs.n_params, runs.n_tokens, runs.weights, runs.unique, interval=0.9)
    assert band.mean.shape == (len(runs), len(fit.domains))


def test_a_law_that_is_nowhere_finite_says_so() -> None:
    with pytest.raises((FitError, LawError)):
        lawkit.fit(scale_runs(), formula="E + A*exp(exp(N))")


def test_a_holdout_that_cannot_be_had_is_said():
    fitted = lawkit.fit(scale_runs(), law="chinchilla", holdout=0.999)
    assert fitted.holdout is None
    assert any("nothing was held out" in w or "nothing could be held out" in w for w in fitted.warnings)
