"""An OpenAI-compatible server that says what a test wants, at once or slowly, and breaks when it is told to.

    python tests/fake_server.py PORT [SECONDS]

serves in a process of its own; a test that looks at what was asked uses `FakeServer` in its own process.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SAID = "bees keep their hive warm in winter by moving their wings without flying while they eat honey"
WORDS = _SAID.split()


def say(body: dict[str, Any]) -> str:
    """An answer that depends on the request alone: 60 to 160 words, or an outline of ten chapters."""
    prompt = "\n".join(m["content"] for m in body["messages"])
    rng = hashlib.sha256(f"{body.get('seed')} {prompt}".encode()).digest()
    if body.get("response_format"):
        return json.dumps(
            {"chapters": [f"Chapter {i} on {WORDS[rng[i] % 17]}: why it is so" for i in range(10)]}
        )
    return " ".join(WORDS[(rng[i % 32] + i) % 17] for i in range(60 + rng[0] % 100))


class FakeServer:
    """Serves the model `fake` on a free port of this machine while the context lasts.

    Parameters
    ----------
    seconds
        How long an answer takes.
    fault
        Called with the number of the request and its body; returns None for an answer, or what goes wrong: a status
        such as "500", "close" (the connection), "hang", "empty", "cut" (finish_reason length), "garbage", "uncounted"
        (no numbers in its usage), "filtered" (finish_reason content_filter).
    answer
        What is said.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        fault: Callable[[int, dict[str, Any]], str | None] = lambda n, body: None,
        answer: Callable[[dict[str, Any]], str] = say,
        port: int = 0,
        key: str | None = None,
    ) -> None:
        self.seconds, self.fault, self.answer, self.key = seconds, fault, answer, key
        self.asked = self.at_once = self.most_at_once = 0
        #: What a question for the models is answered with: a status and a body.
        self.models: tuple[int, bytes] = (
            200,
            b'{"object": "list", "data": [{"id": "fake", "object": "model"}]}',
        )
        #: How often each request was answered, by its seed.
        self.answered: Counter[int] = Counter()
        self._lock = threading.Lock()
        self.hanging = threading.Event()
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FakeServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hanging.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def serve(self, handler: _Handler, body: dict[str, Any]) -> None:
        with self._lock:
            number, self.asked = self.asked, self.asked + 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self._serve(handler, body, self.fault(number, body))
        finally:
            with self._lock:
                self.at_once -= 1

    def _serve(self, handler: _Handler, body: dict[str, Any], wrong: str | None) -> None:
        if self.seconds:
            time.sleep(self.seconds)
        if wrong == "close":
            handler.close_connection = True
            return
        if wrong == "hang":
            self.hanging.wait(60)
            handler.close_connection = True
            return
        if wrong == "garbage":
            handler.reply(200, b"<html>no such thing</html>")
            return
        if wrong is not None and wrong.isdigit():
            message = body["messages"][-1]["content"] if wrong == "422" else f"trouble {wrong}"
            if wrong == "400":
                message = "This model's maximum context length is 2048 tokens, and the prompt has more."
            handler.reply(int(wrong), json.dumps({"error": {"message": message}}).encode())
            return
        if body.get("model") != "fake":
            handler.reply(404, b'{"error": {"message": "The model does not exist."}}')
            return
        text = "" if wrong == "empty" else self.answer(body)
        n_tokens = len(text.split())
        finish = "length" if wrong == "cut" or n_tokens > body["max_tokens"] else "stop"
        if finish == "length":
            n_tokens = body["max_tokens"]
            text = " ".join(text.split()[:n_tokens])
        n_prompt = sum(len(m["content"].split()) for m in body["messages"])
        with self._lock:
            self.answered[body["seed"]] += 1
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        reply = {
            "id": "1", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice],
            "usage": {
                "prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens,
            },
        }  # fmt: skip
        if wrong == "uncounted":
            reply["usage"] = {"prompt_tokens": None, "total_tokens": 7}
        if wrong == "filtered":
            choice["finish_reason"] = "content_filter"
        handler.reply(200, json.dumps(reply).encode())


class _Http(ThreadingHTTPServer):
    fake: FakeServer
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed in the middle


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.reply(*self.server.fake.models)

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if fake.key and self.headers["Authorization"] not in (f"Bearer {fake.key}", f"Basic {fake.key}"):
            self.reply(401, b'{"error": {"message": "wrong key"}}')
            return
        fake.serve(self, body)

    def reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    with FakeServer(port=int(sys.argv[1]), seconds=float((sys.argv[2:] or ["0"])[0])):
        threading.Event().wait()
