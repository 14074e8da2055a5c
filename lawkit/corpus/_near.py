"""Near-duplicates of held-out documents, found by the runs of five words they share.

Two documents are near-duplicates when at least half of the shorter one's distinct runs of five words (letter case
and punctuation aside) are in the other. Every run of every held-out document is kept, as a 64-bit hash, so that
the overlap is counted and not estimated; how much text is held out is limited instead.

References
----------
Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BATCH_BYTES", "BATCH_DOCUMENTS", "OVERLAP", "SHINGLE", "NearDuplicates", "mix", "shingles"]

#: Words in a run, and the share of runs from which two documents are near-duplicates: where a fraction e of the
#: words was changed at random, (1 - e)^5 of the runs are left, half of them at 13%.
SHINGLE = 5
OVERLAP = 0.5

#: Documents are hashed together in batches of this many bytes, and so many at most; a longer one in slices, and a run
#: across two slices is not seen.
BATCH_BYTES = 1 << 18
BATCH_DOCUMENTS = 1 << 12

_P = 0x9E3779B97F4A7C15
#: A run's hash has 52 bits, so that the number of its document in a batch fits in front of it.
_RUN_BITS = np.uint64(52)
_RUN = np.uint64((1 << 52) - 1)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: each bit of the input moves half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """The value of each byte in a word (0: in none) and the powers of an odd number and its inverse, modulo 2^64."""
    letters = np.zeros(256, np.uint64)
    for byte in range(256):
        character = chr(byte).lower()
        if byte >= 128 or character.isalnum():
            letters[byte] = ord(character) + 1
    n = BATCH_BYTES + BATCH_DOCUMENTS + 1
    powers, backs = np.full(n, _P, np.uint64), np.full(n, pow(_P, -1, 1 << 64), np.uint64)
    powers[0] = backs[0] = 1
    return letters, np.multiply.accumulate(powers), np.multiply.accumulate(backs)


def _words(raw: bytes) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Where each word starts, and its hash; a Chinese or Japanese character is a word."""
    letters, powers, backs = _tables()
    data = np.frombuffer(raw, np.uint8)
    codes = letters.take(data)
    inside = np.zeros(len(codes) + 2, np.bool_)
    np.not_equal(codes, 0, out=inside[1:-1])
    leads = np.zeros(len(codes) + 1, np.bool_)
    np.less(data - np.uint8(0xE3), np.uint8(7), out=leads[:-1])  # first bytes of U+3000 to U+9FFF
    starts = np.flatnonzero(inside[1:] & (~inside[:-1] | leads))
    stops = np.flatnonzero(inside[:-1] & (~inside[1:] | leads))
    # A word's hash is that of its letters wherever it stands: a difference of prefix sums, shifted back.
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    return starts, mix((sums[stops] - sums[starts]) * backs[starts])


def _runs(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash every run of five words; fewer words are one run."""
    if not len(words):
        return words
    powers = _tables()[1]
    runs = np.zeros(max(len(words) - SHINGLE + 1, 1), np.uint64)
    for i in range(min(SHINGLE, len(words))):
        runs += words[i : i + len(runs)] * powers[i + 1]
    return mix(runs) >> (np.uint64(64) - _RUN_BITS)


def shingles(raws: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Hash the runs of five words of several documents, letter case and punctuation aside.

    Parameters
    ----------
    raws : sequence of bytes
        At most `BATCH_DOCUMENTS` documents of at most `BATCH_BYTES` together, or one of any length.

    Returns
    -------
    (n,) array of int, (n,) array of uint64
        Each document's number and its distinct runs, ascending.
    """
    if len(raws) == 1:
        (raw,) = raws
        slices = [_runs(_words(raw[i : i + BATCH_BYTES])[1]) for i in range(0, len(raw), BATCH_BYTES)]
        runs = np.unique(np.concatenate([np.empty(0, np.uint64), *slices]))
        return np.zeros(len(runs), np.intp), runs
    starts, words = _words(b"\n".join(raws))
    ends = np.cumsum([len(raw) + 1 for raw in raws])
    owners = np.searchsorted(ends, starts, side="right")
    within = owners[: 1 - SHINGLE] == owners[SHINGLE - 1 :]
    runs = [_runs(words)[: len(within)][within]]
    of = [owners[: len(within)][within]]
    counts = np.bincount(owners, minlength=len(raws))
    first = np.cumsum(counts) - counts
    for short in np.flatnonzero((counts > 0) & (counts < SHINGLE)):
        runs.append(_runs(words[first[short] : first[short] + counts[short]]))
        of.append(np.array([short]))
    both = np.concatenate(of).astype(np.uint64) << _RUN_BITS | np.concatenate(runs)
    both.sort()
    both = both[np.diff(both, prepend=~both[:1]) != 0]
    return (both >> _RUN_BITS).astype(np.intp), both & _RUN


class NearDuplicates:
    """Held-out documents, to ask which others repeat one of them.

    Parameters
    ----------
    heldout : iterable of bytes
        The held-out documents of all sources; some ten times their size is needed in memory, half of it to stay.
    """

    def __init__(self, heldout: Iterable[bytes]) -> None:
        runs = [shingles([raw])[1] for raw in heldout]
        self._sizes = np.array([len(r) for r in runs], np.int64)
        hashes = np.concatenate([np.empty(0, np.uint64), *runs])
        owners = np.repeat(np.arange(len(runs), dtype=np.int32), self._sizes)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        # Nearly every run of a training document is in no held-out one, and a table of first bits says so at once.
        bits = min(max(int(16 * len(hashes)).bit_length(), 16), 27)
        self._shift = _RUN_BITS - np.uint64(bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[self._hashes >> self._shift] = True

    def __len__(self) -> int:
        return len(self._sizes)

    def repeated(self, raws: Sequence[bytes]) -> NDArray[np.bool_]:
        """Find the documents that share `OVERLAP` or more of the shorter one's runs with a held-out one.

        Parameters
        ----------
        raws : sequence of bytes
            As for `shingles`.

        Returns
        -------
        (n,) array of bool
            For each document.
        """
        found = np.zeros(len(raws), np.bool_)
        if not len(self._hashes):
            return found
        of, runs = shingles(raws)
        totals = np.bincount(of, minlength=len(raws))
        maybe = self._maybe[runs >> self._shift]
        of, runs = of[maybe], runs[maybe]
        first = np.searchsorted(self._hashes, runs, side="left")
        counts = np.searchsorted(self._hashes, runs, side="right") - first
        # The places first[i], first[i] + 1, ... of every run that is there, laid out in one array.
        places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
        pairs, shared = np.unique(
            np.repeat(of, counts) * len(self._sizes) + self._owners[places], return_counts=True
        )
        of, owners = np.divmod(pairs, len(self._sizes))
        found[of[shared >= OVERLAP * np.minimum(self._sizes[owners], totals[of])]] = True
        return found
