"""propose_runs: the value of a run, exact updates, batches, the certified bound, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import lawkit
from lawkit.design._criteria import criterion
from lawkit.design.batch import Limits, Valuation, greedy, replay
from lawkit.design.candidates import Candidates, corners, from_table, generate, ladder, space_filling
from lawkit.design.relaxation import least
from lawkit.design.value import (
    Posterior,
    Slopes,
    decision,
    log_slopes,
    mixed_derivatives,
    movable,
    prediction_factor,
    run_weights,
)
from lawkit.errors import OptimizeError
from lawkit.fitting import Fit
from lawkit.mixture import MixtureProblem
from lawkit.mixture.smooth import minimise
from lawkit.mixture.target import Target
from lawkit.runs import Runs, read_runs

GOAL: dict[str, Any] = {"n_params": 1e9, "n_tokens": 3e10}


def simulated(noise: float = 2e-3, n: int = 40, seed: int = 0) -> Runs:
    """Runs of three sources, each with an evaluation domain that it and, less, the others teach."""
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    losses = []
    for e in range(3):
        q, k = 0.15 + np.eye(3)[e], 0.2 + np.eye(3)[(e + 1) % 3] + (e + 1) * np.eye(3)[e]
        capacity, tokens = (((w * h**0.6).sum(1)) ** (1 / 0.6) for w in (q, k))
        losses.append(
            1.5 + 0.1 * e + ((n_params / 1e8 * capacity) ** -0.3 + (n_tokens / 3e9 * tokens) ** -0.35) ** 0.7
        )
    observed = np.array(losses).T * np.exp(noise * rng.normal(size=(n, 3)))
    names = ("web", "code", "math")
    return Runs(
        sources=names, domains=names, n_params=n_params, n_tokens=n_tokens, weights=h, losses=observed
    )


@pytest.fixture(scope="module", autouse=True)
def _fewer():
    """Thousands of candidates show what tens of thousands do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lawkit.design.candidates.MOST", 4000)
        yield


@pytest.fixture(scope="module")
def fit() -> Fit:
    return lawkit.fit(simulated(), law="transfer-plain", holdout="none")


@pytest.fixture(scope="module")
def coupled() -> Fit:
    return lawkit.fit(simulated(), law="capacity", holdout="none")


@pytest.fixture(scope="module")
def chosen(fit: Fit) -> lawkit.design.Proposal:
    return lawkit.propose_runs(fit, **GOAL, budget=1e19, n=6)


def at_goal(fit: Fit, unique: np.ndarray | None = None) -> Target:
    return Target(fit, GOAL["n_params"], GOAL["n_tokens"], unique)


def known(value: Any) -> Any:
    """A value that must not be None."""
    assert value is not None
    return value


def problem_of(fit: Fit, **limits) -> MixtureProblem:
    return MixtureProblem.build(fit.sources, fit.domains, **limits)


def optimum(fit: Fit, problem: MixtureProblem, start: np.ndarray | None = None) -> np.ndarray:
    def derivatives(h: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        loss, gradient, hessian = fit.weights_derivatives(1e9, 3e10, h)
        v = problem.target
        return float(v @ loss), np.asarray(v @ gradient), np.tensordot(v, hessian, 1)

    return minimise(derivatives, problem, start=start, barrier=1e-2 if start is None else 1e-8).h


def small_pool(fit: Fit, count: int = 40, seed: int = 3) -> Candidates:
    rng = np.random.default_rng(seed)
    n_params, n_tokens = rng.choice([5e7, 1e8, 3e8], count), rng.choice([1e9, 4e9], count)
    return Candidates(
        n_params=n_params,
        n_tokens=n_tokens,
        weights=rng.dirichlet(np.ones(3), count),
        flops=6 * n_params * n_tokens,
    )


# ---- the value of a run ------------------------------------------------------------------------------------


def test_mixed_derivatives_are_those_of_the_exact_hessian(fit: Fit, coupled: Fit) -> None:
    h = np.array([0.5, 0.2, 0.3])
    target = np.array([0.5, 0.2, 0.3])
    for f in (fit, coupled):
        size = f.z.shape[1]
        x = f.estimate.inputs(h[None], np.array([1e9]), np.array([3e10]))
        second = f.law.function.hessian(f.z, x, ("params", "weights"))[2][:, 0]
        exact = np.einsum("gmkp,gm->gkp", second[:, :, size:, :size], target.reshape(len(f.z), -1))
        got = mixed_derivatives(at_goal(f), target, h)
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-8 * np.abs(exact).max())


