"""One run to train, as plain values: what a worker process is given, and what decides its result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.backends.torchtitan.ladder import Size, size_from
from lawkit.backends.torchtitan.mixture import Mixture
from lawkit.backends.torchtitan.recipe import Recipe, recipe_for
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


def plan(
    corpus: Corpus,
    folder: str | Path,
    *,
    size: Any,
    n_tokens: float,
    weights: Mapping[str, float],
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    available: Mapping[str, int] | None = None,
) -> TrainingSpec:
    """Specify a run on a corpus, and refuse what could not be trained.

    Parameters
    ----------
    corpus, folder
        The corpus and where it lies.
    size
        A name of the ladder, a number of non-embedding parameters, or dim, n_layers and n_heads.
    n_tokens, weights, seed, available
        As in `TrainingSpec`; weights that sum to 1 within 1e-3 are normalised.
    recipe
        Fields that differ from the size's defaults.

    Raises
    ------
    BackendError
        For sources that the corpus does not have, weights that are none, sources shorter than a row or, where they
        have a weight, shorter than they are needed, and domains with too little held-out text.
    """
    shape = size_from(size)
    chosen = recipe_for(shape, recipe)
    spec = TrainingSpec(
        size=shape,
        n_tokens=float(n_tokens),
        weights=_checked_weights(weights, corpus.sources),
        seed=seed,
        corpus=str(Path(folder).resolve()),
        digest=corpus.digest,
        vocab_size=corpus.vocab_size,
        recipe=chosen,
        available=dict(available or {}),
    )
    if not (math.isfinite(spec.n_tokens) and spec.n_tokens > 0):
        raise BackendError(f"n_tokens is {n_tokens!r}: give a number of tokens above 0")
    if not isinstance(seed, int) or seed < 0:
        raise BackendError(f"seed is {seed!r}: give a whole number of 0 or more")
    for name, tokens in spec.available.items():
        _known(name, corpus.sources, "available")
        if tokens <= 0:
            raise BackendError(f"available.{name} is {tokens}: give a number of tokens above 0")
    if chosen.batch_rows % (chosen.local_rows or 1):
        raise BackendError(
            f"recipe.local_rows is {chosen.local_rows}, which does not divide recipe.batch_rows {chosen.batch_rows}"
        )
    check_corpus(spec, corpus)
    return spec


def check_corpus(spec: TrainingSpec, corpus: Corpus) -> None:
    """Refuse a corpus that is not the one specified or cannot feed the run.

    Raises
    ------
    BackendError
        See `plan`.
    """
    if corpus.vocab_size != spec.vocab_size:
        raise BackendError(
            f"the corpus {spec.corpus} has a vocabulary of {corpus.vocab_size:,}, and this run was specified with "
            f"one of {spec.vocab_size:,}: build the corpus with the tokenizer it had, or start a new study"
        )
    if corpus.digest != spec.digest:
        raise BackendError(
            f"the corpus {spec.corpus} is another than this run was specified with ({corpus.digest[:12]}, not "
            f"{spec.digest[:12]}): restore it, or start a new study"
        )
    for name in spec.weights:
        _known(name, corpus.sources, "weights")
    rows = spec.mixture(corpus)
    for name, windows in zip(rows.names, rows.windows, strict=True):
        share = spec.weights.get(name, 0.0) * spec.recipe.batch_rows
        if windows < share:
            raise BackendError(
                f"source {name!r} has {spec.tokens_in(corpus, name):,} tokens, {windows} rows of {rows.seq_len:,}, "
                f"fewer than the {share:.3g} that each step takes of it: add text to it, lower its weight, or shorten "
                "recipe.seq_len or recipe.batch_rows"
            )
    for name in corpus.sources:
        if corpus.n_heldout_tokens(name) <= spec.recipe.seq_len:
            raise BackendError(
                f"the held-out text of {name!r} has {corpus.n_heldout_tokens(name):,} tokens, fewer than one row of "
                f"{spec.recipe.seq_len:,} and its target: build the corpus with more text or a larger held-out "
                "part, or shorten recipe.seq_len"
            )


def _known(name: str, sources: Sequence[str], where: str) -> None:
    if name not in sources:
        raise BackendError(f"{where}.{name}: the corpus has no source {name!r}; it has {', '.join(sources)}")


def _checked_weights(weights: Mapping[str, float], sources: Sequence[str]) -> dict[str, float]:
    for name, weight in weights.items():
        _known(name, sources, "weights")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1.001:
            raise BackendError(f"weights.{name} is {weight!r}: give a number from 0 to 1")
    total = math.fsum(weights.values())
    if abs(total - 1) > 1e-3:
        raise BackendError(f"the weights {dict(weights)} sum to {total:.6g}: they must sum to 1")
    return {name: weight / total for name, weight in weights.items()}


def _shape(size: Size) -> dict[str, Any]:
    return {key: value for key, value in size.to_dict().items() if key != "name"}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
