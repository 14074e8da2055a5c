"""Worst losses made smooth: CVaR and maximum as the barrier method sees them.

With caps c on the weights of S losses f, CVaR is the least t + sum of c_s max(f_s - t, 0), a linear program in t and S
slacks. Under the logarithmic barrier the slacks have a closed form and t one equation, so that Newton's method on the
mixture never sees them: what remains is a smooth convex function of the losses that increases in each. Its slopes are
weights p with 0 < p < c and sum 1, a point of the dual, which is what a certificate needs.
"""

from __future__ import annotations

import numpy as np


def worst(losses: np.ndarray, caps: np.ndarray) -> tuple[float, np.ndarray]:
    """CVaR of losses (S,), exactly, and weights (S,) that attain it: the caps, on the largest losses, up to sum 1.

    Examples
    --------
    >>> value, weights = worst(np.array([1.0, 4.0, 2.0, 3.0]), np.full(4, 0.5))
    >>> value, weights.tolist()
    (3.5, [0.0, 0.5, 0.0, 0.5])
    """
    order = np.argsort(-losses, kind="stable")
    filled = np.minimum(np.cumsum(caps[order]), 1.0)
    weights = np.zeros(len(losses))
    weights[order] = np.diff(filled, prepend=0.0)
    used = weights > 0
    return float(weights[used] @ losses[used]), weights


def smoothed(
    losses: np.ndarray, caps: np.ndarray, barrier: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rounded CVaR of losses (n, S), row by row: values (n,), first derivatives (n, S) and weights (n, S).

    `barrier` is one number or (n, 1). The Hessian of a row with weights q is diag(q) - q q' / sum(q). Caps (S,) that
    sum to 1 leave the mean, without curvature.
    """
    n, S = losses.shape
    room = float(caps.sum()) - 1
    if room <= 1e-12:
        return losses @ caps, np.tile(caps, (n, 1)), np.zeros((n, S))
    top = losses.max(axis=1, keepdims=True)
    f = losses - top
    low = f.min(axis=1, keepdims=True) - 1.01 * S * barrier / room
    high = np.full((n, 1), 1.01 * S * barrier)
    t = np.clip(0.0, low, high)
    for _ in range(200):
        a, b, p = _slacks(f - t, caps, barrier)
        excess = p.sum(1, keepdims=True) - 1
        low, high = np.where(excess > 0, t, low), np.where(excess > 0, high, t)
        new = t + excess / (barrier / (a * a + b * b)).sum(1, keepdims=True)
        new = np.where((new > low) & (new < high), new, 0.5 * (low + high))
        moved = np.abs(new - t) > 1e-15 * np.maximum(np.abs(t), barrier)
        if not moved.any():
            break
        t = new
    a, b, p = _slacks(f - t, caps, barrier)
    rest = (caps * a - barrier * (np.log(a) + np.log(b))).sum(1)
    return (top + t)[:, 0] + rest, p / p.sum(1, keepdims=True), barrier / (a * a + b * b)


def _slacks(
    r: np.ndarray, caps: np.ndarray, barrier: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For excesses r, the best slack a, b = a - r, and barrier / b; each to full precision."""
    root = np.sqrt(4 * barrier**2 + (caps * r) ** 2)
    far = np.abs(caps * r)
    large = (2 * barrier + far + root) / (2 * caps)  # a where r > 0, b where r < 0
    over = r > 0
    # barrier / a + barrier / b = caps gives the smaller from the larger.
    small = barrier / (caps - barrier / large)
    a, b = np.where(over, large, small), np.where(over, small, large)
    return a, b, barrier / b