@pytest.mark.parametrize("limits", [{}, {"bounds": {"code": (0.0, 0.25)}}], ids=["free", "bound"])
def test_expected_regret_is_the_regret_that_draws_of_the_posterior_realise(fit: Fit, limits: dict) -> None:
    # Where the posterior is narrow the second-order formula holds; narrower by 100 in variance here.
    e = replace(fit.estimate, covariance=fit.covariance / 100)
    narrow, problem = replace(fit, estimate=e), problem_of(fit, **limits)
    h = optimum(narrow, problem)
    predicted = Posterior.of(narrow).trace(decision(at_goal(narrow), problem, h, 0).factor)
    rng = np.random.default_rng(0)
    roots = np.linalg.cholesky(e.covariance)
    realised = []
    for _ in range(300):
        z = e.z + np.einsum("gpq,gq->gp", roots, rng.normal(size=e.z.shape))
        drawn = replace(narrow, estimate=replace(e, z=z))
        best = optimum(drawn, problem, start=problem.interior(h, depth=1e-4))
        realised.append(
            problem.target @ (drawn.losses(1e9, 3e10, h[None])[0] - drawn.losses(1e9, 3e10, best[None])[0])
        )
    assert min(realised) > -1e-9
    assert predicted > 1e-8
    assert np.mean(realised) == pytest.approx(predicted, rel=0.2)


def test_a_limit_that_binds_takes_its_direction_out_of_the_regret() -> None:
    problem = MixtureProblem.build("abc", "e", bounds={"a": (0, 0.2)})
    hessian, h = np.diag([1.0, 2.0, 3.0]), np.array([0.2, 0.4, 0.4])
    # The gradient pulls hard towards a, and the posterior spread is too small to let go.
    inverse, optima = movable(np.array([-5.0, 0.0, 0.0]), hessian, 1e-6 * np.eye(3), h, problem, 0)
    along = np.array([0.0, 1.0, -1.0])
    np.testing.assert_allclose(inverse, np.outer(along, along) / (along @ hessian @ along), atol=1e-12)
    assert optima[:, 0] == pytest.approx(0.2, abs=1e-9)


def test_a_flat_direction_is_held_by_the_limits_of_the_simplex() -> None:
    problem = MixtureProblem.build("abc", "e")
    # a and b are interchangeable: the Hessian does not see b - a, and the gradient may lean either way.
    hessian = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    h = np.array([0.25, 0.25, 0.5])
    inverse, optima = movable(np.zeros(3), hessian, 1e-4 * np.eye(3), h, problem, 0)
    assert np.isfinite(inverse).all()
    assert np.abs(inverse).max() < 10
    assert ((optima > -1e-9) & (optima < 1 + 1e-9)).all()
    assert np.ptp(optima[:, 0]) > 0.4


@pytest.mark.parametrize("which", ["fit", "coupled"])
def test_updates_equal_direct_inversion(which: str, request: pytest.FixtureRequest) -> None:
    f: Fit = request.getfixturevalue(which)
    pool = small_pool(f)
    slopes, posterior = Slopes(f, pool), Posterior.of(f)
    factor = np.random.default_rng(1).normal(size=(len(f.z), 4, f.z.shape[1]))
    state = Valuation(slopes, posterior, factor)
    precision = np.linalg.inv(f.covariance)
    for pick in (5, 17, 5):
        expected = []
        for c in range(len(pool)):
            rows = slopes.at(c) / posterior.noise[..., None]
            after = np.linalg.inv(precision + np.swapaxes(rows, 1, 2) @ rows)
            expected.append(np.sum((factor @ (np.linalg.inv(precision) - after)) * factor))
        np.testing.assert_allclose(state.saved(), expected, rtol=1e-5)
        state.add(pick)
        rows = slopes.at(pick) / posterior.noise[..., None]
        precision = precision + np.swapaxes(rows, 1, 2) @ rows
        scale = np.abs(f.covariance).max()
        np.testing.assert_allclose(
            state.posterior.covariance, np.linalg.inv(precision), rtol=1e-6, atol=1e-9 * scale
        )
    state.add(30)
    state.remove(30)
    np.testing.assert_allclose(
        state.posterior.covariance, np.linalg.inv(precision), rtol=1e-5, atol=1e-8 * scale
    )


