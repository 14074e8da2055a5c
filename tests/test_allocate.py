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
    fit = scale_fit()
    only = lawkit.fit(fit.runs, law="chinchilla-data", holdout="none")
    with pytest.raises(lawkit.LawkitError, match="law chinchilla-data does not use it"):
        lawkit.allocate(only, 1e20)


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
