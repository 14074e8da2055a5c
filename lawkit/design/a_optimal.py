"""How well the parameters themselves are known."""

from __future__ import annotations

import numpy as np

from lawkit.design._criterion import Criterion, Goal


class AOptimal(Criterion):
    """Mean over parameters of their posterior variance, each in units of its variance now.

    Logarithms and logits of parameters have no common unit, so each is measured by how well it is known before
    the runs; the criterion is 1 then, and does not depend on how a parameter is scaled.
    """

    name = "a-optimal"
    title = "mean variance of the parameters, each over what it is now"

    def factor(self, goal: Goal) -> np.ndarray:
        """(G, P, P)."""
        now = np.einsum("gpp->gp", goal.fit.covariance)
        return np.eye(now.shape[1]) / np.sqrt(now.size * np.maximum(now, 1e-300))[:, None, :]


a_optimal = AOptimal()
