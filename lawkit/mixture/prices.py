"""What the limits of a mixture cost: which of them bind, and what moving them would change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.result import ActiveConstraint

#: A steeper slope is that of a power at zero weight: infinite, or as good as.
STEEPEST = 1e6
#: A weight this near a limit is on it.
NEAR = 1e-9
#: How far a limit is moved where slopes say nothing.
STEP = 0.01

Kind = Literal["lower", "upper", "availability", "fixed", "law"]


def active(
    problem: MixtureProblem,
    floor: float,
    h: np.ndarray,
    slope: np.ndarray,
    objective: float,
    best: Callable[[MixtureProblem], float],
) -> list[ActiveConstraint]:
    """Limits that the mixture h (K,) sits on, priced by how the slopes of the objective differ.

    Weight that a looser limit lets in (or out) is taken from (or given to) the best of the other sources, so
    a price is the source's own slope minus that source's: with weights strictly between their limits left,
    their common slope.

    Parameters
    ----------
    problem
        The limits as the user set them.
    floor
        Least weight that the law takes.
    slope
        Gradient (K,) of the objective at h.
    objective
        Its value there.
    best
        The least objective within other limits.
    """
    lower = np.maximum(problem.lower, floor)
    at_lower, at_upper = h - lower < NEAR, problem.upper - h < NEAR
    inside = ~at_lower & ~at_upper
    out = []
    for i, source in enumerate(problem.sources):
        # A weight of zero is no limit of anybody's unless it is also the most allowed.
        capped, raised = at_upper[i] and problem.upper[i] < 1, at_lower[i] and lower[i] > 0
        if not (capped or raised):
            continue
        others = np.arange(len(h)) != i
        if inside[others].any():
            pool = others & inside
            elsewhere = float(h[pool] @ slope[pool] / h[pool].sum())
        elif at_upper[i]:
            elsewhere = float(slope[others & ~at_lower].max(initial=-np.inf))
        else:
            elsewhere = float(slope[others & ~at_upper].min(initial=np.inf))
        kind: Kind
        if at_upper[i]:
            limit = float(problem.upper[i])
            kind = "availability" if problem.kinds[i] == "availability" else "upper"
            if kind == "upper" and at_lower[i] and problem.lower[i] > 0:
                kind = "fixed"
        else:
            limit = float(lower[i])
            kind = "lower" if problem.lower[i] >= floor else "law"
        price = float(slope[i]) - elsewhere
        if not abs(price) < STEEPEST:
            price = moved(problem, i, kind, limit, objective, best)
        per_billion = 1e9 / problem.tokens_per_weight[i] * price if kind == "availability" else None
        out.append(
            ActiveConstraint(
                source=source, kind=kind, limit=limit, price=price, price_per_billion_tokens=per_billion
            )
        )
    return out


def moved(
    problem: MixtureProblem,
    i: int,
    kind: Kind,
    limit: float,
    objective: float,
    best: Callable[[MixtureProblem], float],
) -> float:
    """Change of the objective per unit of limit i over its first hundredth, where slopes are infinite.

    Limits are loosened, except the law's own floor, which can only be raised. NaN where there is no room.
    """
    if kind == "lower":
        room, side, sign = limit, "lower", -1.0
    elif kind == "law":
        room, side, sign = float(problem.upper[i]) - limit, "lower", 1.0
    else:
        room, side, sign = 1 - limit, "upper", 1.0
    step = min(STEP, room)
    if step <= RESOLUTION:
        return math.nan
    limits = getattr(problem, side).copy()
    limits[i] = limit + sign * step
    try:
        return (best(replace(problem, **{side: limits})) - objective) / (sign * step)
    except OptimizeError:
        return math.nan
