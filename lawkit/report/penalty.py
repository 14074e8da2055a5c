"""What it costs to leave the best mixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import ReportError
from lawkit.mixture import MixtureProblem, MixtureResult, optimize_mixture
from lawkit.mixture.constraints import merged, read_constraints
from lawkit.mixture.target import Target, unique_tokens
from lawkit.report._parts import DRAWN, at_sizes
from lawkit.report._style import PANELS, called, finish, head, listed, look, panels, percent, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lawkit.fitting import Fit

#: Mixtures along each curve.
GRID = 121


@styled
def penalty_figure(
    fit: Fit,
    result: MixtureResult | None = None,
    *,
    n_params: float | None = None,
    n_tokens: float | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] | None = None,
    target: Mapping[str, float] | None = None,
    groups: Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | str | Path | None = None,
    risk: str | None = None,
    draws: int = 100,
    interval: float = 0.9,
    seed: int = 0,
) -> Figure:
    """What it costs to give a source more or less than the best mixture does, source by source.

    The others make room, or fill it, in proportion to their weights as far as their limits let them. The curve is the
    loss under the fitted law less that of the best mixture; the band is the same under draws of the parameters,
    below zero where a draw would have the other mixture.

    Parameters
    ----------
    fit
        A fit of a law with mixture weights.
    result
        The best mixture at this scale under these limits, if it is already known.
    n_params, n_tokens, bounds, available, max_epochs, target, groups, constraints, risk, seed
        As for `lawkit.optimize_mixture`.
    draws
        How many draws of the parameters; 0 for no bands.
    interval
        Nominal coverage of the bands.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        If `result` is of another fit, scale or target, draws or the interval make no sense, or without matplotlib.
    OptimizeError
        As `lawkit.optimize_mixture`.
    """
    limits: dict[str, Any] = {
        "bounds": bounds,
        "available": available,
        "max_epochs": max_epochs,
        "target": target,
        "groups": groups,
        "constraints": constraints,
        "risk": risk,
    }
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 0:
        raise ReportError(f"draws must be 0 or a whole number above, got {draws!r}")
    if not 0 < interval < 1:
        raise ReportError(f"interval must lie between 0 and 1, got {interval!r}")
    if result is None:
        result = optimize_mixture(fit, n_params=n_params, n_tokens=n_tokens, draws=0, seed=seed, **limits)
    asked = merged(
        read_constraints(limits.pop("constraints"), fit.sources, fit.domains), **{**limits, "risk": None}
    )
    asked.pop("risk", None)
    at = Target(fit, n_params, n_tokens, unique_tokens(fit, asked.get("available")))
    problem = MixtureProblem.build(fit.sources, fit.domains, n_tokens=n_tokens, **asked).raised(at.floor)
    here = _check(result, at, problem)
    h = np.array([result.weights[s] for s in fit.sources])
    z, zero = np.empty((0, *fit.z.shape)), np.empty((0, 1))
    if draws:
        z = fit.draw(draws, seed)
        zero = at.objectives(z, h[None], problem.target, problem.over)
        z, zero = z[np.isfinite(zero[:, 0])], zero[np.isfinite(zero[:, 0])]
    order = [int(k) for k in np.argsort(-h, kind="stable")]
    lines = {k: w for k in order if len(w := _range(h, k, problem)) > 1}
    if not lines:
        raise ReportError(
            "the limits leave no room around the best mixture: widen them to see what that costs"
        )
    shown = list(lines)[:PANELS]
    figure, axes = panels(len(shown), 1.5, sharex=True, sharey=True)
    near, farthest = [], 0.0
    curves = []
    for k in shown:
        mixtures = np.array([_moved(h, k, w, problem) for w in lines[k]])
        own = at.objectives(fit.z[None], mixtures, problem.target, problem.over)[0] - here
        own = np.where([problem.polytope.contains(m, 1e-7) for m in mixtures], own, np.nan)
        curves.append((mixtures, own))
        close = (lines[k] >= h[k] / 4) & (lines[k] <= max(2 * h[k], h[k] + 0.05)) & np.isfinite(own)
        near.append(float(own[close].max(initial=0.0)))
    cap = 1.3 * max(*near, 1e-4)
    for ax, k, (mixtures, own) in zip(axes, shown, curves, strict=True):
        w, style = lines[k], look(k)
        if len(z):
            above = at.objectives(z, mixtures, problem.target, problem.over) - zero
            above = np.sort(np.where(np.isnan(above), np.inf, above), axis=0)
            tails = np.array([0.5 - interval / 2, 0.5 + interval / 2])
            lower, upper = above[
                np.rint(tails * (len(above) - 1)).astype(int)
            ]  # nothing lies between infinite ones
            ax.fill_between(w, lower, upper, color=style.color, alpha=0.22, linewidth=0, zorder=1)
        ax.plot(w, own, color=style.color, linestyle=style.dash, zorder=2)
        ax.plot([h[k]], [0.0], linestyle="none", marker=style.marker, ms=4, color=style.color, zorder=3)
        farthest = max(farthest, float(w[own <= cap].max(initial=0.0)))
        none = f", none {own[0]:+.2g}" if w[0] == 0 < h[k] and np.isfinite(own[0]) else ""
        head(ax, fit.sources[k], f"{percent(h[k])}{none}")
    axes[0].set_ylim(-0.2 * cap, cap)
    axes[0].set_xlim(-0.02 * farthest, 1.02 * farthest)
    stuck = [fit.sources[k] for k in order if k not in lines]
    notes = [
        f"At {at_sizes({'n_params': at.n_params, 'n_tokens': at.n_tokens})}. The other sources make room, or fill it, "
        "in proportion to their weights. Beside each name: its best weight, and the loss given up with none of it.",
        f"Bands: {interval:.0%} of {len(z)} draws of {DRAWN['normal' if fit.draws is None else fit.draws.kind]}; below "
        "zero where they would have the other mixture."
        if len(z)
        else "",
        f"Not shown: {listed([fit.sources[k] for k in list(lines)[PANELS:]], 12)}."
        if len(lines) > PANELS
        else "",
        f"Without room to move: {listed(stuck, 12)}." if stuck else "",
    ]
    return finish(
        figure, f"{called(fit.law.title, 40)}: loss given up around the best mixture", notes, [],
        "weight of the source", "loss above the best (nats)",
    )  # fmt: skip


def _check(result: MixtureResult, at: Target, problem: MixtureProblem) -> float:
    """The result's objective by this fit at this scale; refuses a result that is not of them."""
    if tuple(result.weights) != at.fit.sources:
        raise ReportError(
            f"the result has sources {listed(list(result.weights))}; the fit has {listed(at.fit.sources)}"
        )
    h = np.array([*result.weights.values()])
    here = float(at.objectives(at.fit.z[None], h[None], problem.target, problem.over)[0, 0])
    if result.risk == "point" and not np.isclose(here, result.objective, rtol=1e-9):
        raise ReportError(
            f"the result's mixture has objective {result.objective:.6g}, and {here:.6g} by this fit at this scale: "
            "give the fit, n_params, n_tokens and target that it was made with"
        )
    return here