def test_slopes_are_the_same_kept_or_computed_again(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = small_pool(fit)
    kept = np.concatenate([block for _, block in Slopes(fit, pool).blocks()], 1)
    monkeypatch.setattr("lawkit.design.value.KEEP", 20_000)
    again = Slopes(fit, pool)
    assert again.chunk < len(pool)
    np.testing.assert_array_equal(np.concatenate([block for _, block in again.blocks()], 1), kept)
    np.testing.assert_array_equal(again.at(33), kept[:, 33])
    weight = run_weights(fit, pool.n_tokens)
    np.testing.assert_array_equal(log_slopes(fit, pool)[1] * np.sqrt(weight)[..., None], kept)


# ---- batches and their bound -------------------------------------------------------------------------------


def instance(f: Fit, once: bool, budget: float, number: int):
    pool = replace(small_pool(f), once=once)
    problem = problem_of(f)
    h = optimum(f, problem)
    factor = decision(at_goal(f), problem, h, 0).factor
    return pool, Slopes(f, pool), Posterior.of(f), factor, Limits(budget=budget, number=number)


@pytest.mark.parametrize(
    ("once", "budget", "number"), [(True, 2e19, 8), (False, 2e19, 8), (True, 6e18, 40), (False, 1e19, 100)]
)
@pytest.mark.parametrize("which", ["fit", "coupled"])
def test_the_bound_is_that_of_the_semidefinite_program(
    which: str, once: bool, budget: float, number: int, request: pytest.FixtureRequest
) -> None:
    import cvxpy as cp

    f: Fit = request.getfixturevalue(which)
    pool, slopes, posterior, factor, limits = instance(f, once, budget, number)
    batch = greedy(pool, slopes, posterior, factor, limits)
    bound = least(pool, slopes, posterior, factor, limits, batch.picks)
    runs = cp.Variable(len(pool), nonneg=True)
    limits_cp = [(pool.flops / budget) @ runs <= 1, cp.sum(runs) <= number] + ([runs <= 1] if once else [])
    start = posterior.trace(factor)
    value = 0
    for g, covariance in enumerate(posterior.covariance):
        root = np.linalg.cholesky(covariance)
        rows = np.stack([slopes.at(c)[g] / posterior.noise[g][:, None] @ root for c in range(len(pool))])
        information = np.eye(len(root)) + sum(runs[c] * (r.T @ r) for c, r in enumerate(rows))
        for a in factor[g] @ root / np.sqrt(start):
            value += cp.matrix_frac(a, information)
    program = cp.Problem(cp.Minimize(value), limits_cp)
    program.solve(solver="CLARABEL")
    assert program.value is not None
    exact = float(np.real(program.value)) * start  # type: ignore[arg-type]
    assert bound <= exact * (1 + 1e-6)
    assert start - bound == pytest.approx(start - exact, rel=5e-3)
    assert batch.value >= bound


@pytest.mark.parametrize("once", [True, False])
def test_no_batch_of_an_exhaustive_search_beats_the_bound(fit: Fit, once: bool) -> None:
    from itertools import combinations, combinations_with_replacement

    pool, slopes, posterior, factor, limits = instance(fit, once, 6e18, 2)
    ways = (combinations if once else combinations_with_replacement)(range(len(pool)), 2)
    best = min(
        replay(list(w), slopes, posterior, factor)[-1]
        for w in ways
        if pool.flops[list(w)].sum() <= limits.budget
    )
    batch = greedy(pool, slopes, posterior, factor, limits)
    assert least(pool, slopes, posterior, factor, limits, batch.picks) <= best <= batch.value + 1e-15
    start = posterior.trace(factor)
    assert start - batch.value > 0.9 * (start - best)


def test_batches_keep_to_their_limits(fit: Fit) -> None:
    for once in (True, False):
        for budget, number in ((1e19, 4), (4e18, 30), (1e30, 60)):
            pool, slopes, posterior, factor, limits = instance(fit, once, budget, number)
            blind = [
                criterion(name).batch(pool, slopes, posterior, None, limits, 1) for name in ("random", "grid")
            ]
            for batch in (*blind, greedy(pool, slopes, posterior, factor, limits)):
                assert 0 < len(batch.picks) <= number
                assert pool.flops[batch.picks].sum() <= budget * (1 + 1e-9)
                assert not once or len(set(batch.picks)) == len(batch.picks)
    assert batch.stopped == "number"
    pool = replace(pool, once=True)
    for name in ("random", "grid"):
        batch = criterion(name).batch(pool, slopes, posterior, None, limits, 1)
        assert batch.stopped == "candidates"


def test_a_tolerance_ends_the_batch(fit: Fit) -> None:
    pool, slopes, posterior, factor, limits = instance(fit, False, 1e22, 50)
    start = posterior.trace(factor)
    batch = greedy(pool, slopes, posterior, factor, replace(limits, tolerance=0.3 * start))
    assert batch.stopped == "tolerance"
    assert batch.value <= 0.3 * start < replay(batch.picks[:-1], slopes, posterior, factor)[-1]


def test_a_shortlist_of_very_many_candidates_costs_little(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, slopes, posterior, factor, limits = instance(fit, False, 1e19, 6)
    whole = greedy(pool, slopes, posterior, factor, limits)
    monkeypatch.setattr("lawkit.design.batch.WIDE", 20)
    short = greedy(pool, slopes, posterior, factor, limits)
    start = posterior.trace(factor)
    assert replay(short.picks, slopes, posterior, factor)[-1] == pytest.approx(short.value, rel=1e-9)
    assert start - short.value > 0.9 * (start - whole.value)


def test_a_longer_run_is_less_noisy_where_the_objective_says_so(fit: Fit, coupled: Fit) -> None:
    losses = fit.runs.losses.copy()
    losses[fit.runs.n_tokens == 9e9, 0] = np.nan
    weight = run_weights(replace(fit, runs=replace(fit.runs, losses=losses)), np.array([1e9, 4e9]))
    np.testing.assert_allclose(weight[:, 1] / weight[:, 0], 2.0)
    seen = known(fit.runs.n_tokens)[known(fit.runs.n_tokens) < 9e9]
    assert weight[0, 0, 0] == pytest.approx(np.sqrt(1e9) / np.sqrt(seen).mean())
    assert weight[1, 0, 0] < 0.9 * weight[0, 0, 0]
    assert (run_weights(coupled, np.array([1e9, 4e9])) == 1).all()


# ---- candidates --------------------------------------------------------------------------------------------


def test_generated_candidates_keep_to_bounds_budget_and_target(fit: Fit) -> None:
    problem = problem_of(fit, bounds={"web": (0.1, 0.4), "math": (None, 0.35)})
    h = problem.interior()
    pool = generate(fit, problem, **GOAL, budget=1e19, near=h[None], seed=0)
    assert len(pool) > 1000
    assert (pool.flops <= 1e19).all()
    assert (pool.flops < 6 * 1e9 * 3e10).all()
    assert (pool.weights >= problem.lower - 2e-3).all()
    assert (pool.weights <= problem.upper + 2e-3).all()
    np.testing.assert_allclose(pool.weights.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(pool.flops, 6 * pool.n_params * pool.n_tokens)
    sizes = {tuple(s) for s in np.column_stack([pool.n_params, pool.n_tokens]).tolist()}
    assert {(1e8, 3e9), (2.5e7, 5e8), (4e8, 3e9)} <= sizes
    assert any(np.abs(pool.weights - h).max(1) < 1e-12)


def test_ladder_keeps_the_single_size_of_a_table_without_sizes(fit: Fit) -> None:
    runs = replace(fit.runs, n_params=None)
    sizes, unique = ladder(replace(fit, runs=runs), 1e9, 3e10)
    assert unique is None
    assert set(sizes[:, 0]) == {1e9}
    assert len(set(sizes[:, 1])) > 3


def test_corners_and_space_filling_are_feasible() -> None:
    problem = MixtureProblem.build("abcde", "e", bounds={"a": (0.1, 0.3), "b": (0, 0.2), "c": (0.05, None)})
    for h in (corners(problem), space_filling(problem, 200, 1)):
        np.testing.assert_allclose(h.sum(1), 1, atol=1e-12)
        assert (h >= problem.lower - 1e-12).all()
        assert (h <= problem.upper + 1e-12).all()
    assert corners(problem)[np.arange(3), np.arange(3)] == pytest.approx([0.3, 0.2, 0.9])
    spread = space_filling(MixtureProblem.build("abc", "e"), 256, 0)
    assert np.abs(spread.mean(0) - 1 / 3).max() < 0.03


# ---- proposals ---------------------------------------------------------------------------------------------


def test_a_proposal(fit: Fit, chosen) -> None:
    regret = [chosen.expected_regret_now, *(r.regret_after for r in chosen.runs)]
    assert all(b < a for a, b in pairwise(regret))
    assert 0 < chosen.efficiency <= 1
    assert chosen.spent == pytest.approx(sum(r.flops for r in chosen.runs))
    assert chosen.spent <= chosen.budget
    assert 0 < len(chosen.runs) <= 6
    result = json.loads(json.dumps(chosen.to_dict(), allow_nan=False))
    assert {"runs", "expected_regret_now", "efficiency", "stopped", "warnings"} <= set(result)
    assert set(result["runs"][0]) >= {"n_params", "n_tokens", "weights", "seed", "flops", "regret_after"}
    assert sum(result["runs"][0]["weights"].values()) == pytest.approx(1)


def test_the_criterion_after_is_what_the_covariance_with_the_runs_would_say(fit: Fit, chosen) -> None:
    # The criterion, recomputed from the information matrix of the old runs and the chosen ones together.
    problem = problem_of(fit)
    h = np.array(list(chosen.mixture.values()))
    factor = decision(at_goal(fit), problem, h, 0).factor
    information = np.linalg.inv(fit.covariance)
    table = chosen.to_runs()
    slope = fit.estimate.parameter_jacobian(
        fit.estimate.inputs(table.weights, table.n_params, table.n_tokens)
    )
    loss = fit.losses(table.n_params, table.n_tokens, table.weights)
    # A run of the transfer laws' objective counts by the root of its tokens, over the mean of the fitted runs.
    fitted = known(fit.runs.n_tokens)
    counts = np.sqrt(np.minimum(known(table.n_tokens), fitted.max())) / np.sqrt(fitted).mean()
    rows = slope / loss[..., None] / fit.noise[:, None] * np.sqrt(counts)[:, None, None]
    information += np.einsum("nep,neq->epq", rows, rows)
    after = float(np.sum((factor @ np.linalg.inv(information)) * factor))
    assert chosen.runs[-1].criterion_after == pytest.approx(after, rel=1e-5)


def test_proposals_repeat_to_the_bit_and_the_seed_matters(fit: Fit) -> None:
    first, again, other = (
        lawkit.propose_runs(fit, **GOAL, budget=3e18, n=3, seed=seed).to_dict() for seed in (0, 0, 1)
    )
    assert first == again
    assert first["runs"] != other["runs"]


@pytest.mark.parametrize("method", ["variance", "d-optimal", "a-optimal", "mspe", "random", "grid"])
def test_other_methods_share_the_interface(fit: Fit, chosen, method: str) -> None:
    found = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=6, method=method)
    assert found.method == method
    assert found.spent <= 1e19
    assert 0 < found.efficiency <= 1.01 * chosen.efficiency
    last, best = found.runs[-1].regret_after, chosen.runs[-1].regret_after
    assert last is not None
    assert last >= 0.95 * best
    assert (found.criterion_now is None) == (method in ("random", "grid", "d-optimal"))
    if found.criterion_now is not None:
        assert known(found.runs[-1].criterion_after) < known(found.criterion_now)


def test_variance_is_that_of_the_target_loss(fit: Fit) -> None:
    h = np.array([[0.2, 0.3, 0.5]])
    target = np.array([0.7, 0.3, 0.0])
    x = fit.estimate.inputs(h, np.array([1e9]), np.array([3e10]))
    slope = fit.estimate.parameter_jacobian(x)[0]
    each = [s @ c @ s for s, c in zip(slope, fit.covariance, strict=True)]
    posterior = Posterior.of(fit)
    assert posterior.trace(prediction_factor(at_goal(fit), h, target)) == pytest.approx(target**2 @ each)
    assert posterior.trace(prediction_factor(at_goal(fit), h, None)) == pytest.approx(np.mean(each))
    many = np.repeat(h, 50, 0)  # more rows than parameters: compressed, not changed
    assert posterior.trace(prediction_factor(at_goal(fit), many, None)) == pytest.approx(np.mean(each))


def test_bounds_hold_for_generated_runs_and_move_the_decision(fit: Fit) -> None:
    found = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=4, bounds={"code": (0.0, 0.2)})
    assert known(found.mixture)["code"] <= 0.2 + 1e-9
    assert all(r.weights["code"] <= 0.2 + 2e-3 for r in found.runs)
    scarce = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=2, available={"math": 1e9}, max_epochs=3)
    assert known(scarce.mixture)["math"] <= 0.1 + 1e-9


