"""What a fit predicts at points: losses, held at what was seen where a law overshoots, and their bands."""

from __future__ import annotations

from collections.abc import Callable
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
#: More draws than this do not move a quantile.
_MOST_DRAWS = 1000
_CALLED = {"laplace": "Laplace posterior", "nuts": "NUTS posterior", "bootstrap": "bootstrap"}
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
    law_says = fit.estimate.losses(x)
    mean = hold(fit, x, law_says)
    capped = int((mean < law_says).sum())
    if interval is None:
        return Prediction(mean=mean, capped=capped)
    if fit.draws is None:
        kind = "Gauss-Newton posterior predictive"
        below = above = plain_half_width(fit, x, law_says, interval)
    else:
        kind = f"{_CALLED[fit.draws.kind]} predictive"
        below, above = _of_draws(fit, x, law_says, interval)
    widened, how = _widened(fit, x, interval)
    below, above = (np.minimum(widened(half), 500.0) for half in (below, above))  # e^500: anything goes
    return Prediction(
        mean=mean, lower=mean * np.exp(-below), upper=mean * np.exp(above), level=interval, kind=kind + how,
        capped=capped,
    )  # fmt: skip


def plain_half_width(fit: Fit, x: Inputs, said: np.ndarray, level: float) -> np.ndarray:
    """(n, E) half widths of the Gauss-Newton posterior predictive on log loss; `said` are the law's losses (n, E)."""
    from scipy.special import ndtri

    return ndtri(0.5 + level / 2) * np.hypot(parameter_sd(fit, x, said), fit.noise_at(x.n_tokens))


def parameter_sd(fit: Fit, x: Inputs, said: np.ndarray) -> np.ndarray:
    """(n, E) standard deviation of the law's log loss by the covariance of its parameters alone."""
    e = fit.estimate
    with np.errstate(all="ignore"):
        slope = tame(e.parameter_jacobian(x) / said[:, :, None])  # (n, E, P)
    variance = [((slope[:, i] @ e.covariance_of(i)) * slope[:, i]).sum(1) for i in range(len(e.domains))]
    return np.sqrt(np.maximum(np.stack(variance, 1), 0.0))


def _of_draws(fit: Fit, x: Inputs, said: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, E) each: how far the predictive quantiles of the draws lie below and above the law's log loss."""
    draws, rng = fit.draws, np.random.default_rng(0)
    assert draws is not None
    S = min(len(draws), _MOST_DRAWS)
    which = np.linspace(0, len(draws) - 1, S).astype(int)
    shift = np.einsum(
        "sec,nc->sne", draws.eta[which], draws.noise_model.columns(x.n_params, x.weights)
    ) if draws.eta.shape[2] else np.zeros((1, 1, 1))  # fmt: skip
    # Student-t as a normal over the root of a scaled chi-square; the noise of a run is one for all points.
    nu = draws.nu[which][:, None]
    heavy = np.isfinite(nu)
    shrunk = np.where(heavy, rng.chisquare(np.where(heavy, nu, 1.0)) / np.where(heavy, nu, 1.0), 1.0)
    unit = rng.standard_normal((S, 1, said.shape[1])) / np.sqrt(shrunk)
    scale = fit.noise_at(x.n_tokens) / fit.noise
    tails = [0.5 - level / 2, 0.5 + level / 2]
    low, high = np.empty_like(said), np.empty_like(said)
    step = max(1, int(2e7 / (S * said.shape[1] * max(1, len(fit.sources)))))
    for at in range(0, len(said), step):
        part = slice(at, at + step)
        with np.errstate(all="ignore"):
            log = np.log(fit.estimate.losses_at(draws.z[which], x.rows(part)) / said[part])
        moved = shift if shift.shape[1] == 1 else shift[:, part]
        log = np.where(np.isfinite(log), log, 0.0) + unit * draws.noise[which][:, None] * scale[
            part
        ] * np.exp(moved)
        low[part], high[part] = np.quantile(log, tails, axis=0)
    return np.maximum(-low, 0.0), np.maximum(high, 0.0)


def _widened(fit: Fit, x: Inputs, level: float) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """What `lawkit.fitting.bands` makes of half widths (n, E) at these points, and words for it."""
    from scipy.special import ndtri

    from lawkit.fitting.bands import ELASTICITY, LEVEL, distances

    distance, guess = distances(fit, x)
    outside, unseen = distance > SAME_SIZE, guess > SAME_SIZE
    if not (outside.any() or unseen.any()):
        return lambda half: half, ""
    rolling, how = fit.rolling, ""
    scaled = ndtri(0.5 + level / 2) / ndtri(0.5 + LEVEL / 2)
    least, factor = np.zeros((len(distance), 1)), np.ones((len(distance), 1))
    if outside.any() and rolling is not None:
        least = np.where(outside[:, None], rolling.half_width(distance + guess) * scaled, 0.0)
        factor = np.where(outside[:, None], rolling.factor, 1.0)
        how += ", widened to the errors of earlier forecasts (rolling origin) beyond the fitted scales"
    elif outside.any():
        how += ", not widened beyond the fitted scales as the runs are too few for an earlier forecast"
    if unseen.any():
        how += (
            ", and by a guess for a size that never varied"
            if how
            else ", widened by a guess for a size that never varied"
        )
    by_guess = (ELASTICITY * scaled * np.where(unseen, guess, 0.0))[:, None]
    return lambda half: np.hypot(factor * np.maximum(half, least), by_guess), how


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
