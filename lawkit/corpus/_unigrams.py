"""How often each token occurs, what follows from that, and how long documents are; read in pieces of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Lengths", "Survey", "Zipf", "coverage", "divergence", "pieces", "read", "survey", "zipf"]

#: Tokens that are read at once.
PIECE = 1 << 18
#: Parts of a text, one after the other, between which a standard error sees how it changes.
_PARTS = 32
#: Counts of all parts together: a large vocabulary has fewer parts.
_MOST_COUNTS = 1 << 23
#: Longer documents than this are counted as one of this length for the quantiles.
_LONGEST = 1 << 20
#: A type that occurs less often has too uncertain a rank for Zipf's law to be fitted to it.
_LEAST = 20


def read(tokens: np.memmap[Any, Any], start: int, count: int) -> NDArray[Any]:
    """Read tokens of a corpus from their file, so that what was read does not stay in memory as a map would."""
    return np.fromfile(
        os.fspath(tokens.filename or ""), tokens.dtype, count, offset=start * tokens.dtype.itemsize
    )


def pieces(tokens: np.memmap[Any, Any], size: int, overlap: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read tokens in pieces of `size`, each with where it starts and the first `overlap` tokens of the next."""
    for start in range(0, len(tokens), size):
        yield start, read(tokens, start, min(size + overlap, len(tokens) - start))


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lengths of documents in tokens, BOS and EOS not counted.

    Attributes
    ----------
    mean, shortest, longest : float, int, int
        Exact.
    quantiles : dict of str to int
        p5, p25, p50, p75 and p95; exact up to 1,048,576 tokens.
    edges, counts : list of int
        Documents of at least `edges[i]` and fewer than `edges[i + 1]` tokens; the edges are powers of two, and 0.
    """

    mean: float
    shortest: int
    longest: int
    quantiles: dict[str, int]
    edges: list[int]
    counts: list[int]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """One reading of a text.

    Attributes
    ----------
    by_part : (parts, vocab_size) array of int
        How often each token occurs in each part of the text; BOS and EOS are not counted.
    n_documents : int
        Documents.
    lengths : Lengths
        Of the documents.
    """

    by_part: NDArray[np.int64]
    n_documents: int
    lengths: Lengths

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each token occurs, (vocab_size,)."""
        return self.by_part.sum(0)


