"""What the law's own error may cost the decision.

The posterior knows what runs leave open if the law is right. What the law leaves unexplained of the runs it takes for
their noise; as far as it is the law's error instead, mixtures at the target differ by it from what the law says. How is
not known, and it is taken to be as simple as can be: a tilt, linear in the weights, whose standard deviation over the
recorded mixtures is that of the target loss's residuals. The regret of the mixture chosen now under such tilts,
by the fit's own parameters, comes on top of what is expected if the law is right (where regret is quadratic in errors,
that of the sum of two independent ones is the sum).

As all that is unexplained counts, this is an upper estimate of the law's error at the scales of the runs. It does not
grow with the distance of the target from them; see docs/proposals.md for what it came to on recorded tables.

References
----------
A law's error as a random function beside it: Kennedy and O'Hagan 2001, Journal of the Royal Statistical Society B 63.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design.candidates import SAME
from lawkit.fitting.prepare import fitted_cells
from lawkit.mixture.optima import BARRIER, DEPTH
from lawkit.mixture.smooth import minimise_many

if TYPE_CHECKING:
    from lawkit.design._criterion import Goal
    from lawkit.fitting import Fit

#: Tilts that the regret is averaged over; half of them are the others' opposites.
TILTS = 64


def misfit_regret(goals: Sequence[Goal], seed: int = 0) -> float | None:
    """Mean regret of the mixtures chosen now under tilts, nats, summed over the targets by their shares.

    None where it cannot be told, as with runs of one mixture.

    Parameters
    ----------
    goals
        Targets under one fit; those without a mixture to choose give nothing away.
    seed
        Of the tilts.
    """
    held = [(g, g.h) for g in goals if g.choice is not None and g.h is not None]
    if any(np.ptp(g.fit.runs.weights, axis=0).max() < SAME for g, _ in held):
        return None
    told = sum(g.share * _of_one(g, h, seed) for g, h in held)
    return told if np.isfinite(told) else None


def _of_one(goal: Goal, h: np.ndarray, seed: int) -> float:
    assert goal.choice is not None
    assert goal.problem is not None
    tilts, among = _tilts(goal, h, seed), goal.choice.among
    now = float(goal.at.losses(h[None])[0] @ goal.target)
    if among is not None:
        losses = goal.at.objectives(goal.fit.z[None], among, goal.target)
        best = (np.where(np.isfinite(losses), losses, np.inf) + tilts @ (among - h).T).min(1)
    else:
        z = np.broadcast_to(goal.fit.z, (TILTS, *goal.fit.z.shape))
        law, polytope = goal.at.derivatives_of(z, goal.target), goal.problem.polytope.inner()

        def tilted(
            which: np.ndarray, x: np.ndarray, barrier: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            value, slope, curve = law(which, x, barrier)
            return value + (tilts[which] * (x - h)).sum(1), slope + tilts[which], curve

        found = minimise_many(tilted, polytope, [polytope.toward(h, DEPTH)] * TILTS, BARRIER)
        with np.errstate(all="ignore"):
            best = tilted(np.arange(TILTS), np.array([s.h for s in found]), np.zeros(TILTS))[0]
    # The search may end a hair inside a limit that is best.
    return float(np.mean(np.maximum(now - best, 0.0)))


def _tilts(goal: Goal, h: np.ndarray, seed: int) -> np.ndarray:
    """(TILTS, K) slopes in the weights, nats."""
    apart = goal.fit.runs.weights - goal.fit.runs.weights.mean(0)
    spread = np.sqrt((apart**2).sum(1).mean())
    draws = np.random.default_rng(seed).standard_normal((TILTS // 2, len(h)))
    losses = goal.at.losses(h[None])[0]
    # A domain that does not count may have no finite loss.
    size = unexplained(
        goal.fit, np.multiply(goal.target, losses, out=np.zeros_like(losses), where=goal.target > 0)
    )
    return size / spread * np.concatenate([draws, -draws])


def unexplained(fit: Fit, weights: np.ndarray) -> float:
    """Standard deviation of a weighted (E,) sum of log residuals, which go together as they do in the runs."""
    e, runs = fit.estimate, fit.runs.with_domains(list(fit.domains))
    said = e.losses(e.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique))
    observed = np.where(fitted_cells(runs, e.own, e.min_weight), runs.losses, np.nan)
    with np.errstate(all="ignore"):
        miss = np.log(observed / said)
    miss[~np.isfinite(miss)] = 0.0
    miss /= np.maximum(np.sqrt((miss**2).sum(0)), 1e-300)
    return float(np.linalg.norm(miss @ (weights * fit.noise)))
