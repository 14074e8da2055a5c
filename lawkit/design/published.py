"""MSPE as its authors run it, to be compared with: a start that knows no mixture, then one run a turn.

The start is the cheapest runs, two and a half to each parameter of a loss. Each turn buys the one run that
takes most off the variance of all losses in the target region, over its cost to the power .4, however dear it
is. Law, priors and fit are this package's own; the part of their criterion that is about several modes of a
posterior, which they use for one loss only, is left out.

References
----------
active-sl, https://github.com/PlanarG/active-sl, mspe.py.
"""

from __future__ import annotations

import numpy as np

from lawkit.design.batch import Valuation
from lawkit.laws._law import Law

#: Runs of the start to each parameter of a loss, and the share of the cost of all runs that they may take.
PER_PARAMETER, SHARE = 2.5, 0.02
#: What is saved is divided by cost to this power.
POWER = 0.4


def cheapest(cost: np.ndarray, law: Law, n_sources: int, n_domains: int, seed: int) -> np.ndarray:
    """Rows of the start, among runs that cost the same by chance. At least two, or there is nothing to fit."""
    per_loss = law.n_parameters(n_sources) / (n_domains if law.coupled else 1)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(cost)), cost))
    paid = int((cost[order].cumsum() <= SHARE * cost.sum()).sum())
    return order[: max(2, min(int(PER_PARAMETER * per_loss), paid))]


def most_saved(valuation: Valuation, cost: np.ndarray) -> int:
    """Index of the run to buy, given what all of them cost (n,)."""
    return int(np.argmax(valuation.saved() / cost**POWER))
