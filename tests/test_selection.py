"""Laws beside each other: the score, its parts, the choice, and what `lawkit compare` says of them."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit import laws
from lawkit.bayes.elpd import leave_one_out, pointwise
from lawkit.bayes.posterior import posterior
from lawkit.cli import main
from lawkit.errors import FitError, LawError, RunsError
from lawkit.fitting.bands import ORIGINS
from lawkit.fitting.judging import IGNORED, Judge, above_cuts, random_parts
from lawkit.fitting.selection import _ties, compare_laws, select_law
from lawkit.io._write import write_table
from lawkit.laws.formula import FormulaLaw
from lawkit.runs import Runs


def scale_runs(n: int = 60, noise: float = 0.003, seed: int = 0, power: float = 1.0) -> Runs:
    """Runs of Chinchilla's law with its two terms raised to a power together, over three decades of compute."""
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(np.log([5e7, 1e9]), np.log([2e9, 6e10]), (n, 2))).T
    loss = 1.7 + (480 / n_params**0.34 + 2000 / n_tokens**0.37) ** power
    return Runs(
        sources=(), domains=("web",), n_params=n_params, n_tokens=n_tokens, weights=np.zeros((n, 0)),
        losses=(loss * np.exp(noise * rng.normal(size=n)))[:, None],
    )  # fmt: skip


def mixed_runs(
    n: int = 48, n_params: float | None = 1e8, tokens: tuple[float, ...] = (1e9, 2e9, 4e9, 8e9)
) -> Runs:
    """Runs of three sources at one model size; the third domain is no source."""
    rng = np.random.default_rng(1)
    h = rng.dirichlet(np.ones(3), n)
    d = np.resize(tokens, n)
    lent = h @ np.array([[1.0, 0.3, 0.5], [0.2, 1.0, 0.5], [0.3, 0.3, 0.5]])
    loss = 1.5 + 1.2 * (lent * d[:, None] / 1e9) ** -0.2
    return Runs(
        sources=("a", "b", "c"), domains=("a", "b", "other"),
        n_params=None if n_params is None else np.full(n, n_params), n_tokens=d, weights=h,
        losses=loss * np.exp(0.004 * rng.normal(size=loss.shape)),
    )  # fmt: skip


# ---- the parts that laws forecast -------------------------------------------------------------------------


def test_cuts_are_in_compute_and_each_is_above_the_one_before() -> None:
    runs = scale_runs()
    masks = above_cuts(runs)
    assert len(masks) == len(ORIGINS)
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    flops = runs.n_params * runs.n_tokens
    for lower, upper in itertools.pairwise(masks):
        assert (upper <= lower).all()
        assert upper.sum() < lower.sum()
        assert flops[upper].min() > flops[~upper].max()


def test_random_parts_keep_together_what_shares_a_run_or_a_setting() -> None:
    runs = mixed_runs(30, tokens=(1e9,))
    # Rows 0 and 1 share a run, 1 and 2 a setting; 2 and 3 a run: all four belong together.
    weights = runs.weights.copy()
    weights[2] = weights[1]
    names = tuple("run" if i < 2 else "other" if i < 4 else f"r{i}" for i in range(30))
    runs = replace(runs, weights=weights, run_id=np.array(names, dtype=object))
    for seed in range(5):
        parts = random_parts(runs, seed)
        assert len(parts) == 5
        assert (np.sum(parts, 0) == 1).all()
        assert sum(part[:4].any() for part in parts) == 1
    assert not np.array_equal(random_parts(runs, 0), random_parts(runs, 1))


# ---- the score --------------------------------------------------------------------------------------------


