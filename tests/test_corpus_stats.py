"""Statistics of a corpus: each number beside one computed another way, on real text and on a program's."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from lawkit.cli import main
from lawkit.corpus import Corpus, CorpusStats, _ngrams, _unigrams, build, open_corpus, stats
from lawkit.corpus._unigrams import coverage, zipf
from lawkit.errors import BackendError, CorpusError
from needs import need

need("tokenizers", "scipy")
import tokenizers  # noqa: E402

PROSE = [text for text in topics.values() if len(text) > 400]


def rephrased(text: str, seed: int) -> str:
    """What a program makes of a text: a third of its lines word for word, the others drawn word after word."""
    rng, words = random.Random(seed), text.split()
    after: dict[str, list[str]] = {}
    for a, b in pairwise(words):
        after.setdefault(a, []).append(b)
    lines = []
    for line in text.splitlines():
        word, drawn = rng.choice(words), []
        for _ in line.split():
            drawn.append(word)
            word = rng.choice(after.get(word, words))
        lines.append(line if rng.random() < 1 / 3 else " ".join(drawn))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Prose and code that every Python has, the prose half of it once more in a program's words."""
    folder = tmp_path_factory.mktemp("corpus")
    code = sorted(Path(json.__file__).parent.parent.glob("[a-c]*.py"))
    texts = {
        "prose": PROSE,
        "code": [path.read_text(encoding="utf-8") for path in code],
        "generated": [rephrased(text, i) for i, text in enumerate(PROSE[::2])],
    }
    sources = {}
    for name, found in texts.items():
        sources[name] = folder / f"{name}.jsonl"
        lines = "".join(json.dumps({"text": text}) + "\n" for text in found)
        sources[name].write_text(lines, encoding="utf-8")
    return build(sources, folder / "out", vocab_size=1000, holdout=0.15)


@pytest.fixture(scope="module")
def found(corpus) -> CorpusStats:
    return stats(corpus, input="prose", top=1000)


def documents(corpus: Corpus, ids) -> list[list[int]]:
    """The documents of a side as lists of ids, without their frames."""
    split: list[list[int]] = [[]]
    for i in np.asarray(ids).tolist():
        if i == corpus.eos:
            split.append([])
        elif i != corpus.bos:
            split[-1].append(i)
    assert not split[-1]
    return split[:-1]


def test_unigrams_are_those_of_an_independent_count(corpus, found):
    from scipy.stats import entropy

    V, special = corpus.vocab_size, [corpus.bos, corpus.eos]
    for name in corpus.sources:
        source = Counter(i for d in documents(corpus, corpus.train(name)) for i in d)
        about, n = found.sources[name], source.total()
        assert (about.n_tokens, about.n_types) == (n, len(source))
        assert {i: int(c) for i, c in enumerate(about.counts) if c} == source
        for domain in corpus.sources:
            held = Counter(i for d in documents(corpus, corpus.heldout(domain)) for i in d)
            seen, m = about.domains[domain], held.total()
            assert seen.type_coverage == pytest.approx(len(held.keys() & source.keys()) / len(held))
            assert seen.token_coverage == pytest.approx(sum(held[i] for i in held if i in source) / m)

            def q(i, source=source, n=n):
                return (source[i] + 0.5) / (n + 0.5 * (V - 2))

            kl = math.fsum(c / m * math.log(c / m / q(i)) for i, c in held.items())
            assert seen.kl == pytest.approx(kl, rel=1e-12)
            p = np.delete([held[i] for i in range(V)], special)
            assert seen.kl == pytest.approx(
                entropy(p, np.delete([q(i) for i in range(V)], special)), rel=1e-9
            )
            rare = {i for i, c in held.items() if c >= 10 and c / m >= 10 * q(i)}
            assert {t.id for t in seen.rare} == rare
            assert seen.n_rare == len(rare)
            assert seen.rare_share == pytest.approx(sum(held[i] for i in rare) / m)
            assert seen.rare_kl == pytest.approx(sum(t.kl for t in seen.rare))
            assert [t.kl for t in seen.rare] == sorted((t.kl for t in seen.rare), reverse=True)
            for token in seen.rare:
                assert (token.domain, token.source) == pytest.approx(
                    (held[token.id] / m, source[token.id] / n)
                )


