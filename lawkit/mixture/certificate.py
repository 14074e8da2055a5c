"""How far from the best a mixture can be: a bound that needs nothing but the law's own gradient.

For a loss convex in the weights, f(h') >= f(h) + grad f(h) . (h' - h) for every h'. The least right-hand side
over the feasible mixtures is one linear program, so f(h) minus the best possible loss is at most the
Frank-Wolfe gap: the largest grad f(h) . (h - h'). Whatever found h is not trusted.

Corners and smooth constraints enter by Lagrange duality: for weights p of the losses that the maximum or CVaR
allows and prices y >= 0 of constraints g <= 0, sum p f + y g is convex and nowhere above the objective on the
feasible mixtures, whatever p and y are. Linear rows enter by weak duality (`Polytope.minimum`), again for any
prices: those of the interior-point method at first, those of HiGHS where they leave a gap.
"""

from __future__ import annotations

import numpy as np

from lawkit.mixture.objective import Objective
from lawkit.mixture.polytope import Polytope


def lower_bound(
    slope: np.ndarray,
    h: np.ndarray,
    polytope: Polytope,
    prices: np.ndarray | None = None,
    enough: float = 0.0,
) -> tuple[float, np.ndarray | None]:
    """A lower bound on slope . (h' - h) over the polytope's mixtures h', and the prices that prove it.

    Parameters
    ----------
    slope
        (K,) nats per unit weight.
    prices
        As for `Polytope.minimum`; those of HiGHS are tried as well where these prove less than -`enough`.
    """
    with np.errstate(invalid="ignore"):
        here = float(slope[polytope.free] @ h[polytope.free] + slope[~polytope.free] @ h[~polytope.free])
    if not np.isfinite(here):
        return -np.inf, prices
    bound = polytope.minimum(slope, prices) - here
    if not polytope.simple and bound < -enough:
        other = polytope.prices_of(slope)
        if other is not None and (new := polytope.minimum(slope, other) - here) > bound:
            return new, other
    return bound, prices


def frank_wolfe_gap(gradient: np.ndarray, h: np.ndarray, problem) -> float:
    """Largest gradient . (h - h') over the mixtures h' within a problem's linear limits, from above.

    Parameters
    ----------
    gradient
        Of the objective at h (K,), nats per unit weight.
    h
        A feasible mixture (K,).
    problem
        A `MixtureProblem` or `Polytope`.

    Returns
    -------
    float
        Nats; infinite where a gradient is (a weight at zero under a law with infinite slope there).
    """
    polytope: Polytope = getattr(problem, "polytope", problem)
    gradient = np.where(polytope.free, gradient, 0.0)  # a fixed weight costs every mixture the same
    # h itself is a candidate, so a negative value is rounding in h's own sum.
    return max(0.0, -lower_bound(gradient, h, polytope)[0])


def certified(
    objective: Objective,
    polytope: Polytope,
    h: np.ndarray,
    weights: np.ndarray,
    outer: np.ndarray,
    rows: np.ndarray | None,
    enough: float,
) -> tuple[float, float, np.ndarray]:
    """The objective at h, what no feasible mixture is below if the problem is convex, and the Lagrangian's slope.

    Parameters
    ----------
    weights
        (S, used) of the losses.
    outer
        (c,) prices of the constraints, 0 or more.
    rows
        Prices of the polytope's rows and further equations.
    enough
        Gap that needs no better prices, nats.
    """  # fmt: skip
    value, _ = objective.exact(h)
    lagrangian, slope = objective.lagrangian(h, weights, outer)
    slope = np.where(polytope.free, slope, 0.0)
    if not np.isfinite(value):
        return value, -np.inf, slope
    loose = value - lagrangian
    below, _ = lower_bound(slope, h, polytope, rows, max(0.0, enough - loose))
    return value, min(lagrangian + below, value), slope
