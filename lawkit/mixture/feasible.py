"""A mixture that keeps strictly to all constraints, or the proof that there is none and what could be had instead."""

from __future__ import annotations

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.certificate import lower_bound
from lawkit.mixture.corners import smoothed
from lawkit.mixture.infeasible import InfeasibleError
from lawkit.mixture.objective import Objective, _outer
from lawkit.mixture.polytope import Polytope
from lawkit.mixture.smooth import Full, minimise_full

#: A start keeps this far from constraints if it can (nats), and at least the second.
ROOMY, LEAST = 1e-2, 1e-9


def strict_start(objective: Objective, polytope: Polytope, starts: list[np.ndarray]) -> np.ndarray:
    """A mixture (K,) strictly inside the constraints.

    Raises
    ------
    InfeasibleError
        Naming constraints that cannot all hold within the linear limits, and the best that can be had.
    OptimizeError
        If only a single mixture is left.
    """
    worst = [float(objective.constraints(h)[0].max(initial=-np.inf)) for h in starts]
    best = int(np.argmin(worst))
    if worst[best] < -ROOMY:
        return starts[best]
    everything = np.arange(len(objective.names()))
    h, least, _ = least_violation(objective, polytope, everything, starts[best], early=True)
    if least < -LEAST:
        return h
    raise _explained(objective, polytope, everything, starts[best])


def least_violation(
    objective: Objective, polytope: Polytope, which: np.ndarray, start: np.ndarray, early: bool = False
) -> tuple[np.ndarray, float, float]:
    """The mixture (K,) that breaks the worst of some constraints least, by how much, and a proven bound on that.

    With `early` the search ends at a mixture well inside.
    """
    caps, seen = np.ones(len(which)), [np.inf]
    nothing = np.empty(0), np.empty((0, len(start))), np.empty((0, len(start), len(start)))

    def full(h: np.ndarray, barrier: float) -> Full:
        g, slopes, curves = (p[which] for p in objective.constraints(h, True))
        if not np.isfinite(g).all():
            return Full(np.nan, slopes[0], curves[0], *nothing)
        seen[0] = float(g.max())
        value, p, q = (x[0] for x in smoothed(g[None], caps, barrier))
        hessian = np.tensordot(p, curves, 1) + _outer(slopes, q)
        return Full(float(value), p @ slopes, hessian, *nothing)

    def enough(_: Full) -> bool:
        return seen[0] < -ROOMY

    found = minimise_full(full, polytope, start, corners=len(which) > 1, enough=enough if early else None)
    g, slopes = (p[which] for p in objective.constraints(found.h)[:2])
    p = smoothed(g[None], caps, found.barrier)[1][0]
    below, _ = lower_bound(p @ slopes, found.h, polytope, found.rows, 1e-8)
    return found.h, float(g.max()), float(p @ g) + below


def _explained(
    objective: Objective, polytope: Polytope, which: np.ndarray, start: np.ndarray
) -> OptimizeError:
    """The error for constraints that cannot all hold strictly."""
    names, everything = objective.names(), which
    for i in list(which):
        rest = which[which != i]
        if len(rest) and least_violation(objective, polytope, rest, start)[1] >= -LEAST:
            which = rest
    proven = least_violation(objective, polytope, which, start)[2]
    if proven <= 0:
        return OptimizeError(
            f"{' and '.join(names[i] for i in which)} leave next to no mixture within the other limits: loosen them a "
            "little"
        )
    alone = [least_violation(objective, polytope, np.array([i]), start)[1] for i in which]
    limits = _limits(objective)
    best = [f"{names[i].partition(' <= ')[0]} {limits[i] + a:.6g}" for i, a in zip(which, alone, strict=True)]
    h, least, _ = least_violation(objective, polytope, everything, start)
    moves = {n: float(g) for n, g in zip(names, objective.constraints(h)[0], strict=True) if g > 0}
    together = f"; loosening {'each of ' if len(moves) > 1 else ''}{' and '.join(moves)} by {least:.3g} nats would do"
    return InfeasibleError(
        f"no mixture fits: {' and '.join(names[i] for i in which)} cannot hold within the other limits. "
        f"Attainable {'each by itself' if len(which) > 1 else 'at best'}: {', '.join(best)}{together}",
        [names[i] for i in which],
        moves,
    )


def _limits(objective: Objective) -> np.ndarray:
    """The constraints' right-hand sides, nats."""
    kl = objective.problem.max_kl
    return np.r_[objective.most, [kl] if kl < np.inf else []]
