"""What a run is worth to the decision: how far the posterior lets the best mixture wander, and at what cost.

An error dz of the fitted vector moves the gradient of the target loss in the mixture by G dz, the optimum by
dh = -P G dz and costs, to second order, the regret 1/2 dh' H dh. So the expected regret is tr(W Sigma) with
W = 1/2 G' P G. P is the inverse of H on the directions in which the optimum can move: those that keep the sum
and the limits that bind. Which limits bind depends on dz, so P is the mean over draws of it, each draw's
optimum being that of the quadratic model under all limits. By the Gaussian identity d E[r] / d Sigma = 1/2
E[r''] that W is exactly the rate at which expected regret falls with Sigma; where no limit changes sides it
is the plain formula; and a direction in which H is flat or singular cannot carry an optimum past the limits
of the simplex.

All criteria that are linear in Sigma are written as factors A, with A' A their matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design.candidates import Candidates
from lawkit.errors import OptimizeError
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.smooth import minimise
from lawkit.mixture.target import Target

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Draws of the gradient that decide which limits bind.
DRAWS = 64
#: Draws of the losses of a list of mixtures.
LIST_DRAWS = 1024
#: Draws that say which mixtures of a list may be best have this part of the posterior's standard deviation. After a
#: few runs priors make the posterior far wider than choices by the fit turn out to err (docs/proposals.md).
NARROWED = 0.45
#: Step of the central differences in the fitted vector (log, logit or natural scale).
STEP = 1e-5
#: Eigenvalues of the Hessian, scaled to a unit diagonal, count as at least this.
FLATTEST = 1e-9
#: A weight this near a limit cannot move past it; one this small matters to no loss.
BINDING = 1e-6
#: Rows whose derivatives are computed at once.
CHUNK = 2000
#: Bytes of candidate derivatives that are kept rather than computed again.
KEEP = 1 << 30


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of the fitted vectors. G groups of P parameters; a run observes m log losses of each.

    Attributes
    ----------
    covariance
        (G, P, P).
    noise
        (G, m) standard deviation of the log losses of one run of weight 1, see `run_weights`.
    """

    covariance: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, fit: Fit, points: int = 1) -> Posterior:
        """The posterior of a fit: a domain is a group, except that a coupled law has one for all.

        With several points of linearisation, each has its own groups.
        """
        noise = fit.noise[None, :] if fit.law.coupled else fit.noise[:, None]
        return cls(np.tile(fit.covariance, (points, 1, 1)), np.tile(noise, (points, 1)))

    def observed(self, slopes: np.ndarray) -> Posterior:
        """After one more run with derivatives `slopes` (G, m, P) of its log losses."""
        gain = self.gain(slopes)
        return Posterior(self.covariance - gain @ np.swapaxes(gain, 1, 2), self.noise)

    def gain(self, slopes: np.ndarray, taken: bool = False) -> np.ndarray:
        """(G, P, m) columns whose outer products a run with `slopes` (G, m, P) takes off the covariance.

        If the run is already `taken` into account, those that it took off.
        """
        moved = self.covariance @ np.swapaxes(slopes, 1, 2)
        total = _diagonal(self.noise**2) + (-1 if taken else 1) * (slopes @ moved)
        return np.swapaxes(np.linalg.solve(np.linalg.cholesky(total), np.swapaxes(moved, 1, 2)), 1, 2)

    def trace(self, factor: np.ndarray) -> float:
        """tr(A Sigma A') summed over groups, for a factor A (G, r, P)."""
        return float(np.sum((factor @ self.covariance) * factor))


def _diagonal(values: np.ndarray) -> np.ndarray:
    return values[..., None] * np.eye(values.shape[-1])


