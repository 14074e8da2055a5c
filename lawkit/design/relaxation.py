"""How much any batch could save at most: the design problem with fractions of runs, which is convex.

With lambda_c runs of candidate c, phi(lambda) = sum_g tr(A (Sigma^-1 + sum_c lambda_c J_c' R^-1 J_c)^-1 A')
is convex, and the batches within the limits are among the lambda >= 0 with cost . lambda <= budget and
sum lambda <= number. A handful of candidates carries the optimum, so the problem is solved on a subset by a
barrier method; then all candidates are priced, and those worth more than the limits' shadow prices join the subset.

The bound does not rest on the solver. phi lies above its tangent at any lambda, and the tangent's least value
over all candidates is bounded by weak duality with the two limits' multipliers. A semidefinite program
(cvxpy) would say the same; with 20,000 candidates of 8 domains it has 160,000 rank-one terms, and is beyond
what conic solvers take. The tests compare the two on instances small enough for both.
"""

from __future__ import annotations

import numpy as np

from lawkit.design.batch import Limits
from lawkit.design.candidates import Candidates
from lawkit.design.value import Posterior, Slopes

#: Relative difference of phi and its bound, in units of what can be saved, at which the bound is good enough.
ENOUGH = 2e-3
ROUNDS = 15
#: Candidates that join in a round, and the most that a round keeps.
JOIN, KEPT = 60, 240


def least(
    candidates: Candidates,
    slopes: Slopes,
    posterior: Posterior,
    factor: np.ndarray,
    limits: Limits,
    picks: list[int],
) -> float:
    """A lower bound on what is left of the criterion tr(A Sigma A') after any batch within the limits.

    Parameters
    ----------
    factor
        (G, r, P).
    picks
        A good batch to start from.
    """
    start = posterior.trace(factor)
    if start <= 0:
        return 0.0
    cost = candidates.flops / limits.budget
    cap = 1.0 if candidates.once else np.inf
    root = np.linalg.cholesky(_positive(posterior.covariance))
    scaled = factor @ root / np.sqrt(start)  # so that phi is 1 without runs
    chosen = list(dict.fromkeys(picks))
    inner = np.broadcast_to(np.eye(root.shape[-1]), root.shape)
    price = _prices(slopes, posterior, root, inner, scaled)
    mixture = np.unique(candidates.weights.round(6), axis=0, return_inverse=True)[1].ravel()
    chosen = list(dict.fromkeys([*chosen, *_diverse(price / cost, mixture), *_diverse(price, mixture)]))
    bound: float = 0.0
    for _ in range(ROUNDS):
        rows = np.stack([slopes.at(c) for c in chosen], 1) @ root[:, None] / posterior.noise[:, None, :, None]
        weight, multipliers = _barrier(rows, scaled, cost[chosen], limits.number, cap)
        inner, value, slope = _phi(weight, rows, scaled)
        price = _prices(slopes, posterior, root, inner, scaled)
        bound = max(
            bound, value + float(slope @ weight) - _most(price, cost, limits.number, cap, multipliers)
        )
        if value - bound <= ENOUGH * (1 - bound):
            break
        worth = price / (multipliers[0] * cost + multipliers[1])
        kept = [chosen[i] for i in np.argsort(-weight)[: KEPT - JOIN]]
        worth[kept] = 0.0
        chosen = kept + _diverse(worth, mixture)
    return start * float(np.clip(bound, 0.0, 1.0))


def _diverse(worth: np.ndarray, mixture: np.ndarray) -> list[int]:
    """The best candidate of each of the best mixtures: its scales are alike, one says it for all."""
    order = np.argsort(-worth)
    _, first = np.unique(mixture[order], return_index=True)
    return [c for c in order[np.sort(first)[:JOIN]].tolist() if worth[c] > 0]


def _positive(matrices: np.ndarray) -> np.ndarray:
    """Symmetric, with rounding below zero lifted."""
    even = 0.5 * (matrices + np.swapaxes(matrices, 1, 2))
    values, vectors = np.linalg.eigh(even)
    values = np.maximum(values, 1e-14 * np.maximum(values[:, -1:], 1e-300))
    return (vectors * values[:, None]) @ np.swapaxes(vectors, 1, 2)


