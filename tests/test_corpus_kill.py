"""Builds that are killed, builds at the same time, and their memory."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from lawkit.corpus import Corpus, build, open_corpus
from lawkit.corpus._encode import Encoder
from needs import need

need("tokenizers")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="builds need POSIX file locks")

TEXTS = [text for text in topics.values() if len(text) > 400]

# Commits are far apart in life; here they come often enough that a kill meets them.
BUILD = """
import os, signal, sys, time
from lawkit.corpus import _job, build
_job._COMMIT = 100_000
stop, at, how = sys.argv[3], int(sys.argv[4]), sys.argv[5]

def tell(progress):
    if progress.stage == "wait":
        print("waiting", flush=True)
    if progress.stage == stop and progress.n_done >= at:
        print("stopping", flush=True)
        os.kill(os.getpid(), getattr(signal, how))

sources = {name: f"{sys.argv[1]}/{name}/*.txt" for name in ("a", "b")}
print(build(sources, sys.argv[2], vocab_size=400, sample_bytes=100_000, progress=tell).path)
"""


def start(
    src: Path, out: Path, stop: str = "never", at: int = 0, how: str = "SIGKILL"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(src), str(out), stop, str(at), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def src(tmp_path_factory) -> Path:
    """Two sources of a few MB."""
    folder = tmp_path_factory.mktemp("src")
    rng = random.Random(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(150):
            text = " ".join(
                rng.sample(TEXTS[i % len(TEXTS)].split(" "), k=len(TEXTS[i % len(TEXTS)].split(" ")))
            )
            (folder / name / f"{i}.txt").write_text(text * 2, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(src, tmp_path_factory) -> Corpus:
    return build_here(src, tmp_path_factory.mktemp("undisturbed"))


def build_here(src: Path, out: Path) -> Corpus:
    sources = {name: f"{src}/{name}/*.txt" for name in ("a", "b")}
    return build(sources, out, vocab_size=400, sample_bytes=100_000)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_killed_build_goes_on_where_it_was(src, undisturbed, tmp_path, monkeypatch):
    total = sum(source["bytes"] for source in undisturbed.manifest["sources"].values())
    killed = start(src, tmp_path, "encode", int(0.75 * total))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (work,) = tmp_path.iterdir()
    assert work.name.startswith(".")
    # The first source was finished, the second is under way, and more of it is on disk than its journal says.
    assert (work / "a" / "manifest.json").is_file()
    journal = json.loads((work / "b" / "train.bin.progress.json").read_text(encoding="utf-8"))
    assert journal["n_read"] > 0
    with (work / "b" / "train.bin").open("ab") as file:
        file.write(b"\1\2\3")
    (work / "b" / ".manifest.json.xyz.part").write_bytes(b"{")
    encoded = []
    plain = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, text: encoded.append(text) or plain(self, text))
    corpus = build_here(src, tmp_path)
    about = corpus.manifest["sources"]["b"]
    again = {text for text in encoded if len(text) > 1000}
    assert len(again) < 0.75 * about["train"]["documents"]
    assert content(corpus.path) == content(undisturbed.path)
    assert list(tmp_path.iterdir()) == [corpus.path]


@pytest.mark.slow
def test_kills_at_random_instants_lose_nothing(src, undisturbed, tmp_path):
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", BUILD, str(src), str(tmp_path / "timed"), "never", "0", "SIGKILL"], check=True
    )
    whole = time.monotonic() - began
    rng = random.Random(0)
    kills = 0
    for attempt in range(60):
        process = start(src, tmp_path / "out")
        try:
            process.wait(rng.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if process.returncode == 0:
            # Finished: the next build is another one.
            (folder,) = (tmp_path / "out").iterdir()
            assert content(folder) == content(undisturbed.path)
            folder.rename(tmp_path / f"done{attempt}")
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
        if kills >= 12:
            break
    assert kills >= 12
    assert build_here(src, tmp_path / "out").digest == undisturbed.digest
    (folder,) = (tmp_path / "out").iterdir()
    assert content(folder) == content(undisturbed.path)


def test_two_builders_at_once_give_one_corpus(src, undisturbed, tmp_path):
    processes = [start(src, tmp_path) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    paths = {out.splitlines()[-1] for out, _ in outputs}
    assert [str(path) for path in tmp_path.iterdir()] == [*paths]
    corpus = open_corpus(tmp_path)
    corpus.verify()
    assert content(corpus.path) == content(undisturbed.path)


def test_a_builder_that_waits_takes_over_from_one_that_dies(src, undisturbed, tmp_path):
    first = start(src, tmp_path, "encode", 1_000_000, "SIGSTOP")
    assert first.stdout is not None
    assert first.stdout.readline() == "stopping\n"
    second = start(src, tmp_path)
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting\n"
    assert second.poll() is None
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert Path(out.splitlines()[-1]).name == undisturbed.path.name
    assert content(open_corpus(tmp_path).path) == content(undisturbed.path)


def test_builds_that_nobody_goes_on_with_are_cleaned(src, tmp_path):
    start(src, tmp_path, "encode", 1_000_000).communicate()
    (work,) = tmp_path.iterdir()
    recent, old, held = (tmp_path / f".{name}.building" for name in ("recent", "old", "held"))
    for folder in (recent, old, held):
        work.rename(folder) if folder is recent else folder.mkdir()
    yesterday = time.time() - 2 * 24 * 3600
    for folder in (old, held):
        (folder / "train.bin").write_bytes(b"12")
        for path in (folder / "train.bin", folder):
            os.utime(path, (yesterday, yesterday))
    import fcntl

    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        corpus = build_here(src, tmp_path)
    finally:
        os.close(handle)
    assert {path.name for path in tmp_path.iterdir()} == {recent.name, held.name, corpus.path.name}


MEMORY = """
import sys
from lawkit.corpus import _job, build
_job._COMMIT = 1 << 20
build({"a": sys.argv[1]}, sys.argv[2], vocab_size=400, sample_bytes=100_000, max_heldout_bytes=100_000)
print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    rng = random.Random(0)
    paragraphs = [p for text in TEXTS for p in text.split("\n\n")]
    most = []
    for millions in (2, 16):
        path, size = tmp_path / f"{millions}.jsonl", 0
        with path.open("w", encoding="utf-8") as file:
            while size < millions * 1_000_000:
                size += file.write(json.dumps({"text": "\n\n".join(rng.choices(paragraphs, k=10))}) + "\n")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=True,
        )
        most.append(int(done.stdout) / 1024)
    assert most[1] - most[0] < 10, f"{most} MiB"
