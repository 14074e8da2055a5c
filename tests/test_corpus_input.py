"""What a corpus cannot be built from: one message each, that says where and what to do."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lawkit.cli import main
from lawkit.corpus import CorpusError, build
from needs import need

need("tokenizers")
import tokenizers  # noqa: E402

TEXTS = [text for text in topics.values() if len(text) > 400]
TEXT = "\n\n".join(TEXTS)


def refused(tmp_path: Path, name: str, content: bytes, match: str, **options: object) -> CorpusError:
    """Build from one file of that content; the error, whose message is one line that names the file."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=match) as caught:
        build({"source": path}, tmp_path / "out", vocab_size=400, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(path) in message or "'source'" in message
    assert "\n" not in message
    assert not list((tmp_path / "out").glob("[!.]*"))
    return caught.value


def test_an_empty_file_that_is_named(tmp_path):
    refused(tmp_path, "a.txt", b"", "is empty")


def test_empty_files_that_a_pattern_finds_are_left_out(tmp_path):
    for i, text in enumerate(["", *TEXTS[:20], ""]):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    corpus = build({"a": str(tmp_path / "*.txt")}, tmp_path / "out", vocab_size=300)
    assert any("2 empty files were left out" in said for said in corpus.warnings)
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="'a' has no text"):
        build({"a": str(tmp_path / "*.txt")}, tmp_path / "out", vocab_size=300)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_white_space_alone(tmp_path, name):
    content = b" \n\n \t\n"
    refused(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content, "has no text")


def test_empty_compressed_and_empty_rows(tmp_path):
    refused(tmp_path, "a.txt.gz", gzip.compress(b""), "has no text")
    refused(tmp_path, "a.jsonl", b'{"text": ""}\n{"text": null}\n{"text": "  "}\n', "has no text")
    pq.write_table(pa.table({"text": ["", None, " "]}), tmp_path / "b.parquet")
    refused(tmp_path, "a.parquet", (tmp_path / "b.parquet").read_bytes(), "has no text")


def test_binary_files(tmp_path):
    refused(tmp_path, "a.txt", b"text " * 1000 + b"\0\1\2", "is binary.*at byte 5000")
    refused(tmp_path, "a.bin", bytes(range(256)) * 20, "is binary.*at byte 0")
    # Compressed, but named as if it were not.
    refused(tmp_path, "b.txt", gzip.compress(TEXT.encode()), "is binary|is not UTF-8")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_invalid_utf8_is_placed_to_the_byte(tmp_path, name):
    plain = TEXT.encode() + b"caf\xe9 au lait"
    where = len(TEXT.encode()) + 3
    content = {
        "a.txt": plain,
        "a.txt.gz": gzip.compress(plain),
        "a.txt.zst": pa.compress(plain, codec="zstd", asbytes=True),
    }[name]
    refused(tmp_path, name, content, rf"is not UTF-8 \(byte {where} is 0xe9\).*--encoding-errors replace")
    corpus = build(
        {"source": tmp_path / name}, tmp_path / "out", vocab_size=400, encoding_errors="replace", holdout=0
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(corpus.tokenizer_path))
    assert "caf\ufffd au lait" in tokenizer.decode(corpus.train("source").tolist())


