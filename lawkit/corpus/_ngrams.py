"""Runs of tokens: how many different ones a sample has, and how many are found in another text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lawkit.corpus._near import mix
from lawkit.corpus._unigrams import PIECE, pieces, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Copies", "Marks", "copies", "distinct", "sample", "windows"]

#: Tokens that a sample takes from one place.
_BLOCK = 8192
#: Tokens in the runs that are looked for in the input: short enough to show a copied phrase, and the length by which
#: evaluation sets are usually cleaned of copies.
SHORT, LONG = 8, 13
#: A document is copied when this share of its short runs is in the input.
COPIED = 0.5
_P = 0x9E3779B97F4A7C15
#: Copied runs on one diagonal that are at most so far apart are looked at together, and so many of the longest.
_GAP, _MOST_STRETCHES = 64, 256


class Marks(NamedTuple):
    """The ids that stand between documents, which no run holds."""

    bos: int
    eos: int

    def within(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Where they are, (n,)."""
        return (ids == self.bos) | (ids == self.eos)


def sample(tokens: np.memmap[Any, Any], most: int, eos: int) -> NDArray[Any]:
    """Take all tokens, or `most` of them in blocks spread evenly over the text, in a fixed random order.

    An EOS is put behind each block, so that no run of tokens crosses from one to the next.
    """
    n = len(tokens)
    if n <= most:
        return read(tokens, 0, n)
    count = -(-most // _BLOCK)
    size = most // count
    starts = np.random.default_rng(0).permutation(np.arange(count) * (n - size) // max(count - 1, 1))
    taken = np.full((count, size + 1), eos, tokens.dtype)
    for row, start in zip(taken, starts, strict=True):
        row[:-1] = read(tokens, int(start), size)
    return taken.ravel()


def windows(ids: NDArray[Any], n: int, marks: Marks) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Where each run of n tokens within a document starts, and its 64-bit hash.

    Parameters
    ----------
    ids : (m,) array of int
        Tokens.
    n : int
        Tokens of a run.
    marks : Marks
        What stands between documents.
    """
    if len(ids) < n:
        return np.empty(0, np.intp), np.empty(0, np.uint64)
    crossed = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(marks.within(ids), out=crossed[1:])
    starts = np.flatnonzero(crossed[n:] == crossed[:-n])
    return starts, mix(_rolled(mix(ids.astype(np.uint64) + np.uint64(1)), n)[starts])


def _rolled(values: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """The polynomial in `_P`, modulo 2^64, of each n values in a row, by halves."""
    if n == 1:
        return values
    half = n // 2
    first = _rolled(values, half)
    second = first if 2 * half == n else _rolled(values, n - half)
    m = len(values) - n + 1
    return first[:m] * np.uint64(pow(_P, n - half, 1 << 64)) + second[half : half + m]


def distinct(samples: Sequence[NDArray[Any]], n: int, marks: Marks) -> tuple[int, list[float | None]]:
    """The share of different ones among equally many runs of n tokens of each sample.

    Parameters
    ----------
    samples : sequence of arrays of int
        Tokens of texts that are to be compared.
    n : int
        Tokens of a run.
    marks : Marks
        What stands between documents.

    Returns
    -------
    int, list of float
        How many runs of each sample were compared, and the shares; None for all where a sample has no run.
    """
    found = [windows(ids, n, marks)[1] for ids in samples]
    count = min(map(len, found))
    return count, [len(np.unique(runs[:count])) / count if count else None for runs in found]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """How much of a text is found, word for word, in the text it was made from.

    Attributes
    ----------
    input : str
        Its name.
    n_tokens : int
        Tokens of the text that were looked for, BOS and EOS included; all of a short text, else a sample.
    share_8, share_13 : float or None
        The share of the runs of 8 and of 13 tokens that are in the input; None where no document is so long.
    documents : float or None
        The share of documents of which half or more of the runs of 8 tokens are in the input.
    longest : int
        Tokens of the longest run that is in the input; 0 where it is shorter than 8.
    baseline_8, baseline_13 : float or None
        The shares for held-out text of the input against its training text: what two texts of this kind have in common
        anyway; None for an input of which nothing is held out.
    """

    input: str
    n_tokens: int
    share_8: float | None
    share_13: float | None
    documents: float | None
    longest: int
    baseline_8: float | None = None
    baseline_13: float | None = None


class _Sought:
    """The runs of n tokens of a text, to be found in another that is read in pieces."""

    def __init__(self, ids: NDArray[Any], n: int, marks: Marks) -> None:
        self.ids, self.n, self.marks = ids, n, marks
        self.starts, hashes = windows(ids, n, marks)
        self._keys, self._of = np.unique(hashes, return_inverse=True)
        # Nearly every run of an input is in no other text, and a table of first bits says so at once.
        bits = max(int(16 * len(self._keys)).bit_length(), 10)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[self._keys >> self._shift] = True

    def find(self, tokens: np.memmap[Any, Any]) -> NDArray[np.int64]:
        """Where each run is in a text, (runs,); -1 where it is not."""
        places = np.full(len(self._keys), -1, np.int64)
        for first, ids in pieces(tokens, PIECE, self.n - 1):
            starts, hashes = windows(ids, self.n, self.marks)
            maybe = self._maybe[hashes >> self._shift]
            starts, hashes = starts[maybe], hashes[maybe]
            at = np.searchsorted(self._keys, hashes)
            at[at == len(self._keys)] = 0
            same = self._keys[at] == hashes
            places[at[same]] = first + starts[same]
        return places[self._of]

    def by_document(self, found: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The share of found runs of each document that has any."""
        document = np.cumsum(self.ids == self.marks.eos)[self.starts]
        runs = np.bincount(document)
        return np.bincount(document, weights=found)[runs > 0] / runs[runs > 0]

    def longest(self, places: NDArray[np.int64], tokens: np.memmap[Any, Any]) -> int:
        """Tokens of the longest stretch that is in a text in which `find` found places."""
        found = places >= 0
        here, there = self.starts[found], places[found]
        order = np.lexsort((here, there - here))
        here, shift = here[order], (there - here)[order]
        if not len(here):
            return 0
        new = np.r_[True, (np.diff(shift) != 0) | (np.diff(here) > _GAP)]
        first = np.flatnonzero(new)
        last = np.r_[first[1:], len(here)] - 1
        best = 0
        for k in np.argsort(here[first] - here[last], kind="stable")[:_MOST_STRETCHES]:
            by = int(shift[first[k]])
            start = max(int(here[first[k]]) - _GAP, 0, -by)
            stop = min(int(here[last[k]]) + self.n + _GAP, len(self.ids), len(tokens) - by)
            ours = self.ids[start:stop]
            differ = (ours != read(tokens, start + by, stop - start)) | self.marks.within(ours)
            ends = np.r_[-1, np.flatnonzero(differ), len(ours)]
            best = max(best, int(np.diff(ends).max()) - 1)
        return best


def copies(ids: NDArray[Any], name: str, inputs: Sequence[np.memmap[Any, Any]], marks: Marks) -> Copies:
    """Look for the runs of a text in its input.

    Parameters
    ----------
    ids : (n,) array of int
        The text's tokens, or a sample of them.
    name : str
        Of the input.
    inputs : sequence of memmaps
        Its tokens; they are read in pieces.
    marks : Marks
        What stands between documents.
    """
    shares: list[float | None] = []
    documents, longest = None, 0
    for n in (SHORT, LONG):
        sought = _Sought(ids, n, marks)
        found = np.zeros(len(sought.starts), np.bool_)
        for tokens in inputs if len(found) else ():
            places = sought.find(tokens)
            found |= places >= 0
            if n == SHORT:
                longest = max(longest, sought.longest(places, tokens))
        shares.append(float(found.mean()) if len(found) else None)
        if n == SHORT and len(found):
            documents = float((sought.by_document(found) >= COPIED).mean())
    return Copies(
        input=name,
        n_tokens=len(ids),
        share_8=shares[0],
        share_13=shares[1],
        documents=documents,
        longest=longest,
    )
