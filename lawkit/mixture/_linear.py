"""Lower bounds by linear programming that do not trust the solver's last digits."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def by_scipy(objective: Any, polytope: Any, start: np.ndarray) -> np.ndarray | None:
    """A mixture (K,) by scipy's SLSQP from a feasible start, or None: another's method where ours ends early."""
    from scipy.optimize import minimize

    cons: list[Any] = [
        {
            "type": "eq",
            "fun": lambda h: polytope.equal @ h - polytope.equal_to,
            "jac": lambda h: polytope.equal,
        }
    ]
    if len(polytope.most):
        rows, most = polytope.rows, polytope.most
        cons.append({"type": "ineq", "fun": lambda h: most - rows @ h, "jac": lambda h: -rows})
    if objective.constrained:
        cons.append(
            {
                "type": "ineq",
                "fun": lambda h: -objective.constraints(h)[0],
                "jac": lambda h: -objective.constraints(h)[1],
            }
        )

    def both(h: np.ndarray) -> tuple[float, np.ndarray]:
        full = objective(np.maximum(h, 1e-12), 1e-9)
        return full.value, full.gradient

    with np.errstate(all="ignore"):
        found = minimize(
            both, start, jac=True, method="SLSQP", bounds=list(zip(polytope.lower, polytope.upper, strict=True)),
            constraints=cons, options={"ftol": 1e-14, "maxiter": 300},
        )  # fmt: skip
    h = np.clip(found.x, polytope.lower, polytope.upper)
    ok = np.isfinite(h).all() and polytope.contains(h, 1e-9)
    return h if ok and not (objective.constrained and objective.constraints(h)[0].max() > 1e-9) else None
