"""Mean squared prediction error over the whole target region, whatever is decided there."""

from __future__ import annotations

import numpy as np

from lawkit.design._criterion import Criterion, Goal
from lawkit.design.candidates import space_filling
from lawkit.design.value import prediction_factor

#: Mixtures over which it is a mean.
REGION = 128


class Mspe(Criterion):
    """Posterior variance of every domain's loss at the target scale, over all mixtures, nats squared.

    Around one mode of the posterior this is the part inside the mode; with several points of linearisation
    (`points` of `lawkit.propose_runs`) each has its own slopes, and the mean over them is what is reduced.
    """

    name = "mspe"
    title = "variance of every domain's loss at the target, over all mixtures"

    def factor(self, goal: Goal) -> np.ndarray:
        """(G, r, P)."""
        if goal.problem is None:
            K = len(goal.fit.sources)
            where = np.full((1, K), 1 / max(K, 1))
        elif goal.choice is not None and goal.choice.among is not None:
            where = goal.choice.among
        else:
            where = space_filling(goal.problem, REGION, goal.seed)
        return prediction_factor(goal.at, where, None)


mspe = Mspe()
