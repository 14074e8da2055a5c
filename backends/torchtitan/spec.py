"""One run to train, as plain values: what a worker process is given, and what decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.backends.torchtitan.ladder import Size, size_from
from lawkit.backends.torchtitan.mixture import Mixture
from lawkit.backends.torchtitan.recipe import Recipe
from lawkit.backends.torchtitan.records import SPEC
from lawkit.errors import BackendError
from lawkit.io._write import replace_file

if TYPE_CHECKING:
    from lawkit.corpus import Corpus

#: Raised when the same specification would train otherwise than before.
VERSION = 1

#: Fields of a recipe that change what is recorded, not what is trained.
_NO_MATTER = ("log_every", "checkpoint_every", "keep_checkpoint", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """One run: a size, tokens, a mixture and a seed, on a corpus, by a recipe.

    Attributes
    ----------
    size
        Shape of the model.
    n_tokens
        Tokens asked for; what is trained is the nearest whole number of steps.
    weights
        Fractions of the tokens by source, summing to 1; sources left out have none.
    seed
        Of the initial weights and of the order of the data.
    corpus
        Folder of the corpus.
    digest, vocab_size
        Of the corpus, so that a run does not go on with another.
    recipe
        How it is trained.
    available
        Tokens of a source that the run may see, where that is less than the corpus has: its first ones.
    """

    size: Size
    n_tokens: float
    weights: Mapping[str, float]
    seed: int
    corpus: str
    digest: str
    vocab_size: int
    recipe: Recipe
    available: Mapping[str, int] = field(default_factory=dict)

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one step, over all ranks."""
        return self.recipe.batch_rows * self.recipe.seq_len

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max(1, round(self.n_tokens / self.tokens_per_step))

    @property
    def warmup_steps(self) -> int:
        """Steps that the learning rate rises over."""
        return round(self.recipe.warmup * self.steps)

    @property
    def eval_steps(self) -> tuple[int, ...]:
        """Steps after which the model is evaluated, the last one included."""
        asked = {max(1, round(at * self.steps)) for at in self.recipe.eval_at}
        return (*sorted(asked - {self.steps}), self.steps)

    @property
    def log_every(self) -> int:
        """Steps between two records of the training loss."""
        return self.recipe.log_every or max(1, self.steps // 100)

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        every = self.recipe.checkpoint_every
        return max(50, self.steps // 20) if every is None else every or self.steps

    def flops(self, steps: int) -> int:
        """Operations of `steps` steps, attention and output layer included."""
        per_token = self.size.flops_per_token(self.recipe.seq_len, self.vocab_size)
        return per_token * steps * self.tokens_per_step

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain values, which `from_dict` reads back."""
        return {
            "version": VERSION,
            "size": self.size.to_dict(),
            "n_tokens": self.n_tokens,
            "weights": dict(self.weights),
            "seed": self.seed,
            "corpus": self.corpus,
            "digest": self.digest,
            "vocab_size": self.vocab_size,
            "recipe": self.recipe.to_dict(),
            "available": dict(self.available),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainingSpec:
        """Read what `to_dict` wrote.

        Raises
        ------
        BackendError
            When a field is missing, unknown or impossible.
        """
        fields = dict(value)
        if fields.pop("version", None) != VERSION:
            raise BackendError(
                f"this run was specified by another version of lawkit ({value.get('version')!r}, not {VERSION}): "
                "run the study again in a new folder"
            )
        try:
            fields["size"] = size_from(fields["size"])
            fields["recipe"] = Recipe(**fields["recipe"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise BackendError(f"this is no specification of a run: {error}") from None

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that change with anything that decides the result, and with nothing else."""
        return _digest({**self._setting(), "size": _shape(self.size), "steps": self.steps, "seed": self.seed,
                        "weights": {k: round(w, 12) for k, w in sorted(self.weights.items()) if w > 0},
                        "recipe": self._lasting()})  # fmt: skip

    @property
    def run_id(self) -> str:
        """Name of the run: size, tokens, seed and the start of its identity."""
        tokens = self.steps * self.tokens_per_step
        unit, letter = next(u for u in ((1e9, "B"), (1e6, "M"), (1e3, "k"), (1, "")) if tokens >= u[0])
        return f"{self.size.name}-{tokens / unit:.4g}{letter}-s{self.seed}-{self.identity[:8]}"

    def _setting(self) -> dict[str, Any]:
        return {"version": VERSION, "digest": self.digest, "available": dict(sorted(self.available.items()))}

    def _lasting(self) -> dict[str, Any]:
        return {key: value for key, value in self.recipe.to_dict().items() if key not in _NO_MATTER}

    def mixture(self, corpus: Corpus) -> Mixture:
        """The rows of this run."""
        names = tuple(corpus.sources)
        return Mixture(
            names,
            [self.weights.get(name, 0.0) for name in names],
            [self.tokens_in(corpus, name) for name in names],
            seq_len=self.recipe.seq_len,
            seed=self.seed,
        )

    def eval_starts(self, n_tokens: int) -> np.ndarray:
        """Where the rows that a domain is evaluated on begin in its `n_tokens` held-out tokens, spread evenly."""
        windows = (n_tokens - 1) // self.recipe.seq_len
        rows = min(self.recipe.eval_rows, windows)
        return self.recipe.seq_len * (np.arange(rows) * windows // rows)

    def tokens_in(self, corpus: Corpus, source: str) -> int:
        """Tokens of a source that this run may see."""
        held = corpus.n_tokens(source)
        return min(held, self.available.get(source, held))


def write_spec(spec: TrainingSpec, folder: str | Path) -> None:
    """Write a specification into the folder of its run, which is made where it is missing.

    Raises
    ------
    BackendError
        When it cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        replace_file((json.dumps(spec.to_dict(), indent=2) + "\n").encode(), Path(folder) / SPEC)
    except OSError as error:
        raise BackendError(
            f"{folder}: cannot be written ({error.strerror}): choose a folder that is writable and has space"
        ) from None


def read_spec(folder: str | Path) -> TrainingSpec:
    """Read the specification in the folder of a run.

    Raises
    ------
    BackendError
        When there is none, or it is none.
    """
    path = Path(folder) / SPEC
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(f"{folder} is no folder of a run: it has no {SPEC}") from None
    except ValueError as error:
        raise BackendError(
            f"{path} is no JSON ({error}): remove the folder and run the study again"
        ) from None
    return TrainingSpec.from_dict(value)


def _shape(size: Size) -> dict[str, Any]:
    return {key: value for key, value in size.to_dict().items() if key != "name"}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
