"""A corpus from files: what is in it, on which side, and that it is the same whoever builds it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lawkit.cli import main
from lawkit.corpus import Corpus, CorpusError, Progress, build, open_corpus
from lawkit.corpus._near import NearDuplicates
from needs import need

need("tokenizers")
import tokenizers  # noqa: E402

TEXTS = [text for text in topics.values() if len(text) > 400]


def write_files(folder: Path, texts=TEXTS) -> str:
    """One text file a document; returns the pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:03}.txt").write_text(text, encoding="utf-8")
    return str(folder / "*.txt")


def decoded(corpus: Corpus, ids) -> list[str]:
    """The documents of a side, without their frames."""
    tokenizer = tokenizers.Tokenizer.from_file(str(corpus.tokenizer_path))
    ends = np.flatnonzero(np.asarray(ids) == corpus.eos)
    assert ends[-1] == len(ids) - 1
    found = []
    for piece in np.split(np.asarray(ids), ends + 1)[:-1]:
        assert piece[-1] == corpus.eos
        body = piece[:-1]
        if corpus.bos != corpus.eos:
            assert body[0] == corpus.bos
            body = body[1:]
        assert not np.isin(body, [corpus.bos, corpus.eos]).any()
        found.append(tokenizer.decode(body.tolist()))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("built")
    pattern = write_files(folder / "src")
    return build({"topics": pattern}, folder / "out", vocab_size=600, holdout=0.1)


def test_every_document_is_on_one_side_and_reads_back(built):
    train, heldout = decoded(built, built.train("topics")), decoded(built, built.heldout("topics"))
    about = built.manifest["sources"]["topics"]
    assert not set(train) & set(heldout)
    near = NearDuplicates(text.encode() for text in heldout)
    left_out = [text for text in TEXTS if text not in train and text not in heldout]
    assert all(near.repeated([text.encode()])[0] for text in left_out)
    assert len(train) + len(heldout) + len(left_out) == len(TEXTS) == about["documents"]
    assert len(left_out) == about["removed"]["near_duplicates"]
    # Training documents come in the order of the files.
    assert train == [text for text in TEXTS if text in set(train)]
    assert 0.03 * len(TEXTS) < len(heldout) < 0.25 * len(TEXTS)


def test_counts_are_those_of_the_arrays(built):
    train, heldout = built.train("topics"), built.heldout("topics")
    assert isinstance(train, np.memmap)
    assert (train.ndim, train.dtype) == (1, np.uint16)
    assert built.n_tokens("topics") == len(train)
    assert built.n_heldout_tokens("topics") == len(heldout)
    texts = decoded(built, heldout)
    assert built.heldout_bytes("topics") == sum(len(text.encode()) for text in texts)
    assert built.vocab_size == 600
    assert not any("back from its tokens" in said for said in built.warnings)
    assert max(train.max(), heldout.max()) < 600
    with pytest.raises(ValueError, match="read-only"):
        train[0] = 0


def test_no_training_document_repeats_a_held_out_one_of_any_source(tmp_path):
    rng = random.Random(0)
    edited = [" ".join(w if rng.random() > 0.05 else "other" for w in text.split(" ")) for text in TEXTS]
    first, second = write_files(tmp_path / "a"), write_files(tmp_path / "b", edited)
    corpus = build({"a": first, "b": second}, tmp_path / "out", vocab_size=500, holdout=0.1)
    near = NearDuplicates(t.encode() for name in ("a", "b") for t in decoded(corpus, corpus.heldout(name)))
    for name in ("a", "b"):
        assert not any(near.repeated([text.encode()])[0] for text in decoded(corpus, corpus.train(name)))
        assert corpus.manifest["sources"][name]["removed"]["near_duplicates"] >= 5
    assert any("'a'" in said and "repeat held-out ones" in said for said in corpus.warnings)


