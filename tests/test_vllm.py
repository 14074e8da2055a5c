"""Real vLLM on this machine's CPU: served and in-process, with a model of random weights that the tests make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from generating import documents, gone, group, records
from lawkit.errors import GeneratorError
from lawkit.generators import Answer, Failure, Filters, Fleet, Request, Server, generate
from needs import need, need_vllm

need("openai", "tokenizers")
PYTHON = need_vllm()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="vLLM's CPU wheel is for Linux"),
]

#: What a model of noise says is cut off or of any length: all of it is kept.
ALL = Filters(min_tokens=0, over=1000, keep_cut_off=True)
#: Without it, a model of noise says mostly blanks where the grammar of JSON lets it.
OPTIONS = {
    "enforce_eager": True,
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    script = Path(__file__).parent / "tiny_model.py"
    done = subprocess.run([PYTHON, str(script), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(model) -> Iterator[Server]:
    """One server for all: it takes half a minute to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        made = Server(str(model), python=PYTHON, log=model.parent / "log", concurrency=16, **OPTIONS)
        assert list(made.answers([])) == []
        yield made
        made.close()
    assert gone(made.pid)


def request(text: str, seed: int = 0, max_tokens: int = 24, schema: dict | None = None) -> Request:
    return Request(
        key=f"{seed}",
        messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}),
        max_tokens=max_tokens,
        temperature=0.7,
        top_p=0.95,
        seed=seed,
        schema=schema,
    )


def test_a_source_is_generated_by_a_server_that_is_started_here(server, model, tmp_path):
    source = documents(tmp_path / "documents.jsonl", 24)
    options = {"generator": server, "filters": ALL, "max_tokens": 32, "tokenizer": model / "tokenizer.json"}
    found = generate(source, tmp_path / "out", shard=16, **options)
    assert (found.documents, found.failed.total()) == (24, 0)
    assert found.texts + found.dropped["empty"] == 24
    assert found.texts > 20
    made = records(tmp_path / "out")
    assert all(0 < record["tokens"] <= 32 for record in made)
    assert len({record["text"] for record in made}) == len(made)
    # 2 layers of d=128 with 4 query and 2 key-value heads of 32 and 256 hidden units, and three norms.
    assert server.n_params == 2 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256 + 2 * 128) + 128
    n_tokens = found.cost["prompt_tokens"] + found.cost["completion_tokens"]
    assert found.cost["flops"] == 2 * server.n_params * n_tokens


def test_the_models_own_chat_template_is_used(server, model):
    import tokenizers

    counted = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    texts = ["hello", "What is a module?", "Ünïcode, 1 2 3\n\nand more"]
    for text, (_, answer) in zip(texts, sorted(server.answers([request(t) for t in texts])), strict=True):
        prompt = f"<|start|>system\nBe brief.<|end|>\n<|start|>user\n{text}<|end|>\n<|start|>assistant\n"
        assert isinstance(answer, Answer)
        assert answer.prompt_tokens == len(counted.encode(prompt, add_special_tokens=False).ids)


def test_requests_that_do_not_fit_fail_alone(server):
    asked = [
        request("short"),
        request("word " * 4000),
        request("word " * 300, max_tokens=1900, seed=1),
        request("short", max_tokens=4000),
    ]
    short, long, clamped, too_much = (
        result for _, result in sorted(server.answers(asked), key=lambda each: each[0])
    )
    assert isinstance(short, Answer)
    assert isinstance(long, Failure)
    assert long.reason == "too long"
    assert isinstance(too_much, Failure)
    assert "max_tokens=4000" in too_much.message
    # Where prompt and limit together pass the context, vLLM cuts the answer off early and does not say so.
    assert isinstance(clamped, Answer)
    if clamped.finish == "length":
        assert clamped.completion_tokens < 1900
        assert Filters().why_dropped(clamped, max_tokens=1900, target_tokens=1900) == "context full"


def test_the_same_request_alone_gives_the_same_answer(server):
    (one,), (two,), (other,) = (list(server.answers([request("hello", seed=s)])) for s in (3, 3, 4))
    assert one == two
    assert one != other


