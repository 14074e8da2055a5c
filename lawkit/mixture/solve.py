"""The best mixture of one problem, by the way that fits the law's shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import _capacity_search, additive, exponential, transfer
from lawkit.mixture._cones import SolverError
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.smooth import minimise, multi_start
from lawkit.mixture.target import Target

#: A convex solution with a larger gap is refused, nats.
TOLERANCE = 1e-6
#: A conic solution with a larger gap is polished, nats.
POLISH = 1e-9

#: Narrower ranges of weights are not searched.
NARROW = 1e-7

#: Convex programs by the `form` that a law declares.
FORMS = {"transfer": transfer.solve, "exponential": exponential.solve, "additive": additive.solve}


@dataclass(frozen=True)
class Solution:
    """A mixture and what is known of it.

    Attributes
    ----------
    h
        Mixture (K,).
    objective, gradient
        The loss there, nats, and its slope (K,).
    gap, certificate, lower_bound
        As in `MixtureResult`.
    notes
        What a reader should know.
    """

    h: np.ndarray
    objective: float
    gradient: np.ndarray
    gap: float
    certificate: Literal["global", "local"]
    lower_bound: float | None
    notes: tuple[str, ...] = ()


def solve(at: Target, problem: MixtureProblem, seed: int = 0) -> Solution:
    """The best mixture of one problem.

    Raises
    ------
    OptimizeError
        For limits too narrow to search, and a convex problem whose gap stays open.
    """
    law = at.fit.law
    problem = problem.raised(at.floor)
    room = min(1 - problem.lower.sum(), problem.upper.sum() - 1)
    if room <= 1e3 * RESOLUTION:
        # One mixture is left: it is the best there is, whatever the law.
        h = problem.lower if 1 - problem.lower.sum() <= 1e3 * RESOLUTION else problem.upper
        objective, gradient, _ = at.derivatives(problem.target)(h / h.sum())
        return Solution(h / h.sum(), objective, gradient, 0.0, "global", objective)
    if room < NARROW:
        raise OptimizeError(
            f"the limits leave each weight a range of {room:.1g} only, too narrow to search and too wide to be one "
            "mixture: fix the weights or widen the limits"
        )
    if law.form == "capacity":
        return _solve_capacity(at, problem)
    if law.convex_in_weights:
        return _solve_convex(at, problem)
    return _solve_local(at, problem, seed)


def _solve_convex(at: Target, problem: MixtureProblem) -> Solution:
    evaluate = at.derivatives(problem.target)
    candidates, notes = [], []
    conic = FORMS.get(at.fit.law.form or "")
    if conic is not None:
        used = np.flatnonzero(problem.target > 0)
        part = replace(problem, domains=tuple(problem.domains[e] for e in used), target=problem.target[used])
        try:
            natural = at.fit.parameters
            h = conic([natural[d] for d in part.domains], at.scale, part)
            candidates.append(_judged(evaluate, problem, problem.snap(h, 0.0)))
        except SolverError as error:
            notes.append(f"the conic solver failed ({error}); the interior-point method was used instead")
    if candidates and POLISH < candidates[0].gap < np.inf:
        near = problem.interior(candidates[0].h, depth=1e-6)
        candidates.append(_judged(evaluate, problem, minimise(evaluate, problem, start=near, barrier=1e-8).h))
    if not any(c.gap <= POLISH for c in candidates):
        candidates.append(_judged(evaluate, problem, minimise(evaluate, problem).h))
    # Weights a hair from a limit belong on it, unless the law's slope there says otherwise.
    best = min(candidates, key=lambda s: s.gap)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.gap <= max(best.gap, 0.1 * POLISH):
            best = snapped
            break
    if not best.gap <= TOLERANCE:
        raise OptimizeError(
            f"the best mixture found may be {best.gap:.3g} nats above the optimum, more than {TOLERANCE:g}, "
            f"though law {at.fit.law.name} says it is convex in the weights: look at the fit's parameters"
        )
    return Solution(
        best.h, best.objective, best.gradient, best.gap, "global", best.objective - best.gap, tuple(notes)
    )


def _solve_capacity(at: Target, problem: MixtureProblem) -> Solution:
    evaluate = at.derivatives(problem.target)
    by_source = np.zeros(len(problem.sources))
    by_source[[problem.sources.index(d) for d in problem.domains]] = problem.target
    parameters = at.fit.parameters[problem.domains[0]]
    own = replace(problem, domains=problem.sources, target=by_source)
    found = _capacity_search.solve(parameters, at.scale, own, evaluate)
    objective, gradient, _ = evaluate(found.h)
    gap = max(0.0, objective - found.lower_bound)
    if gap <= TOLERANCE:
        return Solution(found.h, objective, gradient, gap, "global", found.lower_bound)
    note = (
        f"the mixture is within {gap:.2g} nats of the best possible, but that it is the best is not proven: "
        "the limits keep the capacity law's convex relaxation from being exact"
    )
    return Solution(found.h, objective, gradient, gap, "local", found.lower_bound, (note,))


def _solve_local(at: Target, problem: MixtureProblem, seed: int) -> Solution:
    evaluate = at.derivatives(problem.target)
    found = multi_start(evaluate, problem, seed)
    best = _judged(evaluate, problem, found[0].h)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.objective <= best.objective + 1e-12 and snapped.gap < np.inf:
            best = snapped
            break
    agree = sum(s.objective <= best.objective + TOLERANCE for s in found)
    note = (
        f"law {at.fit.law.name} is not known to be convex in the weights: the mixture is the best of "
        f"{len(found)} starts, {agree} of which ended within {TOLERANCE:g} nats of it; proven only locally"
    )
    return Solution(best.h, best.objective, best.gradient, best.gap, "local", None, (note,))


def _judged(evaluate, problem: MixtureProblem, h: np.ndarray) -> Solution:
    objective, gradient, _ = evaluate(h)
    gap = frank_wolfe_gap(gradient, h, problem) if np.isfinite(objective) else np.inf
    return Solution(h, objective, gradient, gap, "local", None)
