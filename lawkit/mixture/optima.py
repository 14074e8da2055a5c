"""The best mixture of each of many draws of a fit's parameters, searched all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.corners import smoothed
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise_many
from lawkit.mixture.solve import TOLERANCE
from lawkit.mixture.target import Target, domain_caps

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
    if problem.max_kl < np.inf or problem.ceilings.size:
        return _one_by_one(at, z, problem, start, solve)
    corners = problem.over[0] != "mean"
    derivatives = at.derivatives_of(z, problem.target, problem.over)
    begin = polytope.toward(start, DEPTH)
    found = minimise_many(derivatives, polytope, [begin] * len(z), BARRIER, corners=corners)
    h, barriers = np.array([s.h for s in found]), np.array([s.barrier for s in found])

    def judged(which: np.ndarray) -> np.ndarray:
        """(len(which),) objectives themselves, corners and all."""
        return np.array([at.objectives(z[[i]], h[[i]], problem.target, problem.over)[0, 0] for i in which])

    # With rounded corners, the slope is that of a weighted mean of the losses, and `lifted` what that lies above them.
    rounded, gradient, _ = derivatives(np.arange(len(z)), h, barriers)
    objective = judged(np.arange(len(z))) if corners else rounded
    lifted = objective - _mean(at, z, h, problem, barriers) if corners else np.zeros(len(z))
    sound = np.isfinite(objective)
    if at.fit.law.convex_in_weights or at.fit.law.form is not None:
        closed = np.array(
            [
                ok and over + frank_wolfe_gap(g, x, polytope) <= TOLERANCE
                for ok, over, g, x in zip(sound, lifted, gradient, h, strict=True)
            ]
        )
        for i in np.flatnonzero(sound & ~closed):
            try:
                h[i] = solve(at.with_parameters(z[i]))
            except OptimizeError:
                continue
            closed[i] = True
            objective[i] = judged(np.array([i]))[0]
        sound = closed
    else:
        sound &= objective <= at.objectives(z, begin[None], problem.target, problem.over)[:, 0]
    return Optima(h[sound], objective[sound], z[sound])


def _mean(
    at: Target, z: np.ndarray, h: np.ndarray, problem: MixtureProblem, barriers: np.ndarray
) -> np.ndarray:
    """(S,) means of the losses of the draws at their mixtures by the weights of the rounded maximum or CVaR."""
    used = np.flatnonzero(problem.target > 0)
    losses = np.array([
        at.fit.estimate.losses_at(z[[i]], at.inputs(h[[i]]))[0, 0, used] for i in range(len(z))
    ])  # fmt: skip
    weights = smoothed(losses, domain_caps(problem.target[used], problem.over), barriers[:, None])[1]
    return (weights * losses).sum(1)


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
