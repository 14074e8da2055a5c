"""The first reading of a source: it is counted, and the documents that are held out or train a tokenizer are kept.

Both are chosen by a hash of the document, so that the choice does not depend on the order of the files, and copies
of one document always fall on the same side.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lawkit.corpus._documents import Document
from lawkit.corpus._options import Options

__all__ = ["Scan", "document_hash", "scan"]

_TOP = 1 << 64
_LONGEST_SAMPLE = 1 << 16


def document_hash(raw: bytes, seed: int) -> int:
    """A 64-bit hash of a document, another one for each seed."""
    key = seed.to_bytes(16, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8, key=key).digest(), "little")


class _Smallest:
    """The documents of the smallest hashes, up to a number of bytes (at least one document).

    A copy of a document that is kept is not kept again.
    """

    def __init__(self, below: int, most_bytes: int) -> None:
        self.below = below
        self._most = most_bytes
        self._size = 0
        self._heap: list[tuple[int, bytes]] = []  # the largest hash first
        self._kept: set[int] = set()

    def offer(self, key: int, raw: bytes) -> None:
        if key >= self.below or key in self._kept:
            return
        heapq.heappush(self._heap, (-key, raw))
        self._kept.add(key)
        self._size += len(raw)
        while self._size > self._most and len(self._heap) > 1:
            largest, dropped = heapq.heappop(self._heap)
            self._kept.discard(-largest)
            self._size -= len(dropped)
            # What fell out once stays out, or the choice would depend on the order.
            self.below = -largest

    def result(self) -> dict[int, bytes]:
        return {-key: raw for key, raw in sorted(self._heap, reverse=True)}


@dataclass
class Scan:
    """What the first reading found."""

    n_documents: int = 0
    n_bytes: int = 0
    heldout: dict[int, bytes] = field(default_factory=dict)
    """Hash and text of the documents held out, in the order of the hashes, which is a random one."""
    sample: list[bytes] = field(default_factory=list)
    """Documents that are not held out, their beginnings, for a tokenizer to be trained on."""
    n_distinct: int = 0
    """1 when all documents are alike, else 2 or more."""


def scan(
    found: Iterable[Document],
    options: Options,
    *,
    most_heldout: int,
    most_sample: int,
    advance: Callable[[int], None],
) -> Scan:
    """Read a source once.

    Parameters
    ----------
    found : iterable of Document
        Its documents.
    options : Options
        `holdout` and `seed` are used. Where no document's hash says that it is held out, the one of the smallest
        hash is, so that every source can be evaluated.
    most_heldout, most_sample : int
        Bytes of text to hold out and to sample at most.
    advance : callable
        Told the bytes of each document.
    """
    result = Scan()
    heldout = _Smallest(round(options.holdout * _TOP), most_heldout)
    sample = _Smallest(_TOP, max(most_sample, 1))
    first = None
    smallest: tuple[int, bytes] | None = None
    for document in found:
        raw = document.raw
        key = document_hash(raw, options.seed)
        result.n_documents += 1
        result.n_bytes += len(raw)
        if first is None:
            first, result.n_distinct = key, 1
        elif key != first:
            result.n_distinct = 2
        if smallest is None or key < smallest[0]:
            smallest = (key, raw)
        heldout.offer(key, raw)
        if most_sample:
            # An odd multiple orders the documents anew: the sample is not those next to the held-out ones.
            sample.offer(key * 0x9E3779B97F4A7C15 % _TOP, raw[:_LONGEST_SAMPLE])
        advance(len(raw))
    result.heldout = heldout.result()
    if options.holdout and not result.heldout and smallest and result.n_distinct > 1:
        result.heldout = {smallest[0]: smallest[1]}
    held = {key * 0x9E3779B97F4A7C15 % _TOP for key in result.heldout}
    result.sample = [raw for key, raw in sample.result().items() if key not in held]
    return result
