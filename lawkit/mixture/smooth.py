"""Mixtures by an interior-point method on exact gradients and Hessians.

It is the solver for every law. Newton steps on the logarithmic barrier keep all weights strictly inside their limits,
linear rows and smooth convex constraints included; every quantity that decides anything (the step, the decrement) is
unchanged when a weight is rescaled, so an optimum with weights of 1e-9 and slopes of 1e6 beside ordinary ones costs no
accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lawkit.mixture.polytope import RESOLUTION, Polytope

#: Objective, gradient (K,) and Hessian (K, K).
Expansion = tuple[float, np.ndarray, np.ndarray]
#: They at a mixture (K,).
Derivatives = Callable[[np.ndarray], Expansion]
#: They for the objectives numbered (m,) of many, each at its own mixture (m, K) and barrier weight (m,): (m,), (m, K)
#: and (m, K, K).
ManyDerivatives = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Full(NamedTuple):
    """An objective with c constraints g(h) <= 0, at one mixture and barrier weight.

    Attributes
    ----------
    value, gradient, hessian
        Of the objective: a number, (K,), (K, K).
    g, slopes, curves
        Of the constraints: (c,), (c, K), (c, K, K).
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray
    g: np.ndarray
    slopes: np.ndarray
    curves: np.ndarray


#: `Full` at a mixture (K,) and a barrier weight, by which objectives with corners round them.
FullDerivatives = Callable[[np.ndarray, float], Full]

#: Last barrier weight: each limit costs at most this many nats of optimality.
FINAL_BARRIER = 1e-13
#: The same for objectives with corners, in which losses are told apart.
FINAL_CORNERS = 1e-11
#: Factor between barrier weights there: rounded corners take smaller steps.
REDUCE = 0.2


@dataclass(frozen=True)
class SmoothSolution:
    """Where the interior-point method ended.

    Attributes
    ----------
    h
        Mixture (K,).
    objective
        Its loss.
    rows, outer
        Multipliers of the rows and of the equations after the first, as `Polytope.minimum` takes them, and of the
        constraints (c,).
    barrier
        The last barrier weight.
    """

    h: np.ndarray
    objective: float
    rows: np.ndarray = field(default_factory=lambda: np.empty(0))
    outer: np.ndarray = field(default_factory=lambda: np.empty(0))
    barrier: float = FINAL_BARRIER


def minimise(
    derivatives: Derivatives,
    problem: Any,
    start: np.ndarray | None = None,
    barrier: float = 1e-2,
    max_iterations: int = 200,
) -> SmoothSolution:
    """A stationary mixture: the minimum if the objective is convex, a local one otherwise.

    Parameters
    ----------
    derivatives
        The objective with its first two derivatives.
    problem
        A `MixtureProblem` or `Polytope` whose limits leave room.
    start
        A mixture (K,) strictly between the limits; the middle of the problem's box if None.
    barrier
        First barrier weight; start lower when `start` is already good.
    """

    def full(h: np.ndarray, _: float) -> Full:
        return Full(*derivatives(h), *_none(len(h)))

    return minimise_full(full, problem, start, barrier, max_iterations)


def minimise_full(
    derivatives: FullDerivatives,
    problem: Any,
    start: np.ndarray | None = None,
    barrier: float = 1e-2,
    max_iterations: int = 200,
    corners: bool = False,
    enough: Callable[[Full], bool] | None = None,
) -> SmoothSolution:
    """`minimise` under constraints, and of objectives with corners.

    Parameters
    ----------
    derivatives, problem, start, barrier
        As for `minimise`; constraints hold strictly at the start.
    corners
        Whether the objective changes with the barrier weight.
    enough
        Ends the search at the first mixture for which it is true.
    """
    polytope: Polytope = getattr(problem, "polytope", problem)
    start = polytope.center if start is None else start
    search = _search(polytope, start, barrier, (2 if corners else 1) * max_iterations, corners)
    asked, mu = next(search)
    while True:
        with np.errstate(all="ignore"):
            answer = derivatives(asked, mu)
        if enough is not None and enough(answer):
            return SmoothSolution(asked, answer.value, barrier=mu)
        try:
            asked, mu = search.send(answer)
        except StopIteration as end:
            return end.value