def test_forecasts_are_those_of_a_fit_to_the_runs_below_the_cut() -> None:
    runs = scale_runs()
    judge = Judge(runs)
    judged = judge.forecast(judge.fit(laws.get("chinchilla")))
    above = judge.parts[3]
    earlier = lawkit.fit(runs.select(~above), law="chinchilla", holdout="none")
    test = runs.select(above)
    by_hand = np.abs(np.log(earlier.losses(test.n_params, test.n_tokens, test.weights) / test.losses)).mean()
    assert judged.errors[3, 0] == pytest.approx(by_hand, rel=1e-3)
    assert judged.forecast.all()
    assert judged.least < judged.errors.mean()


def test_a_guess_is_what_the_posterior_leaves_open_about_a_size_that_never_varied() -> None:
    runs = mixed_runs()
    judge = Judge(runs)
    found = judge.fit(laws.get("transfer-linear"))
    fit, e = found.fit, found.fit.estimate
    assert runs.n_params is not None
    x = e.inputs(runs.weights, runs.n_params * np.e, runs.n_tokens)
    # Draws in so narrow a normal that the law is linear in it.
    small = replace(fit, estimate=replace(e, covariance=e.covariance / 100))
    spread = 10 * np.log(e.losses_at(small.draw(4000, seed=3), x)).std(0)
    assert found.guess == pytest.approx(spread.mean(0), rel=0.1)
    # The same law where the size is not recorded has nothing to guess, and one that ignores it no priors to say so.
    assert Judge(replace(runs, n_params=None)).fit(laws.get("transfer-linear")).guess == pytest.approx(0.0)
    assert judge.fit(laws.get("exponential")).guess == pytest.approx(IGNORED)


def test_a_law_without_priors_for_a_size_that_never_varied_falls_behind() -> None:
    runs = mixed_runs()
    found = compare_laws(runs, ["exponential-scale", "transfer-linear", "linear"], elpd=False)
    assert [s.name for s in found] == ["transfer-linear", "linear", "exponential-scale"]
    assert found[0].guess is not None
    assert found[2].guess is not None
    assert found[0].guess < IGNORED < 0.3 < found[2].guess
    # It forecasts the tokens well enough: the guess is what tells.
    assert found[2].holdout_mre is not None
    assert found[1].holdout_mre is not None
    assert found[2].holdout_mre < found[1].holdout_mre


def test_at_one_scale_laws_are_judged_on_other_mixtures() -> None:
    runs = mixed_runs(60, tokens=(2e9,))
    judge = Judge(runs)
    assert not judge.rolling
    assert judge.fit(laws.get("transfer-linear")).guess == pytest.approx(0.0)
    assert judge.fit(laws.get("exponential")).guess == pytest.approx(0.0)
    assert judge.fit(laws.get("exponential-scale")).guess.max() > 0.3
    found = compare_laws(runs, ["linear", "transfer-linear"], elpd=False)
    assert found[0].name == "transfer-linear"
    assert found[0].score == pytest.approx(found[0].holdout_mre)
    assert found[0].score == pytest.approx(0.0035, abs=0.0025)  # the noise, and a little


def test_an_average_is_not_searched_for_twice() -> None:
    runs = mixed_runs()
    alone = Judge(runs)
    members, after = [laws.get(n) for n in ("transfer-plain", "transfer")], Judge(runs)
    average = laws.get("transfer-average")
    known = [after.forecast(after.fit(m)) for m in members]
    first, second = alone.fit(average), after.fit(average)
    assert second.fit.z == pytest.approx(np.concatenate([known[1].fit.z, known[0].fit.z], 1), abs=1e-5)
    assert second.guess == pytest.approx(first.guess, rel=0.02)
    assert after.forecast(second).errors == pytest.approx(alone.forecast(first).errors, rel=0.1)


# ---- the choice -------------------------------------------------------------------------------------------


def test_laws_tie_where_they_differ_by_no_more_than_chance() -> None:
    assert _ties(np.array([0.02, -0.03, 0.02, 0.0]))
    assert _ties(np.zeros(1))
    assert _ties(np.array([0.5, -0.4, 0.3]))
    assert not _ties(np.array([0.02, 0.03, 0.02, 0.03]))
    assert not _ties(np.array([0.01]))


