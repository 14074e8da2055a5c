"""What the fit leaves over: log residuals in units of their noise, and the runs that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.fitting.prepare import fitted_cells
from lawkit.report._parts import Scale, chosen
from lawkit.report._style import GREY, SMALL, called, finish, log_axis, look, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit

#: Residuals beyond so many standard deviations of the noise stand out, and of these so many are named.
OUTLIER, NAMED = 4.0, 6
#: Beyond this the axis ends, and points lie on its edge.
EDGE = 12.0
#: The axis goes at least so far.
LEAST = 3.5
#: Runs at up to so many different scales stand in columns, which are drawn a domain beside the other.
FEW = 40
#: Where noise lies.
SHADE = "#DDDDDD"
#: Points of all domains are drawn in so many turns.
LAYERS = 8


@styled
def residual_figure(fit: Fit, *, domains: Sequence[str] | None = None) -> Figure:
    """Log residuals of all fitted runs against scale and against the predicted loss.

    They are given in standard deviations of the noise that the fit found in each domain (see `Fit.noise_at`), so that
    one band serves all. Those beyond four are outliers; the largest are named by their row in the runs table.

    Parameters
    ----------
    fit
        A fit.
    domains
        Evaluation domains to show; all by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        For an unknown domain, or without matplotlib.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = chosen(fit, domains)
    runs, e, names = fit.runs, fit.estimate, [called(fit.domains[d], 18) for d in shown]
    mean = fit.predict(runs.n_params, runs.n_tokens, runs.weights if fit.sources else None, runs.unique).mean
    x = e.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique)
    with np.errstate(all="ignore"):
        z = np.log(fit.observed / mean) / fit.noise_at(x.n_tokens)
    z = np.where(fitted_cells(runs, e.own, e.min_weight) & np.isfinite(z), z, np.nan)[:, shown]
    scale = Scale.of(runs)
    figure, axes = panels(1 if scale is None else 2, 2.9, sharey=True)
    places = [mean[:, shown]]
    if scale is not None:
        at = scale.x(runs.n_params, runs.n_tokens)
        log_axis(axes[0], [at.min() / 1.3, at.max() * 1.3], scale.write)
        axes[0].set_xlabel(scale.label)
        places.insert(0, _side_by_side(at, len(shown)))
    axes[-1].set_xlabel("predicted loss (nats per token)")
    seen = z[~np.isnan(z)]
    low, high = max(-EDGE, min(-LEAST, 1.1 * seen.min())), min(EDGE, max(LEAST, 1.1 * seen.max()))
    y = np.clip(z, low, high)
    out = sorted(zip(*np.nonzero(np.abs(z) > OUTLIER), strict=True), key=lambda cell: -abs(z[cell]))
    large = 3.4 if z.size <= 300 else 2.4 if z.size <= 2000 else 1.6
    styles = [look(d) for d in shown]
    for ax, at in zip(axes, places, strict=True):
        ax.axhspan(-1.645, 1.645, color=SHADE, linewidth=0, zorder=0)
        ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
        for part in range(LAYERS):  # in turn, or the last domain would hide the others
            for i, s in enumerate(styles):
                ax.plot(
                    at[part::LAYERS, i], y[part::LAYERS, i], linestyle="none", marker=s.marker, ms=large,
                    color=s.color, mew=0, alpha=0.75, zorder=3,
                )  # fmt: skip
        for cell in out:
            s = styles[cell[1]]
            ax.plot(
                [at[cell]], [y[cell]], linestyle="none", marker=s.marker, ms=4, color=s.color, mec="black", mew=0.4,
                zorder=4,
            )  # fmt: skip
        ax.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    first = {row: (row, i) for row, i in reversed(out)}  # a row is named once, at its largest residual
    named = [cell for cell in out if first[cell[0]] == cell][:NAMED]
    _name(axes[0], [(float(places[0][c]), float(y[c]), f"row {runs.rows[c[0]]}") for c in named])
    handles: list[Any] = [
        Line2D(
            [], [], linestyle="none", marker=s.marker, ms=4, color=s.color, mew=0,
            label=f"{name} (noise {100 * fit.noise[d]:.2g}%)",
        )
        for name, s, d in zip(names, styles, shown, strict=True)
    ]  # fmt: skip
    handles.append(Patch(color=SHADE, linewidth=0, label="90% of normal noise"))
    text = [f"row {runs.rows[r]} {names[i]} ({z[r, i]:+.1f})" for r, i in out[:NAMED]]
    more = f" and {len(out) - NAMED} more" if len(out) > NAMED else ""
    notes = [
        f"Noise: standard deviation of the log residuals of a domain, percent of the loss. "
        f"{(np.abs(seen) <= 1.645).mean():.0%} of the residuals lie in the grey band.",
        f"Beyond {OUTLIER:g} standard deviations: {', '.join(text) or 'none'}{more}.",
        f"Residuals beyond {EDGE:g} are drawn at the edge." if np.abs(seen).max() > EDGE else "",
    ]
    return finish(
        figure, f"{called(fit.law.title, 40)}: residuals", notes, handles, "", "log residual / noise"
    )


def _side_by_side(x: np.ndarray, count: int) -> np.ndarray:
    """(n, count) places on a logarithmic axis: those (n,) of runs that share few scales, moved apart by domain."""
    levels = np.unique(np.log(x))
    if len(levels) > FEW or count == 1:
        return np.tile(x[:, None], count)
    step = min(0.7 * np.median(np.diff(levels)), 0.06 * np.ptp(levels)) / count
    return x[:, None] * np.exp(step * (np.arange(count) - (count - 1) / 2))


def _name(ax: Axes, points: list[tuple[float, float, str]]) -> None:
    """Labels beside points, each as near as those before leave room."""
    low, high = ax.get_ylim()
    log = ax.get_xscale() == "log"
    left, right = (float(v) for v in (np.log(ax.get_xlim()) if log else ax.get_xlim()))
    wide, tall = 0.24 * (right - left), 0.055 * (high - low)
    taken: list[tuple[float, float]] = []
    for x, y, text in points:
        place = float(np.log(x)) if log else x
        far = place > left + 0.75 * (right - left)
        beside = place + (-0.03 if far else 0.03) * (right - left)
        middle = beside + (-wide / 2 if far else wide / 2)
        steps = sorted(range(-12, 13), key=abs)
        to = next(
            (
                t
                for t in (y + k * tall for k in steps)
                if low + tall <= t <= high - tall / 2
                and all(abs(middle - m) > wide or abs(t - other) >= 0.99 * tall for m, other in taken)
            ),
            y,
        )
        taken.append((middle, to))
        ax.annotate(
            text, (x, y), (np.exp(beside) if log else beside, to), ha="right" if far else "left", va="center",
            fontsize=SMALL, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 2},
            zorder=5,
        )  # fmt: skip
