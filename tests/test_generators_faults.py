"""What goes wrong between a job and its servers: each as it deserves, and all of it accounted for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fake_server import FakeServer, say
from generating import content, documents, records
from lawkit.cli import main
from lawkit.errors import GeneratorError
from lawkit.generators import Fleet, Generated, generate, read_generated
from lawkit.generators._generator import Answer, Failure, Request
from needs import need

need("openai", "tokenizers")


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Tries follow one another at once."""
    from lawkit.generators import fleet

    monkeypatch.setattr(fleet, "_PAUSE_S", 0.002)
    monkeypatch.setattr(fleet, "_LONGEST_PAUSE_S", 0.02)


def job(tmp_path: Path, server: FakeServer, count: int = 20, out: str = "out", **options) -> Generated:
    """Generate from `count` documents; options that are the fleet's go to it."""
    path = tmp_path / "documents.jsonl"
    if not path.exists():
        documents(path, count)
    own = {k: options.pop(k) for k in ("timeout_s", "retries", "patience_s", "concurrency") if k in options}
    fleet = Fleet("fake", urls=options.pop("urls", [server.url]), **own)
    try:
        return generate(path, tmp_path / out, generator=fleet, shard=8, **options)
    finally:
        fleet.close()


def request(text: str = "hello", seed: int = 0) -> Request:
    message = {"role": "user", "content": text}
    return Request(key=f"{seed}", messages=(message,), max_tokens=500, temperature=0.7, top_p=1.0, seed=seed)


def about(document: int) -> str:
    return f"Hive {document} has"


@pytest.mark.parametrize(
    ("wrong", "tries", "reason"),
    [
        ("400", 1, "too long"),
        ("413", 1, "too long"),
        ("422", 1, "status 422"),
        ("uncounted", 1, "no usage"),
        ("filtered", 1, "withheld"),
        ("500", 3, "status 500"),
        ("503", 3, "status 503"),
        ("429", 3, "status 429"),
        ("close", 3, "connection"),
        ("garbage", 3, "bad answer"),
        ("hang", 3, "no answer"),
    ],
)
def test_one_bad_document_fails_alone(tmp_path, wrong, tries, reason):
    """A refusal (4xx) is never repeated; trouble of the server is, up to a limit. The others are not touched."""
    tried = []

    def fault(number, body):
        if about(7) not in body["messages"][-1]["content"]:
            return None
        tried.append(number)
        return wrong

    with FakeServer(fault=fault) as server:
        found = job(tmp_path, server, retries=2, timeout_s=1.0 if wrong == "hang" else 60)
        assert len(tried) == tries
        assert dict(found.failed) == {reason: 1}
        (failure,) = found.failures
        assert failure["reason"] == reason
        assert failure["document"] not in {record["document"] for record in records(found.path)}
        assert found.texts == 19
        if tries > 1:
            assert "(3 tries)" in failure["message"]
        # A later call asks again only what failed, and only when told to.
        server.fault = lambda number, body: None
        asked = server.asked
        assert job(tmp_path, server).failed == found.failed
        mended = job(tmp_path, server, retry_failed=True)
        assert server.asked == asked + 1
        assert (mended.texts, mended.failed.total()) == (20, 0)
        assert content(mended.path) == content(job(tmp_path, server, out="fresh").path)


def test_empty_and_cut_off_answers_are_dropped_and_counted(tmp_path):
    faults = {2: "empty", 3: "cut", 4: "empty"}
    with FakeServer(fault=lambda number, body: faults.get(number)) as server:
        found = job(tmp_path, server, concurrency=1)
        assert dict(found.dropped) == {"empty": 2, "cut off": 1}
        assert found.failed.total() == 0
        assert found.texts == 17
        assert server.asked == 20