def test_a_table_of_candidates(fit: Fit, tmp_path) -> None:
    pool = small_pool(fit, 12)
    flops = pool.flops.copy()
    flops[4] = 1.0  # all but free, so it comes first
    order = [2, 0, 1]
    table = Runs(
        sources=tuple(fit.sources[i] for i in order), domains=(),
        n_params=pool.n_params, n_tokens=pool.n_tokens, weights=pool.weights[:, order],
        losses=np.empty((12, 0)), flops=flops,
    )  # fmt: skip
    table.write(tmp_path / "next.csv")
    read = read_runs(tmp_path / "next.csv", require_losses=False)
    found = lawkit.propose_runs(fit, **GOAL, budget=flops.sum(), candidates=read)
    assert sorted(known(r.row) for r in found.runs) == list(range(1, 13))
    assert found.runs[0].row == 5
    assert found.stopped.startswith("candidates")
    assert list(found.runs[0].weights) == list(fit.sources)
    assert list(found.runs[0].weights.values()) == pytest.approx(pool.weights[4])
    assert found.efficiency == pytest.approx(1, abs=1e-2)
    few = lawkit.propose_runs(fit, **GOAL, budget=float(np.median(flops)), candidates=read)
    assert any("cost more than the budget" in w for w in few.warnings)
    assert all(r.flops <= np.median(flops) for r in few.runs)