def test_invalid_utf8_in_json_is_placed_to_the_byte(tmp_path):
    first = json.dumps({"text": TEXTS[0]}).encode() + b"\n"
    content = first + b'{"text": "caf\xe9"}\n'
    refused(tmp_path, "a.jsonl", content, rf"is not UTF-8 \(byte {len(first) + 13} is 0xe9\)")
    refused(
        tmp_path, "b.jsonl", first + b'{"text": "half \\ud800"}\n', "line 2: the text holds half a character"
    )
    (tmp_path / "b.jsonl").write_bytes(first + b'{"text": "half \\ud800"}\n')
    corpus = build(
        {"a": tmp_path / "b.jsonl"}, tmp_path / "out", vocab_size=300, encoding_errors="replace", holdout=0
    )
    assert corpus.manifest["sources"]["a"]["documents"] == 2


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_broken_compression(tmp_path, kind):
    raw = TEXT.encode()
    good = gzip.compress(raw) if kind == "gz" else pa.compress(raw, codec="zstd", asbytes=True)
    long_kind = {"gz": "gzip", "zst": "zstd"}[kind]
    match = f"is no whole {long_kind} file"
    refused(tmp_path, f"a.txt.{kind}", good[: len(good) // 2], match)
    refused(tmp_path, f"a.jsonl.{kind}", good[:-1], match)
    refused(tmp_path, f"b.txt.{kind}", raw, match)
    refused(tmp_path, f"c.txt.{kind}", good + b"something else", match)
    damaged = bytearray(good)
    damaged[4:6] = b"\xff\xff"
    damaged[len(good) // 2] ^= 0xFF
    if kind == "gz":  # zstd files need not carry a checksum
        refused(tmp_path, f"d.txt.{kind}", bytes(damaged), match)


def test_broken_parquet(tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    refused(tmp_path, "a.parquet", good[:-10], "cannot be read as parquet")
    refused(tmp_path, "b.parquet", b"PAR1 and nothing more", "cannot be read as parquet")
    refused(tmp_path, "c.parquet", good[:4] + b"\xff" * 2000 + good[2004:], "cannot be read as parquet")
    refused(tmp_path, "d.parquet.gz", gzip.compress(good), "compressed parquet")


def test_a_column_of_text_that_is_missing(tmp_path):
    pq.write_table(pa.table({"contents": TEXTS, "id": range(len(TEXTS))}), tmp_path / "good.parquet")
    content = (tmp_path / "good.parquet").read_bytes()
    refused(tmp_path, "a.parquet", content, r"no column 'text'; there are 'contents', 'id'.*--text-column")
    refused(tmp_path, "a.parquet", content, "Did you mean 'contents'", text_column="content")
    refused(tmp_path, "a.parquet", content, "column 'id' holds int64, not text", text_column="id")
    refused(tmp_path, "a.jsonl", b'{"content": "x"}\n', "line 1: there is no key 'text'; there are 'content'")
    refused(tmp_path, "a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: 'text' holds a int, not text")
    refused(tmp_path, "a.jsonl", b'{"text": "x"}\n["x"]\n', "line 2: is a list, not an object")
    refused(tmp_path, "a.jsonl", b'{"text": "x"}\n{"text": "x', "line 2: is not JSON")
    refused(tmp_path, "a.jsonl", b"[" * 100_000, "line 1: is not JSON")


def test_a_document_longer_than_may_be_read_at_once(tmp_path):
    rows = [{"text": text} for text in TEXTS] + [{"text": "word " * 40_000}]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    where = f"line {len(rows)}: a document of more than 100,000 bytes"
    refused(tmp_path, "a.jsonl", content, where, max_document_bytes=100_000)
    refused(tmp_path, "a.jsonl.gz", gzip.compress(content), where, max_document_bytes=100_000)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "good.parquet")
    refused(
        tmp_path,
        "a.parquet",
        (tmp_path / "good.parquet").read_bytes(),
        f"row {len(rows)}: a document of more than 100,000 bytes",
        max_document_bytes=100_000,
    )
    # A text of any length is cut.
    (tmp_path / "a.txt").write_text("word " * 40_000, encoding="utf-8")
    corpus = build(
        {"a": tmp_path / "a.txt"}, tmp_path / "out", vocab_size=300, max_document_bytes=100_000, holdout=0
    )
    assert corpus.manifest["sources"]["a"]["bytes"] == 200_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_a_line_without_end_is_refused_before_it_is_read_whole(tmp_path):
    """300 MB of one line in a small gzip file are not unpacked to be refused."""
    with gzip.GzipFile(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    code = (
        "import sys\n"
        "from lawkit.corpus import CorpusError, build\n"
        "try:\n"
        "    build({'a': sys.argv[1]}, sys.argv[2])\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
        # The peak of this program alone: ru_maxrss begins with that of the process it was forked from.
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    done = run(code, tmp_path / "a.jsonl.gz", tmp_path / "out")
    message, rss = done.stdout.splitlines()
    assert "line 1: a document of more than 67,108,864 bytes" in message
    assert int(rss) < 400_000


def run(code: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        **options,
    )


def test_one_document_cannot_be_split(tmp_path):
    refused(tmp_path, "a.txt", b"a few words", "'source' has one document only.*--document-separator")
    refused(tmp_path, "a.jsonl", b'{"text": "one"}\n' * 5, "'source' has one document only")


def test_a_source_of_which_all_repeats_what_is_held_out(tmp_path):
    lines = "".join(json.dumps({"text": f"{TEXTS[0]} {i}"}) + "\n" for i in range(10))
    refused(tmp_path, "a.jsonl", lines.encode(), "nothing is left to train on")


def test_files_that_are_not_there(tmp_path):
    for files, match in (
        (tmp_path / "none.txt", "there is no file"),
        (tmp_path, "is no file; name files, or a pattern"),
        (str(tmp_path / "*.txt"), "no file matches"),
        ([], "has no text"),
    ):
        with pytest.raises(CorpusError, match=match):
            build({"a": files}, tmp_path / "out")
    with pytest.raises(CorpusError, match="no sources"):
        build({}, tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8")
def test_a_file_whose_name_is_not_utf8(tmp_path):
    named = {suffix: tmp_path / os.fsdecode(b"caf\xe9." + suffix.encode()) for suffix in ("txt", "parquet")}
    named["txt"].write_text(TEXT, encoding="utf-8")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "good.parquet")
    (tmp_path / "good.parquet").rename(named["parquet"])
    corpus = build(named, tmp_path / "out", vocab_size=260, holdout=0)
    assert corpus.manifest["sources"]["txt"]["files"][0]["path"] == str(tmp_path / "caf\ufffd.txt")
    assert corpus.manifest["sources"]["parquet"]["documents"] == len(TEXTS)


def test_names_whose_columns_would_be_one(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    with pytest.raises(
        CorpusError, match=r"'a' and 'a_se' cannot stand together: loss_a_se of a runs table is"
    ):
        build({"a_se": tmp_path / "a.txt", "a": tmp_path / "a.txt"}, tmp_path / "out")


@pytest.mark.parametrize("name", ["tokenizer.json", "corpus.json"])
def test_names_of_the_files_of_a_corpus(tmp_path, name):
    with pytest.raises(CorpusError, match="cannot name a source: a file of the corpus is called so"):
        build({name: tmp_path / "a.txt"}, tmp_path / "out")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a b", "a" * 101])
def test_names_that_cannot_be_folders(tmp_path, name):
    with pytest.raises(CorpusError, match="cannot name a source"):
        build({name: tmp_path / "a.txt"}, tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("holdout", 1),
        ("holdout", -0.1),
        ("holdout", float("nan")),
        ("vocab_size", 100),
        ("seed", 10**44),
        ("bos", "<s>"),
        ("eos", "</s>"),
        ("document_separator", ""),
        ("encoding_errors", "ignore"),
        ("max_document_bytes", 0),
    ],
)
def test_options_that_make_no_sense(tmp_path, option, value):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(CorpusError, match=option):
        build({"a": tmp_path / "a.txt"}, tmp_path / "out", **{option: value})


def test_a_file_that_changes_meanwhile(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")

    def meddle(progress):
        if progress.stage == "tokenizer":
            path.write_text(TEXT + "more", encoding="utf-8")

    with pytest.raises(CorpusError, match="changed while"):
        build({"a": path}, tmp_path / "out", vocab_size=300, progress=meddle)


# --- tokenizers ---------------------------------------------------------------------------


def test_files_that_are_no_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    for content, match in (
        (b"{}", "is no tokenizer.json"),
        (b"\xff", "not UTF-8"),
        (b"", "is no tokenizer.json"),
    ):
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(CorpusError, match=match):
            build({"a": tmp_path / "a.txt"}, tmp_path / "out", tokenizer=tmp_path / "t.json")
    with pytest.raises(CorpusError, match="cannot be read"):
        build({"a": tmp_path / "a.txt"}, tmp_path / "out", tokenizer=tmp_path / "none.json")


def test_a_tokenizer_without_an_end(tmp_path):
    from tokenizers import Tokenizer, models

    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "stop": 1, "go": 2}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.save(str(tmp_path / "t.json"))
    sources = {"a": tmp_path / "a.txt"}
    with pytest.raises(CorpusError, match=r"no token marks the end.*--eos.*'\[UNK\]'"):
        build(sources, tmp_path / "out", tokenizer=tmp_path / "t.json")
    with pytest.raises(CorpusError, match="--eos 'end' is no token"):
        build(sources, tmp_path / "out", tokenizer=tmp_path / "t.json", eos="end")
    corpus = build(sources, tmp_path / "out", tokenizer=tmp_path / "t.json", eos="stop", bos="go")
    assert (corpus.bos, corpus.eos) == (2, 1)
    # It knows no word of the text.
    assert any("does not give the text of 'a' back" in said for said in corpus.warnings)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "stop"}, "bos_token": None}), encoding="utf-8"
    )
    told = build(sources, tmp_path / "out", tokenizer=tmp_path / "t.json")
    assert (told.bos, told.eos) == (1, 1)


def test_without_the_library_its_extra_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    code = (
        "import sys\n"
        "sys.modules['tokenizers'] = None\n"
        "from lawkit.cli import main\n"
        "sys.exit(main(['corpus', 'build', 'a=' + sys.argv[1], '-o', sys.argv[2]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.txt"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install 'lawkit[corpus]'" in done.stderr
    assert done.stderr.count("\n") == 1


# --- the folder ---------------------------------------------------------------------------


def test_folders_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    arguments = ["corpus", "build", f"a={tmp_path / 'a.txt'}", "-o"]
    for folder in (str(tmp_path / "a.txt"), str(tmp_path / "a.txt" / "inside"), "/proc/lawkit"):
        assert main([*arguments, folder]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "cannot be written" in err
        assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(CorpusError, match="cannot be written"):
        build({"a": tmp_path / "a.txt"}, tmp_path / "out", vocab_size=300)


def test_a_full_disk_loses_nothing(tmp_path):
    """A limit on the size of files stops the build as a full disk does; without it the build goes on."""
    (tmp_path / "a.txt").write_text(TEXT * 3, encoding="utf-8")
    code = (
        "import sys\n"
        "from lawkit.cli import main\n"
        "sys.exit(main(['corpus', 'build', 'a=' + sys.argv[1], '-o', sys.argv[2], '--vocab-size', '400']))\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.txt"), str(tmp_path / "out")]
    limited = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert limited.returncode == 1
    assert limited.stderr.startswith(f"error: {tmp_path / 'out'}: the disk is full")
    assert limited.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("[!.]*"))
    subprocess.run(arguments, check=True, capture_output=True)
    plain = build({"a": tmp_path / "a.txt"}, tmp_path / "plain", vocab_size=400)
    (folder,) = (tmp_path / "out").iterdir()
    assert (folder / "a" / "train.bin").read_bytes() == (plain.path / "a" / "train.bin").read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 2 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "lawkit-test", str(folder)]).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path, small_disk):
    (tmp_path / "a.txt").write_text(TEXT * 12, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"MB of tokens are still to be written and \d+ MB are free"):
        build({"a": tmp_path / "a.txt"}, small_disk, vocab_size=400)


def test_a_disk_that_fills_up_meanwhile_loses_nothing(tmp_path, small_disk):
    (tmp_path / "a.txt").write_text(TEXT * 2, encoding="utf-8")
    filler = small_disk / "filler"

    def fill(progress):
        if progress.stage == "encode" and not filler.exists():
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    with pytest.raises(CorpusError, match=r"the disk is full.*goes on from there"):
        build({"a": tmp_path / "a.txt"}, small_disk, vocab_size=400, progress=fill)
    filler.unlink()
    corpus = build({"a": tmp_path / "a.txt"}, small_disk, vocab_size=400)
    assert [path.name for path in small_disk.iterdir()] == [corpus.path.name]
    assert corpus.digest == build({"a": tmp_path / "a.txt"}, tmp_path / "plain", vocab_size=400).digest
