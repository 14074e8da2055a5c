"""Predictions held against a table, and the commands from a table to a decision, end to end."""

import csv
import json

import numpy as np
import pytest

import lawkit
from lawkit.backends import RunSpec, Simulate
from lawkit.cli import main
from lawkit.errors import FitError
from lawkit.fitting.scoring import predict_runs, score, spearman
from lawkit.runs import Runs, read_runs

SCALES = [(n, d) for n in (1e8, 3e8, 1e9) for d in (2e9, 6e9, 2e10)]
TRUTH = {
    "wiki": {"c": 2.5, "k": 1.2, "t": np.array([-0.2, -1.4])},
    "code": {"c": 1.5, "k": 0.9, "t": np.array([-1.1, -0.1])},
}


@pytest.fixture(scope="module")
def runs() -> Runs:
    world = Simulate(lawkit.laws.get("exponential"), TRUTH, sources=("web", "hq"), noise=0.002)
    return world.run(
        [
            RunSpec(n_params=n, n_tokens=d, weights={"web": 1 - hq, "hq": hq})
            for n, d in SCALES
            for hq in (0, 0.2, 0.5, 0.8, 1)
        ]
    )


@pytest.fixture(scope="module")
def fit(runs) -> lawkit.Fit:
    return lawkit.fit(runs, law="exponential")


@pytest.fixture(scope="module")
def folder(fit, runs, tmp_path_factory):
    """A folder with the runs table and its fit, for the commands."""
    path = tmp_path_factory.mktemp("session")
    runs.write(path / "runs.csv")
    fit.save(path / "fit")
    return path


def table(runs: Runs, **changed) -> Runs:
    return Runs(**{name: changed.get(name, getattr(runs, name)) for name in runs.__dataclass_fields__})


def test_sources_are_matched_by_name_not_by_place(fit, runs):
    turned = table(runs, sources=runs.sources[::-1], weights=runs.weights[:, ::-1], unique=None)
    np.testing.assert_array_equal(predict_runs(fit, turned)[0].mean, predict_runs(fit, runs)[0].mean)


def test_a_source_that_the_table_lacks_has_no_weight(fit, runs):
    web = runs.select(runs.weights[:, 1] == 0)
    alone = table(web, sources=("web",), weights=web.weights[:, :1])
    np.testing.assert_array_equal(predict_runs(fit, alone)[0].mean, predict_runs(fit, web)[0].mean)


def test_a_source_that_the_fit_does_not_know_is_refused_where_it_has_weight(fit, runs):
    books = table(runs, sources=("web", "books"))
    with pytest.raises(FitError, match=r"row 2 has a weight on source 'books'.* it knows web, hq"):
        predict_runs(fit, books)
    with pytest.raises(FitError, match="no weight_<source> column"):
        predict_runs(fit, table(runs, sources=(), weights=np.zeros((len(runs), 0))))


def test_a_size_that_varied_must_be_given(runs):
    scaled = Simulate(
        lawkit.laws.get("chinchilla"),
        {"wiki": {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}},
        sources=("web",),
    ).run([RunSpec(n_params=n, n_tokens=d, weights={"web": 1.0}) for n, d in SCALES])
    fitted = lawkit.fit(scaled, law="chinchilla")
    with pytest.raises(FitError, match="has no column n_tokens, which varied in the fitted runs"):
        predict_runs(fitted, table(scaled, n_tokens=None))
    small = table(scaled, n_params=np.full(len(scaled), 1e6))
    (warning,) = [w for w in predict_runs(fitted, small)[1] if "smaller n_params" in w]
    assert "9 of 9 rows (first: row 1)" in warning


def test_scores_are_the_means_they_claim_to_be(fit, runs):
    holes = runs.losses.copy()
    holes[3, 0] = np.nan
    seen = table(runs, losses=holes)
    prediction, _ = predict_runs(fit, seen)
    found = score(fit, seen, prediction)
    assert found is not None
    miss = (prediction.mean - holes)[~np.isnan(holes)]
    assert found["mae"] == pytest.approx(np.abs(miss).mean())
    assert found["rmse"] == pytest.approx(np.sqrt((miss**2).mean()))
    assert found["domains"]["wiki"]["n"] == len(runs) - 1
    assert found["domains"]["code"]["mre"] == pytest.approx(
        np.mean(np.abs(prediction.mean[:, 1] / holes[:, 1] - 1))
    )
    assert found["domains"]["wiki"]["spearman"] > 0.95
    assert 0.8 < found["coverage"] <= 1


def test_a_table_without_losses_has_no_score(fit, runs):
    bare = table(runs, domains=(), losses=np.zeros((len(runs), 0)), losses_se=None)
    assert score(fit, bare, predict_runs(fit, bare)[0]) is None


def test_rank_correlation():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(np.array([1.0]), np.array([2.0])) is None
    assert spearman(np.ones(4), np.arange(4.0)) is None


# --- through the command line -----------------------------------------------------------

POINT = ("--n-params", "1B", "--n-tokens", "1B")


def json_of(capsys, *arguments: object) -> dict:
    assert main([str(a) for a in arguments]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out)


