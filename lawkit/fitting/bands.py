"""Bands that hold beyond the runs: as wide as the law's earlier forecasts on the same runs were wrong.

The law is fitted again to the runs of least compute, at several cuts, and each of these fits forecasts the runs above
its cut. The errors of such forecasts grow with the distance forecast, and they hold what no posterior under the law
does: that the law itself bends away. So the half width of a band, on log loss, is the largest of

    the posterior predictive's half width;
    a line a + b x distance under which nine tenths of the errors lie, by domain and over all domains;

times a factor: how much too narrow such bands, made of the errors below each cut alone, were above it at worst; its
square if they were at every cut, and always to the same side, since a law that has always bent away bends further. A
size that takes one value in the runs cannot be forecast from them. There the loss of published tables falls by .05 to
.2 for each unit of the size's logarithm, and a fit that has seen none of it is given ELASTICITY per unit to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.estimate import estimate
from lawkit.fitting.prediction import hold, plain_half_width
from lawkit.fitting.prepare import distinct, fitted_cells
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting.result import Fit
    from lawkit.laws._function import Inputs

#: Shares of the runs, by compute, that the earlier fits are made of.
ORIGINS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Coverage that the lines and the factor are made for; others scale as a normal's quantiles do.
LEVEL = 0.9
#: Error of the fall of log loss per unit of log size that a fit may make in a size that never varied, at LEVEL.
ELASTICITY = 0.1
#: From so many cuts on, too narrow at all of them is no chance.
_CUTS = 3
#: Errors lean to one side if their mean is this part of their root mean square; of a normal about 0 it is near 0.
_LEAN = 0.4
#: Fewer errors say nothing.
_FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class Rolling:
    """What the earlier forecasts of a law on its runs say of the next one.

    Attributes
    ----------
    lines
        (E, 2) intercept and slope in the distance, of the larger half of log residuals at LEVEL; by domain.
    pooled
        (2,) over all domains.
    reach
        The farthest distance among the errors.
    factor
        By which bands made so were too narrow at the worst cut, or its square; at least 1.
    origins, errors
        How many earlier fits, and how many of their errors.
    mean_error
        (origins, E) mean absolute log residual of each one's forecasts; NaN where there is none.
    judged, narrow
        At how many cuts such bands could be judged, and at how many they were too narrow.
    one_sided
        Whether the forecasts at these cuts all erred to the same side, for the most part.
    """

    lines: np.ndarray
    pooled: np.ndarray
    reach: float
    factor: float
    origins: int
    errors: int
    mean_error: np.ndarray
    judged: int = 0
    narrow: int = 0
    one_sided: bool = False

    @property
    def bends_away(self) -> bool:
        """Whether the bands were too narrow, and to the same side, at every cut of three or more."""
        return self.one_sided and self.narrow == self.judged >= _CUTS

    def half_width(self, distance: np.ndarray) -> np.ndarray:
        """(n, E) half widths on log loss, at LEVEL and before the factor, for points at `distance` (n,)."""
        d = distance[:, None]
        return np.maximum(self.lines[:, 0] + self.lines[:, 1] * d, self.pooled[0] + self.pooled[1] * d)


@dataclass(frozen=True)
class _Forecast:
    """One earlier fit's: which rows (n,), how far (n,), log residuals and plain half widths (n, E)."""

    rows: np.ndarray
    distance: np.ndarray
    error: np.ndarray
    plain: np.ndarray

    def select(self, keep: np.ndarray) -> _Forecast:
        return _Forecast(self.rows[keep], self.distance[keep], self.error[keep], self.plain[keep])

    @property
    def lean(self) -> float:
        """Mean error over the root of the mean square: 1 if all are alike, 0 if there is no error to lean."""
        known = self.error[np.isfinite(self.error)]
        size = np.sqrt(np.mean(known**2)) if len(known) else 0.0
        return float(np.mean(known) / size) if size else 0.0


def rolling_origin(fit: Fit) -> Rolling | None:
    """Refits the law to the runs of least compute at several cuts, and learns from its forecasts.

    Returns
    -------
    Rolling or None
        None where the runs have one scale, or are too few for an earlier fit.
    """
    order = compute(fit.runs)
    if order is None:
        return None
    forecasts: list[_Forecast] = []
    warm = fit.z
    for share in reversed(ORIGINS):
        below = order <= np.quantile(order, share) * 1.001
        if below.all() or (forecasts and len(forecasts[-1].rows) == (~below).sum()):
            continue
        try:
            earlier, _ = estimate(
                fit.runs.select(below), fit.law, fit.estimate.objective, fit.estimate.min_weight, warm=warm
            )
        except FitError:  # too few runs below the cut
            continue
        if earlier.domains != fit.domains:
            continue
        warm = earlier.z
        forecasts.append(
            _errors(replace(fit, runs=fit.runs.select(below), estimate=earlier), fit.runs, ~below)
        )
    forecasts.reverse()
    return _learnt(forecasts, len(fit.domains))


def compute(runs: Runs) -> np.ndarray | None:
    """(n,) product of the sizes that vary, in the order of which runs are cheap or dear; None if none does."""
    vary = [v for v in (runs.n_params, runs.n_tokens) if v is not None and distinct(v) > 1]
    return np.prod(vary, axis=0) if vary else None


