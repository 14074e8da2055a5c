"""What a generator is: requests to a language model in, their answers out, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["Answer", "Failure", "Generator", "Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a model.

    Attributes
    ----------
    key
        Hash of the document, version of the prompt, seed and step; with the model, it names the answer for good.
    messages
        A chat, each message with its ``role`` and ``content``.
    max_tokens
        Where the answer is cut off.
    temperature, top_p, seed
        How tokens are drawn; the seed is this request's own.
    schema
        JSON schema that the answer must keep to; None for free text.
    """

    key: str
    messages: tuple[Mapping[str, str], ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said.

    Attributes
    ----------
    text
        The answer.
    finish
        ``stop`` where the model ended it, ``length`` where it was cut off.
    prompt_tokens, completion_tokens
        As the model counts them, chat template included.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request without an answer.

    Attributes
    ----------
    reason
        One or two words, to be counted by.
    message
        What was said about it, without the prompt.
    """

    reason: str
    message: str


@runtime_checkable
class Generator(Protocol):
    """Anything that can answer requests.

    Attributes
    ----------
    model
        Name of the model; part of what names an answer, so that two models never share one.
    n_params
        Its non-embedding parameters, from which flops are counted; None where nobody knows.
    shards_at_once
        How many callers may ask for answers at the same time, each in a thread of its own. Two keep a server busy
        while the last answers of one shard are waited for.
    """

    model: str
    n_params: float | None
    shards_at_once: int

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer the requests; yields each one's place and its answer, as they come.

        Raises
        ------
        lawkit.errors.GeneratorError
            When no further request can be answered, whatever it asks; what was yielded before stands.
        """
        ...

    def about(self) -> dict[str, Any]:
        """What the record of a shard says of its generator, as JSON knows it."""
        ...

    def close(self) -> None:
        """Let go of servers and memory; callers that still wait for answers get an error."""
        ...
