"""From a fit and the limits of reality to the best mixture for a run that has not been trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import additive, capacity, exponential, transfer
from lawkit.mixture._cones import SolverError
from lawkit.mixture._form import Scale
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.result import ActiveConstraint, MixtureResult
from lawkit.mixture.smooth import minimise, multi_start

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: A convex solution with a larger gap is refused, nats.
TOLERANCE = 1e-6
#: A conic solution with a larger gap is polished, nats.
POLISH = 1e-9

#: Convex programs by the `form` that a law declares.
FORMS = {"transfer": transfer.solve, "exponential": exponential.solve, "additive": additive.solve}


@dataclass(frozen=True)
class _Solution:
    h: np.ndarray
    objective: float
    gradient: np.ndarray
    gap: float
    certificate: Literal["global", "local"]
    lower_bound: float | None
    notes: tuple[str, ...] = ()


class _Target:
    """One fit at one scale under one target: the function of the weights to minimise."""

    def __init__(self, fit: Fit, n_params: float | None, n_tokens: float | None) -> None:
        self.fit = fit
        # A law fitted without a size column has no way to use the size asked for.
        self.n_params = n_params if fit.runs.n_params is not None else None
        self.n_tokens = n_tokens if fit.runs.n_tokens is not None else None

    def losses(self, h: np.ndarray) -> np.ndarray:
        return self.fit.weights_derivatives(self.n_params, self.n_tokens, h)[0]

    def derivatives(self, target: np.ndarray):
        used = np.flatnonzero(target > 0)

        def evaluate(h: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            with np.errstate(all="ignore"):
                loss, gradient, hessian = self.fit.weights_derivatives(self.n_params, self.n_tokens, h)
                v = target[used]
                return float(v @ loss[used]), v @ gradient[used], np.tensordot(v, hessian[used], 1)

        return evaluate

    @property
    def scale(self) -> Scale:
        reference = self.fit.reference
        return Scale(
            n_params=self.n_params or 1.0,
            n_tokens=self.n_tokens or 1.0,
            n_ref=float(reference.n_params or 1.0),
            d_ref=float(reference.n_tokens or 1.0),
        )


def optimize_mixture(
    fit: Fit,
    *,
    n_params: float | None = None,
    n_tokens: float | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = 4.0,
    target: Mapping[str, float] | None = None,
    seed: int = 0,
) -> MixtureResult:
    """The mixture with the least predicted loss at a scale, with a certificate.

    Parameters
    ----------
    fit
        A fitted law that depends on mixture weights.
    n_params, n_tokens
        The run to plan: non-embedding parameters, training tokens. None only where the fitted runs have no
        such column.
    bounds
        Source to (lower, upper) fraction of the mixture; None for no limit.
    available
        Source to unique tokens that exist; each may be seen `max_epochs` times.
    max_epochs
        Passes over a source's unique tokens, for all sources or by source.
    target
        Domain to weight in the objective (any positive scale). Default: the mean over all domains.
    seed
        For the starts used where the law is not convex in the weights.

    Returns
    -------
    MixtureResult

    Raises
    ------
    OptimizeError
        For limits that make no sense or that no mixture satisfies, for a law without weights, and for a
        solution whose optimality gap stays open.

    Examples
    --------
    >>> import lawkit
    >>> fit = lawkit.load_fit("fit")  # doctest: +SKIP
    >>> best = lawkit.optimize_mixture(fit, n_params=7e9, n_tokens=1e12, bounds={"hq": (0, 0.5)})  # doctest: +SKIP
    >>> best.weights, best.optimality_gap  # doctest: +SKIP
    """
    if not fit.sources or "weights" not in fit.law.columns:
        raise OptimizeError(
            f"law {fit.law.name} does not depend on mixture weights, so there is no mixture to choose: "
            "fit runs with weight_<source> columns by a law of mixtures (lawkit laws lists them)"
        )
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
        if value is None and getattr(fit.runs, name) is not None:
            raise OptimizeError(f"{name} of the run to plan is missing: the fitted runs differ in it")
        if value is not None and not (math.isfinite(value) and value > 0):
            raise OptimizeError(f"{name} must be a positive number, got {value!r}")
    problem = MixtureProblem.build(
        fit.sources, fit.domains, n_tokens=n_tokens, bounds=bounds, available=available,
        max_epochs=max_epochs, target=target,
    )  # fmt: skip
    at = _Target(fit, n_params, n_tokens)
    solution = solve(at, problem, seed)
    free = solve(at, problem.unconstrained(), seed) if problem.limited else solution
    warnings = [*scale_warnings(fit, n_params, n_tokens), *edge_warnings(fit, solution.h), *solution.notes]
    return MixtureResult(
        weights=dict(zip(fit.sources, solution.h.tolist(), strict=True)),
        objective=solution.objective,
        predicted=dict(zip(fit.domains, at.losses(solution.h).tolist(), strict=True)),
        optimality_gap=solution.gap,
        certificate=solution.certificate,
        lower_bound=solution.lower_bound,
        active=tuple(_active(at, problem, solution, seed)),
        unconstrained_weights=dict(zip(fit.sources, free.h.tolist(), strict=True)),
        unconstrained_objective=free.objective,
        baselines=_baselines(at, problem),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def solve(at: _Target, problem: MixtureProblem, seed: int = 0) -> _Solution:
    """The best mixture of one problem, by the way that fits the law's shape."""
    law = at.fit.law
    if law.form == "capacity":
        return _solve_capacity(at, problem)
    if law.convex_in_weights:
        return _solve_convex(at, problem)
    return _solve_local(at, problem, seed)