def test_what_is_near_and_far_comes_out_so(corpus, found):
    def kl(source, domain):
        return found.sources[source].domains[domain].kl

    assert kl("prose", "prose") < kl("generated", "prose") < kl("code", "prose")
    assert kl("code", "code") < kl("prose", "code")
    rare = found.sources["prose"].domains["code"].rare
    assert " self" in {token.text for token in rare[:3]}


def test_coverage_of_as_many_tokens_is_that_of_samples():
    rng = np.random.default_rng(0)
    source = rng.multinomial(20_000, 1 / np.arange(1, 3001) / np.sum(1 / np.arange(1, 3001)))
    domain = rng.multinomial(5_000, np.full(3000, 1 / 3000))
    bag = np.repeat(np.arange(3000), source)
    drawn = [
        coverage(domain, np.bincount(rng.choice(bag, 4000, replace=False), minlength=3000))
        for _ in range(300)
    ]
    assert coverage(domain, source, 4000) == pytest.approx(np.mean(drawn, axis=0), abs=1e-3)
    assert coverage(domain, source, 20_000) == coverage(domain, source) == coverage(domain, source, 10**6)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.3])
@pytest.mark.parametrize(("types", "n"), [(1000, 50_000), (50_000, 1_000_000)])
def test_the_exponent_of_simulated_draws(exponent, types, n):
    p = np.arange(1, types + 1) ** -exponent
    rng = np.random.default_rng(1)
    fits = [zipf(rng.multinomial(n // 16, p / p.sum(), 16)) for _ in range(20)]
    assert all(f is not None and abs(f.exponent - exponent) < 0.02 for f in fits)
    # Its error is the spread of repetitions; their mean may be off by less than half of the .02.
    ratio = np.mean([f.se or np.nan for f in fits if f]) / np.std([f.exponent for f in fits if f], ddof=1)
    assert 0.5 < ratio < 2
    assert abs(np.mean([f.exponent for f in fits if f]) - exponent) < 0.01
    assert all(f.distance < 0.02 for f in fits if f)


def test_no_exponent_of_hardly_any_types():
    assert zipf(np.full((4, 9), 100)) is None
    assert zipf(np.full((4, 50), 4)) is None
    level = zipf(np.full((4, 50), 5))
    assert level is not None
    assert level.exponent == 0
    assert level.distance < 1e-12


def test_the_exponent_of_text_of_simulated_words(tmp_path):
    """The whole way, from a file of words drawn by the law to the printed exponent."""
    from tokenizers import models, pre_tokenizers

    words = [f"w{i}" for i in range(3000)]
    ids = {word: i for i, word in enumerate(["<s>", "</s>", "?", *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    p = np.arange(1, 3001) ** -1.1
    drawn = np.random.default_rng(2).choice(words, 300_000, p=p / p.sum()).reshape(-1, 100)
    lines = "".join(json.dumps({"text": " ".join(row)}) + "\n" for row in drawn)
    (tmp_path / "words.jsonl").write_text(lines, encoding="utf-8")
    built = build(
        {"words": tmp_path / "words.jsonl"}, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json"
    )
    law = stats(built).sources["words"].zipf
    assert law is not None
    assert law.se is not None
    assert abs(law.exponent - 1.1) < 0.02
    assert abs(law.exponent - 1.1) < 4 * law.se


def test_lengths_of_documents(corpus, found):
    for name in corpus.sources:
        lengths = [len(d) for d in documents(corpus, corpus.train(name))]
        about = found.sources[name].lengths
        assert found.sources[name].n_documents == len(lengths) == sum(about.counts)
        assert (about.mean, about.shortest, about.longest) == (np.mean(lengths), min(lengths), max(lengths))
        quantiles = np.percentile(lengths, [5, 25, 50, 75, 95], method="inverted_cdf")
        assert list(about.quantiles.values()) == quantiles.tolist()
        for low, high, n in zip(about.edges, about.edges[1:], about.counts, strict=False):
            assert n == sum(low <= length < high for length in lengths)


def test_distinct_runs_of_equal_samples(corpus, found):
    runs = {name: {n: _runs(corpus, corpus.train(name), n) for n in (1, 2, 3, 4)} for name in corpus.sources}
    shortest = min(corpus.sources, key=lambda name: len(corpus.train(name)))
    assert found.equal_tokens == len(corpus.train(shortest))
    for n in (1, 2, 3, 4):
        # The shortest source is there whole, the others by a sample.
        every = runs[shortest][n]
        assert found.distinct_runs[str(n)] <= len(every)
        first = every[: found.distinct_runs[str(n)]]
        assert found.sources[shortest].distinct[str(n)] == len(set(first)) / len(first)
    for n in ("2", "3", "4"):
        assert found.sources["code"].distinct[n] != 1
    alone = stats(corpus, ["code"], domains=["code"]).sources["code"].distinct
    assert alone == {str(n): len(set(runs["code"][n])) / len(runs["code"][n]) for n in (1, 2, 3, 4)}


def _runs(corpus: Corpus, ids, n: int) -> list[tuple[int, ...]]:
    return [tuple(d[i : i + n]) for d in documents(corpus, ids) for i in range(len(d) - n + 1)]


def test_copies_are_those_that_are_found_one_by_one(corpus, found):
    train, held = corpus.train("prose"), corpus.heldout("prose")
    for name in ("generated", "code"):
        about = found.sources[name].copies
        assert about is not None
        assert about.n_tokens == len(corpus.train(name))
        for n, share, baseline in (
            (8, about.share_8, about.baseline_8),
            (13, about.share_13, about.baseline_13),
        ):
            trained = set(_runs(corpus, train, n))
            known = trained | set(_runs(corpus, held, n))
            each = [
                [tuple(d[i : i + n]) in known for i in range(len(d) - n + 1)]
                for d in documents(corpus, corpus.train(name))
            ]
            assert share == pytest.approx(np.mean([*chain.from_iterable(each)]))
            assert baseline == pytest.approx(np.mean([r in trained for r in _runs(corpus, held, n)]))
            if n == 8:
                assert about.documents == pytest.approx(np.mean([np.mean(e) >= 0.5 for e in each if e]))
        for length, shared in ((about.longest, True), (about.longest + 1, False)):
            both = {*_runs(corpus, train, length), *_runs(corpus, held, length)}
            assert bool(both & set(_runs(corpus, corpus.train(name), length))) == shared
    assert found.sources["prose"].copies is None
    generated, code = (found.sources[name].copies for name in ("generated", "code"))
    assert generated.share_8 > 0.15 > 10 * code.share_8


def test_pieces_of_any_size_give_the_same(corpus, found, monkeypatch):
    monkeypatch.setattr(_unigrams, "PIECE", 997)
    monkeypatch.setattr(_ngrams, "PIECE", 1009)
    again = stats(corpus, input="prose", top=1000).to_dict()
    assert again.pop("seconds") > 0
    first = found.to_dict()
    first.pop("seconds")
    for source in (*again["sources"].values(), *first["sources"].values()):
        source["zipf"].pop("se")  # of parts that are cut elsewhere
    assert again == first


def test_samples_are_spread_and_no_run_crosses_their_blocks(corpus, monkeypatch):
    tokens, marks = corpus.train("code"), _ngrams.Marks(corpus.bos, corpus.eos)
    monkeypatch.setattr(_ngrams, "_BLOCK", 100)
    taken = _ngrams.sample(tokens, 5000, corpus.eos)
    assert len(taken) == 50 * 101
    assert np.array_equal(taken, _ngrams.sample(tokens, 5000, corpus.eos))
    starts, _ = _ngrams.windows(taken, 8, marks)
    known = set(_runs(corpus, tokens, 8))
    assert all(tuple(taken[s : s + 8].tolist()) in known for s in starts)
    copied = _ngrams.copies(taken, "code", [tokens], marks)
    assert (copied.share_8, copied.share_13, copied.documents) == (1, 1, 1)
    assert copied.longest == 100


def test_text_beside_the_corpus_is_encoded_by_its_tokenizer(corpus, found, tmp_path):
    other = [rephrased(text, 7) for text in PROSE[1::2]]
    (tmp_path / "new.jsonl").write_text(
        "".join(json.dumps({"body": t}) + "\n" for t in other), encoding="utf-8"
    )
    told = stats(corpus, text={"new": tmp_path / "new.jsonl"}, input="prose", text_column="body")
    assert list(told.sources) == ["new"]
    tokenizer = tokenizers.Tokenizer.from_file(str(corpus.tokenizer_path))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in other]
    assert told.sources["new"].n_tokens == sum(map(len, ids))
    assert Counter(i for each in ids for i in each).total() == told.sources["new"].counts.sum()
    copied = told.sources["new"].copies
    assert copied is not None
    assert copied.share_8 is not None
    assert copied.share_8 > 0.15
    both = stats(corpus, ["code"], text={"new": tmp_path / "new.jsonl"}, input="new", text_column="body")
    assert list(both.sources) == ["code", "new"]
    assert both.sources["new"].copies is None
    assert both.sources["code"].copies is not None
    assert both.sources["code"].copies.baseline_8 is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(corpus, tmp_path):
    program = (
        "import sys\nfrom lawkit.corpus import stats\n"
        "found = stats(sys.argv[1], ['code'], input='prose')\n"
        "print(found.sources['code'].n_tokens)\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    tokens, peaks = [], []
    for times in (12, 120):
        folder = Path(shutil.copytree(corpus.path, tmp_path / str(times)))
        manifest = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        for name in ("code", "prose"):
            side = (folder / name / "train.bin").read_bytes()
            (folder / name / "train.bin").write_bytes(side * times)
            manifest["sources"][name]["train"]["tokens"] *= times
        (folder / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
        )
        n, peak = done.stdout.split()
        tokens.append(int(n))
        peaks.append(int(peak) / 1024)
    assert tokens[1] == 10 * tokens[0] > 10_000_000
    assert peaks[1] < peaks[0] + 25, peaks


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_what_cannot_be_described_is_refused(corpus, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("a few words", encoding="utf-8")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"sources": ["prsoe"]}, "no source 'prsoe'.*Did you mean 'prose'"),
        ({"domains": ["wiki"]}, "no source 'wiki'; there are 'prose', 'code', 'generated'"),
        ({"input": "wiki"}, "no source 'wiki'"),
        ({"text": {"code": file}}, "'code' is a source of .* already"),
        ({"text": {"new": tmp_path / "none.txt"}}, "there is no file"),
        ({"smoothing": 0.0}, r"smoothing is 0\.0: a number above 0"),
        ({"smoothing": math.nan}, "smoothing is nan"),
        ({"sample_tokens": 10}, "sample_tokens is 10: a whole number of at least 1000"),
        ({"top": -1}, "top is -1"),
    ]
    for arguments, message in refused:
        with pytest.raises(CorpusError, match=message):
            stats(corpus, **arguments)
    with pytest.raises(BackendError, match=r"no folder of a run: it has no spec\.json"):
        stats(corpus, proxy=tmp_path)


def test_a_domain_of_which_nothing_is_held_out_is_refused(tmp_path, corpus):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in PROSE[:20]), encoding="utf-8"
    )
    whole = build({"a": tmp_path / "a.jsonl"}, tmp_path / "out", tokenizer=corpus.tokenizer_path, holdout=0)
    with pytest.raises(CorpusError, match=r"'a' has no heldout tokens. Build with a --holdout above 0"):
        stats(whole)


# ---- the command --------------------------------------------------------------------------------------------------


def run(*arguments: str, columns: int | None = None, **options) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"COLUMNS": str(columns)} if columns else {})}
    command = [sys.executable, "-m", "lawkit.cli", "corpus", "stats", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, **options)


