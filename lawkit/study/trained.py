"""Runs that torchtitan trains on a corpus."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.backends.torchtitan import TrainingSpec, plan, table
from lawkit.backends.torchtitan.launch import Outcome
from lawkit.backends.torchtitan.spec import VERSION
from lawkit.corpus import open_corpus
from lawkit.errors import StudyError
from lawkit.runs import Runs
from lawkit.study._pool import generated
from lawkit.study.bench import PlannedRun, Scale
from lawkit.study.executors import Train, Work
from lawkit.study.spec import StudySpec

#: Bytes a parameter takes in a checkpoint: weight and two moments in fp32; two are kept and one is being written.
_CHECKPOINT = 3 * 12
#: Bytes for the store, logs and records.
_SLACK = 10_000_000


class Trained:
    """A corpus and a recipe, see `lawkit.study.bench.Bench`."""

    def __init__(self, spec: StudySpec) -> None:
        assert spec.corpus is not None
        self._spec, self._corpus = spec, open_corpus(spec.corpus)
        self.sources = self.domains = tuple(self._corpus.sources)
        self.setting = {
            "version": VERSION,
            "corpus": self._corpus.digest,
            "recipe": dict(spec.recipe),
            "available": dict(spec.available),
        }
        limits = spec.limits
        self.work: Work = Train(
            ranks=limits.ranks,
            threads=limits.threads,
            python=limits.python,
            silent_s=limits.silent_s,
            run_s=limits.run_s,
        )
        self._scales: list[Scale] | None = None

    def plan(
        self, size: Any, tokens: float, weights: Mapping[str, float], seed: int, recipe: Mapping[str, Any]
    ) -> PlannedRun:
        """The run asked for."""
        return planned(
            plan(
                self._corpus,
                self._corpus.path,
                size=size,
                n_tokens=tokens,
                weights=weights,
                seed=seed,
                recipe={**self._spec.recipe, **recipe},
                available=self._spec.available,
            )
        )

    def scales(self) -> list[Scale]:
        """Every size of the ladder with every number of tokens, cheapest first."""
        if self._scales is None:
            goal = self._spec.goal
            assert goal is not None
            assert goal.ladder is not None
            found = []
            for size in goal.ladder.sizes:
                for tokens in goal.ladder.tokens:
                    run = self.plan(size, tokens, self._one_source(), 0, {})
                    found.append(
                        Scale(
                            size=size,
                            tokens=tokens,
                            n_params=run.n_params,
                            n_tokens=run.n_tokens,
                            flops=run.flops,
                        )
                    )
            self._scales = sorted(found, key=lambda scale: scale.flops)
        return self._scales

    def upper(self) -> np.ndarray:
        """A source must have the rows that one step takes of it."""
        goal = self._spec.goal
        assert goal is not None
        assert goal.ladder is not None
        limits = []
        for size in goal.ladder.sizes:
            some = TrainingSpec.from_dict(
                dict(self.plan(size, goal.ladder.tokens[0], self._one_source(), 0, {}).spec)
            )
            limits.append(np.array(some.mixture(self._corpus).windows) / some.recipe.batch_rows)
        return np.minimum(1.0, np.min(limits, axis=0))

    def candidates(
        self, mixtures: np.ndarray, done: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]
    ) -> Runs:
        """Every mixture at every rung, twice: the second time with another seed."""
        scales = self.scales()
        some = TrainingSpec.from_dict(
            dict(self.plan(scales[0].size, scales[0].tokens, self._one_source(), 0, {}).spec)
        )
        unique = np.array(some.mixture(self._corpus).unique_tokens(), float)
        return generated(scales, mixtures, self.sources, failed, unique)

    def chosen(self, candidates: Runs, row: int, seed: int) -> PlannedRun:
        """The run of a row."""
        assert candidates.n_params is not None
        assert candidates.n_tokens is not None
        n, d = candidates.n_params[row], candidates.n_tokens[row]
        scale = next(s for s in self.scales() if s.n_params == n and s.n_tokens == d)
        weights = dict(zip(self.sources, candidates.weights[row].tolist(), strict=True))
        return self.plan(scale.size, scale.tokens, {k: w for k, w in weights.items() if w > 0}, seed, {})

    def renewed(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The spec with the corpus where it lies now."""
        return {**spec, "corpus": str(self._corpus.path.resolve())}

    def table(self, specs: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> Runs:
        """A row for every evaluation of each run."""
        return table([TrainingSpec.from_dict(spec) for spec in specs], outcomes)

    def prepare(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Refuse to start without torchtitan, or where the checkpoints of the largest run would not fit."""
        if self._spec.limits.python is None and importlib.util.find_spec("torchtitan") is None:
            raise StudyError(
                "torchtitan is not installed here: pip install 'lawkit[torchtitan]', or name an interpreter that has "
                "it as limits.python"
            )
        folder = self._spec.path.parent
        specs = [TrainingSpec.from_dict(spec) for spec in waiting]
        largest = max((s.size.n_params_with_head(2 * s.vocab_size) for s in specs), default=0)
        needed, free = largest * _CHECKPOINT + _SLACK, shutil.disk_usage(folder).free
        if specs and needed > free:
            raise StudyError(
                f"{folder}: {free / 1e6:,.0f} MB are free, and the checkpoints of the largest run need about "
                f"{needed / 1e6:,.0f} MB: free some space, or choose another disk"
            )

    def _one_source(self) -> dict[str, float]:
        """A mixture that surely can be trained, if any can: the source with the most tokens alone."""
        return {max(self.sources, key=self._corpus.n_tokens): 1.0}


def planned(spec: TrainingSpec) -> PlannedRun:
    """A specification as the store keeps it."""
    n_tokens = spec.steps * spec.tokens_per_step
    return PlannedRun(
        run_id=spec.run_id,
        identity=spec.identity,
        size=spec.size.name,
        n_params=spec.size.n_params,
        n_tokens=n_tokens,
        weights=spec.weights,
        seed=spec.seed,
        flops=float(spec.flops(spec.steps)),
        flops_6nd=6.0 * spec.size.n_params * n_tokens,
        spec=spec.to_dict(),
    )