def test_written_proposals_read_back_as_candidates(fit: Fit, chosen, tmp_path) -> None:
    chosen.write(tmp_path / "next.csv")
    back = read_runs(tmp_path / "next.csv", require_losses=False)
    assert known(back.seed).tolist() == [r.seed for r in chosen.runs]
    assert back.flops == pytest.approx([r.flops for r in chosen.runs])
    again = lawkit.propose_runs(fit, **GOAL, budget=chosen.budget, candidates=back)
    assert again.runs[-1].regret_after == pytest.approx(chosen.runs[-1].regret_after, rel=1e-6)


def test_repeats_get_new_seeds(fit: Fit) -> None:
    same = fit.runs.select([0, 0, 0])
    seeded = replace(fit, runs=replace(fit.runs, seed=np.arange(len(fit.runs)) + 7))
    found = lawkit.propose_runs(seeded, **GOAL, budget=1e20, candidates=same)
    assert [r.row for r in found.runs] == [1, 1, 1]
    assert [r.seed for r in found.runs] == [8, 9, 10]
    named = lawkit.propose_runs(
        seeded, **GOAL, budget=1e20, candidates=replace(same, seed=np.array([3, -1, 5]))
    )
    assert sorted(r.seed for r in named.runs) == [3, 5, 8] or sorted(r.seed for r in named.runs) == [3, 4, 5]
    # One candidate only, chosen again and again, is trained with one seed after the other.
    tight = {s: (w - 1e-14, w + 1e-14) for s, w in zip(fit.sources, fit.runs.weights[0], strict=True)}
    again = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=5, method="variance", bounds=tight)
    keys = [(r.n_params, r.n_tokens, tuple(r.weights.values()), r.seed) for r in again.runs]
    assert len(set(keys)) == len(keys)


