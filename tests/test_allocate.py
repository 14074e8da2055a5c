"""A budget split between model size and tokens: closed forms, limits, draws, refusals, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit.cli import main
from lawkit.fitting import Fit
from lawkit.runs import Runs

A, B, ALPHA, BETA = 480.0, 2000.0, 0.34, 0.37


def scale_fit(noise: float = 0.0, **options: object) -> Fit:
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(5e7, 2e9, 6), np.geomspace(1e9, 6e10, 6)))
    loss = (1.8 + A / n**ALPHA + B / d**BETA) * np.exp(noise * np.random.default_rng(0).normal(size=len(n)))
    runs = Runs(
        sources=(), domains=("web",), n_params=n, n_tokens=d, weights=np.zeros((36, 0)), losses=loss[:, None]
    )
    return lawkit.fit(runs, law="chinchilla", holdout="none", **options)  # type: ignore[arg-type]


def mixture_fit() -> Fit:
    rng = np.random.default_rng(1)
    hq = rng.uniform(0.05, 0.95, 60)
    n, d = rng.choice([1e8, 3e8, 1e9], 60), rng.choice([2e9, 8e9, 3e10], 60)
    loss = 1.5 + np.exp(-hq) + 300 / n**0.33 + 600 / d**0.33
    runs = Runs(
        sources=("web", "hq"), domains=("wiki",), n_params=n, n_tokens=d,
        weights=np.column_stack([1 - hq, hq]), losses=loss[:, None],
    )  # fmt: skip
    return lawkit.fit(runs, law="exponential-scale", holdout="none")


@pytest.mark.parametrize("flops", [1e19, 6e21, 1e25])
def test_chinchillas_closed_form(flops: float) -> None:
    fit = scale_fit()
    found = lawkit.allocate(fit, flops)
    p = fit.parameters["web"]
    G = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    best = G * (flops / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    assert found.n_params == pytest.approx(best, rel=1e-8)
    assert 6 * found.n_params * found.n_tokens == pytest.approx(flops)
    assert found.objective == pytest.approx(
        fit.losses(best, flops / (6 * best), np.zeros((1, 0)))[0, 0], rel=1e-10
    )
    assert found.weights is None
    assert found.intervals == {}
    assert found.regret is None


def test_intervals_hold_the_truth_and_shrink_with_less_noise() -> None:
    flops = 1e22
    G = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    truth = G * (flops / 6) ** (BETA / (ALPHA + BETA))
    widths = []
    for noise in (0.002, 0.008):
        fit = scale_fit(noise, posterior="laplace")
        found = lawkit.allocate(fit, flops)
        low, high = found.intervals["n_params"]
        assert low < truth < high
        assert low < found.n_params < high
        tokens = found.intervals["n_tokens"]
        assert tokens[0] == pytest.approx(flops / 6 / high, rel=1e-4)
        assert found.regret is not None
        assert 0 < found.regret < 0.01
        widths.append(np.log(high / low))
    assert widths[0] < 0.6 * widths[1]


def test_the_mixture_is_the_best_at_that_split_and_within_its_limits() -> None:
    fit = mixture_fit()
    found = lawkit.allocate(fit, 1e21, bounds={"hq": (0, 0.4)})
    assert found.weights is not None
    assert found.weights["hq"] == pytest.approx(0.4)
    there = lawkit.optimize_mixture(
        fit, n_params=found.n_params, n_tokens=found.n_tokens, bounds={"hq": (0, 0.4)}
    )
    assert found.objective == pytest.approx(there.objective)
    for factor in (0.8, 1.25):
        other = lawkit.optimize_mixture(
            fit, n_params=found.n_params * factor, n_tokens=found.n_tokens / factor, bounds={"hq": (0, 0.4)}
        )
        assert other.objective > found.objective


def test_what_is_available_moves_the_split() -> None:
    fit = mixture_fit()
    free, short = (lawkit.allocate(fit, 1e21, available=a) for a in (None, {"hq": 1e9}))
    assert free.weights is not None
    assert short.weights is not None
    assert short.weights["hq"] == pytest.approx(4 * 1e9 / short.n_tokens)
    assert short.n_tokens < free.n_tokens  # fewer tokens, of which more may be good
    assert short.objective > free.objective


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flops": -1.0}, "flops must be a positive finite number"),
        ({"interval": 1.5}, "interval must lie between 0 and 1"),
        ({"bounds": {"hq": (0, 0.5)}}, "does not depend on mixture weights"),
        ({"target": {"wob": 1.0}}, "did you mean 'web'"),
    ],
)
def test_arguments_that_make_no_sense(change: dict, said: str) -> None:
    with pytest.raises(lawkit.LawkitError, match=said):
        lawkit.allocate(scale_fit(), **{"flops": 1e20, **change})


def test_a_law_of_one_size_has_nothing_to_split() -> None:
    """Not where the runs have several of the other."""
    fit = scale_fit()
    only = lawkit.fit(fit.runs, law="chinchilla-data", holdout="none")
    with pytest.raises(lawkit.LawkitError, match="law chinchilla-data does not use it"):
        lawkit.allocate(only, 1e20)


@pytest.mark.parametrize("flops", [1e19, 6e21, 1e25])
@pytest.mark.parametrize(
    ("law", "held", "term", "power"),
    [("chinchilla-data", "n_params", "B", "beta"), ("chinchilla-model", "n_tokens", "A", "alpha")],
)
def test_a_law_of_one_size_buys_it_at_the_size_that_all_runs_have(
    law: str, held: str, term: str, power: str, flops: float
) -> None:
    fit = scale_fit(0.002, posterior="laplace")
    other = "n_tokens" if held == "n_params" else "n_params"
    runs = replace(fit.runs, **{held: np.full(36, 1e9)})
    cut = lawkit.fit(runs, law=law, holdout="none", posterior="laplace")
    found = lawkit.allocate(cut, flops, draws=50)
    p, bought = cut.parameters["web"], flops / 6e9
    assert getattr(found, held) == pytest.approx(1e9, rel=1e-12)
    assert getattr(found, other) == pytest.approx(bought, rel=1e-12)
    assert found.objective == pytest.approx(p["E"] + p[term] / bought ** p[power], rel=1e-8)
    slope = -p[power] * p[term] / bought ** p[power] / flops
    assert found.price_of_training == pytest.approx(1e18 * slope, rel=1e-8)
    assert found.price_of_generation is None
    assert found.intervals[other] == pytest.approx((bought, bought))
    low, high = found.intervals["objective"]
    assert low < high
    assert not any("one value only" in w for w in found.warnings)


def test_a_loss_that_never_rises_along_the_budget_is_refused() -> None:
    fit = scale_fit()
    z = fit.z.copy()
    z[0, fit.law.layout(0)["B"]] = -300.0  # tokens do not matter any more: the largest model is best
    broken = replace(fit, estimate=replace(fit.estimate, z=z))
    with pytest.raises(lawkit.LawkitError, match="no best split"):
        lawkit.allocate(broken, 1e20)


def test_a_size_that_never_varied_is_said() -> None:
    fit = scale_fit()
    assert fit.runs.n_params is not None
    one = lawkit.fit(replace(fit.runs, n_params=np.full(36, 1e9)), law="chinchilla", holdout="none")
    z = one.z.copy()
    z[0, one.law.layout(0)["A"]] = np.log(0.3)
    told = lawkit.allocate(replace(one, estimate=replace(one.estimate, z=z)), 1e20)
    assert any("n_params takes one value only" in w for w in told.warnings)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale_fit(0.003, posterior="laplace").save(tmp_path / "fit")
    assert main(["allocate", str(tmp_path / "fit"), "--flops", "1e22", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"n_params", "n_tokens", "weights", "intervals"} <= set(found)
    assert found["n_params"] * found["n_tokens"] * 6 == pytest.approx(1e22)
    assert main(["allocate", str(tmp_path / "fit"), "--flops", "1e22"]) == 0
    assert "tokens per parameter" in capsys.readouterr().out
    assert main(["allocate", str(tmp_path / "fit"), "--flops", "-3"]) == 2


# ---- generation and training from one budget -----------------------------------------------------------------


#: Exponents by domain and term, of web and of generated text.
TRUE = {
    "wiki": {"E": (0.05, -0.15), "A": (0.2, -0.3), "B": (0.4, -0.6)},
    "news": {"E": (-0.10, 0.08), "A": (-0.3, 0.1), "B": (-0.5, 0.2)},
}


def truth(n: np.ndarray, d: np.ndarray, hq: np.ndarray) -> np.ndarray:
    """Losses (rows, 2) of the exponential law with known parameters: generated text helps one domain, web the other."""

    def term(domain: str, name: str) -> np.ndarray:
        web, generated = TRUE[domain][name]
        return np.exp(web * (1 - hq) + generated * hq)

    return np.stack(
        [1.6 * term(e, "E") + 300 / n**0.33 * term(e, "A") + 900 / d**0.34 * term(e, "B") for e in TRUE], -1
    )


def simulated_fit(noise: float = 0.0) -> Fit:
    rng = np.random.default_rng(1)
    hq = rng.uniform(0.02, 0.98, 160)
    n, d = rng.choice([1e8, 3e8, 1e9], 160), rng.choice([2e9, 8e9, 3e10], 160)
    runs = Runs(
        sources=("web", "hq"), domains=tuple(TRUE), n_params=n, n_tokens=d,
        weights=np.column_stack([1 - hq, hq]),
        losses=truth(n, d, hq) * np.exp(noise * rng.normal(size=(160, 2))),
    )  # fmt: skip
    return lawkit.fit(runs, law="exponential-scale", holdout="none")


@pytest.mark.parametrize("cost", [0.0, 1e9, 3e10])
def test_the_joint_optimum_of_a_simulated_law(cost: float) -> None:
    """Chosen by a fit to noisy runs, its true loss is within .1% of the best, found on a grid of all three unknowns."""
    flops = 1e21
    constraints = {"generation": {"cost": {"hq": cost}}} if cost else None
    found = lawkit.allocate(simulated_fit(1e-3), flops, constraints=constraints)
    n, hq = (g.ravel() for g in np.meshgrid(np.geomspace(2e8, 2e10, 700), np.linspace(0, 1, 401)))
    best = truth(n, flops / (6 * n + cost * hq), hq).mean(-1).min()
    assert found.weights is not None
    spent = 6 * found.n_params * found.n_tokens + cost * found.weights["hq"] * found.n_tokens
    assert spent == pytest.approx(flops, rel=1e-5)
    assert found.generation_flops == pytest.approx(
        cost * found.weights["hq"] * found.n_tokens, rel=1e-3, abs=1e12
    )
    mine = truth(np.array(found.n_params), np.array(found.n_tokens), np.array(found.weights["hq"])).mean()
    assert best - 1e-6 <= mine <= best * 1.001
    assert found.certificate == "global"


@pytest.mark.parametrize("cost", [1e9, 3e10])
def test_the_joint_optimum_of_a_fit_is_that_of_a_grid(cost: float) -> None:
    fit, flops = simulated_fit(), 1e21
    found = lawkit.allocate(fit, flops, constraints={"generation": {"cost": {"hq": cost}}})
    n, hq = (g.ravel() for g in np.meshgrid(np.geomspace(2e8, 2e10, 400), np.linspace(0, 1, 201)))
    losses = fit.losses(n, flops / (6 * n + cost * hq), np.column_stack([1 - hq, hq])).mean(1)
    assert losses.min() - 2e-5 <= found.objective <= losses.min() + 1e-9


def test_generation_so_dear_that_none_is_best_and_the_prices_say_why() -> None:
    fit = simulated_fit()
    dear = lawkit.allocate(fit, 1e21, constraints={"generation": {"cost": {"hq": 1e14}}})
    assert dear.weights is not None
    assert dear.weights["hq"] == 0
    assert dear.generation_flops == pytest.approx(0, abs=1e6)
    assert dear.price_of_generation is not None
    # A flop of training does more good than the first flop of generation.
    assert dear.price_of_training < dear.price_of_generation < 0
    fair = lawkit.allocate(fit, 1e21, constraints={"generation": {"cost": {"hq": 3e10}}})
    assert fair.weights is not None
    assert 0.02 < fair.weights["hq"] < 0.98
    assert fair.price_of_generation == pytest.approx(fair.price_of_training, rel=0.02)


def test_scarce_natural_text_is_worth_generating_for() -> None:
    fit = simulated_fit()
    cost = {"generation": {"cost": {"hq": 3e10}}}
    plenty = lawkit.allocate(fit, 1e21, constraints=cost)
    scarce = lawkit.allocate(fit, 1e21, constraints={**cost, "available": {"web": 1e9}})
    assert plenty.weights is not None
    assert scarce.weights is not None
    assert scarce.weights["hq"] > plenty.weights["hq"] + 0.05
    assert scarce.shadow_prices["web"] < 0
    assert "web" not in plenty.shadow_prices


def test_groups_and_files_limit_the_mixture_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = mixture_fit()
    file = tmp_path / "limits.yaml"
    file.write_text("bounds: {hq: {upper: 40%}}\ngeneration: {cost: {hq: 1e8}}\n")
    found = lawkit.allocate(fit, 1e21, constraints=file)
    assert found.weights is not None
    assert found.weights["hq"] <= 0.4 + 1e-12
    assert "hq" in found.shadow_prices
    with pytest.raises(lawkit.LawkitError, match="leave risk out"):
        lawkit.allocate(fit, 1e21, constraints={"risk": "cvar:.9"})
    with pytest.raises(lawkit.LawkitError, match="unknown source 'hp'"):
        lawkit.allocate(fit, 1e21, constraints={"generation": {"cost": {"hp": 1}}})
    fit.save(tmp_path / "fit")
    command = ["allocate", str(tmp_path / "fit"), "--flops", "1e21", "--constraints", str(file)]
    assert main([*command, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["weights"] == pytest.approx(found.weights)
    assert out["price_per_1e18_flops_of_training"] < 0
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "generation" in shown
    assert "binding limit" in shown


def test_draws_that_contradict_the_point_fit_are_said() -> None:
    fit = scale_fit(0.005, posterior="laplace")
    assert not any("outside" in w for w in lawkit.allocate(fit, 1e22).warnings)
    assert fit.draws is not None
    moved = fit.draws.z.copy()
    moved[..., fit.law.layout(0)["alpha"].start] += 0.5  # the model's size matters more, and losses are lower
    found = lawkit.allocate(replace(fit, draws=replace(fit.draws, z=moved)), 1e22)
    low, high = found.intervals["n_params"]
    assert not low <= found.n_params <= high
    assert any(
        "n_params and objective of the point fit lie outside the 90% interval" in w for w in found.warnings
    )


def test_the_worst_domain_is_meant_wherever_it_is_asked_for() -> None:
    fit = simulated_fit()
    worst = {"over": "max"}
    found = lawkit.allocate(fit, 1e21, constraints=worst, draws=50)
    low, high = found.intervals["objective"]
    assert low <= found.objective <= high  # the interval is of the maximum, as the objective is
    best = lawkit.optimize_mixture(fit, n_params=1e9, n_tokens=2e10, constraints=worst)
    recorded = fit.losses(1e9, 2e10, np.unique(fit.runs.weights, axis=0)).max(1)
    assert best.baselines["best_recorded"] == pytest.approx(recorded.min())
    with pytest.raises(lawkit.LawkitError, match="leave over out"):
        lawkit.allocate(scale_fit(), 1e21, constraints=worst)


def test_generation_that_costs_every_source_the_same() -> None:
    """Then all that is trained on is generated: 6 n_params + cost flops a token."""
    fit, cost = simulated_fit(), 2e9
    found = lawkit.allocate(fit, 1e21, constraints={"generation": {"cost": {"web": cost, "hq": cost}}})
    assert (6 * found.n_params + cost) * found.n_tokens == pytest.approx(1e21, rel=1e-6)
    n, hq = (g.ravel() for g in np.meshgrid(np.geomspace(2e8, 2e10, 300), np.linspace(0, 1, 101)))
    losses = fit.losses(n, 1e21 / (6 * n + cost), np.column_stack([1 - hq, hq])).mean(1)
    assert losses.min() - 2e-4 <= found.objective <= losses.min() + 1e-9


def test_a_law_that_counts_repetition_takes_what_is_available() -> None:
    n, d = (g.ravel() for g in np.meshgrid([1e8, 3e8, 1e9, 3e9], [2e9, 6e9, 2e10, 6e10]))
    unique = np.tile([1e9, 1e10], 8)[:, None]
    repeats = np.maximum(d / unique[:, 0] - 1, 0)
    fresh = np.minimum(unique[:, 0], d)
    seen = fresh + fresh * 15 * (1 - np.exp(-repeats / 15))
    runs = Runs(
        sources=("web",), domains=("wiki",), n_params=n, n_tokens=d, weights=np.ones((16, 1)), unique=unique,
        losses=(1.8 + A / n**ALPHA + B / seen**BETA)[:, None],
    )  # fmt: skip
    fit = lawkit.fit(runs, law="data-constrained", holdout="none")
    scarce = lawkit.allocate(fit, 1e21, available={"web": 1e9}, draws=30)
    plenty = lawkit.allocate(fit, 1e21, available={"web": 1e12}, draws=30)
    assert scarce.n_tokens < plenty.n_tokens  # repeats are worth less than parameters
    assert scarce.objective > plenty.objective
    assert scarce.intervals["n_params"][0] > 0
