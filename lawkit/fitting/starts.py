"""Starting points: draws or a grid over what is searched, what enters linearly solved for (variable projection)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from lawkit.fitting.solver import LeastSquares
from lawkit.laws._law import Law, PriorContext

#: Candidates per start where they are drawn at random, and per searched parameter where there are one or two.
_DRAWS, _GRID = 16, 14


def starting_points(
    problem: LeastSquares, law: Law, context: PriorContext, count: int, seed: int
) -> np.ndarray:
    """(G, count, P) starts: each the best of its own random share of the candidates.

    So a start is good, and the starts still differ, which makes the fraction of them that end at the same
    optimum worth reporting.
    """
    rng = np.random.default_rng(seed)
    if any(p.prior for p in law.parameters):
        return law.draw_starts(rng, context, count)
    where = law.layout(context.n_sources)
    searched = [p for p in law.parameters if p.name not in law.linear]
    if 1 <= len(searched) <= 2 and not any(p.per_source for p in searched) and law.linear:
        axes = []
        for p in searched:
            low, high = law.unconstrained_range(p)
            axes.append(np.linspace(low, high, _GRID))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(searched))
        candidates = np.zeros((len(context.own), len(grid), law.n_parameters(context.n_sources)))
        for column, p in enumerate(searched):
            candidates[..., where[p.name].start] = grid[:, column]
    else:
        candidates = law.draw_starts(rng, context, count * _DRAWS)
    drawn_count = candidates.shape[1]
    each = max(1, drawn_count // count)
    # A grid may be smaller than the number of starts: it is then used more than once.
    shares = rng.permutation(drawn_count)[np.arange(count * each) % drawn_count].reshape(count, each)
    out = np.empty((len(candidates), count, candidates.shape[2]))
    for group, drawn in enumerate(candidates):
        groups = np.full(len(drawn), group)
        if law.linear:
            drawn = _solve_linear(problem, law, drawn, group)
        elif law.linear_own:
            drawn = _solve_linear_own(problem, law, drawn, group)
        cost = problem.cost(drawn, groups)
        for i, share in enumerate(shares):
            out[group, i] = drawn[share[np.argmin(cost[share])]]
    return out


def _solve_linear(problem: LeastSquares, law: Law, z: np.ndarray, group: int) -> np.ndarray:
    """Fills the linear parameters of each row of z (C, P) by least squares on relative residuals.

    Non-negative where the parameter is positive: every subset of them is tried as the ones that are not zero.
    """
    n_sources = problem.inputs.weights.shape[1]
    columns = np.array([law.layout(n_sources)[name].start for name in law.linear])
    positive = np.array([p.support == "positive" for p in law.parameters if p.name in law.linear])
    z = z.copy()
    z[:, columns] = np.where(positive, 0.0, 1.0)  # log 1, or 1: the derivative is then the coefficient itself
    groups = np.full(len(z), group)
    value, slope = problem.function.jacobian(z, problem.inputs.take(groups), only=frozenset(law.linear))
    observed = problem.target.losses[group].ravel()
    weight = np.sqrt(problem.target.cell_weights[group].ravel()) / observed
    basis = slope.reshape(len(z), -1, z.shape[1])[..., columns]
    with np.errstate(all="ignore"):
        wanted = (observed - value.reshape(len(z), -1) + basis.sum(-1)) * weight
        design = basis * weight[:, None]
        gram = np.swapaxes(design, 1, 2) @ design
        moment = (wanted[:, None, :] @ design)[:, 0]
        total = (wanted**2).sum(1)
    # Where the law is not finite nothing is solved for: the candidate's own cost will rule it out.
    bad = ~(np.isfinite(gram).all((1, 2)) & np.isfinite(moment).all(1) & np.isfinite(total))
    gram[bad], moment[bad], total[bad] = np.eye(len(columns)), 0.0, 0.0
    size = np.sqrt(np.einsum("cll->cl", gram)) + 1e-300
    gram, moment = gram / size[:, :, None] / size[:, None, :], moment / size
    solution = _nonnegative(gram, moment, positive) / size
    floor = np.maximum(1e-4 * np.sqrt(total)[:, None] / size, 1e-300)
    z[:, columns] = np.where(positive, np.log(np.maximum(solution, floor)), solution)
    return np.clip(z, -300.0, 300.0)


def _solve_linear_own(problem: LeastSquares, law: Law, z: np.ndarray, group: int) -> np.ndarray:
    """The same for the elements [own] of a coupled law's vectors: each domain's own few, apart from the others'."""
    n_sources = problem.inputs.weights.shape[1]
    own = problem.inputs.own[0]
    where = law.layout(n_sources)
    columns = np.array([where[name].start + own for name in law.linear_own])  # (L, E)
    z = z.copy()
    z[:, columns] = 0.0  # log 1: the derivative is then the coefficient itself
    groups = np.full(len(z), group)
    value, slope = problem.function.jacobian(z, problem.inputs.take(groups), only=frozenset(law.linear_own))
    with np.errstate(all="ignore"):
        weight = np.sqrt(problem.target.cell_weights[group]) / problem.target.losses[group]  # (n, E)
        domain = np.arange(len(own))
        design = np.stack([slope[:, :, domain, c] for c in columns], -1)  # (C, n, E, L)
        wanted = (problem.target.losses[group] - value + design.sum(-1)) * weight
        design = design * weight[..., None]
        gram = np.einsum("cnel,cnem->celm", design, design).reshape(-1, len(columns), len(columns))
        moment = np.einsum("cnel,cne->cel", design, wanted).reshape(-1, len(columns))
    bad = ~(np.isfinite(gram).all((1, 2)) & np.isfinite(moment).all(1))
    gram[bad], moment[bad] = np.eye(len(columns)), 0.0
    size = np.sqrt(np.einsum("cll->cl", gram)) + 1e-300
    positive = np.ones(len(columns), bool)
    solution = _nonnegative(gram / size[:, :, None] / size[:, None, :], moment / size, positive) / size
    solution = np.maximum(solution, 1e-3 * solution.max(1, keepdims=True) + 1e-300)
    z[:, columns.T] = np.log(solution).reshape(len(z), len(own), len(columns))
    return z


def _nonnegative(gram: np.ndarray, moment: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Least squares (C, L) with those of the few unknowns that are `positive` (L,) kept from below 0.

    Every subset of them is tried as the ones that are not zero. `gram` (C, L, L) has a unit diagonal.
    """
    best = np.full(len(gram), np.inf)
    solution = np.zeros_like(moment)
    free, bounded = np.flatnonzero(~positive), np.flatnonzero(positive)
    for used in range(len(bounded), -1 if len(free) else 0, -1):
        for subset in combinations(bounded, used):
            s = sorted([*free, *subset])
            a = np.linalg.solve(gram[:, s][:, :, s] + 1e-12 * np.eye(len(s)), moment[:, s, None])[..., 0]
            # |wanted - design a|^2 less the constant |wanted|^2, at the least-squares solution
            misfit = -(a * moment[:, s]).sum(1)
            take = ((a > 0) | ~positive[s]).all(1) & (misfit < best)
            best = np.where(take, misfit, best)
            filled = np.zeros_like(solution)
            filled[:, s] = a
            solution = np.where(take[:, None], filled, solution)
    return solution
