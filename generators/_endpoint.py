"""One OpenAI-compatible server: asked by the openai library, its errors sorted by what to do about them."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lawkit.errors import GeneratorError
from lawkit.generators._generator import Answer, Failure, Request
from lawkit.io._urls import without_credentials

__all__ = ["Endpoint", "Outcome"]

#: Failures in a row after which a server rests.
_RESTS_AFTER = 3
#: A server's words that repeat so many characters of the prompt are not passed on.
_REPEATED = 24
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a request at a server.

    Attributes
    ----------
    result
        The answer, or a refusal that another try would not change; None where it may be tried again.
    reason, message
        Why there is no result.
    reached
        Whether the server took the request at all.
    fatal
        Whether no other request would fare better.
    """

    result: Answer | Failure | None = None
    reason: str = ""
    message: str = ""
    reached: bool = True
    fatal: bool = False


class Endpoint:
    """A server and how it has fared.

    Parameters
    ----------
    url, model, timeout_s, api_key
        As `Fleet`'s. The attribute `url` has no credentials in it.
    """

    def __init__(self, url: str, model: str, timeout_s: float, api_key: str | None = None) -> None:
        try:
            import openai
        except ImportError:
            raise GeneratorError(
                "the package openai is needed to talk to servers: pip install 'lawkit[generate]'"
            ) from None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # half an IPv6 address, a port that is none
            usable = False
        if not usable:
            said = without_credentials(url)
            raise GeneratorError(f"{said!r} is no server's URL; write one such as http://localhost:8000/v1.")
        self.url, self._model, self._timeout_s = without_credentials(url).rstrip("/"), model, timeout_s
        self._client = openai.AsyncOpenAI(
            base_url=url.rstrip("/"),
            api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=min(timeout_s, 15.0)),
            # No proxy stands before this machine itself.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=urlsplit(url).hostname not in _LOCAL),
        )
        self._failures, self._last_failure = 0, 0.0
        self.probe = asyncio.Lock()

    @property
    def resting(self) -> bool:
        """Whether it failed so often in a row that it should be tried by one request at a time."""
        return self._failures >= _RESTS_AFTER

    def pause(self, shortest: float, longest: float) -> float:
        """Seconds until a resting server is tried again."""
        return min(shortest * 2.0 ** (self._failures - _RESTS_AFTER), longest) * random.uniform(0.5, 1)

    async def models(self) -> list[str] | str:
        """The models it serves; a text that says why it cannot be asked.

        Raises
        ------
        GeneratorError
            When it wants another key, or is something else than an OpenAI-compatible server.
        """
        import openai

        try:
            async with asyncio.timeout(min(self._timeout_s, 30.0)):
                return [model.id async for model in self._client.models.list()]
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise GeneratorError(f"{self.url}: {_KEY}") from None
        except (openai.NotFoundError, AttributeError, TypeError, ValueError):
            raise GeneratorError(
                f"{self.url}/models is no list of models: is the URL that of an OpenAI-compatible server? Most end "
                "in /v1."
            ) from None
        except (openai.OpenAIError, TimeoutError) as error:
            return f"{self.url}: {_said(error, '')}"

    async def ask(self, request: Request) -> Outcome:
        """Send a request and sort what comes back."""
        began = asyncio.get_running_loop().time()
        outcome = await self._ask(request)
        if outcome.result is not None:
            self._failures = 0
        elif began >= self._last_failure:  # requests that fail together are one failure of the server
            self._failures += 1
            self._last_failure = asyncio.get_running_loop().time()
        return outcome

    async def _ask(self, request: Request) -> Outcome:
        import openai

        options: dict[str, Any] = {}
        if request.schema is not None:
            named = {"name": "answer", "schema": dict(request.schema), "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": named}
        try:
            async with asyncio.timeout(self._timeout_s):
                said = await self._client.chat.completions.create(
                    model=self._model,
                    messages=[dict(m) for m in request.messages],  # pyright: ignore
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed,
                    **options,
                )
            return Outcome(result=_answer(said))
        except (openai.APITimeoutError, TimeoutError):
            return Outcome(reason="no answer", message=f"no answer within {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            # By name: releases of openai differ in the library that they send requests with.
            unreached = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            return Outcome(
                reason="connection", message=_said(error.__cause__ or error, ""), reached=not unreached
            )
        except openai.APIStatusError as error:
            return _refusal(error, "\n".join(m["content"] for m in request.messages))
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            return Outcome(
                reason="bad answer", message=f"no chat completion came back ({type(error).__name__})"
            )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


_KEY = "the server wants another key: set OPENAI_API_KEY."


def _answer(said: Any) -> Answer | Failure:
    choice, usage = said.choices[0], said.usage
    if usage is None or not (_is_count(usage.prompt_tokens) and _is_count(usage.completion_tokens)):
        return Failure(reason="no usage", message="the server does not say how many tokens it took")
    if choice.finish_reason == "content_filter":
        return Failure(reason="withheld", message="the server's content filter ended the answer")
    return Answer(
        text=(choice.message.content or "")
        .encode(errors="replace")
        .decode(),  # JSON can spell half a character
        finish="length" if choice.finish_reason == "length" else "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _is_count(value: object) -> bool:
    # What a server says is not checked by the library.
    return type(value) is int and value >= 0


def _refusal(error: Any, prompt: str) -> Outcome:
    status, message = error.status_code, _said(error, prompt)
    if status in (401, 403):
        return Outcome(fatal=True, message=_KEY)
    if status == 404:
        return Outcome(fatal=True, message=f"no such model or address ({message})")
    if status in (408, 409, 429) or status >= 500:
        return Outcome(reason=f"status {status}", message=message)
    words = message.lower()
    long = status == 413 or ("token" in words and ("context" in words or "maximum" in words))
    return Outcome(result=Failure(reason="too long" if long else f"status {status}", message=message))


def _said(error: BaseException, prompt: str) -> str:
    """The words of an error, in one short line that repeats nothing of the prompt."""
    body = getattr(error, "body", None)
    text = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(text or error or type(error).__name__).split())[:300]
    prompt = " ".join(prompt.split())
    code = getattr(error, "status_code", None)
    about = f"{code}: " if code else ""
    if any(text[i : i + _REPEATED] in prompt for i in range(len(text) - _REPEATED + 1)):
        return f"{about}the server's message repeats the prompt and is left out"
    return f"{about}{text}"
