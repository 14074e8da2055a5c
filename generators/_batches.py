"""The documents of a source, each distinct one once and cut to what a model is shown, in batches of a shard's size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lawkit.generators._cut import Cutter
from lawkit.generators._shard import Document

__all__ = ["Batch", "batches"]


@dataclass
class Batch:
    """Distinct documents of one shard, and how many copies of earlier ones stood among and after them."""

    documents: list[Document]
    repeated: int = 0


def batches(read: Iterator[Any], cutter: Cutter, size: int) -> Iterator[Batch]:
    """The documents in batches, each distinct one once."""
    seen: set[int] = set()  # 8 bytes of each hash: the only memory that grows with the source
    batch = Batch([])
    for document in read:
        digest = hashlib.blake2b(document.raw, digest_size=16)
        short = int.from_bytes(digest.digest()[:8], "little")
        if short in seen:
            batch.repeated += 1
            continue
        seen.add(short)
        if len(batch.documents) == size:  # not before: copies that follow the last document count too
            yield batch
            batch = Batch([])
        text, cut = cutter(document.text)
        batch.documents.append(Document(digest.hexdigest(), text, cut))
    if batch.documents:
        yield batch
