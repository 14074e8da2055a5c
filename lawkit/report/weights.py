"""The best mixture against scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import ReportError
from lawkit.mixture import MixturePath, MixtureResult, optimize_mixture
from lawkit.report._parts import DRAWN, Scale, at_sizes
from lawkit.report._style import (
    PANELS,
    called,
    finish,
    head,
    listed,
    log_axis,
    look,
    panels,
    size,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit

#: A source that never gets so much is named in the caption and has no curve.
SLIGHT = 0.02


@styled
def weights_by_scale_figure(
    fit: Fit,
    *,
    reach: float = 1000.0,
    steps: int = 7,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] | None = None,
    groups: Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | str | Path | None = None,
    risk: str | None = None,
    target: Mapping[str, float] | None = None,
    draws: int = 100,
    interval: float = 0.9,
    seed: int = 0,
) -> Figure:
    """The best weights and their intervals, from the largest run to `reach` times as much of what varies.

    Where both sizes vary, compute grows at the largest run's tokens per parameter; else the one size that varies.

    Parameters
    ----------
    fit
        A fit of a law with mixture weights, to runs of more than one scale.
    reach
        Factor between the largest run and the end of the axis.
    steps
        At how many scales the best mixture is found.
    bounds, available, max_epochs, groups, constraints, risk, target, draws, interval, seed
        As for `lawkit.optimize_mixture`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        For runs that share one scale, a reach or a number of steps that make no path, or without matplotlib.
    OptimizeError
        As `lawkit.optimize_mixture`.
    """
    runs = fit.runs
    if (scale := Scale.of(runs, among=frozenset(fit.law.columns))) is None:
        raise ReportError(
            f"the runs share one scale or law {fit.law.name} does not depend on it, so the fit says nothing of how the "
            "best mixture moves with it: fit runs of another n_params or n_tokens by a law of both"
        )
    if not 1 < reach < np.inf:
        raise ReportError(f"reach must be a factor above 1, got {reach!r}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise ReportError(f"steps must be a whole number of at least 2, got {steps!r}")
    at = scale.x(runs.n_params, runs.n_tokens)
    top = int(np.argmax(at))
    factors = np.geomspace(1.0, reach, steps)
    sizes: list[dict[str, Any]] = [
        {
            c: float(getattr(runs, c)[top]) * (f ** (1 / len(scale.columns)) if c in scale.columns else 1.0)
            for c in ("n_params", "n_tokens")
            if getattr(runs, c) is not None
        }
        for f in factors
    ]
    found = [
        optimize_mixture(
            fit, **s, bounds=bounds, available=available, max_epochs=max_epochs, target=target, groups=groups,
            constraints=constraints, risk=risk, draws=draws, interval=interval, seed=seed,
        )
        for s in sizes
    ]  # fmt: skip
    return _drawn(
        fit, at[top] * factors, found, interval, scale.label, scale.write,
        f"From the largest run ({at_sizes(sizes[0])}) to {reach:.4g} times its "
        + ("compute, at its tokens per parameter." if len(scale.columns) == 2 else f"{scale.label}."),
    )  # fmt: skip


@styled
def mixture_path_figure(fit: Fit, path: MixturePath, *, interval: float = 0.9) -> Figure:
    """The best weights and their intervals along a path of `lawkit.mixture.mixture_path`.

    Parameters
    ----------
    fit
        The fit that the path is of.
    path
        The best mixtures at several sizes.
    interval
        Nominal coverage that they were made with.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        Without matplotlib.
    """
    label = "parameters" if path.vary == "n_params" else "tokens"
    notes = f"From {size(path.sizes[0])} to {size(path.sizes[-1])} {label}, all else as asked for."
    return _drawn(fit, path.sizes, list(path.results), interval, label, size, notes)


def _drawn(
    fit: Fit,
    x: np.ndarray,
    found: list[MixtureResult],
    interval: float,
    label: str,
    write: Callable[[float], str],
    first: str,
) -> Figure:
    """One panel a source: best weights and their intervals against sizes x (n,)."""
    best = np.array([[m.weights[s] for s in fit.sources] for m in found])
    ends = np.array([_ends(m) for m in found])
    order = [int(k) for k in np.argsort(-best.max(0), kind="stable")]
    large = [k for k in order if ends[:, k].max() >= SLIGHT]
    shown = large[:PANELS]
    figure, axes = panels(len(shown), 1.5, sharex=True, sharey=True)
    for ax, k in zip(axes, shown, strict=True):
        style = look(k)
        ax.fill_between(x, ends[:, k, 0], ends[:, k, 1], color=style.color, alpha=0.22, linewidth=0, zorder=1)
        ax.plot(x, best[:, k], color=style.color, linestyle=style.dash, marker=style.marker, ms=3, zorder=2)
        log_axis(ax, x * np.r_[0.8, np.ones(len(x) - 2), 1.25], write)
        head(ax, fit.sources[k], f"{best[0, k]:.1%} to {best[-1, k]:.1%}")
    axes[0].set_ylim(0.0, min(1.0, 1.08 * float(ends[:, shown].max())))
    small = [fit.sources[k] for k in order if k not in large]
    notes = [
        first,
        _of_draws(found, interval),
        f"Not shown: {listed([fit.sources[k] for k in large[PANELS:]], 12)}." if large[PANELS:] else "",
        f"Under {SLIGHT:.0%} throughout: {listed(small, 12)}." if small else "",
    ]  # fmt: skip
    return finish(
        figure, f"{called(fit.law.title, 40)}: the best mixture against scale", notes, [], label, "weight"
    )


def _ends(m: MixtureResult) -> list[tuple[float, float]]:
    return [(w, w) if m.uncertainty is None else m.uncertainty.weights[s] for s, w in m.weights.items()]


def _of_draws(found: list[MixtureResult], interval: float) -> str:
    known = [m.uncertainty for m in found if m.uncertainty is not None]
    if not known:
        return "There are no draws, hence no bands."
    pulled = any(abs(v) > 0.001 for u in known for v in u.pull.values())
    return (
        f"Bands: at each scale {interval:.0%} of {len(known[0].optima)} draws of {DRAWN[known[0].kind]} have their "
        "best mixture within all of them at once"
        + (", widened by how far the law's priors pull it." if pulled else ".")
        + (" Where there is none, too few draws had a best mixture." if len(known) < len(found) else "")
    )