def _solve_convex(at: _Target, problem: MixtureProblem) -> _Solution:
    evaluate = at.derivatives(problem.target)
    candidates, notes = [], []
    conic = FORMS.get(at.fit.law.form or "")
    if conic is not None:
        used = np.flatnonzero(problem.target > 0)
        part = problem.replace(domains=tuple(problem.domains[e] for e in used), target=problem.target[used])
        try:
            h = conic([at.fit.parameters[d] for d in part.domains], at.scale, part)
            candidates.append(_judged(evaluate, problem, problem.snap(h, 0.0)))
        except SolverError as error:
            notes.append(f"the conic solver failed ({error}); the interior-point method was used instead")
    if not candidates or candidates[0].gap > POLISH:
        candidates.append(_judged(evaluate, problem, minimise(evaluate, problem).h))
    # Weights a hair from a limit belong on it, unless the law's slope there says otherwise.
    best = min(candidates, key=lambda s: s.gap)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.gap <= max(best.gap, 0.1 * POLISH):
            best = snapped
            break
    if not best.gap <= TOLERANCE:
        raise OptimizeError(
            f"the best mixture found may be {best.gap:.3g} nats above the optimum, more than the {TOLERANCE:g} "
            f"that a law convex in the weights allows; law {at.fit.law.name} says it is convex: check its parameters"
        )
    return _Solution(
        best.h, best.objective, best.gradient, best.gap, "global", best.objective - best.gap, tuple(notes)
    )


def _solve_capacity(at: _Target, problem: MixtureProblem) -> _Solution:
    floored = problem.raised(capacity.MIN_WEIGHT)
    evaluate = at.derivatives(problem.target)
    parameters = at.fit.parameters[at.fit.domains[0]]
    own = [at.fit.domains.index(s) for s in at.fit.sources]
    ordered = floored.replace(domains=at.fit.sources, target=problem.target[own])
    found = capacity.solve(parameters, at.scale, ordered, evaluate)
    objective, gradient, _ = evaluate(found.h)
    gap = max(0.0, objective - found.lower_bound)
    if gap <= TOLERANCE:
        return _Solution(found.h, objective, gradient, gap, "global", found.lower_bound)
    note = (
        f"the mixture is within {gap:.2g} nats of the best possible, but that it is the best is not proven: "
        "the limits keep the capacity law's convex relaxation from being exact"
    )
    return _Solution(found.h, objective, gradient, gap, "local", found.lower_bound, (note,))