def test_a_wrong_model_is_said_before_anything_is_asked(tmp_path):
    documents(tmp_path / "documents.jsonl", 3)
    with FakeServer() as server:
        fleet = Fleet("other", urls=[server.url])
        with pytest.raises(GeneratorError, match=r"serves no model 'other'; it serves 'fake'"):
            generate(tmp_path / "documents.jsonl", tmp_path / "out", generator=fleet)
        with pytest.raises(GeneratorError, match="serves no model"):  # it stays so
            list(fleet.answers([request()]))
        fleet.close()
        assert server.asked == 0


@pytest.mark.parametrize("reply", [(404, b"{}"), (200, b"<html>"), (200, b"3"), (200, b'{"data": ["fake"]}')])
def test_something_else_than_a_server_of_models_is_said_at_once(tmp_path, reply):
    with FakeServer() as server:
        server.models = reply
        with pytest.raises(GeneratorError, match=r"/v1/models is no list of models: .* end in /v1"):
            job(tmp_path, server)
        server.models = 200, b'{"error": "x"}'
        with pytest.raises(GeneratorError, match=r"serves no model 'fake'; it serves none\."):
            job(tmp_path, server)


def test_a_key_that_the_server_does_not_take(tmp_path, monkeypatch):
    with FakeServer(key="secret") as server:
        with pytest.raises(GeneratorError, match="wants another key: set OPENAI_API_KEY"):
            job(tmp_path, server)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        assert job(tmp_path, server).texts == 20


def free_url() -> str:
    with FakeServer() as gone:
        return gone.url


def test_nobody_there(tmp_path):
    began = time.monotonic()
    with (
        FakeServer() as server,
        pytest.raises(GeneratorError, match=r"no server could be reached for .* run again"),
    ):
        job(tmp_path, server, urls=[free_url()], patience_s=0.2)
    assert time.monotonic() - began < 30


def test_one_of_two_servers_is_not_there(tmp_path):
    with FakeServer() as server:
        found = job(tmp_path, server, urls=[free_url(), server.url], concurrency=4)
        assert (found.texts, found.failed.total()) == (20, 0)
        assert server.asked == 20


def test_a_server_that_goes_away_and_comes_back(tmp_path):
    """Meanwhile nothing fails: that nobody is there is no fault of the documents."""
    import threading

    with FakeServer(seconds=0.01) as first:
        port = int(first.url.split(":")[2].split("/")[0])
        results: list[Answer | Failure] = []
        fleet = Fleet("fake", urls=[first.url], concurrency=4, retries=2)
        asking = threading.Thread(
            target=lambda: results.extend(r for _, r in fleet.answers([request(seed=i) for i in range(60)]))
        )
        asking.start()
        while len(results) < 10:
            time.sleep(0.01)
    time.sleep(0.3)
    with FakeServer(port=port):
        asking.join(60)
    fleet.close()
    assert len(results) == 60
    assert (
        sum(isinstance(result, Failure) for result in results) <= 4
    )  # connections that were cut while they waited


def test_a_server_that_only_fails_stops_the_job(tmp_path):
    with FakeServer(fault=lambda number, body: "500") as server:
        with pytest.raises(
            GeneratorError, match=r"the last 50 requests all failed, each after 2 tries.*trouble 500"
        ):
            job(tmp_path, server, count=200, retries=1)
        assert server.asked < 200
        server.fault = lambda number, body: None
        assert job(tmp_path, server, retry_failed=True).texts == 200


def test_more_servers_share_the_work_and_none_is_flooded(tmp_path):
    with FakeServer(seconds=0.02) as one, FakeServer(seconds=0.02) as two:
        found = job(tmp_path, one, count=120, urls=[one.url, two.url], concurrency=5)
        assert found.texts == 120
        assert min(one.asked, two.asked) > 20
        assert one.most_at_once <= 5
        assert two.most_at_once <= 5


#: 10% of the requests go wrong, in every way that may go better another time.
TROUBLE = ("500", "close", "503", "garbage", "429", "hang")


