"""The study that compares generators: the same documents, several models, one grid of ratios."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from fake_server import WORDS, FakeServer
from generating import records
from lawkit.corpus import open_corpus
from lawkit.errors import StudyError
from lawkit.studies.generator_ablation.__main__ import main
from lawkit.studies.generator_ablation.prepare import NATURAL, RATIOS, prepare
from lawkit.study.bench import make_bench
from lawkit.study.spec import read_study
from needs import need

need("openai", "tokenizers")


@pytest.fixture
def natural(tmp_path) -> Path:
    """Python's own library: enough text for the largest batch."""
    path = tmp_path / "natural-text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for module in sorted(Path(os.__file__).parent.glob("[a-d]*.py")):
            text = module.read_text(encoding="utf-8")
            for at in range(0, len(text), 2000):
                file.write(json.dumps({"text": text[at : at + 2000]}) + "\n")
    return path


def babble(body: dict) -> str:
    """Words at random: text that repeats the held-out side would be left out of training."""
    return " ".join(random.Random(body["seed"]).choices(WORDS, k=100))


def test_a_study_of_two_generators(natural, tmp_path, capsys):
    folder = tmp_path / "study"
    with FakeServer(answer=babble) as one, FakeServer(answer=babble) as two:
        arguments = [str(folder), str(natural), "--tokens", "20k"]
        arguments += ["--model", f"a=fake@{one.url}", "--model", f"b=fake@{two.url}"]
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"lawkit study run {folder}\n"
        assert one.asked == two.asked > 0
        asked = one.asked
        assert main(arguments) == 0  # nothing is made twice
        assert one.asked == asked
    corpus = open_corpus(folder / "corpora")
    assert corpus.sources == (NATURAL, "a", "b")
    # Both rephrased the same documents, none of which is natural text of the corpus.
    a, b = ([record["document"] for record in records(folder / "generated" / name)] for name in "ab")
    assert set(a) & set(b)
    halves = [
        set((folder / name).read_text(encoding="utf-8").splitlines())
        for name in ("rephrased.jsonl", "natural.jsonl")
    ]
    assert not halves[0] & halves[1]
    assert sum(map(len, halves)) == len(set(natural.read_text(encoding="utf-8").splitlines()))
    spec = read_study(folder)
    runs = spec.plan(make_bench(spec))
    assert len(runs) == 2 * 2 * 2 * len(RATIOS) + 2 * 4
    ratios = {(name, run.weights.get(name, 0.0)) for run in runs for name in "ab"}
    assert {ratio for name, ratio in ratios if name == "b"} == {0.0, *RATIOS}
    # Other files are not taken for the first ones.
    lines = natural.read_text(encoding="utf-8").splitlines(keepends=True)
    natural.write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")
    assert main(arguments) == 1
    assert "the documents of shard 0 are not those" in capsys.readouterr().err


def test_what_it_refuses(natural, tmp_path):
    with pytest.raises(StudyError, match="at least one, and none called 'natural'"):
        prepare(tmp_path, [natural], {}, tokens=1)
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(natural), "--model", "fake"])
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(natural), "--model", "a=x", "--model", "a=y"])
    assert main([str(tmp_path), str(tmp_path / "none.jsonl"), "--model", "a=fake@http://127.0.0.1:9/v1"]) == 1
