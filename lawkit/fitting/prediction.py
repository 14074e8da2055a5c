"""What a fit predicts at points: losses, held at what was seen where a law overshoots, and their bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.solver import tame

if TYPE_CHECKING:
    from lawkit.fitting.result import Fit
    from lawkit.laws._function import Inputs

#: Sizes that differ by less than this, in logs, are one size.
SAME_SIZE = 0.02
#: Weights that sum to 1 within this are normalised.
SUM_WITHIN = 1e-3


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted losses.

    Attributes
    ----------
    mean
        (n, E) nats per token.
    lower, upper
        (n, E) ends of the central band; None unless asked for.
    level
        Its nominal coverage.
    kind
        What sort of band it is.
    capped
        How many cells were held at the domain's highest observed loss.
    warnings
        Sizes that were asked for and change nothing.
    """

    mean: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    level: float | None = None
    kind: str | None = None
    capped: int = 0
    warnings: tuple[str, ...] = ()


def predict(fit: Fit, x: Inputs, interval: float | None) -> Prediction:
    """See `Fit.predict`."""
    if interval is not None and not 0 < interval < 1:
        raise FitError(f"interval must lie between 0 and 1, got {interval!r}")
    e = fit.estimate
    law_says = e.losses(x)
    mean = hold(fit, x, law_says)
    capped = int((mean < law_says).sum())
    if interval is None:
        return Prediction(mean=mean, capped=capped)
    from scipy.stats import norm

    with np.errstate(all="ignore"):
        slope = tame(e.parameter_jacobian(x) / law_says[:, :, None])  # (n, E, P)
    variance = np.stack(
        [((slope[:, i] @ e.covariance_of(i)) * slope[:, i]).sum(1) for i in range(len(e.domains))], 1
    )
    half = norm.ppf(0.5 + interval / 2) * np.sqrt(np.maximum(variance, 0.0) + fit.noise_at(x.n_tokens) ** 2)
    kind = "Gauss-Newton posterior predictive"
    further = beyond(fit, x)
    if fit.holdout_spread is not None and fit.holdout_reach > 0:
        # The held-out quantile is of the 90% kind; other levels scale it as a normal would.
        level = norm.ppf(0.5 + interval / 2) / norm.ppf(0.95)
        spread = fit.holdout_spread * level * np.maximum(1.0, further[:, None] / fit.holdout_reach)
        half = np.where(further[:, None] > SAME_SIZE, np.maximum(half, spread), half)
        kind += ", widened to the held-out errors beyond the fitted scales"
    elif (further > SAME_SIZE).any():
        kind += ", not widened beyond the fitted scales as no larger scale was held out"
    half = np.minimum(half, 500.0)  # e^500: anything goes
    return Prediction(
        mean=mean, lower=mean * np.exp(-half), upper=mean * np.exp(half), level=interval, kind=kind, capped=capped
    )  # fmt: skip


def hold(fit: Fit, x: Inputs, losses: np.ndarray) -> np.ndarray:
    """Losses (n, E) of the law, those above the highest one seen held at it where `Fit.predict` says so."""
    if "weights" not in fit.law.columns:
        return losses
    observed = fit.observed
    reached = np.stack([_above_a_run(fit, x, ~np.isnan(column)) for column in observed.T], 1)
    ceiling = np.nanmax(observed, 0)
    return np.where(reached & (losses > ceiling), ceiling, losses)


def _above_a_run(fit: Fit, x: Inputs, among: np.ndarray) -> np.ndarray:
    """(n,) whether one of the runs `among` has at most the point's n_params and at most its n_tokens."""
    zero = np.zeros(len(fit.runs))
    n_run, d_run = (zero if v is None else np.log(v) for v in (fit.runs.n_params, fit.runs.n_tokens))
    n_asked, d_asked = (
        np.zeros(len(x.weights)) if fitted is None else np.log(asked) + SAME_SIZE
        for asked, fitted in ((x.n_params, fit.runs.n_params), (x.n_tokens, fit.runs.n_tokens))
    )
    n_run, d_run = n_run[among], d_run[among]
    order = np.argsort(n_run)
    fewest = np.minimum.accumulate(np.r_[np.inf, d_run[order]])  # tokens among the k smallest models
    return fewest[np.searchsorted(n_run[order], n_asked, "right")] <= d_asked


