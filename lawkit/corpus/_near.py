"""Near-duplicates of held-out documents, found by the runs of five words they share.

Two documents are near-duplicates when at least half of the shorter one's distinct runs of five words (letter case
and punctuation aside) are in the other. Every run of every held-out document is kept, as a 64-bit hash, so that
the overlap is counted and not estimated; how much text is held out is limited instead.

References
----------
Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OVERLAP", "SHINGLE", "NearDuplicates", "shingles"]

#: Words in a run, and the share of runs from which two documents are near-duplicates: where a fraction e of the
#: words was changed at random, (1 - e)^5 of the runs are left, half of them at 13%.
SHINGLE = 5
OVERLAP = 0.5

#: Longer text is hashed in slices; a shingle across two slices is not seen.
_SLICE = 1 << 18
_P = 0x9E3779B97F4A7C15


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The finalizer of splitmix64: each bit of the input moves half of the output's.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """The hash of each byte in a word (0: none) and the powers of an odd number and of its inverse, modulo 2^64."""
    letters = np.zeros(256, np.uint64)
    for byte in range(256):
        character = chr(byte).lower()
        if byte >= 128 or character.isalnum():
            letters[byte] = ord(character) + 1
    inverse = pow(_P, -1, 1 << 64)
    powers = np.full(_SLICE + 1, _P, np.uint64)
    backs = np.full(_SLICE + 1, inverse, np.uint64)
    powers[0] = backs[0] = 1
    return letters, np.multiply.accumulate(powers), np.multiply.accumulate(backs)


def shingles(raw: bytes) -> NDArray[np.uint64]:
    """Hash every run of five words, letter case and punctuation aside.

    Parameters
    ----------
    raw : bytes
        A document. One of fewer than five words is one shingle.

    Returns
    -------
    (n,) array of uint64
        Distinct hashes, ascending; empty if there is no word.
    """
    return np.unique(_runs(raw))


def _runs(raw: bytes) -> NDArray[np.uint64]:
    """The hashes in the order of the text, repeated as they are."""
    found = [_slice_runs(raw[i : i + _SLICE]) for i in range(0, len(raw), _SLICE)]
    return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint64), *found])


def _slice_runs(raw: bytes) -> NDArray[np.uint64]:
    letters, powers, backs = _tables()
    codes = letters.take(np.frombuffer(raw, np.uint8))
    inside = np.zeros(len(codes) + 2, np.bool_)
    np.not_equal(codes, 0, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return np.empty(0, np.uint64)
    # A word's hash is that of its letters wherever it stands: a difference of prefix sums, shifted back.
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    words = _mix((sums[stops] - sums[starts]) * backs[starts])
    n = max(len(words) - SHINGLE + 1, 1)
    runs = np.zeros(n, np.uint64)
    for i in range(min(SHINGLE, len(words))):
        runs += words[i : i + n] * powers[i + 1]
    return _mix(runs)


class NearDuplicates:
    """Held-out documents, to ask whether another document repeats one of them.

    Parameters
    ----------
    heldout : iterable of bytes
        The held-out documents of all sources; about three times their size is kept in memory.
    """

    def __init__(self, heldout: Iterable[bytes]) -> None:
        runs = [shingles(raw) for raw in heldout]
        self._sizes = np.array([len(r) for r in runs], np.int64)
        hashes = np.concatenate(runs) if runs else np.empty(0, np.uint64)
        owners = np.repeat(np.arange(len(runs), dtype=np.int32), self._sizes)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        # Nearly every run of a training document is in no held-out one, and a table of first bits says so at once.
        bits = min(max(int(8 * len(hashes)).bit_length(), 16), 27)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[self._hashes >> self._shift] = True

    def __len__(self) -> int:
        return len(self._sizes)

    def contains(self, raw: bytes) -> bool:
        """Whether a document shares `OVERLAP` or more of the shorter one's runs with a held-out one."""
        if not len(self._hashes):
            return False
        mine = _runs(raw)
        known = np.unique(mine[self._maybe[mine >> self._shift]])
        first = np.searchsorted(self._hashes, known, side="left")
        counts = np.searchsorted(self._hashes, known, side="right") - first
        if not counts.any():
            return False
        # The places first[i], first[i] + 1, ... of every run that is there, laid out in one array.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        owners, shared = np.unique(self._owners[np.repeat(first, counts) + within], return_counts=True)
        sizes = self._sizes[owners]
        if not (shared >= OVERLAP * np.minimum(sizes, len(known))).any():
            return False  # as nearly always; there are no fewer runs than known ones
        return bool((shared >= OVERLAP * np.minimum(sizes, len(np.unique(mine)))).any())