def test_generated_mixtures_stay_near_what_was_recorded(fit: Fit) -> None:
    keep = np.asarray((fit.runs.weights < 0.5).all(1))
    timid = replace(fit, runs=fit.runs.select(keep))
    assert timid.runs.weights.max() < 0.5
    most = (1 + timid.runs.weights.max(0)) / 2
    problem = problem_of(timid)
    pool = generate(timid, problem, **GOAL, budget=1e19, near=np.eye(3), seed=0)
    np.testing.assert_allclose(pool.weights.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(pool.weights.max(0), most, atol=2e-3)
    # Limits that ask for more are the user's to set.
    more = problem_of(timid, bounds={"web": (0.9, 1.0)})
    pool = generate(timid, more, **GOAL, budget=1e19, near=np.zeros((0, 3)), seed=0)
    assert (pool.weights[:, 0] >= 0.9 - 2e-3).all()


def test_a_table_without_sizes_values_mixtures_not_sizes() -> None:
    runs = replace(simulated(n=40), n_params=None, n_tokens=None)
    f = lawkit.fit(runs, law="exponential", holdout="none")
    table = replace(
        f.runs.select([0, 0, 0]), n_params=np.array([1e6, 1e8, 1e10]), n_tokens=np.array([1e9, 2e9, 3e9])
    )
    pool = from_table(f, table, **GOAL, budget=1e22)
    slopes = Slopes(f, pool)
    np.testing.assert_array_equal(slopes.at(0), slopes.at(1))
    np.testing.assert_array_equal(slopes.at(0), slopes.at(2))
    # Scarce tokens limit the mixture also where the law knows no sizes.
    found = lawkit.propose_runs(
        f, **GOAL, budget=1e22, n=1, method="variance", available={"web": 3e8}, max_epochs=2
    )
    assert known(found.mixture)["web"] <= 0.02 + 1e-9


def test_decisions_under_a_formula_that_counts_repetition() -> None:
    rng = np.random.default_rng(0)
    w, d = rng.uniform(0.1, 0.9, 60), 10 ** rng.uniform(9, 10.5, 60)
    unique = np.column_stack([rng.choice([1e9, 1e10], 60), np.full(60, 5e9)])
    losses = 1.5 + 0.5 * (w - 0.4) ** 2 + 300 / np.minimum(d, 4 * unique.sum(1)) ** 0.3
    runs = Runs(
        sources=("web", "code"), domains=("eval",), n_params=None, n_tokens=d, weights=np.column_stack([w, 1 - w]),
        losses=(losses * np.exp(1e-3 * rng.normal(size=60)))[:, None], unique=unique,
    )  # fmt: skip
    f = lawkit.fit(runs, formula="E + C*(w_web - m)**2 + B*w_web/D**beta + F/U**beta", holdout="none")
    found = lawkit.propose_runs(f, **GOAL, budget=1e20, n=2, available={"web": 4e10, "code": 2e10})
    assert known(found.runs[-1].regret_after) < known(found.expected_regret_now)
    at = at_goal(f, np.array([4e10, 2e10]))
    h = np.array([0.45, 0.55])
    size = f.z.shape[1]
    second = f.law.function.hessian(f.z, at.inputs(h[None]), ("params", "weights"))[2][:, 0]
    exact = np.einsum("gmkp,gm->gkp", second[:, :, size:, :size], np.ones((1, 1)))
    got = mixed_derivatives(at, np.ones(1), h)
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-8 * np.abs(exact).max())