def minimise_many(
    derivatives: ManyDerivatives,
    problem: Any,
    starts: Sequence[np.ndarray],
    barrier: float = 1e-2,
    max_iterations: int = 200,
    corners: bool = False,
) -> list[SmoothSolution]:
    """`minimise` for several objectives under the same limits, with one evaluation of them all a step.

    Parameters
    ----------
    derivatives
        Of those asked for, by number.
    starts
        One mixture (K,) for each objective, as in `minimise`.
    corners
        As in `minimise_full`.
    """
    polytope: Polytope = getattr(problem, "polytope", problem)
    most = (2 if corners else 1) * max_iterations
    searches = [_search(polytope, start, barrier, most, corners) for start in starts]
    asked = {i: next(search) for i, search in enumerate(searches)}
    nothing = _none(len(polytope.lower))
    found: dict[int, SmoothSolution] = {}
    while asked:
        mixtures, barriers = (np.array(x) for x in zip(*asked.values(), strict=True))
        with np.errstate(all="ignore"):
            answers = derivatives(np.array(list(asked)), mixtures, barriers)
        for i, value, gradient, hessian in zip(list(asked), *answers, strict=True):
            try:
                asked[i] = searches[i].send(Full(float(value), gradient, hessian, *nothing))
            except StopIteration as end:
                del asked[i]
                found[i] = end.value
    return [found[i] for i in range(len(searches))]


