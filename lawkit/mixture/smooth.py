"""Mixtures by an interior-point method on the law's exact gradient and Hessian.

It polishes what a conic solver found, and it is the solver for laws without a conic form. Newton steps on the
logarithmic barrier keep all weights strictly inside their limits; every quantity that decides anything (the
step, the decrement) is unchanged when a weight is rescaled, so an optimum with weights of 1e-9 and slopes of
1e6 beside ordinary ones costs no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from lawkit.mixture.problem import RESOLUTION, MixtureProblem

#: Objective, gradient (K,) and Hessian (K, K).
Expansion = tuple[float, np.ndarray, np.ndarray]
#: They at a mixture (K,).
Derivatives = Callable[[np.ndarray], Expansion]
#: They for the objectives numbered (m,) of many, each at its own mixture (m, K): (m,), (m, K), (m, K, K).
ManyDerivatives = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

#: Last barrier weight: each limit costs at most this many nats of optimality.
FINAL_BARRIER = 1e-13


@dataclass(frozen=True)
class SmoothSolution:
    """Where the interior-point method ended.

    Attributes
    ----------
    h
        Mixture (K,).
    objective
        Its loss.
    """

    h: np.ndarray
    objective: float


def minimise(
    derivatives: Derivatives,
    problem: MixtureProblem,
    start: np.ndarray | None = None,
    barrier: float = 1e-2,
    max_iterations: int = 200,
) -> SmoothSolution:
    """A stationary mixture: the minimum if the objective is convex, a local one otherwise.

    Parameters
    ----------
    derivatives
        The objective with its first two derivatives.
    start
        A mixture (K,) strictly between the limits; the middle of the problem's box if None.
    barrier
        First barrier weight; start lower when `start` is already good.
    """
    search = _search(problem, problem.interior() if start is None else start, barrier, max_iterations)
    asked = next(search)
    while True:
        with np.errstate(all="ignore"):
            answer = derivatives(asked)
        try:
            asked = search.send(answer)
        except StopIteration as end:
            return end.value


def minimise_many(
    derivatives: ManyDerivatives,
    problem: MixtureProblem,
    starts: Sequence[np.ndarray],
    barrier: float = 1e-2,
    max_iterations: int = 200,
) -> list[SmoothSolution]:
    """`minimise` for several objectives under the same limits, with one evaluation of them all a step.

    Parameters
    ----------
    derivatives
        Of those asked for, by number.
    starts
        One mixture (K,) for each objective, as in `minimise`.
    """
    searches = [_search(problem, start, barrier, max_iterations) for start in starts]
    asked = {i: next(search) for i, search in enumerate(searches)}
    found: dict[int, SmoothSolution] = {}
    while asked:
        with np.errstate(all="ignore"):
            answers = derivatives(np.array(list(asked)), np.array(list(asked.values())))
        for i, value, gradient, hessian in zip(list(asked), *answers, strict=True):
            try:
                asked[i] = searches[i].send((float(value), gradient, hessian))
            except StopIteration as end:
                del asked[i]
                found[i] = end.value
    return [found[i] for i in range(len(searches))]


def _search(
    problem: MixtureProblem, start: np.ndarray, barrier: float, max_iterations: int
) -> Generator[np.ndarray, Expansion, SmoothSolution]:
    """The method itself: yields mixtures and is sent the objective's expansion there."""
    h = start.astype(float).copy()
    free = problem.upper - problem.lower > RESOLUTION
    if free.sum() < 2:  # the sum leaves nothing to choose
        value, _, _ = yield h
        return SmoothSolution(h, value)
    # An upper limit that the sum and the lower limits imply anyway is left out.
    spare = 1 - problem.lower.sum()
    capped = (problem.upper - problem.lower < spare - RESOLUTION)[free]
    below = (h - problem.lower)[free]
    above = (problem.upper - h)[free][capped]
    mu = barrier
    z_below, z_above, y = mu / below, mu / above, 0.0

    def reduced(answer: Expansion) -> Expansion:
        return answer[0], answer[1][free], answer[2][np.ix_(free, free)]

    value, gradient, hessian = reduced((yield h))
    if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
        return SmoothSolution(h, value)
    for _ in range(max_iterations):
        slope = gradient - mu / below
        slope[capped] += mu / above
        curvature = z_below / below
        curvature[capped] += z_above / above
        dx, y = _newton_step(hessian, curvature, slope, y)
        decrement = -float(slope @ dx)
        if decrement < 0.1 * mu:
            if mu <= FINAL_BARRIER and decrement < 1e-4 * mu:
                break
            if mu > FINAL_BARRIER:
                mu = max(FINAL_BARRIER, min(0.1 * mu, mu**1.4))
                continue
        dz_below = mu / below - z_below - z_below / below * dx
        dz_above = mu / above - z_above + z_above / above * dx[capped]
        step = min(1.0, _reach(below, dx), _reach(above, -dx[capped]))
        noise = 1e-14 * (abs(value) + mu)

        while True:
            trial = h.copy()
            trial[free] += step * dx
            new_below, new_above = below + step * dx, above - step * dx[capped]
            new = reduced((yield trial))
            change = new[0] - value - mu * (np.log(new_below / below).sum() + np.log(new_above / above).sum())
            sound = np.isfinite(change) and np.isfinite(new[1]).all() and np.isfinite(new[2]).all()
            if sound and change <= -1e-4 * step * decrement + noise:
                break
            step *= 0.5
            if step < 1e-7:  # a kink, or the last digit
                return SmoothSolution(h, value)
        h, below, above = trial, new_below, new_above
        value, gradient, hessian = new
        dual = min(1.0, _reach(z_below, dz_below), _reach(z_above, dz_above))
        z_below, z_above = z_below + dual * dz_below, z_above + dual * dz_above
        # Multipliers stay near mu / slack, as convergence from afar needs (Wachter and Biegler 2006, eq. 16).
        z_below = np.clip(z_below, mu / below * 1e-8, mu / below * 1e8)
        z_above = np.clip(z_above, mu / above * 1e-8, mu / above * 1e8)
    return SmoothSolution(h, value)