def _solve_local(at: _Target, problem: MixtureProblem, seed: int) -> _Solution:
    evaluate = at.derivatives(problem.target)
    found = multi_start(evaluate, problem, seed)
    best = _judged(evaluate, problem, found[0].h)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.objective <= best.objective + 1e-12 and snapped.gap < np.inf:
            best = snapped
            break
    agree = sum(s.objective <= best.objective + TOLERANCE for s in found)
    note = (
        f"law {at.fit.law.name} is not known to be convex in the weights: the mixture is the best of {len(found)} "
        f"starts, {agree} of which ended within {TOLERANCE:g} nats of it, and is proven only locally"
    )
    return _Solution(best.h, best.objective, best.gradient, best.gap, "local", None, (note,))


def _judged(evaluate, problem: MixtureProblem, h: np.ndarray) -> _Solution:
    objective, gradient, _ = evaluate(h)
    gap = frank_wolfe_gap(gradient, h, problem) if np.isfinite(objective) else np.inf
    return _Solution(h, objective, gradient, gap, "local", None)


def _active(at: _Target, problem: MixtureProblem, solution: _Solution, seed: int) -> list[ActiveConstraint]:
    """Limits that the mixture sits on, priced by how the slopes of the objective differ.

    Weight that a looser limit lets in (or out) is taken from (or given to) the best of the other sources, so
    a price is the source's own slope minus that source's: with weights strictly between their limits left,
    their common slope.
    """
    h, slope, near = solution.h, solution.gradient, 1e-9
    floor = capacity.MIN_WEIGHT if at.fit.law.form == "capacity" else 0.0
    lower = np.maximum(problem.lower, floor)
    at_lower, at_upper = h - lower < near, problem.upper - h < near
    inside = ~at_lower & ~at_upper
    out = []
    for i, source in enumerate(problem.sources):
        limited = problem.upper[i] < 1 or lower[i] > 0
        if not limited or not (at_lower[i] or at_upper[i]) or (at_lower[i] and lower[i] <= 0 and not at_upper[i]):
            continue
        others = np.arange(len(h)) != i
        if inside[others].any():
            pool = others & inside
            elsewhere = float(h[pool] @ slope[pool] / h[pool].sum())
        elif at_upper[i]:
            pool = others & ~at_lower
            elsewhere = float(slope[pool].max(initial=-np.inf))
        else:
            pool = others & ~at_upper
            elsewhere = float(slope[pool].min(initial=np.inf))
        price = float(slope[i]) - elsewhere
        if at_lower[i] and at_upper[i]:
            kind, limit = "availability" if problem.kinds[i] == "availability" else "fixed", problem.upper[i]
        elif at_upper[i]:
            kind, limit = "availability" if problem.kinds[i] == "availability" else "upper", problem.upper[i]
        else:
            kind, limit = ("lower" if problem.lower[i] >= floor else "law"), lower[i]
        if not np.isfinite(price):
            price = _first_point(at, problem, solution, i, seed)
        per_billion = 1e9 / problem.tokens_per_weight[i] * price if kind == "availability" else None
        out.append(
            ActiveConstraint(
                source=source, kind=kind, limit=float(limit), price=price, price_per_billion_tokens=per_billion
            )
        )
    return out


def _first_point(at: _Target, problem: MixtureProblem, solution: _Solution, i: int, seed: int) -> float:
    """Change of the objective per unit weight over the first hundredth, where the slope is infinite."""
    step = min(0.01, 1 - problem.upper[i])
    if step <= RESOLUTION:
        return math.nan
    upper = problem.upper.copy()
    upper[i] += step
    return (solve(at, problem.replace(upper=upper), seed).objective - solution.objective) / step


def _baselines(at: _Target, problem: MixtureProblem) -> dict[str, float]:
    K = len(problem.sources)
    runs = at.fit.runs
    recorded = np.unique(runs.weights[np.isfinite(runs.weights).all(axis=1)], axis=0)
    mixtures = np.vstack([np.full((1, K), 1 / K), recorded])
    n = len(mixtures)
    sizes = (None if size is None else np.full(n, size) for size in (at.n_params, at.n_tokens))
    with np.errstate(all="ignore"):
        objective = at.fit.losses(*sizes, mixtures) @ problem.target
    out = {"uniform": float(objective[0])}
    finite = objective[1:][np.isfinite(objective[1:])]
    if len(finite):
        out["best_recorded"] = float(finite.min())
    return out