# ---- refusals and warnings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 1e10}, r"does not pay for one run: the cheapest candidate.*costs 7\.5e\+16"),
        ({"budget": float("nan")}, "budget must be a positive finite number, got nan"),
        ({"budget": -1.0}, "budget must be a positive"),
        ({"n": 0}, "at least 1, got 0"),
        ({"n": 1.5}, "whole number"),
        ({"method": "regrets"}, "did you mean 'regret'"),
        ({"n_params": 0}, "n_params must be"),
        ({"n_tokens": "1T"}, "n_tokens must be a positive finite number, got '1T'.*write 7e9"),
        ({"tolerance": -1}, "tolerance"),
        ({"bounds": {"web": (1.0, 1.0)}}, "one mixture only.*variance"),
        ({"bounds": {"wbe": (0.0, 1.0)}}, "did you mean 'web'"),
        ({"bounds": {"web": (0.6, 1.0), "code": (0.6, 1.0)}}, "no mixture fits"),
    ],
)
def test_refusals(fit: Fit, changes: dict, message: str) -> None:
    with pytest.raises(OptimizeError, match=message):
        lawkit.propose_runs(fit, **{**GOAL, "budget": 1e18, **changes})


def test_refuses_tables_it_cannot_use(fit: Fit) -> None:
    table = fit.runs.select([0, 1])
    arguments = {**GOAL, "budget": 1e18}
    with pytest.raises(OptimizeError, match="no rows"):
        lawkit.propose_runs(fit, **arguments, candidates=fit.runs.select([]))
    with pytest.raises(OptimizeError, match="lacks weight_web"):
        lawkit.propose_runs(fit, **arguments, candidates=replace(table, sources=("w", "code", "math")))
    with pytest.raises(OptimizeError, match="no column n_tokens"):
        lawkit.propose_runs(fit, **arguments, candidates=replace(table, n_tokens=None))
    with pytest.raises(OptimizeError, match=r"row [12] of the candidates"):
        lawkit.propose_runs(fit, **{**arguments, "budget": 1.0}, candidates=table)


def test_laws_without_a_mixture_are_told_apart() -> None:
    n, d = (g.ravel() for g in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10]))
    losses = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(0.003 * np.random.default_rng(0).normal(size=9))
    runs = Runs(
        sources=(), domains=("web",), n_params=n, n_tokens=d, weights=np.zeros((9, 0)), losses=losses[:, None]
    )
    f = lawkit.fit(runs, law="chinchilla", holdout="none")
    goal: dict[str, Any] = {"n_params": 7e10, "n_tokens": 1e12, "budget": 1e21}
    with pytest.raises(OptimizeError, match=r"no sources.*use method 'variance'"):
        lawkit.propose_runs(f, **goal)
    with pytest.raises(OptimizeError, match="does not depend on any"):
        lawkit.propose_runs(f, **goal, method="variance", bounds={"web": (0, 1)})
    for method in ("variance", "mspe", "d-optimal", "a-optimal", "random", "grid"):
        found = lawkit.propose_runs(f, **goal, n=5, method=method)
        assert found.expected_regret_now is None
        assert found.mixture is None
        assert 0 < found.efficiency <= 1
        assert found.runs[0].weights == {}
        assert found.runs[0].regret_after is None
        json.dumps(found.to_dict(), allow_nan=False)
        assert known(found.to_runs().n_params).shape == (len(found.runs),)
    with pytest.raises(OptimizeError, match="did you mean 'web'"):
        lawkit.propose_runs(f, **goal, method="variance", target={"wbe": 1})
    variance = lawkit.propose_runs(f, **goal, n=5, method="variance")
    assert known(variance.runs[-1].criterion_after) < 0.5 * known(variance.criterion_now)


