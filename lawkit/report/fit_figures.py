"""The fit and its band against scale, and against the losses where the runs share one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lawkit.errors import ReportError
from lawkit.fitting.estimate import estimate
from lawkit.fitting.holdout import split
from lawkit.fitting.prepare import distinct, fitted_cells, same_size
from lawkit.report import _style
from lawkit.report._style import GREY, PANELS, TEXT, called, finish, listed, log_axis, look, panels, styled
from lawkit.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit
    from lawkit.fitting.prediction import Prediction

#: Up to this many model sizes each has its curve; of more, so many stand for all.
SIZES, STAND_FOR = 5, 4
#: Points of a curve.
GRID = 81


@dataclass(frozen=True)
class Scale:
    """What a run's place on the x axis is: the one size that varies, or compute where both do.

    Attributes
    ----------
    columns
        Which of 'n_params' and 'n_tokens' vary.
    label
        Of the axis.
    write
        A value as the axis shows it.
    """

    columns: tuple[str, ...]
    label: str
    write: Callable[[float], str]

    @classmethod
    def of(cls, *tables: Runs) -> Scale | None:
        """That of tables of one fit; None where all runs share one scale."""
        vary = []
        for column in ("n_params", "n_tokens"):
            values = [getattr(t, column) for t in tables]
            if all(v is not None for v in values) and distinct(np.concatenate(values)) > 1:
                vary.append(column)
        if len(vary) == 2:
            return cls(tuple(vary), "training compute, 6 × n_params × n_tokens (flops)", _style.power)
        return cls(tuple(vary), vary[0], _style.size) if vary else None

    def x(self, n_params: Any, n_tokens: Any) -> np.ndarray:
        """(n,) places of runs."""
        if len(self.columns) == 2:
            return 6.0 * n_params * n_tokens
        return np.asarray(n_params if self.columns == ("n_params",) else n_tokens, float)

    def sizes(self, x: np.ndarray, n_params: Any, n_tokens: Any) -> tuple[Any, Any]:
        """Sizes at places x of a curve whose other size is as given."""
        if len(self.columns) == 2:
            return np.broadcast_to(n_params, x.shape), x / (6.0 * n_params)
        return (x, n_tokens) if self.columns == ("n_params",) else (n_params, x)


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
    above the law at its own sizes and mixture. Where the runs share one scale, losses are drawn against predictions.

    Parameters
    ----------
    fit
        A fit.
    held_out
        'scale' draws the fit to all but the runs that the fit was judged by on larger scales, and these; where it was
        not, and for None, the fit as it stands is drawn. Or runs that the fit has not seen.
    domains
        Evaluation domains to show; by default all, the first nine in panels.
    interval
        Nominal coverage of the bands.
    reach
        How far beyond the largest run the curves go: factor of compute, or of the one size that varies.

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
        unseen = _matching(fit, held_out)
    elif held_out == "scale":
        if (found := without_held_out(fit)) is not None:
            assert fit.holdout is not None
            share = fit.holdout["coverage_90"] if interval == 0.9 else None
            fit, unseen = found
    elif held_out is not None:
        raise ReportError(f"held_out must be 'scale', None or runs, got {held_out!r}")
    scale = Scale.of(fit.runs) if unseen is None else Scale.of(fit.runs, unseen)
    parts = [_Part(fit, fit.runs, interval)] + ([] if unseen is None else [_Part(fit, unseen, interval)])
    if unseen is not None and share is None:
        share = parts[1].coverage()
    if scale is None:
        return _agreement(fit, parts, shown, share)
    return _against_scale(fit, parts, scale, shown, share, reach)


def without_held_out(fit: Fit) -> tuple[Fit, Runs] | None:
    """The fit to all but the runs that `fit` was judged by on larger scales, and those runs.

    None where it was judged by none, or by runs chosen at random, which are not on record.
    """
    cut = split(fit.runs, "scale", 0)
    if fit.holdout is None or cut is None or cut[1] != fit.holdout["what"] or "random" in cut[1]:
        return None
    kept = fit.runs.select(~cut[0])
    e = fit.estimate
    part, _ = estimate(kept, fit.law, e.objective, e.min_weight, warm=fit.z)
    return replace(fit, runs=kept, estimate=part, draws=None, holdout=None), fit.runs.select(cut[0])


def chosen(fit: Fit, domains: Sequence[str] | None) -> list[int]:
    """Indices of domains by name.

    Raises
    ------
    ReportError
        For a name that the fit does not have.
    """
    if domains is None:
        return list(range(len(fit.domains)))
    if not len(domains) or isinstance(domains, str):
        raise ReportError(f"domains must be a list of names, got {domains!r}")
    if unknown := [d for d in domains if d not in fit.domains]:
        raise ReportError(f"the fit has no domain {unknown[0]!r}; it has {listed(fit.domains)}")
    return [fit.domains.index(d) for d in domains]


def _matching(fit: Fit, runs: Runs) -> Runs:
    if runs.sources != fit.runs.sources:
        raise ReportError(
            f"the held-out runs have sources {listed(runs.sources) or '(none)'}, the fit has "
            f"{listed(fit.runs.sources) or '(none)'}: use runs of the same sources in the same order"
        )
    if missing := [d for d in fit.domains if d not in runs.domains]:
        raise ReportError(f"the held-out runs have no loss_{missing[0]}, which the fit predicts: add the column")
    for column in ("n_params", "n_tokens"):
        if column in fit.estimate.recorded and getattr(runs, column) is None:
            raise ReportError(f"the held-out runs have no column {column}, which the fit depends on: add it")
    return runs


class _Part:
    """Runs with what the fit says of each: (n, E) observed losses and the prediction."""

    def __init__(self, fit: Fit, runs: Runs, interval: float) -> None:
        losses = runs.losses[:, [runs.domains.index(d) for d in fit.domains]]
        e = fit.estimate
        self.runs = runs
        self.observed = np.where(fitted_cells(runs, e.own, e.min_weight), losses, np.nan)
        self.said = fit.predict(
            runs.n_params, runs.n_tokens, runs.weights if fit.sources else None, runs.unique, interval=interval
        )

    def coverage(self, domains: Sequence[int] | slice = slice(None)) -> float | None:
        """Share of the losses inside the bands."""
        assert self.said.lower is not None
        assert self.said.upper is not None
        inside = (self.observed >= self.said.lower) & (self.observed <= self.said.upper)
        seen = ~np.isnan(self.observed[:, domains])
        return float(inside[:, domains][seen].mean()) if seen.any() else None


# ---- against scale ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """One curve of each panel: its label, the sizes that stay, and the rows of each part that belong to it."""

    label: str
    n_params: float | None
    n_tokens: float | None
    rows: list[np.ndarray]


def _curves(scale: Scale, parts: list[_Part]) -> list[_Curve]:
    tables = [p.runs for p in parts]
    stays = {
        c: None if getattr(tables[0], c) is None else float(np.exp(np.log(getattr(tables[0], c)).mean()))
        for c in ("n_params", "n_tokens")
    }
    if len(scale.columns) < 2:
        return [_Curve("law", stays["n_params"], stays["n_tokens"], [np.ones(len(t), bool) for t in tables])]
    sizes = np.concatenate([t.n_params for t in tables])  # type: ignore[misc]
    group = same_size(sizes)
    if group.max() >= SIZES:
        log = np.log(sizes)
        edges = np.linspace(log.min(), log.max(), STAND_FOR + 1)[1:-1]
        group = np.searchsorted(edges, log)
    cuts = np.cumsum([len(t) for t in tables])[:-1]
    curves = []
    for g in np.unique(group):
        middle = float(np.exp(np.log(sizes[group == g]).mean()))
        curves.append(_Curve(f"n_params {_style.size(middle)}", middle, None, np.split(group == g, cuts)))
    return curves


def _against_scale(
    fit: Fit, parts: list[_Part], scale: Scale, shown: list[int], share: float | None, reach: float
) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    level = parts[0].said.level
    assert level is not None
    places = [scale.x(p.runs.n_params, p.runs.n_tokens) for p in parts]
    curves, end = _curves(scale, parts), places[0].max()
    farthest = max(x.max() for x in places) * reach
    mixture = fit.runs.weights.mean(0)[None] if fit.sources else None
    unique = None if fit.runs.unique is None else np.exp(np.nanmean(np.log(fit.runs.unique), 0))[None]

    def say(c: _Curve, x: np.ndarray, interval: float | None) -> Prediction:
        return fit.predict(*scale.sizes(x, c.n_params, c.n_tokens), mixture, unique, interval=interval)

    figure, axes = panels(min(len(shown), PANELS), 2.6 if len(shown) == 1 else 1.75)
    kind = ""
    moved = 0.0
    spans = [_Span() for _ in axes]
    for i, c in enumerate(curves):
        style = look(i)
        start = min(x[rows].min() for x, rows in zip(places, c.rows, strict=True) if rows.any())
        last = max(x[rows].max() for x, rows in zip(places, c.rows, strict=True) if rows.any())
        x = np.geomspace(start, last * reach, GRID)
        line = say(c, x, level)
        assert line.lower is not None
        assert line.upper is not None
        kind = line.kind or kind
        for a, (ax, e) in enumerate(zip(axes, shown, strict=False)):
            ax.fill_between(
                x, line.lower[:, e], line.upper[:, e], color=style.color, alpha=0.16, linewidth=0, zorder=1
            )
            ax.plot(x, line.mean[:, e], color=style.color, linestyle=style.dash, zorder=3)
            spans[a].add(line.mean[:, e])
            spans[a].reach(line.lower[:, e], line.upper[:, e])
        for k, (part, rows) in enumerate(zip(parts, c.rows, strict=True)):
            if not rows.any():
                continue
            at = places[k][rows]
            with np.errstate(all="ignore"):
                ratio = say(c, at, None).mean / part.said.mean[rows]
            moved = max(moved, float(np.nanmax(np.abs(np.log(ratio)), initial=0.0)))
            for a, (ax, e) in enumerate(zip(axes, shown, strict=False)):
                y = part.observed[rows, e] * ratio[:, e]
                _points(ax, at, y, style, bool(k), len(part.runs))
                spans[a].add(y)
    for a, (ax, e) in enumerate(zip(axes, shown, strict=False)):
        log_axis(ax, np.array([min(x.min() for x in places) / 1.3, farthest]), scale.write)
        ax.axvline(end, color=GREY, linewidth=0.9, linestyle=(0, (1, 1.2)), zorder=2)
        ax.set_ylim(*spans[a].limits())
        _name(ax, fit.domains[e], None if len(parts) == 1 else parts[1].coverage([e]))
    handles: list[Any] = [
        Line2D([], [], color=look(i).color, linestyle=look(i).dash, marker=look(i).marker, ms=3.5, label=c.label)
        for i, c in enumerate(curves)
    ]
    handles.append(Line2D([], [], color=GREY, marker="o", ms=3.5, linestyle="none", label="fitted runs"))
    if len(parts) > 1:
        handles.append(
            Line2D([], [], color=GREY, marker="o", mfc="white", ms=4.5, linestyle="none", label="held-out runs")
        )
    handles.append(Patch(color=GREY, alpha=0.2, linewidth=0, label=f"{level:.0%} band"))
    handles.append(Line2D([], [], color=GREY, linestyle=(0, (1, 1.2)), label="largest fitted run"))
    notes = [
        f"Band: {level:.0%} {kind}.",
        _of_held_out(parts, share),
        _of_points(fit, curves, moved),
        _others(fit, shown),
    ]
    return finish(figure, f"{called(fit.law.title, 40)}: fit and band against scale", notes, handles, scale.label, "loss (nats per token)")


class _Span:
    """Limits of a y axis: all of the points and curves, and of the bands so much that the others stay readable."""

    def __init__(self) -> None:
        self.inner: list[float] = []
        self.outer: list[float] = []

    def add(self, values: np.ndarray) -> None:
        self.inner += [float(np.nanmin(values)), float(np.nanmax(values))]

    def reach(self, lower: np.ndarray, upper: np.ndarray) -> None:
        self.outer += [float(np.min(lower)), float(np.max(upper))]

    def limits(self) -> tuple[float, float]:
        low, high = min(self.inner), max(self.inner)
        room = 0.5 * max(high - low, 0.01 * high)
        return (
            min(low - 0.1 * room, max(min(self.outer), low - room)),
            max(high + 0.1 * room, min(max(self.outer), high + room)),
        )


def _points(ax: Axes, x: np.ndarray, y: np.ndarray, style: _style.Look, held: bool, count: int) -> None:
    large = 3.6 if count <= 60 else 2.6 if count <= 300 else 1.8
    if held:
        ax.plot(
            x, y, linestyle="none", marker=style.marker, ms=large + 0.9, mfc="white", mec=style.color, mew=0.8,
            zorder=5, gid="held out",
        )  # fmt: skip
    else:
        ax.plot(
            x, y, linestyle="none", marker=style.marker, ms=large, color=style.color, mew=0, alpha=0.75, zorder=4,
            gid="fitted",
        )  # fmt: skip


def _name(ax: Axes, domain: str, coverage: float | None) -> None:
    ax.set_title(called(domain), loc="left", fontweight="bold", pad=3)
    if coverage is not None:
        ax.set_title(f"{coverage:.0%} in band", loc="right", fontsize=_style.SMALL, color=GREY, pad=3)


def _of_held_out(parts: list[_Part], share: float | None) -> str:
    if len(parts) == 1 or share is None:
        return ""
    return (
        f"Held out of the fit that is drawn: {len(parts[1].runs)} runs; {share:.0%} of their losses lie in the bands "
        "at their own settings."
    )


def _of_points(fit: Fit, curves: list[_Curve], moved: float) -> str:
    if moved < 1e-3:
        return ""
    where = " and ".join(
        ([f"{len(curves)} sizes"] if len(curves) > 1 else []) + (["the mean mixture"] if fit.sources else [])
    )
    return (
        f"Curves are drawn at {where or 'the middle of the runs'}; a run lies as far from its curve as its loss from the "
        "law at its own settings."
    )


def _others(fit: Fit, shown: list[int]) -> str:
    left = [fit.domains[e] for e in shown[PANELS:]]
    return f"Not shown: {listed(left, 12)}." if left else ""


# ---- against the predictions ------------------------------------------------------------------------------------


def _agreement(fit: Fit, parts: list[_Part], shown: list[int], share: float | None) -> Figure:
    """Observed against predicted losses."""
    from matplotlib.lines import Line2D

    figure, axes = panels(min(len(shown), PANELS), 2.8 if len(shown) == 1 else 1.85)
    level = parts[0].said.level
    for ax, e in zip(axes, shown, strict=False):
        ends = []
        for k, part in enumerate(parts):
            style = look(k)
            assert part.said.lower is not None
            assert part.said.upper is not None
            mean, seen = part.said.mean[:, e], ~np.isnan(part.observed[:, e])
            ax.vlines(
                mean, part.said.lower[:, e], part.said.upper[:, e], color=_style.FAINT, alpha=0.35, linewidth=0.8,
                zorder=1,
            )  # fmt: skip
            _points(ax, mean[seen], part.observed[seen, e], style, bool(k), len(part.runs))
            ends += [mean.min(), mean.max(), np.nanmin(part.observed[:, e]), np.nanmax(part.observed[:, e])]
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", linewidth=0.8, zorder=3)
        ax.locator_params(nbins=5)
        _name(ax, fit.domains[e], parts[-1].coverage([e]))
    handles = [Line2D([], [], color=look(0).color, marker="o", ms=3.5, linestyle="none", label="fitted runs")]
    if len(parts) > 1:
        handles.append(
            Line2D(
                [], [], color=look(1).color, marker=look(1).marker, mfc="white", ms=4.5, linestyle="none",
                label="held-out runs",
            )
        )  # fmt: skip
    handles.append(Line2D([], [], color=_style.FAINT, linewidth=4, alpha=0.6, label=f"{level:.0%} band of each run"))
    handles.append(Line2D([], [], color="black", linewidth=0.8, label="observed = predicted"))
    notes = [f"Band: {level:.0%} {parts[-1].said.kind}.", _of_held_out(parts, share)]
    if len(parts) == 1 and fit.holdout is not None and fit.holdout["coverage_90"] is not None:
        notes.append(
            f"In a fit without {fit.holdout['what']}, {fit.holdout['coverage_90']:.0%} of their losses lay in its 90% bands."
        )
    notes.append(_others(fit, shown))
    return finish(figure, f"{called(fit.law.title, 40)}: observed against predicted losses", notes, handles, "predicted loss (nats per token)", "observed loss")
