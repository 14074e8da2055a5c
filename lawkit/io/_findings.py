"""What a check of a runs table hands back, and how it groups rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Finding", "by_key", "column"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about a runs table.

    Attributes
    ----------
    level : "warning" or "note"
        A warning may spoil a fit; a note only describes.
    code : str
        Short stable name, such as "checkpoints".
    message : str
        What, where, and what to do.
    rows : tuple of int
        Data rows concerned, the first being 1; empty when the whole table is.
    columns : tuple of str
        Columns concerned.
    """

    level: Literal["warning", "note"]
    code: str
    message: str
    rows: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()


def by_key(keys: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Group positions by key, in order of first appearance."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return groups


def column(values: np.ndarray | None, n: int) -> list[Any]:
    """Return a column as Python values; n times None for one that is absent."""
    return [None] * n if values is None else values.tolist()
