"""What a source is made of, next to the texts on which models are evaluated."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.corpus._ngrams import Marks, copies, distinct, sample
from lawkit.corpus._results import CorpusStats, DomainStats, RareToken, SourceStats
from lawkit.corpus._tokenizer import load_tokenizer
from lawkit.corpus._unigrams import Survey, coverage, divergence, survey, zipf
from lawkit.corpus.reader import Corpus, open_corpus
from lawkit.errors import CorpusError

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["stats"]

#: A token is rare in a source when it is that many times as frequent in the domain, where it must occur so often.
RARE, LEAST = 10.0, 10
#: Lengths of the runs of tokens whose diversity is measured.
RUNS = (1, 2, 3, 4)


def stats(
    corpus: str | Path | Corpus,
    sources: Sequence[str] | None = None,
    *,
    text: Mapping[str, str | Path | Sequence[str | Path]] | None = None,
    domains: Sequence[str] | None = None,
    input: str | None = None,
    proxy: str | Path | None = None,
    python: str | None = None,
    smoothing: float = 0.5,
    sample_tokens: int = 1 << 20,
    top: int = 10,
    **reading: Any,
) -> CorpusStats:
    """Describe sources, and compare them with the held-out text of each domain.

    Each text is read in pieces: memory grows with the vocabulary and not with the corpus. BOS and EOS are not counted.

    Parameters
    ----------
    corpus : path or Corpus
        The corpus, or its folder.
    sources : sequence of str, optional
        Which of its sources to describe. None: all of them, or none where there is `text`.
    text : mapping of str to path, pattern or sequence of them, optional
        Sources that are not in the corpus, such as generated ones, by name with their files; they are encoded with the
        corpus's tokenizer into a temporary folder.
    domains : sequence of str, optional
        Sources of the corpus whose held-out text is compared with. None: all.
    input : str, optional
        The source, of the corpus or of `text`, that the others were made from: they are searched for what was copied.
    proxy : path, optional
        The folder of a run trained by torchtitan on this corpus that kept its checkpoint. Its loss on every held-out
        token is computed in a process of its own, on the rows that it was evaluated on.
    python : str, optional
        Interpreter of that process, if torchtitan is not installed beside lawkit.
    smoothing : float
        What is added to each count of a source before its frequencies are taken, so that no token is impossible.
    sample_tokens : int
        Most tokens of each source of which the diversity is measured, and that are looked for in the input.
    top : int
        Rare tokens that are listed for each source and domain.
    **reading
        How text files are read, as for `build`: text_column, document_separator, encoding_errors, max_document_bytes.

    Returns
    -------
    CorpusStats

    Raises
    ------
    CorpusError
        When there is no such source, nothing of a domain is held out, an option makes no sense, or text cannot be read.
    BackendError
        When the proxy has no checkpoint, was trained on another corpus or vocabulary, or cannot be evaluated.

    Examples
    --------
    >>> import sysconfig, tempfile
    >>> from lawkit.corpus import build
    >>> files = f"{sysconfig.get_path('stdlib')}/json/*.py"
    >>> corpus = build({"json": files}, tempfile.mkdtemp(), vocab_size=512, holdout=0.2)
    >>> found = stats(corpus)
    >>> found.sources["json"].domains["json"].token_coverage > 0.9
    True
    """
    if not (np.isfinite(smoothing) and smoothing > 0):
        raise CorpusError(
            f"smoothing is {smoothing!r}: a number above 0, or a token that a source lacks is impossible."
        )
    for name, value, least in (("sample_tokens", sample_tokens, 1000), ("top", top, 0)):
        if value < least:
            raise CorpusError(f"{name} is {value!r}: a whole number of at least {least}.")
    opened = corpus if isinstance(corpus, Corpus) else open_corpus(corpus)
    marks, started = Marks(opened.bos, opened.eos), time.perf_counter()

    def surveyed(tokens: np.memmap[Any, Any]) -> Survey:
        return survey(tokens, opened.vocab_size, *marks)

    with _encoded(opened, text or {}, reading) as others:
        names = list(dict.fromkeys([*(sources or (() if text else opened.sources)), *others]))
        texts = {name: others[name] if name in others else opened.train(name) for name in names}
        made_from: list[np.memmap[Any, Any]] = []
        if input is not None:
            made_from = [others[input]] if input in others else [opened.train(input)]
            if input not in others and opened.n_heldout_tokens(input):
                made_from.append(opened.heldout(input))
        held = {name: opened.heldout(name) for name in dict.fromkeys(domains or opened.sources)}
        known = {name: surveyed(tokens) for name, tokens in held.items()}
        losses, warnings, waited = None, [], 0.0
        if proxy is not None:
            before = time.perf_counter()
            losses = _Losses(proxy, opened, list(held), python)
            waited = time.perf_counter() - before
            warnings += losses.warnings(names)
        equal = min(sample_tokens, *map(len, texts.values()))
        samples = [sample(tokens, equal, opened.eos) for tokens in texts.values()]
        runs = {n: distinct(samples, n, marks) for n in RUNS}
        del samples
        baseline = None
        if len(made_from) > 1:
            baseline = copies(
                sample(made_from[1], sample_tokens, opened.eos), input or "", made_from[:1], marks
            )
        n_read = sum(map(len, (*texts.values(), *held.values())))
        tokenizer = load_tokenizer(opened.tokenizer_path)
        found = {}
        for i, (name, tokens) in enumerate(texts.items()):
            seen = surveyed(tokens)
            copied = None
            if input is not None and name != input:
                copied = copies(sample(tokens, sample_tokens, opened.eos), input, made_from, marks)
                if baseline:
                    copied = replace(copied, baseline_8=baseline.share_8, baseline_13=baseline.share_13)
                n_read += 2 * sum(map(len, made_from))
            found[name] = SourceStats(
                n_tokens=int(seen.counts.sum()),
                n_documents=seen.n_documents,
                n_types=int((seen.counts > 0).sum()),
                zipf=zipf(seen.by_part),
                distinct={str(n): shares[i] for n, (_, shares) in runs.items()},
                lengths=seen.lengths,
                copies=copied,
                domains={
                    domain: _compare(
                        known[domain].counts,
                        seen.counts,
                        equal,
                        smoothing,
                        opened.vocab_size - len(set(marks)),
                        tokenizer,
                        top,
                        losses and (losses.sums[domain], losses.counts[domain]),
                    )
                    for domain in held
                },
                counts=seen.counts,
            )
    return CorpusStats(
        corpus=opened.path,
        digest=opened.digest,
        vocab_size=opened.vocab_size,
        smoothing=smoothing,
        equal_tokens=equal,
        distinct_runs={str(n): count for n, (count, _) in runs.items()},
        domains={
            name: {
                "n_tokens": int(about.counts.sum()),
                "n_types": int((about.counts > 0).sum()),
                "loss": losses and losses.sums[name].sum() / losses.counts[name].sum(),
                "loss_tokens": losses and int(losses.counts[name].sum()),
            }
            for name, about in known.items()
        },
        proxy=losses and losses.about,
        sources=found,
        n_tokens_read=n_read,
        seconds=time.perf_counter() - started - waited,
        warnings=warnings,
    )


class _Losses:
    """A proxy's losses in each domain by token: their sums and how many there are, (vocab_size,) each."""

    def __init__(self, run: str | Path, corpus: Corpus, domains: list[str], python: str | None) -> None:
        from lawkit.backends.torchtitan.proxy import proxy_losses

        found = proxy_losses(run, corpus, domains, python)
        n = corpus.vocab_size
        self.about = {"run": str(run), "step": found.step, "weights": found.weights}
        self.counts: dict[str, NDArray[Any]] = {
            d: np.bincount(ids.ravel(), minlength=n) for d, ids in found.tokens.items()
        }
        self.sums: dict[str, NDArray[Any]] = {
            d: np.bincount(ids.ravel(), found.losses[d].ravel(), n) for d, ids in found.tokens.items()
        }

    def warnings(self, names: list[str]) -> list[str]:
        unseen = [name for name in names if not self.about["weights"].get(name)]
        if not unseen:
            return []
        return [
            f"the proxy was not trained on {', '.join(map(repr, unseen))}: its losses do not tell what is hard for a "
            "model of that text"
        ]


