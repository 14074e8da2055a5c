"""The decision's own criterion: the loss that is given away because the best mixture is known only so well."""

from __future__ import annotations

import numpy as np

from lawkit.design._criterion import Criterion, Goal
from lawkit.errors import OptimizeError


class Regret(Criterion):
    """Expected regret tr(W Sigma), see `lawkit.design.value`: nats at the target, for small errors."""

    name = "regret"
    title = "loss given away by choosing the mixture on what is known"
    needs_choice = True

    def factor(self, goal: Goal) -> np.ndarray:
        """(G, r, P) root of W.

        Raises
        ------
        OptimizeError
            Where there is no mixture to choose.
        """
        if goal.choice is not None:
            return goal.choice.factor
        why = "the bounds, or the choices within them, leave one mixture only"
        if goal.problem is None:
            law = f"law {goal.fit.law.name} does not depend on weights"
            why = law if goal.fit.sources else "the runs have no sources"
        raise OptimizeError(
            f"there is no mixture to choose ({why}), so no regret: use method 'variance' to predict the loss "
            "better"
        )


regret = Regret()
