"""A fleet: any number of OpenAI-compatible servers that serve one model, such as those of ``vllm serve``."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from lawkit.errors import GeneratorError
from lawkit.generators._endpoint import Endpoint, Outcome
from lawkit.generators._generator import Answer, Failure, Request

__all__ = ["Fleet"]

#: Seconds before a request is tried again, doubled with each of its failures.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
#: Requests that fail one after the other, tries and all, until the fleet is given up.
_MOST_FAILED = 50


class _Job:
    """A request under way, and where its answer goes."""

    def __init__(self, request: Request, place: int, results: _Results) -> None:
        self.request, self._place, self._results, self.failures = request, place, results, 0

    def done(self, result: Answer | Failure) -> None:
        self._results.put((self._place, result))


#: Places with their answers, or why there will be none.
_Results = queue.SimpleQueue[tuple[int, "Answer | Failure"] | GeneratorError]


class Fleet:
    """Sends requests to all servers at once, each as fast as it answers.

    A request that meets a busy or broken server (connection lost, 5xx, 429, no answer in time) is tried again, on
    whatever server is free; one that a server refuses (4xx) never is. A server that fails again and again is tried
    by one request at a time until it answers. Nothing is sent until the first answers are asked for.

    Parameters
    ----------
    model
        Name under which the servers serve it.
    urls
        Where they are, such as ``http://node7:8000/v1``. The key they ask for is read from OPENAI_API_KEY; a user and
        password before the host are sent in its place, and neither shown nor written down.
    concurrency
        Requests at a time to each server.
    timeout_s
        Seconds that one answer may take.
    retries
        How often a request is tried again before it counts as failed.
    patience_s
        Seconds without any server that accepts a connection until the job is given up.
    n_params
        The model's non-embedding parameters, for counting flops.
    """

    shards_at_once = 2

    def __init__(
        self,
        model: str,
        *,
        urls: Sequence[str],
        concurrency: int = 64,
        timeout_s: float = 600.0,
        retries: int = 5,
        patience_s: float = 300.0,
        n_params: float | None = None,
        api_key: str | None = None,
        stopped: Callable[[], str | None] = lambda: None,
    ) -> None:
        if not urls:
            raise GeneratorError("no servers: give at least one URL, such as http://localhost:8000/v1.")
        if concurrency < 1 or retries < 0 or not timeout_s > 0:
            raise GeneratorError(
                f"concurrency {concurrency!r}, retries {retries!r}, timeout_s {timeout_s!r}: at least 1, at least 0, "
                "above 0."
            )
        self.model, self.n_params = model, n_params
        self._concurrency, self._retries, self._patience_s = concurrency, retries, patience_s
        self._stopped = stopped
        self._servers = [Endpoint(url, model, timeout_s, api_key) for url in urls]
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: asyncio.Queue[_Job] = asyncio.Queue()
        self._callers: set[_Results] = set()
        self._ended: GeneratorError | None = None
        self._failed_in_a_row = 0
        self._last_reached = 0.0

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer the requests, each with its place, as the answers come.

        Raises
        ------
        GeneratorError
            When no server can be reached, the model is not served, a key is wrong, or request after request fails.
        """
        if not requests:
            return
        results: _Results = queue.SimpleQueue()
        jobs = [_Job(request, place, results) for place, request in enumerate(requests)]
        with self._lock:
            if self._ended:
                raise self._ended
            loop = self._start()
            self._callers.add(results)
            loop.call_soon_threadsafe(self._submit, jobs)
        try:
            for _ in jobs:
                result = results.get()
                if isinstance(result, GeneratorError):
                    raise result
                yield result
        finally:
            with self._lock:
                self._callers.discard(results)

    def about(self) -> dict[str, Any]:
        """Where the servers are."""
        return {"generator": "fleet", "urls": [server.url for server in self._servers]}

    def close(self) -> None:
        """Drop what is under way."""
        self._end(GeneratorError("the generator was closed."))
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _end(self, why: GeneratorError) -> None:
        with self._lock:
            self._ended = self._ended or why
            for results in self._callers:
                results.put(self._ended)

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name="lawkit-fleet", daemon=True
            )
            self._thread.start()
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        work = loop.create_task(self._work())
        try:
            loop.run_forever()
        finally:
            work.cancel()
            while tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
            loop.run_until_complete(asyncio.gather(*(server.close() for server in self._servers)))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _work(self) -> None:
        try:
            self._last_reached = _now()
            await self._check()
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    for _ in range(self._concurrency):
                        group.create_task(self._serve(server))
        except* GeneratorError as errors:
            self._end(GeneratorError(str(errors.exceptions[0])))  # for the most part said already, by _stop
        except* Exception as errors:  # a bug: the callers must not wait for ever
            self._end(GeneratorError(f"the fleet broke ({errors.exceptions[0]!r})."))

    def _stop(self, why: str) -> NoReturn:
        """Tell the callers at once, then leave: a task that is cancelled may take its time."""
        error = GeneratorError(why)
        self._end(error)
        raise error

    async def _check(self) -> None:
        """Ask every server which models it serves, before any work is sent; one that is down may come up later."""
        while True:
            found = await asyncio.gather(*(server.models() for server in self._servers))
            for server, models in zip(self._servers, found, strict=True):
                if not isinstance(models, str) and self.model not in models:
                    serves = ", ".join(map(repr, models)) or "none"
                    self._stop(f"{server.url} serves no model {self.model!r}; it serves {serves}.")
            if any(not isinstance(models, str) for models in found):
                return
            self._give_up_stopped()
            self._give_up_unreached("; ".join(str(said) for said in found))
            await asyncio.sleep(min(_PAUSE_S, self._patience_s))

    def _submit(self, jobs: list[_Job]) -> None:
        if self._waiting.empty():
            self._last_reached = _now()  # nobody was asked while there was nothing to ask
        for job in jobs:
            self._waiting.put_nowait(job)

    async def _serve(self, server: Endpoint) -> None:
        while True:
            if server.resting:
                async with server.probe:
                    if server.resting:
                        await asyncio.sleep(server.pause(_PAUSE_S, _LONGEST_PAUSE_S))
                        await self._one(server)
            else:
                await self._one(server)

    async def _one(self, server: Endpoint) -> None:
        job = await self._waiting.get()
        outcome = await server.ask(job.request)
        if outcome.result is not None:
            self._last_reached = _now()
            self._failed_in_a_row = 0
            job.done(outcome.result)
        elif outcome.fatal:
            self._stop(f"{server.url}: {outcome.message}")
        else:
            self._again(job, server, outcome)

    def _again(self, job: _Job, server: Endpoint, outcome: Outcome) -> None:
        self._give_up_stopped()
        if outcome.reached:
            self._last_reached = _now()
            job.failures += 1
        else:  # that is no fault of the request
            self._give_up_unreached(f"{server.url}: {outcome.message}")
        if job.failures <= self._retries:
            pause = min(_PAUSE_S * 2.0 ** max(job.failures - 1, 0), _LONGEST_PAUSE_S)
            asyncio.get_running_loop().call_later(pause, self._waiting.put_nowait, job)
            return
        job.done(Failure(reason=outcome.reason, message=f"{outcome.message} ({job.failures} tries)"))
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _MOST_FAILED:
            self._stop(
                f"the last {_MOST_FAILED} requests all failed, each after {job.failures} tries; the last because of: "
                f"{outcome.message}. What was done is kept: put the servers right and run again with --retry-failed."
            )

    def _give_up_stopped(self) -> None:
        gone = self._stopped()
        if gone is not None:
            self._stop(f"{gone} What was done is kept: run again to go on.")

    def _give_up_unreached(self, said: str) -> None:
        silent = _now() - self._last_reached
        if silent >= self._patience_s:
            self._stop(
                f"no server could be reached for {silent:.0f} s ({said}). What was done is kept: start a server and "
                "run again to go on."
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
