"""Another's method, for where ours ends early."""

from __future__ import annotations

from typing import Any

import numpy as np


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
