"""One shard: some documents, what is asked about them, and what becomes of the answers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lawkit.generators._answers import FOLDER, AnswerLog
from lawkit.generators._generator import Answer, Failure, Generator, Request
from lawkit.generators.filters import Filters
from lawkit.generators.styles import OutlineError, Step, Style

__all__ = ["Document", "Plan", "Shard", "documents_digest"]

_UNANSWERED = Failure(reason="no answer", message="the generator did not answer")


@dataclass(frozen=True)
class Document:
    """What a model is shown of a document, and the hash of all of it."""

    digest: str
    text: str
    cut: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is the same for all shards of a job."""

    style: Style
    model: str
    seed: int
    temperature: float
    top_p: float
    filters: Filters

    def request(self, document: Document, step: Step) -> Request:
        """The request of a document's step. Its seed is drawn from its key, so that it is the same in any run."""
        key = f"{document.digest} {self.style.version} {self.seed} {step.name}".rstrip()
        own_seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") >> 1
        return Request(
            key=key,
            messages=step.messages,
            max_tokens=step.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=own_seed,
            schema=step.schema,
        )


@dataclass
class Shard:
    """The documents of one shard and, once it was worked, their records.

    Attributes
    ----------
    index, documents
        Its number, and the documents in their order.
    records
        Texts that are kept, in the order of documents and steps.
    dropped
        Answers that the filters dropped, by reason.
    failures
        What has no answer, and why.
    prompt_tokens, completion_tokens
        Of all answers, kept or not.
    """

    index: int
    documents: list[Document]
    records: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def work(
        self, plan: Plan, generator: Generator, folder: Path, tell: Callable[[Answer | Failure], None]
    ) -> None:
        """Have answered what is not yet in the shard's log, and sort the answers.

        Raises
        ------
        GeneratorError, OSError
            When no more answers can be had, or written down; those that were stay in the log.
        """
        log = AnswerLog(folder / FOLDER / f"{self.index:05d}.jsonl")
        try:
            asked = [
                (document, step) for document in self.documents for step in plan.style.first(document.text)
            ]
            while asked:
                requests = [plan.request(*each) for each in asked]
                missing = [request for request in requests if log.get(request.key) is None]
                failed: dict[str, Failure] = {}
                for place, result in generator.answers(missing):
                    if isinstance(result, Answer):
                        log.add(missing[place].key, result)
                    else:
                        failed[missing[place].key] = result
                    tell(result)
                results = [log.get(r.key) or failed.get(r.key, _UNANSWERED) for r in requests]
                asked = [
                    following
                    for each, result in zip(asked, results, strict=True)
                    for following in self._sort(plan, *each, result)
                ]
        finally:
            log.close()

    def _sort(
        self, plan: Plan, document: Document, step: Step, result: Answer | Failure
    ) -> Iterator[tuple[Document, Step]]:
        if isinstance(result, Failure):
            self._failed(document, step, result.reason, result.message)
            return
        self.prompt_tokens += result.prompt_tokens
        self.completion_tokens += result.completion_tokens
        if not step.final:
            try:
                following = plan.style.then(step, result)
            except OutlineError as error:
                self._failed(document, step, "outline", str(error))
                return
            yield from ((document, each) for each in following)
            return
        why = plan.filters.why_dropped(
            result, max_tokens=step.max_tokens, target_tokens=plan.style.target_tokens
        )
        if why is not None:
            self.dropped[why] += 1
            return
        self.records.append(
            {
                "text": result.text.strip(),
                "document": document.digest,
                "prompt": plan.style.version,
                "model": plan.model,
                "seed": plan.seed,
                "step": step.name,
                "tokens": result.completion_tokens,
            }
        )

    def _failed(self, document: Document, step: Step, reason: str, message: str) -> None:
        self.failures.append(
            {"document": document.digest, "step": step.name, "reason": reason, "message": message}
        )


def documents_digest(digests: Iterable[str]) -> str:
    """Hash over documents, from their own hashes."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