def test_the_command_prints_one_object(corpus, found, capsys):
    assert main(["corpus", "stats", str(corpus.path), "--input", "prose", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = stats(corpus, input="prose").to_dict()
    assert told.pop("cpu_seconds") > 0
    assert told.pop("seconds") > 0
    expected.pop("seconds")
    assert told == json.loads(json.dumps(expected))
    assert list(told["sources"]["prose"]) == [
        "n_tokens", "n_documents", "n_types", "zipf", "distinct", "lengths", "copies", "domains",
    ]  # fmt: skip


def test_tables_hold_in_forty_columns_and_in_a_pipe(corpus):
    done = run(str(corpus.path), "--input", "prose", columns=40)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 40
    wide = run(str(corpus.path), "code", "--domain", "prose")
    assert wide.returncode == 0
    lines = wide.stdout.splitlines()
    assert "\x1b" not in wide.stdout
    (row,) = [line for line in lines if line.startswith("code") and " prose " in line and "." in line][:1]
    assert f"{stats(corpus, ['code'], domains=['prose']).sources['code'].domains['prose'].kl:.4f}" in row
    assert "million tokens/s" in wide.stderr


def test_figures_are_drawn_and_the_same_every_time(corpus, tmp_path, capsys):
    need("matplotlib")
    for folder in ("a", "b"):
        arguments = ["corpus", "stats", str(corpus.path), "--figures", str(tmp_path / folder)]
        assert main(arguments) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"{n}.{s}" for n in ("domains", "lengths", "unigrams") for s in ("png", "svg")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    drawn = (tmp_path / "a" / "unigrams.svg").read_text(encoding="utf-8")
    law = stats(corpus).sources["code"].zipf
    assert law is not None
    assert f"exponent {law.exponent:.3f}" in drawn
    assert "mathdefault" not in drawn


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing"], 1, "error: nothing is no corpus"),
        (["CORPUS", "wiki"], 1, "there is no source 'wiki'; there are 'prose', 'code', 'generated'"),
        (["CORPUS", "new="], 2, "'new=' is not of the form SOURCE=FILES"),
        (["CORPUS", "--sample", "none"], 2, "'none' is not a size"),
        (
            ["CORPUS", "--figures", "FILE"],
            1,
            "figures cannot be written to .*: (File exists|Not a directory)",
        ),
        (["CORPUS", "--figures", "FILE/in"], 1, "figures cannot be written to .*: Not a directory"),
    ],
)
def test_the_command_refuses_in_one_message(corpus, tmp_path, capsys, arguments: list[str], status, message):
    (tmp_path / "file").write_text("taken", encoding="utf-8")
    stand: dict[str, str] = {
        "CORPUS": str(corpus.path),
        "FILE": str(tmp_path / "file"),
        "FILE/in": str(tmp_path / "file" / "in"),
    }
    assert main(["corpus", "stats", *(stand.get(a, a) for a in arguments)]) == status
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    assert re.search(message, err), err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "taken"


