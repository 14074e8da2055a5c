"""What the runs of the study text_cpu say, and the demonstration that goes through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit.studies.text_cpu import forecast, page, standard, train
from tests.needs import need


@pytest.fixture(scope="module")
def runs() -> lawkit.Runs:
    return forecast.recorded()


@pytest.fixture(scope="module")
def result() -> dict:
    """The demonstration as a user gets it, but for the live run."""
    done = subprocess.run(
        [sys.executable, "-m", "lawkit.studies.text_cpu", "--json", "--no-live"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the runs -----------------------------------------------------------------------------------------------------


def test_the_runs_are_those_of_the_study(runs: lawkit.Runs) -> None:
    study = tomllib.loads((train.HERE / "study.toml").read_text())
    asked = sum(
        len(g["sizes"]) * len(g["tokens"]) * len(g["seeds"])
        * (g["mixtures"]["n"] if isinstance(g["mixtures"], dict) else len(g["mixtures"]))
        for g in study["grid"]
    )  # fmt: skip
    assert len(runs) == asked >= 60
    assert len(np.unique(forecast.given(runs.n_params))) == len(np.unique(forecast.given(runs.n_tokens))) == 3
    assert len(runs.sources) >= 4
    assert np.isfinite(runs.losses).all()


def test_more_tokens_lower_the_loss_of_every_kind(runs: lawkit.Runs) -> None:
    cells = np.column_stack([forecast.given(runs.n_params), runs.weights])
    falls = []
    for cell in np.unique(cells, axis=0):
        of = np.flatnonzero((cells == cell).all(1))
        of = of[np.argsort(forecast.given(runs.n_tokens)[of])]
        if len(np.unique(forecast.given(runs.n_tokens)[of])) == 3:
            falls.append(np.diff(np.log(runs.losses[of]), axis=0))
    falls = np.array(falls)
    assert (falls.mean((0, 1)) < 0).all()
    assert (falls < 0).mean() > 0.9


def test_larger_models_lower_the_loss_of_every_kind(runs: lawkit.Runs) -> None:
    equal = np.ptp(runs.weights, axis=1) < 1e-6
    sizes = forecast.given(runs.n_params)[equal]
    means = [runs.losses[equal][sizes == n].mean(0) for n in np.unique(sizes)]
    assert len(means) == 3
    assert (np.diff(means, axis=0) < 0).all()


def test_seed_noise_is_the_deviation_within_repeats() -> None:
    scatter = np.array([0.01, -0.01, 0.02, -0.02, 0.3])
    repeats = lawkit.Runs(
        sources=("a",),
        domains=("d",),
        n_params=np.array([1e5, 1e5, 2e5, 2e5, 3e5]),
        n_tokens=np.full(5, 1e6),
        weights=np.ones((5, 1)),
        losses=np.exp(1 + scatter)[:, None],
    )
    # Two pairs, one degree of freedom each; the run without a repeat says nothing.
    assert forecast.seed_noise(repeats)["d"] == pytest.approx(np.sqrt((2 * 0.01**2 + 2 * 0.02**2) / 2))


# ---- the demonstration ----------------------------------------------------------------------------------------------


def test_two_small_sizes_predict_the_largest_within_their_bands(result: dict, runs: lawkit.Runs) -> None:
    held = result["holdout"]
    assert held["size"] == forecast.given(runs.n_params).max()
    assert max(held["fitted_sizes"]) < held["size"]
    assert held["coverage"] >= 0.9
    assert held["mre"] < 0.05


def test_the_proposed_runs_can_be_trained_in_a_minute_or_two(result: dict) -> None:
    proposed = result["proposal"]["runs"]
    assert 1 <= len(proposed) <= 3
    assert all(run["n_params"] < 1e5 and run["n_tokens"] <= 1e6 for run in proposed)
    after = [run["regret_after"] for run in proposed]
    assert after == sorted(after, reverse=True)
    assert after[0] < result["proposal"]["expected_regret_now"]


def test_the_optimum_was_trained_beside_two_others(result: dict) -> None:
    mixtures = result["decision"]["mixtures"]
    assert list(mixtures) == ["optimum", "optimum for docs and prose", "uniform", "natural"]
    assert all(m["n_runs"] == len(train.SEEDS) for m in mixtures.values())
    uniform = mixtures["uniform"]["weights"].values()
    assert max(uniform) - min(uniform) < 1e-6
    tokens = forecast.provenance()["n_tokens"]
    for source, weight in mixtures["natural"]["weights"].items():
        assert weight == pytest.approx(tokens[source] / sum(tokens.values()), abs=2e-4)


def test_the_best_mixture_for_two_kinds_is_better_for_them_when_trained(result: dict) -> None:
    mixtures = result["decision"]["mixtures"]
    best = mixtures["optimum for docs and prose"]
    for other in ("optimum", "uniform", "natural"):
        gain = mixtures[other]["loss"]["docs and prose"] - best["loss"]["docs and prose"]
        assert gain > 2 * np.hypot(mixtures[other]["se"]["docs and prose"], best["se"]["docs and prose"])


def test_the_page_holds_in_a_narrow_terminal(
    result: dict, runs: lawkit.Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    page.show("runs", {"runs": runs, "seed_noise": result["seed_noise"], "made": forecast.provenance()})
    page.show("optimum", {**result["optimum"], **forecast.TARGET})
    for part in ("holdout", "decision", "proposal"):
        page.show(part, result[part])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 60
    assert "4. The runs that would teach most" in printed


def test_a_forecast_is_held_against_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    bands = {
        "a": {"mean": 4.0, "lower": 3.9, "upper": 4.1},
        "b": {"mean": 4.0, "lower": 3.9, "upper": 4.1},
    }
    page.show("live", {"texts": "the study's", "losses": {"a": 4.0, "b": 5.0}, "forecast": bands})
    assert "Off by 10.00% on average; 1 of 2 losses in their bands." in " ".join(
        capsys.readouterr().out.split()
    )


# ---- where the texts cannot be fetched ------------------------------------------------------------------------------


def test_every_python_has_code_and_its_documentation(tmp_path: Path) -> None:
    files = standard.texts(tmp_path)
    assert set(files) == {"code", "docs"}
    for file in files.values():
        assert file.stat().st_size > 1_000_000
        lines = file.read_text(encoding="utf-8").splitlines()
        assert all(len(json.loads(line)["text"]) >= 200 for line in lines)


@pytest.mark.slow
def test_the_live_run_takes_other_text_where_the_studys_cannot_be_fetched(tmp_path: Path) -> None:
    need("torchtitan")
    need("tokenizers")
    done = subprocess.run(
        [sys.executable, "-m", "lawkit.studies.text_cpu", "--folder", str(tmp_path / "out"), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "LAWKIT_TEXT_CPU": str(tmp_path / "texts"), "PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    live = json.loads(done.stdout)["live"]
    assert "apt-get" in live["reason"]
    assert set(live["losses"]) == {"code", "docs"}
    assert all(2 < loss < np.log(train.VOCABULARY) for loss in live["losses"].values())
