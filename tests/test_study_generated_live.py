"""A whole circle on a source that is generated: from text to report, killed while it generates and while it trains."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fake_server import FakeServer
from generating import content, documents
from lawkit.cli import main
from lawkit.cli._study_screen import Screen
from lawkit.runs import read_runs
from lawkit.study import read_study, run_study, study_status
from lawkit.study.generation import make_corpus
from needs import need
from simulated_studies import TOY, command, events, rounds_of, study, wait_for

need("openai", "tokenizers")
pytestmark = pytest.mark.slow

TEXT = (
    """
[corpus]
sources = {web = "web.jsonl"}
vocab_size = 300
holdout = 0.1
[generated.qa]
source = "web"
style = "qa"
FROM
n_params = 1000
shard = 1
[target]
n_params = "1M"
n_tokens = "10M"
[constraints]
bounds = {qa = {upper = 0.8}}
[ladder]
sizes = [{dim = 16, n_layers = 1, n_heads = 1}, {dim = 32, n_layers = 1, n_heads = 1}]
tokens = [5120, 10240]
[loop]
budget = 1e13
laws = ["transfer-plain"]
start = 4
rounds = 1
batch = 1
tolerance = 0
draws = 20
"""
    + TOY
)


def made(folder: Path, text: str) -> Path:
    study(folder, text)
    documents(folder / "web.jsonl", 400)
    return folder


def killed_when(condition, folder: Path) -> None:
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: process.poll() is not None or condition())
    assert process.poll() is None, "it was over before it could be killed"
    process.kill()
    process.wait()


class Told(Screen):
    """Notes what it is told of the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []

    def begun(self, total: int, waiting: int, spent: float, flops: float) -> None:
        self.spent.append(spent)
        super().begun(total, waiting, spent, flops)


def test_killed_while_generating_and_while_training_it_decides_the_same(tmp_path, torchtitan, capsys):
    with FakeServer() as server:
        asked = TEXT.replace("FROM", f'model = "fake"\nurls = ["{server.url}"]')
        make_corpus(read_study(made(tmp_path / "recorded", asked)), lambda what: None)
    text = TEXT.replace("FROM", f'replay = "{tmp_path}/recorded/generated/qa"')

    whole = made(tmp_path / "whole", text)
    told = Told()
    with told:
        summary = run_study(whole, watcher=told)
    assert (summary.done, summary.failed) == (5, 0)
    (source,) = study_status(whole)["generated"]
    assert told.spent[0] == source["flops"] > 0  # what the live view begins with
    assert told.spent[1] > source["flops"]

    broken = made(tmp_path / "broken", text)
    killed_when(lambda: len(list(broken.glob("generated/qa/*.jsonl"))) > 2, broken)
    assert not (broken / "corpora").exists()
    written = content(broken / "generated/qa")
    assert main(["study", "status", str(broken), "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert 0 < half["flops"] == half["generated"][0]["flops"]
    killed_when(lambda: events(broken) >= 2, broken)
    assert content(broken / "generated/qa").items() >= written.items()
    run_study(broken)

    assert rounds_of(broken) == rounds_of(whole)
    assert (broken / "runs.csv").read_bytes() == (whole / "runs.csv").read_bytes()
    assert content(broken / "generated/qa") == content(tmp_path / "recorded/generated/qa")
    for records in broken.glob("runs/*/records.jsonl"):
        assert records.read_text().count('"kind": "done"') == 1

    # What generation took counts, everywhere alike.
    runs, status = read_runs(broken / "runs.csv"), study_status(broken)
    assert runs.flops is not None
    (source,) = status["generated"]
    assert status["flops"] == pytest.approx(runs.flops.sum() + source["flops"])
    assert rounds_of(broken)[-1]["flops"] == status["flops"]
    assert main(["study", "run", str(broken), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spent"] == status["flops"]
    assert main(["study", "report", str(broken)]) == 0
    page = (broken / "report.html").read_text(encoding="utf-8")
    assert "<h2>Generated sources</h2>" in page
    assert "replay: fake" in page
    assert "of them for generation" in page
