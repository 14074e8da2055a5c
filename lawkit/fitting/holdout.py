"""Which runs are held out to see how a fit extrapolates, and the errors it makes."""

from __future__ import annotations

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.clusters import tied
from lawkit.fitting.prepare import distinct
from lawkit.runs import Runs

#: Up to this many model sizes (or token counts) the largest one is held out; beyond, the top fifth of compute.
_FEW = 12


def split(runs: Runs, holdout: str | float | None, seed: int) -> tuple[np.ndarray, str] | None:
    """Mask (n,) of the runs to hold out and a phrase for them; None for no hold-out.

    'scale' holds out the largest model size; with one size the largest token count; where sizes are many,
    the fifth of the runs with the most compute; and with one scale in all, a random fifth. A fraction holds out
    that share of the runs at random; checkpoints of one run, and repeats of one setting, stay together.

    Raises
    ------
    FitError
        For anything else than 'scale', 'none' or a fraction in (0, 1).
    """
    if holdout is None or holdout == "none":
        return None
    if holdout != "scale":
        try:
            fraction = float(holdout)
        except (TypeError, ValueError):
            fraction = -1.0
        if not 0 < fraction < 1:
            raise FitError(f"holdout must be 'scale', 'none' or a fraction between 0 and 1, got {holdout!r}")
        return _some(_random(runs, fraction, seed), f"a random {fraction:.0%} of the runs")
    sizes = 1 if runs.n_params is None else distinct(runs.n_params)
    budgets = 1 if runs.n_tokens is None else distinct(runs.n_tokens)
    if runs.n_params is not None and 1 < sizes <= _FEW:
        largest = runs.n_params.max()
        return runs.n_params >= largest / 1.02, f"n_params {largest:.4g}"
    if runs.n_tokens is not None and sizes == 1 and 1 < budgets <= _FEW:
        largest = runs.n_tokens.max()
        return runs.n_tokens >= largest / 1.02, f"n_tokens {largest:.4g}"
    if sizes > 1 or budgets > 1:
        compute = np.ones(len(runs))
        for size in (runs.n_params, runs.n_tokens):
            compute = compute if size is None else compute * size
        if (held := compute > np.quantile(compute, 0.8)).any():
            return held, "the fifth of the runs with the most compute"
        return _some(_random(runs, 0.2, seed), "a random 20% of the runs (most share the largest compute)")
    return _some(_random(runs, 0.2, seed), "a random 20% of the runs (they share one scale)")


def _some(held: np.ndarray, what: str) -> tuple[np.ndarray, str] | None:
    """None where the mask leaves nothing to fit or nothing to judge by."""
    return (held, what) if held.any() and not held.all() else None


def _random(runs: Runs, fraction: float, seed: int) -> np.ndarray:
    group = tied(runs)
    count = group.max() + 1
    held = np.random.default_rng(seed).permutation(count)[: max(1, round(fraction * count))]
    return np.isin(group, held)


def errors(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float | None]:
    """mre, mae and rmse over all cells with an observed loss; None where there is none, or they are not finite."""
    seen = ~np.isnan(observed)
    if not seen.any():
        return {"mre": None, "mae": None, "rmse": None}
    with np.errstate(all="ignore"):
        miss = (predicted - observed)[seen]
        found = {
            "mre": float(np.mean(np.abs(miss) / observed[seen])),
            "mae": float(np.mean(np.abs(miss))),
            "rmse": float(np.sqrt(np.mean(miss**2))),
        }
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