def test_fit_command(folder, capsys):
    out = folder / "again"
    result = json_of(capsys, "fit", folder / "runs.csv", "-o", out, "--law", "exponential", "--json")
    assert {"law", "n_runs", "train", "holdout", "domains", "warnings"} <= set(result)
    assert set(result["train"]) == {"mre", "mae", "rmse"}
    for domain in result["domains"].values():
        assert {"parameters", "train", "starts_at_optimum", "objective"} <= set(domain)
    again = lawkit.load_fit(out).to_dict()
    assert again["domains"]["wiki"]["parameters"] == result["domains"]["wiki"]["parameters"]
    assert main(["fit", str(folder / "runs.csv"), "-o", str(out), "--law", "exponential"]) == 0
    shown = capsys.readouterr()
    assert "exponential fitted to 45 runs" in shown.out
    assert f"saved in {out}" in shown.err.replace("\n", "")


def test_predict_command_at_a_table(folder, capsys):
    out = folder / "predicted.csv"
    result = json_of(capsys, "predict", folder / "fit", "--at", folder / "runs.csv", "-o", out, "--json")
    assert {"mre", "mae", "rmse", "coverage", "domains"} <= set(result)
    assert set(result["domains"]) == {"wiki", "code"}
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 45
    for name in ("wiki", "code"):
        assert [float(r[f"pred_{name}"]) for r in rows] == result["predictions"][name]
        assert all(
            float(r[f"lower_{name}"]) < float(r[f"pred_{name}"]) < float(r[f"upper_{name}"]) for r in rows
        )


def test_predict_command_at_one_point(folder, fit, capsys):
    point = ("--n-params", "300M", "--n-tokens", "6B", "--mixture", "hq=.2,web=.8")
    result = json_of(capsys, "predict", folder / "fit", *point, "--json")
    expected = fit.predict(3e8, 6e9, np.array([[0.8, 0.2]]), interval=0.9)
    assert expected.lower is not None
    for i, name in enumerate(fit.domains):
        assert result["losses"][name]["mean"] == expected.mean[0, i]
        assert result["losses"][name]["lower"] == expected.lower[0, i]


def test_optimize_and_propose_commands(folder, capsys):
    target = ("--n-params", "7B", "--n-tokens", "1T", "--bound", "hq<=.3")
    best = json_of(capsys, "optimize-mixture", folder / "fit", *target, "--target", "wiki=1", "--json")
    assert best["weights"] == pytest.approx({"web": 0.7, "hq": 0.3}, abs=1e-6)
    assert best["unconstrained"]["weights"] == pytest.approx({"web": 0, "hq": 1}, abs=1e-6)
    assert best["certificate"] == "global"
    assert best["active_constraints"] == ["hq <= 0.3"]
    out = folder / "next.csv"
    options = ("--budget", "1e19", "-n", "2", "--method", "d-optimal", "-o", out, "--json")
    plan = json_of(capsys, "propose-runs", folder / "fit", *target, *options)
    assert 0 < len(plan["runs"]) == len(read_runs(out, require_losses=False)) <= 2
    assert sum(run["flops"] for run in plan["runs"]) <= 1e19
    assert {"expected_regret_now", "efficiency"} <= set(plan)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "{0}/none.csv", "-o", "{0}/x"], "none.csv"),
        (["fit", "{0}/runs.csv", "-o", "{0}/x", "--law", "kaplann"], "kaplann"),
        (["fit", "{0}/runs.csv", "-o", "{0}/x", "--formula", "__import__('os')"], "formula"),
        (["fit", "{0}/runs.csv", "-o", "{0}/x", "--domain", "wikipedia"], "wikipedia"),
        (["predict", "{0}/nofit", "--at", "{0}/runs.csv"], "nofit"),
        (["predict", "{0}/fit", *POINT, "--mixture", "books=1"], "books"),
        (
            ["optimize-mixture", "{0}/fit", *POINT, "--bound", "books<=.1"],
            "books",
        ),
        (
            ["optimize-mixture", "{0}/fit", *POINT, "--bound", "hq<=.1", "--bound", "web<=.1"],
            "0.8",
        ),
        (["propose-runs", "{0}/fit", *POINT, "--budget", "1"], "budget"),
    ],
)
def test_refusals_are_one_message_and_leave_the_fit_alone(arguments, says, folder, capsys):
    before = {p.name: p.read_bytes() for p in (folder / "fit").iterdir()}
    assert main([a.format(folder) for a in arguments]) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "bug in lawkit" not in shown.err
    assert "Traceback" not in shown.err
    assert {p.name: p.read_bytes() for p in (folder / "fit").iterdir()} == before


def test_no_run_worth_its_flops_writes_no_table(folder, capsys):
    out = folder / "none_worth.csv"
    target = ["--n-params", "7B", "--n-tokens", "1T", "--bound", "hq<=.3", "--budget", "1e19"]
    assert main(["propose-runs", str(folder / "fit"), *target, "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert "No run is worth its flops." in shown.out
    assert "nothing to write" in shown.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "f"], "name a table with --at"),
        (["predict", "f", "--at", "r.csv", "--n-params", "1B"], "exclude each other"),
        (["predict", "f", "--n-params", "1B", "-o", "x.csv"], "name it with --at"),
        (["predict", "f", "--at", "r.csv", "--interval", "1"], "--interval"),
    ],
)
def test_usage_of_predict(arguments, says, capsys):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_missing_part_of_the_point_is_a_usage_error(folder, capsys):
    assert main(["predict", str(folder / "fit"), "--n-params", "1B"]) == 2
    assert "--mixture is missing" in capsys.readouterr().err
