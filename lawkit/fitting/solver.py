"""Batched damped Gauss-Newton (Levenberg-Marquardt) and Newton: many fits, from many starts, at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lawkit.laws._function import Inputs, LawFunction
from lawkit.laws._law import Objective

#: Derivative arrays of one batch stay under this many numbers (8 bytes each).
_CHUNK = 2e7
#: Up to this many parameters the exact Hessian is cheaper than the iterations it saves.
_NEWTON_UP_TO = 12
#: Up to this many it is used to arrive, after so many iterations of Gauss-Newton.
_FINISH_UP_TO, _APPROACH = 150, 25
#: From this many derivatives an iteration, the starts are shared out among the cores.
_PARALLEL_FROM = 1e5


@dataclass(frozen=True)
class Target:
    """What G groups are fitted to (a group is a domain, or all domains of a coupled law).

    Attributes
    ----------
    losses
        (G, n, E) observed, 1 where masked.
    cell_weights
        (G, n, E) weights, 0 where masked.
    prior_mean, prior_root
        (G, P), and R (P, P) with R'R the prior precision; None without priors.
    """

    losses: np.ndarray
    cell_weights: np.ndarray
    prior_mean: np.ndarray | None = None
    prior_root: np.ndarray | None = None


def residuals(predicted: np.ndarray, observed: np.ndarray, kind: str) -> np.ndarray:
    """Log residuals for 'huber', relative ones for 'relative', differences for 'absolute'."""
    if kind == "huber":
        return np.log(predicted / observed)
    return predicted / observed - 1.0 if kind == "relative" else predicted - observed


def tame(slopes: np.ndarray) -> np.ndarray:
    """Slopes that may be squared and summed; where a law is finite but its slope is not, it is taken as flat."""
    return np.clip(np.where(np.isfinite(slopes), slopes, 0.0), -1e100, 1e100)


class LeastSquares:
    """The objective of `Target` under a law, for (B, P) vectors that belong to `groups` (B,).

    Cost: sum of weight x rho(residual) + |R (z - mean)|^2, with rho Huber's function or the square,
    divided by sigma^2 where the objective has a sigma.
    """

    def __init__(self, function: LawFunction, inputs: Inputs, target: Target, objective: Objective):
        self.function, self.inputs, self.target, self.objective = function, inputs, target, objective
        self._scale = (
            1.0
            if objective.sigma is None
            else objective.sigma**-2 * (2.0 if objective.kind == "huber" else 1.0)
        )

    def cost(self, z: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """(B,) costs; infinity where the law is not finite."""
        predicted = self.function.value(z, self.inputs.take(groups))
        with np.errstate(all="ignore"):
            r = residuals(predicted, self.target.losses[groups], self.objective.kind)
            return self._total(r, z, groups)

    def cost_of(self, residual: float) -> np.ndarray:
        """(G,) costs if every residual were this small one, priors aside."""
        half = 0.5 if self.objective.kind == "huber" else 1.0
        return half * self._scale * residual**2 * self.target.cell_weights.sum((1, 2))

    def _total(self, r: np.ndarray, z: np.ndarray, groups: np.ndarray) -> np.ndarray:
        w = self.target.cell_weights[groups]
        r = np.where(w > 0, r, 0.0)
        if self.objective.kind == "huber":
            size = np.abs(r)
            inner = np.minimum(size, self.objective.delta)
            rho = inner * (size - 0.5 * inner)
        else:
            rho = r * r
        total = self._scale * (w * rho).sum((1, 2))
        if self.target.prior_mean is not None:
            total += (self._prior_residual(z, groups) ** 2).sum(-1)
        return np.where(np.isfinite(total), total, np.inf)

    def _prior_residual(self, z: np.ndarray, groups: np.ndarray) -> np.ndarray:
        assert self.target.prior_mean is not None
        # Vector by vector, so that a fit's last bits do not depend on which others share its batch.
        off = (z - self.target.prior_mean[groups])[..., None]
        return (self.target.prior_root @ off)[..., 0]

    def expansion(
        self, z: np.ndarray, groups: np.ndarray, newton: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half gradient (B, P), half Hessian (B, P, P) and its Gauss-Newton majorant, at z."""
        slope, psi, reweight, divisor, inside = self._linearised(z, groups)
        gradient = (psi.reshape(len(z), 1, -1) @ slope)[:, 0]
        majorant = np.swapaxes(slope * reweight.reshape(len(z), -1, 1), 1, 2) @ slope
        hessian = majorant
        if newton:
            # rho'' is 1/2 inside Huber's threshold and 0 outside; a logarithm bends by -psi x slope^2.
            inner = np.where(inside, reweight, 0.0) - psi if self.objective.kind == "huber" else reweight
            hessian = np.swapaxes(slope * inner.reshape(len(z), -1, 1), 1, 2) @ slope
            with np.errstate(all="ignore"):
                bend = np.where(psi != 0, psi / divisor, 0.0)
                hessian = hessian + self.function.curvature(z, self.inputs.take(groups), bend)
            hessian = np.where(np.isfinite(hessian), hessian, majorant)
        if self.target.prior_mean is not None:
            root = self.target.prior_root
            gradient += (root.T @ self._prior_residual(z, groups)[..., None])[..., 0]  # type: ignore[union-attr]
            precision = root.T @ root  # type: ignore[union-attr]
            majorant, hessian = majorant + precision, hessian + precision
        return gradient, hessian, majorant

    def pulls(self, z: np.ndarray) -> np.ndarray:
        """(G, n x E, P): how each cell pulls at the parameters z (G, P); its part of the negative half gradient."""
        slope, psi, *_ = self._linearised(z, np.arange(len(z)))
        return -slope * psi.reshape(len(z), -1, 1)

    def _linearised(self, z: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals to first order: their slopes (B, n x E, P); then, (B, n, E) each, half derivatives of rho
        (psi = rho'/2 and the reweighting psi/r that majorises rho), what a slope is divided by, and whether a
        residual is within Huber's threshold. All 0 for masked cells.
        """
        y, w = self.target.losses[groups], self.target.cell_weights[groups]
        predicted, slope = self.function.jacobian(z, self.inputs.take(groups))
        live = w > 0
        with np.errstate(all="ignore"):
            r = residuals(predicted, y, self.objective.kind)
            divisor = {"huber": predicted, "relative": y, "absolute": np.ones_like(y)}[self.objective.kind]
            slope = tame(np.where(live[..., None], slope / divisor[..., None], 0.0)).reshape(
                len(z), -1, z.shape[1]
            )
            reweight = self._scale * w
            if self.objective.kind == "huber":
                inside = np.abs(r) <= self.objective.delta
                reweight = reweight * (0.5 * np.minimum(1.0, self.objective.delta / np.abs(r)))
            else:
                inside = np.ones_like(live)
            reweight = np.where(live, reweight, 0.0)
            return slope, np.where(live, reweight * r, 0.0), reweight, divisor, inside


def minimise(
    problem: LeastSquares,
    z: np.ndarray,
    groups: np.ndarray,
    max_iterations: int = 300,
    tolerance: float | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimises from every start; each of the B fits has its own damping and stops by itself.

    Parameters
    ----------
    z
        (B, P) starts.
    groups
        (B,) group of each start.
    max_iterations, tolerance
        A fit stops after two successive steps that lower its cost by less than `tolerance`, relatively. By default
        1e-12 where the exact Hessian is used; else 1e-9, since Gauss-Newton's last steps are many and change nothing.
    workers
        Threads that share the starts; by default as many as there are cores, where that pays.

    Returns
    -------
    z (B, P), cost (B,)
    """
    width = z.shape[1]
    newton = problem.objective.kind == "huber" and width <= _NEWTON_UP_TO
    finish = problem.function.cheap_curvature and width <= _FINISH_UP_TO
    if tolerance is None:
        tolerance = 1e-12 if newton or finish else 1e-9
    per_start = (
        problem.target.losses[0].size
        * width
        * (width if newton and not problem.function.cheap_curvature else 1)
    )
    size = max(1, int(_CHUNK / per_start))
    if workers is None:
        workers = cores() if per_start * len(z) > _PARALLEL_FROM else 1
    size = min(size, -(-len(z) // workers))

    def solve(at: int) -> tuple[np.ndarray, np.ndarray]:
        some, of = z[at : at + size], groups[at : at + size]
        if finish and not newton:
            # In the curved valleys of wide laws Gauss-Newton comes near fast and then creeps; Newton arrives.
            some, _ = _minimise(problem, some, of, _APPROACH, 1e-6, False)
        return _minimise(problem, some, of, max_iterations, tolerance, newton or finish)

    if workers == 1:
        parts = [solve(at) for at in range(0, len(z), size)]
    else:
        # Long array operations let go of the interpreter's lock. What they need is compiled before, once.
        problem.expansion(z[:1], groups[:1], newton or finish)
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(solve, range(0, len(z), size)))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _minimise(
    problem: LeastSquares,
    z: np.ndarray,
    groups: np.ndarray,
    max_iterations: int,
    tolerance: float,
    newton: bool,
) -> tuple[np.ndarray, np.ndarray]:
    z = z.copy()
    cost = problem.cost(z, groups)
    # Newton's expansions are dear and its damping hard to foresee (Huber's active set jumps): several at once.
    tried = np.array([0.03, 0.3, 3.0, 30.0]) if newton else np.ones(1)
    after_gain, after_failure = (1.0, 33.0) if newton else (0.2, 6.0)
    damping = np.full(len(z), 0.1 if newton else 1e-2)
    small = np.zeros(len(z), int)
    active = np.isfinite(cost)
    terms: list[np.ndarray] = [
        np.zeros(z.shape),
        np.zeros((*z.shape, z.shape[1])),
        np.zeros((*z.shape, z.shape[1])),
    ]
    stale = np.ones(len(z), bool)
    for _ in range(max_iterations):
        at = np.flatnonzero(active)
        if not len(at):
            break
        fresh = at[stale[at]]
        if len(fresh):
            for kept, new in zip(terms, problem.expansion(z[fresh], groups[fresh], newton), strict=True):
                kept[fresh] = new
        many = np.repeat(at, len(tried))
        lam = damping[at, None] * tried
        gradient, hessian, majorant = (t[many] for t in terms)
        step = _damped_step(gradient, hessian, majorant, lam.ravel(), newton)
        if newton:
            # Near a minimum a Newton step says what it will gain; with nothing left to gain it need not be tried.
            promised = (step * gradient).sum(1).reshape(lam.shape)[:, 0]
            there = (promised < 0.1 * tolerance * cost[at]) & (lam[:, 0] < 0.1)
            active[at[there]] = False
            at, lam = at[~there], lam[~there]
            many, step = many[np.repeat(~there, len(tried))], step[np.repeat(~there, len(tried))]
            if not len(at):
                continue
        each = np.arange(len(at))
        trial = z[many] - np.clip(step, -2.0, 2.0)  # a factor of e^2 in one step is far enough
        trial_cost = problem.cost(trial, groups[many])
        trial_cost[~np.isfinite(trial).all(1)] = np.inf
        best = trial_cost.reshape(lam.shape).argmin(1)
        low = trial_cost.reshape(lam.shape)[each, best]
        better = low < cost[at]
        gain = np.where(better, (cost[at] - low) / np.maximum(cost[at], 1e-300), 0.0)
        stale[at] = better
        z[at[better]], cost[at[better]] = trial.reshape(*lam.shape, -1)[each, best][better], low[better]
        damping[at] = np.where(
            better,
            np.maximum(lam[each, best] * after_gain, 1e-12),
            np.maximum(lam[:, -1] * after_failure, 1e-8),
        )
        # A step so damped that it no longer helps is as good a sign of arrival as a small gain.
        small[at] = np.where(better & (gain > tolerance), 0, small[at] + np.where(better, 1, 0))
        active[at] = (small[at] < 2) & (damping[at] < 1e10)
    return z, cost


def _damped_step(
    gradient: np.ndarray, hessian: np.ndarray, majorant: np.ndarray, damping: np.ndarray, newton: bool
) -> np.ndarray:
    """Steps (B, P): Marquardt's for Gauss-Newton; for Newton, the Hessian leaning on its majorant."""
    size = gradient.shape[1]
    diagonal = np.einsum("bpp->bp", majorant)
    lift = np.maximum(diagonal, 1e-12 * diagonal.max(1, keepdims=True, initial=1e-300))
    lam = damping[:, None, None]
    if newton:
        matrix = hessian + lam * majorant + (1e-3 * lam) * (lift[:, :, None] * np.eye(size))
    else:
        matrix = majorant + lam * (lift[:, :, None] * np.eye(size))
    # Scaled to a unit diagonal first: columns differ by many orders of magnitude.
    scale = 1 / np.sqrt(lift)
    scaled = matrix * scale[:, :, None] * scale[:, None, :] + 1e-14 * np.eye(size)
    try:
        step = np.linalg.solve(scaled, (gradient * scale)[..., None])[..., 0] * scale
    except np.linalg.LinAlgError:  # one singular matrix; the others' steps are to stay what they were
        each = [_solved(m, g) for m, g in zip(scaled, gradient * scale, strict=True)]
        step = np.stack(each) * scale
    uphill = ~((step * gradient).sum(1) > 0)  # Newton's matrix was indefinite: lean on the majorant alone
    if newton and uphill.any():
        step[uphill] = _damped_step(
            gradient[uphill], hessian[uphill], majorant[uphill], damping[uphill], False
        )
    return np.where(np.isfinite(step), step, 0.0)


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution of one linear system, the shortest of the best where there is none."""
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, right, rcond=None)[0]
