"""The fit and its band against scale, or against the losses where the runs share one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lawkit.errors import ReportError
from lawkit.fitting.prepare import same_size
from lawkit.report._agreement import agreement, domain_head, draw_runs, runs_legend
from lawkit.report._parts import Part, Scale, chosen, matching, without_held_out
from lawkit.report._style import (
    GREY,
    PANELS,
    called,
    finish,
    listed,
    log_axis,
    look,
    panels,
    size,
    styled,
)
from lawkit.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit
    from lawkit.fitting.prediction import Prediction

#: Up to this many model sizes each has its curve; of more, so many stand for all.
SIZES, STAND_FOR = 5, 4
#: Points of a curve.
GRID = 81


@styled
def fit_figure(
    fit: Fit,
    *,
    held_out: Literal["scale"] | Runs | None = "scale",
    domains: Sequence[str] | None = None,
    interval: float = 0.9,
    reach: float = 100.0,
) -> Figure:
    """Losses against scale: the runs, the law and its band, and whether the band holds what it has not seen.

    Each domain has a panel, each model size a curve (of more than five sizes, four that stand for all), at the
    mean mixture of the fitted runs. A run is drawn at its own scale and as far above its curve as its loss lies
    above the law at its own sizes and mixture, on a logarithmic scale. Where nothing that the law depends on varies
    but the mixture, losses are drawn against predictions.

    Parameters
    ----------
    fit
        A fit.
    held_out
        'scale' draws the forecast that the fit was judged by: that of a fit to all but the runs of the largest scale,
        and these. Where it was not judged so, and for None, the fit as it stands is drawn. Or runs that the fit has
        not seen.
    domains
        Evaluation domains to show; by default all, the first nine in panels.
    interval
        Nominal coverage of the bands.
    reach
        How far beyond its largest run each curve goes: factor of compute, or of the one size that varies.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        For an unknown domain, a reach below 1, held-out runs that do not go with the fit, or without matplotlib.
    FitError
        For an interval outside (0, 1).
    """
    shown = chosen(fit, domains)
    if not 1 <= reach < np.inf:
        raise ReportError(f"reach must be a factor of at least 1, got {reach!r}")
    unseen, share = None, None
    if isinstance(held_out, Runs):
        unseen = matching(fit, held_out)
    elif held_out == "scale":
        if (found := without_held_out(fit)) is not None:
            share = fit.holdout["coverage_90"] if fit.holdout is not None and interval == 0.9 else None
            fit, unseen = found
    elif held_out is not None:
        raise ReportError(f"held_out must be 'scale', None or runs, got {held_out!r}")
    parts = [Part(fit, fit.runs, interval)] + ([] if unseen is None else [Part(fit, unseen, interval)])
    notes = []
    if unseen is not None:
        share = parts[1].coverage(range(len(fit.domains))) if share is None else share
        within = "" if share is None else f" {share:.0%} of their losses lie in its bands."
        notes = [f"The fit that is drawn has not seen the {len(unseen)} held-out runs.{within}"]
    elif fit.holdout is not None and fit.holdout["coverage_90"] is not None:
        notes = [
            f"Held out of another fit: {fit.holdout['what']}; {fit.holdout['coverage_90']:.0%} of those losses lay in "
            "its 90% bands."
        ]
    if left := [fit.domains[e] for e in shown[PANELS:]]:
        notes.append(f"Not shown: {listed(left, 12)}.")
    scale = Scale.of(*(p.runs for p in parts), among=frozenset(fit.law.columns))
    if scale is None:
        return agreement(fit, parts, shown[:PANELS], notes)
    return _against_scale(fit, parts, scale, shown[:PANELS], notes, reach)


# ---- against scale ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """One curve of each panel: its label, the sizes that stay, and the rows of each part that belong to it."""

    label: str
    n_params: float | None
    n_tokens: float | None
    rows: list[np.ndarray]


class _Span:
    """Limits of a y axis: all of the points and curves, and of the bands so much that the others stay readable."""

    def __init__(self) -> None:
        self.inner: list[float] = []
        self.outer: list[float] = []

    def add(self, values: np.ndarray) -> None:
        values = values[np.isfinite(values)]
        self.inner += [float(values.min()), float(values.max())] if len(values) else []

    def limits(self) -> tuple[float, float]:
        low, high = min(self.inner), max(self.inner)
        room = 0.5 * max(high - low, 0.01 * high)
        return (
            min(low - 0.1 * room, max(min(self.outer), low - room)),
            max(high + 0.1 * room, min(max(self.outer), high + room)),
        )


def _against_scale(
    fit: Fit, parts: list[Part], scale: Scale, shown: list[int], notes: list[str], reach: float
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    level = parts[0].level
    places = [scale.x(p.runs.n_params, p.runs.n_tokens) for p in parts]
    curves, say = _curves(scale, parts), _center(fit, scale)
    figure, axes = panels(len(shown), 2.6 if len(shown) == 1 else 1.75)
    spans = [_Span() for _ in axes]
    kinds, moved = {}, 0.0
    for i, c in enumerate(curves):
        style = look(i)
        at = np.concatenate([x[rows] for x, rows in zip(places, c.rows, strict=True)])
        x = np.geomspace(at.min(), at.max() * reach, GRID)
        line = say(c, x, level)
        assert line.lower is not None
        assert line.upper is not None
        kinds[len(str(line.kind))] = line.kind  # the longest one says what was done where
        for ax, e, span in zip(axes, shown, spans, strict=True):
            ax.fill_between(
                x, line.lower[:, e], line.upper[:, e], color=style.color, alpha=0.16, linewidth=0, zorder=1
            )
            ax.plot(x, line.mean[:, e], color=style.color, linestyle=style.dash, zorder=3, label="law")
            span.add(line.mean[:, e])
            span.outer += [float(line.lower[:, e].min()), float(line.upper[:, e].max())]
        for k, (part, rows) in enumerate(zip(parts, c.rows, strict=True)):
            if not rows.any():
                continue
            with np.errstate(all="ignore"):
                ratio = say(c, places[k][rows], None).mean / part.mean[rows]
            moved = max(moved, float(np.abs(ratio - 1)[np.isfinite(ratio)].max(initial=0.0)))
            for ax, e, span in zip(axes, shown, spans, strict=True):
                y = part.observed[rows, e] * ratio[:, e]
                draw_runs(ax, places[k][rows], y, style, bool(k), len(part.runs))
                span.add(y)
    for ax, e, span in zip(axes, shown, spans, strict=True):
        log_axis(ax, [min(x.min() for x in places) / 1.3, max(x.max() for x in places) * reach], scale.write)
        ax.axvline(places[0].max(), color=GREY, linewidth=0.9, linestyle=(0, (1, 1.2)), zorder=2)
        ax.set_ylim(*span.limits())
        domain_head(ax, fit.domains[e], parts[1].coverage([e]) if len(parts) > 1 else None)
    handles: list[Any] = [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker, ms=3.5, label=c.label)
        for s, c in ((look(i), c) for i, c in enumerate(curves))
    ]
    handles += runs_legend(len(parts))
    handles += [
        Patch(color=GREY, alpha=0.2, linewidth=0, label=f"{100 * level:g}% band"),
        Line2D([], [], color=GREY, linestyle=(0, (1, 1.2)), label="largest fitted run"),
    ]
    mixed = "weights" in fit.law.columns and bool((np.ptp(fit.runs.weights, axis=0) > 0).any())
    where = [f"{len(curves)} model sizes"] if len(curves) > 1 else []
    where += (
        ["the mean mixture"] if mixed else ["the mean unique tokens"] if "unique" in fit.law.columns else []
    )
    if moved > 1e-3:
        notes = [
            *notes,
            f"Curves are drawn at {' and '.join(where) or 'the middle of the runs'}; a run lies as far from its curve "
            "as its loss from the law at its own settings.",
        ]
    title = "a forecast of held-out runs" if len(parts) > 1 else "fit and band against scale"
    return finish(
        figure, f"{called(fit.law.title, 40)}: {title}", [f"Band: {100 * level:g}% {kinds[max(kinds)]}.", *notes],
        handles, scale.label, "loss (nats per token)",
    )  # fmt: skip


def _curves(scale: Scale, parts: list[Part]) -> list[_Curve]:
    tables = [p.runs for p in parts]
    if len(scale.columns) < 2:
        n, d = (
            None if v is None else float(np.exp(np.log(v).mean()))
            for v in (tables[0].n_params, tables[0].n_tokens)
        )
        return [_Curve("law", n, d, [np.ones(len(t), bool) for t in tables])]
    sizes = np.concatenate([t.n_params for t in tables])  # type: ignore[misc]
    group, near = same_size(sizes), ""
    if group.max() >= SIZES:
        log = np.log(sizes)
        group = np.searchsorted(np.linspace(log.min(), log.max(), STAND_FOR + 1)[1:-1], log)
        near = "near "
    cuts = np.cumsum([len(t) for t in tables])[:-1]
    middles = {g: float(np.exp(np.log(sizes[group == g]).mean())) for g in np.unique(group)}
    return [
        _Curve(f"n_params {near}{size(m)}", m, None, np.split(group == g, cuts)) for g, m in middles.items()
    ]


def _center(fit: Fit, scale: Scale) -> Callable[[_Curve, np.ndarray, float | None], Prediction]:
    """What the fit says along a curve, at the mean mixture and the geometric mean of unique tokens."""
    mixture = fit.runs.weights.mean(0)[None] if fit.sources else None
    unique = None
    if fit.runs.unique is not None:
        known = np.where(fit.runs.unique > 0, fit.runs.unique, np.nan)
        with np.errstate(invalid="ignore"):  # a source of which none is known has no weight either
            unique = np.exp(np.nansum(np.log(known), 0) / (~np.isnan(known)).sum(0))[None]

    def say(c: _Curve, x: np.ndarray, interval: float | None) -> Prediction:
        return fit.predict(*scale.sizes(x, c.n_params, c.n_tokens), mixture, unique, interval=interval)

    return say
