"""The rows of a mixture as one of torchtitan's data loaders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from lawkit.backends.torchtitan.planning import check_corpus
from lawkit.backends.torchtitan.spec import read_spec
from lawkit.errors import BackendError

#: Rows whose sources and places are computed at once.
_BLOCK = 4096


class MixtureLoader(BaseDataLoader):
    """Serves each rank its share of the rows of a run; its state is the number of rows that went before.

    The ranks take rows in turn, so that a step has the same rows whatever their number.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Which run's rows."""

        run: str = ""
        """Folder of the run."""

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        from lawkit.corpus import open_corpus

        spec = read_spec(config.run)
        corpus = open_corpus(spec.corpus)
        check_corpus(spec, corpus)
        self.mixture = spec.mixture(corpus)
        self._tokens = [corpus.train(name) for name in self.mixture.names]
        self._vocabulary = spec.vocab_size
        self._ranks, self._rank = dp_world_size, dp_rank
        self._rows, self._length = local_batch_size, seq_len
        self.row = 0

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        together = self._rows * self._ranks
        block = together * max(1, _BLOCK // together)
        before = self.mixture.counts(self.row)
        while True:
            source, start, before = self.mixture.take(self.row, before, block)
            for first in range(0, block, together):
                mine = slice(first + self._rank, first + together, self._ranks)
                rows = np.stack([self._read(k, at) for k, at in zip(source[mine], start[mine], strict=True)])
                # Counted before it is handed out: a checkpoint is written between two batches.
                self.row += together
                tokens = torch.from_numpy(rows)
                yield {"input": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    def _read(self, k: int, at: int) -> np.ndarray:
        row = np.asarray(self._tokens[k][at : at + self._length + 1], dtype=np.int64)
        if row.max() >= self._vocabulary:
            raise BackendError(
                f"source {self.mixture.names[k]!r} has token {row.max()} near its token {at:,}, beyond the vocabulary "
                f"of {self._vocabulary:,}: build the corpus again with its own tokenizer"
            )
        return row

    def state_dict(self) -> dict[str, Any]:
        """The number of rows that all ranks have taken."""
        return {"row": self.row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after that many rows."""
        self.row = state_dict["row"]


class NoTokenizer(BaseTokenizer):
    """Stands where torchtitan wants a tokenizer: the text of a corpus is tokens already."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        """Nothing to configure."""

    def __init__(self, config: Config, **_: Any) -> None:
        super().__init__()

    def encode(self, *_: Any, **__: Any) -> list[int]:
        """Refuse."""
        raise NotImplementedError("a run reads tokens; lawkit corpus build makes them from text")

    def decode(self, *_: Any, **__: Any) -> str:
        """Refuse."""
        raise NotImplementedError("a run reads tokens; lawkit corpus build makes them from text")

    def get_vocab_size(self) -> int:
        """Refuse."""
        raise NotImplementedError("the vocabulary is in the run's specification")
