"""What to say of an optimum outside the data it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Beyond this factor a size counts as outside the data.
NEAR = 1.05


def scale_warnings(fit: Fit, n_params: float | None, n_tokens: float | None) -> list[str]:
    """Sizes to plan for that are above or below all runs, or that the fit cannot see."""
    out: list[str] = []
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
        column = getattr(fit.runs, name)
        if value is None:
            continue
        if column is None or name not in fit.law.columns:
            why = "the runs have no such column" if column is None else f"law {fit.law.name} does not use it"
            out.append(f"{name} {value:.4g} does not change the prediction: {why}")
            continue
        low, high = float(np.min(column)), float(np.max(column))
        if value > high * NEAR:
            times = f"{value / high:.3g}x the largest run ({high:.4g})"
            out.append(f"{name} {value:.4g} is {times}: an extrapolation")
        elif value < low / NEAR:
            out.append(
                f"{name} {value:.4g} is below the data: the smallest run is {low / value:.3g}x larger "
                f"({low:.4g}); laws bend there in ways these runs do not show"
            )
    return out


def edge_warnings(fit: Fit, h: np.ndarray, margin: float = 0.02) -> list[str]:
    """Weights above or below all that the runs tried."""
    weights = fit.runs.weights[np.isfinite(fit.runs.weights).all(axis=1)]
    out = []
    lowest, highest = weights.min(axis=0), weights.max(axis=0)
    for source, value, low, high in zip(fit.sources, h, lowest, highest, strict=True):
        if value > high + margin:
            out.append(f"weight of {source}, {value:.3f}, is above the largest in the runs ({high:.3f})")
        elif value < low - margin:
            out.append(f"weight of {source}, {value:.3f}, is below the smallest in the runs ({low:.3f})")
    return out
