"""The study on the published curves: what it must find, and what it must say."""

import json
import subprocess
import sys

import numpy as np
import pytest

import lawkit
from lawkit.errors import RunsError
from lawkit.studies.kang2025 import __main__ as command
from lawkit.studies.kang2025 import curves, study


@pytest.fixture(scope="module")
def data_scaling():
    return study.scaling("n_tokens")


@pytest.fixture(scope="module")
def model_scaling():
    return study.scaling("n_params")


@pytest.fixture(scope="module")
def result():
    """The whole study as a user gets it."""
    done = subprocess.run(
        [sys.executable, "-m", "lawkit.studies.kang2025", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the published figures ------------------------------------------------------------------------------


def test_the_tables_are_the_datasets(datasets):
    from pathlib import Path

    for name in ("table4_data_scaling.csv", "table5_model_scaling.csv"):
        ours = Path(curves.__file__).with_name(name).read_bytes()
        assert ours == (datasets / "kang2025" / name).read_bytes()


def test_ten_mixtures_with_weights_that_sum_to_one():
    for table in (curves.data_curves(), curves.model_curves()):
        assert len(table) == 10
        assert np.array([c.weights for c in table]).sum(1) == pytest.approx(1)
    names = [c.mixture for c in curves.data_curves()]
    assert names == [c.mixture for c in curves.model_curves()]
    assert set(curves.HELD_OUT_MIXTURES) < set(names)
    assert dict(zip(names, curves.data_curves(), strict=True))["67% TXBK + 33% CC"].weights == (
        1 / 3,
        0,
        0,
        2 / 3,
    )


def test_an_unknown_mixture_is_refused():
    with pytest.raises(RunsError, match="'50% HQ'"):
        curves.data_runs(mixtures=["50% HQ"])


def test_the_points_survive_a_file(tmp_path):
    runs = study.mixture_runs()
    assert len(runs) == 76
    runs.write(tmp_path / "runs.csv")
    again = lawkit.read_runs(tmp_path / "runs.csv")
    np.testing.assert_array_equal(again.losses, runs.losses)
    assert again.sources == curves.SOURCES


# ---- the three checks that settle it --------------------------------------------------------------------


def test_speed_ups_of_a_third_of_rephrased_text(data_scaling):
    _, fits = data_scaling
    third, natural = fits["33% HQ + 67% CC"], fits["CC"]
    assert third.speedup(natural, 100e9) == pytest.approx(6.1, abs=0.05)
    assert third.speedup(natural, 200e9) == pytest.approx(9.9, abs=0.05)


def test_a_third_of_textbooks_overtakes_natural_text(data_scaling):
    part, fits = data_scaling
    where = part["crossing"]["n_tokens"]
    assert where == pytest.approx(21.7e9, abs=0.05e9)
    third, natural = fits["33% TXBK + 67% CC"], fits["CC"]
    assert third.loss(0.9 * where) > natural.loss(0.9 * where)
    assert third.loss(1.1 * where) < natural.loss(1.1 * where)


def test_curves_that_never_meet(data_scaling):
    _, fits = data_scaling
    assert study.crossing(fits["TXBK"], fits["CC"]) is None
    assert fits["TXBK"].speedup(fits["CC"], 100e9) is None
    assert fits["CC"].speedup(fits["CC"], 100e9) == pytest.approx(1)


# ---- fitting, holding out, ranking ----------------------------------------------------------------------


@pytest.mark.parametrize("varies", ["n_tokens", "n_params"])
def test_points_on_a_curve_give_the_curve_back(varies, data_scaling, model_scaling):
    part, fits = data_scaling if varies == "n_tokens" else model_scaling
    assert part["coefficients_off_by"] < 1e-8
    assert part["holdout"]["mre"] < 1e-9
    largest = {"n_tokens": 100e9, "n_params": 2e9}[varies]
    for fitted in fits.values():
        assert getattr(fitted.fit.runs, varies).max() == largest


def test_the_ranking_at_8t_is_that_of_the_published_curves(data_scaling):
    part, _ = data_scaling
    expected = sorted(curves.data_curves(), key=lambda c: c.loss(8e12))
    rows = part["ranking"]["rows"]
    assert [r["mixture"] for r in rows] == [c.mixture for c in expected]
    assert rows[0]["mixture"] == "33% HQ + 67% CC"
    assert [r["loss"] for r in rows] == pytest.approx([c.loss(8e12) for c in expected], rel=1e-8)


def test_the_two_tables_differ_where_they_meet():
    # Both are printed; worked out by hand for CC: table 4 gives 3.0264, table 5 gives 3.0519.
    a, b = curves.data_curves()[0].loss(50e9), curves.model_curves()[0].loss(1e9)
    assert (round(a, 4), round(b, 4)) == (3.0264, 3.0519)
    assert 0.005 < study.tables_apart() < 0.01


# ---- the whole of it ------------------------------------------------------------------------------------


def test_the_mixture_law_predicts_what_it_has_not_seen(result):
    part = result["mixture_law"]
    assert part["n_runs"] == 76
    assert part["holdout"]["n_runs"] == 6
    assert part["holdout"]["mre"] < 0.015
    assert part["unseen_ratio_mre"] < 0.015
    assert part["spearman_with_curves"] > 0.9


def test_the_best_mixture_is_certified_and_no_worse_than_the_ten(result):
    part = result["mixture_law"]
    best = part["optimum"]
    assert sum(best["weights"].values()) == pytest.approx(1)
    assert best["certificate"] == "global"
    assert best["optimality_gap"] < 1e-6
    assert best["objective"] <= part["best_of_ten"]["loss"]
    for found in part["best_ratio"].values():
        assert best["objective"] <= found["loss"] + 1e-9
        assert found["loss"] <= found["loss_at_30_percent"]
        assert 0 < found["weight"] < 1


def test_the_proposal_is_within_its_budget_and_of_use(result):
    proposal = result["mixture_law"]["proposal"]
    runs = proposal["runs"]
    assert 1 <= len(runs) <= 3
    assert sum(r["flops"] for r in runs) <= study.PROPOSAL_BUDGET * (1 + 1e-9)
    regrets = [proposal["expected_regret_now"], *(r["regret_after"] for r in runs)]
    assert regrets == sorted(regrets, reverse=True)
    assert regrets[-1] < regrets[0]


@pytest.mark.parametrize("columns", ["40", None])
def test_the_page_says_what_is_published_and_fits(columns, result, monkeypatch, capsys):
    monkeypatch.setattr(study, "run", lambda: result)  # computed once, above
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    assert command.main([]) == 0
    page = capsys.readouterr().out
    flat = " ".join(page.split())
    assert "PUBLISHED" in flat
    assert "COMPUTED by lawkit" in flat
    assert "no evidence that such laws extrapolate" in flat
    assert "Do not train on this mixture; test it." in flat
    assert "overtakes CC at 21.7B tokens" in flat
    assert "\x1b" not in page
    if columns:
        assert max(map(len, page.splitlines())) <= 40
    else:
        rows = [line.split() for line in page.splitlines()]
        assert ["33%", "HQ", "+", "67%", "CC", "2.527", "6.1x", "9.9x"] in rows


def test_a_wrong_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--jsno"])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
