"""Jobs and servers that are killed: nothing is lost but what was under way, and nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fake_server import FakeServer
from generating import content, documents, gone, records, started_by
from lawkit.errors import GeneratorError
from lawkit.generators import Fleet, Server, generate, read_generated
from needs import need

need("openai", "tokenizers")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

HERE = Path(__file__).parent
CLIENT = """
import sys
from lawkit.generators import Fleet, Server, generate
source, out, url = sys.argv[1:]
if url.startswith("http"):
    made = Fleet("fake", urls=[url], concurrency=8)
else:
    made = Server("fake", python=url, concurrency=8)
try:
    print("found", generate(source, out, generator=made, shard=16, style="hq").texts)
finally:
    made.close()
"""
#: Stands where vLLM would: the server process, its arguments, its log and its engine's process are as vLLM's.
VLLM = """
import argparse, multiprocessing, os, sys, threading
sys.path.insert(0, {tests!r})

def engine():
    threading.Event().wait()

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("model", "served-model-name", "host", "port"):
        parser.add_argument(f"--{{name}}")
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    given = parser.parse_args()
    assert given.host == "127.0.0.1"
    process = multiprocessing.get_context("fork").Process(target=engine)
    process.start()
    from fake_server import FakeServer
    with FakeServer(seconds=0.01, port=int(given.port), key=os.environ["VLLM_API_KEY"]):
        process.join()
        os._exit(1)
"""


@pytest.fixture
def fake_vllm(tmp_path, monkeypatch) -> str:
    """Return an interpreter that takes a server of the tests for vLLM's."""
    folder = tmp_path / "site" / "vllm"
    (folder / "entrypoints" / "openai").mkdir(parents=True)
    for package in (folder, folder / "entrypoints", folder / "entrypoints" / "openai"):
        (package / "__init__.py").touch()
    platform = "class current_platform:\n    is_cpu = staticmethod(lambda: False)\n"
    (folder / "platforms.py").write_text(platform, encoding="utf-8")
    server = folder / "entrypoints" / "openai" / "api_server.py"
    server.write_text(VLLM.format(tests=str(HERE)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return sys.executable


def client(source: Path, out: Path, where: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CLIENT, str(source), str(out), where]
    environment = {**os.environ, "LAWKIT_TEST": str(out), "TMPDIR": str(out.parent)}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answered(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in (out / "answers").glob("*.jsonl"))


@pytest.mark.slow
def test_a_client_killed_at_ten_instants(tmp_path):
    source = documents(tmp_path / "documents.jsonl", 240)
    rng = random.Random(0)
    kills = 0
    twice: list[int] = []
    with FakeServer(seconds=0.02) as server:
        # Each time after a random number of answers more: whatever the machine's speed, all instants fall inside.
        while kills < 10:
            before = server.answered.total()
            process = client(source, tmp_path / "out", server.url)
            until = before + rng.randint(0, 22)
            while server.answered.total() <= until and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.02))
            assert process.poll() is None, process.communicate()
            process.kill()
            process.communicate()
            kills += 1
            twice.append(server.answered.total() - len(server.answered))
        done = client(source, tmp_path / "out", server.url)
        said, error = done.communicate()
        assert (done.returncode, said) == (0, b"found 240\n"), error
        # Only what was under way, at most eight requests at a time, was asked again.
        assert max(server.answered.values()) <= 1 + kills
        assert server.answered.total() - len(server.answered) <= 8 * kills, twice
        fleet = Fleet("fake", urls=[server.url])
        whole = generate(source, tmp_path / "whole", generator=fleet, shard=16)
        fleet.close()
    assert content(tmp_path / "out") == content(whole.path)
    once = Counter((r["document"], r["prompt"], r["model"], r["seed"]) for r in records(tmp_path / "out"))
    assert set(once.values()) == {1}
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_a_server_killed_at_ten_instants(tmp_path, fake_vllm):
    source = documents(tmp_path / "documents.jsonl", 240)
    out = tmp_path / "out"
    rng = random.Random(1)
    for kill in range(10):
        process = client(source, out, fake_vllm)
        before = answered(out)
        until = before + rng.randint(0, 18)
        while answered(out) <= until and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()
        # Any of its processes: the server, its engine, those that watch.
        victim = rng.choice(sorted(started_by(out) - {process.pid}))
        os.kill(victim, signal.SIGKILL)
        said, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"the server ended" in error, error
        assert gone(out), (kill, started_by(out))
    done = client(source, out, fake_vllm)
    said, error = done.communicate()
    assert said == b"found 240\n", error
    assert [r["document"] for r in records(out)] == list(dict.fromkeys(r["document"] for r in records(out)))
    assert read_generated(out).failed.total() == 0


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_no_server_outlives_its_parent(tmp_path, fake_vllm, how):
    source = documents(tmp_path / "documents.jsonl", 2000)
    process = client(source, tmp_path / "out", fake_vllm)
    while not answered(tmp_path / "out"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert len(started_by(tmp_path / "out")) == 5  # us, who starts, who watches, the server, its engine
    process.send_signal(getattr(signal, how))
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert gone(tmp_path / "out")


def test_a_server_is_closed_and_can_be_asked_no_more(tmp_path, fake_vllm, monkeypatch):
    monkeypatch.setenv("LAWKIT_TEST", str(tmp_path / "out"))
    source = documents(tmp_path / "documents.jsonl", 10)
    server = Server("fake", log=tmp_path / "log")
    assert server.pid is None  # nothing is started before it is needed
    assert generate(source, tmp_path / "out", generator=server).texts == 10
    assert server.pid in started_by(tmp_path / "out")
    server.close()
    assert gone(tmp_path / "out")
    server.close()
    with pytest.raises(GeneratorError, match="was closed"):
        generate(documents(source, 5, first=10), tmp_path / "out", generator=server)


@pytest.mark.parametrize(
    ("python", "said"),
    [("no/such/python", "cannot be started"), (sys.executable, "has no vLLM: name an interpreter")],
)
def test_a_server_that_does_not_start(tmp_path, python, said):
    source = documents(tmp_path / "documents.jsonl", 2)
    server = Server("fake", python=python, log=tmp_path / "log")
    with pytest.raises(GeneratorError, match=said):
        generate(source, tmp_path / "out", generator=server)
    server.close()
