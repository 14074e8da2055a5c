"""Runs a vLLM server that ends with whoever started it; a script for an interpreter that has vLLM, without lawkit.

    python -P _launch.py '{"model": ..., "served_model_name": ..., "port": ..., any option of vLLM: ...}'

Its standard input is a pipe that the starter holds open and never writes to: when it ends, by whatever death, the
server and all its processes are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import sys
import time
from typing import Any

#: Seconds for a server to end by itself when asked to.
_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1
#: Context that a server on a CPU has at most, unless told otherwise: its batches are as long.
_CPU_CONTEXT = 8192


def engine_options(options: dict[str, Any]) -> dict[str, Any]:
    """Add what vLLM needs on a CPU: there, seeded requests with chunked prefill kill its engine.

    A prompt that is not cut into chunks must fit a batch.
    """
    from vllm.platforms import current_platform  # pyright: ignore

    if not current_platform.is_cpu():
        return options
    options = {"enable_chunked_prefill": False, **options}
    if "max_model_len" not in options:
        from transformers import AutoConfig  # pyright: ignore

        longest = getattr(
            AutoConfig.from_pretrained(options["model"]), "max_position_embeddings", _CPU_CONTEXT
        )
        options["max_model_len"] = min(longest, _CPU_CONTEXT)
    options.setdefault("max_num_batched_tokens", max(2048, int(options["max_model_len"])))
    return options


def quiet_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a vLLM process: it reports nothing, and its own sockets stay on this machine."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",  # on a CPU, two threads stalled
    }
    return {**defaults, **environment}


def _arguments(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    return words


def _serve(options: dict[str, Any]) -> None:
    sys.argv = ["vllm", *_arguments(engine_options(options))]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def _follow(parent: int) -> None:
    """Die when the parent dies, on Linux without delay; elsewhere the watcher sees to it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _watch(server: int, pipes: list[int]) -> None:
    """Wait until one of the pipes ends, then end the server, gently if it lets us, and the whole group."""
    select.select(pipes, [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
        end = time.monotonic() + _GRACE_S
        while time.monotonic() < end:
            os.kill(server, 0)
            time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve in one child, watch in another; whichever of the three ends, the whole group is ended.

    vLLM's own engine outlives a server that is killed: nothing short of the group is enough.
    """
    me = os.getpid()
    if os.getpgrp() != me:
        os.setpgid(0, 0)
    server = os.fork()
    if server == 0:
        _follow(me)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        _serve(json.loads(sys.argv[1]))
        return
    ours, mine = os.pipe()
    if os.fork() == 0:
        os.close(mine)
        _watch(server, [0, ours])
    os.close(0)
    ended, status = os.wait()
    if ended == server:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status >> 8}"
        print(f"the server ended with {how}", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
