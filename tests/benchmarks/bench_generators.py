"""How fast text is generated: one request at a time, the fleet's client, and vLLM's own ``LLM.chat``.

    LAWKIT_VLLM_PYTHON=.venv-vllm/bin/python python tests/benchmarks/bench_generators.py [MODEL] [--requests N]

MODEL is a folder; without one, the tests' model of random weights is made. The three run one after the other on the
same requests, with the same options of vLLM, several rounds in turn; what counts is the ratio within a round. The
client's own CPU seconds are printed too: against a model on a CPU they are taken from the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lawkit.generators import Answer, InProcess, Request, Server

OPTIONS = {"enforce_eager": True, "max_num_seqs": 64, "max_model_len": 2048}


def requests(count: int) -> list[Request]:
    """The same requests everywhere."""
    return [
        Request(
            key=str(i),
            messages=(
                {"role": "user", "content": f"Explain in your own words what number {i} is good for. " * 4},
            ),
            max_tokens=64,
            temperature=0.7,
            top_p=0.95,
            seed=i,
        )
        for i in range(count)
    ]


def rate(generator: Server | InProcess, asked: list[Request]) -> tuple[float, float]:
    """Tokens a second, and CPU seconds of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    answers = [answer for _, answer in generator.answers(asked)]
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    n_tokens = sum(answer.completion_tokens for answer in answers if isinstance(answer, Answer))
    return n_tokens / seconds, cpu


def in_process(model: str, count: int) -> None:
    """Answer rounds on standard input with figures on standard output; runs under the interpreter that has vLLM."""
    generator = InProcess(model, **OPTIONS)
    list(generator.answers(requests(8)))
    for _ in sys.stdin:
        print(json.dumps(rate(generator, requests(count))), flush=True)


def main() -> None:
    """Run the rounds and print each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if asked.in_process:
        in_process(asked.model, asked.requests)
        return
    python = os.environ["LAWKIT_VLLM_PYTHON"]
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model
        if model is None:
            model = f"{folder}/tiny"
            subprocess.run([python, str(Path(__file__).parents[1] / "tiny_model.py"), model], check=True)
        server = Server(model, log=f"{folder}/log", **OPTIONS)
        command = [python, __file__, model, "--in-process", "--requests", str(asked.requests)]
        inner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert inner.stdin is not None
        assert inner.stdout is not None
        list(server.answers(requests(8)))
        few = requests(max(asked.requests // 16, 4))
        for _ in range(asked.rounds):
            began = time.perf_counter()
            alone = 0
            for request in few:
                ((_, answer),) = server.answers([request])
                alone += answer.completion_tokens if isinstance(answer, Answer) else 0
            alone_rate = alone / (time.perf_counter() - began)
            fleet_rate, fleet_cpu = rate(server, requests(asked.requests))
            inner.stdin.write("again\n")
            inner.stdin.flush()
            line = inner.stdout.readline()
            while not line.startswith("["):
                line = inner.stdout.readline()
            chat_rate, _ = json.loads(line)
            print(
                f"one at a time {alone_rate:.0f} tokens/s; fleet {fleet_rate:.0f}, "
                f"{fleet_rate / alone_rate:.1f} times; LLM.chat {chat_rate:.0f}, "
                f"fleet / LLM.chat {fleet_rate / chat_rate:.2f}; "
                f"client {1e3 * fleet_cpu / asked.requests:.1f} CPU ms a request",
                flush=True,
            )
        server.close()
        inner.stdin.close()
        inner.wait()


if __name__ == "__main__":
    main()
