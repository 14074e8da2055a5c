"""All criteria: a new one is one file and one line here."""

from __future__ import annotations

from lawkit.design._criterion import Criterion
from lawkit.design.a_optimal import a_optimal
from lawkit.design.d_optimal import d_optimal
from lawkit.design.grid import grid
from lawkit.design.mspe import mspe
from lawkit.design.random import random
from lawkit.design.regret import regret
from lawkit.design.variance import variance

CRITERIA: tuple[Criterion, ...] = (regret, variance, d_optimal, a_optimal, mspe, random, grid)
METHODS: tuple[str, ...] = tuple(c.name for c in CRITERIA)


def criterion(name: str) -> Criterion:
    """The criterion of a name among `METHODS`."""
    return CRITERIA[METHODS.index(name)]
