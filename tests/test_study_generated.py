"""Studies that have their corpus built, and sources of it generated, before the first run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_server import FakeServer
from generating import content, documents
from lawkit.cli import main
from lawkit.corpus import open_corpus
from lawkit.errors import StudyError
from lawkit.study import Store, read_study, run_study, study_status
from lawkit.study.generation import make_corpus, needs
from needs import need

need("openai", "tokenizers")

FILE = """
[corpus]
sources = {web = "web.jsonl"}
vocab_size = 300
holdout = 0.1
[generated.qa]
source = "web"
style = "qa"
model = "fake"
urls = ["URL"]
n_params = 1000
shard = 4
[[grid]]
sizes = [{dim = 16, n_layers = 1, n_heads = 1}]
tokens = [5120]
mixtures = [{web = 0.5, qa = 0.5}]
[recipe]
seq_len = 32
batch_rows = 8
eval_rows = 16
"""
CIRCLE = """
[target]
n_params = "1M"
n_tokens = "10M"
[constraints]
bounds = {qa = {upper = 0.8}}
max_epochs = 4
[ladder]
sizes = [{dim = 16, n_layers = 1, n_heads = 1}]
tokens = [5120, 40000]
[loop]
budget = 1e13
"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


def study(folder: Path, server: FakeServer | None = None, text: str = FILE, count: int = 200) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "web.jsonl").exists():
        documents(folder / "web.jsonl", count)
    (folder / "study.toml").write_text(text.replace("URL", server.url if server else "http://127.0.0.1:9/v1"))
    return folder


def made(folder: Path) -> Path:
    corpus = make_corpus(read_study(folder), lambda what: None).corpus
    assert corpus is not None
    return corpus


def test_the_need_is_the_most_that_a_run_takes(tmp_path):
    read = lambda text: needs(read_study(study(tmp_path, text=text)))  # noqa: E731
    assert read(FILE) == {"qa": 2560}
    assert read(FILE.replace("shard = 4", 'tokens = "3k"')) == {"qa": 3000}
    assert read(FILE + CIRCLE) == {"qa": 0.8 * 40000 / 4}
    assert read(FILE + CIRCLE + '[available]\nqa = "2k"\n') == {"qa": 2000}