def _none(K: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """No constraints."""
    return np.empty(0), np.empty((0, K)), np.empty((0, K, K))


def _search(
    polytope: Polytope, start: np.ndarray, barrier: float, max_iterations: int, corners: bool
) -> Generator[tuple[np.ndarray, float], Full, SmoothSolution]:
    """The method itself: yields mixtures and barrier weights, and is sent the expansion there."""
    h = start.astype(float).copy()
    free = polytope.free
    equal, _ = polytope.equations
    if free.sum() <= len(equal):  # nothing to choose
        answer = yield h, barrier
        none = np.zeros(len(polytope.most) + len(polytope.equal_to) - 1)
        return SmoothSolution(h, answer.value, none, np.zeros(len(answer.g)))
    # An upper limit that the sum and the lower limits imply anyway is left out.
    spare = 1 - polytope.lower.sum()
    capped = (polytope.upper - polytope.lower < spare - RESOLUTION)[free]
    # Slacks of all linear limits at once: normals . h <= limits, of which most are single weights.
    rows = polytope.rows[:, free]
    below, above = (h - polytope.lower)[free], (polytope.upper - h)[free][capped]
    slack = polytope.most - polytope.rows @ h
    if min(s.min(initial=np.inf) for s in (below, above, slack)) <= 0:  # on a limit: no barrier starts there
        answer = yield h, barrier
        none = np.zeros(len(slack) + len(polytope.equal_to) - 1)
        return SmoothSolution(h, answer.value, none, np.zeros(len(answer.g)))
    mu, final = barrier, FINAL_CORNERS if corners else FINAL_BARRIER
    z_below, z_above, z_rows = mu / below, mu / above, mu / slack
    y = np.zeros(len(equal))

    def reduced(answer: Full) -> Full:
        return Full(
            answer.value, answer.gradient[free], answer.hessian[np.ix_(free, free)],
            answer.g, answer.slopes[:, free], answer.curves[:, free][:, :, free],
        )  # fmt: skip

    def sound(answer: Full) -> bool:
        parts = (answer.value, answer.gradient, answer.hessian, answer.g, answer.slopes, answer.curves)
        return all(np.isfinite(p).all() for p in parts)

    def ended() -> SmoothSolution:
        prices = np.zeros(len(polytope.equal_to))
        prices[polytope.independent] = y
        return SmoothSolution(h, at.value, np.r_[z_rows, prices[1:]], z_outer, mu)

    at = reduced((yield h, mu))
    gap = -at.g
    z_outer = mu / gap
    if not sound(at) or not (gap > 0).all():
        return ended()
    for _ in range(max_iterations):
        slope = at.gradient - mu / below + rows.T @ (mu / slack) + at.slopes.T @ (mu / gap)
        slope[capped] += mu / above
        curvature = z_below / below
        curvature[capped] += z_above / above
        matrix = at.hessian
        if len(slack):
            matrix = matrix + (rows.T * (z_rows / slack)) @ rows
        if len(gap):
            matrix = (
                matrix + (at.slopes.T * (z_outer / gap)) @ at.slopes + np.tensordot(z_outer, at.curves, 1)
            )
        dx, y = _newton_step(matrix, curvature, slope, equal, y)
        decrement = -float(slope @ dx)
        done = (0.01 if corners else 1e-4) * mu if mu <= final else 0.1 * mu
        if decrement < max(done, 1e-15 * abs(at.value) if corners else 0.0):
            if mu <= final:
                break
            mu = max(final, REDUCE * mu if corners else min(0.1 * mu, mu**1.4))
            if corners:
                at = reduced((yield h, mu))
            continue
        over = rows @ dx
        dz_below = mu / below - z_below - z_below / below * dx
        dz_above = mu / above - z_above + z_above / above * dx[capped]
        dz_rows = mu / slack - z_rows + z_rows / slack * over
        dz_outer = mu / gap - z_outer + z_outer / gap * (at.slopes @ dx)
        step = min(1.0, _reach(below, dx), _reach(above, -dx[capped]), _reach(slack, -over))
        noise = 1e-14 * (abs(at.value) + mu)

        while True:
            trial = h.copy()
            trial[free] += step * dx
            new_below, new_above, new_slack = (
                below + step * dx,
                above - step * dx[capped],
                slack - step * over,
            )
            new = reduced((yield trial, mu))
            new_gap = -new.g
            kept = sound(new) and (new_gap > 0.005 * gap).all()
            if kept:
                logs = sum(
                    np.log(a / b).sum()
                    for a, b in ((new_below, below), (new_above, above), (new_slack, slack), (new_gap, gap))
                )
                if new.value - at.value - mu * logs <= -1e-4 * step * decrement + noise:
                    break
            step *= 0.5
            if step < 1e-7:  # a kink, or the last digit
                return ended()
        h, below, above, slack, gap, at = trial, new_below, new_above, new_slack, new_gap, new
        z_below, z_above, z_rows, z_outer = _dual_step(
            mu, (below, above, slack, gap), (z_below, z_above, z_rows, z_outer),
            (dz_below, dz_above, dz_rows, dz_outer),
        )  # fmt: skip
    return ended()


def _dual_step(
    mu: float, slacks: Sequence[np.ndarray], duals: Sequence[np.ndarray], steps: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Multipliers after one common step that keeps them positive.

    They stay near mu / slack, as convergence from afar needs (Wachter and Biegler 2006, eq. 16).
    """
    reach = min(1.0, *(_reach(z, dz) for z, dz in zip(duals, steps, strict=True)))
    return [
        np.clip(z + reach * dz, mu / s * 1e-8, mu / s * 1e8)
        for s, z, dz in zip(slacks, duals, steps, strict=True)
    ]


def multi_start(
    derivatives: Derivatives,
    problem: Any,
    seed: int = 0,
    starts: int = 16,
    max_iterations: int = 200,
) -> list[SmoothSolution]:
    """Stationary mixtures from many starts, best first: the middle, near each corner, and random ones."""
    polytope: Polytope = getattr(problem, "polytope", problem)
    points = starting_mixtures(polytope, starts, seed)
    found = [minimise(derivatives, problem, p, barrier=1e-4, max_iterations=max_iterations) for p in points]
    return sorted(found, key=lambda s: s.objective)


def starting_mixtures(polytope: Polytope, starts: int, seed: int) -> list[np.ndarray]:
    """The middle, near each of the first corners, and random mixtures, all strictly inside."""
    K = len(polytope.lower)
    random = np.random.default_rng(seed).dirichlet(np.ones(K), size=starts)
    points = (*np.eye(K)[: 2 * starts], *random)
    return [polytope.center, *(polytope.toward(p, 0.05) for p in points)]


def _newton_step(
    hessian: np.ndarray, curvature: np.ndarray, slope: np.ndarray, equal: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Step dx with equal dx = 0 that minimises the barrier's quadratic model, and the equations' multipliers.

    A Hessian that is not positive definite is first raised along the rows of `equal`, where no step goes, then on its
    diagonal until it is.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    n = len(slope)
    matrix = hessian + np.diag(curvature)
    size = np.sqrt(np.abs(np.diag(matrix)))  # scaled to a unit diagonal: rows differ by many orders
    size = np.where(size > 0, size, 1.0)
    scaled = matrix / np.outer(size, size)
    along = (equal / size).T
    along = along / np.maximum(np.linalg.norm(along, axis=0), 1e-300)
    for shift in (0.0, 0.0, *(10.0**k for k in range(-6, 8))):
        try:
            factor = cho_factor(scaled + shift * np.eye(n), lower=True)
            break
        except LinAlgError:
            if shift == 0.0:
                scaled = scaled + along @ along.T
    else:
        factor = (np.eye(n), True)
    # Subtracting the current multipliers first leaves a right-hand side that vanishes at the optimum.
    solved = cho_solve(factor, np.column_stack([(slope + equal.T @ y) / size, along]))
    first, rest = solved[:, 0], solved[:, 1:]
    dy = -np.linalg.lstsq(along.T @ rest, along.T @ first, rcond=None)[0]
    norms = np.maximum(np.linalg.norm((equal / size).T, axis=0), 1e-300)
    return -(first + rest @ dy) / size, y + dy / norms


def _reach(slack: np.ndarray, step: np.ndarray) -> float:
    """Longest step that keeps .5% of every slack."""
    shrinking = step < 0
    return float(np.min(-0.995 * slack[shrinking] / step[shrinking], initial=np.inf))