def distances(fit: Fit, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """How far points lie outside the fitted runs, in log size: (n,) in sizes that vary, and (n,) in those that do not.

    The first is the largest of three: what n_params x n_tokens has over the most of any one run (the corner that no
    run of an anti-diagonal of sizes reaches); the excess of each size over its own largest, summed (a model larger
    than all that saw few tokens); and what each lacks to its own smallest, summed.
    """
    zero = np.zeros(len(x.weights))
    above, below, asked_compute, guess = zero.copy(), zero.copy(), zero.copy(), zero.copy()
    most = np.zeros(len(fit.runs))
    for asked, fitted in ((x.n_params, fit.runs.n_params), (x.n_tokens, fit.runs.n_tokens)):
        if fitted is None:
            continue
        if distinct(fitted) == 1:
            guess += np.abs(np.log(asked / fitted.mean()))
            continue
        above += np.maximum(np.log(asked / fitted.max()), 0.0)
        below += np.maximum(np.log(fitted.min() / asked), 0.0)
        asked_compute, most = asked_compute + np.log(asked), most + np.log(fitted)
    return np.maximum.reduce([above, below, asked_compute - most.max()]), guess


def _errors(earlier: Fit, runs: Runs, which: np.ndarray) -> _Forecast:
    """Forecasts of the runs that an earlier fit has not seen."""
    test, e = runs.select(which), earlier.estimate
    x = e.inputs(test.weights, test.n_params, test.n_tokens, test.unique)
    said = e.losses(x)
    observed = test.losses[:, [test.domains.index(d) for d in e.domains]]
    observed = np.where(fitted_cells(test, e.own, e.min_weight), observed, np.nan)
    with np.errstate(all="ignore"):
        miss = np.log(observed / hold(earlier, x, said))
    miss[~np.isfinite(miss)] = np.nan
    distance, guess = distances(earlier, x)
    return _Forecast(np.flatnonzero(which), distance + guess, miss, plain_half_width(earlier, x, said, LEVEL))


def _learnt(forecasts: list[_Forecast], n_domains: int) -> Rolling | None:
    """Lines under the errors of all forecasts, and how such lines did at each cut that has two cuts below."""
    found = _lines(forecasts, n_domains)
    if found is None:
        return None
    ratios: list[float] = []
    leans: list[float] = []
    for k in range(1, len(forecasts)):
        # What was known when forecast k was made: the errors, of the earlier ones, below its own cut.
        known = [f.select(~np.isin(f.rows, forecasts[k].rows)) for f in forecasts[:k]]
        then, now = _lines(known, n_domains), forecasts[k]
        if then is None:
            continue
        ratio = np.abs(now.error) / np.maximum(then.half_width(now.distance), now.plain)
        if (seen := ~np.isnan(ratio)).any():
            ratios.append(float(np.quantile(ratio[seen], LEVEL)))
            leans.append(now.lean)
    worst = max([1.0, *ratios])
    one_sided = bool(leans) and (min(leans) > _LEAN or max(leans) < -_LEAN)
    found = replace(found, judged=len(ratios), narrow=sum(r > 1 for r in ratios), one_sided=one_sided)
    return replace(found, factor=worst**2 if found.bends_away else worst)


def _lines(forecasts: list[_Forecast], n_domains: int) -> Rolling | None:
    if not forecasts:
        return None
    distance = np.concatenate([f.distance for f in forecasts])
    error = np.abs(np.concatenate([f.error for f in forecasts]))
    seen = ~np.isnan(error)
    if seen.sum() < _FEWEST:
        return None
    pooled = _line(np.broadcast_to(distance[:, None], error.shape)[seen], error[seen])
    own = [
        _line(distance[seen[:, e]], error[seen[:, e], e]) if seen[:, e].sum() >= 3 else pooled
        for e in range(n_domains)
    ]
    each = [np.nansum(np.abs(f.error), 0) for f in forecasts]
    with np.errstate(invalid="ignore"):
        mean = np.array([e / (~np.isnan(f.error)).sum(0) for e, f in zip(each, forecasts, strict=True)])
    return Rolling(
        lines=np.array(own), pooled=pooled, reach=float(distance[seen.any(1)].max()), factor=1.0,
        origins=len(forecasts), errors=int(seen.sum()), mean_error=mean,
    )  # fmt: skip


def _line(distance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(2,) intercept and slope, neither negative, of the linear quantile regression of errors at LEVEL.

    For a given slope the best intercept is a quantile of what is left, and the loss is convex in the slope
    (Koenker and Bassett 1978, Econometrica 46).
    """
    from scipy.optimize import minimize_scalar

    def intercept(slope: float) -> float:
        return max(0.0, float(np.quantile(error - slope * distance, LEVEL, method="higher")))

    def loss(slope: float) -> float:
        left = error - slope * distance - intercept(slope)
        return float(np.where(left > 0, LEVEL * left, (LEVEL - 1) * left).sum())

    away = distance > 1e-9
    if distance.min() > distance.max() / 1.5 and away.all():
        # One distance does not tell a constant from a slope: half of each.
        half = 0.5 * float(np.quantile(error, LEVEL, method="higher"))
        return np.array([half, half / float(np.median(distance))])
    steepest = float(np.max(error[away] / distance[away], initial=0.0))
    slope = 0.0
    if steepest > 0:
        found = minimize_scalar(
            loss, bounds=(0.0, steepest), method="bounded", options={"xatol": 1e-4 * steepest}
        )
        slope = float(found.x) if found.fun < loss(0.0) * (1 - 1e-9) else 0.0  # type: ignore[attr-defined]
    return np.array([intercept(slope), slope])