def multi_start(
    derivatives: Derivatives,
    problem: MixtureProblem,
    seed: int = 0,
    starts: int = 16,
    max_iterations: int = 200,
) -> list[SmoothSolution]:
    """Stationary mixtures from many starts, best first: the middle, near each corner, and random ones."""
    rng = np.random.default_rng(seed)
    K = len(problem.sources)
    corners = np.eye(K)[: 2 * starts]
    random = rng.dirichlet(np.ones(K), size=starts)
    points = [problem.interior(), *(problem.interior(p) for p in (*corners, *random))]
    found = [minimise(derivatives, problem, p, barrier=1e-4, max_iterations=max_iterations) for p in points]
    return sorted(found, key=lambda s: s.objective)


def _newton_step(
    hessian: np.ndarray, curvature: np.ndarray, slope: np.ndarray, y: float
) -> tuple[np.ndarray, float]:
    """Step dx with sum 0 that minimises the barrier's quadratic model, and the sum's multiplier.

    A Hessian that is not positive definite is first raised along (1, ..., 1), where no step goes, then on its
    diagonal until it is.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    n = len(slope)
    matrix = hessian + np.diag(curvature)
    size = np.sqrt(np.abs(np.diag(matrix)))  # scaled to a unit diagonal: rows differ by many orders
    size = np.where(size > 0, size, 1.0)
    scaled = matrix / np.outer(size, size)
    along = 1 / size
    for shift in (0.0, 0.0, *(10.0**k for k in range(-6, 8))):
        try:
            factor = cho_factor(scaled + shift * np.eye(n), lower=True)
            break
        except LinAlgError:
            if shift == 0.0:
                scaled = scaled + np.outer(along, along) / (along @ along)
    else:
        factor = (np.eye(n), True)
    # Subtracting the current multiplier first leaves a right-hand side that vanishes at the optimum.
    rhs = np.column_stack([(slope + y) / size, along])
    solved = cho_solve(factor, rhs)
    dy = -(along @ solved[:, 0]) / (along @ solved[:, 1])
    return -(solved[:, 0] + dy * solved[:, 1]) / size, y + dy


def _reach(slack: np.ndarray, step: np.ndarray) -> float:
    """Longest step that keeps .5% of every slack."""
    shrinking = step < 0
    return float(np.min(-0.995 * slack[shrinking] / step[shrinking], initial=np.inf))
