"""The best mixture of one problem: found by the interior-point method, then judged by a bound of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import _capacity_search
from lawkit.mixture._linearised import multipliers
from lawkit.mixture._scipy import by_scipy
from lawkit.mixture.capacity import CapacityObjective
from lawkit.mixture.certificate import certified
from lawkit.mixture.feasible import strict_start
from lawkit.mixture.objective import Objective
from lawkit.mixture.polytope import NARROW, Polytope
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise_full, starting_mixtures
from lawkit.mixture.target import Target

__all__ = ["NARROW", "TOLERANCE", "Solution", "solve"]

#: A convex solution with a larger gap is refused, nats.
TOLERANCE = 1e-6
#: One with a larger gap is searched again, nats; the second where the objective has corners.
POLISH, POLISH_CORNERS = 1e-9, 1e-7


@dataclass(frozen=True)
class Solution:
    """A mixture and what is known of it.

    Attributes
    ----------
    h
        Mixture (K,).
    objective, gradient
        The loss there, nats, and the slope (K,) of the weighted losses, without constraints.
    gap, certificate, lower_bound
        As in `MixtureResult`.
    notes
        What a reader should know.
    weights
        (S, used) of the losses in the objective.
    outer
        (c,) prices of the smooth constraints.
    slopes
        (c, K) their slopes.
    """

    h: np.ndarray
    objective: float
    gradient: np.ndarray
    gap: float
    certificate: Literal["global", "local"]
    lower_bound: float | None
    notes: tuple[str, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    outer: np.ndarray = field(default_factory=lambda: np.empty(0))
    slopes: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


def solve(
    at: Target,
    problem: MixtureProblem,
    seed: int = 0,
    z: np.ndarray | None = None,
    risk: tuple[str, float] = ("mean", 0.0),
    start: np.ndarray | None = None,
) -> Solution:
    """The best mixture of one problem.

    Parameters
    ----------
    at, problem
        The target and what is asked of the mixture.
    seed
        For the starts, where the law is not convex in the weights.
    z, risk
        As for `Objective`.
    start
        (K,) a mixture to search from.

    Raises
    ------
    OptimizeError
        For limits that leave nothing, or too little to search, and a convex problem whose gap stays open.
    """
    law = at.fit.law
    problem = problem.raised(at.floor)
    polytope = problem.polytope.inner()
    objective = Objective(at, problem, z, risk)
    only = polytope.only
    if only is not None:  # it is the best there is, whatever the law
        value, weights = objective.exact(only)
        if objective.constrained and objective.constraints(only)[0].max() > 1e-12:
            strict_start(objective, polytope, [only])
        return _finished(objective, only, value, value, "global", weights, np.zeros(len(objective.names())))
    if law.form == "capacity" and z is None:
        return _solve_capacity(objective, polytope)
    if law.convex_in_weights:
        return _solve_convex(objective, polytope, start)
    return _solve_local(objective, polytope, seed)


def _solve_convex(objective: Objective, polytope: Polytope, start: np.ndarray | None) -> Solution:
    begin, barrier = polytope.center, 1e-2
    if start is not None:
        begin, barrier = polytope.toward(start, 0.05), 1e-3
    if objective.constrained:
        begin = strict_start(objective, polytope, [begin, polytope.center])
    candidates = [_searched(objective, polytope, begin, barrier)]
    notes: list[str] = []
    if not candidates[0].gap <= (POLISH_CORNERS if objective.corners else POLISH):
        if objective.constrained or start is not None:
            begin = strict_start(objective, polytope, [polytope.center])
        again = polytope.toward(candidates[0].h, 0.5) if not objective.constrained else begin
        candidates.append(_searched(objective, polytope, again, 1.0))
    if not min(c.gap for c in candidates) <= TOLERANCE:
        best = min(candidates, key=lambda s: s.gap)
        notes.append(
            f"the interior-point method left a gap of {best.gap:.2g} nats; scipy's trust region was used as well"
        )
        h = by_scipy(objective, polytope, best.h)
        if h is not None:
            weights = objective.weights(h, 1e-9)
            candidates.append(_judged(objective, polytope, h, weights, best.outer, None))
    best = min(candidates, key=lambda s: s.gap)
    if not best.gap <= TOLERANCE:
        raise OptimizeError(
            f"the best mixture found may be {best.gap:.3g} nats above the optimum, more than {TOLERANCE:g}, "
            f"though law {objective.at.fit.law.name} says it is convex in the weights: look at the fit's parameters"
        )
    return replace(best, certificate="global", notes=tuple(notes))


def _solve_capacity(objective: Objective, polytope: Polytope) -> Solution:
    form = CapacityObjective(objective)
    found = _capacity_search.solve(form, polytope)
    value, _ = objective.exact(found.h)
    if abs(value - found.value) > 1e-6 * abs(value):
        raise OptimizeError(
            f"the capacity program reads a loss of {found.value:.9g} where the law says {value:.9g}: "
            "its parameters are not those of the law in 2606.08167"
        )
    out = _finished(objective, found.h, value, found.lower_bound, "global", found.weights, found.outer)
    if out.gap <= TOLERANCE:
        return out
    note = f"the mixture is within {out.gap:.2g} nats of the best possible, but that it is the best is not proven"
    return replace(out, certificate="local", notes=(note,))


def _solve_local(objective: Objective, polytope: Polytope, seed: int) -> Solution:
    starts = starting_mixtures(polytope, 16 if len(objective.z) == 1 else 4, seed)
    if objective.constrained:
        inside = strict_start(objective, polytope, starts)
        starts = [inside, *(h for h in starts if (objective.constraints(h)[0] < -1e-6).all())]
    found = sorted((_searched(objective, polytope, h, 1e-4) for h in starts), key=lambda s: s.objective)
    best = found[0]
    agree = sum(s.objective <= best.objective + TOLERANCE for s in found)
    note = (
        f"law {objective.at.fit.law.name} is not known to be convex in the weights: the mixture is the best of "
        f"{len(found)} starts, {agree} of which ended within {TOLERANCE:g} nats of it; proven only locally"
    )
    return replace(best, lower_bound=None, notes=(note,))


def _searched(objective: Objective, polytope: Polytope, start: np.ndarray, barrier: float) -> Solution:
    """Where one search ends, weights a hair from a limit put on it unless the slope there says otherwise."""
    found = minimise_full(objective, polytope, start, barrier, corners=objective.corners)
    weights = objective.weights(found.h, found.barrier)
    best = _judged(objective, polytope, found.h, weights, found.outer, found.rows)
    proof = weights, found.outer, found.rows
    other = multipliers(objective, polytope, found.h) if best.gap > POLISH else None
    if other is not None and (again := _judged(objective, polytope, found.h, *other)).gap < best.gap:
        best, proof = again, other
    for zeros in (True, False):
        h = polytope.snap(found.h, 1e-8, zeros=zeros)
        if objective.constrained and not (objective.constraints(h)[0] <= 1e-12).all():
            continue
        snapped = _judged(objective, polytope, h, *proof)
        if snapped.gap <= max(best.gap, 0.1 * POLISH) and snapped.objective <= best.objective + POLISH:
            return snapped
    return best


def _judged(
    objective: Objective, polytope: Polytope, h: np.ndarray, weights: np.ndarray, outer: np.ndarray,
    rows: np.ndarray | None,
) -> Solution:  # fmt: skip
    with np.errstate(all="ignore"):
        value, bound, _ = certified(objective, polytope, h, weights, outer, rows, 0.1 * POLISH)
    return _finished(objective, h, value, bound, "local", weights, outer)


def _finished(
    objective: Objective, h: np.ndarray, value: float, bound: float, certificate: Literal["global", "local"],
    weights: np.ndarray, outer: np.ndarray,
) -> Solution:  # fmt: skip
    gap = max(0.0, value - bound) if np.isfinite(value) else np.inf
    with np.errstate(all="ignore"):
        gradient = objective.lagrangian(h, weights, np.empty(0))[1]
        slopes = objective.constraints(h)[1]
    return Solution(h, value, gradient, gap, certificate, value - gap, (), weights, outer, slopes)
