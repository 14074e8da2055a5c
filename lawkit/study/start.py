"""The runs that a study begins with where nothing is known yet: spread over scales and mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import LawkitError
from lawkit.study.decide import open_problem

if TYPE_CHECKING:
    from lawkit.study.bench import Bench, PlannedRun, Scale
    from lawkit.study.goal import Goal

#: Share of the budget that the start may take where its number of runs is ours to choose.
SHARE = 0.5
#: Fewest runs that any law of mixtures can be fitted to, and runs beyond its parameters of a law without priors.
FEWEST, BEYOND = 6, 2


def starting_runs(
    goal: Goal, bench: Bench, taken: float = 0.0, begun: Sequence[Mapping[str, Any]] = ()
) -> list[PlannedRun]:
    """Space-filling mixtures, half of them at the cheapest rung of the ladder, half of the rest at the next, and so on.

    Parameters
    ----------
    taken
        Flops of the budget that are not to be had: generated text took them, and runs.
    begun
        Specs of the start's runs that are there: loop.start counts them, and what comes back is the rest.

    Raises
    ------
    LawkitError
        When the budget does not pay for the runs asked for.
    """
    from lawkit.design.candidates import space_filling

    scales = bench.scales()
    allowed = (goal.budget - taken) * (1.0 if goal.start else SHARE)
    n = goal.start - len(begun) if goal.start else _wished(goal, bench)
    used = _rungs(scales, n, allowed)
    while not used and n > FEWEST and goal.start is None:
        n -= 1
        used = _rungs(scales, n, allowed)
    if not used:
        raise LawkitError(
            f"loop.budget is {goal.budget:.4g} flops, which does not pay for a start of {goal.start or n} runs"
            + (f" beside the {taken:.4g} that are taken" if taken else "")
            + f": the cheapest of the ladder costs {scales[0].flops:.4g}. Raise the budget, "
            + (f"or lower loop.start (now {goal.start})" if goal.start else "or add smaller rungs")
        )
    mixtures = space_filling(open_problem(bench), n, goal.seed + len(begun))
    left = bench.candidates(mixtures, begun, [])
    assert left.n_params is not None
    assert left.n_tokens is not None
    free = np.ones(len(left), bool)
    runs = []
    for h, scale in zip(mixtures, used, strict=True):
        there = free & (left.n_params == scale.n_params) & (left.n_tokens == scale.n_tokens)
        if not there.any():
            continue
        # The mixture itself where any can be had; of recorded runs the nearest.
        row = int(np.where(there, np.abs(left.weights - h).sum(1), np.inf).argmin())
        free[row] = False
        runs.append(bench.chosen(left, row, 0))
    return runs


def _wished(goal: Goal, bench: Bench) -> int:
    """Runs that the most demanding law can be fitted to; where it has priors, far fewer than it has parameters."""
    from lawkit import laws
    from lawkit.design.start import start_number

    names = [name for name in goal.laws if name != "auto"] or ["transfer-average"]
    counts = []
    for law in map(laws.get, names):
        priors = any(p.prior for p in law.parameters)
        counts.append(start_number(law, len(bench.sources)) + (0 if priors else BEYOND))
    return max(FEWEST, *counts)


def _rungs(scales: list[Scale], n: int, allowed: float) -> list[Scale]:
    """(n,) rung of each run, over as many rungs as cost no more than is allowed; none if not even one does."""
    from lawkit.design.start import dealt

    for most in range(len(scales), 0, -1):
        used = [scales[level] for level in dealt(n, most)]
        if sum(scale.flops for scale in used) <= allowed:
            return used
    return []
