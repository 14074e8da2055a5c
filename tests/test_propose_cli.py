"""``lawkit propose-runs`` on the command line: every option with values that are right and values that are not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lawkit.cli import main
from lawkit.design import METHODS

LAW = "E + A/n_params**.3 + B/n_tokens**.3 + C*exp(-t*w_hq) + F*w_hq**2"
SOURCES = ("web", "hq")


def table(path: Path, mixtures: np.ndarray, losses: bool, seed: int = 0) -> Path:
    """A runs table of these shares of hq."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["n_params", "n_tokens", "weight_web", "weight_hq", *(["loss_wiki"] if losses else [])])
        for i, hq in enumerate(mixtures):
            n, d = (1e7, 4e7)[i % 2], (1e9, 4e9)[i // 2 % 2]
            loss = 1.5 + 200 / n**0.3 + 400 / d**0.3 + 0.6 * np.exp(-3 * hq) + 0.5 * hq**2
            noisy = loss * np.exp(0.003 * rng.normal())
            rows.writerow([n, d, 1 - hq, hq, *([noisy] if losses else [])])
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("propose")
    runs = table(folder / "runs.csv", np.linspace(0.02, 0.9, 20), True)
    table(folder / "pool.csv", np.linspace(0.01, 0.95, 40), False)
    table(folder / "choices.csv", np.array([0.1, 0.3, 0.45, 0.6]), False)
    table(folder / "one.csv", np.array([0.3]), False)
    (folder / "other.csv").write_text("n_params,n_tokens,weight_a,weight_b\n1e8,1e9,.5,.5\n")
    arguments = ["fit", str(runs), "-o", str(folder / "fit"), "--formula", LAW, "--holdout", "none"]
    assert main(arguments) == 0
    return folder


def propose(home: Path, *options: str) -> list[str]:
    """The command line, with the files of `home` by their names."""
    files = {path.name: str(path) for path in home.iterdir()}
    scale = ["--n-params", "1B", "--n-tokens", "20B", "--budget", "1e19", "-n", "3"]
    named = (files.get(option, option) for option in options)
    return ["propose-runs", str(home / "fit"), *scale, *named]


#: A short list to choose from: seconds instead of minutes for the tests that do not ask what is generated.
POOL = ("--candidates", "pool.csv")


def told(home: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    capsys.readouterr()
    assert main([*propose(home, *options), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_proposes_within_the_budget(home, capsys, method):
    found = told(home, capsys, "--method", method, *POOL)
    assert found["method"] == method
    assert len(found["runs"]) == 3
    assert found["spent"] == pytest.approx(sum(run["flops"] for run in found["runs"]))
    assert found["spent"] <= 1e19
    assert main(propose(home, "--method", method, *POOL)) == 0
    out = capsys.readouterr().out
    assert "expected regret now" in out
    # What the runs were chosen by is shown, where it is a number other than the regret.
    assert (f"\n{method} now" in out) == (method in ("variance", "a-optimal", "mspe"))


def test_a_grid_goes_round_the_sizes(home, capsys):
    runs = told(home, capsys, "--method", "grid")["runs"]
    assert len({(run["n_params"], run["n_tokens"]) for run in runs}) == 3


def test_choices_are_all_there_is_at_the_target(home, capsys):
    found = told(home, capsys, "--choices", "choices.csv", *POOL)
    assert min(abs(found["mixture"]["hq"] - hq) for hq in (0.1, 0.3, 0.45, 0.6)) < 1e-9
    free = told(home, capsys, *POOL)
    assert found["mixture"] != free["mixture"]


def test_another_target_counts_as_much_as_its_share(home, capsys):
    def chosen(*also: str) -> list[dict]:
        return told(home, capsys, *POOL, *(part for text in also for part in ("--also", text)))["runs"]

    alone, small, large = chosen(), chosen("70B,2T,1e-9"), chosen("70B,2T,100")
    assert [run["weights"] for run in alone] == [run["weights"] for run in small]
    assert alone != large
    assert chosen("70B,2T") == chosen("70B,2T,1")
    assert len(chosen("7B,1T", "70B,2T,.5")) == 3


def test_generation_is_paid_for_beyond_the_stock(home, capsys):
    for stock in ("0", "500M"):
        runs = told(home, capsys, "--generation", "hq=2e10", "--stock", f"hq={stock}", *POOL)["runs"]
        there = 5e8 if stock == "500M" else 0.0
        for run in runs:
            missing = max(run["n_tokens"] * run["weights"]["hq"] - there, 0.0)
            assert run["flops"] == pytest.approx(6 * run["n_params"] * run["n_tokens"] + 2e10 * missing)


def test_points_average_over_draws(home, capsys):
    one, four = told(home, capsys, "--points", "1", *POOL), told(home, capsys, "--points", "4", *POOL)
    assert one["runs"] == told(home, capsys, *POOL)["runs"]
    assert four["criterion_now"] != one["criterion_now"]
    assert four["expected_regret_now"] > 0


def test_where_nothing_is_worth_it_no_efficiency_is_claimed(home, capsys):
    assert main(propose(home, "--tolerance", "1")) == 0
    out = capsys.readouterr().out
    assert "No run is worth its flops." in out
    assert "regret below tolerance: 1" in out
    assert "efficiency" not in out


def test_a_law_without_mixtures_is_not_told_a_regret(tmp_path, home, capsys):
    arguments = ["fit", str(home / "runs.csv"), "-o", str(tmp_path / "fit"), "--holdout", "none"]
    assert main([*arguments, "--formula", "E + A/n_params**.3 + B/n_tokens**.3"]) == 0
    options = ["--n-params", "1B", "--n-tokens", "20B", "--budget", "1e19", "--method", "variance"]
    options += ["--candidates", str(home / "pool.csv")]
    capsys.readouterr()
    assert main(["propose-runs", str(tmp_path / "fit"), *options]) == 0
    out = capsys.readouterr().out
    assert "variance now" in out
    assert "regret" not in out


@pytest.mark.parametrize("method", ["mspe", "grid"])
def test_a_narrow_screen_shows_it_whole(home, capsys, monkeypatch, method):
    monkeypatch.setenv("COLUMNS", "40")
    options = ("--method", method, "--choices", "choices.csv", "--also", "70B,2T", "--generation", "hq=2e10")
    assert main(propose(home, *options, *POOL)) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert "…" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "best"], "'best' is not one of 'regret', 'variance'"),
        (["--also", "70B"], "'--also': '70B' is no target: write N,D or N,D,SHARE, such as 70B,2T,.5"),
        (["--also", "7B,1T,1,1"], "'7B,1T,1,1' is no target"),
        (["--also", "7B,x"], "'x' in '7B,x' is no n_tokens: write a positive number"),
        (["--also", "7B,1T,0"], "'0' in '7B,1T,0' is no share: write a positive number"),
        (["--generation", "hq"], "'--generation': 'hq' is not of the form name=value: write source=number"),
        (["--generation", "hq=x"], "'--generation': 'x' is not a size"),
        (["--generation", "hq=-1"], "'-1' is not a size"),
        (["--generation", "hq=1", "--generation", "hq=2"], "--generation 'hq' comes twice"),
        (["--generation", "hq=1", "--stock", "hq=nan"], "'--stock': 'nan' is not a size"),
        (["--generation", "hq=1", "--stock", "hq=1", "--stock", "hq=2"], "--stock 'hq' comes twice"),
        (["--stock", "hq=1B"], "say what one costs (--generation)"),
        (["--points", "0"], "'--points': 0 is not in the range x>=1"),
        (["--points", "1.5"], "'--points': '1.5' is not a valid integer"),
        (["--tolerance", "-1"], "'--tolerance': -1.0 is not in the range x>=0"),
    ],
)
def test_usage_errors_exit_2(home, capsys, options, message):
    assert main(propose(home, *options)) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("Error: ") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--choices", "none.csv"], "none.csv: no such file"),
        (["--choices", "other.csv"], "the choices have sources a, b"),
        (["--choices", "one.csv"], "one mixture only"),
        (["--choices", "choices.csv", "--bound", "hq>=.95"], "none of the 4 choices is within the bounds"),
        (["--generation", "hq=0"], "generation: cost must name a source that costs something"),
        (["--generation", "hp=1"], "unknown source 'hp'; the fit knows web, hq"),
        (["--generation", "hq=1", "--stock", "hp=1"], "stock: unknown source 'hp'; the fit has web, hq"),
        (["--generation", "hq=1e30", "--generation", "web=1e30"], "does not pay for one run"),
        (["--tolerance", "nan"], "tolerance must be 0 or more, got nan"),
    ],
)
def test_refusals_exit_1_with_one_message(home, capsys, options, message):
    assert main(propose(home, *options)) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
