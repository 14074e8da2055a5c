"""Limits that no mixture satisfies: which of them contradict each other, and the least that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._checks import listed
from lawkit.mixture.limits import Limit
from lawkit.mixture.polytope import RESOLUTION, Polytope, linear_program

if TYPE_CHECKING:
    from lawkit.mixture.problem import MixtureProblem


class InfeasibleError(OptimizeError):
    """Limits that contradict each other.

    Attributes
    ----------
    subset
        Limits, as users write them, that no mixture satisfies though it would without any one of them.
    relaxation
        How far limits have to move, in units of weight, for a mixture to satisfy all: the least in total.
    """

    def __init__(self, message: str, subset: Sequence[str], relaxation: dict[str, float]) -> None:
        super().__init__(message)
        self.subset, self.relaxation = tuple(subset), relaxation


def refuse_infeasible(problem: MixtureProblem) -> None:
    """Nothing for a problem that some mixture satisfies.

    Raises
    ------
    InfeasibleError
        Naming an irreducible subset of the linear limits, and the smallest relaxation.
    """
    limits = problem.limits
    if problem.polytope.simple:
        spread = float(np.max(problem.lower - problem.upper, initial=-1.0))
        if (
            spread <= RESOLUTION
            and problem.lower.sum() <= 1 + RESOLUTION
            and problem.upper.sum() >= 1 - RESOLUTION
        ):
            return
    elif problem.polytope.inhabited or violation(limits, len(problem.sources))[0] <= 1e-11:
        return
    K = len(problem.sources)
    subset = irreducible(limits, K)
    total, excess = violation(limits, K)
    moves = {str(limits[i]): float(e) for i, e in enumerate(excess) if e > 1e-10}
    names = [str(s) for s in subset]
    if len(names) == 1:
        said = f"{names[0]} cannot hold"
    elif all(s.sense == ">=" and (s.coefficients > 0).sum() == 1 for s in subset):
        low = sum(s.value for s in subset)
        said = f"the lower limits {listed(names)} add up to {low:.6g}, more than 1"
    elif all(s.sense == "<=" and (s.coefficients > 0).sum() == 1 for s in subset):
        high = sum(s.value for s in subset)
        said = f"the upper limits {listed(names)} add up to {high:.6g}, less than 1"
    else:
        said = f"{listed(names)} contradict each other"
    ways = [limits[i].relief(float(excess[i])) for i in range(len(limits)) if excess[i] > 1e-10]
    others = _alternatives(limits, subset, moves)
    raise InfeasibleError(
        f"no mixture fits: {said}. The smallest change that mends all limits (by {total:.3g} of the mixture): "
        f"{' and '.join(ways)}{others}",
        names,
        moves,
    )


def _alternatives(limits: Sequence[Limit], subset: Sequence[Limit], moves: dict[str, float]) -> str:
    """Another limit of the subset that would do as well alone, by its own least move, where one alone does."""
    if len(moves) != 1:
        return ""
    K = len(subset[0].coefficients)
    for limit in subset:
        if str(limit) in moves or limit.kind == "law":
            continue
        by = _alone(limits, limit, K)
        # Within what the limit can be: a lower one not under 0, an upper one not over all of the mixture.
        if (
            by
            <= (limit.value if limit.sense == ">=" else float(limit.coefficients.max()) - limit.value) + 1e-9
        ):
            return f"; or {limit.relief(by)}"
    return ""


def _alone(limits: Sequence[Limit], moved: Limit, K: int) -> float:
    """How far one limit has to move for a mixture to satisfy all, the others as they are; infinite where it cannot."""
    rows, most = (np.array(x) for x in zip(*[s.row for s in limits], strict=True))
    found = linear_program(
        np.r_[np.zeros(K), 1.0], np.zeros(K + 1), np.r_[np.ones(K), np.inf], np.r_[np.ones(K), 0.0][None],
        np.ones(1), np.column_stack([rows, [-float(s is moved) for s in limits]]), most,
    )  # fmt: skip
    return float(found.x[K]) if found.status == 0 else np.inf


def violation(limits: Sequence[Limit], K: int) -> tuple[float, np.ndarray]:
    """Least sum of moves that makes limits on K weights satisfiable, and the moves (n,).

    Raises
    ------
    OptimizeError
        If HiGHS fails.
    """
    if not limits:
        return 0.0, np.empty(0)
    rows, most = (np.array(x) for x in zip(*[s.row for s in limits], strict=True))
    n = len(limits)
    # A tie goes to upper limits, which can usually be moved, and among them to the first.
    cost = 1.0 + 2e-5 * np.arange(n) / n + np.array([0.0 if s.sense == "<=" else 4e-5 for s in limits])
    found = linear_program(
        np.r_[np.zeros(K), cost], np.zeros(K + n), np.r_[np.ones(K), np.full(n, np.inf)],
        np.r_[np.ones(K), np.zeros(n)][None], np.ones(1), np.hstack([rows, -np.eye(n)]), most,
    )  # fmt: skip
    if found.status != 0:
        raise OptimizeError(
            f"HiGHS could not tell whether the limits can be met ({found.message.strip()}): leave some out"
        )
    moves = np.where(found.x[K:] > 1e-11, found.x[K:], 0.0)
    return float(moves.sum()), moves


def irreducible(limits: Sequence[Limit], K: int) -> list[Limit]:
    """A subset of contradictory limits that is not contradictory without any one of them: the deletion filter."""
    kept = list(limits)
    # Those with a price in the least violation contradict each other already: a start far smaller than all.
    rows, most = (np.array(x) for x in zip(*[s.row for s in kept], strict=True))
    n = len(kept)
    found = linear_program(
        np.r_[np.zeros(K), 1.0], np.zeros(K + 1), np.r_[np.ones(K), np.inf], np.r_[np.ones(K), 0.0][None],
        np.ones(1), np.hstack([rows, -np.ones((n, 1))]), most,
    )  # fmt: skip
    if found.status == 0:
        priced = [s for s, price in zip(kept, found.ineqlin.marginals, strict=True) if price < -1e-9]
        if priced and violation(priced, K)[0] > 1e-11:
            kept = priced
    for limit in list(kept):
        without = [s for s in kept if s is not limit]
        if without and violation(without, K)[0] > 1e-11:
            kept = without
    return kept


def proven_empty(polytope: Polytope) -> bool:
    """Whether no mixture keeps to the limits, proven by weak duality."""
    if polytope.simple:
        return polytope.lower.sum() > 1 + 1e-12 or polytope.upper.sum() < 1 - 1e-12
    m, K = len(polytope.most), len(polytope.lower)
    equal = np.vstack([polytope.equal[1:], -polytope.equal[1:]])
    rows = np.vstack([polytope.rows, equal])
    found = linear_program(
        np.r_[np.zeros(K), 1.0], np.r_[polytope.lower, 0.0], np.r_[polytope.upper, np.inf],
        np.r_[np.ones(K), 0.0][None], np.ones(1), np.hstack([rows, -np.ones((len(rows), 1))]),
        np.r_[polytope.most, polytope.equal_to[1:], -polytope.equal_to[1:]],
    )  # fmt: skip
    if found.status != 0 or found.fun < 1e-9:
        return found.status == 2 and bool(polytope.lower.sum() > 1 or polytope.upper.sum() < 1)
    y = np.maximum(-found.ineqlin.marginals, 0.0)
    q = (len(rows) - m) // 2
    return polytope.minimum(np.zeros(K), np.r_[y[:m], y[m : m + q] - y[m + q :]]) > 1e-10
