"""A fit held against a runs table: predictions in the table's rows, and how far off they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.holdout import errors
from lawkit.fitting.prediction import Prediction
from lawkit.fitting.result import Fit
from lawkit.runs import Runs

__all__ = ["predict_runs", "score"]


def predict_runs(fit: Fit, runs: Runs, interval: float | None = 0.9) -> tuple[Prediction, list[str]]:
    """Predict the losses of runs whose table may name its sources in another order.

    A source of the fit that the table lacks has weight 0 there; sizes that the table lacks are those of
    the fitted runs, where these share one size.

    Parameters
    ----------
    fit
        The fit.
    runs
        Where to predict; its losses are not used.
    interval
        Nominal coverage of the band in (0, 1), or None for no band.

    Returns
    -------
    prediction
        Losses (n, E) in the order of `fit.domains`.
    warnings
        What to know before trusting them, naming rows.

    Raises
    ------
    FitError
        For a source that the fit does not know, or a size that the table must give and does not.
    """
    for name, column in zip(runs.sources, runs.weights.T, strict=True):
        if name not in fit.sources and (column > 0).any():
            row = runs.rows[int(np.argmax(column > 0))]
            raise FitError(
                f"{_called(runs)}: row {row} has a weight on source {name!r}, which the fit does not know; "
                f"it knows {', '.join(fit.sources) or 'no sources'}"
            )
    weights, unique = _in_order(fit, runs, runs.weights, 0.0), None
    if runs.unique is not None:
        unique = _in_order(fit, runs, runs.unique, np.nan)
    if fit.sources and not runs.sources and "weights" in fit.law.columns:
        raise FitError(
            f"{_called(runs)} has no weight_<source> column, and law {fit.law.name!r} needs the mixture"
        )
    warnings = []
    sizes: dict[str, Any] = {}
    for name in ("n_params", "n_tokens"):
        asked, fitted = getattr(runs, name), getattr(fit.runs, name)
        if asked is None and fitted is not None and name in fit.law.columns and np.ptp(np.log(fitted)) > 1e-6:
            raise FitError(f"{_called(runs)} has no column {name}, which varied in the fitted runs: add it")
        sizes[name] = asked
        if asked is not None and fitted is not None and (below := asked < 0.98 * fitted.min()).any():
            row = runs.rows[int(np.argmax(below))]
            warnings.append(
                f"{int(below.sum())} of {len(runs)} rows (first: row {row}) have a smaller {name} than "
                f"any fitted run ({fitted.min():.3g}): laws bend there"
            )
        if asked is not None and fitted is not None and name in fit.law.columns:
            times = float(asked.max() / fitted.max())
            if times > 1.05:
                warnings.append(
                    f"{name} up to {asked.max():.4g} is {times:.3g}x the largest run ({fitted.max():.4g}): "
                    "an extrapolation"
                )
    prediction = fit.predict(sizes["n_params"], sizes["n_tokens"], weights, unique, interval)
    warnings += prediction.warnings
    if prediction.capped:
        warnings.append(
            f"{prediction.capped} predictions were held at the highest loss that was observed in their domain"
        )
    return prediction, warnings


def score(fit: Fit, runs: Runs, prediction: Prediction) -> dict[str, Any] | None:
    """Errors of a prediction where the table has observed losses; None where it has none.

    Returns
    -------
    dict
        mre, mae and rmse over all cells; by domain these and the Spearman rank correlation over the rows
        (None where fewer than two rows, or all alike); coverage of the band (None without one).
    """
    shared = [i for i, d in enumerate(fit.domains) if d in runs.domains]
    observed = runs.losses[:, [runs.domains.index(fit.domains[i]) for i in shared]]
    seen = ~np.isnan(observed)
    if not seen.any():
        return None
    mean = prediction.mean[:, shared]
    coverage = None
    if prediction.lower is not None and prediction.upper is not None:
        inside = (observed >= prediction.lower[:, shared]) & (observed <= prediction.upper[:, shared])
        coverage = float(inside[seen].mean())
    return {
        **errors(mean, observed),
        "coverage": coverage,
        "domains": {
            fit.domains[i]: {
                **errors(mean[:, k], observed[:, k]),
                "spearman": spearman(mean[seen[:, k], k], observed[seen[:, k], k]),
                "n": int(seen[:, k].sum()),
            }
            for k, i in enumerate(shared)
        },
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation of two (n,) arrays; None where it is not defined.

    Examples
    --------
    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def _in_order(fit: Fit, runs: Runs, table: np.ndarray, missing: float) -> np.ndarray:
    """(n, K) columns in the order of the fit's sources."""
    place = {name: i for i, name in enumerate(runs.sources)}
    absent = np.full(len(runs), missing)
    columns = [table[:, place[name]] if name in place else absent for name in fit.sources]
    return np.stack(columns, 1) if columns else np.zeros((len(runs), 0))


def _called(runs: Runs) -> str:
    return runs.path or "the table"