def _most(price: np.ndarray, cost: np.ndarray, number: float, cap: float, multipliers: np.ndarray) -> float:
    """Most of price . lambda within the limits, from above, by weak duality."""
    a, b = multipliers
    if np.isinf(cap):
        # Multipliers scaled up until no candidate beats them are feasible for the dual problem.
        return float(np.max(price / (a * cost + b)) * (a + b * number))
    tries = []
    for factor in (0.9, 0.97, 0.99, 1.0, 1.01, 1.03, 1.1):
        over = price - factor * (a * cost + b)
        tries.append(factor * (a + b * number) + cap * float(over[over > 0].sum()))
    return min(tries)


def _prices(
    slopes: Slopes, posterior: Posterior, root: np.ndarray, inner: np.ndarray, scaled: np.ndarray
) -> np.ndarray:
    """(n,) rate at which phi falls with each candidate."""
    seen = root @ inner @ np.swapaxes(scaled, 1, 2)  # (G, P, r)
    out = np.empty(slopes.shape[1])
    for part, block in slopes.blocks():
        moved = np.matmul(block, seen[:, None]) / posterior.noise[:, None, :, None]
        out[part] = np.einsum("gnmr,gnmr->n", moved, moved)
    return out


def _phi(weight: np.ndarray, rows: np.ndarray, scaled: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Inverse information (G, P, P), phi, and its fall with each of q candidates; `rows` (G, q, m, P)."""
    size = rows.shape[-1]
    flat = rows * np.sqrt(weight)[None, :, None, None]
    flat = flat.reshape(len(rows), -1, size)
    inner = np.linalg.inv(np.eye(size) + np.swapaxes(flat, 1, 2) @ flat)
    seen = scaled @ inner
    moved = np.matmul(rows, np.swapaxes(seen, 1, 2)[:, None])
    return inner, float(np.sum(seen * scaled)), np.einsum("gqmr,gqmr->q", moved, moved)


def _barrier(
    rows: np.ndarray, scaled: np.ndarray, cost: np.ndarray, number: float, cap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nearly optimal weights (q,) on a subset, and the multipliers of the budget (1) and of the number."""
    groups, q, m, size = rows.shape
    weight = 0.25 * np.minimum(np.minimum(1 / (q * cost), number / q), cap)
    mu = 1e-2 / q

    def barrier(w: np.ndarray) -> float:
        slack = np.concatenate(
            [w, [1 - cost @ w, number - w.sum()], *([cap - w] if np.isfinite(cap) else [])]
        )
        return -np.log(slack).sum() if (slack > 0).all() else np.inf

    while True:
        for _ in range(50):
            inner, value, slope = _phi(weight, rows, scaled)
            flat = rows.reshape(groups, -1, size)
            left = flat @ inner
            seen = left @ np.swapaxes(scaled, 1, 2)
            hessian = 2 * np.einsum(
                "gij,gij->ij", left @ np.swapaxes(flat, 1, 2), seen @ np.swapaxes(seen, 1, 2)
            )
            hessian = hessian.reshape(q, m, q, m).sum((1, 3))
            spare, room = 1 - cost @ weight, number - weight.sum()
            gradient = -slope - mu / weight + mu * cost / spare + mu / room
            hessian += np.diag(mu / weight**2) + mu * np.outer(cost, cost) / spare**2 + mu / room**2
            if np.isfinite(cap):
                gradient += mu / (cap - weight)
                hessian += np.diag(mu / (cap - weight) ** 2)
            size_of = np.sqrt(np.diag(hessian))
            step = -np.linalg.solve(hessian / np.outer(size_of, size_of), gradient / size_of) / size_of
            decrement = -float(gradient @ step)
            if decrement < 0.05 * mu:
                break
            now, length = value + mu * barrier(weight), 1.0
            while length > 1e-9:
                trial = weight + length * step
                if (
                    np.isfinite(b := barrier(trial))
                    and _phi(trial, rows, scaled)[1] + mu * b <= now - 1e-4 * length * decrement
                ):
                    break
                length *= 0.5
            else:
                break
            weight = trial
        if mu < 1e-3 * ENOUGH / q:
            return weight, np.array([mu / (1 - cost @ weight), mu / (number - weight.sum())])
        mu *= 0.1