def survey(tokens: np.memmap[Any, Any], vocab_size: int, bos: int, eos: int) -> Survey:
    """Count the tokens and the documents of a text in one reading.

    Parameters
    ----------
    tokens : memmap
        From a corpus.
    vocab_size, bos, eos : int
        Of the corpus.
    """
    parts = min(max(_MOST_COUNTS // vocab_size, 2), _PARTS)
    by_part = np.zeros((parts, vocab_size), np.int64)
    lengths, powers = np.zeros(_LONGEST + 1, np.int64), np.zeros(64, np.int64)
    frame = 1 if bos == eos else 2
    begun = total = longest = 0
    for start, ids in pieces(tokens, min(PIECE, -(-len(tokens) // parts))):
        by_part[start * parts // len(tokens)] += np.bincount(ids, minlength=vocab_size)
        ends = start + 1 + np.flatnonzero(ids == eos)
        found = np.diff(ends, prepend=begun) - frame
        if len(found):
            begun, total, longest = int(ends[-1]), total + int(found.sum()), max(longest, int(found.max()))
            values, n = np.unique(np.minimum(found, _LONGEST), return_counts=True)
            lengths[values] += n
            powers += np.bincount(np.frexp(found)[1], minlength=len(powers))
    by_part[:, [bos, eos]] = 0
    return Survey(
        by_part=by_part, n_documents=int(lengths.sum()), lengths=_lengths(lengths, powers, total, longest)
    )


def _lengths(histogram: NDArray[np.int64], powers: NDArray[np.int64], total: int, longest: int) -> Lengths:
    n = int(histogram.sum())
    below = np.cumsum(histogram)
    at = {f"p{q}": int(np.searchsorted(below, q / 100 * n)) for q in (5, 25, 50, 75, 95)}
    shortest = int(np.flatnonzero(histogram)[0])
    first, last = np.flatnonzero(powers)[[0, -1]]
    return Lengths(
        mean=total / n,
        shortest=shortest,
        longest=longest,
        quantiles=at,
        edges=[1 << k >> 1 for k in range(first, last + 2)],
        counts=powers[first : last + 1].tolist(),
    )


@dataclass(frozen=True, kw_only=True)
class Zipf:
    """Zipf's law, p(r) = r^-s / (1^-s + ... + R^-s), fitted to the tokens of the R types that occur 20 times or more.

    Attributes
    ----------
    exponent : float
        s, by maximum likelihood.
    se : float or None
        Its standard error from how the parts of the text differ, so that neither independent tokens nor the law
        itself are assumed; None for a text of one part.
    distance : float
        Largest difference between the observed and the fitted share of tokens of rank r or less (Kolmogorov and
        Smirnov's): how far from Zipf's law the text is.
    n_ranks : int
        R.
    """

    exponent: float
    se: float | None
    distance: float
    n_ranks: int


def zipf(by_part: NDArray[np.int64]) -> Zipf | None:
    """Fit Zipf's law to counts; None where fewer than 10 types occur 20 times or more.

    The maximum of the likelihood is where the law's mean log rank is the observed one. Its error is that of the mean
    over the parts divided by the variance of the log rank, which is the derivative of the law's mean.

    Parameters
    ----------
    by_part : (parts, vocab_size) array of int
        How often each token occurs in each part of a text.

    References
    ----------
    Clauset, Shalizi and Newman, "Power-law distributions in empirical data", SIAM Review 2009, for the likelihood of
    a discrete power law. Piantadosi, "Zipf's word frequency law in natural language", 2014, on the error of ranks that
    come from the counts they are compared with, which is why rare types are left out.
    """
    from scipy.optimize import brentq

    counts = by_part.sum(0)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= _LEAST]
    if len(order) < 10:
        return None
    log_rank = np.log(np.arange(1, len(order) + 1))
    ranked = by_part[:, order].astype(float)
    n = ranked.sum()
    mean = float(ranked.sum(0) @ log_rank / n)

    def law(s: float) -> NDArray[np.float64]:
        weights = np.exp(-s * log_rank)
        return weights / weights.sum()

    # Counts that fall with the rank have s >= 0; at 50 hardly any token is of the second type.
    excess = lambda s: float(law(s) @ log_rank) - mean  # noqa: E731
    s = float(brentq(excess, -1e-6, 50.0, xtol=1e-12)) if excess(0.0) > 0 else 0.0
    p = law(s)
    variance = float(p @ log_rank**2 - (p @ log_rank) ** 2)
    distance = float(np.abs(np.cumsum(ranked.sum(0)) / n - np.cumsum(p)).max())
    sizes = ranked.sum(1)
    used = sizes > 0
    se = None
    if used.sum() > 1:
        # The mean is a ratio of sums over parts.
        parts = ranked[used] @ log_rank - mean * sizes[used]
        se = float(np.sqrt(used.sum() / (used.sum() - 1) * (parts**2).sum()) / n / variance)
    return Zipf(exponent=s, se=se, distance=distance, n_ranks=len(order))


def coverage(
    domain: NDArray[np.int64], source: NDArray[np.int64], n_tokens: int | None = None
) -> tuple[float, float]:
    """The share of a domain's types, and of its tokens, whose type occurs in a source.

    Parameters
    ----------
    domain, source : (vocab_size,) array of int
        How often each token occurs.
    n_tokens : int, optional
        Expect it of a sample of this many of the source's tokens instead, by the chance that a token that occurs c
        times is not in it, (1 - n_tokens/N)^c (rarefaction); None: all of the source.

    References
    ----------
    Hurlbert, "The nonconcept of species diversity", Ecology 1971, for rarefaction.

    Examples
    --------
    >>> coverage(np.array([6, 3, 1]), np.array([5, 5, 0]))
    (0.6666666666666666, 0.9)
    """
    total = source.sum()
    kept = 1.0 if n_tokens is None else min(n_tokens / total, 1.0)
    seen = (source > 0).astype(float) if kept == 1 else -np.expm1(source * np.log1p(-kept))
    types = domain > 0
    return float(seen[types].sum() / types.sum()), float(domain @ seen / domain.sum())


def divergence(
    domain: NDArray[np.int64], source: NDArray[np.int64], smoothing: float, n_types: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each token's part of KL(domain ‖ source) in nats, and the source's smoothed frequencies.

    The source's frequencies are (count + smoothing) / (tokens + smoothing * n_types); the domain's are its own, and
    tokens that it does not have add nothing. The sum is what a token of the domain costs more, in nats, under the
    source's unigram model than under its own.

    Parameters
    ----------
    domain, source : (vocab_size,) array of int
        How often each token occurs.
    smoothing : float
        Added to each of the source's counts.
    n_types : int
        Tokens that a text can have.

    Returns
    -------
    (vocab_size,) array, (vocab_size,) array
        Parts (negative where the source has more) and frequencies.
    """
    p = domain / domain.sum()
    q = (source + smoothing) / (source.sum() + smoothing * n_types)
    parts = np.zeros(len(p))
    seen = domain > 0
    parts[seen] = p[seen] * np.log(p[seen] / q[seen])
    return parts, q