# ---- a trained proxy ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(corpus, tmp_path_factory) -> Path:
    """The folder of a run of 60 steps on prose alone, with its checkpoint."""
    need("torchtitan")
    from lawkit.backends.torchtitan import plan
    from lawkit.backends.torchtitan.spec import write_spec

    folder = tmp_path_factory.mktemp("proxy") / "run"
    spec = plan(
        corpus, corpus.path, size={"dim": 16, "n_layers": 1, "n_heads": 1}, n_tokens=60 * 256, weights={"prose": 1.0},
        recipe={"seq_len": 32, "batch_rows": 8, "eval_rows": 64, "keep_checkpoint": True},
    )  # fmt: skip
    write_spec(spec, folder)
    done = subprocess.run(
        [sys.executable, "-m", "lawkit.backends.torchtitan.worker", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_proxy_loses_what_its_run_recorded(corpus, proxy):
    from lawkit.backends.torchtitan.proxy import proxy_losses
    from lawkit.backends.torchtitan.records import Records

    before = sorted((path, path.stat().st_mtime_ns) for path in proxy.rglob("*"))
    told = stats(corpus, ["code", "prose"], proxy=proxy, top=1000)
    assert sorted((path, path.stat().st_mtime_ns) for path in proxy.rglob("*")) == before
    recorded = Records(proxy).of("eval")[-1]["domains"]
    each = proxy_losses(proxy, corpus, ["code"])
    assert told.proxy == {"run": str(proxy), "step": 60, "weights": {"prose": 1.0}}
    for domain in corpus.sources:
        assert told.domains[domain]["loss"] == pytest.approx(recorded[domain]["loss"], rel=1e-6)
        assert told.domains[domain]["loss_tokens"] == 32 * recorded[domain]["rows"]
    pairs = list(zip(each.tokens["code"].ravel().tolist(), each.losses["code"].ravel().tolist(), strict=True))
    total = math.fsum(loss for _, loss in pairs)
    seen = told.sources["prose"].domains["code"]
    rare = {token.id for token in seen.rare}
    assert seen.rare_loss_share == pytest.approx(math.fsum(v for i, v in pairs if i in rare) / total)
    assert seen.rare_loss == pytest.approx(np.mean([v for i, v in pairs if i in rare]))
    for token in seen.rare[:5]:
        own = [v for i, v in pairs if i == token.id]
        assert token.loss == pytest.approx(np.mean(own))
        assert token.loss_share == pytest.approx(math.fsum(own) / total)
    # A model of prose alone loses more on what is rare in prose.
    assert seen.rare_loss > 1.1 * told.domains["code"]["loss"]
    assert told.warnings == [
        "the proxy was not trained on 'code': its losses do not tell what is hard for a model of that text"
    ]


@pytest.mark.slow
def test_a_proxy_of_another_kind_is_refused(corpus, proxy, tmp_path, monkeypatch):
    text = tmp_path / "a.jsonl"
    text.write_text("".join(json.dumps({"text": t}) + "\n" for t in PROSE), encoding="utf-8")
    smaller = build({"prose": text}, tmp_path / "small", vocab_size=500, holdout=0.1)
    with pytest.raises(
        BackendError, match="has a vocabulary of 500, and this run was specified with one of 1,000"
    ):
        stats(smaller, proxy=proxy)
    same = build({"prose": text}, tmp_path / "same", tokenizer=corpus.tokenizer_path, holdout=0.1)
    with pytest.raises(BackendError, match="is another than this run was specified with"):
        stats(same, proxy=proxy)
    bare = Path(shutil.copytree(proxy, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoint")))
    with pytest.raises(BackendError, match=r"has no checkpoint. Train it with keep_checkpoint = true"):
        stats(corpus, proxy=bare)
    broken = Path(shutil.copytree(proxy, tmp_path / "broken"))
    (data,) = broken.glob("checkpoint/step-60/*.distcp")
    data.unlink()
    with pytest.raises(BackendError, match=r"broken: the proxy cannot be evaluated: .*No such file"):
        stats(corpus, proxy=broken)
    with pytest.raises(
        BackendError, match=r"no-such-python: the proxy cannot be evaluated with it \(No such file"
    ):
        stats(corpus, proxy=proxy, python="no-such-python")
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('there is no torch')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"there is no torch in .*: pip install 'lawkit\[torchtitan\]'"):
        stats(corpus, proxy=proxy)


def test_open_corpus_by_path_or_object(corpus):
    assert stats(corpus.path, ["prose"], domains=["prose"]).digest == open_corpus(corpus.path).digest
