"""Observed against predicted losses, and how runs are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.report._parts import Part
from lawkit.report._style import FAINT, GREY, Look, called, finish, head, look, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit


def agreement(fit: Fit, parts: list[Part], shown: list[int], notes: list[str]) -> Figure:
    """Observed against predicted losses."""
    from matplotlib.lines import Line2D

    figure, axes = panels(len(shown), 2.8 if len(shown) == 1 else 1.85)
    for ax, e in zip(axes, shown, strict=True):
        ends = []
        for k, part in enumerate(parts):
            seen = ~np.isnan(part.observed[:, e])
            if not seen.any():
                continue
            mean, observed = part.mean[seen, e], part.observed[seen, e]
            ax.vlines(
                mean,
                part.lower[seen, e],
                part.upper[seen, e],
                color=FAINT,
                alpha=0.35,
                linewidth=0.8,
                zorder=1,
            )
            draw_runs(ax, mean, observed, look(k), bool(k), len(part.runs))
            ends += [mean.min(), mean.max(), observed.min(), observed.max()]
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", linewidth=0.8, zorder=3)
        ax.locator_params(nbins=5)
        domain_head(ax, fit.domains[e], parts[-1].coverage([e]))
    handles = [
        *runs_legend(len(parts), look(0), look(1)),
        Line2D([], [], color=FAINT, linewidth=4, alpha=0.6, label=f"{100 * parts[0].level:g}% band of a run"),
        Line2D([], [], color="black", linewidth=0.8, label="observed = predicted"),
    ]
    return finish(
        figure, f"{called(fit.law.title, 40)}: observed against predicted losses",
        [f"Band: {100 * parts[0].level:g}% {parts[-1].kind}.", *notes], handles, "predicted loss (nats per token)",
        "observed loss",
    )  # fmt: skip


def draw_runs(ax: Axes, x: np.ndarray, y: np.ndarray, style: Look, held: bool, count: int) -> None:
    """Runs as points: fitted ones full, held-out ones open; smaller where there are many."""
    large = 3.6 if count <= 60 else 2.6 if count <= 300 else 1.8
    if held:
        ax.plot(
            x, y, linestyle="none", marker=style.marker, ms=large + 0.9, mfc="white", mec=style.color, mew=0.8,
            zorder=5, label="held out",
        )  # fmt: skip
    else:
        ax.plot(
            x, y, linestyle="none", marker=style.marker, ms=large, color=style.color, mew=0, alpha=0.75, zorder=4,
            label="fitted",
        )  # fmt: skip


def runs_legend(parts: int, *looks: Look) -> list[Any]:
    """Entries of the legend for fitted and held-out runs, in grey where their looks say something else."""
    from matplotlib.lines import Line2D

    names = ("fitted runs", "held-out runs")[:parts]
    styles = looks or (Look(GREY, "solid", "o"),) * 2
    return [
        Line2D(
            [], [], linestyle="none", marker=s.marker, ms=4, color=s.color, mew=0.8 * k,
            mfc="white" if k else s.color, label=name,
        )
        for k, (name, s) in enumerate(zip(names, styles, strict=False))
    ]  # fmt: skip


def domain_head(ax: Axes, domain: str, coverage: float | None) -> None:
    """A domain's name, and how many of its losses lie in the band."""
    head(ax, domain, "" if coverage is None else f"{coverage:.0%} in band")