def log_slopes(fit: Fit, c: Candidates, points: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Losses (G, n, m) and derivatives (G, n, m, P) of their logarithms by the fitted vector.

    At `points` (S, G, P) instead of the fit's own: (S x G, ..).
    """
    e = fit.estimate
    z, x = e.z, e.inputs(c.weights, c.n_params, c.n_tokens, c.unique)
    if points is not None:
        z, x = points.reshape(-1, z.shape[1]), x.take(np.tile(np.arange(len(z)), len(points)))
    value, slope = e.law.function.jacobian(z, x)
    with np.errstate(all="ignore"):
        return value, slope / value[..., None]


def run_weights(fit: Fit, n_tokens: np.ndarray) -> np.ndarray:
    """(G, n, m) how much runs of `n_tokens` (n,) count for each loss: the noise variance is over this."""
    weight = (fit.noise / fit.noise_at(n_tokens)) ** 2
    return weight[None] if fit.law.coupled else weight.T[:, :, None]


class Slopes:
    """Derivatives of all candidates' log losses, block by block; kept where they fit in memory.

    Each is times the square root of the run's weight, so that the noise of all is that of a run of weight 1.

    Parameters
    ----------
    points
        (S, G, P) fitted vectors at which to take them, one after the other; the fit's own if None.
    """

    def __init__(self, fit: Fit, candidates: Candidates, points: np.ndarray | None = None) -> None:
        self.fit, self.candidates, self.points = fit, candidates, points
        count = 1 if points is None else len(points)
        groups, size = count * len(fit.z), fit.z.shape[1]
        per_row = count * len(fit.domains) * size * 8
        self.chunk = max(1, min(CHUNK, (KEEP // 8) // per_row))
        self._kept: dict[int, np.ndarray] | None = {} if per_row * len(candidates) <= KEEP else None
        self.shape = (groups, len(candidates), len(fit.domains) // len(fit.z), size)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of candidates, and their derivatives (G, part, m, P)."""
        for start in range(0, len(self.candidates), self.chunk):
            part = slice(start, min(start + self.chunk, len(self.candidates)))
            if self._kept is not None and start in self._kept:
                yield part, self._kept[start]
                continue
            slopes = self._computed(np.arange(part.start, part.stop))
            if self._kept is not None:
                self._kept[start] = slopes
            yield part, slopes

    def select(self, which: np.ndarray) -> Slopes:
        """Those of some candidates, in the order of the indices `which`."""
        return Slopes(self.fit, self.candidates.select(which), self.points)

    def at(self, index: int) -> np.ndarray:
        """(G, m, P) of one candidate."""
        if self._kept is not None and (start := index // self.chunk * self.chunk) in self._kept:
            return self._kept[start][:, index - start]
        return self._computed(np.array([index]))[:, 0]

    def _computed(self, which: np.ndarray) -> np.ndarray:
        part = self.candidates.select(which)
        weight = np.sqrt(run_weights(self.fit, part.n_tokens))[..., None]
        slopes = log_slopes(self.fit, part, self.points)[1]
        return slopes * np.tile(weight, (len(slopes) // len(weight), 1, 1, 1))


def usable(fit: Fit, c: Candidates, ceiling: float = 2.0) -> np.ndarray:
    """(n,) whether losses and slopes are finite and no loss is over `ceiling` times the highest observed.

    Laws with a power of a weight say absurd losses near its zero; a run there would seem to teach everything.
    """
    e = fit.estimate
    observed = fit.runs.losses[:, [fit.runs.domains.index(d) for d in fit.domains]]
    most = ceiling * np.nanmax(observed, 0)
    out = np.empty(len(c), bool)
    for start in range(0, len(c), CHUNK):
        part = c.select(np.arange(start, min(start + CHUNK, len(c))))
        value, slope = log_slopes(fit, part)
        losses = value[0] if e.law.coupled else value[:, :, 0].T
        finite = np.isfinite(losses).all(1) & np.isfinite(slope).all((0, 2, 3))
        out[start : start + len(part)] = finite & (np.where(np.isfinite(losses), losses, np.inf) <= most).all(
            1
        )
    return out


@dataclass(frozen=True, eq=False)
class Decision:
    """The mixture to be chosen, and how it hangs on the fitted vector.

    Attributes
    ----------
    h
        (K,) the current optimum at the target.
    factor
        (G, K, P) of W: expected regret is tr(A Sigma A').
    plausible
        (m, K) optima under draws of the posterior: in the quadratic model, or among those to choose from.
    among
        (M, K) mixtures to choose from, where these are a list.
    """

    h: np.ndarray
    factor: np.ndarray
    plausible: np.ndarray
    among: np.ndarray | None = None


def decision(at: Target, problem: MixtureProblem, h: np.ndarray, seed: int) -> Decision:
    """How the choice of `h` (K,) at the target hangs on what the fit does not know.

    Raises
    ------
    OptimizeError
        Where the law's derivatives are not finite at h.
    """
    fit = at.fit
    _, gradient, hessian = at.derivatives(problem.target)(h)
    mixed = mixed_derivatives(at, problem.target, h)
    fixed = (
        problem.upper - problem.lower <= RESOLUTION
    )  # a law's slope may be infinite at a source fixed at 0
    gradient[fixed], mixed[:, fixed] = 0.0, 0.0
    hessian[fixed], hessian[:, fixed] = 0.0, 0.0
    if not (np.isfinite(gradient).all() and np.isfinite(hessian).all() and np.isfinite(mixed).all()):
        raise OptimizeError(
            f"law {fit.law.name} has no finite second derivatives at its best mixture ("
            + ", ".join(f"{s} {x:.4g}" for s, x in zip(fit.sources, h, strict=True))
            + "), so the regret of a wrong choice cannot be computed: bound the weights away from 0 or use "
            "method 'variance'"
        )
    spread = np.einsum("gkp,gpq,glq->kl", mixed, fit.covariance, mixed)
    inverse, plausible = movable(gradient, hessian, spread, h, problem, seed)
    values, vectors = np.linalg.eigh(inverse)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return Decision(h, np.sqrt(0.5) * root @ mixed, plausible)


def decision_among(at: Target, target: np.ndarray, among: np.ndarray, seed: int) -> Decision:
    """How a choice among a list of mixtures (M, K) at the target hangs on what the fit does not know.

    The losses of all of them are normal to first order. Under draws, mixture j is the best of all with
    probability p_j; with s_j the standard deviation of their difference and d_j its slopes, W is proportional
    to sum_j p_j / s_j d_j d_j', as the regret between two mixtures that are about as good falls with s. The
    draws for p_j are narrower than the posterior, see `NARROWED`; W is scaled so that tr(W Sigma) is the mean
    regret of draws as wide as it is.

    Raises
    ------
    OptimizeError
        If the law predicts no finite loss for any of them.
    """
    from scipy.special import ndtr

    fit = at.fit
    value, slope = fit.law.function.jacobian(fit.z, at.inputs(among))  # (G, M, m), (G, M, m, P)
    by = target.reshape(len(fit.z), -1)
    loss = np.einsum("gnm,gm->n", value, by)
    slope = np.einsum("gnmp,gm->gnp", slope, by)
    good = np.isfinite(loss) & np.isfinite(slope).all((0, 2))
    if not good.any():
        raise OptimizeError(f"law {fit.law.name} predicts no finite loss for any of {len(among)} mixtures")
    among, loss, slope = among[good], loss[good], slope[:, good]
    best = int(loss.argmin())
    gap, apart = loss - loss[best], slope - slope[:, best : best + 1]
    spread = np.matmul(apart @ fit.covariance, np.swapaxes(apart, 1, 2)).sum(0)
    sd = np.sqrt(np.maximum(np.diag(spread), 1e-300))
    values, vectors = np.linalg.eigh(spread)
    draws = np.random.default_rng(seed).standard_normal((LIST_DRAWS // 2, len(gap)))
    draws = np.concatenate([draws, -draws]) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    wins = (gap + draws).argmin(1)

    def alone(sd: np.ndarray) -> np.ndarray:
        """(M,) mean regret to each mixture if it and the chosen one were all there is."""
        mean = sd * np.exp(-0.5 * (gap / sd) ** 2) / np.sqrt(2 * np.pi) - gap * ndtr(-gap / sd)
        return np.maximum(np.where(np.arange(len(gap)) == best, 0.0, mean), 0.0)

    # What no draw chose shares one draw by its regret alone: a mixture may be unlikely, never out.
    rest = alone(NARROWED * sd)
    p = np.bincount((gap + NARROWED * draws).argmin(1), minlength=len(gap))
    p = p + rest / max(float(rest.sum()), 1e-300)
    weight = np.where(np.arange(len(gap)) == best, 0.0, p / sd)
    regret = max(float(-(gap + draws).min(1).mean()), float(alone(sd).max()))
    factor = np.sqrt(weight)[None, :, None] * apart
    now = float(np.einsum("j,jj->", weight, spread))
    factor = factor * np.sqrt(regret / now) if now > 0 else np.zeros_like(factor)
    if factor.shape[1] > factor.shape[2]:
        factor = np.asarray(np.linalg.qr(factor, "r"))
    return Decision(among[best], factor, among[np.unique(wins)], among)


def mixed_derivatives(at: Target, target: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(G, K, P) derivatives of the target loss in the mixture and the fitted vector.

    Central differences of the exact gradient along the fitted vector: good to 1e-8, where compiling all pairs
    of second derivatives takes seconds.
    """
    e = at.fit.estimate
    groups, size = e.z.shape
    z = np.repeat(e.z[:, None, None], size, 1).repeat(2, 2)  # (G, P, 2, P)
    each = np.arange(size)
    z[:, each, 0, each] += STEP
    z[:, each, 1, each] -= STEP
    x = at.inputs(h[None])
    x = replace(x, own=np.repeat(x.own, 2 * size, axis=0))
    _, slope = e.law.function.jacobian(z.reshape(-1, size), x, ("weights",))
    slope = slope[:, 0].reshape(groups, size, 2, -1, len(h))  # (G, P, 2, m, K)
    by = target.reshape(groups, -1)
    slope = np.where(by[:, None, None, :, None] > 0, slope * by[:, None, None, :, None], 0.0).sum(3)
    return np.swapaxes((slope[:, :, 0] - slope[:, :, 1]) / (2 * STEP), 1, 2)


def movable(
    gradient: np.ndarray,
    hessian: np.ndarray,
    spread: np.ndarray,
    h: np.ndarray,
    problem: MixtureProblem,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean inverse of the Hessian on the free directions (K, K), and the optima (draws, K) it is taken over.

    Parameters
    ----------
    gradient, hessian
        Of the target loss at h (K,), (K, K).
    spread
        (K, K) posterior covariance of the gradient.
    """
    from scipy.special import ndtri
    from scipy.stats import qmc

    K = len(h)
    scale = np.abs(np.diag(hessian))
    scale = np.sqrt(np.maximum(scale, 1e-12 * max(float(scale.max()), 1e-12)))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    curved = (vectors * np.maximum(values, FLATTEST)) @ vectors.T * np.outer(scale, scale)
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    points = qmc.Sobol(K, scramble=True, rng=np.random.default_rng(seed)).random(DRAWS // 2)
    draws = ndtri(np.clip(points, 1e-9, 1 - 1e-9)) @ root.T
    optima, total, known = [], np.zeros((K, K)), {}
    for draw in np.vstack([draws, -draws]):
        tilted = gradient + draw
        best = minimise(
            lambda p, g=tilted: (
                g @ (p - h) + 0.5 * (p - h) @ curved @ (p - h),
                g + curved @ (p - h),
                curved,
            ),
            problem,
        )
        optima.append(best.h)
        slack = np.minimum(best.h - problem.lower, problem.upper - best.h)
        free = (problem.upper - problem.lower > RESOLUTION) & (slack > BINDING)
        if (key := free.tobytes()) not in known:
            known[key] = _inverse_on(curved, free)
        total += known[key]
    return total / len(optima), np.array(optima)


def _inverse_on(hessian: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(K, K) inverse of the Hessian on mixtures that change only in `free` weights and keep their sum."""
    out = np.zeros_like(hessian)
    if free.sum() < 2:
        return out
    part = hessian[np.ix_(free, free)]
    scale = np.sqrt(np.diag(part))
    inverse = np.linalg.inv(part / np.outer(scale, scale)) / np.outer(scale, scale)
    ones = inverse.sum(1)
    out[np.ix_(free, free)] = inverse - np.outer(ones, ones) / ones.sum()
    return out


def prediction_factor(at: Target, weights: np.ndarray, target: np.ndarray | None) -> np.ndarray:
    """Factor (G, r, P) of the mean posterior variance of predictions at mixtures `weights` (M, K), one scale.

    Parameters
    ----------
    target
        (E,) for the variance of the target loss; None for the mean over domains of each one's variance.
    """
    fit = at.fit
    _, slope = fit.law.function.jacobian(fit.z, at.inputs(weights))  # (G, M, m, P)
    slope = slope[:, np.isfinite(slope).all((0, 2, 3))]
    groups, count, m, size = slope.shape
    if not count:
        raise OptimizeError(f"law {fit.law.name} predicts no finite loss at the target scale")
    if target is None:
        rows = slope.reshape(groups, count * m, size) / np.sqrt(count * len(fit.domains))
    else:
        rows = np.einsum("gnmp,gm->gnp", slope, target.reshape(groups, m)) / np.sqrt(count)
    return np.asarray(np.linalg.qr(rows, "r")) if rows.shape[1] > size else rows
