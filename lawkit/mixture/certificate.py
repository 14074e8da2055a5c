"""How far from the best a mixture can be: a bound that needs nothing but the law's own gradient.

For a loss convex in the weights, f(h') >= f(h) + grad f(h) . (h' - h) for every h'. The least right-hand side
over the feasible mixtures is one linear program, so f(h) minus the best possible loss is at most the
Frank-Wolfe gap: the largest grad f(h) . (h - h'). Whatever found h is not trusted.

With limits on single weights and their sum only, the program's dual has one variable, the price of a unit of
weight, and is concave and piecewise linear with its corners at the slopes: each corner is a valid bound, and the
best of them the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lawkit.mixture.problem import RESOLUTION, MixtureProblem


def frank_wolfe_gap(gradient: np.ndarray, h: np.ndarray, problem: MixtureProblem) -> float:
    """Largest gradient . (h - h') over the problem's mixtures h', from above.

    Parameters
    ----------
    gradient
        Of the objective at h (K,), nats per unit weight.
    h
        A feasible mixture (K,).

    Returns
    -------
    float
        Nats; infinite where a gradient is (a weight at zero under a law with infinite slope there).
    """
    free = problem.upper - problem.lower > RESOLUTION
    if not free.any():
        return 0.0
    slope, low, high = gradient[free], problem.lower[free], problem.upper[free]
    if not np.all(np.isfinite(slope)):
        return np.inf
    rest = 1 - problem.lower[~free].sum()
    over = slope - slope[:, None]  # (prices, sources)
    least = float((slope * rest + np.minimum(over * low, over * high).sum(1)).max())
    # h itself is a candidate, so a negative value is rounding in h's own sum.
    return max(0.0, float(slope @ h[free]) - least)


def linear_minimum(
    cost: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    equal: np.ndarray | None = None,
    equal_to: np.ndarray | None = None,
    at_most: np.ndarray | None = None,
    at_most_to: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """A lower bound on cost . x over lower <= x <= upper, equal x = equal_to, at_most x <= at_most_to.

    HiGHS solves the linear program; the bound is then computed anew from its multipliers by weak duality, so
    that the solver's own tolerance cannot make it too high.

    Returns
    -------
    bound
        -inf when HiGHS gives no multipliers, inf when it proves that no x satisfies the rows.
    reduced
        Reduced costs: for every such x, cost . x >= bound + sum of reduced * (x - its cheaper limit).
    """
    from scipy.optimize import linprog

    # A slope of 1e8 at a weight near zero is legitimate; HiGHS wants costs of order one.
    scale = max(1.0, float(np.median(np.abs(cost))))
    result: Any = linprog(
        cost / scale,
        A_ub=at_most,
        b_ub=at_most_to,
        A_eq=equal,
        b_eq=equal_to,
        bounds=np.column_stack([lower, upper]),
        method="highs",
    )
    reduced, bound = np.asarray(cost, float).copy(), 0.0
    if result.status == 2:
        return np.inf, reduced
    if result.status != 0:
        return -np.inf, reduced
    if equal is not None and equal_to is not None:
        multiplier = result.eqlin.marginals * scale
        reduced -= multiplier @ equal
        bound += float(multiplier @ equal_to)
    if at_most is not None and at_most_to is not None:
        multiplier = np.minimum(result.ineqlin.marginals, 0.0) * scale
        reduced -= multiplier @ at_most
        bound += float(multiplier @ at_most_to)
    return bound + float(np.minimum(reduced * lower, reduced * upper).sum()), reduced