def test_copies_fall_on_one_side(tmp_path):
    pattern = write_files(tmp_path / "a", [*TEXTS, *TEXTS, *TEXTS])
    corpus = build({"a": pattern}, tmp_path / "out", vocab_size=500, holdout=0.1)
    heldout = decoded(corpus, corpus.heldout("a"))
    assert len(set(heldout)) == len(heldout)
    assert not set(heldout) & set(decoded(corpus, corpus.train("a")))
    assert corpus.manifest["sources"]["a"]["removed"]["copies_of_heldout"] == 2 * len(heldout)


def jsonl(texts, key="text") -> bytes:
    return "".join(json.dumps({"id": i, key: t}) + "\n" for i, t in enumerate(texts)).encode()


def parquet(texts, **options) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), buffer, **options)
    return buffer.getvalue()


FORMATS = {
    "a.jsonl": jsonl(TEXTS),
    "a.jsonl.gz": gzip.compress(jsonl(TEXTS)),
    # Two gzip members after one another, as parallel compressors write them.
    "b.jsonl.gz": gzip.compress(jsonl(TEXTS[:30])) + gzip.compress(jsonl(TEXTS[30:])),
    "a.ndjson.zst": pa.compress(jsonl(TEXTS), codec="zstd", asbytes=True),
    "a.parquet": parquet(TEXTS),
    "b.parquet": parquet(TEXTS, row_group_size=7, use_dictionary=False, compression="zstd"),
    "a.txt.gz": gzip.compress("\n%%\n".join(TEXTS).encode()),
    "a.txt.zst": pa.compress("\n%%\n".join(TEXTS).encode(), codec="zstd", asbytes=True),
    "a.md": b"\xef\xbb\xbf" + "\n%%\n".join(TEXTS).encode(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_one_text_in_any_format_gives_the_same_tokens(name, built, tmp_path):
    (tmp_path / name).write_bytes(FORMATS[name])
    corpus = build(
        {"topics": tmp_path / name},
        tmp_path / "out",
        document_separator="\n%%\n",
        tokenizer=built.tokenizer_path,
        holdout=0.1,
    )
    assert decoded(corpus, corpus.train("topics")) == decoded(built, built.train("topics"))
    assert corpus.digest == build_of_files(built, tmp_path).digest


def build_of_files(built: Corpus, folder: Path) -> Corpus:
    pattern = write_files(folder / "files")
    return build({"topics": pattern}, folder / "again", tokenizer=built.tokenizer_path, holdout=0.1)


def test_a_single_long_text_is_cut_at_paragraphs(tmp_path):
    text = "\n\n".join(" ".join(topic.split()) for topic in TEXTS)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    corpus = build({"book": tmp_path / "book.txt"}, tmp_path / "out", vocab_size=500, holdout=0.1)
    train, heldout = decoded(corpus, corpus.train("book")), decoded(corpus, corpus.heldout("book"))
    about = corpus.manifest["sources"]["book"]
    assert about["bytes"] == len(text.encode())
    assert len(train) + len(heldout) + about["removed"]["near_duplicates"] == about["documents"] >= 20
    for piece in (*train, *heldout):
        assert piece in text
        assert len(piece.encode()) <= 16 << 10


def test_the_same_files_give_the_same_folder_wherever_they_lie(built, tmp_path):
    pattern = write_files(tmp_path / "elsewhere")
    stages = []
    again = build(
        {"topics": pattern},
        built.path.parent,
        vocab_size=600,
        holdout=0.1,
        progress=lambda p: stages.append(p.stage),
    )
    assert again.path == built.path
    assert "reuse" in stages
    assert "encode" not in stages
    other = build({"topics": pattern}, tmp_path / "out", vocab_size=600, holdout=0.1)
    assert other.digest == built.digest
    assert (other.path / "topics" / "train.bin").read_bytes() == (
        built.path / "topics" / "train.bin"
    ).read_bytes()


@pytest.mark.parametrize("change", [{"seed": 1}, {"holdout": 0.2}, {"vocab_size": 601}])
def test_other_options_give_another_folder(built, change, tmp_path):
    pattern = write_files(tmp_path / "src")
    other = build({"topics": pattern}, tmp_path / "out", **{"vocab_size": 600, "holdout": 0.1, **change})
    assert other.path.name != built.path.name
    assert other.digest != built.digest


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(70_000)} | {"</s>": 70_000, "[UNK]": 70_001}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.jsonl").write_bytes(jsonl([f"w{i} w{i + 60_000}" for i in range(500)]))
    corpus = build(
        {"a": tmp_path / "a.jsonl"}, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json", holdout=0.1
    )
    assert corpus.train("a").dtype == np.uint32
    # One special token only: it ends a document, and none begins it.
    assert corpus.bos == corpus.eos == 70_000
    ids = np.concatenate([corpus.train("a"), corpus.heldout("a")]).reshape(-1, 3)
    assert sorted(ids[:, 0]) == list(range(500))
    assert (ids[:, 1] == ids[:, 0] + 60_000).all()


def test_a_small_source_says_how_little_it_holds_out(tmp_path):
    pattern = write_files(tmp_path / "src", TEXTS[:5])
    corpus = build({"few": pattern}, tmp_path / "out", vocab_size=300, holdout=0.01)
    (said,) = [w for w in corpus.warnings if "held out" in w]
    assert "'few': 1 of 5 documents" in said
    assert len(decoded(corpus, corpus.heldout("few"))) == 1


def test_nothing_is_held_out_when_nothing_is_asked_for(tmp_path):
    pattern = write_files(tmp_path / "src", TEXTS[:1])
    corpus = build({"one": pattern}, tmp_path / "out", vocab_size=300, holdout=0)
    assert corpus.n_heldout_tokens("one") == 0
    with pytest.raises(CorpusError, match="no heldout tokens"):
        corpus.heldout("one")


def test_what_is_held_out_has_a_limit(tmp_path):
    pattern = write_files(tmp_path / "src")
    corpus = build({"a": pattern}, tmp_path / "out", vocab_size=300, holdout=0.9, max_heldout_bytes=20_000)
    assert 0 < corpus.heldout_bytes("a") <= 20_000


# --- the reader ---------------------------------------------------------------------------


def test_a_folder_with_one_corpus_opens_it(built, tmp_path):
    assert open_corpus(built.path.parent).path == built.path
    pattern = write_files(tmp_path / "src")
    for seed in (0, 1):
        build({"a": pattern}, tmp_path / "out", vocab_size=300, seed=seed)
    with pytest.raises(CorpusError, match="holds 2 corpora"):
        open_corpus(tmp_path / "out")
    with pytest.raises(CorpusError, match="is no corpus"):
        open_corpus(tmp_path / "src")


def test_unknown_sources_and_small_ones_are_refused(built):
    with pytest.raises(CorpusError, match=r"no source 'topic'.*Did you mean 'topics'"):
        built.train("topic")
    built.require("topics", built.n_tokens("topics"))
    with pytest.raises(CorpusError, match=r"'topics' has [\d,]+ training tokens, fewer than the"):
        built.require("topics", built.n_tokens("topics") + 1)
    with pytest.raises(CorpusError, match="held-out tokens, fewer"):
        built.require("topics", built.n_heldout_tokens("topics") + 1, heldout=True)


@pytest.fixture
def copied(built, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(built.path, tmp_path / "copy"))


def test_a_corpus_may_be_moved(copied, built):
    moved = open_corpus(copied)
    moved.verify()
    assert moved.digest == built.digest
    assert np.array_equal(moved.train("topics"), built.train("topics"))


def test_another_tokenizer_is_refused(copied, tmp_path):
    other = json.loads((copied / "tokenizer.json").read_text(encoding="utf-8"))
    other["model"]["vocab"]["extra"] = 600
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(CorpusError, match="not the tokenizer that made the tokens"):
        open_corpus(copied).check_tokenizer(tmp_path / "other.json")
    (copied / "tokenizer.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(CorpusError, match="not the tokenizer that made the tokens"):
        open_corpus(copied)


def test_damaged_shards_are_refused(copied):
    file = copied / "topics" / "train.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-2])
    with pytest.raises(CorpusError, match=r"train.bin: has [\d,]+ bytes where"):
        open_corpus(copied)
    file.write_bytes(content[:-2] + b"\7\7")
    corpus = open_corpus(copied)
    with pytest.raises(CorpusError, match="is not what was built"):
        corpus.verify()


def test_a_later_format_is_refused(copied):
    manifest = json.loads((copied / "corpus.json").read_text(encoding="utf-8"))
    (copied / "corpus.json").write_text(json.dumps(manifest | {"format": 99}), encoding="utf-8")
    with pytest.raises(CorpusError, match="format 99 where this lawkit reads 1"):
        open_corpus(copied)
    (copied / "corpus.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be read"):
        open_corpus(copied)
    for broken in ({"format": 1}, manifest | {"sources": []}, manifest | {"sources": {"a": {"train": 3}}}):
        (copied / "corpus.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(CorpusError, match=r"corpus\.json: is not what a build writes"):
            open_corpus(copied)


# --- the command --------------------------------------------------------------------------


def test_the_command_prints_one_object(tmp_path, capsys):
    pattern = write_files(tmp_path / "src")
    arguments = ["corpus", "build", f"topics={pattern}", "-o", str(tmp_path / "out"), "--vocab-size", "400"]
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    corpus = open_corpus(found["path"])
    assert found["digest"] == corpus.digest
    assert (found["reused"], found["vocab_size"]) == (False, 400)
    assert found["mb_per_s"] == pytest.approx(found["n_bytes"] / 1e6 / found["seconds"])
    assert found["sources"]["topics"]["train"]["tokens"] == corpus.n_tokens("topics")
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"]


def test_the_command_in_a_pipe_shows_a_table_and_no_bar(tmp_path, capsys):
    pattern = write_files(tmp_path / "src")
    assert main(["corpus", "build", f"a={pattern}", "-o", str(tmp_path / "out"), "--vocab-size", "400"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[0] == "source"
    assert Path(out.splitlines()[-1]).is_dir()
    assert err.count("\n") <= 3
    assert "MB/s" in err
    assert "\r" not in err
    assert "\x1b" not in err


def test_separators_read_as_the_shell_passes_them(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n\u2603\t".join(TEXTS), encoding="utf-8")
    arguments = [
        "corpus",
        "build",
        f"a={tmp_path / 'a.txt'}",
        "-o",
        str(tmp_path / "out"),
        "--vocab-size",
        "400",
    ]
    assert main([*arguments, "--document-separator", "\\n\u2603\\t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["a"]["documents"] == len(TEXTS)
    assert main([*arguments, "--document-separator", "\\x", "--json"]) == 2
    assert main(["corpus", "build", "a.txt", "-o", str(tmp_path / "out")]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar(tmp_path):
    import pty

    pattern = write_files(tmp_path / "src", TEXTS * 10)
    leader, follower = pty.openpty()
    with (tmp_path / "stdout").open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lawkit.cli",
                "corpus",
                "build",
                f"a={pattern}",
                "-o",
                str(tmp_path / "out"),
            ],
            stdout=out,
            stderr=follower,
            env={**os.environ, "TERM": "xterm"},
        )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while block := os.read(leader, 65536):
            shown += block
    os.close(leader)
    assert process.wait() == 0
    assert b"encoding" in shown
    assert b"MB/s" in shown
    assert str(tmp_path / "out").encode() in (tmp_path / "stdout").read_bytes()
    assert b"encoding" not in (tmp_path / "stdout").read_bytes()


def test_progress_adds_up(tmp_path):
    pattern = write_files(tmp_path / "src", TEXTS * 8)
    seen: list[Progress] = []
    build({"a": pattern}, tmp_path / "out", vocab_size=400, progress=seen.append)
    assert [*dict.fromkeys(p.stage for p in seen)] == ["hash", "scan", "tokenizer", "encode"]
    for stage in ("scan", "encode"):
        done = [p.n_done for p in seen if p.stage == stage]
        assert done == sorted(done)
        assert len(done) >= 3
        assert all(p.n_total is not None and p.n_done <= p.n_total for p in seen if p.stage == stage)
