"""Chance: what every other criterion has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lawkit.design._criterion import Blind
from lawkit.design.batch import Limits
from lawkit.design.candidates import Candidates


class Random(Blind):
    """Runs drawn evenly from those that the rest of the budget pays for."""

    name = "random"
    title = "chance"

    def order(self, candidates: Candidates, limits: Limits, seed: int) -> Callable[[np.ndarray], int]:
        """Draw runs, with the seed."""
        rng = np.random.default_rng(seed)
        return lambda open_: int(rng.choice(np.flatnonzero(open_)))


random = Random()
