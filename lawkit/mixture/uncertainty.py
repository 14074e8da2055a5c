"""The best mixture under draws of a fit's parameters: how far it may lie elsewhere, and what that would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lawkit.errors import LawkitError
from lawkit.fitting.echo import resampled
from lawkit.mixture.optima import optima
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.result import Against, Uncertainty
from lawkit.mixture.target import Target

#: Weights this near a limit count as on it.
NEAR = 1e-6
#: Losses this near each other are equal, nats per token.
EQUAL = 1e-12
#: Part of the way to other fits that their optimum is followed.
STEP = 0.1


def uncertainty(
    at: Target,
    problem: MixtureProblem,
    h: np.ndarray,
    baselines: Mapping[str, np.ndarray],
    count: int,
    interval: float,
    seed: int,
    solve: Callable[[Target], np.ndarray],
) -> tuple[Uncertainty | None, list[str]]:
    """What `count` draws of the fit's parameters say of the mixture h (K,), and what to warn of.

    Parameters
    ----------
    at, problem
        The target and the limits.
    baselines
        Other mixtures (K,) by name.
    interval
        Nominal coverage.
    solve
        As for `optima`.

    Returns
    -------
    Uncertainty or None
        None for no draws, and where fewer than half of them have an optimum.
    """
    if count == 0:
        return None, []
    fit = at.fit
    best = optima(at, fit.draw(count, seed), problem, h, solve)
    left_out, notes = count - len(best.h), []
    if left_out:
        what = (
            f"for {left_out} of {count} draws of the parameters no best mixture was found (no finite loss, or an "
            "optimality gap that stayed open)"
        )
        if left_out > count / 2:
            return None, [f"{what}, so there are no intervals: look at the fit's parameters and warnings"]
        notes.append(f"{what}: they are left out of the intervals")
    if not fit.law.convex_in_weights:
        notes.append(
            f"law {fit.law.name} is not convex in the weights: each draw's best mixture was searched near that of "
            "the point fit only, so intervals may be too narrow"
        )
    others = at.objectives(best.z, np.array([h, *baselines.values()]), problem.target, problem.over)
    mine = others[:, 0]
    point = at.objectives(fit.z[None], np.array([*baselines.values()]), problem.target, problem.over)[0]
    ends = [0.5 * (1 - interval), 0.5 * (1 + interval)]
    regret = np.maximum(mine - best.objective, 0.0)
    refits, shift, more = _other_fits(at, problem, h, count, seed, solve)
    snapped = np.array([problem.snap(x, NEAR) for x in best.h])

    def widened(interval_of: Callable[[np.ndarray], Any]) -> dict[str, tuple[float, float]]:
        both = np.array([interval_of(snapped), interval_of(refits)])  # (2, ends, K)
        low = np.clip(both[:, 0].min(0) - np.abs(shift), problem.lower, h)
        high = np.clip(both[:, 1].max(0) + np.abs(shift), h, problem.upper)
        return dict(zip(problem.sources, zip(low.tolist(), high.tolist(), strict=True), strict=True))

    return Uncertainty(
        kind="normal" if fit.draws is None else fit.draws.kind,
        interval=interval,
        optima=best.h,
        left_out=left_out,
        weights=widened(lambda values: simultaneous(values, interval)),
        weights_marginal=widened(lambda values: np.quantile(values, ends, axis=0)),
        pull=dict(zip(problem.sources, shift.tolist(), strict=True)),
        objective=_floats(np.quantile(mine, ends)),
        regret_mean=float(regret.mean()),
        regret_upper=float(np.quantile(regret, interval)),
        against={
            name: _against(others[:, i] - mine, float(point[i - 1]), ends)
            for i, name in enumerate(baselines, 1)
        },
    ), [*notes, *more]


def _other_fits(
    at: Target,
    problem: MixtureProblem,
    h: np.ndarray,
    count: int,
    seed: int,
    solve: Callable[[Target], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Best mixtures (S, K) of fits to other runs like these, how far (K,) the priors pull it, and what to warn of.

    A posterior knows neither that the errors of a run's domains go together, which moves a mean over domains more than
    they do alone, nor that its priors may be at odds with the runs: then the best mixture of another fit to runs like
    these is outside the posterior's interval, and so, about as far on the other side, is that of the truth. See
    `lawkit.fitting.echo`.
    """
    fit, still = at.fit, np.zeros_like(h)
    try:
        moved, again = resampled(fit, count, seed), fit.echo
    except LawkitError as error:
        return h[None], still, [f"intervals hold the draws only; how other fits would differ: {error}"]
    # Far along a tangent the parameters make no sense: the optimum is followed for a part of the way.
    near = optima(at, fit.z + STEP * (moved - fit.z), problem, h, solve).h
    refits = np.array([h, *(h + (problem.snap(x, NEAR) - h) / STEP for x in near)])
    if again is fit.z:
        return refits, still, []
    found = optima(at, again[None], problem, h, solve).h
    if not len(found):
        return refits, still, ["how far the priors pull the mixture could not be measured"]
    return refits, problem.snap(found[0], NEAR) - h, []


def simultaneous(values: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals (K,), (K,) that hold `share` of the rows of values (S, K) in all columns at once.

    The central intervals of each column, stretched away from its median by one factor for all columns, the least
    with which enough rows lie inside. A side counts at least a third of the way to its farthest value: a column that
    is nearly always at a limit would otherwise stretch all others.
    """
    low, middle, high = np.quantile(values, [0.5 * (1 - share), 0.5, 0.5 * (1 + share)], axis=0)
    below = np.maximum(middle - low, (middle - values.min(0)) / 3)
    above = np.maximum(high - middle, (values.max(0) - middle) / 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        far = np.where(values > middle, (values - middle) / above, (middle - values) / below)
    far = np.where(values == middle, 0.0, far).max(1)
    factor = max(1.0, float(np.quantile(far, share, method="higher")))
    return middle - factor * below, middle + factor * above


def _against(difference: np.ndarray, objective: float, ends: list[float]) -> Against:
    difference = np.where(np.isnan(difference), np.inf, difference)
    difference = np.where(np.abs(difference) < EQUAL, 0.0, difference)
    worse = float((difference > 0).mean() + 0.5 * (difference == 0).mean())
    with np.errstate(invalid="ignore"):
        low, middle, high = np.quantile(difference, [ends[0], 0.5, ends[1]])
    return Against(
        objective=objective, probability_worse=worse, difference=(float(low), float(middle), float(high))
    )


def _floats(pair: np.ndarray) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