def _compare(
    domain: NDArray[np.int64],
    source: NDArray[np.int64],
    equal: int,
    smoothing: float,
    n_types: int,
    tokenizer: Any,
    top: int,
    losses: tuple[NDArray[Any], NDArray[Any]] | None,
) -> DomainStats:
    """Compare counts (vocab_size,) of a domain and a source."""
    parts, smoothed = divergence(domain, source, smoothing, n_types)
    p, q = domain / domain.sum(), source / source.sum()
    rare = (domain >= LEAST) & (p >= RARE * smoothed)
    sums, n = losses or (np.zeros(len(p)), np.zeros(len(p), np.int64))
    total = sums.sum()
    ids = np.flatnonzero(rare)
    ids = ids[np.argsort(-(sums if total else parts)[ids], kind="stable")][:top]
    (types, covered), (types_equal, covered_equal) = coverage(domain, source), coverage(domain, source, equal)
    return DomainStats(
        type_coverage=types,
        token_coverage=covered,
        type_coverage_equal=types_equal,
        token_coverage_equal=covered_equal,
        kl=float(parts.sum()),
        n_rare=int(rare.sum()),
        rare_share=float(p[rare].sum()),
        rare_kl=float(parts[rare].sum()),
        rare_loss=float(sums[rare].sum() / n[rare].sum()) if n[rare].any() else None,
        rare_loss_share=float(sums[rare].sum() / total) if total else None,
        rare=[
            RareToken(
                id=int(i),
                text=_spelling(tokenizer, int(i)),
                domain=float(p[i]),
                source=float(q[i]),
                kl=float(parts[i]),
                loss=float(sums[i] / n[i]) if n[i] else None,
                loss_share=float(sums[i] / total) if n[i] else None,
            )
            for i in ids
        ],
    )


def _spelling(tokenizer: Any, i: int) -> str:
    """A token as text; one that is part of a character as the tokenizer's file has it."""
    text = tokenizer.decode([i], skip_special_tokens=False)
    return text if text and "\ufffd" not in text else tokenizer.id_to_token(i)


@contextmanager
def _encoded(
    corpus: Corpus, text: Mapping[str, Any], reading: Mapping[str, Any]
) -> Iterator[dict[str, np.memmap[Any, Any]]]:
    """Texts as tokens of a corpus's tokenizer, by name, for the time being."""
    from lawkit.corpus.builder import build

    if not text:
        yield {}
        return
    if known := [name for name in text if name in corpus.sources]:
        raise CorpusError(f"{known[0]!r} is a source of {corpus.path} already: give the files another name.")
    tokenizer = load_tokenizer(corpus.tokenizer_path)
    bos, eos = tokenizer.id_to_token(corpus.bos), tokenizer.id_to_token(corpus.eos)
    with tempfile.TemporaryDirectory(prefix="lawkit-") as folder:
        built = build(text, folder, tokenizer=corpus.tokenizer_path, holdout=0, bos=bos, eos=eos, **reading)
        yield {name: built.train(name) for name in text}