def test_what_is_missing_is_generated_and_no_more(tmp_path, server, capsys):
    folder = study(tmp_path, server)
    assert main(["study", "run", str(folder), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (priced,) = told["generated"]
    assert priced["tokens"] == pytest.approx(2560 / 0.9)
    assert told["flops"] == told["runs"][0]["flops"] + 2 * 1000 * priced["tokens"]
    assert server.asked == 0
    assert not (folder / "generated").exists()
    corpus = open_corpus(made(folder))
    assert corpus.sources == ("web", "qa")
    assert 2560 <= corpus.n_tokens("qa") < 4 * 2560
    asked = server.asked
    assert made(folder) == corpus.path
    assert server.asked == asked
    (source,) = study_status(folder)["generated"]
    names = ("name", "generator", "style", "prompt", "model", "seed", "source", "need", "corpus_tokens")
    said = ["qa", "fleet", "qa", "qa-1", "fake", 0, "web", 2560, corpus.n_tokens("qa")]
    assert [source[name] for name in names] == said
    assert source["flops"] > 2 * 1000 * source["tokens"]
    study(folder, server, FILE.replace("[5120]", "[10240]"))
    assert open_corpus(made(folder)).n_tokens("qa") >= 5120
    assert len(server.answered) == server.asked > asked  # the first texts were not asked for again
    assert main(["study", "status", str(folder)]) == 0
    assert "qa-1" in capsys.readouterr().out


def priced(text: str, n_params: str, budget: str) -> str:
    return (text + CIRCLE).replace("n_params = 1000", f"n_params = {n_params}").replace("1e13", budget)


def test_a_budget_that_does_not_pay_for_the_text_is_refused_before_any_is_generated(tmp_path, server, capsys):
    ladder_alone = FILE[: FILE.index("[[grid]]")] + FILE[FILE.index("[recipe]") :]
    for text, begun in ((FILE, "the runs of the grids"), (ladder_alone, "a start of 6 runs at the cheapest")):
        folder = study(tmp_path, server, priced(text, '"1M"', "1e10"))
        for options in ([], ["--dry-run"]):
            assert main(["study", "run", str(folder), *options]) == 1
            said = capsys.readouterr().err
            assert "loop.budget is 1e+10 flops, and generation (1.778e+10 for qa) and " + begun in said
            assert said.count("\n") == 1
    assert server.asked == 0
    assert not (folder / "generated").exists()


def test_what_prompts_add_is_seen_after_the_first_shard(tmp_path, server, capsys):
    folder = study(tmp_path, server, priced(FILE, '"1M"', "2.5e10"))
    assert main(["study", "run", str(folder), "--dry-run"]) == 0
    assert "prompts not counted" in capsys.readouterr().out
    assert main(["study", "run", str(folder)]) == 1
    assert "loop.budget is 2.5e+10 flops, and generation (" in capsys.readouterr().err
    shards = list((folder / "generated/qa").glob("*.jsonl"))
    assert 1 <= len(shards) < 10
    # So far it has spent what these took, and status, --dry-run and the next message know it.
    spent = study_status(folder)["flops"]
    assert 0 < spent == study_status(folder)["generated"][0]["flops"] < 2.5e10
    study(folder, server, priced(FILE, '"1M"', "1e12"))
    assert main(["study", "run", str(folder), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spent"] == spent
    (text,) = told["generated"]
    assert text["measured"]
    assert text["flops"] > 2 * 2e6 * text["tokens"]
    asked = server.asked
    made(folder)
    assert len(server.answered) == server.asked > asked
    # The estimate was about right, and the budget of runs is what is left.
    taken = study_status(folder)["flops"]
    assert taken == pytest.approx(spent + text["flops"], rel=0.5)
    for more, message in (
        (1e8, r"generation \(.* for qa\) and the runs of the grids"),
        (2e8, "the runs of the grids take .* of which generation took"),  # by 6 N D it would do
    ):
        study(folder, server, priced(FILE, '"1M"', f"{taken + more:.8g}"))
        with pytest.raises(StudyError, match=message):
            run_study(folder)


def test_a_cluster_that_does_not_answer_is_said_before_any_text_is_generated(tmp_path, server):
    text = 'executor = {name = "ray", address = "127.0.0.1:9"}\n' + FILE
    with pytest.raises(StudyError, match=r"executor: no Ray cluster answers at 127\.0\.0\.1:9"):
        run_study(study(tmp_path, server, text))
    assert server.asked == 0


def test_text_of_unknown_price_is_free_and_said_to_be(tmp_path, server, capsys):
    folder = study(tmp_path, server, (FILE + CIRCLE).replace("n_params = 1000\n", ""))
    made(folder)
    (source,) = study_status(folder)["generated"]
    assert source["flops"] is None
    assert study_status(folder)["flops"] == 0
    assert main(["study", "status", str(folder)]) == 0
    assert "what generation took unknown" in capsys.readouterr().out


def test_text_that_the_corpus_leaves_out_is_made_up_for(tmp_path, server):
    # Every other answer begins alike, and one that repeats a held-out text is not trained on.
    server.answer = lambda body: " ".join(
        random.Random(0 if body["seed"] % 2 else body["seed"]).choices("abcd", k=60)
        + random.Random(body["seed"]).choices("efgh", k=60)
    )
    folder = study(tmp_path, server, FILE.replace("[5120]", "[10240]"))
    corpus = open_corpus(made(folder))
    assert corpus.n_tokens("qa") >= 5120
    with Store(folder) as store:
        assert store.kept("generating")["targets"]["qa"] > 1.02 * 5120 / 0.9


def test_a_killed_generation_goes_on_to_the_same_corpus(tmp_path, server):
    server.seconds = 0.02
    folder = study(tmp_path / "killed", server)
    code = f"from lawkit.study import run_study; run_study({str(folder)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while server.asked < 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (folder / "corpora").exists()
    corpus = made(folder)
    assert content(folder / "generated" / "qa")
    again = made(study(tmp_path / "whole", server))
    assert corpus.name == again.name
    assert content(tmp_path / "whole/generated/qa") == content(folder / "generated/qa")


def test_a_source_that_is_too_small_says_what_it_lacks(tmp_path, server):
    folder = study(tmp_path, server, count=8)
    with pytest.raises(
        StudyError, match=r"generated.qa gives [\d,]+ tokens, and the runs need 2,560: .* documents"
    ):
        made(folder)
    documents(folder / "web.jsonl", 100, first=8)
    assert open_corpus(made(folder)).n_tokens("qa") >= 2560


def test_no_server_and_no_text_are_said(tmp_path, server):
    server.answer = lambda body: "too short"
    with pytest.raises(StudyError, match=r"generated.qa: no text was kept \(.* short"):
        made(study(tmp_path, server))
    with pytest.raises(StudyError, match=r"generated.again: .*nowhere holds no generated text"):
        made(study(tmp_path, server, FILE.replace("generated.qa", "generated.again").replace(
            'model = "fake"\nurls = ["URL"]', 'replay = "nowhere"').replace("qa = 0.5", "again = 0.5")))  # fmt: skip


@pytest.mark.slow
def test_a_study_with_a_generated_source_trains_and_is_fixed_then(tmp_path, server, torchtitan):
    folder = study(tmp_path, server)
    summary = run_study(folder)
    assert (summary.done, summary.failed) == (1, 0)
    assert (folder / "runs.csv").read_text().startswith("run_id")
    asked, corpora = server.asked, list((folder / "corpora").iterdir())
    assert main(["study", "run", str(folder), "--dry-run"]) == 0
    assert run_study(folder).trained == 0
    study(folder, server, FILE.replace("[5120]", "[10240]"))
    with pytest.raises(StudyError, match=r"need 5,120 tokens of qa now, .* generated for 2,560, but 1 runs"):
        run_study(folder)
    study(folder, server, FILE.replace('style = "qa"', 'style = "hq"'))
    with pytest.raises(StudyError, match="generated changed, but 1 runs"):
        run_study(folder)
    assert server.asked == asked
    assert list((folder / "corpora").iterdir()) == corpora
    # Recorded answers make the same source without a server.
    replayed = study(
        tmp_path / "replayed",
        text=FILE.replace('model = "fake"\nurls = ["URL"]', f'replay = "{folder}/generated/qa"'),
    )
    assert made(replayed).name == corpora[0].name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sources = {web = "web.jsonl"}', "", "corpus.sources is missing"),
        ('sources = {web = "web.jsonl"}', "sources = {}", "corpus.sources is {}: it must have at least one"),
        ('"web.jsonl"', "3", "corpus.sources.web is 3"),
        ("vocab_size = 300", "vocab_size = 3", "corpus.vocab_size is 3"),
        ("vocab_size", "vocab", "corpus.vocab is unknown; did you mean vocab_size"),
        ("holdout = 0.1", "holdout = 1", "corpus.holdout is 1"),
        ("generated.qa", "generated.web", "generated.web: 'web' is a source of the corpus already"),
        ("generated.qa", 'generated."../qa"', "generated.../qa: '../qa' is no name"),
        ('source = "web"', 'source = "wen"', "generated.qa.source is 'wen': it must be one of corpus.sources: web"),
        ('source = "web"', "", "generated.qa.source is missing"),
        ('style = "qa"', 'style = "rap"', "generated.qa.style is 'rap'"),
        ('model = "fake"', "", "generated.qa.model is missing"),
        ('urls = ["URL"]', "", "generated.qa has no generator"),
        ('urls = ["URL"]', "urls = []", r"generated.qa.urls is \[\]"),
        ('urls = ["URL"]', 'urls = ["URL"]\nserver = true', "generated.qa has urls and server"),
        ('urls = ["URL"]', "server = 3", "generated.qa.server is 3"),
        ('urls = ["URL"]', "server = {concurrency = 0}", "generated.qa.server.concurrency is 0"),
        ('urls = ["URL"]', "server = {log = 'x'}", "generated.qa.server.log is 'x'"),
        ("n_params = 1000", "n_params = -1", "generated.qa.n_params is -1"),
        ("shard = 4", "shard = 0", "generated.qa.shard is 0"),
        ("shard = 4", "tokens = -1", "generated.qa.tokens is -1"),
        ("shard = 4", "shards = 4", "generated.qa.shards is unknown; did you mean shard"),
        ("qa = 0.5", "qb = 0.5", r"grid\[0\].mixtures\[0\].qb: no such source; there are web, qa"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path(tmp_path, old, new, message):
    assert old in FILE
    folder = study(tmp_path, text=FILE.replace(old, new))
    with pytest.raises(StudyError, match=message):
        made(folder)
    assert not (folder / "generated").exists()


def test_a_corpus_that_is_built_takes_no_generated_source(tmp_path):
    folder = study(tmp_path, text='corpus = "corpus"\n' + FILE[FILE.index("[generated.qa]") :])
    with pytest.raises(
        StudyError, match=r"generated is .*: a corpus that is built already takes no new source"
    ):
        read_study(folder)
