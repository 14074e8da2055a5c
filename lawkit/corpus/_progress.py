"""How far a build is, told while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Ticks"]


@dataclass(frozen=True)
class Progress:
    """How far a build is."""

    stage: str
    """`hash`, `wait` (for another process), `scan`, `tokenizer`, `encode` or `reuse` (it was there)."""
    source: str
    n_done: int
    """Bytes of the stage that are done: of files when hashing, else of text."""
    n_total: int | None
    """Bytes of the stage, where known."""


class Ticks:
    """Adds up bytes and tells of them every MiB or so."""

    def __init__(
        self, tell: Callable[[Progress], None], stage: str, source: str, done: int, total: int | None
    ) -> None:
        self._tell, self._stage, self._source, self._done, self._total = tell, stage, source, done, total
        self._told = done
        tell(Progress(stage, source, done, total))

    def advance(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._done - self._told >= 1 << 20:
            self._told = self._done
            self._tell(Progress(self._stage, self._source, self._done, self._total))
