"""A live study, from sources to its report, trained by torchtitan at toy size and killed on the way."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from lawkit.cli import main
from lawkit.runs import read_runs
from lawkit.study import run_study
from simulated_studies import TOY, killed_at_random, rounds_of, study

pytestmark = pytest.mark.slow

LIVE = (
    """
corpus = "{corpus}"
[target]
n_params = "1M"
n_tokens = "10M"
[ladder]
sizes = [{dim = 16, n_layers = 1, n_heads = 1}, {dim = 32, n_layers = 1, n_heads = 1}]
tokens = [5120, 10240]
[loop]
budget = 1e13
start = 8
rounds = 1
batch = 2
tolerance = 0
draws = 20
"""
    + TOY
)


@pytest.fixture(scope="module")
def unbroken(small_corpus, tmp_path_factory, torchtitan) -> Path:
    folder = study(tmp_path_factory.mktemp("unbroken"), LIVE.replace("{corpus}", str(small_corpus)))
    summary = run_study(folder)
    assert (summary.done, summary.failed) == (10, 0)
    return folder


def test_killed_five_times_a_live_study_decides_the_same(unbroken, small_corpus, tmp_path):
    folder = study(tmp_path / "killed", LIVE.replace("{corpus}", str(small_corpus)))
    # 10 runs and 2 decisions; the last event ends it.
    killed_at_random(folder, random.Random(11), times=5, total=11, delay=4.0)
    summary = run_study(folder)
    assert (summary.done, summary.failed) == (10, 0)
    assert rounds_of(folder) == rounds_of(unbroken)
    assert (folder / "runs.csv").read_bytes() == (unbroken / "runs.csv").read_bytes()
    runs = read_runs(folder / "runs.csv")
    assert runs.run_id is not None
    assert len(set(runs.run_id)) == len(runs) == 10
    for records in folder.glob("runs/*/records.jsonl"):
        assert records.read_text().count('"kind": "done"') == 1


def test_a_live_study_says_what_it_cost_and_writes_its_report(unbroken, capsys):
    runs = read_runs(unbroken / "runs.csv")
    assert runs.flops is not None
    assert np.isclose(rounds_of(unbroken)[-1]["flops"], runs.flops.sum())
    assert main(["study", "run", str(unbroken), "--dry-run"]) == 0
    assert "10 finished runs" in capsys.readouterr().out
    assert main(["study", "report", str(unbroken)]) == 0
    page = (unbroken / "report.html").read_text(encoding="utf-8")
    assert "prose" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