def beyond(fit: Fit, x: Inputs) -> np.ndarray:
    """(n,) how far points lie beyond the fitted runs, in log compute; 0 for points within.

    The larger of two excesses: of n_params x n_tokens over the most of any one run, and, summed, of
    each size over its own largest. The first sees the corner that no run of an anti-diagonal of sizes reaches,
    the second a model larger than all that saw few tokens.
    """
    each, compute, most = np.zeros(len(x.weights)), np.zeros(len(x.weights)), np.zeros(len(fit.runs))
    for asked, fitted in ((x.n_params, fit.runs.n_params), (x.n_tokens, fit.runs.n_tokens)):
        if fitted is not None:
            each += np.maximum(np.log(asked / fitted.max()), 0.0)
            compute, most = compute + np.log(asked), most + np.log(fitted)
    return np.maximum(each, compute - most.max())


def points(fit: Fit, n_params: Any, n_tokens: Any, weights: Any, unique: Any) -> tuple[Any, Any, Any, Any]:
    """Weights (n, K) first, then sizes and unique tokens, checked and of one length.

    Raises
    ------
    FitError
        Naming what is missing, of the wrong shape or out of range.
    """
    sizes: dict[str, np.ndarray | None] = {}
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
        sizes[name] = size = None if value is None else np.atleast_1d(np.asarray(value, float))
        if size is not None and not ((size > 0) & np.isfinite(size)).all():
            raise FitError(f"{name} must be positive, got {value!r}")
    weights = _mixtures(fit, weights)
    law = fit.law
    unique = None if unique is None else np.atleast_2d(np.asarray(unique, float))
    if "unique" in law.columns and unique is None:
        raise FitError(f"law {law.name!r} needs `unique`, the tokens that exist of each source")
    given = {"weights": weights, "unique": unique, **sizes}
    lengths = {name: len(v) for name, v in given.items() if v is not None and len(v) != 1}
    if len(set(lengths.values())) > 1:
        raise FitError(
            f"one row per point is needed, got {', '.join(f'{k} for {v}' for k, v in lengths.items())}"
        )
    n = max(lengths.values(), default=1)
    if "unique" in law.columns and np.isnan(np.where(weights > 0, unique, 0.0)).any():  # type: ignore[arg-type]
        raise FitError(f"law {law.name!r} needs `unique` of every source with a weight; some are missing")
    wide = {k: None if v is None else np.broadcast_to(v, (n, *v.shape[1:])) for k, v in given.items()}
    return wide["weights"], wide["n_params"], wide["n_tokens"], wide["unique"]


def _mixtures(fit: Fit, weights: Any) -> np.ndarray:
    """(n, K) weights, checked; rows that miss 1 by rounding are normalised."""
    K = len(fit.sources)
    if weights is None:
        if "weights" in fit.law.columns:
            raise FitError(
                f"law {fit.law.name!r} needs weights of its {K} sources ({', '.join(fit.sources)})"
            )
        return np.full((1, K), 1 / max(1, K))  # of no consequence
    weights = np.atleast_2d(np.asarray(weights, float))
    if weights.ndim != 2 or weights.shape[1] != K:
        raise FitError(
            f"weights need one column for each of {K} sources ({', '.join(fit.sources)}), got shape {weights.shape}"
        )
    if (bad := ~((weights >= 0) & np.isfinite(weights))).any():
        row, column = np.argwhere(bad)[0]
        raise FitError(
            f"weights must be finite and not negative, got {weights[row, column]:g} for {fit.sources[column]} "
            f"in point {row + 1}"
        )
    if "weights" not in fit.law.columns:
        return weights
    total = weights.sum(1)
    if (off := np.abs(total - 1) > SUM_WITHIN).any():
        row = int(np.argmax(off))
        raise FitError(
            f"weights of a mixture must sum to 1, those of point {row + 1} sum to {total[row]:.6g}: "
            "divide them by their sum, or add the source that is missing"
        )
    # Sums that are 1 but for the last bits are left alone, so that a table's rows predict what they did.
    return np.where(np.abs(total - 1)[:, None] > 1e-12, weights / total[:, None], weights)
