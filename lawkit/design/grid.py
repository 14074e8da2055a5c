"""A grid: what is done where nothing is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lawkit.design._criterion import Blind
from lawkit.design.batch import Limits
from lawkit.design.candidates import Candidates, spread


class Grid(Blind):
    """Every size in turn, from the cheapest, with mixtures that lie as far apart as the candidates allow."""

    name = "grid"
    title = "every size in turn, mixtures far apart"

    def order(self, candidates: Candidates, limits: Limits, seed: int) -> Callable[[np.ndarray], int]:
        """Go round the sizes."""
        rank = np.empty(len(candidates), int)
        rank[sizes_in_turn(candidates, limits.number, seed)] = np.arange(len(candidates))
        return lambda open_: int(np.where(open_, rank, len(rank)).argmin())


def sizes_in_turn(candidates: Candidates, number: int, seed: int) -> np.ndarray:
    """(n,) indices: one of each size, from the cheapest, again and again; the first `number` of a size lie far apart.

    What comes after those keeps its order.
    """
    sizes = np.column_stack([candidates.n_params, candidates.n_tokens])
    _, of = np.unique(np.log(sizes).round(1), axis=0, return_inverse=True)
    of = of.ravel()
    cheapest = np.empty(len(candidates))
    turn = np.empty(len(candidates))
    for k in range(of.max() + 1):
        rows = np.flatnonzero(of == k)
        cheapest[rows] = candidates.flops[rows].min()
        turn[rows] = number + np.arange(len(rows))
        first = spread(candidates.weights[rows], number, seed + k)
        turn[rows[first]] = np.arange(len(first))
    return np.lexsort((cheapest, turn))


grid = Grid()