def test_textbooks_end_to_end(server, model, tmp_path):
    """The outline keeps to its schema even where the model says nothing but noise."""
    source = documents(tmp_path / "documents.jsonl", 2)
    found = generate(
        source, tmp_path / "out", generator=server, style="textbook", max_tokens=30, input_tokens=60,
        tokenizer=model / "tokenizer.json", filters=Filters(min_tokens=30, keep_cut_off=True),
    )  # fmt: skip
    assert set(found.failed) <= {"outline"}  # one is cut off now and then before its ten chapters
    outlines = 8 - found.failed["outline"]
    assert outlines > 0
    assert found.texts > 0
    assert found.texts + found.dropped.total() == 10 * outlines
    assert set(found.dropped) <= {"short", "empty"}
    assert {record["tokens"] for record in records(found.path)} == {30}


def test_a_model_that_is_not_served(server):
    endpoint = server._fleet._servers[0]  # a running server, of which only lawkit knows the key
    for model, key, said in (("no-such", endpoint._client.api_key, "serves no model 'no-such'; it serves 'tiny'"),
                             ("tiny", "wrong", "wants another key")):  # fmt: skip
        fleet = Fleet(model, urls=[endpoint.url], api_key=key)
        with pytest.raises(GeneratorError, match=said):
            list(fleet.answers([request("hello")]))
        fleet.close()


def test_it_listens_on_this_machine_alone(server):
    """Every listening socket of every process of the server."""
    list(server.answers([request("hello")]))
    inodes = set()
    for pid in group(server.pid):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    listening = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0] == loopback)
    assert listening
    assert all(listening)


def test_its_log_holds_neither_prompts_nor_answers(server, model):
    ((_, answer),) = server.answers([request("zebra crossing " * 5, max_tokens=60, seed=9)])
    assert isinstance(answer, Answer)
    said = (model.parent / "log").read_text(encoding="utf-8", errors="replace")
    assert "zebra" not in said
    assert not [word for word in answer.text.split() if len(word) > 9 and word in said]


#: Runs under the interpreter that has vLLM.
IN_PROCESS = """
import json, sys
from pathlib import Path
from lawkit.generators import Filters, InProcess, generate
source, out, model, options = sys.argv[1:]
made = InProcess(model, **json.loads(options))
options = dict(generator=made, filters=Filters(min_tokens=0, over=1000, keep_cut_off=True), max_tokens=32,
               tokenizer=f"{model}/tokenizer.json", shard=16, input_tokens=256)
results = [generate(source, f"{out}/{i}", **options).to_dict() for i in range(2)]
results.append(generate(source, f"{out}/whole", **{**options, "input_tokens": 9000}).to_dict())
results.append(generate(source, f"{out}/books", **{**options, "style": "textbook", "shard": 1, "tokens": 1}).to_dict())
print(json.dumps(results))
"""


def test_in_process(model, tmp_path):
    """The same batch gives the same text to the byte; a document that is too long fails alone."""
    source = documents(tmp_path / "documents.jsonl", 20)
    with source.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "word " * 4000}) + "\n")
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "LAWKIT_TEST": str(tmp_path)}
    arguments = [PYTHON, "-c", IN_PROCESS, str(source), str(tmp_path), str(model), json.dumps(OPTIONS)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two, whole, books = json.loads(done.stdout.splitlines()[-1])
    for found in (one, two):
        assert found["documents"] == 21
        assert found["cut_documents"] == 1
        assert found["failed"] == {}
        assert found["texts"] + found["dropped"].get("empty", 0) == 21
    texts = [[record["text"] for record in records(tmp_path / name)] for name in ("0", "1")]
    assert texts[0] == texts[1]
    assert whole["failed"] == {"too long": 1}
    assert "the model's context 2048" in whole["failures"][0]["message"]
    assert books["texts"] + sum(books["dropped"].values()) == 10 * (4 - books["failed"].get("outline", 0)) > 0
    assert gone(tmp_path)


def test_a_real_server_that_is_killed_takes_its_engine_along(server, tmp_path):
    """Last, as it ends the server: vLLM's own engine would live on."""
    list(server.answers([request("hello")]))
    children = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in group(server.pid)}
    (engine,) = (pid for pid, said in children.items() if b"EngineCore" in said)
    serving = int(Path(f"/proc/{engine}/stat").read_text().rsplit(") ", 1)[1].split()[1])
    assert b"_launch.py" in children[serving]
    os.kill(serving, signal.SIGKILL)
    source = documents(tmp_path / "documents.jsonl", 5)
    with pytest.raises(
        GeneratorError, match=r"the server ended \(the server ended with signal 9\).*run again"
    ):
        generate(source, tmp_path / "out", generator=server)
    assert gone(server.pid)
