"""Chance: what every other criterion has to beat."""

from __future__ import annotations

import numpy as np

from lawkit.design._criterion import Criterion, Goal
from lawkit.design.batch import Batch, Limits, in_order
from lawkit.design.candidates import Candidates
from lawkit.design.value import Posterior, Slopes


class Random(Criterion):
    """Runs drawn evenly from those that the rest of the budget pays for."""

    name = "random"
    title = "chance"

    def factor(self, goal: Goal) -> None:
        """None: nothing is minimised."""

    def batch(
        self,
        candidates: Candidates,
        slopes: Slopes,
        posterior: Posterior,
        factor: np.ndarray | None,
        limits: Limits,
        seed: int,
    ) -> Batch:
        """Draw runs, with the seed."""
        rng = np.random.default_rng(seed)
        return in_order(candidates, limits, lambda open_: int(rng.choice(np.flatnonzero(open_))))


random = Random()
