"""`generate`: documents in, a folder of synthetic text out, in shards that are made once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators._answers import FOLDER
from lawkit.generators._batches import Batch, batches
from lawkit.generators._cut import Cutter
from lawkit.generators._folder import alone, check_settings, read_shard, write_shard, writing
from lawkit.generators._generator import Answer, Failure, Generator
from lawkit.generators._shard import Plan, Shard, documents_digest
from lawkit.generators._summary import Generated, read_generated
from lawkit.generators.filters import Filters
from lawkit.generators.replay import Replay
from lawkit.generators.styles import get_style

__all__ = ["Progress", "generate"]


@dataclass
class Progress:
    """How far a job is.

    Attributes
    ----------
    documents, answers, failures
        Of finished shards and, for the latter two, of those under way.
    kept_tokens
        Of finished shards, of texts that passed the filters.
    new_tokens
        That the model wrote since the call began.
    """

    documents: int = 0
    answers: int = 0
    failures: int = 0
    kept_tokens: int = 0
    new_tokens: int = 0


def generate(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    generator: Generator,
    style: str = "hq",
    tokens: float | None = None,
    seed: int = 0,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int | None = None,
    input_tokens: int = 2048,
    tokenizer: str | Path | None = None,
    filters: Filters | None = None,
    shard: int = 256,
    retry_failed: bool = False,
    price_per_hour: float | None = None,
    price_per_million: float | None = None,
    text_column: str = "text",
    document_separator: str | None = None,
    encoding_errors: str = "strict",
    max_document_bytes: int = 64 << 20,
    progress: Callable[[Progress], None] | None = None,
) -> Generated:
    """Turn documents into synthetic text, or go on with a folder where an earlier call stopped.

    What is finished is never made again: a call for more tokens, or on a source to which documents were added at its
    end, generates only what is missing. A killed process loses the requests that were under way.

    Parameters
    ----------
    source
        Files of the documents, or patterns for them, as ``lawkit corpus build`` reads them.
    out
        Folder of the generated text; its ``*.jsonl`` are a source like any other.
    generator
        Who answers. Nothing is started where nothing is missing. It is the caller's to close; an error that ends the
        job closes it too.
    style
        ``hq``, ``qa``, ``textbook``, or the version of a prompt.
    tokens
        Begin no more shards when at least so many tokens were kept, as the model counts them, or are likely to be once
        the shards under way are done; None: use all documents.
    seed
        Another seed gives other texts for the same documents.
    temperature, top_p, max_tokens
        How the model draws its tokens, and where answers are cut off, if not where the style says.
    input_tokens, tokenizer
        What a model is shown of a document: its first tokens, counted by this tokenizer.json; without one, four
        characters are taken for a token.
    filters
        Which answers are kept; `Filters` for the defaults.
    shard
        Documents of one shard.
    retry_failed
        Ask again what failed in finished shards.
    price_per_hour, price_per_million
        Money for an hour of all servers together, and for a million tokens, prompts included.
    text_column, document_separator, encoding_errors, max_document_bytes
        As for `lawkit.corpus.build`.
    progress
        Told how far the job is after every answer.

    Returns
    -------
    Generated
        What the folder holds now.

    Raises
    ------
    GeneratorError
        When the folder was made, or answers to replay were recorded, with other settings or documents, when the folder
        is used by another process, cannot be written or is full, and when no more answers can be had. What was finished
        is kept, and the same call goes on from there.
    CorpusError
        When the documents cannot be read.
    """
    from lawkit.corpus._documents import documents
    from lawkit.corpus._options import find_files, reading_options

    prompt = get_style(style, max_tokens)
    filters = filters or Filters()
    if shard < 1:
        raise GeneratorError(f"shard is {shard!r}: at least 1 document.")
    if not (0 <= temperature < math.inf and 0 < top_p <= 1):
        raise GeneratorError(
            f"temperature is {temperature!r} and top_p {top_p!r}: at least 0, and above 0 to 1."
        )
    for price in (price_per_hour, price_per_million):
        if price is not None and not 0 <= price < math.inf:
            raise GeneratorError(f"a price is {price!r}: at least 0.")
    cutter = Cutter(input_tokens, tokenizer)
    rules = reading_options(text_column, document_separator, encoding_errors, max_document_bytes)
    warnings: list[str] = []
    files = find_files({"source": source}, warnings)["source"]
    settings = {
        "prompt": prompt.version,
        "prompt_sha256": prompt.digest,
        "model": generator.model,
        "n_params": generator.n_params,
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": prompt.max_tokens,
        "filters": filters.as_dict(),
        "shard": shard,
        **cutter.rule,
    }
    if isinstance(generator, Replay):
        generator.check(settings)
    folder = Path(out)
    plan = Plan(
        style=prompt,
        model=generator.model,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        filters=filters,
    )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            check_settings(folder, settings)
            (folder / FOLDER).mkdir(exist_ok=True)
            for half_written in folder.glob(".*.part"):
                half_written.unlink()
            job = _Job(folder, plan, generator, settings, progress or (lambda _: None))
            job.prices = price_per_hour, price_per_million
            job.sources = [str(file.path) for file in files]
            read = documents(files, rules)
            job.run(batches(read, cutter, shard), tokens, retry_failed)
    found = read_generated(folder)
    if tokens is not None and found.tokens < tokens:
        warnings.append(
            f"the source gave {found.tokens:,} of {tokens:,.0f} tokens: add documents to it, or generate from it with "
            "another seed into another folder"
        )
    found.new_tokens, found.warnings = job.told.new_tokens, [*warnings, *found.warnings]
    return found


class _Job:
    """One call: which shards are made, and their accounts."""

    prices: tuple[float | None, float | None] = (None, None)
    sources: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        generator: Generator,
        settings: dict[str, Any],
        tell: Callable[[Progress], None],
    ) -> None:
        self.folder, self.plan, self.generator, self.settings = folder, plan, generator, settings
        self.told, self._tell = Progress(), tell
        self._ended = time.monotonic()
        self._lock = threading.Lock()

    def run(self, source: Iterator[Batch], tokens: float | None, retry: bool) -> None:
        """Make what is missing, up to so many tokens."""
        at_once = max(1, self.generator.shards_at_once)
        under_way: deque[tuple[Shard, Batch, Future[None] | None]] = deque()
        made = 0

        def finish() -> None:
            nonlocal made
            shard, batch, future = under_way.popleft()
            if future is not None:
                future.result()
            self._write(shard, batch)
            made += 1

        def enough() -> bool:
            # Shards under way count as much as those that were finished have on average.
            mean = self.told.kept_tokens / made if made else 0.0
            return tokens is not None and self.told.kept_tokens + mean * len(under_way) >= tokens

        with ThreadPoolExecutor(at_once) as pool:
            try:
                index = -1
                for index, batch in enumerate(source):
                    while under_way and (len(under_way) >= at_once or enough()):
                        finish()
                    if enough():
                        break
                    known = self._known(index, batch)
                    if known is not None and not (retry and known["failures"]):
                        self._count(known)
                        made += 1
                        continue
                    shard = Shard(index, batch.documents)
                    future = None
                    if at_once > 1:
                        future = pool.submit(self._work, shard)
                    else:
                        self._work(shard)  # some libraries want the main thread
                    under_way.append((shard, batch, future))
                else:
                    if read_shard(self.folder, index + 1) is not None:
                        raise self._changed(index + 1)
                while under_way:
                    finish()
            except BaseException:
                self.generator.close()  # those that wait for answers in other threads would wait on
                raise

    def _known(self, index: int, batch: Batch) -> dict[str, Any] | None:
        """What is known of the shard, where it is finished.

        A last shard to whose documents others were added since is open again; its answers are kept.

        Raises
        ------
        GeneratorError
            When its documents are others than they were.
        """
        about = read_shard(self.folder, index)
        if about is None:
            return None
        first = (document.digest for document in batch.documents[: about["documents"]])
        if documents_digest(first) != about["documents_sha256"]:
            raise self._changed(index)
        return about if about["documents"] == len(batch.documents) else None

    def _changed(self, index: int) -> GeneratorError:
        return GeneratorError(
            f"{self.folder}: the documents of shard {index} are not those that it was generated from: the source "
            "changed. Put it back, or name another folder; documents may be added at the source's end."
        )

    def _work(self, shard: Shard) -> None:
        shard.work(self.plan, self.generator, self.folder, self._answered)

    def _answered(self, result: Answer | Failure) -> None:
        with self._lock:  # shards are worked in threads
            if isinstance(result, Answer):
                self.told.answers += 1
                self.told.new_tokens += result.completion_tokens
            else:
                self.told.failures += 1
            self._tell(self.told)

    def _write(self, shard: Shard, batch: Batch) -> None:
        now = time.monotonic()
        seconds, self._ended = now - self._ended, now
        earlier = read_shard(self.folder, shard.index)
        if earlier is not None:  # what was answered then is counted in the tokens again, and its time is here
            seconds += earlier["cost"]["seconds"]
        n_tokens = shard.prompt_tokens + shard.completion_tokens
        n_params = self.generator.n_params
        per_hour, per_million = self.prices
        money = None
        if per_hour is not None or per_million is not None:
            money = (per_hour or 0) * seconds / 3600 + (per_million or 0) * n_tokens / 1e6
        about = {
            "shard": shard.index,
            "documents": len(batch.documents),
            "documents_sha256": documents_digest(document.digest for document in batch.documents),
            "repeated_documents": batch.repeated,
            "cut_documents": sum(document.cut for document in batch.documents),
            "texts": len(shard.records),
            "tokens": sum(record["tokens"] for record in shard.records),
            "dropped": dict(shard.dropped),
            "failures": shard.failures,
            "cost": {
                "prompt_tokens": shard.prompt_tokens,
                "completion_tokens": shard.completion_tokens,
                "flops": None if n_params is None else 2 * n_params * n_tokens,
                "seconds": seconds,
                "money": money,
            },
            "made_by": {
                "lawkit": version("lawkit"),
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **self.generator.about(),
            },
            "source": list(self.sources),
            "settings": self.settings,
        }
        self._count(write_shard(self.folder, shard.index, shard.records, about))

    def _count(self, about: dict[str, Any]) -> None:
        self.told.documents += about["documents"]
        self.told.kept_tokens += about["tokens"]
        self._tell(self.told)