def faulty(number: int, body: dict) -> str | None:
    return TROUBLE[number // 10 % len(TROUBLE)] if number % 10 == 7 else None


CLIENT = """
import sys
from lawkit.generators import Fleet, generate, fleet
fleet._PAUSE_S = 0.01
made = Fleet("fake", urls=[sys.argv[2]], concurrency=32, timeout_s=2.0)
generate(sys.argv[1], sys.argv[3], generator=made, shard=32)
made.close()
print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_a_thousand_documents_with_faults_in_flat_memory(tmp_path):
    most = []
    for count in (100, 1000):
        source = documents(tmp_path / f"{count}.jsonl", count)
        with FakeServer(seconds=0.02, fault=faulty) as server:
            client = [sys.executable, "-c", CLIENT, str(source), server.url, str(tmp_path / f"{count}")]
            done = subprocess.run(client, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert server.asked >= 1.09 * count
        found = read_generated(tmp_path / f"{count}")
        assert found.documents == count
        assert found.texts + found.dropped.total() + found.failed.total() == count
        assert found.failed.total() == 0
        assert len({record["document"] for record in records(found.path)}) == found.texts
        most.append(int(done.stdout))
    assert most[1] < most[0] + 10_000, most  # kB


LIMITED = """
import resource, sys
from lawkit.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk_is_said_in_one_line_and_loses_nothing(tmp_path):
    source = documents(tmp_path / "documents.jsonl", 40)
    out = tmp_path / "out"
    with FakeServer() as server:
        arguments = [
            "generate",
            str(source),
            "--model",
            "fake",
            "--url",
            server.url,
            "-o",
            str(out),
            "--shard",
            "8",
        ]
        full = [sys.executable, "-c", LIMITED, "3000", *arguments]
        done = subprocess.run(full, capture_output=True, text=True)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert re.match(
            r"error: .*the disk is full \(File too large\). What was written is kept: free some", line
        )
        kept = len(
            {line for file in (out / "answers").iterdir() for line in file.read_bytes().split(b"\n")[:-1]}
        )
        assert kept > 0
        asked = server.asked
        assert main([*arguments, "--json"]) == 0
        assert server.asked == asked + 40 - kept
    assert read_generated(out).texts == 40


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with FakeServer() as server, pytest.raises(GeneratorError, match="cannot be written"):
        job(tmp_path, server, out="file/out")
    assert server.asked == 0


def test_neither_prompts_nor_answers_are_told(tmp_path, capfd, caplog):
    """Not even where a server repeats them in what it says of an error (422 here)."""
    import logging

    caplog.set_level(logging.INFO)
    source = documents(tmp_path / "documents.jsonl", 12)
    with FakeServer(
        fault=lambda number, body: {2: "422", 5: "500", 6: "400", 9: "garbage"}.get(number)
    ) as server:
        arguments = [
            "generate",
            str(source),
            "--model",
            "fake",
            "--url",
            server.url,
            "-o",
            str(tmp_path / "out"),
        ]
        assert main(arguments) == 0
    said = "".join(capfd.readouterr()) + caplog.text
    assert "422: the server's message repeats the prompt and is left out" in said
    assert "too long" in said
    # No five words in a row of any prompt or answer.
    told = json.loads(source.read_text(encoding="utf-8").splitlines()[0])["text"]
    answered = records(tmp_path / "out")[0]["text"]
    body = {"messages": [{"content": told}], "seed": 1}
    for text in (told, answered, say(body)):
        words = text.split()
        assert not [i for i in range(len(words) - 4) if " ".join(words[i : i + 5]) in said]


def test_a_prompt_of_short_lines_is_not_told_either():
    from lawkit.generators._endpoint import _said

    prompt = "The bee flies.\nThe bear eats.\nThe hive falls."
    assert "repeats the prompt" in _said(ValueError("no: " + prompt), prompt)
    assert len(_said(ValueError("no " * 200), prompt)) == 300
