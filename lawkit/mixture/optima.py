"""The best mixture of each of many draws of a fit's parameters, searched all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise_many
from lawkit.mixture.solve import TOLERANCE
from lawkit.mixture.target import Target

#: First barrier weight and depth of the start: draws have their optima near that of the point fit.
BARRIER, DEPTH = 1e-3, 0.05


@dataclass(frozen=True)
class Optima:
    """The best mixtures of the draws for which one was found.

    Attributes
    ----------
    h
        (S, K) mixtures.
    objective
        (S,) their losses, nats per token.
    z
        (S, G, P) the draws.
    """

    h: np.ndarray
    objective: np.ndarray
    z: np.ndarray


def optima(
    at: Target,
    z: np.ndarray,
    problem: MixtureProblem,
    start: np.ndarray,
    solve: Callable[[Target], np.ndarray],
) -> Optima:
    """The best mixture of each draw, all searched at once from the optimum of the point fit.

    Parameters
    ----------
    at, problem
        The target and the limits that the draws share.
    z
        (S, G, P) draws on the unconstrained scale.
    start
        (K,) optimum of the point fit.
    solve
        Best mixture (K,) of one draw's target, for draws whose optimality gap the search leaves open.

    Notes
    -----
    A draw of a law that is convex in the weights is taken where its Frank-Wolfe gap is closed, by the search or by
    `solve`. Of other laws it is enough that the search ends no worse than it began: their optima are local.
    """
    problem = problem.raised(at.floor)
    polytope = problem.polytope.inner()
    if polytope.only is not None:
        h = np.tile(start, (len(z), 1))
        objective = at.objectives(z, start[None], problem.target, problem.over)[:, 0]
        sound = np.isfinite(objective)
        return Optima(h[sound], objective[sound], z[sound])
    if problem.max_kl < np.inf or problem.ceilings.size or problem.over[0] != "mean":
        return _one_by_one(at, z, problem, start, solve)
    derivatives = at.derivatives_of(z, problem.target)
    everyone = np.arange(len(z))
    begin = polytope.toward(start, DEPTH)
    found = minimise_many(derivatives, polytope, [begin] * len(z), BARRIER)
    h = np.array([s.h for s in found])
    objective, gradient, _ = derivatives(everyone, h)
    sound = np.isfinite(objective)
    if at.fit.law.convex_in_weights or at.fit.law.form is not None:
        closed = np.array(
            [
                ok and frank_wolfe_gap(g, x, polytope) <= TOLERANCE
                for ok, g, x in zip(sound, gradient, h, strict=True)
            ]
        )
        for i in np.flatnonzero(sound & ~closed):
            try:
                h[i] = solve(at.with_parameters(z[i]))
            except OptimizeError:
                continue
            closed[i] = True
            objective[i] = derivatives(everyone[[i]], h[[i]])[0][0]
        sound = closed
    else:
        sound &= objective <= at.objectives(z, begin[None], problem.target)[:, 0]
    return Optima(h[sound], objective[sound], z[sound])


def _one_by_one(
    at: Target,
    z: np.ndarray,
    problem: MixtureProblem,
    start: np.ndarray,
    solve: Callable[[Target], np.ndarray],
) -> Optima:
    """`optima` by the solver of single problems: limits on losses are those under each draw."""
    h, sound = np.tile(start, (len(z), 1)), np.zeros(len(z), bool)
    for i in range(len(z)):
        try:
            h[i] = solve(at.with_parameters(z[i]))
        except OptimizeError:
            continue
        sound[i] = True
    objective = np.array(
        [at.objectives(z[[i]], h[[i]], problem.target, problem.over)[0, 0] for i in range(len(z))]
    )
    sound &= np.isfinite(objective)
    return Optima(h[sound], objective[sound], z[sound])
