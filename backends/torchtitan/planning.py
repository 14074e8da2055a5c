"""What may be trained: a run's specification is made here, and refused where it could not work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.backends.torchtitan.ladder import size_from
from lawkit.backends.torchtitan.recipe import recipe_for
from lawkit.backends.torchtitan.spec import TrainingSpec
from lawkit.errors import BackendError

if TYPE_CHECKING:
    from lawkit.corpus import Corpus


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
    if not 0 < spec.n_tokens <= 1e15:
        raise BackendError(f"n_tokens is {n_tokens!r}: give a number of tokens above 0, at most 1e15")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise BackendError(f"seed is {seed!r}: give a whole number of 0 or more, below 2**63")
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
