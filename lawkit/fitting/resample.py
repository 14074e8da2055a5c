"""Resamples of a runs table: how often each row counts in a bootstrap replicate."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from lawkit.fitting.clusters import training_runs
from lawkit.fitting.prepare import Prepared
from lawkit.runs import Runs

#: How often a replicate is drawn that leaves some domain too few losses.
_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Resampler:
    """Draws how often each row counts: whole training runs with replacement, as many as there are.

    Attributes
    ----------
    labels
        (n,) training run of each row, -1 for rows that no loss is fitted of.
    drawn_from
        Number of training runs.
    live
        (n, E) 1 for cells that are fitted, else 0.
    fewest
        Cells of each domain that a replicate must have.
    seed
        Of all draws.
    """

    labels: np.ndarray
    drawn_from: int
    live: np.ndarray
    fewest: int
    seed: int

    @classmethod
    def of(cls, runs: Runs, ready: Prepared, seed: int) -> Resampler:
        """What replicates of a fit to `runs` are drawn from."""
        target = ready.problem.target
        live = np.moveaxis(target.cell_weights > 0, 1, 0).reshape(len(runs), -1).astype(int)
        seen = live.any(1)
        labels = np.full(len(runs), -1)
        labels[seen] = np.unique(training_runs(runs)[seen], return_inverse=True)[1]
        # Priors make up for missing losses; else a domain needs as many as it has parameters, its part of shared ones.
        fewest = 1 if target.prior_mean is not None else ceil(ready.size / target.losses.shape[2])
        # A table with fewer (a coupled law's domain) can not do better than all of them.
        fewest = min(fewest, int(live.sum(0).min()))
        return cls(labels=labels, drawn_from=int(labels.max()) + 1, live=live, fewest=fewest, seed=seed)

    def draw(self, s: int) -> tuple[np.ndarray | None, int]:
        """How often each row (n,) counts in replicate s, None if it fails; and how often it was drawn anew."""
        rng = np.random.default_rng([self.seed, s])
        for attempt in range(_ATTEMPTS):
            drawn = rng.integers(self.drawn_from, size=self.drawn_from)
            counts = np.append(np.bincount(drawn, minlength=self.drawn_from), 0)[self.labels]
            if (self.live[counts > 0].sum(0) >= self.fewest).all():
                return counts, attempt
        return None, _ATTEMPTS - 1
