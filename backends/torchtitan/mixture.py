"""Which tokens row i of a run is made of: a function of the seed and i alone.

A run reads rows of one context length. Row i is of the source on whose stretch of [0, 1) the i-th point of a
low-discrepancy sequence falls, so that after any number of rows every source has had its share to within about a row,
where independent draws would be off by the square root of the rows. The n-th row of a source is its window at place n
of a permutation: within one epoch no window comes twice, and the next epoch is another permutation.

Everything is computed from counters. A run resumes from the number of rows that went before, and ranks that take
interleaved rows see together what one rank would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lawkit.errors import BackendError

_U64 = np.uint64


def _key(*parts: object) -> int:
    """64 bits that depend on all parts and on nothing else."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(x: np.ndarray) -> np.ndarray:
    """Bits of each number stirred so that each depends on all (the finaliser of splitmix64)."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def _reversed_bits(x: np.ndarray) -> np.ndarray:
    for shift, mask in (
        (1, 0x5555555555555555),
        (2, 0x3333333333333333),
        (4, 0x0F0F0F0F0F0F0F0F),
        (8, 0x00FF00FF00FF00FF),
        (16, 0x0000FFFF0000FFFF),
        (32, 0x00000000FFFFFFFF),
    ):
        x = ((x & _U64(mask)) << _U64(shift)) | ((x >> _U64(shift)) & _U64(mask))
    return x


def points(seed: int, first: int, count: int) -> np.ndarray:
    """Points `first` to `first + count` of a van der Corput sequence in [0, 1), shifted by the seed's bits.

    Any 2^m of them that start at a multiple of 2^m lie one in each of 2^m equal stretches.

    Examples
    --------
    >>> import numpy as np
    >>> np.bincount((8 * points(3, 64, 16)).astype(int)).tolist()
    [2, 2, 2, 2, 2, 2, 2, 2]
    """
    index = np.arange(first, first + count, dtype=np.uint64)
    bits = _reversed_bits(index) ^ _U64(_key("sources", seed))
    return (bits >> _U64(11)).astype(np.float64) * 2.0**-53


def permuted(place: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where a permutation of range(n), chosen by `key`, sends each place.

    A Feistel network permutes the smallest range of 4^b that holds n; what it sends beyond n is sent on until it
    falls within. Memory does not grow with n.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(permuted(np.arange(6), 6, key=1).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    half = _U64(max(1, -(-(n - 1).bit_length() // 2)))
    mask = (_U64(1) << half) - _U64(1)
    keys = [_U64(_key(key, turn)) for turn in range(4)]

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for turn in keys:
            left, right = right, left ^ (_mixed(right + turn) & mask)
        return (left << half) | right

    out = once(np.asarray(place, dtype=np.uint64))
    while (beyond := out >= _U64(n)).any():
        out[beyond] = once(out[beyond])
    return out.astype(np.int64)


class Mixture:
    """The rows of a run.

    Parameters
    ----------
    names
        The K sources.
    weights
        Fractions of the rows, and so of the tokens, summing to 1.
    n_tokens
        Tokens that each source has.
    seq_len
        Tokens in a row; each row is read with one more, the last one's target.
    seed
        Of the order of sources and windows.

    Raises
    ------
    BackendError
        When a source with a weight has too few tokens for one row.

    Examples
    --------
    >>> rows = Mixture(("web", "hq"), (0.75, 0.25), (10_000, 1_000), seq_len=100, seed=0)
    >>> source, start, taken = rows.take(0, (0, 0), 100)
    >>> taken, rows.windows, int((start[source == 1] + 101).max()) <= 1_000
    ((75, 25), (99, 9), True)
    """

    def __init__(
        self,
        names: Sequence[str],
        weights: Sequence[float],
        n_tokens: Sequence[int],
        *,
        seq_len: int,
        seed: int,
    ) -> None:
        self.names = tuple(names)
        self.seq_len = seq_len
        self.seed = seed
        self._n_tokens = tuple(int(n) for n in n_tokens)
        self._edges = np.cumsum(np.asarray(weights, float))[:-1] / np.sum(weights)
        #: Rows that one pass over each source has.
        self.windows = tuple(max(0, (n - 1) // seq_len) for n in self._n_tokens)
        for name, weight, n, windows in zip(names, weights, self._n_tokens, self.windows, strict=True):
            if weight > 0 and windows == 0:
                raise BackendError(
                    f"source {name!r} has {n:,} tokens, fewer than one row of {seq_len:,} and its target: add text to "
                    "it, shorten recipe.seq_len, or give it weight 0"
                )

    def sources(self, first: int, count: int) -> np.ndarray:
        """Index of the source of each row from `first` on, shape (count,)."""
        return np.searchsorted(self._edges, points(self.seed, first, count), side="right")

    def take(
        self, first: int, before: Sequence[int], count: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Rows `first` to `first + count`, when the rows before took `before` of each source.

        Returns
        -------
        source, start : ndarray, shape (count,)
            Index of each row's source and its first token there.
        taken : tuple of int, length K
            `before`, with these rows added.
        """
        source = self.sources(first, count)
        start = np.empty(count, dtype=np.int64)
        taken = list(before)
        for k in np.unique(source).tolist():
            mine = np.flatnonzero(source == k)
            start[mine] = self._starts(k, taken[k] + np.arange(len(mine)))
            taken[k] += len(mine)
        return source, start, tuple(taken)

    def counts(self, rows: int, *, block: int = 1 << 20) -> tuple[int, ...]:
        """How many of the first `rows` rows each source has."""
        total = np.zeros(len(self.names), dtype=np.int64)
        for first in range(0, rows, block):
            here = self.sources(first, min(block, rows - first))
            total += np.bincount(here, minlength=len(total))
        return tuple(total.tolist())

    def unique_tokens(self) -> tuple[int, ...]:
        """Tokens of each source that one pass over it trains on."""
        return tuple(windows * self.seq_len for windows in self.windows)

    def _starts(self, k: int, nth: np.ndarray) -> np.ndarray:
        """First tokens of the nth rows of source k."""
        windows = self.windows[k]
        slack = self._n_tokens[k] - 1 - windows * self.seq_len
        epoch, place = np.divmod(nth, windows)
        start = np.empty(len(nth), dtype=np.int64)
        for e in np.unique(epoch).tolist():
            mine = epoch == e
            key = _key("windows", self.seed, self.names[k], e)
            # The tokens that do not fill a window are left at another place each epoch.
            shift = key % (slack + 1)
            start[mine] = shift + self.seq_len * permuted(place[mine], windows, key)
        return start