def test_a_corner_that_nothing_moves_has_no_regret() -> None:
    # Linear in the weights: the best mixture is a corner, and small errors leave it there.
    f = lawkit.fit(simulated(), law="linear", holdout="none")
    found = lawkit.propose_runs(f, **GOAL, budget=1e18)
    assert found.runs == ()
    assert found.criterion_now == pytest.approx(0, abs=1e-12)
    assert found.efficiency == 1.0
    assert found.spent == 0
    assert found.stopped.startswith("regret below tolerance")
    assert any("use method 'variance'" in w for w in found.warnings)
    assert len(found.to_runs()) == 0
    variance = {"budget": 1e18, "method": "variance"}
    assert len(lawkit.propose_runs(f, **GOAL, **variance).runs) > 0
    sated = lawkit.propose_runs(f, **GOAL, **variance, tolerance=1e3)
    assert sated.stopped.startswith("variance below tolerance")


def test_laws_that_count_repetition_need_the_tokens_that_exist() -> None:
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9, 30), 10 ** rng.uniform(9, 10.5, 30)
    unique = rng.choice([1e9, 4e9, 1e11], 30)
    losses = (1.8 + 400 / n**0.34 + 800 / np.minimum(d, unique * 5) ** 0.34) * np.exp(
        0.004 * rng.normal(size=30)
    )
    runs = Runs(
        sources=("web",), domains=("eval",), n_params=n, n_tokens=d, weights=np.ones((30, 1)), losses=losses[:, None],
        unique=unique[:, None],
    )  # fmt: skip
    f = lawkit.fit(runs, law="data-constrained", holdout="none")
    with pytest.raises(OptimizeError, match=r"how many unique tokens of every source exist .*missing: web"):
        lawkit.propose_runs(f, **GOAL, budget=1e20, method="variance")
    found = lawkit.propose_runs(f, **GOAL, budget=1e20, method="variance", available={"web": 1e10}, n=3)
    assert all(r.unique is not None and r.unique["web"] in (1e9, 4e9, 1e11) for r in found.runs)
    assert known(found.runs[-1].criterion_after) < known(found.criterion_now)
    table = found.to_runs()
    assert table.unique is not None
    assert table.unique.shape == (3, 1)


def test_warnings(fit: Fit) -> None:
    inside = lawkit.propose_runs(fit, n_params=1e8, n_tokens=3e9, budget=1e20, n=2)
    assert any("lies inside the data" in w for w in inside.warnings)
    assert any("would pay for the target run itself" in w for w in inside.warnings)
    below = lawkit.propose_runs(fit, n_params=1e7, n_tokens=3e10, budget=1e18, n=1)
    assert any("below the data" in w for w in below.warnings)
    none = lawkit.fit(replace(simulated(), n_tokens=None), law="transfer-plain", holdout="none")
    priced = lawkit.propose_runs(none, **GOAL, budget=1e20, n=1)
    assert any("no column n_tokens" in w for w in priced.warnings)


def test_absurd_predictions_are_left_out(fit: Fit) -> None:
    tiny = Runs(
        sources=fit.sources, domains=(), n_params=np.array([10.0, 1e8]), n_tokens=np.array([10.0, 3e9]),
        weights=np.full((2, 3), 1 / 3), losses=np.empty((2, 0)),
    )  # fmt: skip
    found = lawkit.propose_runs(fit, **GOAL, budget=1e19, candidates=tiny)
    assert [r.row for r in found.runs] == [2]
    assert any("rows 1: left out" in w for w in found.warnings)
    with pytest.raises(OptimizeError, match="cannot be trusted"):
        lawkit.propose_runs(fit, **GOAL, budget=1e19, candidates=tiny.select([0]))