def test_of_laws_that_tie_the_one_of_fewest_parameters_is_chosen() -> None:
    # Both hold: the coupled law's extra exponent is 1.
    found = {s.name: s for s in compare_laws(scale_runs(), ["chinchilla-coupled", "chinchilla"], elpd=False)}
    assert next(iter(found)) == "chinchilla"
    assert found["chinchilla"].n_parameters == 5
    # Only the coupled law holds.
    bent = compare_laws(scale_runs(power=0.5), ["chinchilla", "chinchilla-coupled"], elpd=False)
    assert bent[0].name == "chinchilla-coupled"
    assert bent[0].score is not None
    assert bent[1].score is not None
    assert bent[1].score > 1.5 * bent[0].score


def test_auto_takes_a_law_that_forecasts_and_says_why_it_gave_others_up() -> None:
    runs = scale_runs(40)
    order = np.argsort(runs.n_params * runs.n_tokens)  # type: ignore[operator]
    train, test = runs.select(np.sort(order[:28])), runs.select(np.sort(order[28:]))
    law, found = select_law(train)
    assert law.name in {
        "chinchilla",
        "chinchilla-coupled",
        "over-training",
    }  # of which the last ties its exponents
    assert found[0].law is law
    assert {s.name for s in found} == {  # no weights, no unique tokens
        "kaplan", "chinchilla", "chinchilla-data", "chinchilla-model", "chinchilla-coupled", "over-training",
        "farseer", "m4", "bnsl", "bnsl-data", "bnsl-model",
    }  # fmt: skip
    given_up = [s for s in found if s.reason]
    assert given_up
    assert found[-len(given_up) :] == given_up
    assert all(s.score is not None and found[0].score < s.score for s in given_up)  # type: ignore[operator]
    assert all("alone comes to" in s.reason or "too few runs" in s.reason for s in given_up)
    fit = lawkit.fit(train, law=law, holdout="none")
    assert np.abs(np.log(fit.losses(test.n_params, test.n_tokens, test.weights) / test.losses)).mean() < 0.006
    told = [s.to_dict() for s in found]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_auto_leaves_out_laws_that_cannot_be_fitted_to_every_domain() -> None:
    runs = mixed_runs()
    _, found = select_law(runs)
    refused = {s.name: s.reason for s in found if s.score is None}
    assert refused.keys() == {"bimix", "dcpt", "capacity", "capacity-plain"}
    assert "other" in refused["bimix"]
    _, found = select_law(runs, domains=["a", "b"])
    assert {s.name for s in found if s.score is None} == {
        "capacity",
        "capacity-plain",
    }  # they need all sources


def test_the_same_seed_gives_the_same_scores() -> None:
    runs = mixed_runs(60, tokens=(2e9,))
    first, second, other = (
        compare_laws(runs, ["transfer-linear", "exponential"], elpd=False, seed=seed) for seed in (3, 3, 4)
    )
    assert [replace(s, seconds=0.0) for s in first] == [replace(s, seconds=0.0) for s in second]
    assert first[0].score != other[0].score


# ---- what is asked for ------------------------------------------------------------------------------------


def test_laws_of_ones_own_are_compared_too() -> None:
    own = FormulaLaw("E + A/N**alpha + B/D**beta")
    found = compare_laws(scale_runs(), ["kaplan", own], elpd=False)
    assert found[0].law is own


def test_what_cannot_be_fitted_is_listed_last_with_the_reason() -> None:
    found = compare_laws(scale_runs(), ["additive", "chinchilla", "data-constrained"], elpd=False)
    assert [s.name for s in found] == ["chinchilla", "additive", "data-constrained"]
    assert "needs mixture weights" in found[1].reason
    assert "unique_<source>" in found[2].reason
    assert found[1].score is None


