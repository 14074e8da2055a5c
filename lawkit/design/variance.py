"""How well the target loss is known, where it is going to matter."""

from __future__ import annotations

import numpy as np

from lawkit.design._criterion import Criterion, Goal
from lawkit.design.value import prediction_factor


class Variance(Criterion):
    """Posterior variance of the target loss at the best mixture and where else it may be, nats squared."""

    name = "variance"
    title = "variance of the target loss at the optimum and where else it may be"

    def factor(self, goal: Goal) -> np.ndarray:
        """(G, r, P)."""
        if goal.h is None:
            K = len(goal.fit.sources)
            where = np.full((1, K), 1 / max(K, 1))
        else:
            where = goal.h[None] if goal.choice is None else np.vstack([goal.h, goal.choice.plausible])
        return prediction_factor(goal.at, where, goal.target)


variance = Variance()