def _range(h: np.ndarray, k: int, problem: MixtureProblem) -> np.ndarray:
    """Weights of source k that the limits allow, closer near zero where losses bend; that of h among them."""
    others = np.arange(len(h)) != k
    top = np.where(_base(h, k) > 0, problem.upper, problem.lower)[others].sum()
    low = max(problem.lower[k], 1 - top)
    high = min(problem.upper[k], 1 - problem.lower[others].sum())
    if high - low < 1e-6:
        return h[[k]]
    return np.unique(np.clip(np.r_[low + (high - low) * np.linspace(0, 1, GRID) ** 2, h[k]], low, high))


def _base(h: np.ndarray, k: int) -> np.ndarray:
    """What the others' shares are in proportion to: their weights, or one each where they have none."""
    rest = np.where(np.arange(len(h)) == k, 0.0, h)
    return rest if rest.sum() > 1e-9 else np.where(np.arange(len(h)) == k, 0.0, 1.0)


def _moved(h: np.ndarray, k: int, weight: float, problem: MixtureProblem) -> np.ndarray:
    """The mixture (K,) with `weight` of source k, the others as near to proportion as their limits let them."""
    base = _base(h, k)
    lower, upper = (np.where(np.arange(len(h)) == k, 0.0, limit) for limit in (problem.lower, problem.upper))
    given = base > 0
    # The others' sum is linear in their common factor between those at which one of them reaches a limit.
    at = np.unique(np.r_[0.0, lower[given] / base[given], upper[given] / base[given]])
    sums = np.clip(at[:, None] * base, lower, upper).sum(1)
    out = np.clip(np.interp(1 - weight, sums, at) * base, lower, upper)
    out[k] = weight
    return out / out.sum()