def test_laws_are_compared_on_the_domains_that_all_can_be_fitted_to() -> None:
    found = compare_laws(mixed_runs(), ["bimix", "transfer-linear"], elpd=False)
    assert all(s.n_parameters == 2 * s.law.n_parameters(3) for s in found)  # type: ignore[union-attr]
    assert all("compared without other" in s.warnings[0] for s in found)


def test_bad_requests_are_refused_with_the_next_step() -> None:
    runs = scale_runs()
    with pytest.raises(LawError, match="did you mean 'chinchilla'"):
        compare_laws(runs, ["chinchila"])
    with pytest.raises(RunsError, match="no domain 'wiki'"):
        compare_laws(runs, ["chinchilla"], domains=["wiki"])
    with pytest.raises(FitError, match=r"'linear' cannot be judged.*needs mixture weights"):
        compare_laws(runs, ["linear"])
    with pytest.raises(FitError, match=r"none of 2 laws can be judged.*add runs"):
        compare_laws(runs.select(np.arange(3)), ["chinchilla", "farseer"])
    with pytest.raises(FitError, match="add runs"):
        select_law(runs.select(np.arange(2)))
    with pytest.raises(FitError, match="no law goes with the columns"):
        select_law(replace(runs, n_params=None, n_tokens=None))


# ---- leaving one out --------------------------------------------------------------------------------------


def test_elpd_is_that_of_refits_without_each_loss() -> None:
    runs = scale_runs(14, noise=0.01)
    judge = Judge(runs)
    found = judge.fit(laws.get("chinchilla-data"))
    e = found.fit.estimate
    loo, _ = leave_one_out(runs, e, found.ready, ("web",))
    exact = []
    for i in range(len(runs)):
        losses = runs.losses.copy()
        losses[i] = np.nan
        without = replace(runs, losses=losses)
        again = Judge(without).fit(laws.get("chinchilla-data")).fit.estimate
        draws, _ = posterior(without, again, "laplace")
        density = pointwise(runs, e, found.ready, draws, ("web",))[:, i]
        exact.append(np.log(np.exp(density).mean()))
    assert loo.pointwise == pytest.approx(np.array(exact), abs=0.3)
    assert loo.elpd == pytest.approx(sum(exact), abs=0.5)


def test_elpd_and_weights_are_of_the_same_cells_for_averages_and_coupled_laws_too() -> None:
    runs = mixed_runs(40).with_domains(["a", "b"])
    runs = replace(
        runs, sources=("a", "b"), weights=runs.weights[:, :2] / runs.weights[:, :2].sum(1)[:, None]
    )
    losses = runs.losses.copy()
    losses[3, 1] = np.nan
    runs = replace(runs, losses=losses)
    found = {s.name: s for s in compare_laws(runs, ["transfer-average", "capacity-plain", "linear"])}
    judge = Judge(runs)
    for name in found:
        judged = judge.fit(laws.get(name))
        draws, _ = posterior(runs, judged.fit.estimate, "laplace")
        assert pointwise(runs, judged.fit.estimate, judged.ready, draws, ("a", "b")).shape[1] == 79
    assert sum(s.weight for s in found.values()) == pytest.approx(1.0)  # type: ignore[misc]
    assert found["transfer-average"].elpd > found["linear"].elpd + 50  # type: ignore[operator]
    assert found["transfer-average"].weight > 0.9  # type: ignore[operator]


def test_without_arviz_there_is_a_warning_and_no_elpd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    found = compare_laws(scale_runs(), ["chinchilla", "kaplan"])
    assert all(s.elpd is None and s.weight is None and s.score is not None for s in found)
    assert all("pip install 'lawkit[bayes]'" in s.warnings[-1] for s in found)


# ---- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> str:
    write_table(scale_runs().columns(), tmp_path / "runs.csv")
    return str(tmp_path / "runs.csv")


