"""The problem linearised at one mixture: a linear program whose multipliers prove how good the mixture is."""

from __future__ import annotations

from typing import Any

import numpy as np

from lawkit.mixture.objective import Objective
from lawkit.mixture.polytope import Polytope


def multipliers(
    objective: Objective, polytope: Polytope, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Weights of the losses (S, used), prices of the constraints (c,) and of the polytope's rows; None if HiGHS fails.

    The program: least T + sum C_s W_s with W_s >= F_s - T, F_s = t_s + sum c_e w_se and w_se >= L_se - t_s, where
    L_se and the constraints are replaced by their tangents at h, and levels that are means are left out.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    losses, slopes = objective.expanded(h)
    g, g_slopes, _ = objective.constraints(h)
    S, K = len(losses), len(h)
    inner, outer = objective.domain_caps, objective.draw_caps
    nested, tailed = inner.sum() > 1 + 1e-12, outer.sum() > 1 + 1e-12
    if not nested:
        losses, slopes = (losses @ inner)[:, None], np.einsum("e,sek->sk", inner, slopes)[:, None]
    E = losses.shape[1]
    rows = S * E
    # Steps from h in columns: h - h0, then T, W, t and w where there are such levels.
    blocks: list[Any] = [sparse.csr_matrix(slopes.reshape(rows, K))]
    cost, low = [np.zeros(K)], [polytope.lower - h]
    draw = sparse.kron(sparse.eye(S), np.ones((E, 1)), format="csr")
    if nested:
        # Rows L_se - t_s - w_se <= 0.
        blocks += [-draw, -sparse.eye(rows)]
        cost += [np.full(S, 0.0 if tailed else 1 / S), np.tile(inner, S) * (0.0 if tailed else 1 / S)]
        low += [np.full(S, -np.inf), np.zeros(rows)]
        if tailed:
            blocks += [sparse.csr_matrix((rows, 1)), sparse.csr_matrix((rows, S))]
    elif tailed:
        blocks += [-np.ones((rows, 1)), -sparse.eye(S)]
    else:
        blocks += [-sparse.eye(S)]
        cost += [outer]
        low += [np.full(S, -np.inf)]
    if tailed:
        cost += [np.ones(1), outer]
        low += [np.full(1, -np.inf), np.zeros(S)]
    matrix, most = [sparse.hstack(blocks)], [-losses.ravel()]
    n = matrix[0].shape[1]
    if nested and tailed:  # F_s - T - W_s <= 0
        matrix.append(
            sparse.hstack([
                sparse.csr_matrix((S, K)), sparse.eye(S), sparse.kron(sparse.eye(S), inner[None]),
                -np.ones((S, 1)), -sparse.eye(S),
            ])
        )  # fmt: skip
        most.append(np.zeros(S))
    start = sum(len(m) for m in most)
    for part, limit in ((g_slopes, -g), (polytope.rows, polytope.most - polytope.rows @ h)):
        if len(limit):
            matrix.append(sparse.hstack([sparse.csr_matrix(part), sparse.csr_matrix((len(limit), n - K))]))
            most.append(limit)
    equal = sparse.hstack([
        sparse.csr_matrix(polytope.equal), sparse.csr_matrix((len(polytope.equal), n - K))
    ])  # fmt: skip
    a = sparse.vstack(matrix, format="csr")
    if not np.isfinite(a.data).all():
        return None
    found: Any = linprog(
        np.concatenate(cost), A_ub=a, b_ub=np.concatenate(most), A_eq=equal,
        b_eq=polytope.equal_to - polytope.equal @ h,
        bounds=np.column_stack([np.concatenate(low), np.r_[polytope.upper - h, np.full(n - K, np.inf)]]),
        method="highs",
    )  # fmt: skip
    if found.status != 0:
        return None
    y = np.maximum(-found.ineqlin.marginals, 0.0)
    weights = y[:rows].reshape(S, E)
    if not nested:
        weights = weights * inner
    total = weights.sum()
    if not total > 0:
        return None
    c = len(g)
    prices = np.r_[y[start + c :], -found.eqlin.marginals[1:]]
    return weights / total, y[start : start + c], prices
