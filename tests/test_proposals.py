"""propose_runs: each criterion against a recomputation, lists of choices, several targets, draws, prices, starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lawkit
from lawkit.design import Trace, replay_study, start_runs
from lawkit.design._criteria import CRITERIA, METHODS, criterion
from lawkit.design._goals import Goals
from lawkit.design.batch import Limits, Valuation
from lawkit.design.candidates import Generation, from_table, spread
from lawkit.design.grid import sizes_in_turn
from lawkit.design.policy import CREDIBLE, method_now, ration, settled
from lawkit.design.published import cheapest, most_saved
from lawkit.design.start import start_number, start_rows
from lawkit.design.value import NARROWED, Posterior, Slopes, decision_among
from lawkit.errors import LawkitError, OptimizeError
from lawkit.fitting import Fit
from lawkit.mixture.target import Target
from lawkit.runs import Runs

GOAL: dict[str, Any] = {"n_params": 1e9, "n_tokens": 3e10}
NAMES = ("web", "code", "math")


def simulated(n: int = 30, seed: int = 0) -> Runs:
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    losses = []
    for e in range(2):
        capacity = ((0.15 + np.eye(3)[e]) * h**0.6).sum(1) ** (1 / 0.6)
        losses.append(1.5 + ((n_params / 1e8 * capacity) ** -0.3 + (n_tokens / 3e9) ** -0.35) ** 0.7)
    observed = np.array(losses).T * np.exp(2e-3 * rng.normal(size=(n, 2)))
    return Runs(
        sources=NAMES,
        domains=NAMES[:2],
        n_params=n_params,
        n_tokens=n_tokens,
        weights=h,
        losses=observed,
    )


@pytest.fixture(scope="module", autouse=True)
def _fewer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lawkit.design.candidates.MOST", 2000)
        yield


def known(value: Any) -> Any:
    assert value is not None
    return value


@pytest.fixture(scope="module")
def fit() -> Fit:
    return lawkit.fit(simulated(), law="transfer-plain", holdout="none", starts=1)


@pytest.fixture(scope="module")
def table() -> Runs:
    return replace(simulated(24, seed=5), losses=np.full((24, 2), np.nan))


def built(fit: Fit, *also, points: int = 1, choices: Runs | None = None) -> Goals:
    return Goals.build(fit, {**GOAL, "bounds": None, "target": None}, also, None, 4.0, choices, points, 0)


def test_names_are_those_of_the_criteria() -> None:
    assert METHODS == ("regret", "variance", "d-optimal", "a-optimal", "mspe", "random", "grid")
    assert all(c.title and criterion(c.name) is c for c in CRITERIA)


OTHER: dict[str, Any] = {"n_params": 3e9, "n_tokens": 1e11, "target": {"code": 1.0}, "share": 0.25}


@pytest.fixture(scope="module")
def two(fit: Fit) -> dict[int, Goals]:
    """Two targets, at the fit itself and at draws beside it."""
    return {points: built(fit, OTHER, points=points) for points in (1, 3)}


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_criteria_after_a_batch_are_those_of_a_posterior_made_afresh(
    fit: Fit, table: Runs, two: dict[int, Goals], name: str, points: int
) -> None:
    goals = two[points]
    pool = from_table(fit, table, **GOAL, budget=1e30)
    slopes, factor = goals.slopes(pool), goals.factor(criterion(name))
    posterior = Posterior.of(fit, len(goals.points))
    limits = Limits(budget=float(pool.flops.sum()) / 4, number=5)
    batch = criterion(name).batch(pool, slopes, posterior, factor, limits, 0)
    assert len(batch.picks) == len(set(batch.picks)) > 1
    # No update: the information of all the runs at once, and the slopes of each point by themselves.
    after, before = 0.0, 0.0
    for s, z in enumerate(goals.points):
        at_z = replace(fit, estimate=replace(fit.estimate, z=z))
        rows = (
            np.stack([Slopes(at_z, pool).at(c) for c in batch.picks], 1)
            / posterior.noise[: len(z), None, :, None]
        )
        rows = rows.reshape(len(z), -1, rows.shape[-1])
        covariance = np.linalg.inv(np.linalg.inv(fit.covariance) + np.swapaxes(rows, 1, 2) @ rows)
        if factor is None:
            after += 0.5 * float(np.linalg.slogdet(covariance)[1].sum())
            continue
        part = factor[s * len(z) : (s + 1) * len(z)]
        after += float(np.sum((part @ covariance) * part))
        before += float(np.sum((part @ fit.covariance) * part))
    if name in ("random", "grid"):
        assert np.isnan(batch.value)
        return
    assert batch.value == pytest.approx(after, rel=1e-5)
    assert factor is None or after < before


def test_averaged_over_draws_and_summed_over_targets(fit: Fit, two: dict[int, Goals]) -> None:
    posterior = Posterior.of(fit)
    for name in ("regret", "variance", "mspe"):
        rule = criterion(name)
        alone = [posterior.trace(known(rule.factor(goal))) for goal in two[1].of[0]]
        both = posterior.trace(known(two[1].factor(rule)))
        assert both == pytest.approx(alone[0] + 0.25 * alone[1], rel=1e-9)
    factor = known(two[3].factor(criterion("regret")))
    each = [3 * posterior.trace(part) for part in np.split(factor, 3)]
    assert np.mean(each) == pytest.approx(Posterior.of(fit, 3).trace(factor))
    assert each[0] == pytest.approx(posterior.trace(known(two[1].factor(criterion("regret")))))
    assert len(set(np.round(each, 12))) == 3  # each draw has a regret of its own


def test_a_optimality_knows_no_units(fit: Fit) -> None:
    factor = known(criterion("a-optimal").factor(built(fit).first))
    assert Posterior.of(fit).trace(factor) == pytest.approx(1.0)
    scale = np.exp(np.random.default_rng(0).normal(size=fit.z.shape[1]))  # the same knowledge in other units
    scaled = replace(fit, estimate=replace(fit.estimate, covariance=fit.covariance * np.outer(scale, scale)))
    scaled_factor = known(criterion("a-optimal").factor(built(scaled).first))
    np.testing.assert_allclose(scaled_factor, factor / scale, rtol=1e-12)


def test_order_of_sources_and_domains_does_not_matter(table: Runs) -> None:
    runs = simulated()
    turned = replace(
        runs,
        sources=runs.sources[::-1],
        weights=runs.weights[:, ::-1],
        domains=runs.domains[::-1],
        losses=runs.losses[:, ::-1],
    )
    found = []
    for r in (runs, turned):
        f = lawkit.fit(r, formula="E + A/n_params**.3 + exp(-t*w_code - s*w_web) + u*w_math", holdout="none")
        found.append(
            lawkit.propose_runs(
                f, **GOAL, budget=3e19, candidates=table, choices=table, n=3, method="variance"
            )
        )
    assert [r.row for r in found[0].runs] == [r.row for r in found[1].runs]


# ---- a list of mixtures ------------------------------------------------------------------------------------


def test_regret_among_a_list_is_what_draws_realise(fit: Fit, table: Runs) -> None:
    at, target = Target(fit, **GOAL), np.array([0.5, 0.5])
    choice = decision_among(at, target, table.weights, 0)
    losses = fit.losses(GOAL["n_params"], GOAL["n_tokens"], table.weights) @ target
    assert (choice.h == table.weights[losses.argmin()]).all()
    # First order in the posterior, so a narrow one is what the law itself must agree with.
    narrow = replace(fit, estimate=replace(fit.estimate, covariance=fit.covariance / 25))
    predicted = decision_among(Target(narrow, **GOAL), target, table.weights, 0)
    z = narrow.draw(4000, seed=3)
    drawn = Target(narrow, **GOAL).objectives(z, table.weights, target)
    realised = (drawn[:, losses.argmin()] - drawn.min(1)).mean()
    assert Posterior.of(narrow).trace(predicted.factor) == pytest.approx(realised, rel=0.15)


def test_regret_among_a_list_weighs_by_chances_from_narrower_draws(fit: Fit, table: Runs) -> None:
    at, target = Target(fit, **GOAL), np.array([0.5, 0.5])
    choice = decision_among(at, target, table.weights, 0)
    value, slope = fit.law.function.jacobian(fit.z, at.inputs(table.weights))
    loss, slope = value[:, :, 0].mean(0), slope[:, :, 0] / 2  # (M,), (G, M, P)
    best = loss.argmin()
    apart = slope - slope[:, best, None]
    sd = np.sqrt(np.einsum("gmp,gpq,gmq->m", apart, fit.covariance, apart))
    moved = np.einsum("gmp,sgp->sm", slope, fit.draw(20_000, seed=1) - fit.z)
    wide = loss + moved
    p = np.bincount((loss + NARROWED * moved).argmin(1), minlength=len(loss)) / len(moved)
    p[best] = 0
    W = np.einsum("m,gmp,hmq->gphq", p / np.maximum(sd, 1e-9), apart, apart)
    W = np.array([W[g, :, g] for g in range(len(W))])
    W *= (wide[:, best] - wide.min(1)).mean() / np.einsum("gpq,gqp->", W, fit.covariance)
    found = np.swapaxes(choice.factor, 1, 2) @ choice.factor
    assert np.linalg.norm(found - W) < 0.2 * np.linalg.norm(W)  # the chances are those of 1024 draws


def test_choices_are_all_there_is(fit: Fit, table: Runs) -> None:
    found = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=4, choices=table)
    assert found.mixture is not None
    assert np.abs(table.weights - list(found.mixture.values())).max(1).min() < 1e-12
    one = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=2, choices=table.select([3]), method="variance")
    assert one.expected_regret_now is None
    with pytest.raises(OptimizeError, match="bounds, or the choices within them, leave one mixture only"):
        lawkit.propose_runs(fit, **GOAL, budget=1e19, choices=table.select([3]))
    with pytest.raises(OptimizeError, match="none of the 24 choices is within the bounds"):
        lawkit.propose_runs(fit, **GOAL, budget=1e19, choices=table, bounds={"web": (0.999, 1.0)})
    with pytest.raises(OptimizeError, match="the choices have no rows"):
        lawkit.propose_runs(fit, **GOAL, budget=1e19, choices=table.select([]))
    with pytest.raises(OptimizeError, match="the choices have sources"):
        lawkit.propose_runs(fit, **GOAL, budget=1e19, choices=replace(table, sources=("a", "b", "c")))


# ---- prices ------------------------------------------------------------------------------------------------


def test_generation_is_part_of_the_price(fit: Fit) -> None:
    price: dict[str, Any] = {"generation": {"math": 1e10}, "stock": {"math": 1e8}}
    plain = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=8)
    dear = lawkit.propose_runs(fit, **GOAL, budget=1e19, n=8, **price)
    for run in dear.runs:
        missing = max(run.n_tokens * run.weights["math"] - 1e8, 0.0)
        assert run.flops == pytest.approx(6 * run.n_params * run.n_tokens + 1e10 * missing)
    generated = [sum(r.n_tokens * r.weights["math"] for r in p.runs) for p in (plain, dear)]
    assert generated[1] < 0.5 * generated[0]
    assert dear.spent <= 1e19 * (1 + 1e-9)
    free = Generation(cost=np.array([0.0, 0.0, 5.0]), stock=np.array([0.0, 0.0, np.inf]))
    assert (free.flops(np.ones(2), np.eye(3)[1:]) == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": {"mth": 1.0}}, "mth"),
        ({"generation": {"math": -1.0}}, "math"),
        ({"stock": {"math": 1e9}}, "say what they cost"),
        ({"generation": {"math": 1.0}, "stock": {"x": 1.0}}, "unknown source 'x'"),
        ({"generation": {"math": 1.0}, "stock": {"math": float("nan")}}, "0 or more"),
        ({"generation": dict.fromkeys(NAMES, 1e30)}, "does not pay for one run.*generation included"),
        ({"points": 0}, "points must be a whole number"),
        ({"also": [{"n_params": 1e9}]}, r"also\[0\]: n_tokens"),
        ({"also": [{**GOAL, "shar": 1}]}, r"also\[0\]: unknown key 'shar'"),
        ({"also": [{**GOAL, "share": -1}]}, r"also\[0\]: share"),
        ({"method": "grit"}, "did you mean 'grid'"),
    ],
)
def test_refusals(fit: Fit, changes: dict, message: str) -> None:
    with pytest.raises(OptimizeError, match=message):
        lawkit.propose_runs(fit, **{**GOAL, "budget": 1e19, "n": 2, **changes})


# ---- before any fit, and blind -----------------------------------------------------------------------------


def test_a_start_fills_the_space_cheap_sizes_first() -> None:
    first = start_runs(NAMES, n_params=(1e7, 1e8), n_tokens=(1e8, 1e9), n=64, bounds={"math": (0.1, 0.5)})
    again = start_runs(NAMES, n_params=(1e7, 1e8), n_tokens=(1e8, 1e9), n=64, bounds={"math": (0.1, 0.5)})
    assert (first.weights == again.weights).all()
    assert first.n_params is not None
    assert first.n_tokens is not None
    np.testing.assert_allclose(first.weights.sum(1), 1)
    assert first.weights[:, 2].min() >= 0.1 - 1e-9
    assert first.weights[:, 2].max() <= 0.5 + 1e-9
    sizes, count = np.unique(first.n_params, return_counts=True)
    assert count.tolist() == [32, 16, 16]
    assert np.diff(np.log(sizes)) == pytest.approx(np.log(10) / 2)
    flops = 6 * first.n_params * first.n_tokens
    assert (np.diff(flops) >= 0).all()
    short = start_runs(NAMES, n_params=(1e7, 1e8), n_tokens=(1e8, 1e9), n=64, budget=flops[0] * 100)
    assert short.flops is not None
    assert short.flops.sum() <= flops[0] * 100
    # Space-filling: half the space has half the points, better than chance would.
    free = start_runs(("a", "b"), n_params=(1e7, 1e7), n_tokens=(1e8, 1e8), n=64)
    assert (free.weights[:, 0] < 0.5).sum() == pytest.approx(32, abs=3)


def test_a_start_is_sized_by_the_law() -> None:
    from lawkit import laws

    with_priors, without = laws.get("transfer"), laws.get("additive")
    assert start_number(with_priors, 7) == -(-with_priors.n_parameters(7) // 6)
    assert start_number(without, 7) == without.n_parameters(7)
    made = start_runs(tuple("abcdefg"), law="transfer", n_params=(1e7, 1e8), n_tokens=(1e8, 1e9))
    assert len(made) == start_number(with_priors, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ("a",)}, "two sources"),
        ({"n_params": (1e8, 1e7)}, "smallest to the largest"),
        ({"n_tokens": (0.0, 1e9)}, "n_tokens must be"),
        ({"n": 0}, "at least 1"),
        ({"budget": 1e10}, "does not pay for .* runs at the cheapest size"),
    ],
)
def test_starts_that_cannot_be(changes: dict, message: str) -> None:
    arguments = {"sources": NAMES, "n_params": (1e7, 1e8), "n_tokens": (1e8, 1e9), **changes}
    with pytest.raises(OptimizeError, match=message):
        start_runs(arguments.pop("sources"), **arguments)


def test_rows_to_start_with_are_cheap_and_apart() -> None:
    runs = simulated(60)
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    rows = start_rows(runs, 3, 0)
    cost = runs.n_params * runs.n_tokens
    assert (cost[rows] == cost.min()).all()
    cheapest = int((cost == cost.min()).sum())
    more = start_rows(runs, cheapest + 2, 0)
    assert len(set(more.tolist())) == cheapest + 2
    assert sorted(cost[more])[-2:] == [np.unique(cost)[1]] * 2
    points = np.random.default_rng(0).dirichlet(np.ones(3), 200)

    def least(h: np.ndarray) -> float:
        apart = np.abs(h[:, None] - h[None]).sum(2)
        return apart[~np.eye(len(h), dtype=bool)].min()

    assert least(points[spread(points, 8, 0)]) > 3 * least(points[:8])


def test_a_grid_takes_every_size_in_turn(fit: Fit) -> None:
    pool = from_table(fit, simulated(40, seed=7), **GOAL, budget=1e30)
    order = sizes_in_turn(pool, 3, 0)
    assert sorted(order.tolist()) == list(range(40))
    kinds = len(np.unique(np.column_stack([pool.n_params, pool.n_tokens]), axis=0))
    first = pool.select(order[:kinds])
    assert len(np.unique(np.column_stack([first.n_params, first.n_tokens]), axis=0)) == kinds
    assert (np.diff(first.flops) >= 0).all()


# ---- the circle over recorded runs -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded() -> Runs:
    """Twelve mixtures at three sizes each, by a law that is not the one fitted."""
    rng = np.random.default_rng(2)
    h = np.repeat(rng.dirichlet(np.ones(3), 12), 3, axis=0)
    n_params = np.tile([2e7, 6e7, 2e8], 12)
    losses = 1.5 + (n_params[:, None] / 2e7) ** -0.2 * np.exp(-2 * h[:, :2]) + 0.6 * h[:, :2] ** 2
    return Runs(
        sources=NAMES,
        domains=NAMES[:2],
        n_params=n_params,
        n_tokens=np.full(36, 1e9),
        weights=h,
        losses=losses * np.exp(1e-3 * rng.normal(size=losses.shape)),
    )


@pytest.mark.parametrize("method", ["regret", "mspe", "random", "grid"])
def test_a_replay_buys_recorded_runs_until_the_budget_is_out(recorded: Runs, method: str) -> None:
    budget = 40 * 6 * 2e7 * 1e9
    trace = replay_study(recorded, method=method, budget=budget, seed=1)
    again = replay_study(recorded, method=method, budget=budget, seed=1)
    np.testing.assert_array_equal(trace.regret, again.regret)
    assert (np.diff(trace.flops) > 0).all()
    assert trace.flops[-2] < budget <= trace.flops[-1]
    assert (trace.regret >= 0).all()
    assert (trace.expected >= 0).all()
    if method in ("regret", "mspe"):  # never more than a fifth of what was spent, or two of the cheapest left
        turns = np.diff(trace.flops)
        assert (turns <= np.maximum(trace.flops[:-1] / 5, 2 * 10 * 1.2e17) * (1 + 1e-9)).all()
        assert trace.flops[0] == pytest.approx(3 * 1.2e17)
    ended = replay_study(recorded, method=method, budget=budget, tolerance=0.02, seed=1)
    np.testing.assert_array_equal(ended.regret, trace.stopped(0.02).regret)


def test_a_replay_of_mspe_as_published(recorded: Runs) -> None:
    unit = 6 * 2e7 * 1e9
    # Twelve mixtures at 1, 3 and 10 units: 2% of the table pays for three of the cheapest.
    trace = replay_study(recorded, method="mspe", rationed=False, budget=40 * unit, seed=1)
    assert (trace.runs[0], trace.flops[0]) == (3, pytest.approx(3 * unit))
    assert (np.diff(trace.runs) == 1).all()
    assert trace.flops[-1] <= 40 * unit
    law = lawkit.laws.get("transfer-plain")  # 11 parameters a domain
    assert len(cheapest(np.ones(2000), law, 3, 2, 0)) == 27
    assert len(cheapest(np.array([1.0, 2.0, 3.0]), law, 3, 2, 0)) == 2
    cost = np.repeat([2.0, 1.0], 600)
    assert (cost[cheapest(cost, law, 3, 2, 0)] == 1).all()
    assert sorted(cheapest(cost, law, 3, 2, 0)) != sorted(cheapest(cost, law, 3, 2, 1))


def test_mspe_as_published_takes_the_most_saved_over_a_power_of_cost(fit: Fit, table: Runs) -> None:
    goals = built(fit)
    pool = from_table(fit, table, **GOAL, budget=1e30)
    slopes, factor, posterior = goals.slopes(pool), known(goals.factor(criterion("mspe"))), Posterior.of(fit)
    left = np.array([posterior.observed(slopes.at(i)).trace(factor) for i in range(len(pool))])
    worth = (posterior.trace(factor) - left) / pool.flops**0.4
    assert most_saved(Valuation(slopes, posterior, factor), pool.flops) == worth.argmax()


def test_a_ration_is_a_share_of_what_was_spent_or_two_of_the_cheapest() -> None:
    assert [ration(spent, 1.0) for spent in (0.0, 5.0, 20.0)] == [2.0, 2.0, 4.0]
    assert ration(20.0, 1.0, share=1.0) == 20.0


def test_regret_is_variance_until_it_can_be_told(recorded: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert method_now("regret", 2 * CREDIBLE) == "variance"
    assert method_now("regret", CREDIBLE) == "regret"
    assert method_now("mspe", 2 * CREDIBLE) == "mspe"

    def expected(method: str) -> np.ndarray:
        return replay_study(recorded, method=method, budget=20 * 1.2e17, seed=2).expected

    told, variance = expected("regret"), expected("variance")
    assert told[1] != variance[1]
    monkeypatch.setattr("lawkit.design.policy.CREDIBLE", 0.0)
    np.testing.assert_array_equal(expected("regret"), variance)


def test_settled_is_within_the_tolerance_twice_on_end() -> None:
    assert [settled(said, 0.1) for said in ([], [0.1], [0.1, 0.1], [0.1, 0.2, 0.1], [0.2, 0.1, 0.0])] == [
        False, False, True, False, True,
    ]  # fmt: skip
    assert not settled([0.0, float("nan")], 0.1)


def test_what_a_trace_says() -> None:
    trace = Trace(
        flops=np.array([1.0, 2, 3, 4, 5]),
        runs=np.arange(1, 6),
        regret=np.array([0.0, 0.1, 0.004, 0.0, 0.02]),
        expected=np.array([0.0, 0.5, 0.001, 0.002, 0.0]),
        misfit=np.zeros(5),
    )
    assert trace.needed(0.005) == np.inf
    assert trace.needed(0.02) == 3
    assert trace.needed(1.0) == 1
    assert trace.stopped(0.01).needed(0.005) == 3
    assert len(trace.stopped(0.01).flops) == 4
    assert len(trace.stopped(1e-4).flops) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "guess"}, "unknown method 'guess'"),
        ({"method": "regret", "rationed": False}, "always rationed"),
        ({"target": {"law": 1.0}}, "law"),
    ],
)
def test_replays_that_cannot_be(recorded: Runs, changes: dict, message: str) -> None:
    with pytest.raises(LawkitError, match=message):
        replay_study(recorded, budget=1e18, **changes)
    with pytest.raises(LawkitError, match="two recorded mixtures"):
        replay_study(recorded.select([0, 1, 2, 3, 4]), budget=1e18)