def test_compare_prints_one_object(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", table, "--law", "kaplan, chinchilla", "--law", "linear", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [law["name"] for law in out["laws"]] == ["chinchilla", "kaplan", "linear"]
    best, _, last = out["laws"]
    assert best["p"] == best["n_parameters"] == 5
    assert {
        "holdout_mre",
        "score",
        "elpd",
        "elpd_se",
        "p_loo",
        "pareto_k",
        "weight",
        "warnings",
    } <= best.keys()
    assert 0 < best["holdout_mre"] == best["score"] < 0.01
    assert best["elpd"] > out["laws"][1]["elpd"]
    assert best["weight"] == pytest.approx(1 - out["laws"][1]["weight"])
    assert last["score"] is None
    assert "mixture weights" in last["reason"]


def test_compare_fits_the_screen(
    table: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["compare", table, "--law", "chinchilla,kaplan,linear"]
    assert main([*command, "--stacking"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "law",
        "error",
        "of",
        "forecasts",
        "parameters",
        "elpd",
        "se",
        "p_loo",
        "weight",
    ]
    assert [line.split()[0] for line in lines[2:4]] == ["chinchilla", "kaplan"]
    assert any(line.startswith("linear") and "mixture weights" in line for line in lines)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(command) == 0
    narrow = capsys.readouterr().out
    assert max(len(line) for line in narrow.splitlines()) <= 40
    assert "weight " not in narrow


def test_compare_refuses_in_one_message(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status, says in (
        (["--law", "chinchila"], 1, "did you mean 'chinchilla'?"),
        (["--law", "chinchilla", "--domain", "webb"], 1, "Did you mean 'web'?"),
        (["--law", ","], 2, "names no law"),
        (["--law", "linear"], 1, "cannot be judged"),
    ):
        assert main(["compare", table, *arguments]) == status
        told = capsys.readouterr()
        assert says in told.err
        assert not told.out


# ---- published tables -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("openhermes", "within"), [(False, 0.021), (True, 0.027)])
def test_auto_finds_the_law_that_is_best_at_a_size_never_seen(
    datasets: Path, openhermes: bool, within: float
) -> None:
    runs = lawkit.import_runs(datasets / "slimpajama7" / "runs_122M_310M.csv", params_column="model_size")
    runs = runs if openhermes else runs.with_domains(runs.sources)
    assert runs.n_params is not None
    small = runs.n_params < 2e8
    train, test = runs.select(small), runs.select(~small)
    law, _ = select_law(train)
    errors = {}  # all rows: of every other checkpoint alone the choice is not always the best
    for name in ("transfer-linear", "transfer-plain", "transfer", "transfer-average", "additive"):
        fit = lawkit.fit(train, law=name, holdout="none")
        predicted = fit.predict(test.n_params, test.n_tokens, test.weights).mean
        errors[name] = np.nanmean(np.abs(predicted / test.losses - 1))
    assert law.name == min(errors, key=lambda name: errors[name])
    assert errors[law.name] < within


@pytest.mark.slow
def test_auto_does_not_overfit_one_scale(datasets: Path) -> None:
    folder = datasets / "regmix"
    train, test = (
        lawkit.import_runs(
            [folder / f"{s}_mixture_1m.csv", folder / f"{s}_pile_loss_1m.csv"], format="regmix"
        ).with_domains(["arxiv", "github", "pile_cc", "ubuntu_irc"])
        for s in ("train", "test")
    )
    law, found = select_law(train.select(np.arange(256)))
    errors = {}
    for s in found:
        if not s.reason:
            fit = lawkit.fit(train.select(np.arange(256)), law=s.name, holdout="none")
            errors[s.name] = np.abs(
                fit.losses(test.n_params, test.n_tokens, test.weights) / test.losses - 1
            ).mean()
            if s is found[0]:
                assert fit.train["mre"] is not None
                assert errors[s.name] < 1.3 * fit.train["mre"]
    assert len(errors) > 1
    assert errors[law.name] < 1.05 * min(errors.values())
