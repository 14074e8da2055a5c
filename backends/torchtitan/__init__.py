"""Proxy runs trained by torchtitan, on a laptop's CPU or, by torchrun, on the GPUs of a cluster.

The trainer, the sharding, the optimizer and the checkpoints are torchtitan's own; the sizes, the
mixtures of tokens, the evaluation and the records are added through its extension points. Each run
is a process of its own, so that this one never imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lawkit.backends._backend import RunSpec
from lawkit.backends.torchtitan.ladder import SIZES, Size, find_size
from lawkit.backends.torchtitan.launch import Outcome, Pool, slots
from lawkit.backends.torchtitan.planning import plan
from lawkit.backends.torchtitan.recipe import Recipe, recipe_for
from lawkit.backends.torchtitan.spec import TrainingSpec, write_spec
from lawkit.errors import BackendError
from lawkit.runs import Runs

__all__ = ["SIZES", "Recipe", "Size", "Torchtitan", "TrainingSpec", "find_size", "plan", "recipe_for"]


class Torchtitan:
    """Trains each specification that it is given; what was trained before in the same folder is not trained again.

    For many runs, a study does the same with a store, retries and a progress display.

    Parameters
    ----------
    corpus
        Folder made by ``lawkit corpus build``.
    folder
        Where the runs are kept, one folder each.
    recipe
        Fields that differ from each size's defaults.
    workers, ranks, threads, python
        Runs at a time, processes a run, threads a process, and the interpreter that has torch; see `launch`.
    """

    def __init__(
        self,
        corpus: str | Path,
        folder: str | Path,
        *,
        recipe: Mapping[str, Any] | None = None,
        workers: int | None = None,
        ranks: int = 1,
        threads: int = 1,
        python: str | None = None,
    ) -> None:
        from lawkit.corpus import open_corpus

        self._corpus = open_corpus(corpus)
        self.folder = Path(folder)
        self.recipe = dict(recipe or {})
        self._pool = {"ranks": ranks, "threads": threads, "python": python}
        self._slots = slots(ranks, workers, threads)

    def run(self, specs: Sequence[RunSpec]) -> Runs:
        """Train the runs and return their table, one row a specification.

        Raises
        ------
        BackendError
            When a run cannot be done, or failed; those that were finished are kept in the folder.
        """
        planned = [
            plan(
                self._corpus,
                self._corpus.path,
                size=spec.n_params,
                n_tokens=spec.n_tokens,
                weights=spec.weights,
                seed=spec.seed,
                recipe=self.recipe,
            )
            for spec in specs
        ]
        waiting = {spec.run_id: spec for spec in planned}
        ended: dict[str, Outcome] = {}
        with Pool(self._slots, **self._pool) as pool:
            while waiting or pool.running:
                while waiting and pool.free:
                    run_id = next(iter(waiting))
                    write_spec(waiting.pop(run_id), self.folder / run_id)
                    pool.start(self.folder / run_id)
                for result in pool.ended():
                    if result.done is None:
                        raise BackendError(
                            f"run {result.folder.name} failed ({result.reason}): {result.message}"
                        )
                    ended[result.folder.name] = result
                time.sleep(0.05)
        return table(planned, [ended[spec.run_id] for spec in planned])


def table(specs: Sequence[TrainingSpec], outcomes: Sequence[Outcome]) -> Runs:
    """Return the runs table of finished runs, a row for every evaluation of each."""
    import numpy as np

    rows = [(s, o, e) for s, o in zip(specs, outcomes, strict=True) for e in o.evals]
    sources = tuple(dict.fromkeys(name for o in outcomes for name in (o.done or {})["sources"]))
    domains = tuple(dict.fromkeys(name for _, _, e in rows for name in e["domains"]))

    def losses(key: str) -> np.ndarray:
        return np.array([[e["domains"].get(d, {}).get(key) for d in domains] for _, _, e in rows], float)

    return Runs(
        sources=sources,
        domains=domains,
        n_params=np.array([s.size.n_params for s, _, _ in rows], float),
        n_tokens=np.array([e["n_tokens"] for _, _, e in rows], float),
        weights=np.array([[s.weights.get(k, 0.0) for k in sources] for s, _, _ in rows]).reshape(
            len(rows), len(sources)
        ),
        losses=losses("loss").reshape(len(rows), len(domains)),
        losses_se=losses("se").reshape(len(rows), len(domains)),
        unique=np.array(
            [[(o.done or {})["sources"][k]["unique"] for k in sources] for _, o, _ in rows], float
        ).reshape(len(rows), len(sources)),
        flops=np.array([s.flops(e["step"]) for s, _, e in rows], float),
        run_id=np.array([s.run_id for s, _, _ in rows], object),
        seed=np.array([s.seed for s, _, _ in rows], np.int64),
        is_final=np.array([e["is_final"] for _, _, e in rows], bool),
    )
